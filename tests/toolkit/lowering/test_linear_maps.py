"""Composition of linear maps against torch applying one after the other, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gascnn.toolkit.lowering.linear import (
    ConvMap,
    DenseMap,
    NotExact,
    as_dense,
    compose,
    full_kernel,
    identity_map,
    pool_map,
    scale_map,
)

QUICK = settings(max_examples=150, deadline=None)


def apply(linear, value):
    """A map as torch computes it."""
    weight, bias = torch.tensor(linear.weight), torch.tensor(np.array(linear.bias))
    if isinstance(linear, DenseMap):
        return functional.linear(value.flatten(1), weight, bias)
    return functional.conv2d(value, weight, bias, linear.stride, linear.padding, linear.dilation, linear.groups)


def conv(shape, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """A map whose output shape torch decides."""
    weight = np.asarray(weight, dtype=float)
    probe = functional.conv2d(
        torch.zeros(1, *shape).double(), torch.tensor(weight), None, stride, padding, dilation, groups
    )
    bias = np.zeros(len(weight)) if bias is None else bias
    return ConvMap(weight, bias, stride, padding, dilation, groups, tuple(shape), tuple(probe.shape[1:]))


@st.composite
def convolutions(draw, shape=None, padded=True):
    """A random convolution; now and then depthwise, strided, dilated, padded beyond its kernel, biased."""
    if shape is None:
        shape = (draw(st.sampled_from([1, 2, 3, 4, 6])), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = draw(st.sampled_from([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
    outputs = groups * draw(st.integers(1, 2))
    ranges = ((1, 4), (1, 3), (0, 3), (1, 2))
    kernel, stride, padding, dilation = ((draw(st.integers(*r)), draw(st.integers(*r))) for r in ranges)
    axes = list(zip(kernel, padding, dilation, shape[1:], strict=True))
    if padded:  # what does not fit the image is padded until it does
        padding = tuple(max(p, -(-(d * (k - 1) + 1 - n) // 2)) for k, p, d, n in axes)
    else:
        kernel, padding = tuple(min(k, (n - 1) // d + 1) for k, _, d, n in axes), (0, 0)
    weight = rng.normal(size=(outputs, shape[0] // groups, *kernel))
    bias = rng.normal(size=outputs) if draw(st.booleans()) else None
    return conv(shape, weight, bias, stride, padding, dilation, groups)


def images(linear, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(3, *linear.in_shape)))


@QUICK
@given(st.data())
def test_composed_convolutions_give_equal_values_or_are_refused(data):
    first = data.draw(convolutions())
    second = data.draw(convolutions(first.out_shape))
    value = images(first)
    expected = apply(second, apply(first, value))
    try:
        both = compose(second, first)
    except NotExact:
        return
    assert both.out_shape == tuple(expected.shape[1:])
    torch.testing.assert_close(apply(both, value), expected, rtol=0, atol=1e-9)


@QUICK
@given(st.data())
def test_unpadded_second_convolutions_are_never_refused(data):
    """Nothing is read outside the first one's output, so the composition is exact whatever the first one is."""
    first = data.draw(convolutions())
    second = data.draw(convolutions(first.out_shape, padded=False))
    value = images(first)
    torch.testing.assert_close(
        apply(compose(second, first), value), apply(second, apply(first, value)), rtol=0, atol=1e-9
    )


@QUICK
@given(st.data())
def test_anything_ahead_of_a_dense_layer_is_exact(data):
    first = data.draw(convolutions())
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    size = int(np.prod(first.out_shape))
    dense = DenseMap(rng.normal(size=(3, size)), rng.normal(size=3), (size,), (3,))
    value = images(first)
    both = compose(dense, first)
    torch.testing.assert_close(apply(both, value), apply(dense, apply(first, value)), rtol=0, atol=1e-9)
    torch.testing.assert_close(apply(as_dense(first), value), apply(first, value).flatten(1), rtol=0, atol=1e-9)


def test_two_dense_layers():
    rng = np.random.default_rng(0)
    first = DenseMap(rng.normal(size=(4, 5)), rng.normal(size=4), (5,), (4,))
    second = DenseMap(rng.normal(size=(2, 4)), rng.normal(size=2), (4,), (2,))
    value = images(first)
    torch.testing.assert_close(apply(compose(second, first), value), apply(second, apply(first, value)))
    assert as_dense(first) is first


