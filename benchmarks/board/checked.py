"""JSON of unknown origin: bounded in size, typed, and refused in one line."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

from gascnn.toolkit.errors import FormatError

LONGEST_TEXT = 2000
_SHOWN = 60
_LARGEST_NUMBER = 10**300


class Fields:
    """A JSON object whose fields are asked for by name and kind.

    Args:
        values: the object.
        path: the file, for messages.
        where: what leads to the object, such as ``contenders[0].``; empty for the file's own.
        remedy: what to do about a wrong file.
    """

    def __init__(self, values: dict[str, Any], path: Path, where: str = "", remedy: str = "write it again") -> None:
        self.values, self.path, self._where, self._remedy = values, path, where, remedy

    def refuse(self, name: str, needed: str) -> NoReturn:
        """Say what is wrong with a field.

        Raises:
            FormatError: always.
        """
        found = "missing" if name not in self.values else _shown(self.values[name])
        raise FormatError(f"{self.path}: {self._where}{name} is {found}; it must be {needed}; {self._remedy}")

    def text(self, name: str, longest: int = LONGEST_TEXT) -> str:
        """A text of at most ``longest`` characters."""
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > longest:
            self.refuse(name, f"a text of at most {longest} characters")
        return value

    def digest(self, name: str) -> str:
        """A SHA-256 in lower-case hexadecimal."""
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            self.refuse(name, "a SHA-256 in lower-case hexadecimal")
        return value

    def integer(self, name: str, least: int = 0, most: int = 2**63 - 1) -> int:
        """An integer within ``least`` and ``most``."""
        value = self.values.get(name)
        if type(value) is not int or not least <= value <= most:
            self.refuse(name, f"an integer of {least} to {most}")
        return value

    def number(self, name: str, least: float = -math.inf, most: float = math.inf) -> float:
        """A finite number within ``least`` and ``most``."""
        value: Any = self.values.get(name)
        if not _is_number(value) or not least <= value <= most:
            bounds = "" if (least, most) == (-math.inf, math.inf) else f" of {least:g} to {most:g}"
            self.refuse(name, f"a number{bounds}")
        return float(value)

    def number_or_none(self, name: str, least: float = -math.inf) -> float | None:
        """A number, or null."""
        return None if name in self.values and self.values[name] is None else self.number(name, least)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.values.get(name)
        if type(value) is not bool:
            self.refuse(name, "true or false")
        return value

    def flag_or_none(self, name: str) -> bool | None:
        """True, false or null."""
        return None if name in self.values and self.values[name] is None else self.flag(name)

    def interval(self, name: str) -> tuple[float, float]:
        """Two finite numbers, the lower one first."""
        value = self.values.get(name)
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(_is_number(v) for v in value)
            or value[0] > value[1]
        ):
            self.refuse(name, "two numbers, the lower one first")
        return float(value[0]), float(value[1])

    def texts(self, name: str, longest: int = 200, most: int = 100_000) -> list[str]:
        """A list of texts."""
        value = self.values.get(name)
        if (
            not isinstance(value, list)
            or len(value) > most
            or not all(isinstance(v, str) and len(v) <= longest for v in value)
        ):
            self.refuse(name, f"a list of texts of at most {longest} characters")
        return value

    def plain(self, name: str) -> dict[str, Any]:
        """An object whose fields nobody reads by name."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            self.refuse(name, "an object")
        return value

    def table(self, name: str) -> Fields:
        """An object."""
        return Fields(self.plain(name), self.path, f"{self._where}{name}.", self._remedy)

    def tables(self, name: str, most: int = 1000) -> list[Fields]:
        """A list of objects."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(v, dict) for v in value):
            self.refuse(name, f"a list of at most {most} objects")
        return [Fields(v, self.path, f"{self._where}{name}[{i}].", self._remedy) for i, v in enumerate(value)]


def read_json(
    path: str | os.PathLike[str], kind: str, format_version: int, *, largest: int, remedy: str = "write it again"
) -> Fields:
    """Read a file of ours: a JSON object with ``kind`` and ``format``.

    Args:
        path: the file.
        kind: what it must say it is.
        format_version: which it must say it has.
        largest: bytes; a larger file is not read.
        remedy: what to do about a wrong file.

    Raises:
        FormatError: not there, too large, not JSON, of another kind or format.
    """
    source = Path(path)
    try:
        with open(source, "rb") as handle:
            data = handle.read(largest + 1)
    except OSError as error:
        raise FormatError(f"{source}: cannot be read ({error.strerror}); {remedy}") from error
    if len(data) > largest:
        raise FormatError(f"{source}: more than {largest} bytes; {remedy}")
    try:
        text = data.decode("utf-8")
        values = json.loads(text, parse_constant=_refuse_constant)
        if "\\ud" in text.lower():  # half a character, which no file could be written with again
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{source}: not JSON, or cut short; {remedy}") from error
    if not isinstance(values, dict) or values.get("kind") != kind:
        raise FormatError(f"{source}: not a file of kind {kind}; {remedy}")
    fields = Fields(values, source, remedy=remedy)
    found = fields.integer("format")
    if found != format_version:
        raise FormatError(f"{source}: format {found} of {kind}; this version reads format {format_version}")
    return fields


def _is_number(value: object) -> bool:
    """Whether JSON gave a number that a double holds: integers have no end there, and 1e999 is infinity."""
    return (type(value) is int and abs(value) <= _LARGEST_NUMBER) or (type(value) is float and math.isfinite(value))


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
