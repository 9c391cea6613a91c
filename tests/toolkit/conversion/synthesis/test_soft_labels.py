"""Class similarity, concentrations and Dirichlets against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.toolkit.conversion.synthesis import class_similarity, concentration, draw_soft_labels
from gascnn.toolkit.errors import ConversionError, UsageError

# Cosines by hand: (3, 4) . (4, 3) / 25 = 0.96; (3, 4) . (-4, 3) = 0; (4, 3) . (-4, 3) / 25 = -7 / 25.
WEIGHT = np.array([[3.0, 4.0], [8.0, 6.0], [-4.0, 3.0]], dtype=np.float32)
SIMILARITY = np.array([[1, 0.96, 0], [0.96, 1, -0.28], [0, -0.28, 1]])


def test_similarity_is_the_cosine_of_the_rows():
    np.testing.assert_allclose(class_similarity(WEIGHT), SIMILARITY, atol=1e-12)


def test_concentration_spreads_each_row_over_0_to_1():
    # Row 1: (0.96 + 0.28) / 1.28 = 0.96875, 1, 0. Row 2: 0.28 / 1.28 = 0.21875, 0, 1.
    expected = np.array([[1, 0.96, 0.001], [0.96875, 1, 0.001], [0.21875, 0.001, 1]])
    np.testing.assert_allclose(concentration(SIMILARITY), expected, atol=1e-12)
    np.testing.assert_allclose(concentration(SIMILARITY, scale=5.0, floor=0.01)[0], [5, 4.8, 0.05], atol=1e-12)


def test_classes_that_cannot_be_told_apart_are_equally_likely():
    same = class_similarity(np.ones((3, 4)))
    np.testing.assert_array_equal(concentration(same, scale=2.0), np.full((3, 3), 2.0))


def test_soft_labels_have_the_moments_of_their_dirichlet():
    """Mean a_k / s; variance a_k (s - a_k) / (s^2 (s + 1)), with s the sum of the row."""
    rows = concentration(SIMILARITY, scale=4.0)
    classes = np.repeat(np.arange(3), 20_000)
    labels = draw_soft_labels(rows, classes, np.random.default_rng(0))
    assert labels.shape == (60_000, 3)
    assert labels.min() >= 0
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-12)
    for k in range(3):
        total = rows[k].sum()
        np.testing.assert_allclose(labels[classes == k].mean(0), rows[k] / total, atol=0.01)
        variance = rows[k] * (total - rows[k]) / (total**2 * (total + 1))
        np.testing.assert_allclose(labels[classes == k].var(0), variance, atol=0.003)


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_no_scale_gives_nan(scale):
    rows = concentration(SIMILARITY, scale=scale)
    labels = draw_soft_labels(rows, np.arange(300) % 3, np.random.default_rng(0))
    assert np.isfinite(labels).all()
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-9)
    if scale > 1:  # so concentrated that every label is the row's proportions
        np.testing.assert_allclose(labels[0], rows[0] / rows[0].sum(), atol=0.01)
    else:  # so little that every label is one class
        assert (labels.max(1) > 0.99).mean() > 0.95


def test_what_has_no_similarity():
    with pytest.raises(ConversionError, match=r"shape \(1, 4\); soft labels need at least two classes"):
        class_similarity(np.ones((1, 4)))
    with pytest.raises(ConversionError, match="hold NaN or infinity; train again"):
        class_similarity(np.array([[1.0, np.nan], [1, 2]]))
    with pytest.raises(ConversionError, match="all weights of class 1 in the last layer are 0"):
        class_similarity(np.array([[1.0, 2], [0, 0]]))
    for scale, floor in ((0.0, 0.1), (np.nan, 0.1), (1.0, 0.0), (1.0, 2.0)):
        with pytest.raises(UsageError, match="scale must be above 0, floor above 0 and at most 1"):
            concentration(SIMILARITY, scale, floor)
