"""The synaptic operations of a deployed network, counted here and by NeuroBench: they must be equal.

NeuroBench (its metric ``SynapticOperations``) makes weights and inputs 0 or 1, runs the layer on them and adds up its
output; it never sees this project's code, and runs in the peers' interpreter. What it calls effective are weights other
than zero at inputs other than zero: the synaptic operations of :mod:`gascnn.benchmarks.counts`, padding left out by
both. Its dense count takes every stored weight at every step. It has no word for a spike's way back to its own neuron
(reset by subtraction, recurrent synapses): that is left apart. Of graded input it leaves out pixels that are zero,
which here are billed at every step: they are left apart too.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.activity import activity
from gascnn.benchmarks.counts import fan_out, input_spikes
from gascnn.benchmarks.peers import neurobench_counts
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.lowering.network import ConvLayer, NetxNetwork, layer_label

SCRIPT = Path(neurobench_counts.__file__)

_FRAMES_AT_ONCE = 256
_LIMIT_S = 600
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def neurobench_check(network: NetxNetwork, fed: npt.NDArray[np.generic], python: Path) -> dict[str, Any]:
    """Run a network and count its operations here and in NeuroBench.

    Args:
        network: any that the simulator runs.
        fed: (image, T, ...) spikes or graded input; every spike of every layer is written to a temporary folder.
        python: the peers' interpreter, :func:`gascnn.benchmarks.contenders.peers_python`.

    Returns:
        As :func:`compare`.

    Raises:
        BackendError: NeuroBench is not there, failed or took too long.
    """
    inputs = checked_spikes(network, fed)
    result = simulate(network, inputs, record="spikes")
    return compare(network, inputs, result, neurobench_counts_of(network, inputs, result, python))


def neurobench_counts_of(
    network: NetxNetwork, fed: npt.NDArray[np.uint8], result: RunResult, python: Path
) -> dict[str, Any]:
    """What NeuroBench counts in every layer of a recorded run, all images together.

    Args:
        network, fed: that ran, and checked input.
        result: with every spike.
        python: the peers' interpreter.

    Returns:
        ``versions``, and ``layers`` with ``acs``, ``macs`` and ``dense`` each.

    Raises:
        BackendError: NeuroBench is not there, failed or took too long.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, answer = folder / "plan.json", folder / "answer.json"
        layers = [_write_layer(network, k, sent, folder) for k, sent in enumerate(_sources(network, fed, result))]
        plan.write_text(json.dumps({"frames_at_once": _FRAMES_AT_ONCE, "layers": layers}), encoding="utf-8")
        _run([str(python), "-I", "-B", str(SCRIPT), str(plan), str(answer)])
        told: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return told


def compare(
    network: NetxNetwork, fed: npt.NDArray[np.uint8], result: RunResult, theirs: dict[str, Any]
) -> dict[str, Any]:
    """Put NeuroBench's counts beside those of :mod:`gascnn.benchmarks.activity`.

    Args:
        network, fed, result: as for :func:`neurobench_counts_of`.
        theirs: its answer.

    Returns:
        ``equal``; ``versions``; ``layers``, each with ``ours`` and ``neurobench`` (``effective``: ACs and MACs
        together; ``dense``), its ``acs`` and ``macs``, ``equal`` and ``apart`` (``own``, ``zero_pixels``); and the
        sums. Counts are of all images together. Layers are equal if both counts are, and spikes are billed as ACs.
    """
    counts = activity(network, fed, result).counts()
    layers = []
    for k, (sent, told) in enumerate(zip(_sources(network, fed, result), theirs["layers"], strict=True)):
        ways = [way for way in counts.ways if way.layer == k]
        own = sum(way.operations for way in ways if way.source == "own")
        billed = sum(way.operations for way in ways) - own
        effective, graded = billed, any(way.graded for way in ways)
        if k == 0 and network.input_bits and network.input.neuron is None:
            reach = fan_out(network.layers[0], network.input_shape)
            effective = int((np.count_nonzero(sent, axis=(0, 1)) * reach).sum())
        stored = int(fan_out(network.layers[k], network.input_of(k), stored=True).sum())
        ours = {"effective": effective, "dense": stored * sent.shape[0] * sent.shape[1]}
        found = {"effective": told["acs"] + told["macs"], "dense": told["dense"]}
        layers.append(
            {
                "layer": layer_label(network, k),
                "equal": ours == found and (graded or not told["macs"]),
                "ours": ours,
                "neurobench": found,
                "acs": told["acs"],
                "macs": told["macs"],
                "apart": {"own": own, "zero_pixels": billed - effective},
            }
        )
    return {
        "equal": all(layer["equal"] for layer in layers),
        "versions": theirs["versions"],
        "images": counts.images,
        "steps": counts.steps,
        "layers": layers,
        **{who: _sums([layer[who] for layer in layers]) for who in ("ours", "neurobench", "apart")},
    }


def _sources(network: NetxNetwork, fed: npt.NDArray[np.uint8], result: RunResult) -> list[npt.NDArray[np.generic]]:
    """(image, T + K, ...) what each layer receives; graded values as numbers, input neurons' messages as 1."""
    first: npt.NDArray[np.generic] = input_spikes(network, fed)
    if network.input_bits and network.input.neuron is None:
        silent = np.zeros((len(fed), network.depth, *fed.shape[2:]), dtype=fed.dtype)
        first = np.concatenate([fed, silent], axis=1)
    sent = result.messages if result.messages is not None else result.spikes
    assert sent is not None
    return [first, *sent[:-1]]


def _write_layer(network: NetxNetwork, k: int, sent: npt.NDArray[np.generic], folder: Path) -> dict[str, Any]:
    layer = network.layers[k]
    names = {"weight": f"weight_{k:02d}.npy", "spikes": f"spikes_{k:02d}.npy"}
    np.save(folder / names["weight"], layer.weight.astype(np.int32), allow_pickle=False)
    frames = sent.astype(np.uint8) if sent.dtype == np.bool_ else sent
    np.save(folder / names["spikes"], frames.reshape(-1, *sent.shape[2:]), allow_pickle=False)
    geometry = ("stride", "padding", "dilation", "groups") if isinstance(layer, ConvLayer) else ()
    return {"kind": layer.kind, **names, **{name: getattr(layer, name) for name in geometry}}


def _run(command: list[str]) -> None:
    variables = {**os.environ, **dict.fromkeys(_THREADS, "1")}
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True, env=variables)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"NeuroBench: no answer within {_LIMIT_S} s; give it fewer images") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        why = lines[-1] if lines else f"status {error.returncode}"
        raise BackendError(f"NeuroBench failed in {command[0]} ({why}); run 'make peers'") from error
    except OSError as error:
        raise BackendError(f"NeuroBench: could not start {command[0]}: {error.strerror}; run 'make peers'") from error


def _sums(counts: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(one[name] for one in counts) for name in counts[0]}
