"""Files that are whole or not there: atomic writing, hashing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gascnn.toolkit.errors import DataError, UsageError


def _explain(error: OSError, path: Path) -> Exception:
    reasons = {
        errno.ENOSPC: "the disk is full; free some space or write elsewhere with -o",
        errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere with -o",
        errno.EACCES: "no permission to write there; choose another place with -o",
        errno.EROFS: "that file system is read-only; choose another place with -o",
        errno.EFBIG: "the file would exceed the size limit of this process (ulimit -f)",
    }
    reason = reasons.get(error.errno or 0, str(error))
    return DataError(f"could not write {path}: {reason}; nothing was left behind")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is flushed and renamed to ``path``, else removed.

    Args:
        path: the file to appear, whole, when the block ends without an exception.

    Yields:
        A path in the same folder (so that the renaming is atomic) that does not exist yet.

    Raises:
        DataError: the disk is full, or the folder cannot be written; neither file exists then.
        UsageError: ``path`` is a folder, or a device such as ``/dev/null``.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; give the name of a file to write")
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is not a regular file; give the name of a file to write")
    with _beside(target) as holder:
        temporary = holder / target.name
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], marker: str) -> Iterator[Path]:
    """Like :func:`atomic_path` for a folder of ours, which is replaced as a whole.

    Args:
        path: the folder to appear when the block ends without an exception.
        marker: name of a file that every such folder holds; an existing folder that is neither empty nor holds it
            is somebody's own and is left alone.

    Yields:
        An empty folder beside it to write into.

    Raises:
        DataError: the disk is full, or the place cannot be written; an older folder is there as before.
        UsageError: ``path`` is an existing file, or a folder with other things in it.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; give the name of a folder to write")
    if target.is_dir() and any(target.iterdir()) and not (target / marker).exists():
        raise UsageError(f"{target} holds other files (no {marker} in it); give the name of a new folder")
    with _beside(target) as holder:
        fresh, old = holder / "new", holder / "old"
        fresh.mkdir()
        yield fresh
        for written in fresh.rglob("*"):
            if written.is_file():
                _flush(written)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(fresh, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``, gone at the end; so are folders made for it, if nothing came of it."""
    missing = [folder for folder in target.parents if not folder.exists()]
    holder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield holder
    except OSError as error:
        raise _explain(error, target) from error
    finally:
        if holder is not None:
            shutil.rmtree(holder, ignore_errors=True)
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty: something did come of it
                folder.rmdir()


def _flush(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically.

    Raises:
        DataError: the disk is full or the place cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically; NaN and infinity are refused.

    Raises:
        DataError: the disk is full or the place cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False, ensure_ascii=False) + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
