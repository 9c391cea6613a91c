"""How made images are examined: one frozen record of plain values. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import Choices, Ranges, check_choices, check_ranges

NO_TRAINING = "none"
PRESETS = ("smoke", "small", NO_TRAINING)

_CHOICES: Choices = {"preset": PRESETS}
_RANGES: Ranges = {
    "resamples": (2, 10_000, True),
    "neighbours": (1, 100, True),
    "planted": (10, 10_000, True),
    "most_synthetic": (10, 1_000_000, True),
    "most_held": (10, 1_000_000, True),
    "threads": (0, 1024, True),
}


@dataclass(frozen=True)
class SyntheticSettings:
    """Of one examination.

    Attributes:
        preset: of :mod:`gascnn.toolkit.training.presets`, for the classifiers trained on made and on real images;
            ``none`` trains none.
        seeds: of classifiers and of the images drawn for the Fréchet distance; the first also draws everything else.
        resamples: of the Fréchet distance's interval.
        neighbours: k of precision and recall.
        planted: training images of which copies are planted, of each kind.
        most_synthetic: made images that are examined; more are sampled.
        most_held: validation images, and test images, that are examined; more are sampled.
        threads: of torch; 0 takes the preset's, or torch's default.
    """

    preset: str = "smoke"
    seeds: tuple[int, ...] = (0,)
    resamples: int = 50
    neighbours: int = 3
    planted: int = 50
    most_synthetic: int = 5000
    most_held: int = 2000
    threads: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value that is not allowed, no seed, or one given twice.
        """
        check_choices(self, _CHOICES)
        check_ranges(self, _RANGES)
        good = all(type(seed) is int and 0 <= seed < 2**31 for seed in self.seeds)
        if not self.seeds or not good or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds are {self.seeds}; different whole numbers from 0 are needed, at least one")

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values that JSON can hold."""
        return asdict(self) | {"seeds": list(self.seeds)}
