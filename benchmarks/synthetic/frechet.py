"""The Fréchet distance between Gaussians fitted to features: FID, where the features are Inception's. No torch here.

M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017,
equation 6::

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

with means m and sample covariances S (divided by n - 1). With ``S = R' R`` the eigenvalues of S1 S2 are the squared
singular values of ``R1 R2'``, so the trace of the root is their sum. Nothing is inverted and no complex root is taken;
fewer images than features, where S is singular, need no special care.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.synthetic.roc import NORMAL_QUANTILE
from gascnn.toolkit.errors import DataError

Floats = npt.NDArray[np.float64]

RESAMPLES = 50


@dataclass(frozen=True)
class Frechet:
    """A distance and how far it would move with other images.

    Attributes:
        value: on the images as they are.
        deviation: standard deviation over resampled images.
    """

    value: float
    deviation: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``value`` and the 95 % ``interval``, value ± 1.96 deviations, not below 0."""
        half = NORMAL_QUANTILE * self.deviation
        return {"value": self.value, "interval": [max(0.0, self.value - half), self.value + half]}


def frechet_distance(first: Floats, second: Floats) -> float:
    """The distance (squared, as FID is) between Gaussians fitted to (n, d) and (m, d) features.

    Raises:
        DataError: fewer than two rows, or different numbers of features.
    """
    if min(len(first), len(second)) < 2 or first.ndim != 2 or first.shape[1:] != second.shape[1:]:
        raise DataError(f"features of shapes {first.shape} and {second.shape}; two (n, d) of at least two rows each")
    mean_1, root_1 = _gaussian(first)
    mean_2, root_2 = _gaussian(second)
    crossed = float(np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum())
    spread = float((root_1**2).sum() + (root_2**2).sum()) - 2 * crossed
    # Of Gaussians alike the sum is 0 but for rounding.
    return float(((mean_1 - mean_2) ** 2).sum()) + max(0.0, spread)


def bootstrapped(first: Floats, second: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> Frechet:
    """The distance with its standard deviation over images drawn with replacement, on both sides.

    The distance grows as images get fewer, and of a resample fewer are different: the resamples' mean and percentiles
    lie above the value, so that only their spread is used.

    Raises:
        DataError: as :func:`frechet_distance`.
    """
    value = frechet_distance(first, second)
    rng = np.random.default_rng(seed)
    drawn = [
        frechet_distance(
            first[rng.integers(0, len(first), len(first))], second[rng.integers(0, len(second), len(second))]
        )
        for _ in range(resamples)
    ]
    return Frechet(value, float(np.std(drawn, ddof=1)) if resamples > 1 else 0.0)


def _gaussian(features: Floats) -> tuple[Floats, Floats]:
    """Mean (d,) and a root (r, d) of the covariance, root' root."""
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    centred = (values - mean) / np.sqrt(len(values) - 1)
    if len(values) <= values.shape[1]:
        return mean, centred
    root: Floats = np.asarray(np.linalg.qr(centred, mode="r"))
    return mean, root
