"""How images are synthesised: options and presets. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import Ranges, check_ranges

_RANGES: Ranges = MappingProxyType(
    {
        "images": (1, 10_000_000, True),
        "batch_size": (1, 65_536, True),
        "iterations": (1, 1_000_000, True),
        "learning_rate": (1e-6, 1.0, False),
        "temperature": (1e-3, 1e3, False),
        "scale": (1e-3, 1e6, False),
        "total_variation": (0.0, 1e4, False),
        "statistics": (0.0, 1e4, False),
        "jitter": (0, 64, True),
        "tolerance": (1e-6, 10.0, False),
        "seed": (0, 2**62, True),
        "threads": (0, 1024, True),
    }
)


@dataclass(frozen=True)
class SynthesisOptions:
    """How images are made from a network alone.

    Attributes:
        images: how many.
        batch_size: optimised together; the statistics of batch norms are matched over a batch. Batches are made
            equally large.
        iterations: of Adam, at most.
        learning_rate: of Adam at the start, on pixels in 0..1.
        temperature: the output that meets the soft label is softmax(logits / temperature).
        scale: of the Dirichlet's concentration.
        total_variation: weight of the images' total variation; 0 leaves it out.
        statistics: weight of the match with the batch norms' kept statistics; 0 leaves it out (PrivateSNN's form).
        jitter: the batch is moved by up to so many pixels before each iteration.
        flip: and mirrored left to right in half of them.
        tolerance: divergence from the soft label, in nats, below which an image meets it.
        seed: of everything random.
        threads: of torch; 0 takes its default.
    """

    images: int = 1000
    batch_size: int = 100
    iterations: int = 300
    learning_rate: float = 0.05
    temperature: float = 2.0
    scale: float = 1.0
    total_variation: float = 0.0
    statistics: float = 30.0
    jitter: int = 0
    flip: bool = False
    tolerance: float = 0.05
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names what is out of range.
        """
        check_ranges(self, _RANGES)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)


PRESETS: Mapping[str, SynthesisOptions] = MappingProxyType(
    {
        "smoke": SynthesisOptions(images=40, batch_size=40, iterations=100, threads=1),
        "small": SynthesisOptions(),
        "paper": SynthesisOptions(images=5000, iterations=2500, scale=1.0, temperature=20.0, statistics=0.0),
    }
)
"""``smoke`` shows that everything works; ``small`` is what commands take; ``paper`` is PrivateSNN's form, with as many
images as its paper and GASCNN's use: no regulariser."""


def get_synthesis_preset(name: str) -> SynthesisOptions:
    """The preset of a name.

    Raises:
        UsageError: no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
