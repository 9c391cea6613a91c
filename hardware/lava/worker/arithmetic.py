"""What Lava's Conv, Dense and LIF models compute, number for number, by faster means: numpy alone.

A synaptic sum of integers is exact in floating point while no sum of absolute values passes 2^24 (float32) or 2^53
(float64), in whatever order it is added: so a matrix product in BLAS gives the integers Lava adds up one by one. Arrays
are in Lava's axis order: W, H, C.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

Integers = npt.NDArray[np.integer[Any]]
Pair = tuple[int, int]

_FLOAT32_EXACT = 1 << 24
_INT32_END = 1 << 31
_SYNAPTIC_END = 1 << 23
_STATE_END = 1 << 23
_STATE_SHIFT = 6
_DECAY_SHIFT = 12
_DECAY_UNITY = 1 << _DECAY_SHIFT


def sums_too_large(weight: Integers, largest: int) -> str | None:
    """Why sums of these weights leave the 32 bits in which Lava holds them, if they do.

    Args:
        weight: (neuron, ...).
        largest: input value.
    """
    bound = largest_sum(weight, largest)
    return f"sums of up to {bound} leave 32 bits" if bound >= _INT32_END else None


def largest_input(weight: Integers) -> int:
    """The largest absolute input value with which no part of a sum leaves 32 bits; at least 0."""
    return (_INT32_END - 1) // max(1, largest_sum(weight, 1))


def largest_sum(weight: Integers, largest: int) -> int:
    """Bound on the absolute value of any part of a neuron's sum."""
    sums = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1)
    return int(sums.max(initial=0)) * largest


def exact_float(bound: int) -> type[np.floating[Any]]:
    """The narrowest floating-point type in which sums bounded by ``bound`` are exact."""
    return np.float32 if bound <= _FLOAT32_EXACT else np.float64


