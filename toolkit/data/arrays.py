"""Arrays in ``.npz`` and IDX files, read without ever unpickling and never beyond what a header may announce."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.dataset import SPLITS
from gascnn.toolkit.data.pixels import convert_stack, describe_scaling, equalise, require_finite
from gascnn.toolkit.data.privacy import hidden, shown
from gascnn.toolkit.data.raw import RawImages
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import sha256_file

MAX_ARRAY_BYTES = 16 << 30
"""Uncompressed size of one array; more is taken for a damaged header or a decompression bomb."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, struct.error)
_NPY_SUFFIX = ".npy"
_PREPROCESSING = "{} images to 8 bits (8-bit unchanged, 16-bit equalised, reals times 255)"


def array_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and kind of each array of an ``.npz`` file, without reading the arrays.

    Raises:
        DataError: not an ``.npz`` file, Python objects in it, or an array of more than ``MAX_ARRAY_BYTES``.
    """
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as member:
                    shape, dtype = _read_header(member)
                if dtype.hasobject:
                    raise DataError(f"{shown(path)}: {info.filename} holds Python objects {_UNEQUAL}")
                if max(info.file_size, int(np.prod(shape, dtype=object)) * dtype.itemsize) > MAX_ARRAY_BYTES:
                    raise DataError(f"{shown(path)}: {info.filename} unpacks to more than {MAX_ARRAY_BYTES} bytes")
                headers[info.filename.removesuffix(_NPY_SUFFIX)] = (shape, dtype)
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{shown(path)}: not a readable .npz file ({type(error).__name__}); write it anew") from error
    return headers


_UNEQUAL = "(images of unequal size?); scale them to one size and save them with numpy.savez as one array"


def _read_header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(member)
    return shape, dtype


def read_arrays(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, npt.NDArray[Any]]:
    """Named arrays of an ``.npz`` file.

    Raises:
        DataError: as :func:`array_headers`; a required array is missing; the file is damaged or too large.
    """
    there = array_headers(path)
    missing = [name for name in required if name not in there]
    if missing:
        raise DataError(
            f"{shown(path)}: no array {missing[0]!r}, only {', '.join(map(repr, sorted(there)[:8])) or 'nothing'}; "
            f"{' and '.join(map(repr, required))} are needed"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in (*required, *optional) if name in there}
    except MemoryError:
        raise DataError(f"{shown(path)}: too large for this machine's memory") from None
    except _DAMAGED as error:
        raise DataError(f"{shown(path)}: damaged or cut short ({type(error).__name__}); write it anew") from error


def read_npz(path: Path, image_size: int | None, channels: int | None, framing: str = "whole") -> RawImages:
    """Images and labels a user saved.

    Keys: ``images``, (n, H, W), (n, H, W, 3) or (n, C, H, W) with C 1 or 3: uint8 as they are, other integers of at
    most 16 bits equalised, reals from 0 to 1 times 255; ``labels``, (n,) integers; and if wanted ``class_names``,
    ``split`` (train, val or test for each image) and ``groups`` (anything that is equal for images that must stay on
    one side, such as a patient's number; compared as a hash and never written).

    Raises:
        DataError: an array of another shape or kind, NaN, a label without a class, object arrays.
    """
    arrays = read_arrays(path, ("images", "labels"), ("class_names", "split", "groups"))
    where = shown(path)
    images = convert_stack(_images(arrays["images"], where), image_size, channels, framing)
    count = len(images)
    labels = _labels(arrays["labels"], count, where)
    splits = _splits(arrays["split"], count, where) if "split" in arrays else None
    groups = _column(arrays["groups"], count, f"{where}: groups") if "groups" in arrays else None
    return RawImages(
        class_names=_class_names(arrays.get("class_names"), labels, where),
        images=images,
        labels=labels,
        names=[str(index) for index in range(count)],
        groups=_copies(arrays["images"]) if groups is None else [hidden(group) for group in groups],
        grouped_by="image" if groups is None else "group",
        splits=splits,
        sha256={"the .npz file": sha256_file(path)},
        preprocessing=_PREPROCESSING.format(arrays["images"].dtype) + describe_scaling(image_size, channels, framing),
    )


def _images(images: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    shape = images.shape
    if shape and not shape[0]:
        raise DataError(f"{where}: no images (shape {shape}); three splits need at least one each")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise DataError(f"{where}: images of shape {shape}; (n, H, W), (n, H, W, 3) or (n, 1 or 3, H, W) is needed")
    try:
        return np.ascontiguousarray(_eight_bits(images))
    except DataError as error:
        raise DataError(f"{where}: images: {error}") from None


def _eight_bits(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind in "iu":
        if images.min() >= 0 and images.max() <= 255 and images.dtype.itemsize != 2:
            return images.astype(np.uint8)
        if images.dtype.itemsize > 2:
            raise DataError(f"{images.dtype} from {images.min()} to {images.max()}; save them as uint8 or uint16")
        return np.stack([np.stack([equalise(plane) for plane in image]) for image in images])
    if images.dtype.kind != "f":
        raise DataError(f"of kind {images.dtype}; uint8, uint16 or reals from 0 to 1 are needed")
    require_finite(images)
    if images.min() < 0 or images.max() > 1:
        raise DataError(f"reals from {images.min():.4g} to {images.max():.4g}; 0 to 1 are needed")
    return np.rint(images.astype(np.float64) * 255).astype(np.uint8)


def _copies(images: npt.NDArray[Any]) -> list[str]:
    """A name for each image that exact copies share."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def _labels(labels: npt.NDArray[Any], count: int, where: str) -> npt.NDArray[np.int64]:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are {labels.dtype} of shape {labels.shape}; integers ({count},) are needed")
    if labels.dtype.kind == "u" and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: label {labels.max()}; classes are numbered from 0")
    return labels.astype(np.int64)


