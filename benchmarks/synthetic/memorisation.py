"""Whether made images are copies of training images. No torch here.

Of an image x there are two figures: its distance d to the nearest training image, and the ratio of d to its distance
to the nearest held image (of the test set). The second tells a copy from an average, which is near to everybody, and
a copy that was blurred or made brighter, which is no longer near to anything, from an image that is as far from all.
Images of the validation set, which the generator never saw, say how small the two are where nothing was copied: below
the 1 % quantile of theirs an image is **near**, or **relatively near**. One in a hundred is, of images that are no
copies. The test images are held against the same thresholds, their ratio being that to validation images: what they
give should be about 1 %, and shows what the thresholds are worth on images they were not taken from.

An image is an **unmistakable** copy at less than half the distance of any held image, or at 0, where it is also nearer
to the training images than to the held ones. Of points in m dimensions so small a share as 2^-m of those as near as
the nearest is that near; no more than one such is needed to speak of it.

A held image that equals a training image was seen by the generator and says nothing of images that were not: it is
left out of the thresholds, of which a single one would make the last 0, and out of what the test images give.

A comparison of the same three sets, training, held and generated: C. Meehan et al., "A Non-Parametric Test to Detect
Data-Copying in Generative Models", AISTATS 2020; here with a threshold for each image, for a few copies among many
images move no median.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.synthetic.manifolds import share
from gascnn.benchmarks.synthetic.roc import area
from gascnn.benchmarks.synthetic.space import Space
from gascnn.toolkit.errors import DataError

Floats = npt.NDArray[np.float64]
Masks = Mapping[str, npt.NDArray[np.bool_]]

QUANTILE = 0.01
UNMISTAKABLE = 0.5
PAIRS = 8


def twins(space: Space) -> Masks:
    """(n,) of the sets ``val`` and ``test``: which images are at distance 0 from a training image."""
    return {name: space.nearest(name, "train").distances == 0 for name in ("val", "test")}


def memorisation(space: Space, kinds: Sequence[str], seen: Masks | None = None) -> dict[str, Any]:
    """Compare made images with training images.

    Args:
        space: with sets ``synthetic``, ``train``, ``val``, ``test``, and one of each of ``kinds``.
        kinds: names of planted copies.
        seen: :func:`twins` in pixels, for a space of features, in which equal images differ in their last bits; those
            of this space are left out as well.

    Returns:
        ``unit``; ``thresholds`` (``distance``, ``ratio``, and ``unmistakable``, a distance); ``sets``: for
        ``synthetic``, ``test`` and each kind their ``images``, ``near`` and ``relatively_near`` (shares with
        intervals), ``unmistakable`` (a number), ``smallest`` and ``median`` distance and median ``ratio``;
        ``nearer_than_held``: the probability that a made image is nearer to the training images than a validation
        image is (Mann-Whitney), with its interval and one-sided p-value; ``pairs`` and ``held_pairs``: the closest
        made, and test, images and their training images, as numbers; ``left_out``: numbers of images of ``val`` and
        ``test`` that equal training images, which count in ``pairs`` and ``held_pairs`` alone.

    Raises:
        DataError: every validation image, or every test image, equals a training image.
    """
    kept = _kept(space, seen)
    held, ratio = (figures[kept["val"]] for figures in _figures(space, "val", "test"))
    control, control_ratio = (figures[kept["test"]] for figures in _figures(space, "test", "val"))
    thresholds = {
        "distance": float(np.quantile(held, QUANTILE)),
        "ratio": float(np.quantile(ratio, QUANTILE)),
        "unmistakable": UNMISTAKABLE * float(min(held.min(), control.min())),
    }
    distances = {name: _figures(space, name, "test") for name in ("synthetic", *kinds)}
    return {
        "unit": space.unit,
        "thresholds": thresholds,
        "sets": {
            "synthetic": _counted(*distances.pop("synthetic"), thresholds),
            "test": _counted(control, control_ratio, thresholds),
            **{name: _counted(*figures, thresholds) for name, figures in distances.items()},
        },
        "held": {"smallest": float(held.min()), "median": float(np.median(held)), "images": len(held)},
        "left_out": {name: int((~mask).sum()) for name, mask in kept.items()},
        "nearer_than_held": area(-space.nearest("synthetic", "train").distances, -held).to_dict(),
        "pairs": _pairs(space, "synthetic"),
        "held_pairs": _pairs(space, "test"),
    }


def _kept(space: Space, seen: Masks | None) -> Masks:
    kept = {name: ~mask if seen is None else ~(mask | seen[name]) for name, mask in twins(space).items()}
    for name, mask in kept.items():
        if not mask.any():
            raise DataError(
                f"all {len(mask)} images of the {name} split equal training images ({space.name}); give a data set "
                "whose splits have no images in common"
            )
    return kept


def _figures(space: Space, name: str, held: str) -> tuple[Floats, Floats]:
    """(n,) distances to the training images, and their ratios to those to held images."""
    near, other = space.nearest(name, "train").distances, space.nearest(name, held).distances
    # Equal to a training image and to a held one says nothing about copying: 1.
    ratio = np.divide(near, other, out=np.where(near > 0, np.inf, 1.0), where=other > 0)
    return near, ratio


def _counted(distances: Floats, ratios: Floats, thresholds: dict[str, float]) -> dict[str, Any]:
    count = len(distances)
    copies = (distances == 0) | (distances < thresholds["unmistakable"])
    return {
        "images": count,
        "near": share(int((distances < thresholds["distance"]).sum()), count),
        "relatively_near": share(int((ratios < thresholds["ratio"]).sum()), count),
        "unmistakable": int((copies & (ratios < 1)).sum()),
        "smallest": float(distances.min()),
        "median": float(np.median(distances)),
        "ratio": float(np.median(np.minimum(ratios, np.finfo(np.float64).max))),
    }


def _pairs(space: Space, name: str) -> list[dict[str, Any]]:
    found = space.nearest(name, "train")
    rows = []
    for index in np.argsort(found.distances, kind="stable")[:PAIRS]:
        view = space.over[found.views[index]]
        rows.append(
            {
                "image": int(index),
                "training_image": int(found.indices[index]),
                "distance": float(found.distances[index]),
                "mirrored": view.flipped,
                "shift": [view.down, view.right],
            }
        )
    return rows
