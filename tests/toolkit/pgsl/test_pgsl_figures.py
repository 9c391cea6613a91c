"""Accuracies and intervals of a split network, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl.evaluate import agreement, answers_to, decisions, figures
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import Answer, Upload
from gascnn.toolkit.pgsl.train import make_server
from gascnn.toolkit.wilson import wilson_interval


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 50), (50, 50), (43, 50), (4975, 5000)])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_wilson_as_in_scipy(right, count, level):
    expected = binomtest(right, count).proportion_ci(level, method="wilson")
    assert wilson_interval(right, count, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("right", "count", "level"), [(0, 0, 0.95), (2, 1, 0.95), (-1, 3, 0.95), (1, 3, 1.0)])
def test_wilson_refuses(right, count, level):
    with pytest.raises(UsageError, match=f"{right} of {count} at level"):
        wilson_interval(right, count, level)


def answer_of(fusion, recovered, fused, attacked):
    """Scores whose largest is at the class named."""
    scores = [torch.eye(3)[list(classes)] for classes in (fusion, attacked, fused, recovered)]
    return Answer(*scores)


FIRST = answer_of((0, 1, 2, 0), (0, 1, 2, 2), (0, 0, 0, 0), (1, 2, 0, 1))
SECOND = answer_of((0, 2, 2, 2), (0, 1, 2, 2), (0, 1, 2, 0), (1, 2, 0, 1))
LABELS = np.array([0, 1, 2, 2])


def test_figures_by_hand():
    assert {name: list(classes) for name, classes in decisions(FIRST).items()} == {
        "fusion": [0, 1, 2, 0], "recovered": [0, 1, 2, 2], "fused": [0, 0, 0, 0], "attacked": [1, 2, 0, 1],
    }  # fmt: skip
    found = figures(FIRST, LABELS)
    assert {name: figure["accuracy"] for name, figure in found.items()} == {
        "fusion": 0.75, "recovered": 1.0, "fused": 0.25, "attacked": 0.0,
    }  # fmt: skip
    assert found["fusion"]["interval"] == list(wilson_interval(3, 4))


def test_agreement_by_hand():
    found = agreement(FIRST, SECOND, LABELS)
    # Image 1: the first alone is right; image 3: the second alone.
    assert found["fusion"] == {"equal_answers": 0.5, "lost": 1, "gained": 1}
    assert found["recovered"] == {"equal_answers": 1.0, "lost": 0, "gained": 0}
    assert found["fused"] == {"equal_answers": 0.5, "lost": 0, "gained": 2}
    assert found["attacked"] == {"equal_answers": 1.0, "lost": 0, "gained": 0}


def test_batches_are_joined_in_order():
    server = make_server(3, 8, PgslOptions(width=4, hidden=8, recovery="none"))
    activations = np.random.default_rng(0).normal(size=(300, 4, 4, 4)).astype(np.float32)
    numbers = np.arange(300, dtype=np.uint16).view(np.uint8).reshape(300, 2, 1, 1)
    done = []
    answer = answers_to(server, lambda part: activations[part.reshape(-1, 2).copy().view(np.uint16)[:, 0]], numbers,
                        done.append)  # fmt: skip
    assert done == [128, 256, 300]
    # One batch or three: the same but for rounding.
    torch.testing.assert_close(answer.scores, server.answer(Upload(torch.from_numpy(activations))).scores)
    with pytest.raises(DataError, match="there are no images to classify"):
        answers_to(server, lambda part: part, numbers[:0])
