"""Spikes as lists of events, pixel by pixel: what the kernels read and write."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from gascnn.hardware.simulator.vectors import LANES

BLOCK = 2 * LANES
"""Channels that are computed together."""

_compiled = numba.njit(nogil=True, cache=True)


@dataclass(frozen=True, eq=False)
class EventList:
    """Spikes of one layer and one window of steps.

    Attributes:
        images, pixels, channels: of the layer; a dense one has one pixel.
        start, stop: int64, (image, pixel, block of channels) flat: where that block's events are.
        events: uint32, ``channel << 16 | step`` (16 bits each), steps counted from the window's first.
    """

    images: int
    pixels: int
    channels: int
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    events: npt.NDArray[np.uint32]

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return blocks_of(self.channels)

    @property
    def count(self) -> int:
        """Number of spikes."""
        return int((self.stop - self.start).sum())

    def write(self, spikes: npt.NDArray[np.bool_], first: int = 0) -> None:
        """Set the spikes in (image, step, channel, pixel), from step ``first`` on; steps beyond it are left out."""
        _write(self.start, self.stop, self.events, self.blocks, first, spikes)

    def add_counts(self, counts: npt.NDArray[np.int32], step: int = 0) -> None:
        """Add each neuron's spikes from a step of the window on to (image, channel, pixel) ``counts``."""
        _count(self.start, self.stop, self.events, self.blocks, step, counts)


def blocks_of(channels: int) -> int:
    """Blocks that so many channels make."""
    return -(-channels // BLOCK)


def events_of(spikes: npt.NDArray[np.generic]) -> EventList:
    """Events of (image, step, channel, pixel) spikes; whatever is not 0 is one."""
    images, _, channels, pixels = spikes.shape
    found = np.flatnonzero(spikes != 0)
    counts = np.zeros(images * pixels * blocks_of(channels), dtype=np.int64)
    _sort(found, spikes.shape, counts, np.empty(0, dtype=np.uint32))
    stop = np.cumsum(counts)
    start, events = stop - counts, np.empty(stop[-1], dtype=np.uint32)
    stop = start.copy()
    _sort(found, spikes.shape, stop, events)
    return EventList(images, pixels, channels, start, stop, events)


@_compiled
def _sort(
    found: npt.NDArray[np.int64],
    shape: tuple[int, int, int, int],
    end: npt.NDArray[np.int64],
    events: npt.NDArray[np.uint32],
) -> None:
    """Advance each place's ``end`` by one a spike, and write the event there first if there is room for events.

    ``found`` are flat indices into (image, step, channel, pixel), in order.
    """
    _, steps, channels, pixels = shape
    blocks = (channels + BLOCK - 1) // BLOCK
    image, t, first = 0, 0, 0
    for index in found:
        while index >= first + channels * pixels:
            first += channels * pixels
            t += 1
            if t == steps:
                image, t = image + 1, 0
        c = (index - first) // pixels
        place = (image * pixels + index - first - c * pixels) * blocks + c // BLOCK
        if events.size:
            events[end[place]] = c << 16 | t
        end[place] += 1


@_compiled
def _write(
    start: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
    events: npt.NDArray[np.uint32],
    blocks: int,
    first: int,
    spikes: npt.NDArray[np.bool_],
) -> None:
    """Events as an array; see :meth:`EventList.write`."""
    images, steps, _, pixels = spikes.shape
    for image in range(images):
        for pixel in range(pixels):
            place = (image * pixels + pixel) * blocks
            for part in range(place, place + blocks):
                for i in range(start[part], stop[part]):
                    step = first + (events[i] & 0xFFFF)
                    if step < steps:
                        spikes[image, step, events[i] >> 16, pixel] = True


@_compiled
def _count(
    start: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
    events: npt.NDArray[np.uint32],
    blocks: int,
    step: int,
    counts: npt.NDArray[np.int32],
) -> None:
    """See :meth:`EventList.add_counts`."""
    images, _, pixels = counts.shape
    for image in range(images):
        for pixel in range(pixels):
            place = (image * pixels + pixel) * blocks
            for part in range(place, place + blocks):
                for i in range(start[part], stop[part]):
                    if events[i] & 0xFFFF >= step:
                        counts[image, events[i] >> 16, pixel] += 1
