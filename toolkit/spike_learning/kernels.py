"""The neurons' arithmetic over all steps, forward and backward, in one pass over memory."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from gascnn.toolkit.lowering.limits import DECAY_UNITY, STATE_LIMIT, STATE_SHIFT

Floats = npt.NDArray[np.floating]

_compiled = numba.njit(nogil=True, cache=True)

_UNITS = 1 << STATE_SHIFT
_HALF = STATE_LIMIT / _UNITS
_CLIP = (STATE_LIMIT - 1) / _UNITS


@_compiled
def _decayed(state: float, keep: int) -> float:
    """``rtz(state keep / 4096)`` in 1/64 weight units; products need more than the 24 bits of single precision."""
    if keep == DECAY_UNITY:
        return state
    if keep == 0:
        return 0.0
    return float(np.trunc(np.float64(state) * (_UNITS * keep) / DECAY_UNITY) / _UNITS)


@_compiled
def forward(
    sums: Floats,
    bias: Floats,
    threshold: Floats,
    inhibition: Floats,
    keeps: tuple[int, int],
    u: Floats,
    v: Floats,
    last: Floats,
    before: Floats,
    spikes: Floats,
) -> None:
    """Run all steps.

    Args:
        sums: (step, neuron) weight units.
        bias, threshold, inhibition: (channel,); neuron n has channel ``n % channels``.
        keeps: shares of ``u`` and ``v`` kept a step, in 1/4096.
        u, v, last: (neuron,) state, changed in place.
        before: (step, neuron) receives ``v`` as it meets the threshold.
        spikes: (step, neuron) receives 0 or 1.
    """
    keep_u, keep_v = keeps
    steps, neurons = sums.shape
    channels = len(threshold)
    for t in range(steps):
        channel = 0
        for n in range(neurons):
            current = _decayed(u[n], keep_u) + sums[t, n] - inhibition[channel] * last[n]
            if current > _HALF:
                current -= 2 * _HALF
            elif current <= -_HALF:
                current += 2 * _HALF
            voltage = min(max(_decayed(v[n], keep_v) + current + bias[channel], -_CLIP), _CLIP)
            fired = voltage > threshold[channel]
            before[t, n] = voltage
            spikes[t, n] = last[n] = 1.0 if fired else 0.0
            u[n], v[n] = current, 0.0 if fired else voltage
            channel += 1
            if channel == channels:
                channel = 0


@_compiled
def backward(
    before: Floats,
    spikes: Floats,
    threshold: Floats,
    width: Floats,
    height: float,
    keeps: tuple[float, float],
    of_spikes: Floats,
    of_u: Floats,
    of_v: Floats,
    of_sums: Floats,
    of_bias: npt.NDArray[np.float64],
) -> None:
    """Gradients, from the last step to the first.

    Args:
        before, spikes, threshold: as :func:`forward` left them.
        width, height: (channel,) and a number; of the triangle.
        keeps: shares of ``u`` and ``v`` kept, as fractions.
        of_spikes: (step, neuron) gradient of each spike.
        of_u, of_v: (neuron,) gradients of the final state; receive those of the first.
        of_sums: (step, neuron) receives the gradient of the sums.
        of_bias: (channel,) is added to.
    """
    keep_u, keep_v = keeps
    steps, neurons = before.shape
    channels = len(threshold)
    for t in range(steps - 1, -1, -1):
        channel = 0
        for n in range(neurons):
            slope = max(0.0, 1.0 - abs(before[t, n] - threshold[channel]) / width[channel]) * height / width[channel]
            voltage = of_spikes[t, n] * slope + of_v[n] * (1.0 - spikes[t, n])
            current = voltage + of_u[n]
            of_sums[t, n] = current
            of_bias[channel] += voltage
            of_u[n], of_v[n] = current * keep_u, voltage * keep_v
            channel += 1
            if channel == channels:
                channel = 0
