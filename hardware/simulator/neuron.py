"""The state of a population and its exact fixed-point update (``PyLifModelBitAcc`` of Lava 0.10.0)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.lowering.limits import DECAY_UNITY, STATE_LIMIT, STATE_SHIFT
from gascnn.toolkit.lowering.network import CubaNeuron

Int32 = npt.NDArray[np.int32]


class Population:
    """Current ``u`` and membrane potential ``v`` of a batch of equal populations.

    Args:
        neuron: thresholds and decays.
        shape: of one population, (C, H, W) or (N,).
        images: batch size.
        bias: None, (C,) or the full shape, weight units; wraps as int16 as in Lava.
    """

    def __init__(
        self, neuron: CubaNeuron, shape: tuple[int, ...], images: int, bias: npt.NDArray[np.integer] | None = None
    ) -> None:
        self.u = np.zeros((images, *shape), dtype=np.int32)
        self.v = np.zeros((images, *shape), dtype=np.int32)
        self.wraps = 0
        self._threshold = _per_channel(neuron.threshold, shape).astype(np.int32) << STATE_SHIFT
        self._keep_u = DECAY_UNITY - _per_channel(neuron.current_decay, shape)
        self._keep_v = DECAY_UNITY - _per_channel(neuron.voltage_decay, shape)
        self._bias: Int32 | None = None
        if bias is not None and np.any(bias):
            mantissa = bias.astype(np.int64).astype(np.int16).astype(np.int32)
            self._bias = _per_channel(mantissa, shape) << STATE_SHIFT

    def step(self, sums: Int32) -> npt.NDArray[np.bool_]:
        """One time step.

        Args:
            sums: (image, ...) synaptic sums ``a`` in weight units.

        Returns:
            (image, ...) the spikes.
        """
        u = _decayed(self.u, self._keep_u)
        u += sums << STATE_SHIFT
        above, below = u > STATE_LIMIT, u <= -STATE_LIMIT
        wraps = int(np.count_nonzero(above)) + int(np.count_nonzero(below))
        if wraps:
            self.wraps += wraps
            u[above] -= 2 * STATE_LIMIT
            u[below] += 2 * STATE_LIMIT
        self.u = u
        v = _decayed(self.v, self._keep_v)
        v += u
        if self._bias is not None:
            v += self._bias
        np.clip(v, -STATE_LIMIT + 1, STATE_LIMIT - 1, out=v)
        spikes = v > self._threshold
        v[spikes] = 0
        self.v = v
        return spikes


def _per_channel(value: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.integer]:
    """Broadcast a scalar or one value a channel over (C, H, W); leave full arrays alone."""
    array = np.asarray(value)
    if array.ndim == 1 and array.size == 1:
        array = array.reshape(())
    return array.reshape(-1, *(1,) * (len(shape) - 1)) if array.ndim == 1 else array


def _decayed(state: Int32, keep: npt.NDArray[np.integer]) -> Int32:
    """``sign(p) (|p| >> 12)`` with ``p = state * keep``: rounding towards zero; always a fresh array."""
    if keep.ndim == 0 and int(keep) == 0:
        return np.zeros_like(state)
    if keep.ndim == 0 and int(keep) == DECAY_UNITY:
        return state.copy()
    product = state.astype(np.int64) * keep
    rounded: Int32 = (np.sign(product) * (np.abs(product) >> 12)).astype(np.int32)
    return rounded
