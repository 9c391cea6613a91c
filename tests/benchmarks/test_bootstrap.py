"""Intervals against resampling image by image, and against scikit-learn's macro-F1."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from gascnn.benchmarks.bootstrap import estimate
from gascnn.toolkit.errors import DataError, UsageError


def answers(seed, images=300, classes=4, right=0.8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    return labels, np.where(rng.random(images) < right, labels, rng.integers(0, classes, images))


def macro_f1(labels, predictions):
    return f1_score(labels, predictions, average="macro", zero_division=0.0)


def quick_macro_f1(labels, predictions):
    """The same without scikit-learn's checks, which take most of its time."""
    hits = [2 * np.sum((labels == c) & (predictions == c)) for c in range(4)]
    return np.mean([h / (np.sum(labels == c) + np.sum(predictions == c)) for c, h in enumerate(hits)])


def test_values_are_scikit_learns():
    labels, predictions = answers(0)
    found = estimate(labels, predictions)
    assert found["accuracy"].value == pytest.approx(accuracy_score(labels, predictions))
    assert found["macro_f1"].value == pytest.approx(macro_f1(labels, predictions))


def test_a_class_that_only_answers_name_counts_with_0():
    labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 3, 1, 1])
    assert estimate(labels, predictions)["macro_f1"].value == pytest.approx(macro_f1(labels, predictions))
    assert macro_f1(labels, predictions) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_intervals_are_those_of_drawing_images_one_by_one():
    labels, predictions = answers(1)
    assert quick_macro_f1(labels, predictions) == pytest.approx(macro_f1(labels, predictions))
    rng = np.random.default_rng(2)
    drawn = [rng.integers(0, len(labels), len(labels)) for _ in range(2000)]
    slow = {
        "accuracy": [np.mean(labels[d] == predictions[d]) for d in drawn],
        "macro_f1": [quick_macro_f1(labels[d], predictions[d]) for d in drawn],
    }
    found = estimate(labels, predictions, resamples=8000)
    for name, values in slow.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[name].low == pytest.approx(low, abs=0.006)
        assert found[name].high == pytest.approx(high, abs=0.006)
        assert found[name].low < found[name].value < found[name].high


def test_differences_are_paired():
    """Answers that are the reference's but for one image: the difference hardly moves, though both figures do."""
    labels, reference = answers(3)
    predictions = reference.copy()
    right = int(np.flatnonzero(reference == labels)[0])
    predictions[right] = (labels[right] + 1) % 4
    found = estimate(labels, predictions, reference)
    below = found["accuracy_below"]
    assert below.value == pytest.approx(1 / 300)
    assert 0.0 <= below.low <= below.value <= below.high <= 5 / 300
    assert found["accuracy"].high - found["accuracy"].low > 0.05
    assert found["macro_f1_below"].value == pytest.approx(macro_f1(labels, reference) - macro_f1(labels, predictions))


def test_seeded_and_as_json():
    labels, predictions = answers(4)
    one, two, three = (estimate(labels, predictions, seed=seed)["macro_f1"] for seed in (1, 1, 2))
    assert one == two
    assert one != three
    assert one.to_dict() == {"value": one.value, "interval": [one.low, one.high]}


@pytest.mark.parametrize(
    ("labels", "predictions", "options", "error", "match"),
    [
        ([0, 1], [0], {}, DataError, r"shapes \[\(2,\), \(1,\)\]; expected as many classes"),
        ([], [], {}, DataError, "expected as many classes"),
        ([0, -1], [0, 1], {}, DataError, "expected as many classes, from 0"),
        ([0, 1], [0, 1], {"resamples": 0}, UsageError, "0 resamples at level 0.95; at least 1"),
        ([0, 1], [0, 1], {"level": 1.0}, UsageError, "a level between 0 and 1"),
    ],
)
def test_bad_input(labels, predictions, options, error, match):
    with pytest.raises(error, match=match):
        estimate(np.array(labels, dtype=int), np.array(predictions, dtype=int), **options)
