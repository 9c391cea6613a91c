"""What a run in Lava gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gascnn.hardware.result import RunResult

Models = Literal["fast", "stock"]


@dataclass(frozen=True, eq=False)
class LavaResult(RunResult):
    """A :class:`~gascnn.hardware.result.RunResult`, and how Lava came to it.

    Attributes:
        models: ``stock`` if Lava's own process models ran, ``fast`` if those of this package took their place.
        why_stock: why Lava's own ran although the faster ones were asked for; None otherwise.
        start_s: time to build, start and take down Lava's graphs, all together.
        image_s: time each image took from its first step to its final state, graphs started already.
    """

    models: Models = "stock"
    why_stock: str | None = None
    start_s: float = 0.0
    image_s: tuple[float, ...] = ()
