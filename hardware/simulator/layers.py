"""One layer over one window of steps, by the method that suits its input; every method gives the same spikes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from gascnn.hardware.simulator.events import BLOCK, EventList, blocks_of, events_of
from gascnn.hardware.simulator.kernels import Room, Source, Target, Window, run_events, run_sums
from gascnn.hardware.simulator.layout import FRAMES_BYTES, LayerLayout, empty_aligned
from gascnn.hardware.simulator.membrane import General, Inhibited, Integrating, State, Sums
from gascnn.hardware.simulator.plain import final_membrane, run_layer
from gascnn.hardware.simulator.vectors import LANES
from gascnn.toolkit.lowering.network import DenseLayer, Reset

Frames = npt.NDArray[np.generic]
Method = Literal["auto", "events", "dense"]
Kernel = Callable[[int, int, Target, int], tuple[int, int]]

_CACHE_BYTES = 16 << 10
"""Room for the sums of a tile of pixels: half a first-level cache; the weights of one tap have the other half."""

_TILE_MAX = 8
_FIRST_GUESS = 0.08
"""Firing rate for which room is made at first; it grows where more neurons fire."""

_dense_lock = threading.Lock()
"""The library behind a dense sum has threads of its own: one such sum at a time."""


class LayerRun(Protocol):
    """A layer and the memory of its neurons for some images, window after window."""

    @property
    def wraps(self) -> int:
        """How often a current wrapped so far."""
        ...

    def step(self, source: EventList | Frames, steps: int, shift: int) -> EventList:
        """Run ``steps`` steps; ``shift`` is 1 where the first of them has no input yet, else 0."""
        ...

    def counts(self) -> npt.NDArray[np.int32]:
        """(image, channel, pixel) spikes so far."""
        ...

    def membrane(self, reset: Reset) -> npt.NDArray[np.int64]:
        """(image, channel * pixel) what the read-out calls membrane potential."""
        ...


class KernelRun:
    """A layer whose neurons the kernels update.

    Args:
        layout: of the layer.
        images: how many.
        method: how synaptic sums are computed where there is a choice.
        workers: where parts of the rows run at the same time; None to stay in this thread.
        parts: how many parts.
    """

    def __init__(
        self, layout: LayerLayout, images: int, method: Method, workers: Executor | None = None, parts: int = 1
    ) -> None:
        self._layout, self._images, self._method = layout, images, method
        self._workers, self._parts = workers, parts if workers is not None else 1
        kind = type(layout.neurons)
        kept = (kind is not Integrating, kind is not Inhibited, kind is General, True)
        u, v, pending, counts = (
            empty_aligned(images * layout.cells if keep else 0, np.int32, zero=True) for keep in kept
        )
        self._state = State(u, v, pending, counts, np.zeros(1, dtype=np.int64))
        self._own_wraps = [np.zeros(1, dtype=np.int64) for _ in range(self._parts)]

    @property
    def wraps(self) -> int:
        """How often a current wrapped."""
        return sum(int(number[0]) for number in self._own_wraps)

    def step(self, source: EventList | Frames, steps: int, shift: int) -> EventList:
        """See :class:`LayerRun`."""
        if isinstance(source, EventList) and self._by_events(source, steps):
            return self._events(source, steps, shift)
        return self._sums(source, steps, shift)

    def membrane(self, reset: Reset) -> npt.NDArray[np.int64]:
        """See :class:`LayerRun`; for reset by subtraction what is left after the last one."""
        state = self._state
        values = state.v if reset == "zero" else state.u - state.pending if state.pending.size else state.u
        return self._channels_first(values).reshape(self._images, -1).astype(np.int64)

    def counts(self) -> npt.NDArray[np.int32]:
        """See :class:`LayerRun`."""
        return self._channels_first(self._state.counts)

    def _channels_first(self, values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        layout = self._layout
        shaped = values.reshape(self._images, layout.pixels, layout.geometry.padded)
        return shaped[:, :, : layout.layer.shape[0]].transpose(0, 2, 1)

    def _by_events(self, source: EventList, steps: int) -> bool:
        if not self._layout.takes_events or self._method == "dense":
            return False
        if self._method == "events":
            return True
        return self._layout.events_cost(source.count) < self._layout.dense_cost(self._images * steps)

    def _events(self, source: EventList, steps: int, shift: int) -> EventList:
        layout, geometry, synapses = self._layout, self._layout.geometry, self._layout.synapses
        pixels_in = source.pixels
        if isinstance(layout.layer, DenseLayer) and pixels_in == 1 and self._parts == 1:
            # Images as pixels of one row: a tile of them shares each block of weights.
            geometry, pixels_in = geometry._replace(width_in=self._images, width=self._images), self._images
        row = (steps + 1) * min(BLOCK, geometry.padded)
        room = _CACHE_BYTES // (row * synapses.weights.itemsize)
        tile = max(1, min(room, _TILE_MAX, geometry.width))
        window = Window(steps, shift, tile, pixels_in, source.blocks)
        given = Source(source.start, source.stop, source.events)
        rows = np.arange(steps)

        def kernel(part: int) -> Kernel:
            partial = empty_aligned(tile * row, synapses.weights.dtype)
            room = Room(partial, empty_aligned(tile * row, np.int32) if synapses.split else partial)
            state = self._state._replace(wraps=self._own_wraps[part])

            def run(first: int, last: int, target: Target, end: int) -> tuple[int, int]:
                return run_events(  # type: ignore[no-any-return]
                    first, last, geometry, window, given, synapses, layout.neurons, state, rows, room, target, end
                )

            return run

        return self._gathered(kernel, geometry.width, steps)

    def _sums(self, source: EventList | Frames, steps: int, shift: int) -> EventList:
        layout, geometry = self._layout, self._layout.geometry
        frames = source if not isinstance(source, EventList) else _dense(source, steps - shift)
        # Frame 0 is silence: before the input, behind it, and where it holds the same frame all the time.
        values, rows = _frame_sums(layout, frames, steps, shift)
        neurons = layout.neurons
        if isinstance(neurons, General):  # the sums have been shifted
            neurons = neurons._replace(shift_left=0, shift_right=0)
        sums, count = Sums(values.reshape(-1), rows, layout.cells), values.shape[1]

        def kernel(part: int) -> Kernel:
            state = self._state._replace(wraps=self._own_wraps[part])

            def run(first: int, last: int, target: Target, end: int) -> tuple[int, int]:
                return run_sums(  # type: ignore[no-any-return]
                    first, last, geometry, steps, count, sums, neurons, state, target, end
                )

            return run

        return self._gathered(kernel, geometry.width, steps)

    def _gathered(self, kernel: Callable[[int], Kernel], width: int, steps: int) -> EventList:
        """Run a kernel over all rows of ``width`` pixels, in parts; one list of their events."""
        layout, geometry = self._layout, self._layout.geometry
        size = self._images * layout.pixels * blocks_of(geometry.padded)
        start, stop = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
        height = self._images * layout.pixels // width
        bounds = np.linspace(0, height, min(self._parts, height) + 1).astype(int).tolist()
        ranges = list(pairwise(bounds))
        most = width * geometry.padded * steps

        def part(number: int) -> npt.NDArray[np.uint32]:
            return _growing(kernel(number), start, stop, ranges[number], most)

        if len(ranges) == 1 or self._workers is None:
            pieces = [part(number) for number in range(len(ranges))]
        else:
            pieces = list(self._workers.map(part, range(len(ranges))))
        if len(pieces) > 1:
            _shift_places(pieces, ranges, size // height, start, stop)
        events = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return EventList(self._images, layout.pixels, layout.layer.shape[0], start, stop, events)


def _shift_places(
    pieces: Sequence[npt.NDArray[np.uint32]],
    ranges: Sequence[tuple[int, int]],
    places_a_row: int,
    start: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
) -> None:
    """Let the places of each part point into the joined list."""
    before = 0
    for piece, (first, last) in zip(pieces, ranges, strict=True):
        inside = slice(first * places_a_row, last * places_a_row)
        start[inside] += before
        stop[inside] += before
        before += len(piece)


def _growing(
    kernel: Kernel, start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64], rows: tuple[int, int], most: int
) -> npt.NDArray[np.uint32]:
    """Run a range of rows, giving the kernel more room whenever it stops for want of it.

    Args:
        kernel: what runs.
        start, stop: receive the places of the events.
        rows: the range.
        most: events one row can have.
    """
    first, last = rows
    worst = most * (last - first) + LANES
    events = np.empty(min(worst, int(_FIRST_GUESS * worst) + most + LANES), dtype=np.uint32)
    row, end = kernel(first, last, Target(start, stop, events), 0)
    while row < last:
        expected = int(1.2 * end / (row - first) * (last - first)) if row > first else 0
        larger = np.empty(min(worst, max(expected, end + len(events) // 2) + most + LANES), dtype=np.uint32)
        larger[:end] = events[:end]
        events = larger
        row, end = kernel(row, last, Target(start, stop, events), end)
    return events[:end]


def _dense(source: EventList, steps: int) -> npt.NDArray[np.bool_]:
    """(image, step, channel, pixel) spikes."""
    spikes = np.zeros((source.images, steps, source.channels, source.pixels), dtype=bool)
    source.write(spikes)
    return spikes


def _frame_sums(
    layout: LayerLayout, frames: Frames, steps: int, shift: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Sums of each frame, (image, 1 + frame, pixel, padded channel), the first being silence; and each step's frame."""
    geometry = layout.geometry
    images, given = frames.shape[:2]
    used = min(given, steps - shift)
    rows = np.zeros(steps, dtype=np.int64)
    rows[shift : shift + used] = np.arange(1, used + 1)
    if used > 1 and layout.largest_input > 1 and np.all(frames[:, 1:used] == frames[:, :1]):
        rows[shift : shift + used], used = 1, 1
    values = empty_aligned(images * (1 + used) * layout.cells, np.int32, zero=True)
    values = values.reshape(images, 1 + used, layout.pixels, geometry.padded)
    channels = layout.layer.shape[0]
    many = max(1, FRAMES_BYTES // (4 * layout.frame_elements))
    for image in range(0, images, max(1, many // max(1, used))):
        for start in range(0, used, many):
            part = frames[image : image + max(1, many // used), start : min(start + many, used)]
            with _dense_lock:
                sums = layout.frame_synapse(part.reshape(-1, *layout.before))
            places = values[image : image + len(part), 1 + start : 1 + start + part.shape[1], :, :channels]
            places[...] = sums.reshape(*part.shape[:2], channels, layout.pixels).swapaxes(2, 3)
    return values, rows


class StepwiseRun:
    """A layer with delays or recurrent synapses, in the plain version; takes all steps in one window."""

    def __init__(self, layout: LayerLayout, images: int) -> None:
        self._layout, self._images, self.wraps = layout, images, 0

    def step(self, source: EventList | Frames, steps: int, shift: int) -> EventList:
        """See :class:`LayerRun`; the plain version shifts by itself."""
        layout = self._layout
        frames = _dense(source, steps) if isinstance(source, EventList) else source
        given = np.zeros((self._images, steps, *layout.before), dtype=frames.dtype)
        used = min(steps, frames.shape[1])
        given[:, :used] = frames[:, :used].reshape(self._images, used, *layout.before)
        self._fired, self._population = run_layer(layout.layer, given, layout.largest_input, layout.label)
        self.wraps = self._population.wraps
        return events_of(self._fired.reshape(self._images, steps, layout.layer.shape[0], -1))

    def counts(self) -> npt.NDArray[np.int32]:
        """See :class:`LayerRun`."""
        counts: npt.NDArray[np.int32] = self._fired.sum(axis=1, dtype=np.int32)
        return counts.reshape(self._images, self._layout.layer.shape[0], -1)

    def membrane(self, reset: Reset) -> npt.NDArray[np.int64]:
        """See :class:`LayerRun`."""
        final = final_membrane(self._layout.layer, reset, self._population, self._fired[:, -1])
        return final.reshape(self._images, -1)
