"""Precision and recall, density and coverage of generated images in a space of features. No torch here.

A set's manifold is the union of balls around its points, each as wide as the distance to the k-th nearest other point
of the set.

- precision: share of the generated points in the real manifold; recall: share of the real points in the generated one.
  T. Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019, eq. 1-2.
- density: real balls around a generated point, on average, over k; coverage: share of the real balls that hold a
  generated point. M. F. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020,
  eq. 3-4. They stand an outlier among the real points better than precision and recall do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.synthetic.neighbours import mean_squares
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.wilson import wilson_interval

Floats = npt.NDArray[np.float64]

NEIGHBOURS = 3
"""k of Kynkäänniemi et al."""

BLOCK = 1024


@dataclass(frozen=True)
class Manifolds:
    """How two sets of points lie to each other.

    Attributes:
        generated, real: number of points.
        inside_real: generated points in the real manifold.
        inside_generated: real points in the generated manifold.
        density: 1 where both are of one distribution; can be above.
        covered: real points whose ball holds a generated point.
    """

    generated: int
    real: int
    inside_real: int
    inside_generated: int
    density: float
    covered: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``precision``, ``recall``, ``coverage`` with Wilson's 95 % intervals, and ``density``."""
        return {
            "precision": share(self.inside_real, self.generated),
            "recall": share(self.inside_generated, self.real),
            "density": self.density,
            "coverage": share(self.covered, self.real),
        }


def share(count: int, of: int) -> dict[str, Any]:
    """A share with Wilson's 95 % interval: ``value``, ``interval``, ``count``, ``of``."""
    return {"value": count / of, "interval": list(wilson_interval(count, of)), "count": count, "of": of}


def manifolds(real: Floats, generated: Floats, neighbours: int = NEIGHBOURS) -> Manifolds:
    """Compare (n, d) real with (m, d) generated features.

    Args:
        real: what the generated ones should be like.
        generated: of as many points, or else precision and recall do not compare.
        neighbours: k; a ball ends at the k-th nearest other point of its set.

    Raises:
        DataError: no more points than ``neighbours``, or different numbers of features.
    """
    if min(len(real), len(generated)) <= neighbours or neighbours < 1 or real.shape[1:] != generated.shape[1:]:
        raise DataError(
            f"features of shapes {real.shape} and {generated.shape}; two (n, d) of more than {neighbours} rows each"
        )
    around_real, around_generated = _radii(real, neighbours), _radii(generated, neighbours)
    inside_real = balls = 0
    inside_generated = np.zeros(len(real), dtype=bool)
    covered = np.zeros(len(real), dtype=bool)
    for start in range(0, len(generated), BLOCK):
        part = slice(start, start + BLOCK)
        squares = mean_squares(generated[part], real)
        within = squares <= around_real
        inside_real += int(within.any(axis=1).sum())
        balls += int(within.sum())
        covered |= within.any(axis=0)
        inside_generated |= (squares <= around_generated[part, None]).any(axis=0)
    return Manifolds(
        len(generated),
        len(real),
        inside_real,
        int(inside_generated.sum()),
        balls / (neighbours * len(generated)),
        int(covered.sum()),
    )


def _radii(points: Floats, neighbours: int) -> Floats:
    """(n,) mean squared difference to the k-th nearest other point."""
    found = np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        squares = mean_squares(points[start : start + BLOCK], points)
        own = np.arange(len(squares))
        squares[own, start + own] = np.inf
        found[start : start + len(squares)] = np.partition(squares, neighbours - 1, axis=1)[:, neighbours - 1]
    return found
