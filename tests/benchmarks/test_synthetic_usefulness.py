"""Classifiers of made and real images, on images whose class is plain to see."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from gascnn.benchmarks.synthetic.settings import SyntheticSettings
from gascnn.benchmarks.synthetic.usefulness import agreement, usefulness
from gascnn.toolkit.data.dataset import Dataset, ImageSet

CLASSES = ("left", "right", "both")


def labelled(seed, count, classes=3):
    """A bright left half, right half, or both."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 60, (count, 1, 8, 8), dtype=np.uint8)
    images[labels != 1, :, :, :4] += 150
    images[labels != 0, :, :, 4:] += 150
    return ImageSet(images, labels.astype(np.int64))


REAL = Dataset("halves", CLASSES, labelled(0, 400), labelled(1, 60), labelled(2, 150))
SETTINGS = SyntheticSettings(preset="smoke", seeds=(0, 1))


def test_good_images_teach_and_wrong_labels_do_not():
    told = []
    good = usefulness(labelled(3, 420), REAL, SETTINGS, told.append)
    assert good["training_images"] == 400
    assert told[:2] == ["training on 400 real images, seed 0", "training on 400 made images, seed 0"]
    assert good["options"]["select"] == "last"
    assert good["notes"] == []
    for row in good["rows"].values():
        assert row["accuracy"]["value"] > 0.9
        assert len(row["macro_f1"]["by_seed"]) == 2
        low, high = row["macro_f1"]["interval"]
        assert low <= row["macro_f1"]["value"] <= high
    made = labelled(3, 420)
    wrong = usefulness(ImageSet(made.images, (made.labels + 1) % 3), REAL, SETTINGS, told.append)
    assert wrong["rows"]["real_on_real"] == good["rows"]["real_on_real"], "the same training images, the same figure"
    assert wrong["rows"]["synthetic_on_real"]["accuracy"]["value"] < 0.25
    assert wrong["rows"]["real_on_synthetic"]["accuracy"]["value"] < 0.25


def test_fewer_made_images_and_a_missing_class():
    found = usefulness(labelled(4, 64, classes=2), REAL, SyntheticSettings(preset="smoke"), lambda _: None)
    assert found["training_images"] == 64
    assert found["options"]["balance"] == "none"
    assert "a class is missing" in found["notes"][0]


def test_agreement_is_scikit_learns():
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 3, 50)
    found = agreement(logits, labels)
    assert found["accuracy"]["value"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(labels, logits.argmax(axis=1), average="macro"))
    assert found["images"] == 50
