"""Calibration statistics that travel with a bundle: what conversion needs of the training images, without them.

A few numbers a channel of each neuron population: percentiles of its activations and the extremes of what its ReLU is
given. Never an image, and nothing of a single position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gascnn.toolkit.bundle import Bundle, Statistics
from gascnn.toolkit.coding import expected_input
from gascnn.toolkit.conversion.calibrate import Activations, measure_percentiles
from gascnn.toolkit.conversion.convert import ConversionOptions
from gascnn.toolkit.conversion.passes import run_passes
from gascnn.toolkit.conversion.trace import trace
from gascnn.toolkit.errors import DataError, FormatError, UsageError

PERCENTILES = (99.0, 99.5, 99.9, 99.99, 100.0)
"""Those that are stored; ``--percentile`` picks one of them where there are no images."""

_LOW, _HIGH = "low", "high"


def measure_statistics(
    model: nn.Module,
    images: npt.NDArray[np.uint8],
    *,
    pixel_max: int = 255,
    count: int | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    origin: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Measure every population's activations on training images.

    Args:
        model: as it was trained; traced, and put into evaluation mode.
        images: (image, C, H, W) uint8, in a random order.
        pixel_max: pixel value of intensity 1.
        count: how many of them, at most; None takes what a conversion would: 512, fewer of a large network.
        percentiles: to be stored, each above 50 and at most 100.
        origin: recorded with them, such as the data set's name; plain values.
        progress: called with the images done and in all.

    Raises:
        ConversionError: a network that cannot be traced.
        DataError: images of another kind, or an activation that is not finite.
        UsageError: a percentile or count out of range.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) == 0:
        raise DataError(f"calibration images are {images.dtype} {images.shape}; expected uint8 (image, C, H, W)")
    graph = trace(model, (images.shape[1], images.shape[2], images.shape[3]))
    run_passes(graph)
    counts = ConversionOptions(calibration_images=count).checked().with_counts(graph.multiply_accumulates, len(images))
    chosen = torch.from_numpy(expected_input(images[: counts.calibration_images], "regular", pixel_max))
    names = [op.name for op in graph if op.kind == "neurons"]
    tell = None if progress is None else lambda done: progress(done, len(chosen))
    with torch.no_grad():
        found = measure_percentiles(graph, chosen, names, percentiles, progress=tell)
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    for name, values in found.items():
        for percentile, activations in values.items():
            tensors[_key(name, percentile)] = activations.percentile.numpy()
        extremes = next(iter(values.values()))
        tensors[f"{name}.{_LOW}"], tensors[f"{name}.{_HIGH}"] = extremes.low.numpy(), extremes.high.numpy()
    record = {"populations": names, "percentiles": list(percentiles), "images": len(chosen), **(origin or {})}
    return Statistics(tensors, record)


def with_statistics(bundle: Bundle, statistics: Statistics) -> Bundle:
    """The bundle with these statistics in the place of any it had."""
    return replace(bundle, statistics=statistics)


def stored_activations(statistics: Statistics, percentile: float) -> dict[str, Activations]:
    """What :func:`gascnn.toolkit.conversion.calibrate.measure_activations` gave, from a bundle's statistics.

    Args:
        statistics: of a bundle.
        percentile: one of those stored.

    Raises:
        UsageError: a percentile that is not stored; the message lists those that are.
        FormatError: a record or tensors that do not fit together.
    """
    names, stored = statistics.record.get("populations"), statistics.record.get("percentiles")
    if not isinstance(names, list) or not isinstance(stored, list):
        raise FormatError("the bundle's statistics lack their populations or percentiles; measure them with calibrate")
    if percentile not in stored:
        listed = ", ".join(f"{value:g}" for value in stored)
        raise UsageError(f"percentile {percentile:g} is not among the bundle's statistics; stored are {listed}")
    found = {}
    for name in names:
        keys = (_key(name, percentile), f"{name}.{_LOW}", f"{name}.{_HIGH}")
        missing = [key for key in keys if key not in statistics.tensors]
        if missing:
            raise FormatError(f"{missing[0]} is missing in the bundle's statistics; measure them anew with calibrate")
        level, low, high = (torch.from_numpy(np.array(statistics.tensors[key])) for key in keys)
        found[name] = Activations(level.to(torch.float64), low.to(torch.float32), high.to(torch.float32))
    return found


def _key(population: str, percentile: float) -> str:
    return f"{population}.p{percentile:g}"