class ConvSum:
    """One step of Lava's Conv: a convolution, its sums wrapped at 24 bits with sign.

    Summed over i, j and the channels c of the group of k, and then wrapped, as in Lava::

        a[x, y, k] = sum of w[k, kW - 1 - i, kH - 1 - j, c] s[x sW + i dW - pW, y sH + j dH - pH, c]
        a = (a + 2^23) mod 2^24 - 2^23

    Args:
        weight: (Cout, kW, kH, Cin / groups) integers, Lava's order.
        input_shape: (W, H, Cin).
        stride, padding, dilation: of W and of H.
        groups: of channels.
        largest: largest input value; 1 for spikes.
    """

    def __init__(
        self,
        weight: Integers,
        input_shape: tuple[int, int, int],
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        largest: int = 1,
    ) -> None:
        bound = largest_sum(weight, largest)
        self._wraps = bound >= _SYNAPTIC_END
        kernel, padded = weight.shape[1:3], [n + 2 * p for n, p in zip(input_shape[:2], padding, strict=True)]
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        self._places = tuple((n - r) // s + 1 for n, r, s in zip(padded, reach, stride, strict=True))
        self.shape = (*self._places, len(weight))
        self._diagonal = (
            _diagonal(weight, groups) if (*kernel, *stride, *padding, *reach) == (1, 1, 1, 1, 0, 0, 1, 1) else None
        )
        # (group, tap and input channel, output channel); Lava flips the kernel.
        taps = weight[:, ::-1, ::-1].reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)
        self._weight = np.ascontiguousarray(taps, dtype=exact_float(bound))
        self._padded = np.zeros((*padded, input_shape[2]), dtype=self._weight.dtype)
        (left, top), (width, height) = padding, input_shape[:2]
        self._inside = self._padded[left : left + width, top : top + height]
        by_width, by_height, by_channel = self._padded.strides
        in_group = weight.shape[3]
        self._patches = as_strided(
            self._padded,
            (groups, *self._places, *kernel, in_group),
            (
                *(in_group * by_channel, by_width * stride[0], by_height * stride[1]),
                *(by_width * dilation[0], by_height * dilation[1], by_channel),
            ),
            writeable=False,
        )

    def __call__(self, values: Integers) -> npt.NDArray[np.int32]:
        """Sums of one step.

        Args:
            values: (W, H, Cin), 0 to ``largest``.

        Returns:
            (W, H, Cout).
        """
        if not values.any():
            return np.zeros(self.shape, dtype=np.int32)
        if self._diagonal is not None:
            return self._wrapped(values * self._diagonal)
        self._inside[...] = values
        groups, depth = self._weight.shape[:2]
        sums = self._patches.reshape(groups, -1, depth) @ self._weight
        return self._wrapped(sums.transpose(1, 0, 2).reshape(self.shape))

    def _wrapped(self, sums: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        if not self._wraps:
            return sums.astype(np.int32)
        whole = sums.astype(np.int64) + _SYNAPTIC_END
        return (whole % (2 * _SYNAPTIC_END) - _SYNAPTIC_END).astype(np.int32)


def _diagonal(weight: Integers, groups: int) -> Integers | None:
    """Each channel's weight to itself, if a 1x1 kernel has no others."""
    channels, in_group = len(weight), weight.shape[3]
    if channels != in_group * groups:
        return None
    channel = np.arange(channels)
    own = weight[channel, 0, 0, channel % in_group]
    return own.astype(np.int64) if np.count_nonzero(weight) == np.count_nonzero(own) else None


class DenseSum:
    """One step of Lava's Dense: weights @ input, shifted left by the exponent (right where it is negative).

    Args:
        weights: (N, M) integers as Lava uses them, clipped and truncated.
        exponent: of the weights.
        largest: largest input value; 1 for spikes.
    """

    def __init__(self, weights: Integers, exponent: int, largest: int = 1) -> None:
        self._weights = weights.astype(exact_float(largest_sum(weights, largest)))
        self._exponent = exponent

    def __call__(self, values: Integers) -> npt.NDArray[np.int64]:
        """Sums of one step: (M,) values in 0 to ``largest`` to (N,)."""
        return shifted((self._weights @ values.astype(self._weights.dtype)).astype(np.int64), self._exponent)


class DelayedSum:
    """One step of Lava's DelayDense: as :class:`DenseSum`, apart for each delay.

    Args:
        weights: (N, M) integers as Lava uses them.
        delays: (N, M), 0 to ``slots - 1``.
        exponent: of the weights.
        slots: number of delays Lava keeps apart.
    """

    def __init__(self, weights: Integers, delays: Integers, exponent: int, slots: int) -> None:
        neurons = len(weights)
        self._exponent, self._shape = exponent, (neurons, slots)
        # A row an input: what its spike adds, and to which neuron's which slot.
        self._weights = np.ascontiguousarray(weights.T, dtype=np.float64)
        self._cells = np.ascontiguousarray((np.arange(neurons)[:, None] * slots + delays).T, dtype=np.int64)

    def __call__(self, values: Integers) -> npt.NDArray[np.int64]:
        """Sums of one step: (M,) values to (N, slots)."""
        active = np.flatnonzero(values)
        sums = np.bincount(
            self._cells[active].ravel(),
            weights=(self._weights[active] * values[active, None]).ravel(),
            minlength=self._shape[0] * self._shape[1],
        )
        return shifted(sums.astype(np.int64).reshape(self._shape), self._exponent)


def shifted(sums: npt.NDArray[np.int64], exponent: int) -> npt.NDArray[np.int64]:
    """Sums times 2^exponent, rounded down."""
    return sums << exponent if exponent > 0 else sums >> -exponent


def one_slot_on(slots: Integers) -> Integers:
    """Lava's waiting sums a step later.

    Args:
        slots: (N, slots); the first column has been sent.
    """
    later = np.zeros_like(slots)
    later[:, :-1] = slots[:, 1:]
    return later


class Population:
    """One step of Lava's LIF with integers, all in int32 but the products of decays.

    With rtz(x) = x / 2^12 rounded towards zero::

        u = wrapped(rtz(u (4096 - iDecay)) + (a << 6))    once, by 2^24, if beyond (-2^23, 2^23]
        v = clip(rtz(v (4096 - vDecay)) + u + bias, -2^23 + 1, 2^23 - 1)
        fired = v > (threshold << 6);  v = 0 where fired

    Args:
        current, voltage: int32 arrays that hold u and v; changed in place.
        current_decay, voltage_decay: iDecay and vDecay, 0 to 4096; anything that broadcasts.
        bias: what a step adds to v, shifted already.
        threshold: in weight units.
    """

    def __init__(
        self,
        current: npt.NDArray[np.int32],
        voltage: npt.NDArray[np.int32],
        current_decay: Any,
        voltage_decay: Any,
        bias: Integers,
        threshold: Any,
    ) -> None:
        self._current, self._voltage = current, voltage
        self._decay_current, self._decay_voltage = _Decay(current_decay), _Decay(voltage_decay)
        self._bias = bias.astype(np.int32) if np.any(bias) else None
        self._threshold = np.left_shift(np.asarray(threshold), _STATE_SHIFT)

    def rest(self) -> None:
        """Back to u = v = 0."""
        self._current[...] = 0
        self._voltage[...] = 0

    def step(self, activation: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Which neurons fire at this activation, in weight units."""
        current, voltage = self._current, self._voltage
        self._decay_current(current)
        current += np.left_shift(activation, _STATE_SHIFT)
        if current.max() > _STATE_END:
            current[current > _STATE_END] -= 2 * _STATE_END
        if current.min() <= -_STATE_END:
            current[current <= -_STATE_END] += 2 * _STATE_END
        self._decay_voltage(voltage)
        voltage += current
        if self._bias is not None:
            voltage += self._bias
        np.minimum(voltage, _STATE_END - 1, out=voltage)
        np.maximum(voltage, -_STATE_END + 1, out=voltage)
        fired: npt.NDArray[np.bool_] = voltage > self._threshold
        voltage[fired] = 0
        return fired


class _Decay:
    """rtz(x (4096 - decay)), in place.

    Args:
        decay: 0 to 4096; anything that broadcasts.
    """

    def __init__(self, decay: Any) -> None:
        self._keep = _DECAY_UNITY - np.asarray(decay, dtype=np.int64)
        self._all, self._nothing = bool(np.all(self._keep == 0)), bool(np.all(self._keep == _DECAY_UNITY))

    def __call__(self, state: npt.NDArray[np.int32]) -> None:
        """Let a step's share go."""
        if self._all:
            state[...] = 0
        elif not self._nothing:
            # Lava's numpy 1 would multiply in int32 by a single decay, whatever its type.
            product = np.multiply(state, self._keep, dtype=np.int64)
            # An arithmetic shift rounds down; what is negative is raised to round towards zero.
            product += (product >> 63) & (_DECAY_UNITY - 1)
            state[...] = product >> _DECAY_SHIFT
