"""Exact integer synaptic sums, computed by floating-point matrix products that cannot round.

A sum of integers is exact in float32 while its absolute value stays below 2^24 and in float64 below 2^53, whatever
the order of the additions; the bound follows from the weights. torch is used where it is installed, with the
algorithms that transform the kernel (Winograd, NNPACK) switched off: those do round.
"""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import LimitError
from gascnn.toolkit.lowering.limits import CONV_ACCUMULATOR_BITS
from gascnn.toolkit.lowering.network import ConvLayer, DenseLayer
from gascnn.toolkit.lowering.netx_dense import effective_dense

Int32 = npt.NDArray[np.int32]
FLOAT32_EXACT, FLOAT64_EXACT = 1 << 24, 1 << 53

_WORTH_IMPORTING = 1 << 30
"""Multiplications that take numpy about as long as importing torch takes."""


def sums_bound(weight: npt.NDArray[np.integer], largest_input: int, label: str) -> int:
    """The largest absolute value a sum of ``weight`` over inputs up to ``largest_input`` can have.

    Args:
        weight: outputs first.
        largest_input: 1 for spikes.
        label: for the message.

    Raises:
        LimitError: sums could reach 2^31, where Lava's conversion to int32 is undefined.
    """
    bound = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0)) * largest_input
    if bound >= 1 << 31:
        raise LimitError(f"{label}: synaptic sums may reach {bound}; Lava's result is undefined from 2^31; scale down")
    return bound


def exact_dtype(bound: int) -> type[np.float32] | type[np.float64]:
    """The narrowest float in which no integer sum up to ``bound`` can round."""
    return np.float32 if bound < FLOAT32_EXACT else np.float64


def _torch(products: int) -> Any:
    """PyTorch, or None: where it is missing, or importing it would take longer than so many multiplications."""
    if "torch" not in sys.modules and products < _WORTH_IMPORTING:
        return None
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


class ConvProduct:
    """Cross-correlation of integers with a layer's kernel, in floating point that the caller knows to be exact.

    Args:
        layer: a convolution.
        dtype: float32 or float64, in which no sum may round.
    """

    def __init__(self, layer: ConvLayer, dtype: type[np.float32] | type[np.float64]) -> None:
        self.layer, self.dtype = layer, dtype
        self.weight = layer.weight.astype(dtype)

    def __call__(self, inputs: npt.NDArray[np.generic]) -> npt.NDArray[np.floating]:
        """(B, C_in, H, W) integers to (B, C, H', W') sums."""
        torch = _torch(len(inputs) * self.layer.weight.size * math.prod(self.layer.shape[1:]))
        return self._numpy(inputs) if torch is None else self._by_torch(torch, inputs)

    def _by_torch(self, torch: Any, inputs: npt.NDArray[np.generic]) -> npt.NDArray[np.floating]:
        layer = self.layer
        with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
            result = torch.nn.functional.conv2d(
                torch.from_numpy(inputs.astype(self.dtype)),
                torch.from_numpy(self.weight),
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups,
            )
        return np.asarray(result.numpy())

    def _numpy(self, inputs: npt.NDArray[np.generic]) -> npt.NDArray[np.floating]:
        layer = self.layer
        (pv, ph), (sv, sh), (dv, dh) = layer.padding, layer.stride, layer.dilation
        _, _, kv, kh = self.weight.shape
        padded = np.pad(inputs.astype(self.dtype), ((0, 0), (0, 0), (pv, pv), (ph, ph)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (dv * (kv - 1) + 1, dh * (kh - 1) + 1), axis=(2, 3))
        windows = windows[:, :, ::sv, ::sh, ::dv, ::dh]
        images, channels, height, width = windows.shape[:4]
        per_group = channels // layer.groups
        outputs = layer.shape[0] // layer.groups
        result = np.empty((images, layer.shape[0], height, width), dtype=self.dtype)
        for group in range(layer.groups):
            columns = windows[:, group * per_group : (group + 1) * per_group].transpose(0, 2, 3, 1, 4, 5)
            columns = columns.reshape(images * height * width, -1)
            kernel = self.weight[group * outputs : (group + 1) * outputs].reshape(outputs, -1)
            sums = (columns @ kernel.T).reshape(images, height, width, outputs)
            result[:, group * outputs : (group + 1) * outputs] = sums.transpose(0, 3, 1, 2)
        return result


class ConvSynapse:
    """Cross-correlation of integer inputs with the layer's kernel, wrapped at 24 bits as Lava does."""

    def __init__(self, layer: ConvLayer, largest_input: int, label: str) -> None:
        bound = sums_bound(layer.weight, largest_input, label)
        self.product = ConvProduct(layer, exact_dtype(bound))
        self.may_wrap = bound >= 1 << (CONV_ACCUMULATOR_BITS - 1)

    def __call__(self, inputs: npt.NDArray[np.generic]) -> Int32:
        """(B, C_in, H, W) integers to (B, C, H', W') int32 sums."""
        sums = self.product(inputs)
        return wrapped(sums.astype(np.int64)) if self.may_wrap else sums.astype(np.int32)


def wrapped(sums: npt.NDArray[np.int64]) -> Int32:
    """What Lava's convolution makes of sums: 24 bits with sign, wrapped."""
    half = 1 << (CONV_ACCUMULATOR_BITS - 1)
    return ((sums + half) % (2 * half) - half).astype(np.int32)


class DenseSynapse:
    """All-to-all sums of integer inputs with the weights as NetX re-encodes them."""

    def __init__(self, weight: npt.NDArray[np.integer], shift: int, largest_input: int, label: str) -> None:
        self.dtype = exact_dtype(sums_bound(weight, largest_input, label))
        self.weight = np.ascontiguousarray(weight.T.astype(self.dtype))
        self.shift = shift

    def __call__(self, inputs: npt.NDArray[np.generic]) -> Int32:
        """(B, M) integers to (B, N) int32 sums."""
        sums = (inputs.reshape(len(inputs), -1).astype(self.dtype) @ self.weight).astype(np.int64)
        return (sums >> self.shift).astype(np.int32)


def dense_synapses(layer: DenseLayer, largest_input: int, label: str) -> dict[int, DenseSynapse]:
    """One synapse for each distinct delay of the layer (0 where it has none)."""
    effective = effective_dense(layer, label)
    weight, shift = effective.weight, effective.shift
    if layer.delay is None:
        return {0: DenseSynapse(weight, shift, largest_input, label)}
    return {
        int(delay): DenseSynapse(np.where(layer.delay == delay, weight, 0), shift, largest_input, label)
        for delay in np.unique(layer.delay)
    }


def recurrent_synapse(layer: DenseLayer, label: str) -> DenseSynapse | None:
    """The recurrent synapse of a ``dense_rec`` layer; NetX encodes it together with the forward one."""
    effective = effective_dense(layer, label) if layer.weight_rec is not None else None
    if effective is None or effective.recurrent is None:
        return None
    return DenseSynapse(effective.recurrent, effective.shift, 1, label)
