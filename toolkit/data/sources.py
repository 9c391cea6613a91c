"""Where the named data sets come from: ``sources.json`` and the split list of the combined brain set, both packaged."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gascnn.toolkit.errors import DataError

SOURCES_FILE = Path(__file__).with_name("sources.json")
BRAIN_SPLIT_FILE = Path(__file__).with_name("brain_mri_split.csv")
ENVIRONMENT_VARIABLE = "GASCNN_DATA"


@dataclass(frozen=True)
class SourceFile:
    """A file of a public origin.

    Attributes:
        name: what it is called on this machine.
        urls: addresses, tried in order.
        sha256: expected hash, or None where the origin packs the file anew for each request.
        size_bytes: expected size, or None as above.
        about_bytes: roughly how much is to be downloaded.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None
    size_bytes: int | None
    about_bytes: int


@dataclass(frozen=True)
class Members:
    """Where the images of one source lie in its archive.

    Attributes:
        archive: name of a :class:`SourceFile`.
        path: path below the archive's top folder, with ``{id}`` and, where a class has a folder, ``{folder}``.
        folders: class name to folder.
    """

    archive: str
    path: str
    folders: dict[str, str]

    def member(self, identifier: str, class_name: str) -> str:
        """The path of one image."""
        return self.path.format(id=identifier, folder=self.folders.get(class_name, ""))


@dataclass(frozen=True)
class Recipe:
    """How an ``.npz`` is built from downloaded archives.

    Attributes:
        file: name of the ``.npz``.
        members: where each source's images are.
        labels: path of the table of labels in the archive, or None.
        files_sha256: for each source, SHA-256 over the SHA-256 digests of the files used, in order.
        images_sha256: SHA-256 of the bytes of the resulting ``images`` array.
    """

    file: str
    members: dict[str, Members]
    labels: str | None
    files_sha256: dict[str, str]
    images_sha256: str


@dataclass(frozen=True)
class Source:
    """Origin and terms of a named data set."""

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    files: tuple[SourceFile, ...]
    recipe: Recipe | None

    @property
    def download_bytes(self) -> int:
        """Roughly how much ``gascnn data fetch`` downloads."""
        return sum(file.about_bytes for file in self.files)


@dataclass(frozen=True)
class SplitEntry:
    """One image of the combined brain set: its source, its id there, its class and split."""

    source: str
    identifier: str
    class_name: str
    split: str


@cache
def load_sources(path: Path = SOURCES_FILE) -> dict[str, Source]:
    """The manifest, by name of data set."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return {name: _source(name, entry) for name, entry in values["datasets"].items()}


def _source(name: str, entry: dict[str, Any]) -> Source:
    files = tuple(
        SourceFile(
            name=file["name"],
            urls=tuple(file["urls"]),
            sha256=file["sha256"],
            size_bytes=file["bytes"],
            about_bytes=file["bytes"] or file["bytes_about"],
        )
        for file in entry["files"]
    )
    build = entry.get("build")
    recipe = None
    if build:
        members = {
            source: Members(place["archive"], place["path"], place.get("folders", {}))
            for source, place in build["members"].items()
        }
        recipe = Recipe(build["file"], members, build.get("labels"), build["files_sha256"], build["images_sha256"])
    terms = {key: entry[key] for key in ("title", "homepage", "licence", "citation")}
    return Source(name=name, files=files, recipe=recipe, **terms)


def read_split_list(path: Path = BRAIN_SPLIT_FILE) -> list[SplitEntry]:
    """The split list: columns source, id, class, split, in the order of the combined file."""
    with open(path, newline="", encoding="utf-8") as handle:
        return [SplitEntry(row["source"], row["id"], row["class"], row["split"]) for row in csv.DictReader(handle)]


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/gascnn``, or ``~/.cache/gascnn``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gascnn"


def search_places(data_dir: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """Folders where named data sets are looked for, in order: ``data_dir``, ``$GASCNN_DATA``, the user's cache."""
    chosen = [Path(data_dir)] if data_dir is not None else []
    environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if environment:
        chosen.append(Path(environment))
    return (*chosen, user_cache())


def find_source(name: str) -> Source:
    """The manifest's entry for a name.

    Raises:
        DataError: unknown; lists the names.
    """
    sources = load_sources()
    if name not in sources:
        raise DataError(f"{name!r}: no such data set; the names are {', '.join(sources)}")
    return sources[name]
