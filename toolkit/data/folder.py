"""A folder with one sub-folder a class, optionally under train, val and test; and a folder without labels."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.decoding import KINDS, DecodedFile, image_kind, read_images
from gascnn.toolkit.data.pixels import Frame, describe_scaling
from gascnn.toolkit.data.privacy import shown
from gascnn.toolkit.data.raw import RawImages, Unit
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.framing import check_framing

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders on top (in any case) and the split each stands for."""

PREPROCESSING = (
    "8-bit images unchanged; 16-bit ones equalised to 8 bits; DICOM rescaled, windowed, MONOCHROME1 inverted; "
    "NIfTI: middle half of the slices along the last axis; alpha over black; EXIF rotation applied"
)


@dataclass(frozen=True)
class _Item:
    path: Path
    name: str  # "class/file" below the split folder, which decides the order and is never written
    class_name: str
    split: str | None


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts cls2 before cls10 and does not look at the case first."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part.casefold()) for part in parts]


def read_class_folder(
    root: Path, size: tuple[int, int] | None, channels: int | None, framing: str = "whole"
) -> RawImages:
    """Read every image below ``root``.

    Args:
        root: the folder.
        size: (height, width) to scale each image to; None keeps the size, which must then be the same for all.
        channels: 1, 3, or None: 3 where more than half of the images are in colour, else 1.
        framing: what part of each image is taken; see :mod:`gascnn.toolkit.framing`.

    Raises:
        DataError: no or one class, an empty class, an unreadable file, images of several sizes.
    """
    items = _scan(root)
    class_names = tuple(sorted({item.class_name for item in items}, key=natural_key))
    codes = {name: code for code, name in enumerate(class_names)}
    decoded = read_images([item.path for item in items], size, framing)
    owners = np.repeat(np.arange(len(items)), [len(file.frames) for file in decoded])
    digest = hashlib.sha256()
    for item, file in zip(items, decoded, strict=True):
        digest.update(f"{item.split or ''}/{codes[item.class_name]} {file.sha256}\n".encode())
    return RawImages(
        class_names=class_names,
        images=_stack([frame for file in decoded for frame in file.frames], channels, size, shown(root)),
        labels=np.array([codes[items[owner].class_name] for owner in owners], np.int64),
        names=_frame_names(items, decoded),
        groups=[decoded[owner].patient or f"file {decoded[owner].sha256}" for owner in owners],
        grouped_by="patient" if any(file.patient for file in decoded) else _file_unit(decoded),
        splits=_given_splits(items, owners),
        sha256={"every image file, in order, with its class and split": digest.hexdigest()},
        preprocessing=PREPROCESSING + describe_scaling(None if size is None else size[0], channels, framing),
        warnings=_warnings(decoded),
    )


