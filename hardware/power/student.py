"""Student's t distribution for a mean of a few values, without scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BISECTIONS = 60


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of the mean: ``mean -+ t s / sqrt(n)``, t for n - 1 degrees of freedom.

    Args:
        values: independent measurements.
        confidence: 0 to 1.

    Returns:
        (low, high), or None for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = student_t(count - 1, confidence) * deviation / math.sqrt(count)
    return mean - half, mean + half


def student_t(freedom: int, confidence: float = 0.95) -> float:
    """The t with ``P(|T| < t) = confidence`` for a whole number of degrees of freedom.

    ``P`` is a finite sum in ``theta = arctan(t / sqrt(freedom))`` (Abramowitz and Stegun, 26.7.3 and 26.7.4); it is
    inverted by bisection.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _probability(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(freedom)


def _probability(theta: float, freedom: int) -> float:
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
