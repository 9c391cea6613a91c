"""Data sets by name or path, and the list of what is there."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from gascnn.toolkit.data.arrays import read_npz
from gascnn.toolkit.data.dataset import CHANNELS, Dataset
from gascnn.toolkit.data.folder import read_class_folder
from gascnn.toolkit.data.image_set import is_image_set, read_image_set
from gascnn.toolkit.data.named import NAMED, load_named, locate
from gascnn.toolkit.data.privacy import shown
from gascnn.toolkit.data.raw import split_raw
from gascnn.toolkit.data.sources import find_source, search_places
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.framing import check_framing

IMAGE_SIZE_MAX = 4096


@dataclass(frozen=True)
class DatasetDescription:
    """One line of ``gascnn data list``.

    Attributes:
        name: what to give to ``--data``.
        title: what it is.
        present: whether it was found and could be read.
        path: the file or folder found, or None (also for what needs no file).
        looked_in: the places looked at, in order; empty for what needs no file.
        images: images in each split, or None.
        image_shape: (C, H, W) as stored.
        licence: its terms.
        citation: how to cite it.
        origin: its home page.
        download_bytes: roughly how much fetching it downloads.
        problem: why a file that is there cannot be used, or None.
    """

    name: str
    title: str
    present: bool
    path: Path | None
    looked_in: tuple[Path, ...]
    images: dict[str, int] | None
    image_shape: tuple[int, int, int]
    licence: str
    citation: str
    origin: str
    download_bytes: int
    problem: str | None = None


def load_dataset(
    name_or_path: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    framing: str = "whole",
    seed: int = 0,
) -> Dataset:
    """Read a data set.

    Args:
        name_or_path: a name (``digits``, ``mnist``, ``brain-mri``, ``mias``), a folder with one sub-folder a class
            (under ``train``, ``val`` and ``test`` if wanted), an ``.npz`` file with ``images`` and ``labels``, or a
            folder that ``gascnn synthesise`` wrote, whose images are taken as they are.
        data_dir: where to look for named sets first, before ``$GASCNN_DATA`` and the user's cache.
        image_size: scale each whole image to this many pixels in height and width; None keeps the size.
        channels: 1 (gray) or 3 (RGB); None keeps what there is, for a folder that of the majority.
        framing: ``whole``, or ``foreground``: the square around what is bright, brightness stretched; see
            :mod:`gascnn.toolkit.framing`.
        seed: of the split that is drawn for a folder or file without one. Named sets have a fixed split. Use the
            same seed for training and testing, or test images will have been trained on.

    Raises:
        DataError: nothing of that name or path, missing files (with the places looked at), unreadable images, too
            few images or patients for a split.
        UsageError: an image size, a number of channels or a framing that is not allowed.
    """
    _check_options(image_size, channels, seed)
    check_framing(framing)
    if name_or_path not in NAMED and is_image_set(Path(name_or_path).expanduser()):
        return read_image_set(Path(name_or_path).expanduser(), image_size, channels, framing)
    return replace(_load(name_or_path, data_dir, image_size, channels, framing, seed), framing=framing)


def _load(
    name_or_path: str,
    data_dir: str | os.PathLike[str] | None,
    image_size: int | None,
    channels: int | None,
    framing: str,
    seed: int,
) -> Dataset:
    if name_or_path in NAMED:
        return load_named(name_or_path, data_dir, image_size, channels, framing)
    path = Path(name_or_path).expanduser()
    name = "".join(character for character in path.resolve().name if character.isprintable())
    if path.is_dir():
        size = None if image_size is None else (image_size, image_size)
        return split_raw(read_class_folder(path, size, channels, framing), name, "a folder of the user's", seed)
    if path.is_file() and path.suffix.lower() == ".npz":
        return split_raw(read_npz(path, image_size, channels, framing), path.stem, "an .npz file of the user's", seed)
    if path.exists():
        raise DataError(f"{shown(path)}: neither a folder of class folders nor an .npz file; give one of those")
    raise DataError(
        f"{shown(name_or_path)}: neither a data set's name ({', '.join(NAMED)}) nor the path of a folder of class "
        "folders or an .npz file"
    )


def describe_datasets(data_dir: str | os.PathLike[str] | None = None) -> list[DatasetDescription]:
    """What each named set is, whether it is there, and where it was looked for; no image is read."""
    return [_describe(name, data_dir) for name in NAMED]


def _describe(name: str, data_dir: str | os.PathLike[str] | None) -> DatasetDescription:
    source, named, paths = find_source(name), NAMED[name], locate(name, data_dir)
    images, problem = None, None
    if paths is not None:
        try:
            images = named.count(paths)
        except DataError as error:
            problem = str(error)
    return DatasetDescription(
        name=name,
        title=source.title,
        present=images is not None,
        path=None if not paths else paths[0] if len(paths) == 1 else paths[0].parent,
        looked_in=search_places(data_dir) if named.forms != ((),) else (),
        images=images,
        image_shape=named.image_shape,
        licence=source.licence,
        citation=source.citation,
        origin=source.homepage,
        download_bytes=source.download_bytes,
        problem=problem,
    )


def _check_options(image_size: int | None, channels: int | None, seed: int) -> None:
    if image_size is not None and not 1 <= image_size <= IMAGE_SIZE_MAX:
        raise UsageError(f"image size {image_size}; 1 to {IMAGE_SIZE_MAX} pixels are allowed")
    if channels is not None and channels not in CHANNELS:
        raise UsageError(f"{channels} channels; 1 (gray) or 3 (RGB) are allowed")
    if seed < 0:
        raise UsageError(f"seed {seed}; 0 or more is needed")
