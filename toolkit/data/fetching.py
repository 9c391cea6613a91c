"""``gascnn data fetch``: download from the public origin and, where a set is combined from several, build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gascnn.toolkit.data.building import build_brain_mri, build_mias, open_archives
from gascnn.toolkit.data.download import Progress, download, folder_lock
from gascnn.toolkit.data.sources import Recipe, Source, SourceFile, find_source, read_split_list
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.files import write_json

DOWNLOADS = "downloads"
BUILD_SHARE = 0.2
"""Share of the whole that building is reported as; it takes about half a minute."""


@dataclass(frozen=True)
class FetchProgress:
    """How far a fetch is.

    Attributes:
        file: the file being downloaded or built.
        done: bytes there so far; images while building.
        total: bytes or images in all; None where the origin does not say.
        fraction: of the whole fetch, 0 to 1, never falling.
    """

    file: str
    done: int
    total: int | None
    fraction: float


Report = Callable[[FetchProgress], None]


def fetch(name: str, *, data_dir: str | Path, base_url: str | None = None, progress: Report | None = None) -> Path:
    """Bring a named data set to ``data_dir``, unless it is there.

    Args:
        name: ``mnist``, ``brain-mri`` or ``mias``.
        data_dir: folder to put it in, one of those that are searched (:func:`search_places`).
        base_url: take the files from here instead of their origins (``base_url/file name``); the checks are the same.
        progress: told about each piece.

    Returns:
        The file or folder that :func:`load_dataset` will find.

    Raises:
        DataError: unknown name, no connection, a file that is not the expected one, a full disk. What had arrived
            when a connection broke is kept, and the next call goes on from there.
        UsageError: a data set that needs no fetching.
    """
    source = find_source(name)
    if not source.files:
        raise UsageError(f"{name} comes with scikit-learn; there is nothing to fetch")
    root = Path(data_dir)
    if source.recipe is None:
        with folder_lock(root / name):
            _download(source, root / name, base_url, progress)
        return root / name
    target = root / source.recipe.file
    with folder_lock(root / DOWNLOADS / name):
        if not target.is_file():
            hashes = _download(source, root / DOWNLOADS / name, base_url, progress)
            _build(source.name, source.recipe, root / DOWNLOADS / name, target, hashes, progress)
    return target


def _download(source: Source, folder: Path, base_url: str | None, progress: Report | None) -> dict[str, str]:
    hashes, before = {}, 0
    for file in source.files:
        urls = file.urls if base_url is None else (f"{base_url.rstrip('/')}/{file.name}",)
        hashes[file.name] = download(file, folder / file.name, urls, _teller(source, file, before, progress))
        before += file.about_bytes
    return hashes


def _teller(source: Source, file: SourceFile, before: int, progress: Report | None) -> Progress:
    """Turn the bytes of one file into a fraction of the whole; ``before`` bytes are those of the files done."""
    share = 1.0 if source.recipe is None else 1 - BUILD_SHARE

    def tell(done: int, total: int | None) -> None:
        if progress is not None:
            here = file.about_bytes * min(1.0, done / (total or file.about_bytes))
            progress(FetchProgress(file.name, done, total, share * (before + here) / source.download_bytes))

    return tell


def _build(
    name: str, recipe: Recipe, folder: Path, target: Path, hashes: dict[str, str], progress: Report | None
) -> None:
    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(FetchProgress(target.name, done, total, 1 - BUILD_SHARE + BUILD_SHARE * done / total))

    archives = open_archives(folder, recipe.members.values())
    try:
        if name == "brain-mri":
            images_sha256 = build_brain_mri(read_split_list(), recipe, archives, target, tell)
        else:
            images_sha256 = build_mias(recipe, archives, target, tell)
    finally:
        for archive in archives.values():
            archive.close()
    write_json(
        target.with_suffix(".json"),
        {
            "built_from": hashes,
            "images_sha256": images_sha256,
            "images_sha256_expected": recipe.images_sha256,
            "as_expected": images_sha256 == recipe.images_sha256,
        },
    )
