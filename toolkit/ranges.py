"""The check that all records of numeric options share."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gascnn.toolkit.errors import UsageError

Ranges = Mapping[str, tuple[float, float, bool]]
"""Name: smallest and largest allowed value, and whether it must be a whole number."""


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
