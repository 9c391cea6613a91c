"""Linear NIR nodes as the maps of :mod:`gascnn.toolkit.lowering.linear`, their arrays checked."""

from __future__ import annotations

from typing import Any, cast

import nir
import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import ConversionError, FormatError
from gascnn.toolkit.lowering.linear import ConvMap, DenseMap, LinearMap, pool_map, scale_map
from gascnn.toolkit.lowering.shapes import Pair, conv_output_shape

Floats = npt.NDArray[np.floating]


def linear_map(name: str, node: nir.NIRNode, shape: tuple[int, ...], *, with_bias: bool) -> LinearMap:
    """The map of one linear node.

    Args:
        name: of the node, for messages.
        node: Conv2d, Linear, Affine, Scale, AvgPool2d or SumPool2d.
        shape: of its input.
        with_bias: whether its bias counts; in a sum of several signals it does once.

    Raises:
        ConversionError: another node, or one that NetX cannot express.
        FormatError: arrays that do not fit each other or the input.
    """
    if isinstance(node, nir.Conv2d):
        return _conv(name, node, shape, with_bias)
    if isinstance(node, nir.Linear | nir.Affine):
        return _dense(name, node, shape, with_bias)
    if isinstance(node, nir.Scale):
        return scale_map(per_channel(name, "scale", node.scale, shape), shape)
    if isinstance(node, nir.AvgPool2d | nir.SumPool2d):
        if len(shape) != 3:
            raise FormatError(f"{name}: pooling of a signal of shape {shape}; it needs (C, H, W)")
        kernel, stride, padding = _pair(node.kernel_size), _pair(node.stride), _pair(node.padding)
        _check_geometry(name, shape, kernel, stride, padding, (1, 1))
        return pool_map(shape, kernel, stride, padding, average=isinstance(node, nir.AvgPool2d))
    raise ConversionError(
        f"{name}: NIR node {type(node).__name__} cannot be lowered to NetX; supported: Conv2d, Linear, Affine, Scale, "
        "AvgPool2d, SumPool2d, Flatten, IF, LIF, CubaLIF"
    )


def _conv(name: str, node: nir.Conv2d, shape: tuple[int, ...], with_bias: bool) -> ConvMap:
    if len(shape) != 3:
        raise FormatError(f"{name}: a convolution of a signal of shape {shape}; it needs (C, H, W)")
    weight = np.asarray(node.weight, dtype=np.float64)
    stride, dilation = _pair(node.stride), _pair(node.dilation)
    groups = int(node.groups)
    if weight.ndim != 4 or groups < 1 or weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
        raise FormatError(f"{name}: weight {weight.shape} in {groups} groups does not fit {shape[0]} channels")
    padding = _conv_padding(name, node.padding, weight.shape, stride, dilation)
    _check_geometry(name, shape, (weight.shape[2], weight.shape[3]), stride, padding, dilation)
    out = conv_output_shape(shape, weight.shape, stride, padding, dilation)
    bias = _bias(name, node.bias if with_bias else None, out[0])
    return ConvMap(weight, bias, stride, padding, dilation, groups, shape, out)


def _check_geometry(
    name: str, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise FormatError(
            f"{name}: kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}; kernel, stride and "
            "dilation are at least 1, padding at least 0"
        )
    if min(conv_output_shape(shape, (1, 1, *kernel), stride, padding, dilation)) < 1:
        raise FormatError(f"{name}: its kernel {kernel} is larger than its padded input {shape}")


def _bias(name: str, value: object, size: int) -> Floats:
    """(size,) from nothing, one number, or one a channel."""
    bias = np.zeros(1) if value is None else np.asarray(value, dtype=np.float64).ravel()
    if bias.size not in (1, size):
        raise FormatError(f"{name}: a bias of {bias.size} numbers for {size} channels")
    return np.broadcast_to(bias, (size,))


def _conv_padding(name: str, padding: Any, weight: tuple[int, ...], stride: Pair, dilation: Pair) -> Pair:
    if not isinstance(padding, str | bytes):
        return _pair(padding)
    text = padding.decode() if isinstance(padding, bytes) else padding
    if text == "valid":
        return 0, 0
    spans = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)]
    if text != "same" or any(s % 2 for s in spans) or stride != (1, 1):
        raise ConversionError(f"{name}: padding {text!r} is not symmetric here; NetX pads both sides alike")
    return spans[0] // 2, spans[1] // 2


def _dense(name: str, node: nir.Linear | nir.Affine, shape: tuple[int, ...], with_bias: bool) -> DenseMap:
    weight = np.asarray(node.weight, dtype=np.float64)
    if weight.ndim != 2 or len(shape) != 1 or weight.shape[1] != shape[0]:
        raise FormatError(f"{name}: weight {weight.shape} does not fit a signal of shape {shape}; flatten it first")
    bias = _bias(name, node.bias if isinstance(node, nir.Affine) and with_bias else None, weight.shape[0])
    return DenseMap(weight, bias, shape, (weight.shape[0],))


def per_channel(name: str, what: str, value: object, shape: tuple[int, ...]) -> Floats:
    """One number a channel from a scalar, (C,), or a full array that is constant within each channel.

    Raises:
        ConversionError: numbers that differ within a channel.
        FormatError: an array of another shape.
    """
    array = np.asarray(value, dtype=np.float64)
    if array.size == 1:
        return np.full(shape[0], float(array.ravel()[0]))
    if array.shape == (shape[0],):
        return array
    if array.shape in (tuple(shape), (shape[0], *(1,) * (len(shape) - 1))):
        rows = array.reshape(shape[0], -1)
        if np.all(rows == rows[:, :1]):
            return cast("Floats", rows[:, 0])
        raise ConversionError(f"{name}: {what} differs within a channel; NetX holds one a channel at most")
    raise FormatError(f"{name}: {what} has shape {array.shape}; expected {shape}")


def _pair(value: object) -> Pair:
    values = [int(v) for v in np.asarray(value).ravel()]
    return values[0], values[-1]
