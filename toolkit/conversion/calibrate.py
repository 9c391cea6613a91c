"""Record the activations the thresholds are scaled by, in the network as it was trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gascnn.toolkit.conversion.ir import OpGraph, evaluate
from gascnn.toolkit.errors import DataError, UsageError

_ELEMENTS_AT_ONCE = 16_000_000


@dataclass(frozen=True, eq=False)
class Activations:
    """What the ANN computes for one population, a channel.

    Attributes:
        percentile: (C,) float64, of the activations.
        low, high: (C,) smallest and largest pre-activation: what the ReLU is given.
    """

    percentile: Tensor
    low: Tensor
    high: Tensor


def measure_activations(
    graph: OpGraph,
    images: Tensor,
    names: list[str],
    percentile: float,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Activations]:
    """Percentiles of each population's activations and extremes of its pre-activations, over images and positions.

    Only the largest values are kept while the images stream through, so memory does not grow with their number.

    Args:
        graph: the operations.
        images: (image, C, H, W) float in 0..1.
        names: of populations.
        percentile: in (50, 100].
        batch_size: images at once, at most; fewer where their activations are large.
        progress: called with the number of images done.

    Raises:
        UsageError: percentile out of range.
        DataError: no images, or an activation that is not finite.
    """
    found = measure_percentiles(graph, images, names, (percentile,), batch_size, progress)
    return {name: values[percentile] for name, values in found.items()}


def measure_percentiles(
    graph: OpGraph,
    images: Tensor,
    names: list[str],
    percentiles: Sequence[float],
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> dict[str, dict[float, Activations]]:
    """:func:`measure_activations` at several percentiles in one pass; memory goes with the lowest of them."""
    for percentile in percentiles:
        if not 50.0 < percentile <= 100.0:
            raise UsageError(f"percentile is {percentile}; it must be above 50 and at most 100")
    if len(images) == 0:
        raise DataError("no images to calibrate with; give at least one")
    found = {name: _Recorder(graph.ops[name].readout, min(percentiles), len(images)) for name in names}
    batch_size = max(1, min(batch_size, _ELEMENTS_AT_ONCE // sum(math.prod(graph.ops[n].shape) for n in names)))
    for start in range(0, len(images), batch_size):
        given = evaluate(graph, images[start : start + batch_size], {graph.ops[n].inputs[0] for n in names})
        for name, recorder in found.items():
            recorder.add(name, given[graph.ops[name].inputs[0]])
        if progress is not None:
            progress(min(start + batch_size, len(images)))
    return {name: {p: recorder.result(p) for p in percentiles} for name, recorder in found.items()}


class _Recorder:
    """Extremes of what came so far, and the largest activations down to the percentile."""

    def __init__(self, readout: bool, percentile: float, images: int) -> None:
        self._readout, self._percentile, self._images = readout, percentile, images
        self._positions = 0
        self._largest = self._low = self._high = torch.empty(0)

    def add(self, name: str, value: Tensor) -> None:
        """Take (image, C, ...) pre-activations."""
        if not torch.isfinite(value).all():
            raise DataError(f"{name}: an activation is not finite; the weights or images hold NaN")
        columns = value.transpose(0, 1).flatten(1)
        low, high = columns.amin(1), columns.amax(1)
        self._low = torch.minimum(self._low, low) if len(self._low) else low
        self._high = torch.maximum(self._high, high) if len(self._high) else high
        self._positions = columns.shape[1] // len(value)
        keep = _kept(self._positions, self._images, self._percentile)
        activations = columns if self._readout else columns.relu()
        candidates = torch.cat([self._largest, activations], dim=1) if len(self._largest) else activations
        self._largest = candidates.topk(min(keep, candidates.shape[1]), dim=1).values

    def result(self, percentile: float) -> Activations:
        """At the percentile recorded for, or a higher one."""
        reached = min(_kept(self._positions, self._images, percentile), self._largest.shape[1])
        return Activations(self._largest[:, reached - 1].to(torch.float64), self._low, self._high)


def _kept(positions: int, images: int, percentile: float) -> int:
    """How many of the largest values reach down to the percentile."""
    return max(1, math.ceil(positions * images * (1.0 - percentile / 100.0)))
