"""Typed access to the datasets of one group of a file that somebody else may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gascnn.toolkit.errors import FormatError

_MAX_ELEMENTS = 1 << 30
"""No dataset of a network that fits a machine is larger; a few bytes of HDF5 can claim petabytes."""


_INT32 = 1 << 31


class Fields:
    """A group of an HDF5 file, read with checks: links out of the file and absurd sizes are refused.

    Args:
        file: the open file.
        name: path of the group in it.
        source: the file's path, for messages.
    """

    def __init__(self, file: h5py.File, name: str, source: Path) -> None:
        self._file, self._name, self._source = file, name, source
        if not isinstance(self._get(file, name), h5py.Group):
            raise self.error("expected a group")

    @property
    def where(self) -> str:
        """File and group, for messages."""
        return f"{self._source}, {self._name}"

    def error(self, message: str) -> FormatError:
        """An error that names the file and the group."""
        return FormatError(f"{self.where}: {message}")

    def has(self, name: str) -> bool:
        """Whether there is such an entry."""
        return f"{self._name}/{name}" in self._file

    def names(self) -> list[str]:
        """The entries of the group."""
        return list(self._file[self._name])

    def child(self, name: str) -> Fields:
        """A group in this group."""
        return Fields(self._file, f"{self._name}/{name}", self._source)

    def array(self, name: str) -> np.ndarray:
        """A numeric dataset as stored."""
        value = np.asarray(self._dataset(name)[()])
        if value.dtype.kind not in "biuf":
            raise self.error(f"{name} holds {value.dtype}, not numbers")
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise self.error(f"{name} holds NaN or infinity")
        return value

    def truncated(self, name: str) -> np.ndarray:
        """Integers as NetX sees them: truncated towards zero. Lava holds them in 32 bits."""
        value = self.array(name)
        if value.size and (value.min() < -_INT32 or value.max() >= _INT32):
            raise self.error(
                f"{name} holds {value.min():g}..{value.max():g}; Lava holds 32-bit integers; scale it down"
            )
        return value.astype(np.int64)

    def whole(self, name: str) -> np.ndarray:
        """Integers, refused if they have a fraction; arrays of one element become scalars."""
        value = self.array(name)
        if np.any(value != np.trunc(value)):
            raise self.error(f"{name} must be whole numbers")
        whole = value.astype(np.int64)
        return whole.reshape(()) if whole.size == 1 else whole

    def integer(self, name: str) -> int:
        """One integer."""
        value = self.whole(name)
        if value.size != 1:
            raise self.error(f"{name} must be one number; found {value.size}")
        return int(value)

    def pair(self, name: str) -> tuple[int, int]:
        """A scalar or (vertical, horizontal)."""
        values = [int(v) for v in np.atleast_1d(self.whole(name)).ravel()]
        if len(values) not in (1, 2):
            raise self.error(f"{name} must be one or two numbers; found {len(values)}")
        return values[0], values[-1]

    def text(self, name: str) -> str:
        """A string, scalar or of shape (1,)."""
        value = np.asarray(self._dataset(name)[()]).ravel()
        if value.size != 1 or not isinstance(value[0], bytes | str):
            raise self.error(f"{name} must be one string")
        try:
            return value[0].decode("utf-8") if isinstance(value[0], bytes) else str(value[0])
        except UnicodeDecodeError as error:
            raise self.error(f"{name} is not text") from error

    def json(self, name: str) -> Any:
        """A string that holds JSON."""
        try:
            return json.loads(self.text(name))
        except ValueError as error:
            raise self.error(f"{name} is not JSON ({error})") from error

    def _get(self, parent: h5py.Group, name: str) -> Any:
        node: Any = parent
        for part in name.split("/"):
            if not isinstance(node, h5py.Group) or part not in node:
                raise self.error(f"no {part!r} in it") if name == self._name else self.error(f"no {name!r} in it")
            if isinstance(node.get(part, getlink=True), h5py.ExternalLink):
                raise self.error(f"{part!r} points to another file")
            node = node[part]
        return node

    def _dataset(self, name: str) -> h5py.Dataset:
        node = self._get(self._file[self._name], name)
        if not isinstance(node, h5py.Dataset) or node.external:
            raise self.error(f"{name} is not a plain dataset")
        if node.size is None or node.size > _MAX_ELEMENTS:
            raise self.error(f"{name} claims {node.size} elements; a network has at most {_MAX_ELEMENTS}")
        return node
