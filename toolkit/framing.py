"""What part of an image a network sees, and at which brightness: the whole image, or its bright foreground.

Medical images differ in how much empty margin they have and in how bright their brightest spot is; neither says
anything about the patient. ``foreground`` takes both out, with the same rule for every image and no other image needed.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import UsageError

Framing = Literal["whole", "foreground"]
FRAMINGS: tuple[str, ...] = get_args(Framing)

BRIGHT_QUANTILE = 0.995
"""This quantile of the gray values becomes 255."""

DARKEST_BRIGHT = 51
"""... unless it is below this (a fifth of 255): a black image stays black."""

FOREGROUND_LEVEL = 0.1
"""A pixel belongs to the foreground above this share of the largest gray value."""

FOREGROUND_SHARE = 0.04
"""A row or column belongs to it where more than this share of its pixels does."""


def check_framing(name: str) -> None:
    """Refuse an unknown framing.

    Raises:
        UsageError: lists those there are.
    """
    if name not in FRAMINGS:
        raise UsageError(f"framing {name!r}: one of {', '.join(FRAMINGS)} is needed")


def foreground(image: npt.NDArray[np.uint8], gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The smallest square around the foreground, brightness stretched; black where it reaches beyond the image.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        gray: (H, W) uint8, the same image in gray, by which foreground and brightness are judged.

    Returns:
        (L, L) or (L, L, 3) uint8, ``min(255, round(255 image / bright))`` within the square.
    """
    bright = max(float(np.quantile(gray, BRIGHT_QUANTILE)), float(DARKEST_BRIGHT))
    stretched = np.rint(np.minimum(image.astype(np.float64) * 255.0 / bright, 255.0)).astype(np.uint8)
    light = np.minimum(gray / bright, 1.0)
    mask = light > FOREGROUND_LEVEL * light.max(initial=0.0)
    rows = np.flatnonzero(mask.mean(axis=1) > FOREGROUND_SHARE)
    columns = np.flatnonzero(mask.mean(axis=0) > FOREGROUND_SHARE)
    if rows.size == 0 or columns.size == 0:
        rows, columns = np.arange(gray.shape[0]), np.arange(gray.shape[1])
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    side = max(height, width)
    return _square(stretched, top - (side - height) // 2, left - (side - width) // 2, side)


def _square(image: npt.NDArray[np.uint8], top: int, left: int, side: int) -> npt.NDArray[np.uint8]:
    """The square from (``top``, ``left``), which may lie outside the image."""
    result = np.zeros((side, side, *image.shape[2:]), np.uint8)
    inside = image[max(top, 0) : top + side, max(left, 0) : left + side]
    down, right = max(-top, 0), max(-left, 0)
    result[down : down + inside.shape[0], right : right + inside.shape[1]] = inside
    return result