def _class_names(names: npt.NDArray[Any] | None, labels: npt.NDArray[np.int64], where: str) -> tuple[str, ...]:
    if names is None:
        if labels.min() < 0 or labels.max() >= len(labels):
            raise DataError(f"{where}: labels from {labels.min()} to {labels.max()}; number the classes 0, 1, 2, ...")
        found = tuple(str(label) for label in range(int(labels.max()) + 1))
    else:
        found = tuple(_column(names, names.size, f"{where}: class_names"))
    if len(found) < 2 or len(set(found)) != len(found):
        raise DataError(f"{where}: {len(found)} class names; at least two different ones are needed")
    return found


def _splits(splits: npt.NDArray[Any], count: int, where: str) -> npt.NDArray[np.str_]:
    found = _column(splits, count, f"{where}: split")
    wrong = [index for index, name in enumerate(found) if name not in SPLITS]
    if wrong:
        raise DataError(f"{where}: split of image {wrong[0]} is none of {', '.join(SPLITS)}")
    if "train" not in found:
        raise DataError(f"{where}: no image of split 'train'; mark some")
    return np.array(found, dtype="<U5")


def _column(values: npt.NDArray[Any], count: int, where: str) -> list[str]:
    if values.shape != (count,) or values.dtype.kind not in "USiu":
        raise DataError(f"{where}: {values.dtype} of shape {values.shape}; text or integers ({count},) are needed")
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]


def idx_shape(path: Path, axes: int) -> tuple[int, ...]:
    """The shape an IDX file (``.gz``) of unsigned bytes announces.

    Raises:
        DataError: not such a file, or of another number of axes.
    """
    try:
        with gzip.open(path) as handle:
            return _idx_header(handle.read(4 + 4 * axes), axes, path)
    except _DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shown(path)}: not a readable IDX file ({type(error).__name__}); fetch it again") from error


def read_idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """An IDX file of unsigned bytes (``.gz``), as MNIST is published: two zero bytes, 8, axes, sizes, values.

    Raises:
        DataError: not such a file, cut short, or longer than its header says.
    """
    shape = idx_shape(path, axes)
    size = int(np.prod(shape, dtype=object))
    try:
        with gzip.open(path) as handle:
            content = handle.read(4 + 4 * axes + size + 1)
    except _DAMAGED as error:
        raise DataError(f"{shown(path)}: damaged or cut short ({type(error).__name__}); fetch it again") from error
    if len(content) != 4 + 4 * axes + size:
        raise DataError(f"{shown(path)}: not the {size} values its header announces; fetch it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _idx_header(head: bytes, axes: int, path: Path) -> tuple[int, ...]:
    if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, 8, axes)):
        raise DataError(f"{shown(path)}: not an IDX file of bytes with {axes} axes; fetch it again")
    shape = struct.unpack(f">{axes}I", head[4:])
    if int(np.prod(shape, dtype=object)) > MAX_ARRAY_BYTES:
        raise DataError(f"{shown(path)}: {shape} values announced; fetch it again")
    return shape
