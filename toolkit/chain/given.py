"""What ``--use`` gives: checked before anything is made, and never called by its place in what a run keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gascnn.toolkit.chain.digests import digest_of
from gascnn.toolkit.data.image_set import RECORD_FILE, is_image_set
from gascnn.toolkit.data.privacy import shown
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.files import write_json

IMAGES = ("sample", "synthesise", "join")
"""Steps that make images: behind them nothing reads real ones."""


def check_given(use: Mapping[str, Path]) -> None:
    """Refuse what is not there, and images that do not say of themselves that they are synthetic.

    Args:
        use: by step, the file or folder that stands for what it makes.

    Raises:
        UsageError: nothing there; for a step that makes images anything but an image set marked as synthetic.
    """
    for name, path in use.items():
        if digest_of(path) is None:
            raise UsageError(f"--use {name}={shown(path)}: nothing there")
        if name in IMAGES and not _is_synthetic(path):
            raise UsageError(
                f"--use {name}={shown(path)}: not an image set marked as synthetic in its {RECORD_FILE}; real images "
                "must not get there: give a folder of 'gascnn gan sample', 'gascnn synthesise' or 'gascnn data join'"
            )


def _is_synthetic(path: Path) -> bool:
    if not is_image_set(path):
        return False
    try:
        record = json.loads((path / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("synthetic") is True


def without_places(text: str, paths: Iterable[Path]) -> str:
    """A text in which each of the paths, and each within it, begins with the path's name alone."""
    for path in sorted(paths, key=lambda path: len(str(path)), reverse=True):
        parts = re.split(re.escape(str(path)) + r"(?![\w-])", text)  # /a/ann is no part of /a/ann-2
        text = path.name.join(parts)
    return text


def strip_places(file: Path, paths: Iterable[Path]) -> None:
    """Write a JSON file anew without the places of the paths; left as it is where it names none.

    Raises:
        DataError: the disk is full or the place cannot be written.
    """
    paths = tuple(paths)
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    after = _stripped(before, paths)
    if after != before:
        write_json(file, after)


def _stripped(value: Any, paths: tuple[Path, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(kept, paths) for key, kept in value.items()}
    if isinstance(value, list):
        return [_stripped(kept, paths) for kept in value]
    return without_places(value, paths) if isinstance(value, str) else value
