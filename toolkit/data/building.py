"""The ``.npz`` files of the combined brain set and of mini-MIAS, from the archives of their public origins."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.optional import require
from gascnn.toolkit.data.privacy import quiet_decoders
from gascnn.toolkit.data.sources import Members, Recipe, SplitEntry
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import atomic_path

BRAIN_CLASSES = ("glioma", "meningioma", "pituitary", "notumor")
BRAIN_SIZE = 128
MIAS_CLASSES = ("normal", "benign", "malignant")
MIAS_SIZE = 256

_MAX_MEMBER_BYTES = 64 << 20
Progress = Callable[[int, int], None]
"""Called with the images done and in all."""

_GRAVITY = {"": 0, "B": 1, "M": 2}


class Archive:
    """A zip file of a repository, whose single top folder is left out of the names.

    Args:
        path: the file.

    Raises:
        DataError: not a zip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path}: not a readable zip file; delete it and fetch it again") from error
        self._members = {info.filename.partition("/")[2]: info for info in self._zip.infolist() if not info.is_dir()}

    def read(self, name: str) -> bytes:
        """The bytes of one member.

        Raises:
            DataError: no such member, one of unlikely size, or a damaged one.
        """
        info = self._members.get(name)
        if info is None:
            raise DataError(f"{self.path}: no {name} in it; the origin has changed")
        if info.file_size > _MAX_MEMBER_BYTES:
            raise DataError(f"{self.path}: {name} unpacks to {info.file_size} bytes; the origin has changed")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: {name} is damaged; delete the archive and fetch it again") from error

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()


def gray_square(content: bytes, size: int, name: str) -> npt.NDArray[np.uint8]:
    """Decode an image, to 8-bit gray, and scale all of it to a square with Pillow's box filter.

    Raises:
        DataError: undecodable; gives ``name``.
    """
    pillow = require("PIL.Image", "Pillow", "pictures")
    try:
        with quiet_decoders(), pillow.open(io.BytesIO(content), formats=("JPEG", "PNG", "PPM")) as image:
            return np.array(image.convert("L").resize((size, size), pillow.Resampling.BOX))
    except Exception as error:
        kind = type(error).__name__
    raise DataError(f"{name}: unreadable as an image ({kind}); delete the archive and fetch it again")


def build_brain_mri(
    entries: Sequence[SplitEntry],
    recipe: Recipe,
    archives: Mapping[str, Archive],
    target: Path,
    progress: Progress | None = None,
) -> str:
    """Write the combined four-class set.

    Keys of ``target``: ``images`` (n, 128, 128) uint8, ``labels`` (n,) uint8, ``split``, ``source`` (source:id) and
    ``class_names``, in the order of ``entries``.

    Args:
        entries: the split list.
        recipe: where each source's images are, and what their files hash to.
        archives: by file name.
        target: the ``.npz``, whole or not there.
        progress: told the images done and in all.

    Returns:
        SHA-256 of the bytes of ``images``.

    Raises:
        DataError: an image that is missing, damaged, or not that of the list.
    """
    images = np.empty((len(entries), BRAIN_SIZE, BRAIN_SIZE), np.uint8)
    digests = {source: hashlib.sha256() for source in recipe.members}
    for index, entry in enumerate(entries):
        place = recipe.members[entry.source]
        content = archives[place.archive].read(place.member(entry.identifier, entry.class_name))
        digests[entry.source].update(hashlib.sha256(content).digest())
        images[index] = gray_square(content, BRAIN_SIZE, f"{entry.source}:{entry.identifier}")
        if progress is not None:
            progress(index + 1, len(entries))
    for source, digest in digests.items():
        _check_files(source, digest.hexdigest(), recipe)
    _save(
        target,
        images=images,
        labels=np.array([BRAIN_CLASSES.index(entry.class_name) for entry in entries], np.uint8),
        split=np.array([entry.split for entry in entries]),
        source=np.array([f"{entry.source}:{entry.identifier}" for entry in entries]),
        class_names=np.array(BRAIN_CLASSES),
    )
    return hashlib.sha256(images.tobytes()).hexdigest()


def build_mias(recipe: Recipe, archives: Mapping[str, Archive], target: Path, progress: Progress | None = None) -> str:
    """Write mini-MIAS.

    Keys of ``target``: ``images`` (n, 256, 256) uint8, ``labels`` (n,) uint8, ``ref`` (mdb001 ...), ``tissue``,
    ``abnormality`` and ``class_names``, in the order of ``ref``. A film with several findings has the gravest as its
    label and the first as its abnormality.

    Args:
        recipe: where images and table of labels are, and what the files hash to.
        archives: by file name.
        target: the ``.npz``, whole or not there.
        progress: told the images done and in all.

    Returns:
        SHA-256 of the bytes of ``images``.

    Raises:
        DataError: a film that is missing, damaged, or not the expected one; a table of labels of another form.
    """
    place = recipe.members["mias"]
    archive = archives[place.archive]
    table = archive.read(recipe.labels or "")
    films = _mias_films(table, archive.path)
    digest = hashlib.sha256(hashlib.sha256(table).digest())
    images = np.empty((len(films), MIAS_SIZE, MIAS_SIZE), np.uint8)
    for index, reference in enumerate(films):
        content = archive.read(place.member(reference, ""))
        digest.update(hashlib.sha256(content).digest())
        images[index] = gray_square(content, MIAS_SIZE, f"mias:{reference}")
        if progress is not None:
            progress(index + 1, len(films))
    _check_files("mias", digest.hexdigest(), recipe)
    _save(
        target,
        images=images,
        labels=np.array([max(_GRAVITY[row[3]] for row in rows) for rows in films.values()], np.uint8),
        ref=np.array(list(films)),
        tissue=np.array([rows[0][1] for rows in films.values()]),
        abnormality=np.array([rows[0][2] for rows in films.values()]),
        class_names=np.array(MIAS_CLASSES),
    )
    return hashlib.sha256(images.tobytes()).hexdigest()


def open_archives(folder: Path, members: Iterable[Members]) -> dict[str, Archive]:
    """The archives that hold ``members``, by file name.

    Raises:
        DataError: one is not a zip file.
    """
    return {name: Archive(folder / name) for name in sorted({place.archive for place in members})}


def _mias_films(table: bytes, path: Path) -> dict[str, list[list[str]]]:
    films: dict[str, list[list[str]]] = {}
    for row in list(csv.reader(io.StringIO(table.decode("ascii", "replace"))))[1:]:
        if len(row) < 4 or row[3] not in _GRAVITY:
            raise DataError(f"{path}: the table of labels has another form than expected; the origin has changed")
        films.setdefault(row[0], []).append(row)
    return dict(sorted(films.items()))


def _check_files(source: str, found: str, recipe: Recipe) -> None:
    expected = recipe.files_sha256[source]
    if found != expected:
        raise DataError(
            f"the images of {source} are not those of the list (SHA-256 over their files {found}, {expected} "
            "expected); delete the archive and fetch it again"
        )


def _save(target: Path, **arrays: Any) -> None:
    with atomic_path(target) as temporary:
        np.savez_compressed(temporary, **arrays)
