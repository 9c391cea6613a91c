"""Where the generator's decisions come from: a seed, or hypothesis.

One generator serves both. Seeds name the networks that run in Lava: numpy's ``RandomState`` promises the same stream
for ever, so a seed in a report is the same network on every machine, which no version of hypothesis promises of its own
examples. Hypothesis searches the same space for the quick comparison with the reference, and shrinks what it finds.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from hypothesis import strategies as st


class Choices(Protocol):
    """Decisions, one after the other.

    Attributes:
        bulk: random numbers for arrays, whose single elements are not worth deciding.
    """

    bulk: np.random.RandomState

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included."""

    def chance(self, percent: int) -> bool:
        """True so often; simpler when False."""

    def pick(self, *options: Any) -> Any:
        """One of the options; simpler when early."""


class Seeded:
    """Decisions that follow from a seed."""

    def __init__(self, seed: int) -> None:
        self.bulk = np.random.RandomState(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self.bulk.randint(low, high + 1))

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent

    def pick(self, *options: Any) -> Any:
        return options[self.integer(0, len(options) - 1)]


class Drawn:
    """Decisions of hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.bulk = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def chance(self, percent: int) -> bool:
        return self._draw(st.integers(0, 99)) >= 100 - percent

    def pick(self, *options: Any) -> Any:
        return self._draw(st.sampled_from(options))
