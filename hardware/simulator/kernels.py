"""Compiled kernels: spikes of one layer in, spikes of the next out, for whole time windows, in exact integers.

An **event** is a spike as one number, ``channel << 16 | step``; the events of a pixel and of ``BLOCK`` neighbouring
channels lie together (:mod:`gascnn.hardware.simulator.events`). For each output pixel and block of output channels,
every event in its receptive field adds one row of weights to the row of its step; the membranes of these neurons then
run through all steps (:mod:`gascnn.hardware.simulator.membrane`) and append their own events. All of that stays in the
first-level cache.

Arrays of neurons have the index ``(image * pixels + pixel) * padded + channel``. Numba keeps the machine code on disk
and looks at the date of this file alone: after a change in ``vectors.py`` or ``membrane.py``, touch it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from gascnn.hardware.simulator.events import BLOCK
from gascnn.hardware.simulator.membrane import Place, Sums, update
from gascnn.hardware.simulator.vectors import LANES, add, add_row, load, store

_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")
_without_wrappers: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inner = numba.njit(nogil=True, error_model="numpy", **_without_wrappers)  # called from compiled code alone


class Geometry(NamedTuple):
    """Sizes of a layer; a dense one is a convolution whose kernel covers its whole input."""

    height_in: int
    width_in: int
    channels_in: int
    height: int
    width: int
    padded: int
    kernel_height: int
    kernel_width: int
    stride_v: int
    stride_h: int
    padding_v: int
    padding_h: int
    dilation_v: int
    dilation_h: int


class Window(NamedTuple):
    """Which steps are computed.

    ``shift`` is by how many steps the input's window begins later than one step before this one's; ``tile`` is how many
    pixels are computed together.
    """

    steps: int
    shift: int
    tile: int
    pixels_in: int
    blocks_in: int


class Source(NamedTuple):
    """Events of the layer before; those of (image, pixel, block) are ``events[start:stop]``."""

    start: np.ndarray
    stop: np.ndarray
    events: np.ndarray


class Synapses(NamedTuple):
    """Weights as (block, tap, input channel, lane), the last block perhaps half as wide.

    A partial sum holds no more than one group of (tap, input block).
    """

    weights: np.ndarray
    group: np.ndarray
    split: bool


class Room(NamedTuple):
    """For the sums of one tile: partial ones, and their total (the same array where they are not split)."""

    partial: np.ndarray
    total: np.ndarray


class Target(NamedTuple):
    """Receives this layer's events; see :class:`Source`."""

    start: np.ndarray
    stop: np.ndarray
    events: np.ndarray


@_inner
def _scatter(source, place, offset, base, lanes, partial, weights):
    """Let each event of one place add its row of weights to the row of its step."""
    # Unsigned, so that numba does not look for negative indices.
    places = range(np.uint64(source.start[place]), np.uint64(source.stop[place]))
    if lanes == LANES:
        for i in places:
            event = source.events[i]
            row = offset + np.int64(event & np.uint32(0xFFFF)) * LANES
            add_row(partial, row, weights, base + np.int64(event >> np.uint32(16)) * LANES)
    else:
        for i in places:
            event = source.events[i]
            row = offset + np.int64(event & np.uint32(0xFFFF)) * BLOCK
            index = base + np.int64(event >> np.uint32(16)) * BLOCK
            add_row(partial, row, weights, index)
            add_row(partial, row + LANES, weights, index + LANES)


@_inner
def _move(room, size):
    """``total += partial; partial = 0``."""
    for i in range(0, size, LANES):
        store(room.total, i, add(load(room.total, i), load(room.partial, i)))
    room.partial[:size] = 0