def load_folder_images(
    path: str | os.PathLike[str], image_shape: tuple[int, int, int], framing: str = "whole"
) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Images without labels, as a model takes them.

    Args:
        path: a folder; images in folders below it are read too.
        image_shape: (C, H, W) of the model; each image is scaled to it as a whole.
        framing: as the model was trained; see :mod:`gascnn.toolkit.framing`.

    Returns:
        Names relative to the folder, in natural order (``scan.dcm#2`` for the third image of a file that holds
        several), and (n, C, H, W) uint8 images.

    Raises:
        DataError: no folder there, no image in it, or a file that cannot be read.
        UsageError: an image shape other than (1 or 3, height, width).
    """
    check_framing(framing)
    channels, height, width = image_shape
    if channels not in (1, 3) or min(height, width) < 1:
        raise UsageError(f"image shape {image_shape}; (1 or 3, height, width) is needed")
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{shown(root)}: no folder there; give a folder of images ({KINDS})")
    files = _images_below(root, (root.resolve(),))
    if not files:
        raise DataError(f"{shown(root)}: no image in it ({KINDS} are read)")
    decoded = read_images(files, (height, width), framing)
    items = [_Item(file, file.relative_to(root).as_posix(), "", None) for file in files]
    frames = [frame for file in decoded for frame in file.frames]
    return _frame_names(items, decoded), _stack(frames, channels, (height, width), shown(root))


def _scan(root: Path) -> list[_Item]:
    folders = _subfolders(root)
    if not folders:
        raise DataError(f"{shown(root)}: no sub-folders; one folder of images for each class is needed")
    on_top = all(folder.name.casefold() in SPLIT_FOLDERS for folder in folders)
    if not on_top:
        items = list(_class_items(folders, None))
    else:
        items = [
            item
            for folder in folders
            for item in _class_items(_subfolders(folder), SPLIT_FOLDERS[folder.name.casefold()], folder)
        ]
        if not any(item.split == "train" for item in items):
            raise DataError(f"{shown(root)}: folders for splits but no train folder; add one")
    classes = {item.class_name for item in items if item.split in (None, "train")}
    if len(classes) < 2:
        raise DataError(f"{shown(root)}: {len(classes)} class; at least two class folders are needed")
    unknown = sorted({item.class_name for item in items} - classes, key=natural_key)
    if unknown:
        raise DataError(f"{shown(root)}: class {unknown[0]!r} has no folder under train; add one or remove the class")
    return items


def _class_items(folders: Sequence[Path], split: str | None, above: Path | None = None) -> Iterator[_Item]:
    if not folders and above is not None:
        raise DataError(f"{shown(above)}: no class folders in it; one folder of images for each class is needed")
    for folder in folders:
        if not folder.name.isprintable():
            raise DataError(f"{shown(folder)}: class names of printable characters are needed; rename the folder")
        files = _images_below(folder, (folder.resolve(),))
        if not files:
            raise DataError(f"{shown(folder)}: class folder without images ({KINDS} are read); fill or remove it")
        for file in files:
            yield _Item(file, f"{folder.name}/{file.relative_to(folder).as_posix()}", folder.name, split)


def _subfolders(root: Path) -> list[Path]:
    return [entry for entry in _entries(root) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in natural order, without hidden files and those file managers leave behind."""
    try:
        found = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        reason = type(error).__name__
        raise DataError(f"{shown(folder)}: the folder cannot be listed ({reason}); check its permissions") from error
    return sorted(found, key=lambda entry: (natural_key(entry.name), entry.name))


def _images_below(folder: Path, above: tuple[Path, ...]) -> list[Path]:
    files: list[Path] = []
    for entry in _entries(folder):
        if entry.is_dir():
            real = entry.resolve()
            if real in above:
                raise DataError(f"{shown(entry)}: links back to a folder above itself; remove the link")
            files += _images_below(entry, (*above, real))
        elif not entry.exists():
            raise DataError(f"{shown(entry)}: a link to nothing (or to itself); remove it")
        elif image_kind(entry) is not None:
            files.append(entry)
    return files


def _stack(
    frames: Sequence[Frame], channels: int | None, size: tuple[int, int] | None, where: str
) -> npt.NDArray[np.uint8]:
    shapes = Counter(frame.gray.shape for frame in frames)
    if len(shapes) > 1:
        (one, _), (other, _) = shapes.most_common(2)
        raise DataError(
            f"{where}: images of {len(shapes)} sizes ({one[1]}x{one[0]} and {other[1]}x{other[0]}, for example); "
            "give one to scale them to (--image-size)"
        )
    colored = sum(frame.color is not None for frame in frames)
    wanted = channels or (3 if 2 * colored > len(frames) else 1)
    height, width = size or next(iter(shapes))
    images = np.empty((len(frames), wanted, height, width), np.uint8)
    for index, frame in enumerate(frames):
        images[index] = frame.channels(wanted)
    return images


def _frame_names(items: Sequence[_Item], decoded: Sequence[DecodedFile]) -> list[str]:
    names: list[str] = []
    for item, file in zip(items, decoded, strict=True):
        count = len(file.frames)
        names += [item.name] if count == 1 else [f"{item.name}#{index}" for index in range(count)]
    return names


def _file_unit(decoded: Sequence[DecodedFile]) -> Unit:
    return "file" if any(len(file.frames) > 1 for file in decoded) else "image"


def _given_splits(items: Sequence[_Item], owners: npt.NDArray[np.intp]) -> npt.NDArray[np.str_] | None:
    if items[0].split is None:
        return None
    return np.array([items[owner].split for owner in owners], dtype="<U5")


def _warnings(decoded: Sequence[DecodedFile]) -> list[str]:
    burned_in = sum(file.burned_in for file in decoded)
    if not burned_in:
        return []
    return [f"{burned_in} DICOM files declare annotations burned into their pixels, which may identify patients"]
