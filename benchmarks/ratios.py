"""From times to what is claimed: medians, ratios round by round, and whether a goal is reached."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Times = Sequence[float | None]
"""Seconds an image, one a round; None in rounds a contender sat out."""


@dataclass(frozen=True)
class Goal:
    """A ratio that is aimed at.

    Attributes:
        what: as in the table.
        found: median of the ratios of the rounds; None where nothing could be compared.
        bound: what it must be.
        kind: ``at least`` or ``at most`` the bound.
        against: the contender compared with, None where there was none.
    """

    what: str
    found: float | None
    bound: float
    kind: Literal["at least", "at most"]
    against: str | None = None

    @property
    def reached(self) -> bool | None:
        """Whether it is; None where nothing could be compared."""
        if self.found is None:
            return None
        return self.found >= self.bound if self.kind == "at least" else self.found <= self.bound


def median(times: Times) -> float | None:
    """The median of the rounds a contender took part in, or None."""
    there = [t for t in times if t is not None]
    return statistics.median(there) if there else None


def paired(above: Times, below: Times) -> float | None:
    """Median of the ratios ``above / below``, each of one round; None where they share no round."""
    ratios = [a / b for a, b in zip(above, below, strict=True) if a is not None and b is not None]
    return statistics.median(ratios) if ratios else None


def fastest(times: Mapping[str, Times]) -> str | None:
    """The contender with the lowest median, or None."""
    medians = {name: found for name, one in times.items() if (found := median(one)) is not None}
    return min(medians, key=lambda name: medians[name]) if medians else None


TIMES_LAVA, TIMES_PEER, TWO_THREADS = 500.0, 5.0, 1.7
SHARE_OF_ANN = ((0.02, 0.15), (0.08, 0.4))
"""Firing rate, and what share of the ANN's time is aimed at up to there."""


def goals(rate: float, times: Mapping[str, Times], kinds: Mapping[str, str]) -> list[Goal]:
    """The goals of a network.

    Args:
        rate: its firing rate.
        times: seconds an image and round of each contender, ``ours`` among them.
        kinds: ``ours``, ``lava``, ``peer`` or ``ann`` of each.
    """
    ours = times["ours"]
    lava = next((n for n in times if kinds[n] == "lava"), None)
    peer = fastest({n: t for n, t in times.items() if kinds[n] == "peer"})
    ann = next((n for n in times if kinds[n] == "ann"), None)
    alone = "ours-1-thread" if "ours-1-thread" in times else None

    def against(name: str | None) -> float | None:
        return None if name is None else paired(times[name], ours)

    found = [
        Goal("times as fast as Lava", against(lava), TIMES_LAVA, "at least", lava),
        Goal("times as fast as the fastest peer", against(peer), TIMES_PEER, "at least", peer),
    ]
    bound = next((share for most, share in SHARE_OF_ANN if rate <= most), None)
    if bound is not None:
        share = None if ann is None else paired(ours, times[ann])
        found.append(Goal("of the ANN's time", share, bound, "at most", ann))
    return [*found, Goal("times as fast as one thread", against(alone), TWO_THREADS, "at least", alone)]
