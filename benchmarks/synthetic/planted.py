"""Copies of training images, planted to see which kinds of copying would be found. No torch here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.synthetic.neighbours import views

Images = npt.NDArray[np.uint8]

NOISE, BRIGHTER, CONTRAST, PART = 13.0, 8.0, 1.15, 0.7
"""Gray levels (a twentieth of the range), gray levels, a factor, and the share of the copied image in a mixture."""


def planted(images: Images, others: Images, seed: int) -> dict[str, Images]:
    """Copies of each kind.

    Args:
        images: (n, C, H, W) that are copied.
        others: (n, C, H, W) that the last kind mixes in.
        seed: of the noise.

    Returns:
        By kind, (n, C, H, W) uint8: ``exact``; ``mirrored`` left to right; ``shifted`` down and right by as much as
        is searched for, edges repeated; ``noisy``, normal noise of 13 gray levels; ``brighter``, 1.15 x + 8;
        ``blurred`` by a 3x3 mean; ``mixed``, 0.7 of the image and 0.3 of another.
    """
    values = images.astype(np.float64)
    shift = max(view.down for view in views(*images.shape[2:]))
    noise = np.random.default_rng(seed).normal(0, NOISE, images.shape)
    return {
        "exact": images,
        "mirrored": np.ascontiguousarray(images[..., ::-1]),
        "shifted": np.pad(images, ((0, 0), (0, 0), (shift, 0), (shift, 0)), mode="edge")[
            :, :, : images.shape[2], : images.shape[3]
        ],
        "noisy": _eight_bit(values + noise),
        "brighter": _eight_bit(CONTRAST * values + BRIGHTER),
        "blurred": _eight_bit(_blurred(values)),
        "mixed": _eight_bit(PART * values + (1 - PART) * others),
    }


def _blurred(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    height, width = values.shape[2:]
    wide = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    total = np.zeros_like(values)
    for down in range(3):
        for right in range(3):
            total += wide[:, :, down : down + height, right : right + width]
    return total / 9


def _eight_bit(values: npt.NDArray[np.float64]) -> Images:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
