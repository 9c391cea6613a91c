"""Which images a seed trains, chooses and tests with."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.data.arrays import read_arrays
from gascnn.toolkit.data.building import MIAS_CLASSES
from gascnn.toolkit.data.dataset import ImageSet, check_labels
from gascnn.toolkit.data.named import locate
from gascnn.toolkit.data.pixels import convert_stack
from gascnn.toolkit.data.splitting import draw_splits, hash_order, shuffled
from gascnn.toolkit.errors import DataError

FOLDS = 5
"""Test sets that mini-MIAS is divided into: seeds 0 to 4 test each film once, 5 to 9 do so in another division."""

TISSUES = ("F", "G", "D")
"""mini-MIAS' letters of the breast's tissue: fatty, fatty-glandular, dense-glandular."""

MIAS = ("mias", "mias-tissue")
"""Its films by finding (normal, benign, malignant), as PGSL has them, or by tissue: the same films with labels that a
small network can learn from so few."""

VALIDATION_SHARE = 0.15
"""Of the films left beside a test set."""


@dataclass(frozen=True, eq=False)
class Part:
    """Images uint8 (n, C, size, size) and labels int64 (n,)."""

    images: Tensor
    labels: Tensor

    def take(self, limit: int | None) -> Part:
        """The first ``limit`` images; all with None."""
        return self if limit is None else Part(self.images[:limit], self.labels[:limit])


@dataclass(frozen=True, eq=False)
class Partition:
    """A seed's images.

    Attributes:
        train, val, test: disjoint; of mini-MIAS also in patients.
        units: (test image,) int64, see :class:`gascnn.benchmarks.pgsl.intervals.Scored`.
        val_units: (validation image,) int64, alike. One seed's validation films of mini-MIAS are others' test films.
        classes: how many.
        rule: the division in a sentence.
    """

    train: Part
    val: Part
    test: Part
    units: npt.NDArray[np.int64]
    val_units: npt.NDArray[np.int64]
    classes: int
    rule: str

    def sha256(self) -> str:
        """Of all images, labels and units: the same digest is the same data in the same order."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            for tensor in (part.images, part.labels):
                digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        digest.update(self.units.tobytes())
        return digest.hexdigest()


def make_partition(
    data: str,
    seed: int,
    *,
    image_size: int | None = None,
    framing: str = "whole",
    limits: tuple[int | None, int | None, int | None] = (None, None, None),
    data_dir: str | os.PathLike[str] | None = None,
) -> Partition:
    """The images of a seed.

    mini-MIAS is cross-validated: its patients are dealt, by class, into :data:`FOLDS` test sets, and each seed tests
    another one, so that five seeds test each film once. Other sets keep their own splits, and a seed draws its
    training images from ``train``; all seeds test the same images.

    Args:
        data: name or path, as for :func:`gascnn.toolkit.data.load_dataset`, or ``mias-tissue``, see :data:`MIAS`.
        seed: 0 or more.
        image_size: pixels a side.
        framing: of the images.
        limits: numbers of training, validation and test images; None is all.
        data_dir: where to look first.

    Raises:
        DataError: nothing of that name, or damaged files.
        UsageError: an image size or framing that is not allowed.
    """
    if data in MIAS:
        return _mias(data, seed, image_size, framing, limits, data_dir)
    dataset = load_dataset(data, data_dir=data_dir, image_size=image_size, framing=framing)
    count = len(dataset.train) if limits[0] is None else limits[0]
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))[:count]
    train, val, test = (_part(dataset.split(name)) for name in ("train", "val", "test"))
    val, test = val.take(limits[1]), test.take(limits[2])
    return Partition(
        train=Part(train.images[order], train.labels[order]),
        val=val,
        test=test,
        units=np.arange(len(test.labels), dtype=np.int64),
        val_units=np.arange(len(val.labels), dtype=np.int64),
        classes=len(dataset.class_names),
        rule=f"{dataset.provenance.get('split', 'as given')}; training images drawn by seed, the same test images",
    )


