"""The data sets known by name: where their files lie, how many images they hold, how they are read and split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.arrays import array_headers, idx_shape, read_arrays, read_idx
from gascnn.toolkit.data.building import BRAIN_CLASSES, MIAS_CLASSES
from gascnn.toolkit.data.dataset import SPLITS, Dataset, ImageSet, check_labels
from gascnn.toolkit.data.optional import require
from gascnn.toolkit.data.pixels import convert_stack, describe_scaling
from gascnn.toolkit.data.privacy import shown
from gascnn.toolkit.data.raw import finish
from gascnn.toolkit.data.sources import find_source, search_places
from gascnn.toolkit.data.splitting import SHARES, draw_splits, hash_fraction, shuffled
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import sha256_file

MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
MNIST_VALIDATION_IMAGES = 5000
BRAIN_FILE, MIAS_FILE, MNIST_NPZ = "brain_mri_combined.npz", "mias.npz", "mnist.npz"

_TEN_DIGITS = tuple(str(digit) for digit in range(10))
_SHUFFLED = "within each split by a hash of the image's index, so that the first images are a fair sample"
_AS_FILED = "as in the files"


@dataclass(frozen=True, eq=False)
class Parts:
    """A named set as read: its splits and what is to be said of them."""

    class_names: tuple[str, ...]
    sets: dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]
    split: str
    order: str
    preprocessing: str
    sha256: dict[str, str]
    images_sha256: str | None = None


@dataclass(frozen=True)
class NamedSet:
    """How one named set is found and read.

    Attributes:
        forms: for each form the set may have in a folder, in order of preference, the files it needs.
        count: images in each split, read from headers and labels alone.
        load: everything.
        image_shape: (C, H, W) as stored.
    """

    forms: tuple[tuple[str, ...], ...]
    count: Callable[[tuple[Path, ...]], dict[str, int]]
    load: Callable[[tuple[Path, ...]], Parts]
    image_shape: tuple[int, int, int]


def locate(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Path, ...] | None:
    """The files of a named set, from the first place that has them all; None where none has."""
    for place in search_places(data_dir):
        for form in NAMED[name].forms:
            paths = tuple(place / file for file in form)
            if all(path.is_file() for path in paths):
                return paths
    return None


def load_named(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    image_size: int | None,
    channels: int | None,
    framing: str = "whole",
) -> Dataset:
    """Read a named set. Its splits are fixed: no seed changes them.

    Raises:
        DataError: not there (names the places looked at and how to fetch it), or damaged.
    """
    paths = locate(name, data_dir)
    if paths is None:
        places = ", ".join(shown(place) for place in search_places(data_dir))
        raise DataError(f"data set {name!r} is not in {places}; run: gascnn data fetch {name}")
    parts, source = NAMED[name].load(paths), find_source(name)
    sets = {
        split: ImageSet(convert_stack(images, image_size, channels, framing), labels)
        for split, (images, labels) in parts.sets.items()
    }
    provenance: dict[str, Any] = {
        "source": f"{source.title} ({source.homepage})",
        "licence": source.licence,
        "citation": source.citation,
        "split": parts.split,
        "order": parts.order,
        "sha256": parts.sha256,
        "preprocessing": parts.preprocessing + describe_scaling(image_size, channels, framing),
    }
    if source.recipe is not None and parts.images_sha256 is not None:
        provenance["images_as_published"] = parts.images_sha256 == source.recipe.images_sha256
    return finish(name, parts.class_names, sets, provenance, [])


def _digits_arrays() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    bunch = require("sklearn.datasets", "scikit-learn", "train").load_digits()
    images = (bunch.images.astype(np.int64) * 255 + 8) // 16
    return images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)


def _load_digits(_: tuple[Path, ...]) -> Parts:
    images, labels = _digits_arrays()
    names = [f"digits/{index}" for index in range(len(labels))]
    splits = draw_splits(labels, names, seed=0)
    digest = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    return Parts(
        class_names=_TEN_DIGITS,
        sets=_by_split(images, labels, splits, names),
        split=(
            f"fixed: of each class {SHARES['test']:.0%} test and {SHARES['val']:.0%} val by a hash of the image's "
            "index, the rest train; writers are not known, so one writer may be on both sides"
        ),
        order=_SHUFFLED,
        preprocessing="values 0..16 scaled to 0..255 and rounded",
        sha256={"pixels and labels": digest},
    )


def _count_digits(_: tuple[Path, ...]) -> dict[str, int]:
    return {split: len(labels) for split, (_, labels) in _load_digits(()).sets.items()}


def _load_mnist(paths: tuple[Path, ...]) -> Parts:
    if len(paths) == 1:
        arrays = read_arrays(paths[0], ("x_train", "y_train", "x_test", "y_test"))
        pairs = [(arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])]
    else:
        pairs = [(read_idx(paths[0], 3), read_idx(paths[1], 1)), (read_idx(paths[2], 3), read_idx(paths[3], 1))]
    train, test = [_checked(*pair, _TEN_DIGITS, paths[0]) for pair in pairs]
    kept = len(train[1]) - MNIST_VALIDATION_IMAGES
    if kept < 1:
        raise DataError(
            f"{shown(paths[0])}: {len(train[1])} training images; more than {MNIST_VALIDATION_IMAGES} needed"
        )
    return Parts(
        class_names=_TEN_DIGITS,
        sets={"train": (train[0][:kept], train[1][:kept]), "val": (train[0][kept:], train[1][kept:]), "test": test},
        split=(
            f"MNIST's own training images, the last {MNIST_VALIDATION_IMAGES} of them as val, and {len(test[1])} of "
            "its own 10000 test images, whose writers are not among those of train"
        ),
        order=_AS_FILED,
        preprocessing="none",
        sha256={path.name: sha256_file(path) for path in paths},
    )


def _count_mnist(paths: tuple[Path, ...]) -> dict[str, int]:
    if len(paths) == 1:
        headers = array_headers(paths[0])
        shapes = [headers.get(key, ((0,), None))[0] for key in ("y_train", "y_test")]
    else:
        shapes = [idx_shape(paths[1], 1), idx_shape(paths[3], 1)]
    train, test = (shape[0] for shape in shapes)
    return {"train": train - MNIST_VALIDATION_IMAGES, "val": MNIST_VALIDATION_IMAGES, "test": test}


def _load_brain(paths: tuple[Path, ...]) -> Parts:
    arrays = read_arrays(paths[0], ("images", "labels", "split", "class_names"))
    images, labels = _checked(arrays["images"], arrays["labels"], BRAIN_CLASSES, paths[0])
    splits = arrays["split"].astype(str)
    if tuple(arrays["class_names"].astype(str)) != BRAIN_CLASSES or splits.shape != labels.shape:
        raise DataError(f"{shown(paths[0])}: not the combined brain set; run: gascnn data fetch brain-mri")
    return Parts(
        class_names=BRAIN_CLASSES,
        sets=_by_split(images, labels, splits, [f"brain-mri/{index}" for index in range(len(labels))]),
        split=(
            "by patient as far as known: folds 1 and 2 of figshare's author are train, 3 val, 4 test; images of the "
            "other two sources that are not copies of those, with near copies on one side"
        ),
        order=_SHUFFLED,
        preprocessing="8-bit gray, the whole image scaled to 128x128 with a box filter, no intensity normalisation",
        sha256={paths[0].name: sha256_file(paths[0])},
        images_sha256=hashlib.sha256(images.tobytes()).hexdigest(),
    )


def _load_mias(paths: tuple[Path, ...]) -> Parts:
    arrays = read_arrays(paths[0], ("images", "labels", "ref"))
    images, labels = _checked(arrays["images"], arrays["labels"], MIAS_CLASSES, paths[0])
    splits = _mias_splits(arrays["ref"], paths[0])
    if splits.shape != labels.shape:
        raise DataError(f"{shown(paths[0])}: {len(splits)} films for {len(labels)} labels; run: gascnn data fetch mias")
    return Parts(
        class_names=MIAS_CLASSES,
        sets=_by_split(images, labels, splits, [f"mias/{index}" for index in range(len(labels))]),
        split=(
            "by patient: films 2k-1 and 2k are pair k; x = first 32 bits of SHA-256('mias pair k') / 2^32; the pair is "
            "train for x < 0.70, val for x < 0.85, else test"
        ),
        order=_SHUFFLED,
        preprocessing="8-bit gray, the whole film scaled to 256x256 with a box filter; film markers are left in",
        sha256={paths[0].name: sha256_file(paths[0])},
        images_sha256=hashlib.sha256(images.tobytes()).hexdigest(),
    )


def mias_split(film: int) -> str:
    """The split of a film of mini-MIAS by its number (1..322); both films of a patient have the same."""
    fraction = hash_fraction(f"mias pair {(film + 1) // 2}")
    return "train" if fraction < 0.70 else "val" if fraction < 0.85 else "test"


def _mias_splits(references: npt.NDArray[Any], path: Path) -> npt.NDArray[np.str_]:
    films = [str(reference).removeprefix("mdb") for reference in references.tolist()]
    if not all(film.isascii() and film.isdigit() for film in films):
        raise DataError(f"{shown(path)}: film references are not of the form mdb001; run: gascnn data fetch mias")
    return np.array([mias_split(int(film)) for film in films], dtype="<U5")


def _count_splits(paths: tuple[Path, ...]) -> dict[str, int]:
    splits = read_arrays(paths[0], ("split",))["split"].astype(str)
    return {split: int(np.count_nonzero(splits == split)) for split in SPLITS}


def _count_mias(paths: tuple[Path, ...]) -> dict[str, int]:
    splits = _mias_splits(read_arrays(paths[0], ("ref",))["ref"], paths[0])
    return {split: int(np.count_nonzero(splits == split)) for split in SPLITS}


def _checked(
    images: npt.NDArray[Any], labels: npt.NDArray[Any], class_names: tuple[str, ...], path: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(n, 1, H, W) uint8 and (n,) int64, or the file is not what its name says."""
    if (
        images.ndim != 3
        or images.dtype != np.uint8
        or labels.shape != images.shape[:1]
        or labels.dtype.kind not in "iu"
    ):
        raise DataError(
            f"{shown(path)}: images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}; "
            "uint8 (n, H, W) and integers (n,) are needed: fetch the set again"
        )
    check_labels(labels, class_names, shown(path))
    return images[:, None], labels.astype(np.int64)


def _by_split(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], splits: npt.NDArray[np.str_], names: list[str]
) -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    orders = {split: shuffled(names, np.flatnonzero(splits == split)) for split in SPLITS}
    return {split: (images[order], labels[order]) for split, order in orders.items()}


def _in_folder(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}{name}" for name in MNIST_FILES)


NAMED: dict[str, NamedSet] = {
    "digits": NamedSet(((),), _count_digits, _load_digits, (1, 8, 8)),
    "mnist": NamedSet(
        (_in_folder("mnist/"), _in_folder("MNIST/raw/"), _in_folder(""), (MNIST_NPZ,)),
        _count_mnist,
        _load_mnist,
        (1, 28, 28),
    ),
    "brain-mri": NamedSet(((BRAIN_FILE,),), _count_splits, _load_brain, (1, 128, 128)),
    "mias": NamedSet(((MIAS_FILE,),), _count_mias, _load_mias, (1, 256, 256)),
}
"""All named sets, in the order they are listed."""
