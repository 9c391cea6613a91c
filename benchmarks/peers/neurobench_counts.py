"""NeuroBench's own count of synaptic operations: its metric over torch layers with given weights and inputs.

Started with the peers' interpreter as ``neurobench_counts.py PLAN ANSWER``. The plan is JSON beside the arrays it
names: for each layer ``kind``, ``weight``, ``spikes`` ((frame, ...) integers, one frame an image and step) and, for
``conv``, ``stride``, ``padding``, ``dilation`` and ``groups``. The answer has, for each layer, what the metric added
up: ``acs``, ``macs`` and ``dense``.

Layers are float64: the metric adds up with the layer's own type, and float32 is exact up to 2^24 operations only.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("neurobench", "torch", "snntorch")


def count_layer(layer: dict[str, Any], folder: Path, frames_at_once: int) -> dict[str, int]:
    """What NeuroBench counts in one layer, all frames together."""
    torch = import_module("torch")
    weight = torch.from_numpy(np.load(folder / layer["weight"], allow_pickle=False).astype(np.float64))
    spikes = np.load(folder / layer["spikes"], allow_pickle=False)
    if layer["kind"] == "conv":
        geometry = {name: tuple(layer[name]) for name in ("stride", "padding", "dilation")}
        channels = (weight.shape[1] * layer["groups"], weight.shape[0])
        module = torch.nn.Conv2d(*channels, tuple(weight.shape[2:]), groups=layer["groups"], bias=False, **geometry)
    else:
        module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        spikes = spikes.reshape(len(spikes), -1)
    module.weight = torch.nn.Parameter(weight, requires_grad=False)
    model = import_module("neurobench.models").TorchModel(torch.nn.Sequential(module))
    metric = import_module("neurobench.metrics.workload").SynapticOperations()
    model.register_hooks()
    with torch.no_grad():
        for start in range(0, len(spikes), frames_at_once):
            frames = torch.from_numpy(spikes[start : start + frames_at_once].astype(np.float64))
            metric(model, model(frames), (frames, None))
            model.reset_hooks()
    model.cleanup_hooks()
    return {"acs": metric.AC, "macs": metric.MAC, "dense": metric.total_synops}


def main(arguments: list[str]) -> int:
    """Count what the plan says."""
    plan, answer = map(Path, arguments)
    import_module("torch").set_num_threads(1)
    described = json.loads(plan.read_text(encoding="utf-8"))
    layers = [count_layer(layer, plan.parent, described["frames_at_once"]) for layer in described["layers"]]
    told = {"versions": {name: version(name) for name in PACKAGES}, "layers": layers}
    answer.write_text(json.dumps(told), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
