"""A layer's integers in the order the kernels read them, and the proofs that the narrow types hold every sum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gascnn.hardware.simulator.events import BLOCK
from gascnn.hardware.simulator.kernels import Geometry, Synapses
from gascnn.hardware.simulator.membrane import General, Inhibited, Integrating, Neurons
from gascnn.hardware.simulator.plain import plain_only
from gascnn.hardware.simulator.synapse import ConvSynapse, DenseSynapse, sums_bound
from gascnn.hardware.simulator.vectors import LANES
from gascnn.toolkit.lowering.limits import (
    CONV_ACCUMULATOR_BITS,
    DECAY_UNITY,
    STATE_LIMIT_WEIGHT_UNITS,
    STATE_SHIFT,
    THRESHOLD_MAX,
)
from gascnn.toolkit.lowering.network import ConvLayer, SynapticLayer
from gascnn.toolkit.lowering.netx_dense import effective_dense

Integer = TypeVar("Integer", bound=np.integer)

FRAMES_BYTES = 8 << 20
"""What the operands of one dense product may take; one frame may take more."""

_INT16_MAX = (1 << 15) - 1
_NEVER = (1 << 31) - 1
_CACHE_LINE = 64

_PRODUCTS_AN_ADDITION, _ADDITIONS_A_SUM = 160, 2.2
"""What a dense product costs: multiplications in the time of one added row, and rows in the time it takes to convert
and store one sum. Fitted to both methods' times at firing rates from 1 % to 100 % (``docs/simulator.md``)."""


