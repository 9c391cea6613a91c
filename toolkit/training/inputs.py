"""What training asks of a data set, and the check that it is so. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, UsageError


class ImageSetLike(Protocol):
    """Images (n, C, H, W) uint8 and their labels (n,) int64, 0 .. classes - 1."""

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """(n, C, H, W) uint8."""
        ...

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(n,) int64."""
        ...


class DatasetLike(Protocol):
    """What :func:`gascnn.toolkit.training.train.train` uses of ``gascnn.toolkit.data.Dataset``."""

    @property
    def name(self) -> str:
        """Name of the data set."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """In the order of the labels."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the images came from and how they were split; plain values."""
        ...

    @property
    def train(self) -> ImageSetLike | None:
        """To fit on."""
        ...

    @property
    def val(self) -> ImageSetLike | None:
        """To select by."""
        ...

    @property
    def test(self) -> ImageSetLike | None:
        """To report on, once."""
        ...


def check_part(
    part: ImageSetLike, name: str, classes: int, image_shape: Sequence[int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images and labels of a part, once they are known to be usable.

    Raises:
        DataError: no images, another shape or kind, labels that do not fit.
    """
    images, labels = np.asarray(part.images), np.asarray(part.labels)
    expected = tuple(int(n) for n in image_shape)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or len(images) < 1:
        raise DataError(f"{name} images are {images.dtype} of shape {images.shape}; expected uint8 (n, {expected})")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{name} labels are {labels.dtype} of shape {labels.shape}; expected {len(images)} integers, one an image"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{name} labels run from {labels.min()} to {labels.max()}; allowed: 0 to {classes - 1}")
    return images, labels.astype(np.int64)


def fingerprint(*arrays: npt.NDArray[np.generic]) -> str:
    """SHA-256 over kind, shape and bytes of the arrays, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def checked_parts(dataset: DatasetLike) -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Images and labels of each split that has any, each as :func:`check_part` gives it.

    Raises:
        UsageError: there are no training images.
        DataError: images or labels that cannot be used.
    """
    found = {
        name: check_part(part, name, len(dataset.class_names), dataset.image_shape)
        for name, part in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test))
        if part is not None and len(part.labels)
    }
    if "train" not in found:
        raise UsageError(f"data set {dataset.name} has no training images; name one that has")
    return found