def _mias(
    data: str,
    seed: int,
    image_size: int | None,
    framing: str,
    limits: tuple[int | None, int | None, int | None],
    data_dir: str | os.PathLike[str] | None,
) -> Partition:
    paths = locate("mias", data_dir)
    if paths is None:
        load_dataset("mias", data_dir=data_dir)  # says where it looked
    assert paths is not None
    arrays = read_arrays(paths[0], ("images", "labels", "ref", *(() if data == "mias" else ("tissue",))))
    films = [str(reference).removeprefix("mdb") for reference in arrays["ref"].tolist()]
    classes = MIAS_CLASSES if data == "mias" else TISSUES
    labels = arrays["labels"].astype(np.int64) if data == "mias" else _tissue_labels(arrays["tissue"])
    if not all(film.isascii() and film.isdigit() for film in films) or len(films) != len(labels):
        raise DataError("mini-MIAS: film references are not of the form mdb001; run: gascnn data fetch mias")
    check_labels(labels, classes, "mini-MIAS")
    images = convert_stack(arrays["images"][:, None], image_size, None, framing)
    pairs = np.array([(int(film) + 1) // 2 for film in films], dtype=np.int64)
    places = patient_folds(labels, pairs, seed)
    names = [f"mias/{film}" for film in films]
    orders = [
        shuffled(names, np.flatnonzero(places == part))[:limit]
        for part, limit in zip(("train", "val", "test"), limits, strict=True)
    ]
    train, val, test = (_part(ImageSet(images[order], labels[order])) for order in orders)
    return Partition(
        train=train,
        val=val,
        test=test,
        units=pairs[orders[2]],
        val_units=pairs[orders[1]],
        classes=len(classes),
        rule=(
            f"by patient, films 2k-1 and 2k being patient k's: {FOLDS} test sets, stratified by class, of which each "
            f"seed tests another; of the rest {VALIDATION_SHARE:.0%} validation"
        ),
    )


def _tissue_labels(letters: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    found = [str(letter) for letter in letters.tolist()]
    wrong = [letter for letter in found if letter not in TISSUES]
    if wrong:
        raise DataError(f"mini-MIAS: tissue {wrong[0]!r}; allowed: {', '.join(TISSUES)}; run: gascnn data fetch mias")
    return np.array([TISSUES.index(letter) for letter in found], dtype=np.int64)


def patient_folds(labels: npt.NDArray[np.int64], patients: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.str_]:
    """(image,) train, val or test, the same for all images of a patient.

    Args:
        labels: (image,) classes; a patient counts for the class most of the images have, the lower of equals.
        patients: (image,) numbers.
        seed: its remainder by :data:`FOLDS` is the fold that is tested, the quotient the division.
    """
    division, tested = divmod(seed, FOLDS)
    by_class: dict[int, list[int]] = {}
    for patient in np.unique(patients).tolist():
        by_class.setdefault(int(np.bincount(labels[patients == patient]).argmax()), []).append(patient)
    # One deal through all classes, so that neither the classes nor the folds differ by more than one patient.
    dealt: list[int] = []
    for label in sorted(by_class):
        members = by_class[label]
        dealt += [members[place] for place in hash_order([f"fold/{patient}" for patient in members], division)]
    places = np.full(len(labels), "train", dtype="<U5")
    places[np.isin(patients, dealt[tested::FOLDS])] = "test"
    rest = np.flatnonzero(places != "test")
    groups = [f"patient {patient}" for patient in patients[rest]]
    places[rest] = draw_splits(labels[rest], groups, seed, {"val": VALIDATION_SHARE})
    return places


def _part(images: ImageSet) -> Part:
    return Part(torch.from_numpy(np.ascontiguousarray(images.images)), torch.from_numpy(images.labels.copy()))
