"""``manifest.json``: what was made by which command from what, with the SHA-256 of all of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gascnn.toolkit.bundle import MODEL_FILE
from gascnn.toolkit.chain.digests import combined, file_digests
from gascnn.toolkit.chain.steps import STEPS, outputs_of
from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.files import sha256_file, write_json

MANIFEST_FILE = "manifest.json"
FORMAT, SCHEMA = "gascnn-chain", 1

STATUSES = ("running", "done", "failed", "interrupted", "given", "skipped", "not needed")
"""``running`` in a manifest nobody writes means that the chain was killed there."""

BEGUN = ("running", "failed", "interrupted")
"""Statuses of a step that may have checkpoints to go on from."""

_PACKAGES = ("gascnn", "torch", "numpy")


@dataclass(frozen=True)
class Record:
    """What the manifest says of a step.

    Attributes:
        status: one of :data:`STATUSES`.
        command: as it is typed in the run's folder; of what lies outside only names.
        started, ended: UTC, ISO 8601.
        seconds: between them.
        inputs: SHA-256 by the name of the step whose output was read; ``data`` is the real data set.
        outputs: by path in the run's folder: ``sha256``, and ``files``, theirs by name, if it is a folder. Of what was
            given, by name, ``sha256`` alone: its files are called as the user called them.
        figures: taken from the command's JSON.
        error: the last line of one that failed.
        versions: of Python and packages that made it.
    """

    status: str
    command: str = ""
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def fed_real_data(self) -> bool:
        """Whether the data set was among its inputs."""
        return "data" in self.inputs


@dataclass(frozen=True)
class Manifest:
    """The whole file.

    Attributes:
        settings: ``data``, ``preset``, ``seed``, ``synthetic``.
        data: ``sha256`` of the data set's files, and ``provenance_sha256``, of what the ResNet's bundle says of it.
        steps: by name, in the order of the chain.
    """

    settings: Mapping[str, Any]
    data: Mapping[str, str | None]
    steps: Mapping[str, Record] = field(default_factory=dict)

    def with_step(self, name: str, record: Record) -> Manifest:
        """The same with another record of one step."""
        steps = {**self.steps, name: record}
        return replace(self, steps={known: steps[known] for known in STEPS if known in steps})

    def to_dict(self) -> dict[str, Any]:
        """What is written: of each record only what it says something of."""
        empty = asdict(Record(""))
        steps = {
            name: {key: value for key, value in asdict(record).items() if value != empty[key]}
            for name, record in self.steps.items()
        }
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "settings": dict(self.settings),
            "data": dict(self.data),
            "steps": steps,
        }

    def save(self, folder: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            DataError: the disk is full or the place cannot be written.
        """
        write_json(folder / MANIFEST_FILE, self.to_dict())


def load_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run's folder; None where there is none.

    Raises:
        FormatError: damaged, or of another version.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not readable JSON ({type(error).__name__}); {_REMEDY}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise FormatError(f"{path}: not the manifest of a chain; name a new folder with -o")
    if values.get("schema") != SCHEMA:
        raise FormatError(f"{path}: schema {values.get('schema')}; this version reads schema {SCHEMA}; {_REMEDY}")
    for name in ("settings", "data", "steps"):
        if not isinstance(values.get(name), dict):
            raise FormatError(f"{path}: field {name!r} is missing or of the wrong kind; {_REMEDY}")
    steps = {name: _record(path, name, found) for name, found in values["steps"].items()}
    return Manifest(values["settings"], values["data"], steps)


_REMEDY = "name a new folder with -o"


def _record(path: Path, name: str, found: Any) -> Record:
    """A step's record, of which every field is of its kind."""
    if name not in STEPS or not isinstance(found, dict) or found.get("status") not in STATUSES:
        raise FormatError(f"{path}: step {name!r} is not known or not a record; {_REMEDY}")
    empty = asdict(Record(""))
    for field_name, value in found.items():
        if field_name not in empty or not isinstance(value, _kind(empty[field_name])):
            raise FormatError(f"{path}: step {name!r} has a field {field_name!r} that does not belong; {_REMEDY}")
    outputs = found.get("outputs", {}).values()
    hashed = [*(o.get("sha256") if isinstance(o, dict) else None for o in outputs), *found.get("inputs", {}).values()]
    if not all(isinstance(digest, str) for digest in hashed):
        raise FormatError(f"{path}: step {name!r} has an input or output without a SHA-256; {_REMEDY}")
    record = Record(**found)
    if not _has_its_outputs(name, record):
        raise FormatError(f"{path}: step {name!r}, {record.status}, has other outputs than that step's; {_REMEDY}")
    return record


def _has_its_outputs(name: str, record: Record) -> bool:
    """Exactly those of the step if it is done, so that no other path is looked at; of what was given, one."""
    if record.status == "given":
        return len(record.outputs) == 1
    return set(record.outputs) == (set(outputs_of(name)) if record.status == "done" else set())


def _kind(value: Any) -> tuple[type, ...]:
    return (int, float) if isinstance(value, float) else (type(value),)


def described(path: Path) -> dict[str, Any]:
    """``sha256`` of a file or folder, of a folder also of its ``files``.

    Raises:
        DataError: it cannot be read.
    """
    if path.is_dir():
        files = file_digests(path)
        return {"sha256": combined(files), "files": files}
    return {"sha256": sha256_file(path)}


def versions() -> dict[str, str]:
    """Of Python and the packages that matter, without importing any."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def provenance_digest(bundle: Path) -> str | None:
    """SHA-256 of what a bundle says of the data set it was trained on; None where it says nothing.

    Of JSON without spaces, keys in order.
    """
    try:
        found = json.loads((bundle / MODEL_FILE).read_text(encoding="utf-8"))["provenance"]["dataset"]["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
