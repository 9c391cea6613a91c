"""SHA-256 of what steps read and write: files, folders, data sets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gascnn.toolkit.data.named import NAMED, locate
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import sha256_file


def combined(digests: Mapping[str, str]) -> str:
    """SHA-256 over names and digests: of ``DIGEST  NAME`` lines in the order of the names, as sha256sum writes them."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it with forward slashes.

    Raises:
        DataError: a file that cannot be read.
    """
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    except OSError as error:
        raise DataError(f"{folder}: could not be read ({error.strerror}); check its permissions") from error


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, or over names and contents of a folder's files; None where nothing is.

    Raises:
        DataError: what is there cannot be read.
    """
    if path.is_dir():
        return combined(file_digests(path))
    if not path.exists():
        return None
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: could not be read ({error.strerror}); check its permissions") from error


@dataclass(frozen=True)
class RealData:
    """The data set a chain begins with.

    Attributes:
        given: name or path, ready for ``--data`` in any folder.
        name: what it is called in the manifest: no path of the user's.
        folder: for ``--data-dir``, or None.
        sha256: over its files, or None where it is not there.
    """

    given: str
    name: str
    folder: Path | None
    sha256: str | None


def find_data(given: str, data_dir: Path | None) -> RealData:
    """Look for a data set and hash its files as they lie on the disk; no image is decoded.

    Args:
        given: a name, or the path of a folder or file.
        data_dir: where named ones are looked for first.

    Raises:
        DataError: a file that cannot be read.
    """
    folder = None if data_dir is None else Path(os.path.abspath(data_dir))
    if given in NAMED:
        paths = _shipped() if given == "digits" else locate(given, folder)
        return RealData(given, given, folder, _over(paths))
    path = Path(os.path.abspath(Path(given).expanduser()))
    return RealData(str(path), path.name, folder, digest_of(path))


def _shipped() -> tuple[Path, ...] | None:
    """The file of digits, which scikit-learn brings; found without importing that."""
    spec = find_spec("sklearn")
    for place in [] if spec is None else spec.submodule_search_locations or []:
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return (path,)
    return None


def _over(paths: Iterable[Path] | None) -> str | None:
    if paths is None:
        return None
    found = {path.name: digest_of(path) for path in paths}
    return combined({name: digest for name, digest in found.items() if digest is not None}) if found else None
