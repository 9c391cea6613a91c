"""Images to input spikes, on the host: what a deployed network is fed with.

Three codings of an intensity ``x`` in 0..1 over T steps:

- ``regular``: spike at step t where ``floor(x (t + 1) + phase) > floor(x t + phase)``: ``x T`` evenly spaced spikes,
  rounded up or down. The phase differs between neighbouring pixels (an additive recurrence over row, column and
  channel, shifted by the seed), so that a flat region does not fire all at once.
- ``bernoulli``: at each step a spike with probability ``x``, drawn from a generator seeded by (seed, image number).
- ``constant``: the 8-bit pixel itself at every step, for networks whose first layer takes graded input.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.deployment import Coding

# Additive recurrence in three dimensions: powers of the inverse of the real root of x^4 = x + 1.
_RECURRENCE = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)


def encode(
    images: npt.NDArray[np.uint8],
    coding: Coding,
    steps: int,
    *,
    seed: int = 0,
    first: int = 0,
    pixel_max: int = 255,
) -> npt.NDArray[np.uint8]:
    """Encode images as input of a deployed network.

    Args:
        images: (image, C, H, W) uint8.
        coding: ``regular``, ``bernoulli`` or ``constant``.
        steps: T, at least 1.
        seed: of phases or random numbers.
        first: number of the first image, so that a data set gives the same spikes however it is cut into batches.
        pixel_max: pixel value of intensity 1.

    Returns:
        (image, T, C, H, W) uint8: 0/1, or the pixels for ``constant``.

    Raises:
        DataError: images of another shape or type, or brighter than ``pixel_max``.
        UsageError: unknown coding, ``steps`` or ``pixel_max`` below 1, or a negative seed.
    """
    if coding not in get_args(Coding):
        raise UsageError(f"unknown input coding {coding!r}; known: {', '.join(get_args(Coding))}")
    for name, value, least in (
        ("steps", steps, 1),
        ("pixel_max", pixel_max, 1),
        ("seed", seed, 0),
        ("first", first, 0),
    ):
        if value < least:
            raise UsageError(f"{name} is {value}; it must be at least {least}")
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"images are {images.dtype} of shape {images.shape}; expected uint8 (image, C, H, W)")
    if images.size and int(images.max()) > pixel_max:
        raise DataError(f"a pixel is {images.max()}; this network takes 0..{pixel_max}")
    if coding == "constant":
        return np.broadcast_to(images[:, None], (len(images), steps, *images.shape[1:])).copy()
    if coding == "regular":
        return _regular(images, steps, seed, pixel_max)
    return _bernoulli(images, steps, seed, first, pixel_max)


def _regular(images: npt.NDArray[np.uint8], steps: int, seed: int, pixel_max: int) -> npt.NDArray[np.uint8]:
    # In integers, so that every platform gives the same spikes: time in units of 1 / pixel_max.
    offset = np.random.default_rng(seed).random()
    axes = np.ogrid[tuple(slice(n) for n in images.shape[1:])]
    phase = sum(a * r for a, r in zip(axes, _RECURRENCE, strict=True)) + offset
    reached = np.empty(images.shape, dtype=np.int64)
    reached[:] = np.floor((phase % 1.0) * pixel_max)
    spikes = np.empty((len(images), steps, *images.shape[1:]), dtype=np.uint8)
    for step in range(steps):
        reached += images
        spikes[:, step] = fires = reached >= pixel_max
        reached -= fires * pixel_max
    return spikes


def _bernoulli(
    images: npt.NDArray[np.uint8], steps: int, seed: int, first: int, pixel_max: int
) -> npt.NDArray[np.uint8]:
    spikes = np.empty((len(images), steps, *images.shape[1:]), dtype=np.uint8)
    for index, image in enumerate(images):
        draws = np.random.default_rng([seed, first + index]).integers(0, pixel_max, (steps, *image.shape))
        spikes[index] = draws < image
    return spikes
