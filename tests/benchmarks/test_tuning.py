"""Sums, neurons and thresholds of the raced networks, against loops and by hand."""

import numpy as np
import pytest

from gascnn.benchmarks.tuning import conv_sums, dense_sums, integrate_and_fire, threshold_for
from gascnn.toolkit.errors import UsageError


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (2, 0), (1, 2)])
def test_conv_sums_are_those_of_five_nested_loops(stride, padding):
    rng = np.random.default_rng(1)
    weight = rng.integers(-256, 255, (3, 2, 3, 3))
    spikes = (rng.random((2, 2, 6, 7)) < 0.4).astype(np.uint8)
    found = conv_sums(weight, spikes, stride, padding)
    height, width = ((n + 2 * padding - 3) // stride + 1 for n in (6, 7))
    assert found.shape == (2, 3, height, width)
    padded = np.zeros((2, 2, 6 + 2 * padding, 7 + 2 * padding), dtype=int)
    padded[:, :, padding : padding + 6, padding : padding + 7] = spikes
    for t, c, y, x in np.ndindex(found.shape):
        window = padded[t, :, stride * y : stride * y + 3, stride * x : stride * x + 3]
        assert found[t, c, y, x] == (window * weight[c]).sum()


def test_dense_sums_flatten_in_channel_order():
    weight = np.arange(8).reshape(1, 8)
    spikes = np.zeros((1, 2, 2, 2), dtype=np.uint8)
    spikes[0, 1, 0, 1] = 1  # channel 1, row 0, column 1: number 5
    assert dense_sums(weight, spikes).tolist() == [[5.0]]


def test_neurons_fire_above_the_threshold_and_start_again_from_zero():
    sums = np.array([[4, 5], [1, -9], [1, 5], [5, 5], [6, 5]], dtype=np.float32)
    # First neuron: 4, 5, 6 fires, 5, 11 fires. Second: 5, -4, 1, 6 fires, 5.
    expected = [[0, 0], [0, 0], [1, 0], [0, 1], [1, 0]]
    assert integrate_and_fire(sums, 5).tolist() == expected


def test_threshold_is_the_one_that_comes_closest():
    # One neuron that gets 1 at each of 12 steps fires every (threshold + 1) steps: 12, 6, 4, 3, 2, 2, 1 times, ...
    sums = np.ones((12, 1), dtype=np.float32)
    assert threshold_for(sums, 3 / 12) == 3
    assert threshold_for(sums, 6 / 12) == 1
    assert threshold_for(sums, 4.4 / 12) == 2


def test_a_rate_out_of_reach_is_refused():
    sums = np.full((10, 5), -1, dtype=np.float32)
    sums[:, 0] = 1
    with pytest.raises(
        UsageError, match=r"firing rate of 0.5 is out of reach: with threshold 0 the layer fires at 0.2"
    ):
        threshold_for(sums, 0.5)
