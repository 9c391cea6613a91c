"""Several image sets of our own making as one, such as a GAN's images and those made from the ResNet alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.arrays import read_arrays
from gascnn.toolkit.data.dataset import Dataset
from gascnn.toolkit.data.image_set import IMAGES_FILE, is_image_set, read_image_set, save_image_set
from gascnn.toolkit.data.privacy import shown
from gascnn.toolkit.errors import DataError, UsageError


def join_image_sets(
    paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> list[tuple[Dataset, int]]:
    """Write the images of several sets as one set.

    They are taken in turns, each set's in its own order and spread evenly, so that the first n hold every set by its
    share. Beside images and labels stands ``part``, the number of the set an image is from; each set's provenance
    and SHA-256 travel with them.

    Args:
        paths: folders that :func:`~gascnn.toolkit.data.image_set.save_image_set` wrote, at least two different ones.
        output: the folder to write.

    Returns:
        The sets in their order, each with the number of its images.

    Raises:
        UsageError: fewer than two sets, a set given twice, or one that is also the output.
        DataError: a folder that is no image set (real images cannot be joined: nobody could tell them from made
            ones), sets of other image shapes, framings or classes than the first, damaged sets.
    """
    folders = [Path(path) for path in paths]
    _check(folders, Path(output))
    sets = [read_image_set(folder) for folder in folders]
    for folder, found in zip(folders[1:], sets[1:], strict=True):
        _check_alike(shown(folders[0]), sets[0], shown(folder), found)
    arrays = [read_arrays(folder / IMAGES_FILE, ("images", "labels")) for folder in folders]
    counts = [len(found["labels"]) for found in arrays]
    order = in_turns(counts)
    part = np.repeat(np.arange(len(counts), dtype=np.int64), counts)[order]
    save_image_set(
        output,
        np.concatenate([found["images"] for found in arrays])[order],
        np.concatenate([found["labels"] for found in arrays])[order],
        sets[0].class_names,
        framing=sets[0].framing,
        source="several sets of made images joined (gascnn data join)",
        provenance={"parts": [_described(found, count) for found, count in zip(sets, counts, strict=True)]},
        arrays={"part": part},
    )
    return list(zip(sets, counts, strict=True))


def in_turns(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    """An order of all rows of arrays laid end to end: row i of n stands at (i + 1/2) / n of the way, ties by array.

    Args:
        counts: rows of each array.
    """
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return np.argsort(places, kind="stable").astype(np.int64)


def _check(folders: Sequence[Path], output: Path) -> None:
    if len(folders) < 2:
        raise UsageError(f"{len(folders)} image set; give two or more to join")
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(
                f"{shown(folders[number])} is given twice; its images would count twice: give each set once"
            )
        if place == output.resolve():
            raise UsageError(f"{shown(folders[number])} is joined and written; name another folder with -o")
    for folder in folders:
        if not is_image_set(folder):
            raise DataError(
                f"{shown(folder)}: not a set of made images; allowed are folders of 'gascnn synthesise', 'gascnn gan "
                "sample' and 'gascnn data join'"
            )


def _check_alike(first_name: str, first: Dataset, name: str, found: Dataset) -> None:
    for what in ("image_shape", "framing", "class_names"):
        wanted, there = getattr(first, what), getattr(found, what)
        if wanted != there:
            raise DataError(
                f"{name} has {what} {there}, {first_name} has {wanted}; join sets that were made for the same network"
            )


def _described(found: Dataset, count: int) -> dict[str, Any]:
    facts = found.provenance
    return {
        "name": found.name,
        "images": count,
        "source": facts["source"],
        "images_sha256": facts["sha256"][IMAGES_FILE],
        "made": facts["made"],
    }