@pytest.mark.parametrize("height", [2, 6, 8])
@pytest.mark.parametrize("kernel", [3, 5])
def test_even_pooling_ahead_of_a_padded_convolution_is_exact(height, kernel):
    """Windows of 2x2 tile an even image: what lies beyond the pooled image is zero, pooled or not."""
    pool = pool_map((3, height, 2 * height), (2, 2), (2, 2), (0, 0), average=True)
    weight = np.random.default_rng(1).normal(size=(4, 3, kernel, kernel))
    after = conv(pool.out_shape, weight, np.ones(4), padding=(kernel // 2,) * 2)
    value = images(pool)
    expected = apply(after, functional.avg_pool2d(value, 2))
    torch.testing.assert_close(apply(compose(after, pool), value), expected, rtol=0, atol=1e-12)


def test_odd_pooling_ahead_of_a_padded_convolution_is_refused():
    """7 pixels give 3 windows; the fourth would start on pixel 6, which torch leaves out."""
    pool = pool_map((1, 7, 8), (2, 2), (2, 2), (0, 0), average=True)
    with pytest.raises(NotExact, match=r"zero padding around a map of \(7, 8\) to \(3, 4\)"):
        compose(conv(pool.out_shape, np.ones((1, 1, 3, 3)), padding=(1, 1)), pool)
    # A convolution that never looks there has nothing to fear: stride 2 reads columns -1, 0, 1 and 1, 2, 3 of four.
    pool = pool_map((1, 9, 9), (2, 2), (2, 2), (0, 0), average=True)
    after = conv(pool.out_shape, np.ones((1, 1, 3, 3)), stride=(2, 2), padding=(1, 1))
    value = images(pool)
    torch.testing.assert_close(apply(compose(after, pool), value), apply(after, apply(pool, value)))


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [((8, 8), 2, 2), ((7, 9), 3, 2), ((5, 6), (5, 6), 1), ((9, 9), 2, 3)]
)
def test_unpadded_pooling_behind_any_convolution_is_exact(size, kernel, stride):
    first = conv((2, *size), np.random.default_rng(2).normal(size=(3, 2, 3, 3)), np.arange(3.0), padding=(1, 1))
    pool = pool_map(first.out_shape, tuple(np.broadcast_to(kernel, 2)), (stride, stride), (0, 0), average=True)
    value = images(first)
    expected = functional.avg_pool2d(apply(first, value), kernel, stride)
    torch.testing.assert_close(apply(compose(pool, first), value), expected, rtol=0, atol=1e-12)


def test_overlapping_windows_ahead_of_padding_are_refused():
    pool = pool_map((1, 8, 8), (3, 3), (2, 2), (1, 1), average=True)
    with pytest.raises(NotExact, match="overlapping windows"):
        compose(conv(pool.out_shape, np.ones((1, 1, 3, 3)), padding=(1, 1)), pool)


def test_a_bias_ahead_of_padding_is_refused():
    first = conv((1, 4, 4), np.ones((1, 1, 1, 1)), np.ones(1))
    with pytest.raises(NotExact, match="a bias ahead of a zero-padded convolution"):
        compose(conv(first.out_shape, np.ones((1, 1, 3, 3)), padding=(1, 1)), first)


def test_a_convolution_after_a_dense_layer_is_refused():
    dense = DenseMap(np.ones((4, 4)), np.zeros(4), (4,), (4,))
    with pytest.raises(NotExact, match="after a dense layer"):
        compose(conv((1, 2, 2), np.ones((1, 1, 1, 1))), dense)


@pytest.mark.parametrize("average", [True, False])
def test_pooling(average):
    pool = pool_map((2, 7, 8), (3, 2), (2, 1), (1, 1), average=average)
    value = images(pool)
    expected = functional.avg_pool2d(value, (3, 2), (2, 1), (1, 1)) * (1 if average else 6)
    torch.testing.assert_close(apply(pool, value), expected)


@pytest.mark.parametrize("shape", [(3, 4, 5), (6,)])
def test_scale_and_identity(shape):
    factors = np.arange(1.0, shape[0] + 1)
    value = torch.tensor(np.random.default_rng(0).normal(size=(2, *shape)))
    scaled = apply(scale_map(factors, shape), value)
    torch.testing.assert_close(scaled, value * torch.tensor(factors).view(-1, *(1,) * (len(shape) - 1)))
    torch.testing.assert_close(apply(identity_map(shape), value), value)


def test_groups_survive_pooling_and_scaling():
    """A grouped convolution stays one: on the chip its synapses are what costs."""
    rng = np.random.default_rng(0)
    grouped = conv((6, 8, 8), rng.normal(size=(9, 2, 3, 3)), groups=3, padding=(1, 1))
    value = images(grouped)
    behind = compose(pool_map(grouped.out_shape, (2, 2), (2, 2), (0, 0), average=True), grouped)
    ahead = compose(conv((6, 8, 8), grouped.weight, groups=3, padding=(1, 1)), scale_map(rng.normal(size=6), (6, 8, 8)))
    assert (behind.groups, ahead.groups) == (3, 3)
    torch.testing.assert_close(apply(behind, value), functional.avg_pool2d(apply(grouped, value), 2))


def test_full_kernel_writes_groups_out():
    grouped = conv((4, 5, 5), np.random.default_rng(0).normal(size=(6, 2, 3, 3)), groups=2)
    value = images(grouped)
    full = conv((4, 5, 5), full_kernel(grouped))
    torch.testing.assert_close(apply(full, value), apply(grouped, value))
