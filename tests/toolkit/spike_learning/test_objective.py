"""Eq. 10 and the schedule, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.spike_learning.objective import distillation_loss, learning_loss, matching_factor
from gascnn.toolkit.spike_learning.options import LearningOptions, get_learning_preset


def test_distillation_by_hand():
    # beta = 2: teacher (2 ln 3, 0) -> (3/4, 1/4); student (0, 0) -> (1/2, 1/2)
    found = distillation_loss(torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]]), 2.0)
    wanted = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert float(found) == pytest.approx(wanted, rel=1e-6)


def test_eq_10_by_hand():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    distilled = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    found = learning_loss(student, teacher, torch.tensor([[1.0, 0.0]]), 0.6, 2.0)
    assert float(found) == pytest.approx(0.6 * distilled + 0.4 * math.log(2), rel=1e-6)


def test_the_teacher_itself_loses_nothing():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert float(distillation_loss(logits, logits, 15.0)) == pytest.approx(0.0, abs=1e-5)


def test_the_factor_is_that_of_least_squares():
    answers = torch.tensor([[1.0, 0.0, 2.0], [5.0, 4.0, 3.0]])
    logits = 3.0 * answers + torch.tensor([[10.0], [-7.0]])  # a constant an image changes no class
    assert matching_factor(answers, logits) == pytest.approx(3.0)
    assert matching_factor(torch.ones(2, 3), logits) is None
    assert matching_factor(answers, -answers) is None


def test_the_papers_schedule():
    """30 epochs from 1e-3, divided by 5 at every 20 %: every 6 epochs."""
    options = get_learning_preset("paper").options
    assert (options.epochs, options.distillation, options.temperature) == (30, 0.6, 15.0)
    rates = [options.rate_at(epoch) for epoch in range(1, 31)]
    for first, wanted in ((0, 1e-3), (6, 2e-4), (12, 4e-5), (18, 8e-6), (24, 1.6e-6)):
        assert rates[first : first + 6] == pytest.approx([wanted] * 6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("distillation", 1.5), ("temperature", 0.0), ("dropout", 1.0), ("learning_rate", float("nan")),
     ("batch_size", 2.5), ("seed", -1), ("memory_bytes", 10)],
)  # fmt: skip
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(UsageError, match=f"{name} is .*; allowed:"):
        LearningOptions(**{name: value})


def test_unknown_preset():
    with pytest.raises(UsageError, match="no preset 'huge'; known: smoke, small, paper"):
        get_learning_preset("huge")
