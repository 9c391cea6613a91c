"""Areas under ROC curves with their intervals, and what is found at few false alarms. No torch here.

E. R. DeLong et al., "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: A
Nonparametric Approach", Biometrics 1988. The area is the Mann-Whitney statistic, ``P(X > Y) + P(X = Y) / 2`` for a
positive's score X and a negative's Y; each positive's part of it is the share of negatives below, each negative's the
share of positives above, and the variance of the area is that of these parts::

    var = var(parts of positives) / m + var(parts of negatives) / n
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError
from gascnn.toolkit.wilson import wilson_interval

Floats = npt.NDArray[np.float64]

NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)
"""95 % of a normal distribution lie within so many standard deviations."""


@dataclass(frozen=True, eq=False)
class Area:
    """An area under the ROC curve.

    Attributes:
        value: 0.5 where the scores tell nothing.
        positives: (m,) part of each positive.
        negatives: (n,) part of each negative.
    """

    value: float
    positives: Floats
    negatives: Floats

    @property
    def deviation(self) -> float:
        """Standard deviation by DeLong et al."""
        return _deviation(self.positives, self.negatives)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``value``, 95 % ``interval`` within 0..1, and one-sided ``p_value`` of 0.5 or less."""
        half = NORMAL_QUANTILE * self.deviation
        return {
            "value": self.value,
            "interval": [max(0.0, self.value - half), min(1.0, self.value + half)],
            "p_value": _upper_tail(self.value - 0.5, self.deviation),
        }


def area(positives: Floats, negatives: Floats) -> Area:
    """The area of scores, (m,) of positives and (n,) of negatives; ties count half.

    Raises:
        DataError: fewer than two of either, or scores that are not finite.
    """
    if min(len(positives), len(negatives)) < 2 or not np.all(np.isfinite(np.append(positives, negatives))):
        raise DataError(f"{len(positives)} and {len(negatives)} scores; at least two finite ones of each are needed")
    above = _share_below(positives, negatives)
    below = 1 - _share_below(negatives, positives)
    return Area(float(above.mean()), above, below)


def difference(first: Area, second: Area) -> dict[str, Any]:
    """``first - second`` of the same positives and negatives under two scores: ``value`` and 95 % ``interval``.

    Raises:
        DataError: areas of different numbers of scores.
    """
    if first.positives.shape != second.positives.shape or first.negatives.shape != second.negatives.shape:
        raise DataError("areas of different candidates cannot be subtracted; score the same ones twice")
    value = first.value - second.value
    half = NORMAL_QUANTILE * _deviation(first.positives - second.positives, first.negatives - second.negatives)
    return {"value": value, "interval": [value - half, value + half]}


def found_at(positives: Floats, negatives: Floats, false_alarms: float) -> dict[str, Any] | None:
    """The most positives that a threshold finds with no more than this share of the negatives above it.

    Returns:
        ``value``, Wilson's ``interval`` (the threshold held fixed) and ``false_alarms`` as it came out; None where
        there are too few negatives to tell such a share from none.
    """
    allowed = math.floor(false_alarms * len(negatives))
    if allowed < 1:
        return None
    # Above the negative that comes after the allowed ones; what is equal to it is not found.
    threshold = np.sort(negatives)[::-1][allowed] if allowed < len(negatives) else -math.inf
    hits = int((positives > threshold).sum())
    return {
        "value": hits / len(positives),
        "interval": list(wilson_interval(hits, len(positives))),
        "false_alarms": float((negatives > threshold).mean()),
    }


def _share_below(values: Floats, others: Floats) -> Floats:
    """For each value the share of others below it, equal ones by half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    found: Floats = below / (2 * len(others))
    return found


def _deviation(positives: Floats, negatives: Floats) -> float:
    return math.sqrt(positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives))


def _upper_tail(value: float, deviation: float) -> float:
    """P(Z >= value) of a normal variable of mean 0."""
    if deviation == 0:
        return 0.0 if value > 0 else 1.0
    return 0.5 * math.erfc(value / deviation / math.sqrt(2))
