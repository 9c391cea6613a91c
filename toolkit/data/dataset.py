"""What every data set becomes, wherever it came from: three splits of 8-bit images with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, UsageError

SPLITS = ("train", "val", "test")
CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split, in a fixed order.

    Attributes:
        images: (n, C, H, W) uint8, 0 to 255, C is 1 (gray) or 3 (RGB).
        labels: (n,) int64, 0 to the number of classes - 1.

    Raises:
        DataError: an array of another shape or kind, or a label without an image.
    """

    images: npt.NDArray[np.uint8] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or self.images.shape[1] not in CHANNELS:
            raise DataError(
                f"images are {self.images.dtype} of shape {self.images.shape}; uint8 (n, 1 or 3, H, W) is needed"
            )
        if self.labels.shape != (len(self.images),) or self.labels.dtype != np.int64:
            raise DataError(
                f"labels are {self.labels.dtype} of shape {self.labels.shape}; int64 ({len(self.images)},) is needed"
            )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, limit: int | None) -> ImageSet:
        """The first ``limit`` images in the order of the split (all of them with None).

        Raises:
            UsageError: ``limit`` below 1.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise UsageError(f"limit {limit}: at least one image is needed")
        return ImageSet(self.images[:limit], self.labels[:limit])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of named classes in three splits.

    Attributes:
        name: the data set's name, or that of the folder or file.
        class_names: in the order of the labels.
        train: what a network learns from.
        val: what its settings are chosen by.
        test: what is reported.
        provenance: JSON-ready: source, licence, citation, split rule in a sentence, SHA-256 of what was read,
            preprocessing, images per split, warnings. Never a patient identifier, a path or a file name of the user's.
        framing: what part of each stored image was taken; see :mod:`gascnn.toolkit.framing`.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    test: ImageSet
    provenance: dict[str, Any] = field(default_factory=dict)
    framing: str = "whole"

    def __post_init__(self) -> None:
        shapes = {self.split(name).images.shape[1:] for name in SPLITS}
        if len(shapes) != 1:
            raise DataError(f"{self.name}: the splits differ in image shape ({', '.join(map(str, sorted(shapes)))})")
        for name in SPLITS:
            check_labels(self.split(name).labels, self.class_names, f"{self.name}, {name} split")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), the same for every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def split(self, name: str) -> ImageSet:
        """The split called ``name``.

        Raises:
            UsageError: another name than train, val or test.
        """
        if name not in SPLITS:
            raise UsageError(f"split {name!r}: one of {', '.join(SPLITS)} is needed")
        found: ImageSet = getattr(self, name)
        return found


def check_labels(labels: npt.NDArray[np.integer[Any]], class_names: Sequence[str], where: str) -> None:
    """Refuse labels without a class.

    Raises:
        DataError: a label below 0 or beyond the last class; names the first one and its index.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: label {int(labels[first])} at index {first}; with {len(class_names)} classes 0 to "
            f"{len(class_names) - 1} are allowed"
        )
