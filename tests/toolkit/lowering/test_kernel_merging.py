"""Several convolutions side by side in one kernel, against torch running them one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gascnn.toolkit.lowering.kernel import merged_geometry, place
from gascnn.toolkit.lowering.linear import ConvMap

GEOMETRIES = st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))
"""(kernel, padding, dilation) along one axis."""


def output_size(size, stride, kernel, padding, dilation):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def siblings(draw):
    """Convolutions of one stride from an image of one size to an image of one size."""
    size = (draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    out = None
    maps = []
    for vertical, horizontal in draw(st.lists(st.tuples(GEOMETRIES, GEOMETRIES), min_size=1, max_size=8)):
        found = tuple(output_size(n, s, *axis) for n, s, axis in zip(size, stride, (vertical, horizontal), strict=True))
        if min(found) < 1 or (out is not None and found != out):
            continue
        out = found
        kernel, padding, dilation = zip(vertical, horizontal, strict=True)
        channels = draw(st.integers(1, 3))
        weight = rng.normal(size=(2, channels, *kernel))
        maps.append(ConvMap(weight, np.zeros(2), stride, padding, dilation, 1, (channels, *size), (2, *out)))
    return maps


@settings(max_examples=200, deadline=None)
@given(siblings(), st.booleans())
def test_one_kernel_computes_the_sum_of_all(maps, origin):
    if not maps:
        return
    size, out, stride = maps[0].in_shape[1:], maps[0].out_shape[1:], maps[0].stride
    channels = sum(m.in_shape[0] for m in maps)
    geometry = merged_geometry(maps, channels, size, out, origin, keep_groups=False)
    kernel = np.zeros((2, channels, *geometry.kernel))
    value = torch.tensor(np.random.default_rng(0).normal(size=(2, channels, *size)))
    factor = np.array([1.0, -3.0])
    expected, column = 0, 0
    for m in maps:
        place(kernel, m, geometry, column, factor)
        part = value[:, column : column + m.in_shape[0]]
        one = functional.conv2d(part, torch.tensor(m.weight), None, stride, m.padding, m.dilation)
        expected = expected + one * torch.tensor(factor).view(1, -1, 1, 1)
        column += m.in_shape[0]
    found = functional.conv2d(value, torch.tensor(kernel), None, stride, geometry.padding, geometry.dilation)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    if origin:
        repeats_the_origin(value[:1, :1], geometry, out)


def repeats_the_origin(value, geometry, out):
    """The tap at the origin alone must read ``x[stride * i]``, zero beyond the image."""
    kernel = torch.zeros(1, 1, *geometry.kernel).double()
    kernel[0, 0, geometry.tap(0, 0), geometry.tap(1, 0)] = 1
    found = functional.conv2d(value, kernel, None, geometry.stride, geometry.padding, geometry.dilation)[0, 0]
    expected = torch.zeros(*out).double()
    thinned = value[0, 0, :: geometry.stride[0], :: geometry.stride[1]][: out[0], : out[1]]
    expected[: thinned.shape[0], : thinned.shape[1]] = thinned
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("channels", "groups", "kept"), [(6, 3, 3), (128, 128, 64), (200, 200, 100), (131, 131, 1), (254, 254, 127)]
)
def test_groups_are_merged_to_at_most_127(channels, groups, kept):
    """Lava keeps the number in 8 bits with sign: the largest divisor that fits, with block-diagonal kernels."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(channels, channels // groups, 1, 3))
    grouped = ConvMap(weight, np.zeros(channels), (1, 1), (0, 1), (1, 1), groups, (channels, 2, 4), (channels, 2, 4))
    geometry = merged_geometry([grouped], channels, (2, 4), (2, 4), False, keep_groups=True)
    assert geometry.groups == kept
    kernel = np.zeros((channels, channels // kept, *geometry.kernel))
    place(kernel, grouped, geometry, 0, np.ones(channels))
    value = torch.tensor(rng.normal(size=(1, channels, 2, 4)))
    found = functional.conv2d(value, torch.tensor(kernel), None, 1, geometry.padding, 1, kept)
    expected = functional.conv2d(value, torch.tensor(weight), None, 1, (0, 1), 1, groups)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
