"""How to learn: the paper's values, and scaled ones for two cores. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import Ranges, check_ranges

_RANGES: Ranges = MappingProxyType(
    {
        "epochs": (1, 10_000, True),
        "batch_size": (1, 65_536, True),
        "learning_rate": (1e-9, 10.0, False),
        "decay_factor": (1.0, 1000.0, False),
        "decay_every": (1e-3, 1.0, False),
        "distillation": (0.0, 1.0, False),
        "temperature": (1e-3, 1e3, False),
        "dropout": (0.0, 0.9, False),
        "feature_weight": (0.0, 1e3, False),
        "rate_penalty": (0.0, 1e3, False),
        "rate_goal": (0.0, 1e3, False),
        "mix_probability": (0.0, 1.0, False),
        "cut_out_probability": (0.0, 1.0, False),
        "gradient_clip": (0.0, 1e6, False),
        "surrogate_height": (1e-3, 1e3, False),
        "held_out": (0.0, 0.5, False),
        "seed": (0, 2**62, True),
        "threads": (0, 1024, True),
        "memory_bytes": (1 << 20, 1 << 50, True),
    }
)


@dataclass(frozen=True)
class LearningOptions:
    """How a deployed network is retrained with spikes (GASCNN, IV-C; values of V-B as defaults).

    Attributes:
        epochs: passes over the images; the paper's 30.
        batch_size: images at a time; the paper gives none.
        learning_rate: of Adam at the start, on weights in thresholds; the paper's 1e-3.
        decay_factor: the rate is divided by this ...
        decay_every: ... after each such share of the epochs; the paper's 5 "at 20 % of number of epochs".
        distillation: δ of eq. 10, the weight of the distillation loss; the cross entropy has ``1 - δ``.
        temperature: β of eq. 10.
        dropout: share of the read-out's inputs silenced, held over the time steps of an image.
        feature_weight: of the distance of every layer's spikes from the teacher's activations, added to eq. 10, which
            has no such term; see :mod:`gascnn.toolkit.spike_learning.features`.
        rate_penalty: added to the loss, times the spikes a synaptic source and image ...
        rate_goal: ... above this many; the paper's 52 times less energy is 0.615 with all that is not learnt in it.
        mix_probability: share of the batches whose images are blended in pairs (mixup, Beta(1, 1)), which the teacher
            then sees too: synthetic images are few and alike.
        cut_out_probability: share of the images that are seen through a window on a plain ground; see
            :func:`gascnn.toolkit.spike_learning.augment.cut_out`.
        gradient_clip: largest norm of the whole gradient; 0 for none.
        surrogate_height: of the triangle that stands for a spike's derivative.
        held_out: share of the images that are not learnt from; agreement with the teacher is measured on them.
        seed: of everything random.
        threads: of torch; 0 takes its default.
        memory_bytes: what the backward pass may keep of the time steps; longer runs are computed in windows, twice.
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    decay_factor: float = 5.0
    decay_every: float = 0.2
    distillation: float = 0.6
    temperature: float = 15.0
    dropout: float = 0.1
    feature_weight: float = 0.0
    rate_penalty: float = 0.0
    rate_goal: float = 0.0
    mix_probability: float = 0.0
    cut_out_probability: float = 0.0
    gradient_clip: float = 1.0
    surrogate_height: float = 1.0
    held_out: float = 0.1
    seed: int = 0
    threads: int = 0
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names what is out of range.
        """
        check_ranges(self, _RANGES)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1: divided at every ``decay_every`` of the epochs."""
        passed = math.floor((epoch - 1) / max(self.epochs * self.decay_every, 1e-9) + 1e-9)
        return self.learning_rate / self.decay_factor**passed


@dataclass(frozen=True)
class LearningPreset:
    """A recipe.

    Attributes:
        name, description: for the user.
        steps: T; None keeps the network's.
        images: how many synthetic images it is meant for.
        options: how to learn.
    """

    name: str
    description: str
    steps: int | None
    images: int
    options: LearningOptions


_SYNTHETIC = LearningOptions(
    epochs=8,
    learning_rate=3e-4,
    decay_factor=2.0,
    dropout=0.0,
    feature_weight=30.0,
    mix_probability=0.5,
    cut_out_probability=0.5,
)
"""Chosen on validation images for synthetic ones to learn from; what each part of it gives is in the documentation."""

PRESETS: Mapping[str, LearningPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            LearningPreset(
                "smoke",
                "One epoch: shows that everything works.",
                None,
                64,
                replace(_SYNTHETIC, epochs=1, batch_size=16, threads=1),
            ),
            LearningPreset(
                "small",
                "A few careful epochs for two cores: small rate, all layers matched, images varied.",
                None,
                1000,
                _SYNTHETIC,
            ),
            LearningPreset(
                "paper",
                "GASCNN, V-B: 30 epochs on 5000 synthetic images, T = 100.",
                100,
                5000,
                LearningOptions(),
            ),
        )
    }
)


def get_learning_preset(name: str) -> LearningPreset:
    """The preset of a name.

    Raises:
        UsageError: no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
