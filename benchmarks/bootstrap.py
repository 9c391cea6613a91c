"""How far figures of a test set would move with other images of the same kind: percentile bootstrap.

Drawing n images with replacement from n is drawing how often each of their (label, answer) pairs comes up, which is
one multinomial draw: thousands of resamples cost milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, UsageError

Labels = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

RESAMPLES, LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: on the images as they are.
        low, high: the interval's ends.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, "interval": [self.low, self.high]}


def estimate(
    labels: Labels,
    predictions: Labels,
    reference: Labels | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Accuracy and macro-F1 with percentile bootstrap intervals over the images.

    Macro-F1 is the mean of ``2 TP / (2 TP + FP + FN)`` over the classes that occur among labels or answers of a
    resample (:mod:`gascnn.toolkit.training.metrics`).

    Args:
        labels: (image,) classes, from 0.
        predictions: (image,) answers.
        reference: (image,) another model's answers to the same images: gives ``macro_f1_below`` and
            ``accuracy_below``, how far the predictions are below it, on the same resamples.
        resamples: how many.
        level: share of the resamples inside the interval.
        seed: of the draws.

    Raises:
        DataError: arrays of different length, of no images, or with negative classes.
        UsageError: ``resamples`` below 1 or ``level`` not within 0..1.
    """
    columns = [np.asarray(c) for c in (labels, predictions, *(() if reference is None else (reference,)))]
    if (
        len({c.shape for c in columns}) > 1
        or columns[0].ndim != 1
        or not len(columns[0])
        or min(map(np.min, columns)) < 0
    ):
        raise DataError(f"labels and answers of shapes {[c.shape for c in columns]}; expected as many classes, from 0")
    if resamples < 1 or not 0 < level < 1:
        raise UsageError(f"{resamples} resamples at level {level}; at least 1, and a level between 0 and 1")
    cells, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(labels), counts / counts.sum(), size=resamples)
    both = np.concatenate([counts[None], draws]).astype(np.float64)
    classes = int(cells.max()) + 1
    figures = {
        "accuracy": _accuracy(both, cells[0], cells[1]),
        "macro_f1": _macro_f1(both, cells[0], cells[1], classes),
    }
    if reference is not None:
        figures |= {
            "accuracy_below": _accuracy(both, cells[0], cells[2]) - figures["accuracy"],
            "macro_f1_below": _macro_f1(both, cells[0], cells[2], classes) - figures["macro_f1"],
        }
    return {name: _interval(values, level) for name, values in figures.items()}


def _accuracy(counts: Floats, labels: Labels, answers: Labels) -> Floats:
    """(resample,) from (resample, cell) counts."""
    found: Floats = counts[:, labels == answers].sum(axis=1) / counts.sum(axis=1)
    return found


def _macro_f1(counts: Floats, labels: Labels, answers: Labels, classes: int) -> Floats:
    """(resample,) from (resample, cell) counts."""
    of_class = np.arange(classes)[:, None]
    hits = counts @ ((labels == of_class) & (answers == of_class)).T
    occurrences = counts @ ((labels == of_class).astype(np.float64) + (answers == of_class)).T
    occurs = occurrences > 0
    f1 = np.divide(2 * hits, occurrences, out=np.zeros_like(hits), where=occurs)
    found: Floats = f1.sum(axis=1) / occurs.sum(axis=1)
    return found


def _interval(values: Floats, level: float) -> Estimate:
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values[0]), float(low), float(high))
