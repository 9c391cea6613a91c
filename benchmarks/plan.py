"""What every contender is given: the network, the input spikes and the ANN, as plain files in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gascnn.benchmarks.ann import AnnNode
from gascnn.benchmarks.networks import BenchNetwork
from gascnn.exporters.netx import write_netx
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.limits import DECAY_UNITY
from gascnn.toolkit.lowering.network import ConvLayer, NetxNetwork, SynapticLayer, layer_label
from gascnn.toolkit.lowering.netx_dense import effective_dense

PLAN = "plan.json"


def write_plan(bench: BenchNetwork, folder: Path, *, compile_peers: bool = False) -> Path:
    """Write what the contenders' processes read.

    Args:
        bench: network, input and ANN.
        folder: an empty folder.
        compile_peers: whether the frameworks on torch also try torch's compiler, which takes minutes.

    Returns:
        The path of ``plan.json``; the arrays beside it are named there.

    Raises:
        UsageError: a layer the peers' neurons cannot follow spike for spike.
    """
    network = bench.network
    check_peers_can_follow(network)
    write_netx(network, folder / "network.net")
    np.save(folder / "input.npy", bench.spikes, allow_pickle=False)
    plan = {
        "network": "network.net",
        "input": "input.npy",
        "input_shape": list(network.input_shape),
        "steps": bench.steps,
        "images": len(bench.spikes),
        "compile_peers": compile_peers,
        "layers": [_layer(layer, k, layer_label(network, k), folder) for k, layer in enumerate(network.layers)],
        "ann": [_node(node, folder) for node in bench.ann],
    }
    path = folder / PLAN
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


def check_peers_can_follow(network: NetxNetwork) -> None:
    """Refuse what plain integrate-and-fire neurons in float32 do not do.

    Raises:
        UsageError: names the layer and what it has.
    """
    if network.reset != "zero" or network.input_bits or network.input.neuron is not None:
        raise UsageError("the peers take spikes and reset to zero; this network has another reset or another input")
    for index, layer in enumerate(network.layers):
        neuron, label = layer.cuba, layer_label(network, index)
        odd = {
            "biases": layer.bias is not None and bool(np.any(layer.bias)),
            "a current that does not decay at once": bool(np.any(neuron.current_decay != DECAY_UNITY)),
            "a leak": bool(np.any(neuron.voltage_decay)),
            "several thresholds": np.size(neuron.threshold) > 1,
            "delays": getattr(layer, "delay", None) is not None,
            "recurrent synapses": getattr(layer, "weight_rec", None) is not None,
        }
        for what, there in odd.items():
            if there:
                raise UsageError(f"{label} has {what}, which the peers' neurons do not; choose another network")


def _layer(layer: SynapticLayer, index: int, label: str, folder: Path) -> dict[str, Any]:
    """A layer; the threshold lies half a unit higher, so that ``>`` and ``>=`` mean the same for integers."""
    described: dict[str, Any] = {
        "kind": layer.kind,
        "threshold": int(np.max(layer.neuron.threshold)) + 0.5,
        "weight": f"weight_{index:02d}.npy",
    }
    weight = layer.weight
    if isinstance(layer, ConvLayer):
        described |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    else:
        effective = effective_dense(layer, label)
        weight = effective.weight >> effective.shift
        if np.any(weight << effective.shift != effective.weight):
            raise UsageError(f"{label} rounds its sums, which the peers' layers do not; choose another network")
    np.save(folder / described["weight"], weight.astype(np.int32), allow_pickle=False)
    return described


def _node(node: AnnNode, folder: Path) -> dict[str, Any]:
    weight = None
    if node.weight is not None:
        weight = f"ann_{node.name}.npy"
        np.save(folder / weight, node.weight, allow_pickle=False)
    return {**vars(node), "inputs": list(node.inputs), "weight": weight}
