"""The simple version: numpy (and torch where it is installed), layer by layer, with arrays for every spike.

It runs where numba is missing and for what the kernels leave out, and is what they are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator.neuron import Population
from gascnn.hardware.simulator.synapse import ConvSynapse, dense_synapses, recurrent_synapse
from gascnn.toolkit.lowering.limits import STATE_SHIFT
from gascnn.toolkit.lowering.network import ConvLayer, DenseLayer, NetxNetwork, Reset, SynapticLayer, cuba, layer_label

Spikes = npt.NDArray[np.generic]
Current = Callable[[Spikes, int, int], npt.NDArray[np.int32]]

_STEPS_AT_ONCE = 16

_EVENT_CHANNELS_MAX = 1 << 16
"""Channels that the events of the fast version can name."""


def plain_only(layer: SynapticLayer, before: tuple[int, ...]) -> bool:
    """Whether the kernels leave a layer with input of shape ``before`` out: delays, recurrence, too many channels."""
    wide = max(before[0], layer.shape[0]) > _EVENT_CHANNELS_MAX
    return wide or (isinstance(layer, DenseLayer) and (layer.delay is not None or layer.weight_rec is not None))


def bytes_an_image(network: NetxNetwork, steps: int) -> int:
    """Memory an image takes: spikes of two neighbouring layers, sums and state of one."""
    sizes = [math.prod(network.input_shape), *(math.prod(layer.shape) for layer in network.layers)]
    return max(
        (before + after) * steps + (before + 4 * after) * 4 * _STEPS_AT_ONCE for before, after in pairwise(sizes)
    )


def run_plain(network: NetxNetwork, inputs: Spikes, keep: bool, skip: int) -> RunResult:
    """Run checked input of some images; ``keep`` every spike, leave ``skip`` read-out steps out."""
    images, steps = inputs.shape[:2]
    total = steps + network.depth
    previous: Spikes = np.zeros((images, total, *network.input_shape), dtype=inputs.dtype)
    previous[:, :steps] = inputs
    if network.input.neuron is not None:
        previous = run_input_neurons(network, previous)
    recorded: list[npt.NDArray[np.bool_]] = []
    counts, wraps = [], []
    fired = np.zeros((images, total, 0), dtype=bool)
    for index, layer in enumerate(network.layers):
        graded = index == 0 and network.input.neuron is None and network.input_bits > 0
        largest = 2**network.input_bits - 1 if graded else 1
        source = previous if graded else previous != 0
        fired, population = run_layer(layer, source, largest, layer_label(network, index))
        counts.append(fired.sum(axis=1, dtype=np.int32))
        wraps.append(population.wraps)
        if keep:
            recorded.append(fired)
        previous = fired
    return RunResult(
        steps=steps,
        counts=counts,
        output_counts=fired[:, network.depth + skip :].reshape(images, steps - skip, -1).sum(axis=1, dtype=np.int32),
        output_membrane=final_membrane(network.layers[-1], network.reset, population, fired[:, -1]).reshape(images, -1),
        spikes=recorded if keep else None,
        wraps=wraps,
    )


def run_input_neurons(network: NetxNetwork, values: Spikes) -> npt.NDArray[np.bool_]:
    """Input neurons receive the values at their ``a_in`` without delay."""
    images, total = values.shape[:2]
    population = Population(cuba(network.input.neuron), network.input_shape, images)
    spikes = np.zeros(values.shape, dtype=bool)
    for t in range(total):
        spikes[:, t] = population.step(values[:, t].astype(np.int32))
    return spikes


def run_layer(
    layer: SynapticLayer, source: Spikes, largest_input: int, label: str
) -> tuple[npt.NDArray[np.bool_], Population]:
    """All steps of one layer; ``source`` is (image, T + K, ...), step t of the result sees its step t - 1."""
    images, total = source.shape[:2]
    current = _current(layer, largest_input, label)
    population = Population(layer.cuba, layer.shape, images, layer.bias)
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


def final_membrane(
    layer: SynapticLayer, reset: Reset, population: Population, last_spikes: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Membrane potential after the last step: ``v``, or what is left of ``u`` when the last spikes are subtracted."""
    if reset == "zero":
        return population.v.astype(np.int64)
    assert layer.self_weight is not None
    pending = layer.self_weight.astype(np.int64).reshape(-1, *(1,) * (last_spikes.ndim - 2)) * last_spikes
    return population.u.astype(np.int64) - (pending << STATE_SHIFT)
