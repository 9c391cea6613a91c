"""Total variation, batch-norm matching and jitter against hand-computed numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from gascnn.toolkit.conversion.synthesis.regularisers import BatchNormMatch, jittered, total_variation


def test_total_variation_by_hand():
    image = torch.tensor([[0.0, 0.5], [1.0, 0.25]]).view(1, 1, 2, 2)
    # Down: |1 - 0|, |0.25 - 0.5|, mean 0.625. Across: |0.5 - 0|, |0.25 - 1|, mean 0.625.
    assert float(total_variation(image)) == pytest.approx(1.25)
    assert float(total_variation(torch.full((2, 3, 4, 5), 0.7))) == 0
    assert float(total_variation(torch.tensor([[0.0, 1.0, 0.0]]).view(1, 1, 1, 3))) == 1  # one row: across alone


def test_divergence_from_kept_statistics_by_hand():
    norm = nn.BatchNorm2d(2).eval()
    norm.running_mean.copy_(torch.tensor([0.5, 0.0]))
    norm.running_var.copy_(torch.tensor([0.25, 1.0]) - norm.eps)
    values = torch.tensor([[0.0, 1.0], [3.0, -1.0]]).view(2, 2, 1, 1).repeat(1, 1, 2, 1)
    # Channel 0: 0, 0, 3, 3: mean 1.5, variance 2.25, kept 0.5 and 0.25: (9 + 4 - 1 - ln 9) / 2.
    # Channel 1: 1, 1, -1, -1: mean 0, variance 1, as kept: 0.
    with BatchNormMatch(norm) as match:
        norm(values)
        assert float(match.take()) == pytest.approx((9 + 4 - 1 - math.log(9)) / 4, rel=1e-4)
        assert float(match.take()) == 0  # what was taken is gone
    assert not norm._forward_pre_hooks


def test_only_batch_norms_that_keep_statistics_are_watched():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False), nn.ReLU())
    assert len(BatchNormMatch(model)) == 1


def test_hooks_are_gone_after_an_error():
    norm = nn.BatchNorm2d(1).eval()
    with pytest.raises(RuntimeError, match="on purpose"), BatchNormMatch(norm):
        raise RuntimeError("on purpose")
    assert not norm._forward_pre_hooks


def test_jitter_moves_and_mirrors_whole_batches():
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(2 * 16, dtype=torch.float32).view(2, 1, 4, 4)
    assert jittered(images, 0, False, generator) is images
    moves = {}
    for down, across in itertools.product((-1, 0, 1), repeat=2):
        moved = torch.roll(images, (down, across), (2, 3))
        moves[down, across, False], moves[down, across, True] = moved, moved.flip(3)
    seen = set()
    for _ in range(300):
        found = jittered(images, 1, True, generator)
        matching = [key for key, value in moves.items() if torch.equal(found, value)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert len(seen) == 18
