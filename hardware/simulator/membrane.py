"""The fixed-point update of ``PyLifModelBitAcc`` (Lava 0.10.0), ``LANES`` neighbouring neurons and many steps at once.

Three kinds of neurons differ in what has to be computed; a kernel is compiled for the kind it is given. Parameters are
int32, one a channel, times 64. State stays in registers from step to step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from gascnn.hardware.simulator.vectors import (
    add,
    count,
    decay,
    emit,
    greater,
    lane_codes,
    load,
    maximum,
    minimum,
    select,
    shift_left,
    shift_right,
    splat,
    store,
    subtract,
)
from gascnn.toolkit.lowering.limits import STATE_LIMIT

_HIGHEST, _LOWEST = np.int32(STATE_LIMIT - 1), np.int32(1 - STATE_LIMIT)
_TOP, _TURN = np.int32(STATE_LIMIT), np.int32(2 * STATE_LIMIT)
_ZERO, _ONE, _SIX = np.int32(0), np.int32(1), np.int32(6)


class Integrating(NamedTuple):
    """Neurons whose ``v`` integrates and whose ``u`` forgets and cannot wrap; thresholds are in reach of ``v``.

    ``bias_stride`` is 0 where all pixels share their biases, else the number of channels, padding included.
    """

    threshold: np.ndarray
    bias: np.ndarray
    bias_stride: int


class Inhibited(NamedTuple):
    """Neurons whose ``u`` integrates, less ``inhibition`` after each spike, and whose ``v`` forgets; ditto."""

    threshold: np.ndarray
    bias: np.ndarray
    bias_stride: int
    inhibition: np.ndarray


class General(NamedTuple):
    """Any others: what ``u`` and ``v`` keep of themselves, in 1/4096, and bits their sums are shifted by first."""

    threshold: np.ndarray
    bias: np.ndarray
    bias_stride: int
    inhibition: np.ndarray
    keep_u: np.ndarray
    keep_v: np.ndarray
    shift_left: int
    shift_right: int


Neurons = Integrating | Inhibited | General


class State(NamedTuple):
    """What the neurons remember, as far as their kind does; their spikes so far; wraps of currents (one number)."""

    u: np.ndarray
    v: np.ndarray
    pending: np.ndarray
    counts: np.ndarray
    wraps: np.ndarray


class Sums(NamedTuple):
    """Synaptic sums in weight units, int16 or int32: those of step t are ``stride * rows[t]`` further on."""

    values: np.ndarray
    rows: np.ndarray
    stride: int


class Place(NamedTuple):
    """Where ``LANES`` neurons find their own: state, sums, bias, and their first channel."""

    cell: int
    at: int
    bias: int
    channel: int


def update(events, end, steps, sums, neurons, state, place):
    """Run ``LANES`` neurons through a window and append their spikes to ``events``; gives the new end.

    Compiled code takes the function below that fits the kind of ``neurons``.
    """
    return _UPDATES[type(neurons)](events, end, steps, sums, neurons, state, place)


@overload(update)
def _update_of(events, end, steps, sums, neurons, state, place):
    return _UPDATES[neurons.instance_class]


def _integrate(events, end, steps, sums, neurons, state, place):
    """``v = max(v + 64 a + bias, low)``; spike where it exceeds the threshold, then ``v = 0``.

    The upper limit of ``v`` lies above the threshold: what would be cut there is set to zero anyway.
    """
    values, rows, stride = sums.values, sums.rows, sums.stride
    v, codes = load(state.v, place.cell), lane_codes(np.int32(place.channel << 16))
    threshold, bias = load(neurons.threshold, place.channel), load(neurons.bias, place.bias)
    low, zero, one, six = splat(_LOWEST), splat(_ZERO), splat(_ONE), splat(_SIX)
    for t in range(steps):
        a = load(values, place.at + rows[t] * stride)
        v = maximum(add(add(v, shift_left(a, six)), bias), low)
        spiking = greater(v, threshold)
        v = select(spiking, zero, v)
        end = emit(events, end, codes, spiking)
        codes = add(codes, one)
    store(state.v, place.cell, v)
    return end


def _inhibit(events, end, steps, sums, neurons, state, place):
    """``u = wrap(u + 64 a)``; spike where ``u + bias`` exceeds the threshold, then ``u -= 64 theta``.

    Lava subtracts one step later, together with that step's sum: the same, for ``u`` does not decay. The limits of
    ``v = u + bias`` lie beyond the threshold on both sides, and nothing of ``v`` is kept.
    """
    values, rows, stride = sums.values, sums.rows, sums.stride
    u, codes = load(state.u, place.cell), lane_codes(np.int32(place.channel << 16))
    threshold, bias = load(neurons.threshold, place.channel), load(neurons.bias, place.bias)
    theta, one, six = load(neurons.inhibition, place.channel), splat(_ONE), splat(_SIX)
    low, top, turn = splat(_LOWEST), splat(_TOP), splat(_TURN)
    wraps = 0
    for t in range(steps):
        u = add(u, shift_left(load(values, place.at + rows[t] * stride), six))
        above, below = greater(u, top), greater(low, u)
        wraps += count(above) + count(below)
        u = select(above, subtract(u, turn), select(below, add(u, turn), u))
        spiking = greater(add(u, bias), threshold)
        u = select(spiking, subtract(u, theta), u)
        end = emit(events, end, codes, spiking)
        codes = add(codes, one)
    store(state.u, place.cell, u)
    state.wraps[0] += wraps
    return end


def _everything(events, end, steps, sums, neurons, state, place):
    """The whole update; ``pending`` is what the last spike will subtract from ``u`` in the next step."""
    values, rows, stride = sums.values, sums.rows, sums.stride
    u, v, pending = load(state.u, place.cell), load(state.v, place.cell), load(state.pending, place.cell)
    codes = lane_codes(np.int32(place.channel << 16))
    threshold, bias = load(neurons.threshold, place.channel), load(neurons.bias, place.bias)
    theta = load(neurons.inhibition, place.channel)
    keep_u, keep_v = load(neurons.keep_u, place.channel), load(neurons.keep_v, place.channel)
    low, high, zero, one, six = splat(_LOWEST), splat(_HIGHEST), splat(_ZERO), splat(_ONE), splat(_SIX)
    top, turn = splat(_TOP), splat(_TURN)
    left, right = splat(np.int32(neurons.shift_left)), splat(np.int32(neurons.shift_right))
    wraps = 0
    for t in range(steps):
        a = shift_right(shift_left(load(values, place.at + rows[t] * stride), left), right)
        u = subtract(add(decay(u, keep_u), shift_left(a, six)), pending)
        above, below = greater(u, top), greater(low, u)
        wraps += count(above) + count(below)
        u = select(above, subtract(u, turn), select(below, add(u, turn), u))
        v = minimum(maximum(add(add(decay(v, keep_v), u), bias), low), high)
        spiking = greater(v, threshold)
        v = select(spiking, zero, v)
        pending = select(spiking, theta, zero)
        end = emit(events, end, codes, spiking)
        codes = add(codes, one)
    store(state.u, place.cell, u)
    store(state.v, place.cell, v)
    store(state.pending, place.cell, pending)
    state.wraps[0] += wraps
    return end


_UPDATES = {Integrating: _integrate, Inhibited: _inhibit, General: _everything}
