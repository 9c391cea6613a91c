"""What each step of the chain is told. No torch here.

A preset names the presets of the steps' own commands, and the few values that only the chain decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import Ranges, check_ranges

_RANGES: Ranges = MappingProxyType(
    {
        "gan_images": (1, 10_000_000, True),
        "steps": (1, 1000, True),
        "verify_images": (1, 10_000_000, True),
        "report_images": (1, 10_000_000, True),
        "latency_s": (0.0, 1e6, False),
    }
)


@dataclass(frozen=True)
class ChainPreset:
    """One column of the table in ``docs/chain.md``.

    Attributes:
        name, description: for the user.
        training: preset of ``train``; None takes the recipe of the data set, else ``small``.
        training_options: more words for it.
        gan: preset of ``gan train``.
        gan_images: images of each class that the GAN gives; at most as many as there are training images.
        synthesis: preset of ``synthesise``.
        synthesis_options: more words for it.
        reset, readout, coding: of ``convert``.
        steps: T.
        learning: preset of ``spike-learn``.
        learning_options: more words for it.
        verify_images: run in Lava.
        report_images: run for the report, at most.
        latency_s: seconds the report may time for.
    """

    name: str
    description: str
    training: str | None
    gan: str
    gan_images: int
    synthesis: str
    reset: str
    readout: str
    coding: str
    steps: int
    learning: str
    verify_images: int
    report_images: int
    latency_s: float
    training_options: tuple[str, ...] = ()
    synthesis_options: tuple[str, ...] = ()
    learning_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            UsageError: names what is out of range.
        """
        check_ranges(self, _RANGES)


_SMALL = ChainPreset(
    "small",
    "For two cores: the network of the data set, reset to zero, read out by its membrane, few steps.",
    training=None,
    gan="small",
    gan_images=100,
    synthesis="small",
    reset="zero",
    readout="membrane",
    coding="regular",
    steps=16,
    learning="small",
    verify_images=5,
    report_images=1000,
    latency_s=10.0,
)

PRESETS: Mapping[str, ChainPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            ChainPreset(
                "smoke",
                "A tiny network and a few images: shows that everything works, learns little.",
                training="smoke",
                gan="smoke",
                gan_images=4,
                synthesis="smoke",
                reset="zero",
                readout="membrane",
                coding="regular",
                steps=4,
                learning="smoke",
                verify_images=1,
                report_images=40,
                latency_s=1.0,
                # Enough to move some integers; the preset's own epoch moves none on forty images.
                learning_options=("--epochs", "10", "--learning-rate", "1e-3"),
            ),
            _SMALL,
            ChainPreset(
                "paper",
                "GASCNN's own: ResNet-18, 5000 images, reset by subtraction, T = 100, 30 epochs. Days on two cores.",
                training="paper",
                gan="paper",
                # With the four classes of brain-mri 5000 in all, GASCNN's number.
                gan_images=1250,
                synthesis="paper",
                reset="subtract",
                readout="count",
                coding="rate",
                steps=100,
                learning="paper",
                verify_images=5,
                report_images=1000,
                latency_s=20.0,
            ),
        )
    }
)

_SMALL_FOR: Mapping[str, ChainPreset] = MappingProxyType(
    {
        "digits": replace(_SMALL, steps=8),
        "mnist": replace(_SMALL, steps=6),
        # The GAN sets the size: at the 96 pixels of the data set's own recipe it would take more than two hours. The
        # rest is that of docs/results.md, "Without the images": a network far larger than that of mnist.
        "brain-mri": replace(
            _SMALL,
            training_options=("--image-size", "64", "--epochs", "70"),
            gan_images=96,
            synthesis_options=("--images", "384", "--batch-size", "64", "--iterations", "200"),
            # As many images whatever they are, so that kinds can be compared.
            learning_options=("--images", "320", "--batch-size", "16", "--epochs", "10", "--learning-rate", "1e-4"),
            verify_images=2,
            report_images=200,
        ),
    }
)
"""``small``, fitted to data sets whose networks were measured."""


def get_chain_preset(name: str, data_name: str) -> ChainPreset:
    """The preset of a name, for a data set.

    Raises:
        UsageError: no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return _SMALL_FOR.get(data_name, _SMALL) if name == "small" else PRESETS[name]
