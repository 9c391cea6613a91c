"""Sets of images as points, in pixels or in features, and the nearest neighbours between the sets. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.synthetic.neighbours import AS_THEY_ARE, Nearest, View, nearest, shrunk, views

Values = npt.NDArray[Any]

PIXELS = "pixels"


class Space:
    """What is near to what. Neighbours are searched once and kept, in both directions.

    Args:
        name: in the report.
        unit: of distances.
        sets: by name, (n, C, H, W); features are (n, d, 1, 1).
        over: the views that two images are compared in.

    Attributes:
        name, unit, sets, over: as given.
    """

    def __init__(self, name: str, unit: str, sets: Mapping[str, Values], over: Sequence[View] = AS_THEY_ARE) -> None:
        self.name, self.unit, self.sets, self.over = name, unit, dict(sets), tuple(over)
        self._found: dict[tuple[str, str], Nearest] = {}

    def nearest(self, first: str, second: str) -> Nearest:
        """Of each image of one set, the nearest of the other. Views are those of the direction asked for first."""
        if (first, second) not in self._found:
            ahead, behind = nearest(self.sets[first], self.sets[second], self.over)
            self._found[first, second], self._found[second, first] = ahead, behind
        return self._found[first, second]


def pixel_space(sets: Mapping[str, npt.NDArray[np.uint8]]) -> Space:
    """Images as they are (averaged down to 64 pixels a side), also mirrored and shifted."""
    small = {name: shrunk(images) for name, images in sets.items()}
    return Space(PIXELS, "gray levels, RMS", small, views(*next(iter(small.values())).shape[2:]))


def feature_space(name: str, sets: Mapping[str, npt.NDArray[np.float64]]) -> Space:
    """Features (n, d) of each set."""
    return Space(name, "features, RMS", {key: values[:, :, None, None] for key, values in sets.items()})
