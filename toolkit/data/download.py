"""One file over HTTP: resumed where it stopped, checked, and renamed into place only when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gascnn.toolkit.data.optional import require
from gascnn.toolkit.data.sources import SourceFile
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import atomic_path, sha256_file, write_json

if TYPE_CHECKING:
    import httpx

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes there so far and the bytes in all (None where the origin does not say)."""

MAX_DOWNLOAD_BYTES = 4 << 30
ATTEMPTS = 3
RETRY_WAIT_S = 1.0
_TIMEOUT_S = 30.0


class _TransientError(Exception):
    """Something that may go better on another attempt; what arrived is kept."""


@dataclass(frozen=True)
class _Part:
    """A partly downloaded file and the note on what it is a part of."""

    target: Path

    @property
    def path(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self, url: str) -> str | None:
        """The ETag or date under which ``url`` gave the bytes there are, if known."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        value = note.get("validator") if isinstance(note, dict) and note.get("url") == url else None
        return value if isinstance(value, str) and value.isprintable() else None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(file: SourceFile, target: Path, urls: Sequence[str], progress: Progress | None = None) -> str:
    """Bring ``file`` to ``target`` unless it is there, and check it either way.

    The bytes go to ``target`` + ``.part``. An interrupted download goes on from there next time if the origin shows
    by its ETag or date that the file has not changed, and starts anew otherwise. Where no hash is expected, the hash
    of the first download is written beside the file (``.sha256``) and holds from then on: trust on first use.

    Args:
        file: what is expected.
        target: where it goes.
        urls: addresses, tried in order.
        progress: told about each piece.

    Returns:
        SHA-256 of the file.

    Raises:
        DataError: no address answers, the download stopped in between, the size or the hash is wrong, the disk is
            full.
    """
    if target.is_file():
        return _check_present(file, target)
    failures = []
    for url in urls:
        try:
            _fetch(file, target, url, progress)
        except _TransientError as error:
            failures.append(f"{url}: {error}")
            continue
        return _accept(file, target)
    kept = _Part(target).size()
    again = f"{kept} bytes are kept, run the same command again to go on" if kept else "try again later"
    raise DataError(f"{file.name} could not be downloaded ({'; '.join(failures)}); {again}")


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; others wait. The system lets go of it when the process ends.

    Raises:
        DataError: the folder cannot be made.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{folder}: no folder for data can be made there ({error.strerror}); choose another") from error
    try:
        # A file system without locks gives up only the protection against a second fetch at the same time.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_present(file: SourceFile, target: Path) -> str:
    found = sha256_file(target)
    record = _record(target)
    expected = file.sha256
    if expected is None and record.is_file():
        expected = record.read_text(encoding="utf-8").partition(" ")[0]
    if expected is not None and found != expected:
        raise DataError(f"{target}: SHA-256 {found}, {expected} expected; delete the file and fetch it again")
    return found


def _accept(file: SourceFile, target: Path) -> str:
    part = _Part(target)
    size, found = part.size(), sha256_file(part.path)
    problem = None
    if file.size_bytes is not None and size != file.size_bytes:
        problem = f"{size} bytes arrived, {file.size_bytes} are expected"
    elif file.sha256 is not None and found != file.sha256:
        problem = f"SHA-256 {found} arrived, {file.sha256} is expected"
    if problem:
        part.remove()
        raise DataError(f"{file.name}: {problem}; it was removed, and the origin may have changed or be tampered with")
    if file.sha256 is None:
        with atomic_path(_record(target)) as temporary:
            temporary.write_text(f"{found}  {target.name}\n", encoding="utf-8")
    with open(part.path, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(part.path, target)
    part.remove()
    return found


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _fetch(file: SourceFile, target: Path, url: str, progress: Progress | None) -> None:
    """All of the part, in as many attempts as are allowed."""
    httpx = require("httpx", "httpx", "edge")
    reason = ""
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S) as client:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _attempt(client, file, _Part(target), url, progress)
            except (_TransientError, httpx.TransportError, httpx.TooManyRedirects) as error:
                reason = str(error) or type(error).__name__
            except httpx.InvalidURL:
                raise DataError(f"{url}: not an address; give one that begins with https://") from None
            except OSError as error:
                _Part(target).remove()
                raise DataError(
                    f"{target}: could not be written ({error.strerror}); what had arrived was removed"
                ) from error
            if attempt < ATTEMPTS:
                time.sleep(RETRY_WAIT_S * attempt)
    raise _TransientError(reason)


def _attempt(client: httpx.Client, file: SourceFile, part: _Part, url: str, progress: Progress | None) -> None:
    headers = {"Accept-Encoding": "identity"}
    start, validator = part.size(), part.validator(url)
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    else:
        part.remove()
        start = 0
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            # The part is as long as the file or longer; the checks decide if it is the file.
            if _content_range(response)[1] == start:
                return
            part.remove()
            raise _TransientError("the origin's file is shorter than what had arrived")
        _check_response(response, url)
        if response.status_code == 200:
            part.remove()
            start = 0
        elif _content_range(response)[0] != start:
            part.remove()
            raise _TransientError("the origin answered with another range than asked for")
        _receive(response, file, part, url, start, progress)


def _check_response(response: httpx.Response, url: str) -> None:
    if url.startswith("https:") and response.url.scheme != "https":
        raise DataError(f"{url}: led to an unprotected address; not followed")
    if response.status_code not in (200, 206):
        raise _TransientError(f"the origin answered {response.status_code} {response.reason_phrase}".strip())


def _receive(
    response: httpx.Response, file: SourceFile, part: _Part, url: str, start: int, progress: Progress | None
) -> None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    limit = file.size_bytes if file.size_bytes is not None else MAX_DOWNLOAD_BYTES
    if total is not None and total > limit:
        raise DataError(f"{file.name}: {total} bytes announced, {limit} expected; the origin has changed")
    validator = _strong_validator(response)
    if start == 0 and validator:
        write_json(part.note, {"url": url, "validator": validator})
    done = start
    with open(part.path, "ab") as handle:
        for chunk in response.iter_raw():
            done += len(chunk)
            if done > limit:
                break
            handle.write(chunk)
            if progress is not None:
                progress(done, total)
    if done > limit:
        part.remove()
        raise DataError(f"{file.name}: more than the {limit} bytes expected arrived; the origin has changed")
    if total is not None and done < total:
        raise _TransientError(f"the connection ended after {done} of {total} bytes")


def _strong_validator(response: httpx.Response) -> str | None:
    """What If-Range may carry (RFC 9110, 13.1.5): a strong ETag, else the date of the last change."""
    tag = str(response.headers.get("ETag", ""))
    if tag.startswith('"'):
        return tag
    date = response.headers.get("Last-Modified")
    return None if date is None else str(date)


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and total size of ``Content-Range: bytes first-last/total`` (or ``bytes */total``)."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    first, total = match.groups()
    return (int(first) if first else None), (int(total) if total.isdigit() else None)
