"""Run a deployed network on spikes, layer by layer over the whole time window (layers only look back one step)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.result import RunResult, concatenate
from gascnn.hardware.simulator.neuron import Population
from gascnn.hardware.simulator.synapse import ConvSynapse, dense_synapses, recurrent_synapse
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import ConvLayer, NetxNetwork, SynapticLayer, layer_label

Spikes = npt.NDArray[np.generic]
Current = Callable[[Spikes, int, int], npt.NDArray[np.int32]]

_MEMORY_BYTES = 768 << 20
"""What the arrays of one batch may take; images are run in batches that fit."""

_STEPS_AT_ONCE = 16


def simulate(
    network: NetxNetwork,
    spikes: Spikes,
    *,
    steps: int | None = None,
    record: Literal["spikes", "counts"] = "counts",
    skip_steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> RunResult:
    """Run ``network`` from rest for T + K steps on every image, exactly as Lava would.

    Args:
        network: integers, as read from a file or lowered.
        spikes: (image, step, ...) with the network's input shape, constant channels included or left out; uint8.
            0/1, or integers below ``2**input_bits`` where the first layer takes graded input. Integers also reach
            input neurons as they are.
        steps: T, the number of input steps; default all of ``spikes``. Missing steps are silent.
        record: ``spikes`` keeps every spike of every synaptic layer, ``counts`` only how many each neuron fired.
        skip_steps: read-out steps left out at the start; default what the file says.
        progress: called with the number of images finished so far.

    Returns:
        Counts, read-out and, if asked, all spikes.

    Raises:
        UsageError: ``steps`` below 1, or ``skip_steps`` that leave nothing to read out.
        DataError: spikes of another shape or kind than the network takes.
        LimitError: weights with which Lava's own result is undefined.
    """
    inputs = checked_spikes(network, spikes, steps)
    skip = skip_steps if skip_steps is not None else (network.deployment.skip_steps if network.deployment else 0)
    if not 0 <= skip < inputs.shape[1]:
        raise UsageError(f"skip_steps is {skip}; it must be 0..{inputs.shape[1] - 1} for {inputs.shape[1]} steps")
    batch = _images_at_once(network, inputs.shape[1] + network.depth)
    results = []
    for start in range(0, len(inputs), batch):
        results.append(_run_batch(network, inputs[start : start + batch], record == "spikes", skip))
        if progress is not None:
            progress(min(start + batch, len(inputs)))
    return concatenate(results)


def _images_at_once(network: NetxNetwork, steps: int) -> int:
    """How many images fit: spikes of two neighbouring layers, sums and state of one."""
    sizes = [math.prod(network.input_shape), *(math.prod(layer.shape) for layer in network.layers)]
    per_image = max(
        (before + after) * steps + (before + 4 * after) * 4 * _STEPS_AT_ONCE for before, after in pairwise(sizes)
    )
    return max(1, _MEMORY_BYTES // per_image)


def _run_batch(network: NetxNetwork, inputs: Spikes, keep: bool, skip: int) -> RunResult:
    images, steps = inputs.shape[:2]
    total = steps + network.depth
    previous: Spikes = np.zeros((images, total, *network.input_shape), dtype=inputs.dtype)
    previous[:, :steps] = inputs
    if network.input.neuron is not None:
        previous = _run_input_neurons(network, previous)
    recorded: list[npt.NDArray[np.bool_]] = []
    counts, wraps = [], []
    fired = np.zeros((images, total, 0), dtype=bool)
    for index, layer in enumerate(network.layers):
        graded = index == 0 and network.input.neuron is None and network.input_bits > 0
        largest = 2**network.input_bits - 1 if graded else 1
        source = previous if graded else previous != 0
        fired, population = _run_layer(layer, source, largest, layer_label(network, index))
        counts.append(fired.sum(axis=1, dtype=np.int32))
        wraps.append(population.wraps)
        if keep:
            recorded.append(fired)
        previous = fired
    return RunResult(
        steps=steps,
        counts=counts,
        output_counts=fired[:, network.depth + skip :].reshape(images, steps - skip, -1).sum(axis=1, dtype=np.int32),
        output_membrane=_final_membrane(network, population, fired[:, -1]).reshape(images, -1),
        spikes=recorded if keep else None,
        wraps=wraps,
    )


def _run_input_neurons(network: NetxNetwork, values: Spikes) -> npt.NDArray[np.bool_]:
    """Input neurons receive the values at their ``a_in`` without delay."""
    assert network.input.neuron is not None
    images, total = values.shape[:2]
    population = Population(network.input.neuron, network.input_shape, images)
    spikes = np.zeros(values.shape, dtype=bool)
    for t in range(total):
        spikes[:, t] = population.step(values[:, t].astype(np.int32))
    return spikes


def _run_layer(
    layer: SynapticLayer, source: Spikes, largest_input: int, label: str
) -> tuple[npt.NDArray[np.bool_], Population]:
    """All steps of one layer; ``source`` is (image, T + K, ...), step t of the result sees its step t - 1."""
    images, total = source.shape[:2]
    current = _current(layer, largest_input, label)
    population = Population(layer.neuron, layer.shape, images, layer.bias)
    inhibition = None if layer.self_weight is None else layer.self_weight.astype(np.int32)
    if inhibition is not None:
        inhibition = inhibition.reshape(-1, *(1,) * (len(layer.shape) - 1))
    recurrent = None if isinstance(layer, ConvLayer) else recurrent_synapse(layer, label)
    spikes = np.zeros((images, total, *layer.shape), dtype=bool)
    for start in range(0, total, _STEPS_AT_ONCE):
        stop = min(start + _STEPS_AT_ONCE, total)
        sums = current(source, start, stop)
        for t in range(start, stop):
            now = sums[:, t - start]
            if t and inhibition is not None:
                now = now - inhibition * spikes[:, t - 1]
            if t and recurrent is not None:
                now = now + recurrent(spikes[:, t - 1])
            spikes[:, t] = population.step(now)
    return spikes, population


def _current(layer: SynapticLayer, largest_input: int, label: str) -> Current:
    """Function giving the synaptic sums of steps ``start`` to ``stop`` from the whole input."""
    if isinstance(layer, ConvLayer):
        conv = ConvSynapse(layer, largest_input, label)
        return lambda source, start, stop: _delayed(conv, source, start, stop, layer.shape, 1)
    dense = dense_synapses(layer, largest_input, label)

    def sums(source: Spikes, start: int, stop: int) -> npt.NDArray[np.int32]:
        parts = (_delayed(synapse, source, start, stop, layer.shape, 1 + d) for d, synapse in dense.items())
        return np.asarray(sum(parts), dtype=np.int32)

    return sums


def _delayed(
    synapse: Callable[[Spikes], npt.NDArray[np.int32]],
    source: Spikes,
    start: int,
    stop: int,
    shape: tuple[int, ...],
    delay: int,
) -> npt.NDArray[np.int32]:
    """Sums at steps start..stop from the input ``delay`` steps earlier; nothing before the first step."""
    images = len(source)
    result = np.zeros((images, stop - start, *shape), dtype=np.int32)
    first = max(start, delay)
    if first < stop:
        window = source[:, first - delay : stop - delay]
        sums = synapse(window.reshape(images * (stop - first), *source.shape[2:]))
        result[:, first - start :] = sums.reshape(images, stop - first, *shape)
    return result


def _final_membrane(
    network: NetxNetwork, population: Population, last_spikes: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    if network.reset == "zero":
        return population.v.astype(np.int64)
    theta = network.layers[-1].self_weight
    assert theta is not None
    pending = theta.astype(np.int64).reshape(-1, *(1,) * (last_spikes.ndim - 2)) * last_spikes
    return population.u.astype(np.int64) - (pending << 6)
