"""What a sweep goes over, and by which rule it recommends a T."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gascnn.benchmarks.threshold_factor import checked_factor
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.deployment import STEPS_MAX


@dataclass(frozen=True)
class Skip:
    """Read-out steps left out of the spike count: so many, or so large a share of T, rounded down.

    Attributes:
        steps, share: one of them is 0.
    """

    steps: int = 0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Skip:
        """``4`` or ``25%``.

        Raises:
            UsageError: neither a number of steps nor a share below 100 %.
        """
        try:
            skip = cls(share=float(text[:-1]) / 100) if text.endswith("%") else cls(steps=int(text))
        except ValueError as error:
            raise UsageError(f"--skip-steps is {text!r}; give steps such as 4, or a share of T such as 25%") from error
        if skip.steps < 0 or not 0.0 <= skip.share < 1.0:
            raise UsageError(f"--skip-steps is {text!r}; at least 0 steps, or 0 % to below 100 %")
        return skip

    def of(self, steps: int) -> int:
        """How many of T steps.

        Raises:
            UsageError: none is left.
        """
        skipped = self.steps or int(self.share * steps)
        if skipped >= steps:
            raise UsageError(f"--skip-steps {skipped} leaves nothing of T = {steps} to read out; give a share of T")
        return skipped


@dataclass(frozen=True)
class Settings:
    """What to sweep, and how.

    Attributes:
        steps: every T.
        factors: every threshold factor.
        skip: read-out steps left out; None takes what the network says.
        seed: of the coding; None takes the network's.
        batch_size: images at once.
        threads, memory_bytes: of the simulator; see :func:`gascnn.hardware.simulator.simulate`.
        tolerance: how far below its target the macro-F1 of the recommended T may be on the validation images.
        against: that target: the ANN's macro-F1, or the best of all points.
    """

    steps: tuple[int, ...]
    factors: tuple[float, ...] = (1.0,)
    skip: Skip | None = None
    seed: int | None = None
    batch_size: int = 64
    threads: int | None = None
    memory_bytes: int | None = None
    tolerance: float = 0.01
    against: Literal["ann", "best"] = "best"

    def checked(self) -> Settings:
        """Itself, without repeats and in order.

        Raises:
            UsageError: a value out of range.
        """
        if not self.steps or min(self.steps) < 1 or max(self.steps) > STEPS_MAX:
            raise UsageError(f"--steps are {self.steps}; each must be 1..{STEPS_MAX}, at least one is needed")
        if not self.factors:
            raise UsageError("--factors names none; give at least one, 1 leaves the thresholds as they are")
        if not 0.0 <= self.tolerance < 1.0:
            raise UsageError(f"--tolerance is {self.tolerance:g}; it is a macro-F1, 0 to below 1")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")
        if self.skip is not None:
            for steps in self.steps:
                self.skip.of(steps)
        factors = sorted({checked_factor(factor) for factor in self.factors})
        return replace(self, steps=tuple(sorted(set(self.steps))), factors=tuple(factors))
