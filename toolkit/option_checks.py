"""The checks that all records of options share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from gascnn.toolkit.errors import UsageError

Ranges = Mapping[str, tuple[float, float, bool]]
"""Name: smallest and largest allowed value, and whether it must be a whole number."""


Choices = Mapping[str, tuple[str, ...]]
"""Name: the allowed words."""


def check_choices(options: object, choices: Choices) -> None:
    """Check attributes of ``options`` that are one word of several.

    Raises:
        UsageError: another word; the message names the attribute and what is allowed.
    """
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise UsageError(f"{name} is {getattr(options, name)!r}; allowed: {', '.join(allowed)}")


def check_known(record: Any, names: Iterable[str], what: str) -> None:
    """Check that a record of options, a dataclass, has attributes of these names.

    Args:
        record: the class.
        names: what is given.
        what: of what they are options, for the message.

    Raises:
        UsageError: names the first that it lacks, and all it has.
    """
    known = [field.name for field in fields(record)]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise UsageError(f"unknown {what} option {unknown[0]!r}; known: {', '.join(known)}")


def check_ranges(options: object, ranges: Ranges) -> None:
    """Check attributes of ``options``.

    Raises:
        UsageError: one of the wrong kind or out of range; the message names it and what is allowed.
    """
    for name, (low, high, whole) in ranges.items():
        value = getattr(options, name)
        kinds = (int,) if whole else (int, float)
        good = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high:
            kind = "whole numbers" if whole else "numbers"
            raise UsageError(f"{name} is {value!r}; allowed: {kind} from {low:g} to {high:g}")
