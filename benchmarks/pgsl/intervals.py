"""95 % intervals of accuracies: of one network, of the images pooled over seeds, and over the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError
from gascnn.toolkit.wilson import wilson_interval

RESAMPLES, LEVEL = 2000, 0.95
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """One seed's test images.

    Attributes:
        units: (image,) int64, what the images are sampled by: the patient's number, or the image's own. The same
            number in another seed is the same patient or image.
        values: (image,) float64: 1 where the answer is right, or the difference of two such.
    """

    units: npt.NDArray[np.int64]
    values: Floats


def over_units(seeds: Sequence[Scored], *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap of the mean over the images of all seeds, drawing units with all their images.

    Two films of a patient, or one image in several seeds, come together or not at all. The networks are held fixed:
    this is how far the figure would move with other patients or images.

    Raises:
        DataError: no images, or seeds with units and values of different length.
    """
    _check(seeds)
    units = np.concatenate([part.units for part in seeds])
    values = np.concatenate([part.values for part in seeds])
    _, places = np.unique(units, return_inverse=True)
    counts, sums = np.bincount(places), np.bincount(places, weights=values)
    # Units alike need no draws of their own.
    cells, many = np.unique(np.stack([counts.astype(np.float64), sums]), axis=1, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(counts), many / many.sum(), size=resamples)
    means = (draws @ cells[1]) / (draws @ cells[0])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def over_answers(seeds: Sequence[Scored]) -> tuple[float, float]:
    """Interval of a share of right answers over the images of all seeds.

    Wilson's where each unit has one image; else :func:`over_units`, but Wilson's of as many images as there are units
    where all answers are right or all wrong, of which a bootstrap draws nothing else.

    Raises:
        DataError: as :func:`over_units`; values other than 0 and 1.
    """
    _check(seeds)
    units, values = (np.concatenate([getattr(part, name) for part in seeds]) for name in ("units", "values"))
    if not np.isin(values, (0, 1)).all():
        raise DataError("values other than 0 and 1; right and wrong answers are needed")
    count = len(np.unique(units))
    if count == len(units):
        return wilson_interval(int(values.sum()), count)
    if values.min() == values.max():
        return wilson_interval(count * int(values[0]), count)
    return over_units(seeds)


def over_seeds(means: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean over seeds by Student's t distribution; None for a single seed.

    With the same test images in each seed it tells how far another choice of training images and weights would move
    the figure; with a test set for each seed (cross-validation) also how far other patients would, though the seeds'
    networks share training images, which it knows nothing of.
    """
    if len(means) < 2:
        return None
    from scipy.special import stdtrit

    mean = float(np.mean(means))
    half = float(stdtrit(len(means) - 1, (1 + LEVEL) / 2) * np.std(means, ddof=1) / math.sqrt(len(means)))
    return mean - half, mean + half


def figure(seeds: Sequence[Scored]) -> dict[str, Any]:
    """Plain values of one row of a table.

    Returns:
        ``mean`` (over the seeds' means), ``by_seed`` (each one's mean), ``interval_images`` (:func:`over_units`) and
        ``interval_seeds`` (:func:`over_seeds`, or None).
    """
    means = [float(part.values.mean()) for part in seeds]
    seeds_interval = over_seeds(means)
    return {
        "mean": float(np.mean(means)),
        "by_seed": means,
        "interval_images": list(over_units(seeds)),
        "interval_seeds": None if seeds_interval is None else list(seeds_interval),
    }


def accuracy(seeds: Sequence[Scored]) -> dict[str, Any]:
    """:func:`figure` of right answers: ``interval_images`` is :func:`over_answers`.

    Further Wilson's interval of each seed, ``interval_by_seed``, and ``images``, each one's number.
    """
    return figure(seeds) | {
        "interval_images": list(over_answers(seeds)),
        "interval_by_seed": [
            list(wilson_interval(round(float(part.values.sum())), len(part.values))) for part in seeds
        ],
        "images": [len(part.values) for part in seeds],
    }


def _check(seeds: Sequence[Scored]) -> None:
    for part in seeds:
        if part.units.shape != part.values.shape or part.units.ndim != 1:
            raise DataError(f"units of shape {part.units.shape} for values of shape {part.values.shape}; one each")
    if not seeds or not any(len(part.values) for part in seeds):
        raise DataError("no images; at least one is needed")


def difference(first: Sequence[Scored], second: Sequence[Scored]) -> dict[str, Any]:
    """:func:`figure` of the first less the second, image by image and seed by seed."""
    return figure([Scored(one.units, one.values - other.values) for one, other in zip(first, second, strict=True)])
