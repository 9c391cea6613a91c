"""Fréchet distances against values by hand and against scipy's matrix square root."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from gascnn.benchmarks.synthetic.frechet import Frechet, bootstrapped, frechet_distance
from gascnn.toolkit.errors import DataError


def by_scipy(first, second):
    """The formula as it is printed."""
    means, covariances = zip(*((f.mean(axis=0), np.atleast_2d(np.cov(f.T))) for f in (first, second)), strict=True)
    root = sqrtm(covariances[0] @ covariances[1])
    return np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * np.real(root))


def drawn(seed, count, width):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


def test_one_dimension_by_hand():
    """(m1 - m2)^2 + (s1 - s2)^2: means 0 and 3, sample deviations sqrt(2) and 3 sqrt(2)."""
    first, second = np.array([[-1.0], [1.0]]), np.array([[0.0], [6.0]])
    assert frechet_distance(first, second) == pytest.approx(9 + (3 * np.sqrt(2) - np.sqrt(2)) ** 2)


def test_two_dimensions_by_hand():
    """Covariances diag(1, 4) 2/3 and diag(4, 1) 2/3, means alike: 2/3 ((1 - 2)^2 + (2 - 1)^2)."""
    first = np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])
    assert frechet_distance(first, first[:, ::-1]) == pytest.approx(4 / 3)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert frechet_distance(first @ turn, first[:, ::-1] @ turn + [1.0, 2.0]) == pytest.approx(4 / 3 + 5)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(20, 60), st.integers(20, 60))
@settings(max_examples=25, deadline=None)
def test_is_the_printed_formula(seed, width, many, others):
    first, second = drawn(seed, many, width), drawn(seed + 1, others, width)
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first, second), rel=1e-6, abs=1e-8)


def test_fewer_images_than_features():
    first, second = drawn(0, 7, 12), drawn(1, 9, 12)
    # Adding a little to the diagonals makes scipy's root exist; the distance is continuous.
    means = first.mean(axis=0) - second.mean(axis=0)
    one, two = np.cov(first.T) + 1e-9 * np.eye(12), np.cov(second.T) + 1e-9 * np.eye(12)
    expected = means @ means + np.trace(one + two) - 2 * np.real(np.trace(sqrtm(one @ two)))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_of_the_same_images_it_is_0():
    features = drawn(3, 40, 5)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-10)


def test_deviation_is_that_of_other_samples():
    """The bootstrap's deviation of one pair of samples against that of many fresh pairs."""
    rng = np.random.default_rng(4)

    def pair():
        return rng.normal(size=(200, 3)), rng.normal(1.0, 1.5, size=(200, 3))

    fresh = np.std([frechet_distance(*pair()) for _ in range(400)])
    found = np.mean([bootstrapped(*pair(), resamples=60, seed=seed).deviation for seed in range(8)])
    assert found == pytest.approx(fresh, rel=0.2)


def test_interval_and_seed():
    assert Frechet(2.0, 0.5).to_dict() == {"value": 2.0, "interval": pytest.approx([2 - 0.979982, 2 + 0.979982])}
    assert Frechet(0.1, 0.5).to_dict()["interval"][0] == 0
    first, second = drawn(5, 30, 2), drawn(6, 30, 2)
    assert bootstrapped(first, second, resamples=5, seed=1) == bootstrapped(first, second, resamples=5, seed=1)
    assert bootstrapped(first, second, resamples=5, seed=1) != bootstrapped(first, second, resamples=5, seed=2)


@pytest.mark.parametrize("shapes", [((1, 3), (5, 3)), ((5, 3), (5, 4)), ((5,), (5,))])
def test_what_cannot_be_compared(shapes):
    with pytest.raises(DataError, match="two \\(n, d\\) of at least two rows each"):
        frechet_distance(*(np.zeros(shape) for shape in shapes))
