"""Accuracy with its interval, and percentiles of latencies, from few samples as from many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gascnn.benchmarks.latency.figures import LEAST_SAMPLES
from gascnn.toolkit.wilson import wilson_interval


def accuracy(right: int, images: int) -> dict[str, Any]:
    """``right``, ``images``, ``value`` and ``interval``, Wilson's, of at least one image."""
    return {"right": right, "images": images, "value": right / images, "interval": list(wilson_interval(right, images))}


def short(value: float) -> str:
    """Three digits, and never an exponent above: 0.0813, 57.8, 1740."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def latency(seconds: Sequence[float]) -> dict[str, Any]:
    """Of one image each: ``samples``, percentiles, ``mean_s``, and ``images_per_s``, the inverse of the mean.

    A percentile of fewer samples than :data:`gascnn.benchmarks.latency.figures.LEAST_SAMPLES` is None.
    """
    values = np.asarray(seconds, np.float64)
    found: dict[str, Any] = {"samples": len(values)}
    for percent, least in LEAST_SAMPLES.items():
        found[f"p{percent}_s"] = float(np.percentile(values, percent)) if len(values) >= least else None
    mean = float(values.mean())
    return {**found, "mean_s": mean, "images_per_s": 1 / mean}
