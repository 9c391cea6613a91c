"""Put several convolutions side by side into one kernel: the smallest window that holds all their taps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.lowering.limits import GROUPS_MAX
from gascnn.toolkit.lowering.linear import ConvMap, full_kernel
from gascnn.toolkit.lowering.shapes import Pair

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, padding and dilation (vertical, horizontal) of a layer's convolution, and its groups."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int = 1

    def tap(self, axis: int, offset: int) -> int:
        """Index of the tap that reads ``x[stride * i + offset]``."""
        return (offset + self.padding[axis]) // self.dilation[axis]


def merged_geometry(
    maps: list[ConvMap],
    channels: int,
    size_in: tuple[int, ...],
    size_out: tuple[int, ...],
    needs_origin: bool,
    *,
    keep_groups: bool,
) -> Geometry:
    """The geometry of a kernel that can hold all ``maps``, which have one stride.

    Args:
        maps: convolutions from parts of one input.
        channels: of the whole input.
        size_in, size_out: (H, W).
        needs_origin: whether a tap at offset 0 is needed (relays, biases).
        keep_groups: whether the only map may keep its groups (made few enough for Lava).
    """
    axes = []
    for axis in (0, 1):
        taps = [[t * m.dilation[axis] - m.padding[axis] for t in range(m.weight.shape[2 + axis])] for m in maps]
        offsets = sorted({offset for row in taps for offset in row} | ({0} if needs_origin else set()))
        padding = max(m.padding[axis] for m in maps)
        axes.append(_merged_axis(offsets, padding, maps[0].stride[axis], size_in[axis], size_out[axis]))
    return Geometry(
        kernel=(axes[0][0], axes[1][0]),
        stride=maps[0].stride,
        padding=(axes[0][1], axes[1][1]),
        dilation=(axes[0][2], axes[1][2]),
        groups=_few_groups(maps[0], channels) if keep_groups else 1,
    )


def _merged_axis(offsets: list[int], padding: int, stride: int, size_in: int, size_out: int) -> tuple[int, int, int]:
    """(kernel, padding, dilation) along one axis.

    Padding is widened until the last tap still gives ``size_out`` positions, then zero taps are added until there are
    no more than that. Both always work: every map alone gives ``size_out``, and all distances are multiples of the
    dilation.
    """
    dilation = math.gcd(*offsets, padding) or 1
    least = offsets[-1] + (size_out - 1) * stride + 1 - size_in
    padding = max(padding, -(-least // dilation) * dilation)
    last_tap = max(offsets[-1] + padding, size_in + 2 * padding - size_out * stride)
    return -(-last_tap // dilation) + 1, padding, dilation


def _few_groups(conv: ConvMap, channels: int) -> int:
    """The convolution's groups, or the largest divisor of them that Lava can hold."""
    if conv.in_shape[0] != channels:
        return 1
    return max(g for g in range(1, min(conv.groups, GROUPS_MAX) + 1) if conv.groups % g == 0)


def place(target: Floats, conv: ConvMap, geometry: Geometry, column: int, factor: Floats) -> None:
    """Add ``conv``'s kernel, times ``factor`` an output channel, to the rows ``target`` of a layer's kernel.

    Args:
        target: (C_out, C_in / groups, kH, kW), a view that is changed.
        conv: the convolution.
        geometry: of the layer.
        column: the layer's input channel where the convolution's input begins.
        factor: (C_out,).
    """
    kernel = full_kernel(conv) * factor.reshape(-1, 1, 1, 1)
    vertical, horizontal = (_taps(conv, geometry, axis) for axis in (0, 1))
    if geometry.groups == 1:
        target[:, column : column + kernel.shape[1], vertical, horizontal] += kernel
        return
    rows, width = len(target) // geometry.groups, target.shape[1]
    for group in range(geometry.groups):
        chosen = slice(group * rows, (group + 1) * rows)
        block = kernel[chosen, group * width : (group + 1) * width]
        target[chosen, :, vertical, horizontal] += block


def _taps(conv: ConvMap, geometry: Geometry, axis: int) -> slice:
    """Where the convolution's taps lie among the layer's."""
    first = geometry.tap(axis, -conv.padding[axis])
    step = conv.dilation[axis] // geometry.dilation[axis]
    return slice(first, first + step * (conv.weight.shape[2 + axis] - 1) + 1, max(step, 1))
