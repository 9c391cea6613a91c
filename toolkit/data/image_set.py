"""Image sets of our own making: a folder of ``images.json`` and ``images.npz``, which is read as it was written.

They are made for one network: in its size, with its channels, framed as it wants them. Nothing is scaled, recoloured
or cut when they are read; what does not fit is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.arrays import read_arrays
from gascnn.toolkit.data.dataset import SPLITS, Dataset, ImageSet
from gascnn.toolkit.data.privacy import shown
from gascnn.toolkit.data.raw import finish
from gascnn.toolkit.data.splitting import hash_order
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import atomic_folder, sha256_file
from gascnn.toolkit.framing import FRAMINGS, check_framing

SCHEMA = 1
RECORD_FILE, IMAGES_FILE = "images.json", "images.npz"

HELD_OUT = 0.05
"""Share of the images that goes to val, and to test: they are made to be learnt from."""

FEWEST_IMAGES = 3
"""One for each split."""


def is_image_set(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder with an ``images.json``."""
    return (Path(path) / RECORD_FILE).is_file()


def save_image_set(
    path: str | os.PathLike[str],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
    *,
    framing: str = "whole",
    source: str,
    provenance: Mapping[str, Any] | None = None,
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
) -> None:
    """Write the folder ``path``, whole or not at all; an older set there is replaced.

    Args:
        path: the folder.
        images: (n, C, H, W), at least three.
        labels: (n,).
        class_names: in the order of the labels.
        framing: what part of an image these are.
        source: where they come from, a sentence.
        provenance: plain values that travel with them.
        arrays: kept beside them under their names, such as ``soft_labels``; a row an image.

    Raises:
        DataError: images or labels of another kind or number, labels without a class, a place that cannot be written.
        UsageError: ``path`` is a file or holds something else, or a framing that is not known.
    """
    check_framing(framing)
    whole = ImageSet(images, labels)
    if len(whole) < FEWEST_IMAGES:
        raise DataError(f"{len(whole)} images; an image set has three splits and needs at least {FEWEST_IMAGES}")
    if not np.all((labels >= 0) & (labels < len(class_names))):
        raise DataError(f"labels {labels.min()} to {labels.max()}; {len(class_names)} classes allow 0 and up")
    stored = {"images": images, "labels": labels, "split": _splits(len(whole)), **(arrays or {})}
    with atomic_folder(path, marker=RECORD_FILE) as folder:
        np.savez_compressed(folder / IMAGES_FILE, **stored)  # type: ignore[arg-type]  # arrays by name
        record = {
            "schema": SCHEMA,
            "source": source,
            "synthetic": True,
            "images": len(whole),
            "image_shape": list(images.shape[1:]),
            "framing": framing,
            "classes": list(class_names),
            "images_sha256": sha256_file(folder / IMAGES_FILE),
            "provenance": dict(provenance or {}),
        }
        text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        (folder / RECORD_FILE).write_text(text, encoding="utf-8")


def _splits(count: int) -> npt.NDArray[np.str_]:
    """Names of splits, decided by hashes of the images' numbers."""
    order = hash_order([f"image {index}" for index in range(count)], 0)
    held = max(1, round(HELD_OUT * count))
    splits = np.full(count, "train", dtype="<U5")
    splits[order[:held]], splits[order[held : 2 * held]] = "val", "test"
    return splits


def read_image_set(
    path: str | os.PathLike[str], image_size: int | None = None, channels: int | None = None, framing: str = "whole"
) -> Dataset:
    """Read a set that :func:`save_image_set` wrote, image by image as it was.

    Args:
        path: the folder.
        image_size: pixels a side that are wanted; None takes what there is.
        channels: channels that are wanted; None takes what there is.
        framing: that is wanted; ``whole`` takes what there is.

    Returns:
        The three splits in the order in which the images were made; ``provenance["synthetic"]`` is true. ``framing``
        is the set's own.

    Raises:
        DataError: a record or images that are damaged or do not belong together, another size, number of channels or
            framing than wanted.
    """
    folder = Path(path)
    record = _read_record(folder / RECORD_FILE)
    where = shown(folder)
    _check_wanted(where, record, image_size, channels, framing)
    file = folder / IMAGES_FILE
    if not file.is_file() or sha256_file(file) != record["images_sha256"]:
        raise DataError(f"{where}: {IMAGES_FILE} is missing or not what {RECORD_FILE} was written with; make it anew")
    arrays = read_arrays(file, ("images", "labels", "split"))
    images, labels, splits = arrays["images"], arrays["labels"], arrays["split"]
    if images.shape != (record["images"], *record["image_shape"]) or not len(labels) == len(splits) == len(images):
        raise DataError(f"{where}: {IMAGES_FILE} holds other images than {RECORD_FILE} says; make it anew")
    sets = {name: ImageSet(images[splits == name], labels[splits == name]) for name in SPLITS}
    if not all(len(part) for part in sets.values()):
        raise DataError(f"{where}: a split without images; make it anew")
    provenance = {
        "source": record["source"],
        "synthetic": True,
        "licence": "that of the network they were made from",
        "split": f"by a hash of the image's number, {HELD_OUT:.0%} val, {HELD_OUT:.0%} test",
        "sha256": {IMAGES_FILE: record["images_sha256"]},
        "preprocessing": "none: 8-bit images as they were made",
        "made": record["provenance"],
    }
    name = "".join(character for character in folder.resolve().name if character.isprintable())
    found = finish(name, tuple(record["classes"]), sets, provenance, [])
    return Dataset(
        name, found.class_names, found.train, found.val, found.test, found.provenance, framing=record["framing"]
    )


def read_extra(path: str | os.PathLike[str], name: str) -> npt.NDArray[Any]:
    """An array kept beside the images, such as ``soft_labels``: a row an image, in the order in which they were made.

    The training images' rows are those where ``read_extra(path, "split") == "train"``.

    Raises:
        DataError: no such array, or a damaged file.
    """
    return read_arrays(Path(path) / IMAGES_FILE, (name,))[name]


def _check_wanted(where: str, record: dict[str, Any], size: int | None, channels: int | None, framing: str) -> None:
    found, height, width = record["image_shape"]
    if (size is not None and (height, width) != (size, size)) or (channels is not None and channels != found):
        wanted = f"{channels or found}x{size or height}x{size or width}"
        raise DataError(
            f"{where}: made images of {found}x{height}x{width}, {wanted} are wanted; they are not scaled: make them "
            "for the network that takes them"
        )
    if framing not in ("whole", record["framing"]):
        raise DataError(
            f"{where}: made images framed as {record['framing']}, {framing} is wanted; they are not cut: make them "
            "for the network that takes them"
        )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{shown(path)}: not readable JSON ({type(error).__name__}); make the set anew") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise DataError(f"{shown(path)}: schema {found}; this version reads schema {SCHEMA}")
    shape, classes = values.get("image_shape"), values.get("classes")
    checks = {
        "source": isinstance(values.get("source"), str),
        "images": type(values.get("images")) is int and values["images"] >= FEWEST_IMAGES,
        "image_shape": isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape),
        "framing": values.get("framing") in FRAMINGS,
        "classes": isinstance(classes, list) and len(classes) > 1 and all(isinstance(name, str) for name in classes),
        "images_sha256": isinstance(values.get("images_sha256"), str),
        "provenance": isinstance(values.get("provenance"), dict),
    }
    wrong = [name for name, good in checks.items() if not good]
    if wrong:
        raise DataError(f"{shown(path)}: field {wrong[0]!r} is missing or of the wrong kind; make the set anew")
    return values
