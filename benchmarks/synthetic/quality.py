"""How like real images made ones are, by features: Fréchet distance, precision and recall, beside what to expect.

A Fréchet distance alone means little: it depends on the features, and it grows as images get fewer. So everything is
measured with the same number of images against the same training images: the made images, other training images
(the least there is), validation and test images (what a perfect generator of new patients would give) and uniform
noise (what is no image at all).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.synthetic.frechet import Frechet, bootstrapped
from gascnn.benchmarks.synthetic.manifolds import manifolds
from gascnn.benchmarks.synthetic.roc import NORMAL_QUANTILE
from gascnn.benchmarks.synthetic.settings import SyntheticSettings

Floats = npt.NDArray[np.float64]

REFERENCE = "train"
TITLES = {
    "synthetic": "made images",
    "train": "other training images",
    "val": "validation images",
    "test": "test images",
    "noise": "uniform noise",
}


def noise(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.uint8]:
    """Images whose pixels are drawn evenly from 0..255."""
    return np.random.default_rng((seed, 2)).integers(0, 256, shape, dtype=np.uint8)


def quality(features: Mapping[str, Floats], settings: SyntheticSettings) -> dict[str, Any]:
    """Compare each set with training images.

    Args:
        features: (n, d) of ``synthetic``, ``train``, ``val``, ``test`` and ``noise``; others are not looked at.
        settings: a seed draws the images of each set, so many of each that ``train`` can be drawn twice.

    Returns:
        ``images`` (of each set), ``features`` (d), ``notes``, and ``rows``: by set, ``frechet`` (mean over seeds,
        ``by_seed``, 95 % interval over images) and, of the first seed, ``precision``, ``recall``, ``density`` and
        ``coverage``.
    """
    count, width = (
        min(len(features[name]) // (2 if name == REFERENCE else 1) for name in TITLES),
        features[REFERENCE].shape[1],
    )
    distances: dict[str, list[Frechet]] = {name: [] for name in TITLES}
    rows: dict[str, dict[str, Any]] = {}
    for seed in settings.seeds:
        drawn = _drawn(features, count, seed)
        reference = drawn.pop("reference")
        for name in TITLES:
            distances[name].append(bootstrapped(reference, drawn[name], resamples=settings.resamples, seed=seed))
            if name not in rows:
                rows[name] = manifolds(reference, drawn[name], settings.neighbours).to_dict()
    notes = []
    if count <= width:
        notes.append(
            f"{count} images for {width} features: covariances are singular and Fréchet distances far too large; "
            "compare them with each other alone"
        )
    return {
        "images": count,
        "features": width,
        "rows": {name: {"frechet": _over_seeds(distances[name])} | rows[name] for name in TITLES},
        "notes": notes,
    }


def _drawn(features: Mapping[str, Floats], count: int, seed: int) -> dict[str, Floats]:
    rng = np.random.default_rng((seed, 3))
    orders = {name: rng.permutation(len(features[name])) for name in TITLES}
    drawn = {name: features[name][order[:count]] for name, order in orders.items()}
    drawn["reference"] = features[REFERENCE][orders[REFERENCE][count : 2 * count]]
    return drawn


def _over_seeds(found: list[Frechet]) -> dict[str, Any]:
    """The seeds' samples overlap, so that their number makes the interval no narrower."""
    value = float(np.mean([one.value for one in found]))
    half = NORMAL_QUANTILE * float(np.mean([one.deviation for one in found]))
    return {"value": value, "by_seed": [one.value for one in found], "interval": [max(0.0, value - half), value + half]}
