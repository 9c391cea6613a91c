"""Named recipes of GANs. No torch here.

A preset is data. ``replace(preset.options, iterations=500)`` (from :mod:`dataclasses`) varies one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.gan.options import GanOptions


@dataclass(frozen=True)
class GanPreset:
    """A recipe.

    Attributes:
        name: by which it is asked for.
        description: what it is for, in one sentence.
        options: how to build and train.
        measured_on: images of the times below; they grow with the number of pixels. Empty where no run was measured.
        cpu_time_s: processor time of training measured there; None where it was not.
        expected_time_s: wall time to expect on two otherwise idle cores; None where no run was measured.
    """

    name: str
    description: str
    options: GanOptions
    measured_on: str = ""
    cpu_time_s: float | None = None
    expected_time_s: float | None = None


_ALL = (
    GanPreset(
        "smoke",
        "Forty iterations of a tiny GAN: shows that everything works on 8x8 digits in seconds, learns little.",
        GanOptions(
            width=4,
            residual_blocks=6,
            critic_width=4,
            critic_hidden=16,
            iterations=40,
            batch_size=20,
            critic_steps=2,
            learning_rate=1e-3,
            ema_decay=0.9,
            report_every=10,
            grid_every=20,
            threads=1,
        ),
        measured_on="digits, 8x8, ten classes",
        cpu_time_s=2.5,
        expected_time_s=3,
    ),
    GanPreset(
        "small",
        "For images of 64x64 on two cores: a quarter of the width, 6000 iterations, a higher learning rate.",
        GanOptions(
            width=16,
            critic_width=32,
            iterations=6000,
            learning_rate=4e-4,
            critic_steps=3,
            report_every=250,
            grid_every=1000,
        ),
        measured_on="brain-mri, 64x64, four classes, one thread on a machine with other work",
        cpu_time_s=2300,
        expected_time_s=2310,
    ),
    GanPreset(
        "paper",
        "The paper's values; what it leaves open (widths, batch size, updates of the critic) is ours.",
        GanOptions(),
    ),
)

PRESETS: Mapping[str, GanPreset] = MappingProxyType({preset.name: preset for preset in _ALL})


def get_gan_preset(name: str) -> GanPreset:
    """The preset of a name.

    Raises:
        UsageError: no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
