"""Linear maps between populations, and their exact composition.

Whatever lies between two spiking populations (convolution, batch norm, average pooling, flatten, dense) is linear, so
it can be folded into one synaptic layer. It is folded only where that is exact; :class:`NotExact` says why not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

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
    _check_padding(second, first)
    kernel, groups = _combined_kernel(second, first)
    stride = _pair(first.stride[a] * second.stride[a] for a in (0, 1))
    padding = _pair(first.padding[a] + first.stride[a] * second.padding[a] for a in (0, 1))
    bias = second.bias + _per_output(second, first.bias)
    return ConvMap(kernel, bias, stride, padding, (1, 1), groups, first.in_shape, second.out_shape)


def _per_output(conv: ConvMap, values: Floats) -> Floats:
    """(C_out,) what an image of one constant value a channel (C_in,) gives, padding aside."""
    sums = conv.weight.sum(axis=(2, 3)).reshape(conv.groups, -1, conv.weight.shape[1])
    result: Floats = (sums @ values.reshape(conv.groups, -1, 1)).ravel()
    return result


def _pair(values: Iterable[int]) -> Pair:
    vertical, horizontal = values
    return vertical, horizontal


def _check_padding(second: ConvMap, first: ConvMap) -> None:
    """Where ``second`` reads zeros around ``first``'s output: would ``first``, computed there, also give zeros?"""
    for axis in (0, 1):
        size_in, size_out = first.in_shape[1 + axis], first.out_shape[1 + axis]
        outside = [p for p in positions_read(second, axis) if not 0 <= p < size_out]
        if outside and np.any(first.bias):
            raise NotExact("a bias ahead of a zero-padded convolution is missing in the padding")
        taps = range(first.weight.shape[2 + axis])
        starts = (p * first.stride[axis] - first.padding[axis] for p in outside)
        if any(0 <= start + t * first.dilation[axis] < size_in for start in starts for t in taps):
            raise NotExact(
                f"zero padding around a map of {first.in_shape[1:]} to {first.out_shape[1:]} "
                "(sizes that do not divide evenly, or overlapping windows)"
            )


def positions_read(conv: ConvMap, axis: int) -> list[int]:
    """Coordinates along an axis (0 vertical, 1 horizontal) that a convolution reads, its padding included."""
    offsets = [t * conv.dilation[axis] - conv.padding[axis] for t in range(conv.weight.shape[2 + axis])]
    return sorted({i * conv.stride[axis] + o for i in range(conv.out_shape[1 + axis]) for o in offsets})


def _combined_kernel(second: ConvMap, first: ConvMap) -> tuple[Floats, int]:
    """Kernel (dilation 1) and groups: every tap of ``second`` shifts a copy of ``first``'s kernel."""
    extents = [d * (k - 1) + 1 for d, k in zip(first.dilation, first.weight.shape[2:], strict=True)]
    steps = [s * d for s, d in zip(first.stride, second.dilation, strict=True)]
    sizes = [e + s * (k - 1) for e, s, k in zip(extents, steps, second.weight.shape[2:], strict=True)]
    if _is_depthwise(second):
        inner, groups = first.weight, first.groups
    elif _is_depthwise(first):
        groups = second.groups
        inner = np.repeat(first.weight.reshape(groups, -1, *first.weight.shape[2:]), len(second.weight) // groups, 0)
    else:
        inner, groups = full_kernel(first), 1
    mixed = not _is_depthwise(second) and not _is_depthwise(first)
    outer = full_kernel(second) if mixed else second.weight
    kernel = np.zeros((len(second.weight), inner.shape[1], *sizes))
    for v in range(second.weight.shape[2]):
        for h in range(second.weight.shape[3]):
            tap = outer[:, :, v, h]
            copy = np.tensordot(tap, inner, axes=(1, 0)) if mixed else tap[:, :, None, None] * inner
            top, left = v * steps[0], h * steps[1]
            kernel[
                :,
                :,
                top : top + extents[0] : first.dilation[0],
                left : left + extents[1] : first.dilation[1],
            ] += copy
    return kernel, groups


def _dense_after_conv(dense: DenseMap, conv: ConvMap) -> DenseMap:
    """Pull every row of the matrix back through the convolution (its adjoint); always exact."""
    rows = dense.weight.reshape(-1, *conv.out_shape)
    grouped = rows.reshape(len(rows), conv.groups, -1, math.prod(conv.out_shape[1:]))
    kernel = conv.weight.reshape(conv.groups, -1, *conv.weight.shape[1:])
    (sv, sh), (pv, ph), (dv, dh) = conv.stride, conv.padding, conv.dilation
    _, height, width = conv.in_shape
    out_h, out_w = conv.out_shape[1:]
    padded = np.zeros((len(rows), conv.in_shape[0], height + 2 * pv, width + 2 * ph))
    for v in range(conv.weight.shape[2]):
        for h in range(conv.weight.shape[3]):
            tap = kernel[:, :, :, v, h]
            # A 1x1 matrix a group (depthwise) is a factor; matmul would loop over the groups.
            pulled = grouped * tap if tap.shape[1:] == (1, 1) else tap.transpose(0, 2, 1) @ grouped
            padded[:, :, v * dv : v * dv + out_h * sv : sv, h * dh : h * dh + out_w * sh : sh] += pulled.reshape(
                len(rows), -1, out_h, out_w
            )
    weight = padded[:, :, pv : pv + height, ph : ph + width].reshape(len(rows), -1)
    bias = dense.bias + rows.sum(axis=(2, 3)) @ conv.bias
    return DenseMap(weight, bias, conv.in_shape, dense.out_shape)
