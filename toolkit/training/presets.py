"""Named recipes: a network, how to train it, and what that took on two cores. No torch here.

A preset is data. ``replace(preset.options, epochs=5)`` (from :mod:`dataclasses`) varies one.

``digits`` and ``mnist`` keep the last epoch: near 99 % the validation images tell epochs apart by two or three of them,
and the end of a one-cycle schedule is the better bet. They run on one thread, which at these sizes loses little on an
idle machine and gains much on one that others use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.options import TrainingOptions


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes:
        name: by which it is asked for.
        description: what it is for, in one sentence.
        model: arguments of :func:`gascnn.models.resnet.resnet` beyond those the data set decides.
        options: how to train.
        image_size: pixels a side to which images are scaled; None takes them as they are.
        framing: what part of each image is taken; see :mod:`gascnn.toolkit.framing`.
        measured_on: the data set, image size and number of training images of the times below.
        cpu_time_s: processor time of training measured there, evaluation of the test images not included.
        expected_time_s: wall time to expect on two otherwise idle cores.
    """

    name: str
    description: str
    model: Mapping[str, Any]
    options: TrainingOptions
    image_size: int | None
    measured_on: str
    cpu_time_s: float
    expected_time_s: float
    framing: str = "whole"


_ALL = (
    Preset(
        "smoke",
        "Two epochs of a tiny network: shows that everything works, learns little.",
        model={"blocks": (1, 1), "width": 4},
        options=TrainingOptions(epochs=2, batch_size=32, learning_rate=1e-2, augmentation="light", threads=1),
        image_size=None,
        measured_on="digits, 8x8, 1259 training images",
        cpu_time_s=1,
        expected_time_s=1,
    ),
    Preset(
        "small",
        "A small network for any set of medical images, in minutes.",
        model={"blocks": (1, 1, 1), "width": 16, "dropout": 0.1},
        options=TrainingOptions(
            epochs=40,
            batch_size=32,
            learning_rate=4e-3,
            weight_decay=0.05,
            label_smoothing=0.05,
            balance="sampling",
            balance_power=0.5,
            ema_decay=0.995,
            augmentation="medical",
            gradient_clip=2.0,
        ),
        image_size=64,
        measured_on="brain-mri, 64x64, 1565 training images",
        cpu_time_s=250,
        expected_time_s=150,
    ),
    Preset(
        "paper",
        "ResNet-18 at full width, as in the papers' tables; they do not give its training schedule, this one is ours.",
        model={"blocks": (2, 2, 2, 2), "width": 64, "dropout": 0.2},
        options=TrainingOptions(
            epochs=40,
            batch_size=32,
            learning_rate=1e-3,
            weight_decay=0.05,
            label_smoothing=0.1,
            balance="sampling",
            balance_power=0.5,
            ema_decay=0.998,
            augmentation="medical",
            gradient_clip=2.0,
        ),
        image_size=128,
        measured_on="brain-mri, 128x128, 1565 training images, extrapolated from one epoch",
        cpu_time_s=3000,
        expected_time_s=1800,
    ),
    Preset(
        "digits",
        "An identity and a projection block for 8x8 digits: small enough to be simulated on the chip's real model.",
        model={"blocks": (1, 1), "width": 8},
        options=TrainingOptions(
            epochs=30,
            batch_size=32,
            learning_rate=1e-2,
            ema_decay=0.99,
            augmentation="light",
            select="last",
            threads=1,
        ),
        image_size=None,
        measured_on="digits, 8x8, 1259 training images",
        cpu_time_s=16,
        expected_time_s=15,
    ),
    Preset(
        "mnist",
        "Three stages for 28x28 digits: above 99 % in seven epochs.",
        model={"blocks": (1, 1, 1), "width": 16, "stem": "small-stride2"},
        options=TrainingOptions(
            epochs=7, batch_size=128, learning_rate=1e-2, augmentation="light", select="last", threads=1
        ),
        image_size=None,
        measured_on="mnist, 28x28, 55000 training images",
        cpu_time_s=185,
        expected_time_s=190,
    ),
    Preset(
        "brain-mri",
        "ResNet-18 at half width for 96x96 slices of brain MRI. Few patients, so: mixup, stochastic depth, many "
        "epochs, and the validation patients to learn from once the recipe is chosen.",
        model={"blocks": (2, 2, 2, 2), "width": 32, "dropout": 0.2, "drop_path": 0.1, "zero_init": True},
        options=TrainingOptions(
            epochs=130,
            batch_size=32,
            learning_rate=5e-3,
            schedule="cosine",
            warmup=0.08,
            cosine_end=0.25,
            weight_decay=0.3,
            label_smoothing=0.05,
            mixup_alpha=0.3,
            mix_probability=0.7,
            balance="sampling",
            balance_power=0.5,
            ema_decay=0.998,
            augmentation="brain-mri",
            gradient_clip=2.0,
            fit_on="train+val",
        ),
        image_size=96,
        measured_on="brain-mri, 96x96, 2180 training images",
        cpu_time_s=3750,
        expected_time_s=2000,
        framing="foreground",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})


def get_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UsageError: no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def preset_for(dataset_name: str) -> Preset:
    """The preset named like the data set if there is one, else ``small``."""
    return PRESETS.get(dataset_name, PRESETS["small"])
