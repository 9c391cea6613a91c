"""Shapes and geometry of convolutions, shared by everything that reads or builds layers."""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[int, int]


def conv_output_shape(
    input_shape: Sequence[int], weight_shape: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> tuple[int, int, int]:
    """(C, H, W) of a convolution: ``floor((in + 2 p - d (k - 1) - 1) / s + 1)`` an axis, symmetric zero padding.

    Args:
        input_shape: (C_in, H, W).
        weight_shape: (C, C_in / groups, kH, kW).
        stride, padding, dilation: (vertical, horizontal).

    Returns:
        The output's shape; an axis may come out as 0 or negative when the kernel is larger than the padded input.
    """
    height, width = (
        (input_shape[1 + axis] + 2 * padding[axis] - dilation[axis] * (weight_shape[2 + axis] - 1) - 1) // stride[axis]
        + 1
        for axis in (0, 1)
    )
    return weight_shape[0], height, width


def origin_inside(input_size: int, output_size: int, stride: int) -> bool:
    """Whether ``x[stride * i]`` lies inside the image for every output position ``i``.

    A bias carried by an always-on channel sits on the tap that reads there: any other tap, and this one where it
    leaves the image, would lose the bias in the zero padding at the borders.
    """
    return (output_size - 1) * stride < input_size
