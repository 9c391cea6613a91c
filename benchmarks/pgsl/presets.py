"""What Table II and the curve of strengths are measured with: settings as frozen records, and three presets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from gascnn.benchmarks.pgsl.attacks import Strengths
from gascnn.benchmarks.pgsl.partition import Partition, make_partition
from gascnn.benchmarks.pgsl.training import Recipe
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import check_ranges
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions

Chosen = TypeVar("Chosen")

_LIMITS = ("train_images", "val_images", "test_images", "attacked_train_images", "image_size")


@dataclass(frozen=True)
class Settings:
    """Of one data set.

    Attributes:
        data: name or path.
        image_size: pixels a side, even; None keeps the stored one.
        framing: of the images (:mod:`gascnn.toolkit.framing`).
        train_images: how many are drawn for a seed; None is all.
        val_images: how many of the validation images choose the recipe; None is all.
        test_images: how many of the first test images; None is all.
        attacked_train_images: of the training images, how many are attacked and trained with in the second reading of
            Table II; None is all, else that reading has the disadvantage of fewer.
        white_box_images: of the test images, how many are also attacked by the plain network's own gradient.
        seeds: of training images, weights, order, dropout; for mias also of the division.
        options: of both networks; each seed replaces ``seed``.
        local: of the client's classifier; each seed replaces ``seed``.
        strengths: of the attacks for comparison.
        recipes: how training images are presented; validation images choose the best for each seed.
    """

    data: str
    image_size: int | None = None
    framing: str = "whole"
    train_images: int | None = None
    val_images: int | None = None
    test_images: int | None = None
    attacked_train_images: int | None = None
    white_box_images: int = 0
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    options: PgslOptions = field(default_factory=PgslOptions)
    local: LocalOptions = field(default_factory=LocalOptions)
    strengths: Strengths = field(default_factory=Strengths)
    recipes: tuple[Recipe, ...] = (Recipe(),)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a number out of range, no seed or recipe, or one given twice.
        """
        limits = {name: (2, 2**31, True) for name in _LIMITS if getattr(self, name) is not None}
        check_ranges(self, limits | {"white_box_images": (0, 2**31, True)})
        names = [recipe.name for recipe in self.recipes]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"recipes are {', '.join(names) or 'none'}; at least one is needed, each of its own name")
        good = all(type(seed) is int and 0 <= seed < 2**31 for seed in self.seeds)
        if not self.seeds or not good or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds are {self.seeds}; different whole numbers from 0 are needed, at least one")

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values that JSON can hold."""
        values = asdict(self) | {"options": self.options.to_dict(), "seeds": list(self.seeds)}
        values["recipes"] = [asdict(recipe) | {"changes": dict(recipe.changes)} for recipe in self.recipes]
        return values

    def partition(self, seed: int, data_dir: str | os.PathLike[str] | None) -> Partition:
        """The images of a seed.

        Raises:
            DataError: data that is not there.
        """
        return make_partition(
            self.data,
            seed,
            image_size=self.image_size,
            framing=self.framing,
            limits=(self.train_images, self.val_images, self.test_images),
            data_dir=data_dir,
        )

    def split_options(self, seed: int, recipe: Recipe) -> PgslOptions:
        """The networks' options for a seed."""
        return replace(recipe.options(self.options), seed=seed)

    def local_options(self, seed: int) -> LocalOptions:
        """The local classifier's options for a seed."""
        return replace(self.local, seed=seed)


_SHIFTED_ANNEALED = Recipe(
    "shifted and turned, 2e-3 with decay 3e-3",
    augmentation="light",
    changes=(("learning_rate", 2e-3), ("decay", 3e-3)),
)
_SHIFTED_FASTER = Recipe("shifted and turned, decay 1e-3", augmentation="light", changes=(("decay", 1e-3),))
_MIAS_RECIPES = (
    Recipe("augmented", augmentation="medical"),
    Recipe("augmented, half balanced", augmentation="medical", balance=0.5),
)
_MIAS_STRENGTHS = Strengths(fgsm_bound=0.05, bim_bound=0.05, bim_step=0.01)

