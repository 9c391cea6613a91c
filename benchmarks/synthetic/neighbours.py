"""The nearest of other images, also mirrored and shifted, and the nearest in a space of features. No torch here.

Distances are root mean squares over what is compared, in the unit of the values: gray levels of 0..255 for 8-bit
images. A shifted image is compared where the two overlap, so a shifted copy is at distance 0 whatever fills its edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[Any]

ROWS, COLUMNS = 512, 2048
"""Images compared at once: their squared distances take 4 MB, whatever the number of images."""

LARGEST_SHIFT, SHIFT_SHARE = 2, 8
"""Pixels, and no more than an eighth of the shorter side: one pixel for 8x8 images."""

LARGEST_SIDE = 64
"""Pixels: larger images are averaged down before they are compared."""


@dataclass(frozen=True)
class View:
    """How a second image is laid over a first one: ``first[y, x]`` on ``second[y + down, x + right]``.

    Attributes:
        flipped: whether the second is mirrored left to right before.
        down: rows.
        right: columns.
    """

    flipped: bool = False
    down: int = 0
    right: int = 0

    def first(self, images: Values) -> Values:
        """The part of (n, C, H, W) first images that overlaps."""
        return images[:, :, _span(-self.down, images.shape[2]), _span(-self.right, images.shape[3])]

    def second(self, images: Values) -> Values:
        """The part of (n, C, H, W) second images that overlaps, mirrored if so."""
        turned = images[..., ::-1] if self.flipped else images
        return turned[:, :, _span(self.down, images.shape[2]), _span(self.right, images.shape[3])]


AS_THEY_ARE = (View(),)


def views(height: int, width: int) -> tuple[View, ...]:
    """Mirrored or not, shifted by up to two pixels each way; the first view is neither.

    Of images below 16 pixels a side an eighth of the shorter side is the most.
    """
    most = min(LARGEST_SHIFT, min(height, width) // SHIFT_SHARE)
    steps = sorted(range(-most, most + 1), key=abs)
    return tuple(View(flipped, down, right) for flipped in (False, True) for down in steps for right in steps)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Of each image, the nearest of others.

    Attributes:
        distances: (n,) float64, root mean square.
        indices: (n,) int64, which one it is.
        views: (n,) int64, number of the view in which it is that near.
    """

    distances: Floats
    indices: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64]


def nearest(first: Values, second: Values, over: Sequence[View] = AS_THEY_ARE) -> tuple[Nearest, Nearest]:
    """For each of the first its nearest of the second, and for each of the second its nearest of the first.

    Squared distances are searched as ``|a|^2 + |b|^2 - 2 a b``, blockwise; the distances of those found are then
    computed anew from differences in float64, so that equal images are at exactly 0.

    Args:
        first: (n, C, H, W) uint8, or float64 such as features (n, d, 1, 1).
        second: (m, C, H, W) of the same kind.
        over: the views to try; of equal distances the first view counts, then the first image.

    Raises:
        DataError: no images on one side, or images of different shapes.
    """
    if not len(first) or not len(second) or first.ndim != 4 or first.shape[1:] != second.shape[1:]:
        raise DataError(
            f"images of shapes {first.shape} and {second.shape} cannot be compared; both (n, C, H, W), n at least 1, "
            "alike but for n"
        )
    ahead, behind = _Search(len(first)), _Search(len(second))
    for row in range(0, len(first), ROWS):
        for column in range(0, len(second), COLUMNS):
            here, there = _floats(first[row : row + ROWS]), _floats(second[column : column + COLUMNS])
            for number, view in enumerate(over):
                squares = _mean_squares(_flat(view.first(here)), _flat(view.second(there)))
                ahead.lower(row, squares, column, number)
                behind.lower(column, squares.T, row, number)
    return ahead.found(first, second, over), behind.found(second, first, over, swapped=True)


def mean_squares(first: Floats, second: Floats) -> Floats:
    """(n, m) mean squared differences of rows (n, d) and (m, d), not below 0."""
    middle = second.mean(axis=0)
    return _mean_squares(first - middle, second - middle)


def shrunk(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(n, C, H, W) averaged over squares of pixels until no side is above 64; smaller images are left as they are."""
    factor = -(-max(images.shape[2:]) // LARGEST_SIDE)
    if factor == 1:
        return images
    result: Values = images.astype(np.float32)
    for axis in (2, 3):
        edges = np.arange(0, images.shape[axis], factor)
        counts = np.diff(np.append(edges, images.shape[axis])).astype(np.float32)
        result = np.add.reduceat(result, edges, axis=axis) / (counts[:, None] if axis == 2 else counts)
    return np.rint(result).astype(np.uint8)


class _Search:
    """Smallest squared distance so far, of which image and in which view."""

    def __init__(self, count: int) -> None:
        self._squares = np.full(count, np.inf)
        self._indices = np.zeros(count, dtype=np.int64)
        self._views = np.zeros(count, dtype=np.int64)

    def lower(self, start: int, squares: Values, offset: int, view: int) -> None:
        """Take in (rows, columns) squared distances of images from ``start`` on to others from ``offset`` on."""
        places = squares.argmin(axis=1)
        found = squares[np.arange(len(squares)), places]
        part = slice(start, start + len(squares))
        better = found < self._squares[part]
        self._squares[part][better] = found[better]
        self._indices[part][better] = places[better] + offset
        self._views[part][better] = view

    def found(self, own: Values, others: Values, over: Sequence[View], *, swapped: bool = False) -> Nearest:
        """The nearest, their distances computed from differences."""
        distances = np.empty(len(own))
        for number, view in enumerate(over):
            members = np.flatnonzero(self._views == number)
            for start in range(0, len(members), ROWS):
                chosen = members[start : start + ROWS]
                pair = (own[chosen], others[self._indices[chosen]])
                first, second = pair[::-1] if swapped else pair
                difference = view.first(first).astype(np.float64) - view.second(second)
                distances[chosen] = np.sqrt((difference**2).mean(axis=(1, 2, 3)))
        return Nearest(distances, self._indices, self._views)


def _mean_squares(first: Values, second: Values) -> Values:
    products = first @ second.T
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * products
    found: Values = np.maximum(squares, 0) / first.shape[1]
    return found


def _floats(images: Values) -> Values:
    """Around 0, where float32 has digits enough to tell images apart."""
    return images.astype(np.float32) - np.float32(127.5) if images.dtype == np.uint8 else images.astype(np.float64)


def _flat(images: Values) -> Values:
    return np.ascontiguousarray(images.reshape(len(images), -1))


def _span(shift: int, size: int) -> slice:
    return slice(max(shift, 0), size + min(shift, 0))
