"""Blends and windows: what is changed, and whose answers go with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from gascnn.toolkit.spike_learning import LearningOptions
from gascnn.toolkit.spike_learning.augment import augment, cut_out

PLAIN = LearningOptions(mix_probability=0.0)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(60, 256, (40, 1, 12, 12), generator=generator, dtype=torch.uint8)
    targets = functional.one_hot(torch.arange(40) % 3, 3).float()
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).eval()
    with torch.no_grad():
        answers = teacher(images / 255)
    return images, targets, answers, teacher


def run(batch, options, seed=1):
    return augment(*batch, options, torch.Generator().manual_seed(seed))


def test_nothing_is_touched_where_nothing_is_asked_for(batch):
    images, targets, answers = run(batch, PLAIN)
    assert images is batch[0]
    assert targets is batch[1]
    assert answers is batch[2]


def test_what_is_cut_out_has_the_teachers_answers_and_the_rest_its_label(batch):
    images, targets, answers = run(batch, replace(PLAIN, cut_out_probability=0.5))
    changed = (images != batch[0]).flatten(1).any(1)
    assert 10 < int(changed.sum()) < 30
    with torch.no_grad():
        torch.testing.assert_close(answers, batch[3](images / 255))
    torch.testing.assert_close(targets[changed], answers[changed].softmax(1))
    assert torch.equal(targets[~changed], batch[1][~changed])
    assert not torch.allclose(answers[changed], batch[2][changed], atol=1e-2)


def test_a_blend_is_what_the_teacher_sees(batch):
    images, targets, answers = run(batch, replace(PLAIN, mix_probability=1.0))
    assert (images != batch[0]).flatten(1).any(1).sum() > 30
    with torch.no_grad():
        torch.testing.assert_close(answers, batch[3](images / 255))
    torch.testing.assert_close(targets.sum(1), torch.ones(40))
    assert (targets.max(1).values < 1).any()


def test_a_window_leaves_its_middle_and_a_plain_ground():
    images = 0.2 + 0.8 * torch.rand(300, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    windowed, cut = cut_out(images, 1.0, torch.Generator().manual_seed(4))
    assert bool(cut.all())
    assert windowed.min() >= 0
    assert windowed.max() <= 1
    # Of every image some pixels stay as they were, nearly; in the corners most are the ground: one value each.
    kept = (windowed - images).abs() < 0.05
    assert float((kept.flatten(1).float().mean(1) > 0.05).float().mean()) > 0.95
    corners = torch.stack([windowed[:, :, i, j] for i in (0, -1) for j in (0, -1)], dim=-1)
    lowest = corners.amin((1, 2))
    assert 0.5 < float((lowest < 0.02).float().mean()) < 0.95  # mostly black
    assert float((windowed - images).abs().mean()) > 0.1
    again, _ = cut_out(images, 1.0, torch.Generator().manual_seed(4))
    assert torch.equal(again, windowed)
    _, none = cut_out(images, 0.0, torch.Generator().manual_seed(4))
    assert not none.any()