PRESETS: dict[str, dict[str, Settings]] = {
    "smoke": {
        "digits": Settings(
            "digits",
            train_images=300,
            val_images=60,
            test_images=100,
            white_box_images=20,
            seeds=(0, 1),
            options=PgslOptions(
                width=8, hidden=32, pixels=2, batch_size=10, recovery_iterations=25, epochs=6, learning_rate=3e-3
            ),
            local=LocalOptions(epochs=6),
            strengths=Strengths(cw_search_steps=1, cw_iterations=4),
        ),
    },
    "small": {
        "mnist": Settings(
            "mnist",
            attacked_train_images=10_000,
            white_box_images=200,
            seeds=(0, 1),
            options=PgslOptions(epochs=5),
            local=LocalOptions(epochs=2),
            recipes=(_SHIFTED_FASTER,),
        ),
        "mias": Settings(
            "mias",
            image_size=64,
            framing="foreground",
            white_box_images=30,
            options=PgslOptions(pixels=40, mu_relative=False, epochs=30, batch_size=16),
            local=LocalOptions(epochs=30, batch_size=16),
            strengths=_MIAS_STRENGTHS,
            recipes=_MIAS_RECIPES[:1],
        ),
        "mias-tissue": Settings(
            "mias-tissue",
            image_size=64,
            framing="foreground",
            white_box_images=30,
            options=PgslOptions(pixels=40, epochs=25, batch_size=16),
            local=LocalOptions(epochs=30, batch_size=16),
            strengths=_MIAS_STRENGTHS,
            recipes=(Recipe("shifted and turned", augmentation="light"),),
        ),
    },
    "paper": {
        "mnist": Settings(
            "mnist",
            attacked_train_images=20_000,
            white_box_images=1000,
            options=PgslOptions(epochs=10),
            recipes=(_SHIFTED_ANNEALED,),
        ),
        "mias": Settings(
            "mias",
            image_size=128,
            framing="foreground",
            white_box_images=64,
            options=PgslOptions(pixels=160, mu_relative=False, epochs=40, batch_size=16),
            local=LocalOptions(epochs=30, batch_size=16),
            strengths=_MIAS_STRENGTHS,
            recipes=_MIAS_RECIPES,
        ),
    },
}
"""By preset and data set. ``smoke`` takes seconds; PGSL gives no strength of any attack, so these are choices."""

_CURVES: dict[tuple[str, str], dict[str, Any]] = {
    ("small", "mnist"): {"train_images": 6000, "seeds": (0,)},
    ("small", "mias"): {"seeds": (0,)},
}
"""Where each point of a curve trains networks of its own, less is trained with than for one table."""

_CHOICES: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("small", "mnist"): ({"train_images": 2000, "val_images": 1000, "seeds": (0,)}, {"epochs": 3}),
    ("small", "mias"): ({"seeds": (0,)}, {"epochs": 10}),
}
"""Settings and options where recovery of every map is measured too, which takes ten times as long."""


def preset(name: str, data: str) -> Settings:
    """The preset's settings for a data set.

    Raises:
        UsageError: no such preset, or not for that data set.
    """
    return chosen(PRESETS, name, data)


def curve_preset(name: str, data: str) -> Settings:
    """The settings of a preset's curve of strengths for a data set.

    Raises:
        UsageError: no such preset, or not for that data set.
    """
    return replace(preset(name, data), **_CURVES.get((name, data), {}))


def choices_preset(name: str, data: str) -> Settings:
    """The settings of a preset's comparison of readings for a data set.

    Raises:
        UsageError: no such preset, or not for that data set.
    """
    settings = preset(name, data)
    changes, options = _CHOICES.get((name, data), ({}, {}))
    return replace(settings, **changes, options=replace(settings.options, **options))


def chosen(presets: Mapping[str, Mapping[str, Chosen]], name: str, data: str) -> Chosen:
    """What a table of presets has for a data set.

    Raises:
        UsageError: no such preset, or not for that data set.
    """
    if name not in presets:
        raise UsageError(f"preset is {name!r}; allowed: {', '.join(presets)}")
    if data not in presets[name]:
        raise UsageError(f"preset {name} is for {', '.join(presets[name])}, not for {data}; choose one of those")
    return presets[name][data]
