"""Nearest images against a search in loops, image by image and view by view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gascnn.benchmarks.synthetic import neighbours
from gascnn.benchmarks.synthetic.neighbours import mean_squares, nearest, shrunk, views
from gascnn.toolkit.errors import DataError


def images(seed, count, shape=(1, 9, 16)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def slow(first, second, shift):
    """Root mean square over the pixels that overlap, least of all ways to lay the second, mirrored, over the first."""
    height, width = first.shape[1:]
    best = np.inf
    for other in (second, second[:, :, ::-1]):
        for down in range(-shift, shift + 1):
            for right in range(-shift, shift + 1):
                squares = [
                    (float(first[c, y, x]) - float(other[c, y + down, x + right])) ** 2
                    for c in range(len(first))
                    for y in range(height)
                    for x in range(width)
                    if 0 <= y + down < height and 0 <= x + right < width
                ]
                best = min(best, np.sqrt(np.mean(squares)))
    return best


@pytest.mark.parametrize("shape", [(1, 9, 16), (3, 8, 8)])
@pytest.mark.parametrize("blocks", [(2, 3), (512, 2048)])
def test_against_a_search_in_loops(monkeypatch, shape, blocks):
    monkeypatch.setattr(neighbours, "ROWS", blocks[0])
    monkeypatch.setattr(neighbours, "COLUMNS", blocks[1])
    first, second = images(0, 5, shape), images(1, 7, shape)
    table = np.array([[slow(one, other, 1) for other in second] for one in first])
    ahead, behind = nearest(first, second, views(*shape[1:]))
    np.testing.assert_allclose(ahead.distances, table.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(ahead.indices, table.argmin(axis=1))
    np.testing.assert_allclose(behind.distances, table.min(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(behind.indices, table.argmin(axis=0))


def test_views_of_a_size():
    assert len(views(8, 8)) == 2 * 9
    assert len(views(64, 48)) == 2 * 25
    assert len(views(7, 64)) == 2
    first = views(64, 64)[0]
    assert (first.flipped, first.down, first.right) == (False, 0, 0)


@pytest.mark.parametrize(("flipped", "down", "right"), [(False, 0, 0), (True, 0, 0), (False, 2, -1), (True, -2, 2)])
def test_moved_and_mirrored_copies_are_at_0(flipped, down, right):
    """What comes in at the edges is noise: it must not count."""
    original = images(2, 12, (1, 20, 16))
    copy = images(3, 1, (1, 20, 16))
    moved = original[4][:, :, ::-1] if flipped else original[4]
    rows = slice(max(down, 0), 20 + min(down, 0)), slice(max(-down, 0), 20 + min(-down, 0))
    columns = slice(max(right, 0), 16 + min(right, 0)), slice(max(-right, 0), 16 + min(-right, 0))
    copy[0, :, rows[1], columns[1]] = moved[:, rows[0], columns[0]]
    found, back = nearest(copy, original, views(20, 16))
    assert (found.distances[0], found.indices[0]) == (0.0, 4)
    view = views(20, 16)[found.views[0]]
    assert (view.flipped, view.down, view.right) == (flipped, down, right)
    assert back.distances[4] == 0.0


def test_features_are_compared_as_they_are():
    rng = np.random.default_rng(5)
    first, second = 1e4 + rng.normal(size=(6, 10, 1, 1)), 1e4 + rng.normal(size=(8, 10, 1, 1))
    table = np.sqrt(((first[:, None, :, 0, 0] - second[None, :, :, 0, 0]) ** 2).mean(axis=2))
    found, _ = nearest(first, second)
    np.testing.assert_allclose(found.distances, table.min(axis=1), rtol=1e-9)
    np.testing.assert_allclose(mean_squares(first[..., 0, 0], second[..., 0, 0]), table**2, rtol=1e-9)


def test_large_images_are_averaged_down():
    small = images(6, 2, (1, 64, 40))
    assert shrunk(small) is small
    even = images(7, 2, (3, 128, 96))
    pooled = F.avg_pool2d(torch.tensor(even).double(), 2).numpy()
    assert np.abs(shrunk(even) - pooled).max() <= 0.5 + 1e-6
    odd = np.zeros((1, 1, 65, 65), dtype=np.uint8)
    odd[0, 0, 64] = 90
    odd[0, 0, 62:64, 64] = 60
    found = shrunk(odd)[0, 0]
    assert found.shape == (33, 33)
    assert (found[32] == 90).all(), "a last row by itself is its own mean"
    assert found[31, 32] == 60
    assert found.sum() == 33 * 90 + 60


@pytest.mark.parametrize("shapes", [((0, 1, 8, 8), (2, 1, 8, 8)), ((2, 1, 8, 8), (2, 3, 8, 8)), ((2, 8), (2, 8))])
def test_what_cannot_be_compared(shapes):
    with pytest.raises(DataError, match="cannot be compared"):
        nearest(*(np.zeros(shape, dtype=np.uint8) for shape in shapes))
