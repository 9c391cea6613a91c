"""Where the simulator's time goes: each layer's share, and in it that of spikes and that of membranes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator.events import EventList, events_of
from gascnn.hardware.simulator.layers import KernelRun
from gascnn.hardware.simulator.layout import LayerLayout
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import NetxNetwork, layer_label

_REPETITIONS = 7


@dataclass(frozen=True)
class LayerShare:
    """One layer's time for one image, in one thread.

    Attributes:
        name: of the layer.
        input_spikes: that came in.
        firing_rate: of its own neurons, spikes a neuron and step.
        time_s: the whole layer.
        membrane_s: the same without any input spike: membranes, thresholds, clearing of sums.
        additions: rows of up to 64 weights the spikes added, borders left out of account.
    """

    name: str
    input_spikes: int
    firing_rate: float
    time_s: float
    membrane_s: float
    additions: float

    @property
    def spikes_s(self) -> float:
        """What the spikes cost."""
        return max(0.0, self.time_s - self.membrane_s)

    @property
    def addition_ns(self) -> float:
        """Time of one added row."""
        return 1e9 * self.spikes_s / max(self.additions, 1.0)


@dataclass(frozen=True)
class Profile:
    """Where the time of one image goes, in one thread.

    Attributes:
        sorting_s: making events of the input.
        layers: one a synaptic layer.
    """

    sorting_s: float
    layers: tuple[LayerShare, ...]

    @property
    def time_s(self) -> float:
        """All of it."""
        return self.sorting_s + sum(layer.time_s for layer in self.layers)


def profile(network: NetxNetwork, spikes: npt.NDArray[np.generic]) -> Profile:
    """Time each layer on the first image, by events; the fastest of some repetitions counts.

    Args:
        network: of layers that take events: no delays, no recurrent synapses, no groups, no graded input.
        spikes: (image, step, ...).

    Raises:
        UsageError: a network with something else.
        DataError: spikes of another shape or kind than it takes.
    """
    inputs = checked_spikes(network, spikes[:1])
    total = inputs.shape[1] + network.depth
    padded = np.zeros((1, total, inputs.shape[2], int(np.prod(inputs.shape[3:]))), dtype=np.uint8)
    padded[:, : inputs.shape[1]] = inputs.reshape(1, *inputs.shape[1:3], -1)
    sorting_s, source = _fastest(lambda: events_of(padded))
    shares = []
    for index, layer in enumerate(network.layers):
        largest = 2**network.input_bits - 1 if index == 0 and network.input_bits else 1
        layout = LayerLayout(layer, network.input_of(index), largest, layer_label(network, index))
        if layout.stepwise or not layout.takes_events or network.input.neuron is not None:
            raise UsageError(f"{layout.label} does not take events; profile a network without such layers")
        layout.prepare()
        silent = replace(source, stop=source.start)
        membrane_s, _ = _fastest(_run(layout, silent, total))
        time_s, events = _fastest(_run(layout, source, total))
        rate = events.count / (int(np.prod(layer.shape)) * total)
        additions = layout.events_cost(source.count)
        shares.append(LayerShare(layout.label, source.count, rate, time_s, membrane_s, additions))
        source = events
    return Profile(sorting_s, tuple(shares))


def _run(layout: LayerLayout, source: EventList, steps: int) -> Callable[[], EventList]:
    return lambda: KernelRun(layout, 1, "events").step(source, steps, 1)


def _fastest(run: Callable[[], EventList]) -> tuple[float, EventList]:
    events = run()
    times = []
    for _ in range(_REPETITIONS):
        start = time.process_time()
        events = run()
        times.append(time.process_time() - start)
    return min(times), events
