"""From images as they were read to the three splits of a :class:`Dataset`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.dataset import SPLITS, Dataset, ImageSet, check_labels
from gascnn.toolkit.data.splitting import SHARES, draw_splits, require_every_split, shuffled
from gascnn.toolkit.errors import DataError

Unit = Literal["patient", "group", "file", "image"]


@dataclass(frozen=True, eq=False)
class RawImages:
    """Images of one source before they are split.

    Attributes:
        class_names: in the order of the labels.
        images: (n, C, H, W) uint8.
        labels: (n,) int64.
        names: (n,) what each image is called; decides the order within a split, kept in memory only.
        groups: (n,) images of one group stay in one split; kept in memory only.
        grouped_by: what a group is.
        splits: (n,) train, val or test where the source says so, else None.
        sha256: what was hashed and its SHA-256.
        preprocessing: one sentence.
        warnings: things a reader of the figures should know.
    """

    class_names: tuple[str, ...]
    images: npt.NDArray[np.uint8] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    names: list[str] = field(repr=False)
    groups: list[str] = field(repr=False)
    grouped_by: Unit
    splits: npt.NDArray[np.str_] | None
    sha256: dict[str, str]
    preprocessing: str
    warnings: list[str] = field(default_factory=list)


def split_raw(raw: RawImages, name: str, source: str, seed: int) -> Dataset:
    """Draw what the source does not say, put each split in hash order and state all of it.

    Raises:
        DataError: a label without a class, a class without an image, too few images or patients to split.
    """
    check_labels(raw.labels, raw.class_names, name)
    counts = np.bincount(raw.labels, minlength=len(raw.class_names))
    if not counts.all():
        missing = raw.class_names[int(np.argmin(counts))]
        raise DataError(f"{name}: class {missing!r} has no image; add some or leave the class out")
    splits, rule = _splits(raw, name, seed)
    sets = {}
    for split in SPLITS:
        order = shuffled(raw.names, np.flatnonzero(splits == split))
        sets[split] = ImageSet(raw.images[order], raw.labels[order])
    provenance = {
        "source": source,
        "licence": "that of the files given",
        "split": rule,
        "order": "within each split by a hash of the image's name, so that the first images are a fair sample",
        "sha256": raw.sha256,
        "preprocessing": raw.preprocessing,
    }
    warnings = raw.warnings + _split_warnings(raw, splits)
    return finish(name, raw.class_names, sets, provenance, warnings)


def finish(
    name: str,
    class_names: tuple[str, ...],
    sets: dict[str, ImageSet],
    provenance: dict[str, Any],
    warnings: list[str],
) -> Dataset:
    """Put a data set together, with its counts and what is wrong with its split."""
    copies = _count_copies(sets["test"], sets["train"])
    if copies:
        warnings = [*warnings, f"{copies} test images are also in train, pixel for pixel"]
    images = {split: np.bincount(sets[split].labels, minlength=len(class_names)).tolist() for split in SPLITS}
    provenance = {"name": name, **provenance, "images_per_class": images, "warnings": warnings}
    return Dataset(name, class_names, sets["train"], sets["val"], sets["test"], provenance)


def _splits(raw: RawImages, name: str, seed: int) -> tuple[npt.NDArray[np.str_], str]:
    unit = raw.grouped_by
    if raw.splits is None:
        drawn = draw_splits(raw.labels, raw.groups, seed)
        require_every_split(drawn, name, unit)
        return drawn, f"drawn with seed {seed}: {_describe(SHARES)}, {_LEVELS[unit]}"
    missing = {split: share for split, share in SHARES.items() if not np.any(raw.splits == split)}
    if not missing:
        return raw.splits, "as given by the source"
    train = np.flatnonzero(raw.splits == "train")
    splits = raw.splits.copy()
    splits[train] = draw_splits(raw.labels[train], [raw.groups[index] for index in train], seed, missing)
    require_every_split(splits, name, unit)
    return (
        splits,
        f"as given by the source; drawn from its train with seed {seed}: {_describe(missing)}, {_LEVELS[unit]}",
    )


_LEVELS: dict[Unit, str] = {
    "patient": "stratified by class, by patient: all images of a patient are on one side",
    "group": "stratified by class, by the groups given: all images of a group are on one side",
    "file": "stratified by class, by file: all slices of a file are on one side, files of one patient may not be",
    "image": "stratified by class, image by image: exact copies are on one side, other images of a patient may not be",
}


def _describe(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.0%} {split}" for split, share in sorted(shares.items()))


def _split_warnings(raw: RawImages, splits: npt.NDArray[np.str_]) -> list[str]:
    found = []
    held = {split: {raw.groups[index] for index in np.flatnonzero(splits == split)} for split in SPLITS}
    shared = len(held["train"] & held["test"]) if raw.grouped_by in ("patient", "group") else 0
    if shared:
        found.append(f"{shared} {raw.grouped_by}s have images in both train and test; the figures will be too good")
    for split in SPLITS:
        absent = set(range(len(raw.class_names))) - set(raw.labels[splits == split].tolist())
        found += [f"no image of class {raw.class_names[code]!r} in {split}" for code in sorted(absent)]
    return found


def _count_copies(test: ImageSet, train: ImageSet) -> int:
    known = {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in train.images}
    return sum(hashlib.blake2b(image.tobytes(), digest_size=16).digest() in known for image in test.images)
