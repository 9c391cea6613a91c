"""The folder that goes to a board: its files, its manifest, and whether all of it arrived as it was made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.board.checked import Fields, read_json
from gascnn.toolkit.data.arrays import array_headers, read_arrays
from gascnn.toolkit.errors import DataError, FormatError
from gascnn.toolkit.files import sha256_file

PACK_KIND, PACK_FORMAT = "gascnn-board-pack", 1
EXPECTED_KIND, EXPECTED_FORMAT = "gascnn-board-expected", 1

MANIFEST, NETWORK, ANN, ANN_INT8 = "manifest.json", "model.net", "ann.onnx", "ann-int8.onnx"
IMAGES, EXPECTED, SCRIPT, README = "images.npz", "expected.json", "run.py", "README.md"
CONTENDERS = {"ann-fp32": ANN, "ann-int8": ANN_INT8, "snn": NETWORK}
"""Who is measured, and the file of each."""

ANNS = ("ann-fp32", "ann-int8")

MOST_IMAGES = 10_000
LARGEST_FILE = 2**31 - 1
"""Bytes of one file of a folder."""

_LARGEST_MANIFEST = 16 << 20
_LARGEST_EXPECTED = 512 << 20
_LARGEST_ARRAYS = 2 << 30
_NEEDED = (NETWORK, ANN, IMAGES, EXPECTED, SCRIPT, README)
_AGAIN = "copy the folder again, or make it anew with 'gascnn bench pack'"


@dataclass(frozen=True, eq=False)
class PackFolder:
    """A folder whose every file is the one it was made with.

    Attributes:
        folder: where it is.
        manifest_sha256: of ``manifest.json``, which names the hash of every other file: two folders with the same one
            are the same.
        manifest: its fields, checked.
        contenders: names of :data:`CONTENDERS` that are in it.
        classes: names in the order of the outputs.
        steps: T of the spiking network.
        seed: of its coding, or None for the file's own.
        images: (n, C, H, W) uint8.
        labels: (n,) int64.
        expected: by contender, and ``torch``: what came out where the folder was made.
    """

    folder: Path
    manifest_sha256: str
    manifest: dict[str, Any]
    contenders: tuple[str, ...]
    classes: tuple[str, ...]
    steps: int
    seed: int | None
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    expected: dict[str, ExpectedAnn]
    expected_snn: ExpectedSnn


@dataclass(frozen=True, eq=False)
class ExpectedAnn:
    """Answers of an ANN where the folder was made.

    Attributes:
        classes: (n,) int64.
        logits: (n, classes) float32.
    """

    classes: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ExpectedSnn:
    """Answers of the simulator where the folder was made.

    Attributes:
        classes: (n,) int64.
        output_counts, output_membrane: (n, classes) int64, the read-out.
        digests: (n,) of each image's spike counts of all layers; see :mod:`gascnn.benchmarks.board.digests`.
    """

    classes: npt.NDArray[np.int64]
    output_counts: npt.NDArray[np.int64]
    output_membrane: npt.NDArray[np.int64]
    digests: tuple[str, ...]


def open_pack(folder: str | os.PathLike[str]) -> PackFolder:
    """Read a folder and check the SHA-256 of every file its manifest names.

    Raises:
        FormatError: no such folder, a file missing, changed or cut short, or a manifest that cannot be.
    """
    place = Path(folder)
    if not (place / MANIFEST).is_file():
        raise FormatError(f"{place}: no {MANIFEST} there; give a folder of 'gascnn bench pack'")
    manifest = read_json(place / MANIFEST, PACK_KIND, PACK_FORMAT, largest=_LARGEST_MANIFEST, remedy=_AGAIN)
    digest = sha256_file(place / MANIFEST)
    checked = _manifest(manifest)
    _check_files(place, manifest)
    count, classes = checked["images"], tuple(checked["classes"])
    images, labels = _images(place / IMAGES, count, tuple(checked["image_shape"]), len(classes))
    expected = read_json(place / EXPECTED, EXPECTED_KIND, EXPECTED_FORMAT, largest=_LARGEST_EXPECTED, remedy=_AGAIN)
    contenders = tuple(checked["contenders"])
    anns = [name for name in (*ANNS, "torch") if name in contenders or name == "torch"]
    return PackFolder(
        folder=place,
        manifest_sha256=digest,
        manifest=checked,
        contenders=contenders,
        classes=classes,
        steps=checked["steps"],
        seed=checked["seed"],
        images=images,
        labels=labels,
        expected={name: _expected_ann(expected.table(name), count, len(classes)) for name in anns},
        expected_snn=_expected_snn(expected.table("snn"), count, len(classes)),
    )


def _manifest(fields: Fields) -> dict[str, Any]:
    """The manifest's fields, each of its kind."""
    shape = fields.values.get("image_shape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        fields.refuse("image_shape", "three positive integers")
    contenders = fields.texts("contenders")
    if contenders not in (list(CONTENDERS), ["ann-fp32", "snn"]):
        fields.refuse("contenders", f"{', '.join(CONTENDERS)}, or without ann-int8")
    classes = fields.texts("classes", longest=500)
    if not classes:
        fields.refuse("classes", "a name for each class")
    data = fields.table("data")
    return {
        "kind": PACK_KIND,
        "format": PACK_FORMAT,
        "gascnn": fields.text("gascnn", 100),
        "versions": {name: str(value)[:100] for name, value in fields.plain("versions").items()},
        "data": {"name": data.text("name"), "provenance": data.text("provenance")},
        "images": fields.integer("images", 1, MOST_IMAGES),
        "image_shape": shape,
        "classes": classes,
        "contenders": contenders,
        "steps": fields.integer("steps", 1, 2**31),
        "seed": None if fields.values.get("seed") is None else fields.integer("seed"),
        "bundle_sha256": fields.digest("bundle_sha256"),
        "calibration_images": fields.integer("calibration_images"),
        "calibrated_on": fields.text("calibrated_on"),
        "note": fields.text("note"),
    }


def _check_files(place: Path, manifest: Fields) -> None:
    files = manifest.plain("files")
    wanted = (*_NEEDED, *((ANN_INT8,) if "ann-int8" in manifest.values["contenders"] else ()))
    if set(files) != set(wanted):
        manifest.refuse("files", f"a table of {', '.join(wanted)}")
    for name in wanted:
        entry = manifest.table("files").table(name)
        path, size = place / name, entry.integer("bytes", 0, LARGEST_FILE)
        if not path.is_file():
            raise FormatError(f"{path}: missing; {_AGAIN}")
        if path.stat().st_size != size or sha256_file(path) != entry.digest("sha256"):
            raise FormatError(f"{path}: changed or cut short since it was packed (its SHA-256 differs); {_AGAIN}")


def _images(
    path: Path, count: int, shape: tuple[int, ...], classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        headers = array_headers(path)
        unpacked = sum(int(np.prod(s, dtype=object)) * kind.itemsize for s, kind in headers.values())
        if unpacked > _LARGEST_ARRAYS:
            raise FormatError(f"{path}: unpacks to {unpacked} bytes; {_LARGEST_ARRAYS} are allowed; {_AGAIN}")
        arrays = read_arrays(path, ("images", "labels"))
    except DataError as error:
        raise FormatError(str(error)) from error
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.shape != (count, *shape):
        found = f"{images.dtype} {images.shape}"
        raise FormatError(f"{path}: images are {found}, not uint8 {(count, *shape)} as {MANIFEST} says; {_AGAIN}")
    if labels.dtype != np.int64 or labels.shape != (count,) or not ((labels >= 0) & (labels < classes)).all():
        raise FormatError(f"{path}: labels are not one of {classes} classes for each image; {_AGAIN}")
    return images, labels


def _expected_ann(fields: Fields, count: int, classes: int) -> ExpectedAnn:
    logits = _array(fields, "logits", (count, classes), np.float64)
    return ExpectedAnn(_classes(fields, count, classes), logits.astype(np.float32))


def _expected_snn(fields: Fields, count: int, classes: int) -> ExpectedSnn:
    digests = fields.texts("digests", longest=64, most=MOST_IMAGES)
    if len(digests) != count:
        fields.refuse("digests", f"a list of {count} digests")
    return ExpectedSnn(
        classes=_classes(fields, count, classes),
        output_counts=_array(fields, "output_counts", (count, classes), np.int64),
        output_membrane=_array(fields, "output_membrane", (count, classes), np.int64),
        digests=tuple(digests),
    )


def _classes(fields: Fields, count: int, classes: int) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = _array(fields, "classes", (count,), np.int64)
    if not ((found >= 0) & (found < classes)).all():
        fields.refuse("classes", f"numbers of {classes} classes")
    return found


def _array(fields: Fields, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Numbers of a known shape; integers only where ``dtype`` is one."""
    try:
        found = np.array(fields.values.get(name))
    except (ValueError, OverflowError):
        fields.refuse(name, f"numbers of shape {shape}")
    kinds = "i" if np.issubdtype(dtype, np.integer) else "if"
    if found.shape != shape or found.dtype.kind not in kinds or not np.isfinite(found).all():
        fields.refuse(name, f"numbers of shape {shape}")
    return found.astype(dtype)
