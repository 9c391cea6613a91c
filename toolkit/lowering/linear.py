"""Linear maps between populations, and their exact composition.

Whatever lies between two spiking populations (convolution, batch norm, average pooling, flatten, dense) is linear, so
it can be folded into one synaptic layer. It is folded only where that is exact; :class:`NotExact` says why not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.lowering.shapes import Pair, conv_output_shape

Floats = npt.NDArray[np.floating]


class NotExact(ValueError):  # noqa: N818 - an answer, turned into an error by whoever asked
    """Two maps cannot be composed without changing values; the message says why."""


@dataclass(frozen=True, eq=False)
class ConvMap:
    """``y = weight * x + bias`` (cross-correlation with zero padding).

    Attributes:
        weight: (C_out, C_in / groups, kH, kW) float.
        bias: (C_out,) float.
        stride, padding, dilation: (vertical, horizontal).
        groups: as in PyTorch.
        in_shape, out_shape: (C, H, W).
    """

    weight: Floats
    bias: Floats
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DenseMap:
    """``y = weight x + bias`` on the flattened input.

    Attributes:
        weight: (N, M) float, columns in C, H, W order.
        bias: (N,) float.
        in_shape: (C, H, W) or (M,).
        out_shape: (N,).
    """

    weight: Floats
    bias: Floats
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]


LinearMap = ConvMap | DenseMap


def scale_map(scale: Floats, shape: tuple[int, ...]) -> LinearMap:
    """Multiplication by one factor a channel (a neuron, for vectors).

    Args:
        scale: (C,) or (N,).
        shape: of the signal.
    """
    if len(shape) == 1:
        return DenseMap(np.diag(scale), np.zeros(shape[0]), shape, shape)
    return ConvMap(
        scale.reshape(-1, 1, 1, 1), np.zeros(shape[0]), (1, 1), (0, 0), (1, 1), shape[0], tuple(shape), tuple(shape)
    )


def identity_map(shape: tuple[int, ...]) -> LinearMap:
    """The map that changes nothing."""
    return scale_map(np.ones(shape[0]), shape)


def pool_map(in_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, *, average: bool) -> ConvMap:
    """Average (or sum) pooling as a depthwise convolution; padded zeros count, as in PyTorch's default.

    Args:
        in_shape: (C, H, W).
        kernel, stride, padding: (vertical, horizontal).
        average: divide by the kernel's area.
    """
    value = 1.0 / (kernel[0] * kernel[1]) if average else 1.0
    weight = np.full((in_shape[0], 1, *kernel), value)
    out = conv_output_shape(in_shape, weight.shape, stride, padding, (1, 1))
    return ConvMap(weight, np.zeros(in_shape[0]), stride, padding, (1, 1), in_shape[0], tuple(in_shape), out)


def as_dense(linear: LinearMap) -> DenseMap:
    """The same map on flattened output, as a matrix."""
    if isinstance(linear, DenseMap):
        return linear
    size = int(np.prod(linear.out_shape))
    return _dense_after_conv(DenseMap(np.eye(size), np.zeros(size), linear.out_shape, (size,)), linear)


def full_kernel(conv: ConvMap) -> Floats:
    """(C_out, C_in, kH, kW): the kernel with its groups written out."""
    if conv.groups == 1:
        return conv.weight
    outputs, per_group = conv.weight.shape[:2]
    kernel = np.zeros((outputs, per_group * conv.groups, *conv.weight.shape[2:]), dtype=conv.weight.dtype)
    for group in range(conv.groups):
        rows = slice(group * outputs // conv.groups, (group + 1) * outputs // conv.groups)
        kernel[rows, group * per_group : (group + 1) * per_group] = conv.weight[rows]
    return kernel


def compose(second: LinearMap, first: LinearMap) -> LinearMap:
    """``second`` after ``first`` as one map.

    Raises:
        NotExact: one map of this kind would give other values (at the borders, say).
    """
    if isinstance(second, DenseMap):
        if isinstance(first, DenseMap):
            return DenseMap(
                second.weight @ first.weight,
                second.weight @ first.bias + second.bias,
                first.in_shape,
                second.out_shape,
            )
        return _dense_after_conv(second, first)
    if isinstance(first, DenseMap):
        raise NotExact("a convolution after a dense layer")
    return _conv_after_conv(second, first)


def _is_depthwise(conv: ConvMap) -> bool:
    return conv.groups == conv.in_shape[0] == conv.out_shape[0]


def _conv_after_conv(second: ConvMap, first: ConvMap) -> ConvMap:
    for axis in (0, 1):
        _check_padding(second, first, axis)
    kernel = _combined_kernel(second, first)
    stride = _pair(first.stride[a] * second.stride[a] for a in (0, 1))
    padding = _pair(first.padding[a] + first.stride[a] * second.padding[a] for a in (0, 1))
    out = conv_output_shape(first.in_shape, kernel.shape, stride, padding, (1, 1))
    if out != second.out_shape:
        raise NotExact(f"the composed kernel gives {out}, not {second.out_shape}")
    bias = second.bias + full_kernel(second).sum(axis=(2, 3)) @ first.bias
    both_depthwise = _is_depthwise(second) and _is_depthwise(first)
    groups = first.groups if both_depthwise else 1
    return ConvMap(kernel, bias, stride, padding, (1, 1), groups, first.in_shape, out)


def _pair(values: Iterable[int]) -> Pair:
    vertical, horizontal = values
    return vertical, horizontal


def _check_padding(second: ConvMap, first: ConvMap, axis: int) -> None:
    """``second`` pads ``first``'s output with zeros: would ``first``, computed there, also give zeros?"""
    if second.padding[axis] == 0:
        return
    if np.any(first.bias):
        raise NotExact("a bias ahead of a zero-padded convolution is missing in the padding")
    extent = first.dilation[axis] * (first.weight.shape[2 + axis] - 1) + 1
    size_in, size_out = first.in_shape[1 + axis], first.out_shape[1 + axis]
    low = extent <= first.stride[axis] + first.padding[axis]
    high = size_out * first.stride[axis] - first.padding[axis] >= size_in
    if not (low and high):
        raise NotExact(
            f"zero padding around a map of {first.in_shape[1:]} to {first.out_shape[1:]} "
            "(sizes that do not divide evenly, or overlapping windows)"
        )


