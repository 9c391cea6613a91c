"""The attack finds members where there is something to find, and the baselines say what is no membership."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gascnn.benchmarks.synthetic.membership import membership
from gascnn.benchmarks.synthetic.space import feature_space
from gascnn.benchmarks.synthetic.verdict import verdict


def points(seed, count, shift=0.0):
    return np.random.default_rng(seed).normal(size=(count, 6)) + shift


def attacked(synthetic, *, held_shift=0.0):
    space = feature_space("features", {
        "synthetic": synthetic, "train": points(0, 400), "val": points(1, 250, held_shift),
        "test": points(2, 300, held_shift),
    })  # fmt: skip
    return membership(space, 0)


def areas(members, others, references):
    """scikit-learn's area of minus the distances to the nearest reference."""
    labels = np.repeat([1, 0], [len(members), len(others)])
    table = np.linalg.norm(np.concatenate([members, others])[:, None] - references[None], axis=2)
    return roc_auc_score(labels, -table.min(axis=1))


def test_against_scikit_learn():
    made = points(3, 350)
    found = attacked(made)
    assert found["attack"]["value"] == pytest.approx(areas(points(0, 400), points(2, 300), made))
    assert (found["members"], found["non_members"], found["references"]) == (400, 300, 200)
    everything = attacked(made[:200])
    assert everything["same_number"]["value"] == pytest.approx(areas(points(0, 400), points(2, 300), made[:200]))
    excess = everything["same_number"]["value"] - everything["held_reference"]["value"]
    assert everything["excess"]["value"] == pytest.approx(excess)


def test_who_replays_leaks():
    made = points(0, 400)[::2] + 0.05 * points(4, 200)
    found = attacked(made)
    assert found["same_number"]["interval"][0] > 0.6
    assert found["calibrated"]["interval"][0] > 0.6
    assert found["excess"]["interval"][0] > 0.1
    assert found["leaks"]
    assert found["attack"]["found_at"]["0.01"]["value"] > 0.3
    assert found["attack"]["found_at"]["0.001"] is None, "300 others cannot tell one in a thousand"


def test_strangers_do_not_leak():
    for seed in range(10, 16):
        found = attacked(points(seed, 200))
        assert not found["leaks"]
        low, high = found["excess"]["interval"]
        assert low - 0.03 <= 0 <= high + 0.03


def test_another_hospital_is_no_leak():
    """Held images of elsewhere: made images of the training distribution tell them apart without knowing a member."""
    found = attacked(points(5, 200), held_shift=0.7)
    assert found["attack"]["interval"][0] > 0.6
    assert found["excess"]["interval"][0] > 0.1, "which validation images do not explain"
    assert found["training_reference"]["interval"][0] > 0.6, "but other training images do"
    assert not found["leaks"]


def test_a_leak_without_copies_is_the_first_line():
    shares = {"value": 0.0, "interval": [0.0, 0.01]}
    sets = {"synthetic": {"images": 200, "unmistakable": 0, "near": shares, "relatively_near": shares}}
    sets["test"] = {"relatively_near": shares}
    quiet = {"unit": "features, RMS", "thresholds": {"unmistakable": 0.1}, "sets": sets}
    found = attacked(points(0, 400)[::2] + 0.05 * points(4, 200))
    first_line = verdict({"pixels": quiet, "features": quiet}, {"features": found})
    assert first_line["level"] == "signs"
    assert first_line["sentence"].startswith("SIGNS OF REPLAYING PATIENTS: who has them tells training images")
    assert f"{found['same_number']['value']:.3f}" in first_line["sentence"]
