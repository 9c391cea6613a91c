"""Images to input spikes, on the host: what a deployed network is fed with.

Codings of an intensity ``x`` in 0..1 over T steps:

- ``regular``: spike at step t where ``floor(x (t + 1) + phase) > floor(x t + phase)``: ``x T`` evenly spaced spikes,
  rounded up or down. The phase differs between neighbouring pixels (an additive recurrence over row, column and
  channel, shifted by the seed), so that a flat region does not fire all at once.
- ``bernoulli``: at each step a spike with probability ``x``, drawn from a generator seeded by (seed, image number).
- ``constant``: the pixel itself at every step, ``round(x (2^b - 1))`` in b bits, for networks whose first layer takes
  graded input.
- ``rate``: at each step a spike where the pixel ``u`` is above a threshold drawn for it anew between the image's
  darkest and brightest pixel (GASCNN, IV-C): probability ``(u - u_min) / (u_max - u_min)``.
- ``rate-inverted``: a spike where the pixel is *below* that threshold, as the paper's sentence has it: dark pixels fire
  most. The same thresholds, so what ``rate`` leaves out.
- ``rate-normal``: ``rate`` with thresholds that crowd in the middle of the range (the mean of three uniform ones, a
  bell that ends at three standard deviations), for the paper's "normal distribution within the range".

In an image of one value nothing is above or below what is drawn, and these three are silent.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.deployment import Coding
from gascnn.toolkit.lowering.limits import GRADED_INPUT_BITS
from gascnn.toolkit.lowering.network import NetxNetwork

# Additive recurrence in three dimensions: powers of the inverse of the real root of x^4 = x + 1.
_RECURRENCE = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)

_DRAWS = {"rate": 1, "rate-inverted": 1, "rate-normal": 3}
"""Codings that depend on the image's extremes: of how many uniform numbers a threshold is the mean."""


