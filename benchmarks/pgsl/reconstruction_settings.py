"""What Table I of PGSL is measured with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gascnn.benchmarks.pgsl.decoder import DecoderSettings
from gascnn.benchmarks.pgsl.gradient_inversion import InversionSettings
from gascnn.benchmarks.pgsl.presets import chosen
from gascnn.benchmarks.pgsl.reconstructors import ReconstructorSettings
from gascnn.benchmarks.pgsl.training import Recipe
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import check_ranges
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions


@dataclass(frozen=True)
class ReconstructionSettings:
    """Of one data set.

    Attributes:
        data: name or path.
        image_size: pixels a side, even; None keeps the stored one.
        framing: of the images (:mod:`gascnn.toolkit.framing`).
        train_images: of client and server; None is all.
        auxiliary_images: the adversary's own, the first validation images; None is all.
        images: how many of the first test images are reconstructed; None is all.
        examples: how many of them are kept as pictures.
        seeds: of training images, weights and order; for mias also of the division.
        options: of the split network with its attack; ``mu`` and what goes with it are also those with which
            reconstructed images are recovered. Each seed replaces ``seed``.
        local: of the client's classifier.
        recipe: how training images are presented.
        methods: of the adversary.
        laplace_scale: b of the noise that stands for PGSL's ``[8]``, for pixels of 0..1.
        strengths: k of the curve, pixels moved; 0 is no attack.
        curve_methods: names of the methods along the curve.
    """

    data: str
    image_size: int | None = None
    framing: str = "whole"
    train_images: int | None = None
    auxiliary_images: int | None = None
    images: int | None = None
    examples: int = 4
    seeds: tuple[int, ...] = (0,)
    options: PgslOptions = field(default_factory=PgslOptions)
    local: LocalOptions = field(default_factory=LocalOptions)
    recipe: Recipe = field(default_factory=Recipe)
    methods: ReconstructorSettings = field(default_factory=ReconstructorSettings)
    laplace_scale: float = 0.1
    strengths: tuple[int, ...] = (0, 1, 3, 10, 30, 100)
    curve_methods: tuple[str, ...] = ("activations", "map undone", "DCGAN", "MIA")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a number out of range, an attack other than by pixels, no seed or strength or one given twice.
        """
        limits = {
            name: (2, 2**31, True) for name in ("train_images", "auxiliary_images") if getattr(self, name) is not None
        }
        limits |= {name: (1, 2**31, True) for name in ("images",) if getattr(self, name) is not None}
        check_ranges(self, {**limits, "examples": (0, 100, True), "laplace_scale": (1e-6, 1.0, False)})
        if self.options.attack != "pixels":
            raise UsageError(f"attack is {self.options.attack!r}; Table I's rows are measured with pixels")
        for name in ("seeds", "strengths"):
            values = getattr(self, name)
            good = all(type(value) is int and 0 <= value < 2**31 for value in values)
            if not values or not good or len(set(values)) < len(values):
                raise UsageError(f"{name} are {values}; different whole numbers from 0 are needed, at least one")

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values that JSON can hold."""
        recipe = asdict(self.recipe) | {"changes": dict(self.recipe.changes)}
        lists = {name: list(getattr(self, name)) for name in ("seeds", "strengths", "curve_methods")}
        return asdict(self) | {"options": self.options.to_dict(), "recipe": recipe, **lists}


PRESETS: dict[str, dict[str, ReconstructionSettings]] = {
    "smoke": {
        "digits": ReconstructionSettings(
            "digits",
            train_images=300,
            auxiliary_images=150,
            images=5,
            examples=2,
            options=PgslOptions(width=16, hidden=32, pixels=2, batch_size=20, recovery_iterations=25, epochs=4),
            local=LocalOptions(epochs=4),
            methods=ReconstructorSettings(
                InversionSettings(iterations=60, restarts=1), DecoderSettings(hidden=16, epochs=8)
            ),
            strengths=(0, 1, 4),
        ),
    },
    "small": {
        "mnist": ReconstructionSettings(
            "mnist",
            train_images=3000,
            auxiliary_images=500,
            images=40,
            options=PgslOptions(epochs=3),
            methods=ReconstructorSettings(InversionSettings(iterations=150), DecoderSettings(epochs=15)),
        ),
        "mias": ReconstructionSettings(
            "mias",
            image_size=64,
            framing="foreground",
            images=12,
            seeds=(0, 1),
            options=PgslOptions(pixels=40, mu_relative=False, epochs=20, batch_size=16),
            local=LocalOptions(epochs=30, batch_size=16),
            recipe=Recipe("augmented", augmentation="medical"),
            methods=ReconstructorSettings(InversionSettings(iterations=150), DecoderSettings(epochs=60, batch_size=8)),
            strengths=(0, 5, 20, 40, 80, 160),
        ),
    },
}
"""By preset and data set. PGSL gives no number of pixels, scale of noise or images: all are choices."""


def preset(name: str, data: str) -> ReconstructionSettings:
    """The preset's settings for a data set.

    Raises:
        UsageError: no such preset, or not for that data set.
    """
    return chosen(PRESETS, name, data)
