"""Areas against scikit-learn, their deviations against DeLong's formula in loops and against fresh samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from gascnn.benchmarks.synthetic.roc import area, difference, found_at
from gascnn.toolkit.errors import DataError


def scores(seed, positives=60, negatives=45, levels=12):
    """Whole numbers, so that there are ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(2, 2 + levels, positives).astype(float), rng.integers(0, levels, negatives).astype(float)


def both(positives, negatives):
    return np.repeat([1, 0], [len(positives), len(negatives)]), np.concatenate([positives, negatives])


def parts(positives, negatives):
    """DeLong's psi in loops."""
    psi = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in negatives] for x in positives])
    return psi.mean(axis=1), psi.mean(axis=0)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_area_is_scikit_learns(seed):
    positives, negatives = scores(seed)
    assert area(positives, negatives).value == pytest.approx(roc_auc_score(*both(positives, negatives)))


def test_deviation_is_delongs():
    positives, negatives = scores(0)
    of_positives, of_negatives = parts(positives, negatives)
    variance = np.cov(of_positives) / len(positives) + np.cov(of_negatives) / len(negatives)
    found = area(positives, negatives)
    assert found.deviation == pytest.approx(np.sqrt(variance))
    assert found.to_dict()["interval"] == pytest.approx(
        [found.value - 1.959964 * np.sqrt(variance), found.value + 1.959964 * np.sqrt(variance)]
    )


def test_interval_holds_the_truth_as_often_as_it_says():
    """Normal scores one deviation apart: the area is Phi(1 / sqrt(2)) = 0.7602."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        low, high = area(rng.normal(1, 1, 80), rng.normal(0, 1, 60)).to_dict()["interval"]
        held += low <= 0.76025 <= high
    assert 0.91 <= held / 400 <= 0.98


def test_one_sided_p_value():
    """Where nothing is to be found it is even over 0..1; scores that separate make it 0."""
    rng = np.random.default_rng(2)
    found = [area(rng.normal(size=50), rng.normal(size=50)).to_dict()["p_value"] for _ in range(400)]
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.08)
    assert area(np.arange(5.0) + 10, np.arange(5.0)).to_dict() == {"value": 1.0, "interval": [1.0, 1.0], "p_value": 0.0}


def test_differences_are_paired():
    (one, other), (two, another) = scores(3), scores(4)
    two, another = one + 0.3 * two, other + 0.3 * another
    found = difference(area(one, other), area(two, another))
    assert found["value"] == pytest.approx(roc_auc_score(*both(one, other)) - roc_auc_score(*both(two, another)))
    variance = 0.0
    for first, second in zip(parts(one, other), parts(two, another), strict=True):
        matrix = np.cov(first, second)
        variance += (matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1]) / len(first)
    assert found["interval"][1] - found["value"] == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)
    with pytest.raises(DataError, match="different candidates"):
        difference(area(one, other), area(one[1:], other))


@pytest.mark.parametrize("false_alarms", [0.02, 0.1, 0.5])
def test_found_at_is_the_highest_point_of_the_curve(false_alarms):
    positives, negatives = scores(5, 300, 200, 400)
    rates, found, _ = roc_curve(*both(positives, negatives), drop_intermediate=False)
    expected = found[rates <= false_alarms].max()
    result = found_at(positives, negatives, false_alarms)
    assert result["value"] == pytest.approx(expected)
    assert result["false_alarms"] <= false_alarms


def test_too_few():
    assert found_at(np.arange(9.0), np.arange(99.0), 0.01) is None
    assert found_at(np.arange(9.0) + 200, np.arange(100.0), 0.01)["value"] == 1.0
    with pytest.raises(DataError, match="1 and 5 scores; at least two finite ones"):
        area(np.zeros(1), np.zeros(5))
    with pytest.raises(DataError, match="finite"):
        area(np.array([1.0, np.nan]), np.zeros(5))
