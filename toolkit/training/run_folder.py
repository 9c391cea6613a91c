"""A run's folder: which run it holds, so that only the same one goes on in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.files import write_json
from gascnn.toolkit.training import checkpoint

RUN_FILE = "run.json"


def open_run(folder: Path, description: dict[str, Any], resume: bool) -> None:
    """Begin a run in a folder, or go on with the one there.

    Args:
        folder: made if it is not there.
        description: ``options``, ``model`` and ``dataset``, each a dict of plain values, in which a resumed run must
            agree.
        resume: whether a run may be there.

    Raises:
        UsageError: a run is there and ``resume`` is false, or it was begun with other values (the message names one).
        FormatError: what is there is damaged.
    """
    path = folder / RUN_FILE
    if not path.exists():
        if (folder / checkpoint.LAST_FILE).exists():
            raise FormatError(f"{folder} holds a checkpoint but no {RUN_FILE}; start again in a new folder")
        write_json(path, description)
        return
    if not resume:
        raise UsageError(f"{folder} holds a run; resume it (--resume), or name a new folder")
    checkpoint.remove_leftovers(folder)
    begun = read_run(folder)
    for section, values in description.items():
        recorded = begun[section]
        for name in [*values, *(key for key in recorded if key not in values)]:
            if recorded.get(name) != values.get(name):
                what = name if section == "options" else f"{section} {name}"
                raise UsageError(
                    f"{folder} was begun with {what} {_short(recorded.get(name))}, now it is "
                    f"{_short(values.get(name))}; resume with the same, or name a new folder"
                )


def settled_threads(threads: int, folder: Path | None, resume: bool) -> int:
    """What 0 threads mean: as many as a resumed run was begun with, else torch's default; any other number itself.

    Raises:
        FormatError: the record of the run to resume is damaged.
    """
    begun = None
    if not threads and folder is not None and resume and (folder / RUN_FILE).exists():
        begun = read_run(folder)["options"].get("threads")
    return threads or begun or torch.get_num_threads()


def read_run(folder: Path) -> dict[str, Any]:
    """The description a run was begun with.

    Raises:
        FormatError: missing or damaged.
    """
    path = folder / RUN_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not readable JSON ({error}); start again in a new folder") from error
    sections = ("options", "model", "dataset")
    if not isinstance(values, dict) or not all(isinstance(values.get(section), dict) for section in sections):
        raise FormatError(f"{path}: not the record of a training run; start again in a new folder")
    return values


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