def encode(
    images: npt.NDArray[np.uint8],
    coding: Coding,
    steps: int,
    *,
    seed: int = 0,
    first: int = 0,
    pixel_max: int = 255,
    bits: int = GRADED_INPUT_BITS,
) -> npt.NDArray[np.uint8]:
    """Encode images as input of a deployed network; :func:`encode_for` does it as the network says.

    Args:
        images: (image, C, H, W) uint8.
        coding: one of those above.
        steps: T, at least 1.
        seed: of phases or random numbers.
        first: number of the first image, so that a data set gives the same spikes however it is cut into batches.
        pixel_max: pixel value of intensity 1.
        bits: of a pixel with ``constant``.

    Returns:
        (image, T, C, H, W) uint8: 0/1, or 0..2^bits - 1 for ``constant``.

    Raises:
        DataError: images of another shape or type, or brighter than ``pixel_max``.
        UsageError: unknown coding, ``steps`` or ``pixel_max`` below 1, a negative seed, or ``bits`` not 1..8.
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
    if not 1 <= bits <= GRADED_INPUT_BITS:
        raise UsageError(f"bits is {bits}; it must be 1..{GRADED_INPUT_BITS}")
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"images are {images.dtype} of shape {images.shape}; expected uint8 (image, C, H, W)")
    if images.size and int(images.max()) > pixel_max:
        raise DataError(f"a pixel is {images.max()}; this network takes 0..{pixel_max}")
    if coding == "constant":
        pixels = (images.astype(np.int64) * (2**bits - 1) + pixel_max // 2) // pixel_max
        return np.repeat(pixels.astype(np.uint8)[:, None], steps, axis=1)
    if coding == "regular":
        return _regular(images, steps, seed, pixel_max)
    if coding in _DRAWS:
        return _between_extremes(images, coding, steps, seed, first)
    return _bernoulli(images, steps, seed, first, pixel_max)


def expected_input(images: npt.NDArray[np.uint8], coding: Coding, pixel_max: int = 255) -> npt.NDArray[np.float32]:
    """What is fed in a step, on average: the ANN on these images is what the spiking network comes close to.

    The intensity ``pixel / pixel_max``, except for codings that draw thresholds between an image's extremes.

    Args:
        images: (image, C, H, W) uint8.
        coding: one of those above.
        pixel_max: pixel value of intensity 1.

    Returns:
        (image, C, H, W) float32, 0..1.
    """
    if coding not in _DRAWS:
        return images.astype(np.float32) / np.float32(pixel_max)
    result = np.zeros(images.shape, dtype=np.float32)
    for index, image in enumerate(images):
        low, span = _range(image)
        if span:
            result[index] = _chances(span, coding)[image.astype(np.int64) - low]
    return result


def encode_for(
    network: NetxNetwork,
    images: npt.NDArray[np.uint8],
    *,
    steps: int | None = None,
    seed: int | None = None,
    first: int = 0,
) -> npt.NDArray[np.uint8]:
    """Encode images as the network says; a foreign one takes evenly spaced spikes, or pixels if its input is graded.

    Args:
        network: read from a file or lowered.
        images: (image, C, H, W) uint8.
        steps: T; default what the network was fitted for.
        seed: of the coding; default the network's.
        first: number of the first image in its data set.

    Raises:
        UsageError: no ``steps`` for a foreign network.
        DataError: as :func:`encode`.
    """
    bits = network.input_bits or GRADED_INPUT_BITS
    deployment = network.deployment
    if deployment is None:
        if steps is None:
            raise UsageError("the network does not say how many steps an image takes; give --steps")
        coding: Coding = "constant" if network.input_bits else "regular"
        return encode(images, coding, steps, seed=seed or 0, first=first, bits=bits)
    return encode(
        images,
        deployment.coding,
        deployment.steps if steps is None else steps,
        seed=deployment.seed if seed is None else seed,
        first=first,
        pixel_max=deployment.pixel_max,
        bits=bits,
    )


def with_constant_channels(network: NetxNetwork, spikes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Spikes with the always-on planes that the host adds behind the image's channels, with what they hold.

    Args:
        network: says how many.
        spikes: (image, T, C, ...) without them.
    """
    planes = network.constant_channels
    if not planes:
        return spikes
    shape = (*spikes.shape[:2], planes, *spikes.shape[3:])
    return np.concatenate([spikes, np.full(shape, network.constant_level, dtype=np.uint8)], axis=2)


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


def _between_extremes(
    images: npt.NDArray[np.uint8], coding: Coding, steps: int, seed: int, first: int
) -> npt.NDArray[np.uint8]:
    spikes = np.zeros((len(images), steps, *images.shape[1:]), dtype=np.uint8)
    count, inverted = _DRAWS[coding], coding == "rate-inverted"
    for index, image in enumerate(images):
        low, span = _range(image)
        if not span:
            continue
        generator = np.random.default_rng([seed, first + index])
        drawn = np.zeros((steps, *image.shape), dtype=np.int64)
        for _ in range(count):
            drawn += generator.integers(0, span, drawn.shape)
        # The threshold is the mean of (number + 1/2), which no whole number equals: a pixel is above it or below.
        above = 2 * drawn + count < 2 * count * (image.astype(np.int64) - low)
        spikes[index] = above != inverted
    return spikes


def _range(image: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """The darkest pixel, and how far the brightest is above it."""
    low = int(image.min())
    return low, int(image.max()) - low


def _chances(span: int, coding: Coding) -> npt.NDArray[np.float64]:
    """(span + 1,) probability of a spike where a pixel is 0, 1, ... span above the darkest."""
    count = _DRAWS[coding]
    ways = np.ones(1, dtype=np.int64)
    for _ in range(count):
        ways = np.convolve(ways, np.ones(span, dtype=np.int64))
    sums_below = np.concatenate([[0], np.cumsum(ways)])
    above = np.arange(span + 1) * count - count // 2
    chances: npt.NDArray[np.float64] = sums_below[np.clip(above, 0, len(ways))] / span**count
    return 1.0 - chances if coding == "rate-inverted" else chances
