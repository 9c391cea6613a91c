"""Named recipes of split training. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions


@dataclass(frozen=True)
class SplitPreset:
    """A recipe.

    Attributes:
        name: by which it is asked for.
        description: what it is for, in one sentence.
        options: of both sides.
        local: of the client's own classifier.
    """

    name: str
    description: str
    options: PgslOptions
    local: LocalOptions


_ALL = (
    SplitPreset(
        "smoke",
        "Two epochs of a tiny network: shows that everything works, learns little.",
        PgslOptions(width=8, hidden=16, grid=2, epochs=2, batch_size=32, recovery_iterations=10),
        LocalOptions(width=4, epochs=2),
    ),
    SplitPreset("small", "The paper's width, with choices that fit two cores.", PgslOptions(), LocalOptions()),
    SplitPreset(
        "paper",
        "The paper's letter: no stride anywhere, recovery of every map: by far the slowest.",
        PgslOptions(strides=(1, 1, 1, 1, 1), recovery="maps"),
        LocalOptions(),
    ),
)

PRESETS: Mapping[str, SplitPreset] = MappingProxyType({preset.name: preset for preset in _ALL})


def get_split_preset(name: str) -> SplitPreset:
    """The preset of a name.

    Raises:
        UsageError: no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