def _combined_kernel(second: ConvMap, first: ConvMap) -> Floats:
    """Kernel (dilation 1) of the composition: every tap of ``second`` shifts a copy of ``first``'s kernel."""
    extents = [d * (k - 1) + 1 for d, k in zip(first.dilation, first.weight.shape[2:], strict=True)]
    steps = [s * d for s, d in zip(first.stride, second.dilation, strict=True)]
    sizes = [e + s * (k - 1) for e, s, k in zip(extents, steps, second.weight.shape[2:], strict=True)]
    both = _is_depthwise(second) and _is_depthwise(first)
    inputs = 1 if both else first.in_shape[0]
    kernel = np.zeros((second.out_shape[0], inputs, *sizes))
    inner = first.weight if both else full_kernel(first)
    outer = None if _is_depthwise(second) else full_kernel(second)
    for v in range(second.weight.shape[2]):
        for h in range(second.weight.shape[3]):
            if outer is None:
                copy = second.weight[:, 0, v, h].reshape(-1, 1, 1, 1) * inner
            else:
                copy = np.tensordot(outer[:, :, v, h], inner, axes=(1, 0))
            top, left = v * steps[0], h * steps[1]
            kernel[
                :,
                :,
                top : top + extents[0] : first.dilation[0],
                left : left + extents[1] : first.dilation[1],
            ] += copy
    return kernel


def _dense_after_conv(dense: DenseMap, conv: ConvMap) -> DenseMap:
    """Pull every row of the matrix back through the convolution (its adjoint); always exact."""
    rows = dense.weight.reshape(-1, *conv.out_shape)
    kernel = full_kernel(conv)
    (sv, sh), (pv, ph), (dv, dh) = conv.stride, conv.padding, conv.dilation
    _, height, width = conv.in_shape
    out_h, out_w = conv.out_shape[1:]
    padded = np.zeros((len(rows), conv.in_shape[0], height + 2 * pv, width + 2 * ph))
    for v in range(kernel.shape[2]):
        for h in range(kernel.shape[3]):
            if _is_depthwise(conv):
                pulled = rows * conv.weight[:, 0, v, h].reshape(-1, 1, 1)
            else:
                pulled = np.einsum("nohw,oi->nihw", rows, kernel[:, :, v, h])
            padded[:, :, v * dv : v * dv + out_h * sv : sv, h * dh : h * dh + out_w * sh : sh] += pulled
    weight = padded[:, :, pv : pv + height, ph : ph + width].reshape(len(rows), -1)
    bias = dense.bias + rows.sum(axis=(2, 3)) @ conv.bias
    return DenseMap(weight, bias, conv.in_shape, dense.out_shape)


def scaled_input(linear: LinearMap, factor: float) -> LinearMap:
    """The map for an input that is 1 / ``factor`` times larger: weights scaled, bias kept."""
    return replace(linear, weight=linear.weight * factor)
