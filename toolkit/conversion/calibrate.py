"""Record the activations the thresholds are scaled by, in the network as it was trained."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gascnn.toolkit.conversion.ir import OpGraph, evaluate
from gascnn.toolkit.errors import DataError, UsageError

_ELEMENTS_AT_ONCE = 16_000_000


def activation_percentiles(
    graph: OpGraph,
    images: Tensor,
    names: list[str],
    percentile: float,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Per channel, the ``percentile``-th percentile of each named operation's output over images and positions.

    Only the largest values are kept while the images stream through, so memory does not grow with their number.

    Args:
        graph: the operations.
        images: (image, C, H, W) float in 0..1.
        names: operations to record.
        percentile: in (50, 100].
        batch_size: images at once, at most; fewer where their activations are large.
        progress: called with the number of images done.

    Returns:
        (C,) float64 for each name.

    Raises:
        UsageError: percentile out of range.
        DataError: no images, or an activation that is not finite.
    """
    if not 50.0 < percentile <= 100.0:
        raise UsageError(f"percentile is {percentile}; it must be above 50 and at most 100")
    if len(images) == 0:
        raise DataError("no images to calibrate with; give at least one")
    largest: dict[str, Tensor] = {}
    batch_size = max(1, min(batch_size, _ELEMENTS_AT_ONCE // sum(math.prod(graph.ops[n].shape) for n in names)))
    for start in range(0, len(images), batch_size):
        found = evaluate(graph, images[start : start + batch_size], set(names))
        for name, value in found.items():
            if not torch.isfinite(value).all():
                raise DataError(f"{name}: an activation is not finite; the weights or images hold NaN")
            columns = value.transpose(0, 1).flatten(1)
            keep = _kept(columns.shape[1] // len(value), len(images), percentile)
            candidates = torch.cat([largest[name], columns], dim=1) if name in largest else columns
            largest[name] = candidates.topk(min(keep, candidates.shape[1]), dim=1).values
        if progress is not None:
            progress(min(start + batch_size, len(images)))
    return {name: values[:, -1].to(torch.float64) for name, values in largest.items()}


def _kept(positions: int, images: int, percentile: float) -> int:
    """How many of the largest values reach down to the percentile."""
    return max(1, math.ceil(positions * images * (1.0 - percentile / 100.0)))
