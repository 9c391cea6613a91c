"""SHA-256 of what steps read and write: files, folders, data sets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gascnn.toolkit.data.decoding import image_kind
from gascnn.toolkit.data.image_set import is_image_set
from gascnn.toolkit.data.named import NAMED, locate
from gascnn.toolkit.data.privacy import shown
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import sha256_file

_HIDDEN = (".", "__MACOSX")


def combined(digests: Mapping[str, str]) -> str:
    """SHA-256 over names and digests: of ``DIGEST  NAME`` lines in the order of the names, as sha256sum writes them."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every visible file below a folder, by its path in it with forward slashes.

    Links are followed. Hidden files, which file managers leave behind, do not count.

    Raises:
        DataError: a file that cannot be read, a link back to a folder above itself.
    """
    return _digests(folder, _files_below(folder))


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, or over names and contents of a folder's visible files; None where nothing is.

    Raises:
        DataError: what is there cannot be read, or a link back to a folder above itself.
    """
    if path.is_dir():
        return _over_files(file_digests(path))
    if not path.exists():
        return None
    try:
        return sha256_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _over_files(digests: Mapping[str, str]) -> str | None:
    return combined(digests) if digests else None


def _digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    try:
        return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    except OSError as error:
        raise _unreadable(folder, error) from error


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """As :mod:`gascnn.toolkit.data.folder` walks: what is hidden is passed over, links are followed."""
    above = (*above, folder.resolve())
    files: list[Path] = []
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(_HIDDEN))
    except OSError as error:
        raise _unreadable(folder, error) from error
    for entry in entries:
        if entry.is_dir():
            if entry.resolve() in above:
                raise DataError(f"{shown(entry)}: links back to a folder above itself; remove the link")
            files += _files_below(entry, above)
        elif entry.is_file():
            files.append(entry)
    return files


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{shown(path)}: could not be read ({error.strerror}); check its permissions")


@dataclass(frozen=True)
class RealData:
    """The data set a chain begins with.

    Attributes:
        given: name or path, ready for ``--data`` in any folder.
        name: what it is called in the manifest: no path of the user's.
        folder: for ``--data-dir``, or None.
        sha256: over the files that are read of it, or None where there are none.
    """

    given: str
    name: str
    folder: Path | None
    sha256: str | None


def find_data(given: str, data_dir: Path | None) -> RealData:
    """Look for a data set and hash the files that are read of it as they lie on the disk; no image is decoded.

    A folder whose images were deleted is not there, whatever else is left in it.

    Args:
        given: a name, or the path of a folder or file.
        data_dir: where named ones are looked for first.

    Raises:
        DataError: a file that cannot be read, a link back to a folder above itself.
    """
    folder = None if data_dir is None else Path(os.path.abspath(data_dir))
    if given in NAMED:
        paths = _shipped() if given == "digits" else locate(given, folder)
        return RealData(given, given, folder, _over(paths))
    path = Path(os.path.abspath(Path(given).expanduser()))
    if not path.is_dir() or is_image_set(path):
        return RealData(str(path), path.name, folder, digest_of(path))
    images = [file for file in _files_below(path) if _is_read(file)]
    return RealData(str(path), path.name, folder, _over_files(_digests(path, images)))


def _is_read(file: Path) -> bool:
    """Whether a file below a class folder is not passed over; what would be refused there counts too."""
    try:
        return image_kind(file) is not None
    except DataError:
        return True


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
