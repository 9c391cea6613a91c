"""What a long measurement has found so far, in a file that is whole at any time."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.benchmarks import machine
from gascnn.toolkit.errors import DataError, FormatError, UsageError
from gascnn.toolkit.files import write_json

FORMAT = 1


class Partial:
    """Rows of seeds, each written as soon as it is there.

    For one process at a time. Seeds that were measured side by side, each with a file of its own, can be put into the
    ``seeds`` of one of them, since all files then agree in everything else.

    Args:
        path: of the JSON file; None keeps nothing.
        what: the measurement's name.
        settings: plain values. Other seeds than the file's are allowed, so that seeds can be added.

    Raises:
        FormatError: the file is not such a file.
        UsageError: it holds another measurement or other settings.
    """

    def __init__(self, path: Path | None, what: str, settings: dict[str, Any]) -> None:
        self._path = path
        self._head = {
            "format": FORMAT, "measurement": what, "versions": versions(), "arithmetic": arithmetic(),
            "settings": settings,
        }  # fmt: skip
        self.seeds: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self.seeds = _read(path, self._head)

    def seed(self, seed: int, data_sha256: str) -> dict[str, Any]:
        """What is known of a seed, to be added to.

        Args:
            seed: its number.
            data_sha256: of its images.

        Raises:
            UsageError: what is known is of other images.
        """
        known = self.seeds.setdefault(str(seed), {"rows": {}})
        if known.setdefault("data_sha256", data_sha256) != data_sha256:
            raise UsageError(f"{self._path}: seed {seed} is of other images than these; name another file")
        return known

    def report(self, seeds: Iterable[int], **more: Any) -> dict[str, Any]:
        """What was found of these seeds, with what a reader needs to know of the run.

        Args:
            seeds: those asked for, in their order.
            more: what the measurement adds.
        """
        found = {str(seed): self.seeds[str(seed)] for seed in seeds}
        return {**self._head, "machine": machine.describe(), "seeds": found, **more}

    def save(self) -> None:
        """Write the file anew.

        Raises:
            DataError: it cannot be written.
        """
        if self._path is not None:
            write_json(self._path, self._head | {"seeds": self.seeds})


def versions() -> dict[str, str]:
    """Of what a repetition depends on."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    for name in ("gascnn", "adversarial-robustness-toolbox"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def arithmetic() -> dict[str, Any]:
    """What decides the last bits of a sum: with others a network that is trained again is another one."""
    return {"processor": machine.processor(), "threads": torch.get_num_threads()}


def pack(classes: Tensor) -> str:
    """(n,) classes below 256 as text, two hexadecimal digits each.

    Raises:
        DataError: a class beyond.
    """
    if len(classes) and int(classes.max()) > 255:
        raise DataError(f"class {int(classes.max())}; up to 256 classes are kept")
    return bytes(classes.tolist()).hex()


def unpack(text: str) -> npt.NDArray[np.int64]:
    """The inverse of :func:`pack`."""
    return np.frombuffer(bytes.fromhex(text), dtype=np.uint8).astype(np.int64)


def _read(path: Path, head: dict[str, Any]) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        seeds = found["seeds"]
        good = isinstance(seeds, dict) and all(isinstance(seed["rows"], dict) for seed in seeds.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: not partial results of a measurement; remove it or name another file") from error
    if not good:
        raise FormatError(f"{path}: not partial results of a measurement; remove it or name another file")
    wrong = [key for key in head if _comparable(found.get(key)) != _comparable(json.loads(json.dumps(head[key])))]
    if wrong:
        raise UsageError(f"{path}: its {wrong[0]} is not this run's; name another file to begin anew")
    return {str(name): seed for name, seed in seeds.items()}


def _comparable(value: Any) -> Any:
    return {key: part for key, part in value.items() if key != "seeds"} if isinstance(value, dict) else value
