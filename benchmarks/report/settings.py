"""What a report measures, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.deployment import STEPS_MAX


@dataclass(frozen=True)
class ReportSettings:
    """How a report is measured.

    Attributes:
        steps: every T of the curve; empty takes the file's T and its half, quarter and eighth.
        tables: names of cost tables; empty takes all.
        batch_size: images at once, fewer where spikes of all layers would not fit.
        threads: of the simulator; None takes all processors. Latencies are of one thread.
        latency_s: seconds that timing may take, shared by the contenders.
        examples: images shown with their spikes.
        lava_images: run in the real Lava too, if there are any; a start takes seconds to minutes.
        meters: whether readable power meters are used.
        seed: of the coding; None takes the file's.
    """

    steps: tuple[int, ...] = ()
    tables: tuple[str, ...] = ()
    batch_size: int = 64
    threads: int | None = None
    latency_s: float = 20.0
    examples: int = 6
    lava_images: int = 0
    meters: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value out of range.
        """
        if any(type(step) is not int or not 1 <= step <= STEPS_MAX for step in self.steps):
            raise UsageError(f"steps are {self.steps}; each must be 1..{STEPS_MAX}")
        least = {"batch_size": 1, "examples": 0, "lava_images": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {bound}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; it must be at least 1")
        if not self.latency_s > 0:
            raise UsageError(f"latency_s is {self.latency_s}; it must be above 0")

    def curve_steps(self, fitted: int, skip_steps: int) -> list[int]:
        """Every T that is run, ascending, the file's own among them; those that leave nothing to read are left out."""
        wanted = self.steps or (fitted, fitted // 2, fitted // 4, fitted // 8)
        return sorted({step for step in (*wanted, fitted) if step > skip_steps})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {**vars(self), "steps": list(self.steps), "tables": list(self.tables)}
