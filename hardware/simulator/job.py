"""One run's input and the arrays its results go to; groups of images fill them in any order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator.events import EventList
from gascnn.hardware.simulator.layers import LayerRun
from gascnn.toolkit.lowering.network import NetxNetwork


class Job:
    """A run of checked input.

    Args:
        network: what runs.
        inputs: (image, T, ...).
        every_spike: whether every spike is kept, or only counts.
        skip: read-out steps left out at the start.
    """

    def __init__(self, network: NetxNetwork, inputs: npt.NDArray[np.uint8], every_spike: bool, skip: int) -> None:
        self.network, self.inputs, self._skip = network, inputs, skip
        self.every_spike = every_spike
        self.total = inputs.shape[1] + network.depth
        self._sizes = [math.prod(layer.shape) for layer in network.layers]

    def allocate(self) -> None:
        """Make room for the results."""
        images, shapes = len(self.inputs), [layer.shape for layer in self.network.layers]
        self._counts = [np.zeros((images, *shape), dtype=np.int32) for shape in shapes]
        self._spikes = [np.zeros((images, self.total, *shape), dtype=bool) for shape in shapes if self.every_spike]
        self._output_counts = np.zeros((images, self._sizes[-1]), dtype=np.int32)
        self._membrane = np.zeros((images, self._sizes[-1]), dtype=np.int64)
        self._wraps = np.zeros((images, self.network.depth), dtype=np.int64)

    def keep(self, layer: int, group: slice, events: EventList, first: int) -> None:
        """Take a layer's spikes in a window that begins with step ``first``."""
        if self.every_spike:
            spikes = self._spikes[layer][group]
            events.write(spikes.reshape(*spikes.shape[:2], events.channels, events.pixels), first)
        if layer == self.network.depth - 1:
            late = max(0, self.network.depth + self._skip - first)
            events.add_counts(self._output_counts[group].reshape(-1, events.channels, events.pixels), late)

    def finish(self, layer: int, group: slice, run: LayerRun) -> None:
        """Take a layer's counts and wraps, and the last one's final state."""
        counts = run.counts()
        self._counts[layer][group] = counts.reshape(len(counts), *self.network.layers[layer].shape)
        self._wraps[group.start, layer] = run.wraps
        if layer == self.network.depth - 1:
            self._membrane[group] = run.membrane(self.network.reset)

    def result(self) -> RunResult:
        """Everything, when all groups are in."""
        return RunResult(
            steps=self.inputs.shape[1],
            counts=self._counts,
            output_counts=self._output_counts,
            output_membrane=self._membrane,
            spikes=self._spikes if self.every_spike else None,
            wraps=self._wraps.sum(axis=0).tolist(),
        )