@dataclass(frozen=True, eq=False)
class LayerLayout:
    """What the kernels need to know of one layer; arrays are made when they are first asked for.

    Attributes:
        layer: the integers.
        before: shape of its input, (C, H, W) or (M,).
        largest_input: 1 for spikes, else the largest graded input.
        label: for messages.
    """

    layer: SynapticLayer
    before: tuple[int, ...]
    largest_input: int
    label: str

    @property
    def stepwise(self) -> bool:
        """Whether only the plain version runs it."""
        return plain_only(self.layer, self.before)

    @property
    def takes_events(self) -> bool:
        """Whether its input may come as events: not graded, not in groups."""
        return self.largest_input == 1 and not (isinstance(self.layer, ConvLayer) and self.layer.groups > 1)

    @cached_property
    def geometry(self) -> Geometry:
        """Sizes."""
        layer, outputs = self.layer, self.layer.shape[0]
        (channels, height, width), (_, rows, columns) = (*self.before, 1, 1)[:3], (*layer.shape, 1, 1)[:3]
        padded = -(-outputs // LANES) * LANES
        if not isinstance(layer, ConvLayer):
            return Geometry(height, width, channels, rows, columns, padded, height, width, 1, 1, 0, 0, 1, 1)
        kernel_height, kernel_width = layer.weight.shape[2:]
        return Geometry(
            height, width, channels, rows, columns, padded, kernel_height, kernel_width,
            *layer.stride, *layer.padding, *layer.dilation,
        )  # fmt: skip

    @property
    def pixels(self) -> int:
        """Of the output."""
        return self.geometry.height * self.geometry.width

    @property
    def pixels_in(self) -> int:
        """Of the input."""
        return self.geometry.height_in * self.geometry.width_in

    @property
    def cells(self) -> int:
        """Entries of an image in arrays of neurons, padding included."""
        return self.pixels * self.geometry.padded

    @cached_property
    def _kernel(self) -> tuple[npt.NDArray[np.int64], int]:
        """(N, C, kernel height, kernel width) weights of a layer without groups, and how far sums are shifted right."""
        if isinstance(self.layer, ConvLayer):
            return self.layer.weight.astype(np.int64), 0
        effective = effective_dense(self.layer, self.label)
        g = self.geometry
        return effective.weight.reshape(-1, g.channels_in, g.kernel_height, g.kernel_width), effective.shift

    @cached_property
    def synapses(self) -> Synapses:
        """Weights for events, with sums in int16 wherever that is proved to hold them."""
        kernel, _ = self._kernel
        geometry = self.geometry
        outputs, channels, height, width = kernel.shape
        padded = np.zeros((geometry.padded, channels, height * width), dtype=np.int64)
        padded[:outputs] = kernel.reshape(outputs, channels, -1)
        blocks = [padded[i : i + BLOCK].transpose(2, 1, 0).ravel() for i in range(0, geometry.padded, BLOCK)]
        group = partial_sum_groups(kernel.reshape(outputs, channels, -1))
        kind = np.int32 if group is None else np.int16
        split = group is not None and bool(group.any())
        group = np.zeros(1, dtype=np.int64) if group is None else group
        return Synapses(aligned(np.concatenate(blocks).astype(kind)), group, split)

    @cached_property
    def neurons(self) -> Neurons:
        """Neurons, padded with some that never fire, as the simplest kind that has all they need."""
        layer, neuron = self.layer, self.layer.cuba
        inside = np.arange(self.geometry.padded) < layer.shape[0]
        threshold = self._each(neuron.threshold).astype(np.int32) << STATE_SHIFT
        bias, stride = self._bias()
        cells = Integrating(aligned(np.where(inside, threshold, _NEVER).astype(np.int32)), bias, stride)
        decays = [np.unique(decay).tolist() for decay in (neuron.current_decay, neuron.voltage_decay)]
        left, right = self._shifts()
        simple = not right and np.all(neuron.threshold >= 0) and np.all(neuron.threshold <= THRESHOLD_MAX)
        tame = self._bound <= STATE_LIMIT_WEIGHT_UNITS
        if simple and tame and layer.self_weight is None and decays == [[DECAY_UNITY], [0]]:
            return cells
        inhibition = aligned(self._each(0 if layer.self_weight is None else layer.self_weight) << STATE_SHIFT)
        if simple and layer.self_weight is not None and decays == [[0], [DECAY_UNITY]]:
            return Inhibited(*cells, inhibition)
        keep_u, keep_v = (
            aligned(DECAY_UNITY - self._each(decay)) for decay in (neuron.current_decay, neuron.voltage_decay)
        )
        return General(*cells, inhibition, keep_u, keep_v, left, right)

    def _shifts(self) -> tuple[int, int]:
        """Bits a sum is shifted left and then right: the wrap of Lava's convolution, or a dense layer's exponent."""
        if not isinstance(self.layer, ConvLayer):
            return 0, self._kernel[1]
        wraps = self._bound >= 1 << (CONV_ACCUMULATOR_BITS - 1)
        return (32 - CONV_ACCUMULATOR_BITS,) * 2 if wraps else (0, 0)

    @cached_property
    def _bound(self) -> int:
        weight = self.layer.weight if isinstance(self.layer, ConvLayer) else self._kernel[0]
        return sums_bound(weight, self.largest_input, self.label)

    def _each(self, value: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """A scalar or one value a channel, for every channel; 0 for the padding."""
        result = np.zeros(self.geometry.padded, dtype=np.int32)
        result[: self.layer.shape[0]] = np.asarray(value).ravel()
        return result

    def _bias(self) -> tuple[npt.NDArray[np.int32], int]:
        channels, padded = self.layer.shape[0], self.geometry.padded
        bias = self.layer.bias
        if bias is None or not np.any(bias):
            return aligned(np.zeros(padded, dtype=np.int32)), 0
        mantissa = bias.astype(np.int64).astype(np.int16).astype(np.int32) << STATE_SHIFT
        if mantissa.ndim < 3:
            return aligned(self._each(mantissa)), 0
        full = np.zeros((self.pixels, padded), dtype=np.int32)
        full[:, :channels] = mantissa.reshape(channels, -1).T
        return aligned(full.ravel()), padded

    def prepare(self) -> None:
        """Make everything now, so that threads only read.

        Raises:
            LimitError: weights with which Lava's own result is undefined.
        """
        if not self.stepwise:
            self.neurons  # noqa: B018
            if self.takes_events:
                self.synapses  # noqa: B018

    @cached_property
    def frame_synapse(self) -> ConvSynapse | DenseSynapse:
        """Sums of whole frames; for layers without delays."""
        if isinstance(self.layer, ConvLayer):
            return ConvSynapse(self.layer, self.largest_input, self.label)
        kernel, shift = self._kernel
        return DenseSynapse(kernel.reshape(len(kernel), -1), shift, self.largest_input, self.label)

    @property
    def frame_elements(self) -> int:
        """Elements a dense product of one frame handles at most: its columns (without torch), operands and sums."""
        geometry = self.geometry
        taps = geometry.kernel_height * geometry.kernel_width
        columns = geometry.channels_in * (taps * self.pixels if self.pixels > 1 else self.pixels_in)
        return columns + 2 * geometry.channels_in * self.pixels_in + 4 * self.cells

    def events_cost(self, spikes: int) -> float:
        """Time for so many input spikes, in additions of a row of ``BLOCK`` weights of 16 bits, away from borders."""
        geometry = self.geometry
        taps = geometry.kernel_height * geometry.kernel_width * self.pixels / self.pixels_in
        return spikes * taps * geometry.padded / BLOCK * self.synapses.weights.itemsize / 2

    def dense_cost(self, frames: int) -> float:
        """Time for so many whole frames, in the same unit."""
        products = self.layer.weight.size * self.pixels
        return frames * (products / _PRODUCTS_AN_ADDITION + self.cells * _ADDITIONS_A_SUM)


def partial_sum_groups(kernel: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Cut the sums of a kernel into groups, each proved to stay within int16 whatever fires.

    Args:
        kernel: (N, C, tap) weights; at most one spike a step comes over each.

    Returns:
        The group of each (tap, block of input channels), in the order of addition; None where one of them alone may
        leave int16.
    """
    high, low = _running_sums(np.maximum(kernel, 0)), _running_sums(np.minimum(kernel, 0))
    units = len(high) - 1
    group = np.zeros(units, dtype=np.int64)
    first = 0
    while first < units:
        group[first:] += first > 0
        reach = np.maximum((high[first + 1 :] - high[first]).max(axis=1), (low[first] - low[first + 1 :]).max(axis=1))
        fitting = int(np.searchsorted(reach, _INT16_MAX, side="right"))
        if not fitting:
            return None
        first += fitting
    return group


def _running_sums(kernel: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(1 + unit, N): sums over the first units, a unit being a tap of a block of input channels."""
    blocks = np.add.reduceat(kernel, np.arange(0, kernel.shape[1], BLOCK), axis=1)
    units = blocks.transpose(2, 1, 0).reshape(-1, len(kernel))
    return np.concatenate((np.zeros_like(units[:1]), units.cumsum(axis=0)))


def aligned(array: npt.NDArray[Integer]) -> npt.NDArray[Integer]:
    """A copy that begins with a cache line, so that no row of lanes lies across two."""
    result: npt.NDArray[Integer] = empty_aligned(array.size, array.dtype)
    result[...] = array
    return result


def empty_aligned(size: int, dtype: npt.DTypeLike, *, zero: bool = False) -> npt.NDArray[Any]:
    """A flat array that begins with a cache line."""
    kind = np.dtype(dtype)
    make = np.zeros if zero else np.empty
    raw = make(size * kind.itemsize + _CACHE_LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + size * kind.itemsize].view(kind)