@_inner
def _add_events(geometry, window, source, synapses, image, y, x, width, block, lanes, room):
    """Sums of ``width`` output pixels from (y, x) on and one block of channels, as (pixel, step + 1 spare, channel)."""
    row = (window.steps + 1) * lanes
    size = width * row
    room.partial[:size] = 0
    if synapses.split:
        room.total[:size] = 0
    taps = geometry.kernel_height * geometry.kernel_width
    group = 0
    for tap in range(taps):
        from_y = y * geometry.stride_v - geometry.padding_v + tap // geometry.kernel_width * geometry.dilation_v
        if from_y < 0 or from_y >= geometry.height_in:
            continue
        step_x = tap % geometry.kernel_width * geometry.dilation_h - geometry.padding_h
        base = (block * taps * BLOCK + tap * lanes) * geometry.channels_in
        for part in range(window.blocks_in):
            if synapses.split and synapses.group[tap * window.blocks_in + part] != group:
                group = synapses.group[tap * window.blocks_in + part]
                _move(room, size)
            for j in range(width):
                from_x = (x + j) * geometry.stride_h + step_x
                if 0 <= from_x < geometry.width_in:
                    pixel = image * window.pixels_in + from_y * geometry.width_in + from_x
                    place, offset = pixel * window.blocks_in + part, j * row + window.shift * lanes
                    _scatter(source, place, offset, base, lanes, room.partial, synapses.weights)
    if synapses.split:
        _move(room, size)


@_inner
def _close(target, place, end, counts, cell):
    """Close the list of a pixel's block of channels, and count its spikes from neuron ``cell`` of the pixel on."""
    target.stop[place] = end
    for i in range(np.uint64(target.start[place]), np.uint64(end)):
        counts[np.uint64(cell) + np.uint64(target.events[i] >> np.uint32(16))] += 1


@_kernel
def run_events(first, last, geometry, window, source, synapses, neurons, state, rows, room, target, end):
    """Rows ``first`` to ``last`` of output pixels (counted through all images), event by event.

    Args:
        first, last: rows.
        geometry, window, source, synapses, neurons, state: of the layer.
        rows: 0, 1, 2, ...; one a step.
        room: for sums.
        target: receives events.
        end: how many it has so far.

    Returns:
        (row, end): ``row`` is below ``last`` where the next row might not have found room for its events.
    """
    pixels = geometry.height * geometry.width
    blocks = (geometry.padded + BLOCK - 1) // BLOCK
    for r in range(first, last):
        if end + geometry.width * geometry.padded * window.steps + LANES > target.events.size:
            return r, end
        image, y = r // geometry.height, r % geometry.height
        for x in range(0, geometry.width, window.tile):
            width = min(window.tile, geometry.width - x)
            for block in range(blocks):
                lanes = min(BLOCK, geometry.padded - block * BLOCK)
                _add_events(geometry, window, source, synapses, image, y, x, width, block, lanes, room)
                sums = Sums(room.total, rows, lanes)
                for j in range(width):
                    pixel = y * geometry.width + x + j
                    at_pixel = image * pixels + pixel
                    target.start[at_pixel * blocks + block] = end
                    for lane in range(0, lanes, LANES):
                        channel = block * BLOCK + lane
                        cell = (image * pixels + pixel) * geometry.padded + channel
                        place = Place(
                            cell, j * (window.steps + 1) * lanes + lane, pixel * neurons.bias_stride + channel, channel
                        )
                        end = update(target.events, end, window.steps, sums, neurons, state, place)
                    _close(target, at_pixel * blocks + block, end, state.counts, at_pixel * geometry.padded)
    return last, end


@_kernel
def run_sums(first, last, geometry, steps, frames, sums, neurons, state, target, end):
    """As :func:`run_events`, from sums that were computed elsewhere.

    Args:
        first, last: rows.
        geometry, neurons, state, target, end: see there.
        steps: how many.
        frames: how many frames of sums there are an image.
        sums: (image, frame, pixel, padded channel), flat, and each step's frame.
    """
    pixels = geometry.height * geometry.width
    blocks = (geometry.padded + BLOCK - 1) // BLOCK
    for r in range(first, last):
        if end + geometry.width * geometry.padded * steps + LANES > target.events.size:
            return r, end
        image, y = r // geometry.height, r % geometry.height
        for pixel in range(y * geometry.width, (y + 1) * geometry.width):
            at_pixel = image * pixels + pixel
            for block in range(blocks):
                target.start[at_pixel * blocks + block] = end
                for channel in range(block * BLOCK, min((block + 1) * BLOCK, geometry.padded), LANES):
                    cell = at_pixel * geometry.padded + channel
                    at = (image * frames * pixels + pixel) * geometry.padded + channel
                    place = Place(cell, at, pixel * neurons.bias_stride + channel, channel)
                    end = update(target.events, end, steps, sums, neurons, state, place)
                _close(target, at_pixel * blocks + block, end, state.counts, at_pixel * geometry.padded)
    return last, end
