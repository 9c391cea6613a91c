"""Precision, recall, density and coverage on points whose balls are counted by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from gascnn.benchmarks.synthetic import manifolds as module
from gascnn.benchmarks.synthetic.manifolds import manifolds
from gascnn.toolkit.errors import DataError


def line(*values):
    return np.array(values, dtype=float)[:, None]


def test_by_hand():
    """k = 1. Real 0, 1, 10: radii 1, 1, 9. Generated 0.5, 1.6, 30: radii 1.1, 1.1, 28.4.

    0.5 lies in the balls of 0 and 1, not in 10's (9.5 > 9); 1.6 in those of 1 and 10 (8.4); 30 in none. Of the real
    points 0 lies in 0.5's ball, 1 in 0.5's and 1.6's, 10 in 30's (20 < 28.4). The balls of all three hold a point.
    """
    found = manifolds(line(0, 1, 10), line(0.5, 1.6, 30), neighbours=1)
    assert (found.inside_real, found.inside_generated, found.covered) == (2, 3, 3)
    assert found.density == pytest.approx(4 / 3)
    values = found.to_dict()
    assert values["precision"]["value"] == pytest.approx(2 / 3)
    assert values["recall"]["value"] == 1.0
    assert (values["precision"]["count"], values["precision"]["of"]) == (2, 3)


def test_far_away_and_collapsed():
    real = np.random.default_rng(0).normal(size=(50, 4))
    far = manifolds(real, real + 100)
    assert (far.inside_real, far.inside_generated, far.covered, far.density) == (0, 0, 0, 0.0)
    collapsed = manifolds(real, real[:1] + 1e-3 * np.random.default_rng(1).normal(size=(50, 4)))
    assert collapsed.inside_real == 50, "copies of one image are precise"
    assert collapsed.inside_generated <= 1, "and recall nothing else"
    assert collapsed.covered < 25


@pytest.mark.parametrize("block", [7, 1024])
def test_against_scikit_learn(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(2)
    real, generated = rng.normal(size=(40, 3)), rng.normal(0.8, 1.3, size=(31, 3))

    def radii(points):
        return NearestNeighbors(n_neighbors=3).fit(points).kneighbors()[0][:, -1]

    between = pairwise_distances(generated, real)
    found = manifolds(real, generated)
    within = between <= radii(real)
    assert found.inside_real == within.any(axis=1).sum()
    assert found.inside_generated == (between <= radii(generated)[:, None]).any(axis=0).sum()
    assert found.density == pytest.approx(within.sum() / (3 * 31))
    assert found.covered == within.any(axis=0).sum()
    assert 0 < found.inside_real < 31
    assert 0 < found.inside_generated < 40


def test_too_few_points():
    with pytest.raises(DataError, match="of more than 3 rows each"):
        manifolds(np.zeros((3, 2)), np.zeros((9, 2)))
    with pytest.raises(DataError, match=r"shapes \(9, 2\) and \(9, 3\)"):
        manifolds(np.zeros((9, 2)), np.zeros((9, 3)))
