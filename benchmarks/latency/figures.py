"""Percentiles, throughput and ratios from the times of a race, shares from its answers, each with its interval.

Times within a round are alike, for whatever slows the machine lasts longer than a call: intervals of times come from
drawing whole rounds with replacement (percentile bootstrap), not single calls.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.ratios import paired
from gascnn.toolkit.wilson import wilson_interval

RESAMPLES, LEVEL = 1000, 0.95

LEAST_ROUNDS = 5
"""Rounds an interval needs; of fewer there are too few to draw."""

LEAST_SAMPLES = {50: 1, 95: 20, 99: 100}
"""Samples a percentile needs: with fewer, none lies above it."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rounds = Sequence[Sequence[float]]
"""Seconds of each call, one sequence a round; rounds that a contender sat out are empty."""


def percentiles(rounds: Rounds) -> dict[str, dict[str, Any] | None]:
    """``p50_s``, ``p95_s`` and ``p99_s`` of all calls, each ``value`` and ``interval`` (None: fewer than 5 rounds).

    Between two samples it is interpolated linearly (numpy's default). A percentile with fewer samples than
    :data:`LEAST_SAMPLES` is None.

    Args:
        rounds: at least one call.
    """
    there = [np.asarray(calls, np.float64) for calls in rounds if len(calls)]
    samples, times = np.concatenate(there), _times_drawn(len(there))
    round_of = np.repeat(np.arange(len(there)), [len(calls) for calls in there])
    found: dict[str, dict[str, Any] | None] = {}
    for percent, least in LEAST_SAMPLES.items():
        drawn = None if times is None else _percentile(samples, times[:, round_of], percent)
        value = {"value": float(np.percentile(samples, percent)), "interval": _ends(drawn)}
        found[f"p{percent}_s"] = value if samples.size >= least else None
    return found


def throughput(rounds: Rounds, batch_size: int) -> dict[str, Any]:
    """Images a second: all images through all seconds, ``value`` and ``interval``, with ``samples``, the batches."""
    there = [(len(calls), math.fsum(calls)) for calls in rounds if len(calls)]
    batches, seconds = np.array(there, np.float64).T
    times = _times_drawn(len(there))
    return {
        "batch_size": batch_size,
        "value": float(batch_size * batches.sum() / seconds.sum()),
        "interval": _ends(None if times is None else batch_size * (times @ batches) / (times @ seconds)),
        "samples": int(batches.sum()),
    }


def ratio(above: Rounds, below: Rounds) -> dict[str, Any] | None:
    """How many times as long as another: the median over rounds of the ratio of the rounds' medians.

    Returns:
        ``value``, ``interval`` and ``rounds``, how many both took part in; None if in none.
    """
    medians = [[statistics.median(calls) if len(calls) else None for calls in rounds] for rounds in (above, below)]
    value = paired(medians[0], medians[1])
    if value is None:
        return None
    ratios = np.array([a / b for a, b in zip(*medians, strict=True) if a is not None and b is not None])
    times = _times_drawn(len(ratios))
    drawn = None if times is None else _percentile(ratios, times, 50)
    return {"value": value, "interval": _ends(drawn), "rounds": len(ratios)}


def _times_drawn(rounds: int) -> Ints | None:
    """(resample, round) how often each round comes up in a draw of as many; None for too few of them."""
    if rounds < LEAST_ROUNDS:
        return None
    return np.random.default_rng(0).multinomial(rounds, np.full(rounds, 1 / rounds), size=RESAMPLES)


def _percentile(samples: Floats, times: Ints, percent: float) -> Floats:
    """(resample,) numpy's percentile of samples that are there as often as ``times`` (resample, sample) says."""
    order = np.argsort(samples)
    ranks = np.cumsum(times[:, order], axis=1)  # how many are there up to each
    place = (ranks[:, -1:] - 1) * (percent / 100)
    below = np.floor(place)
    low, high = (
        samples[order][(ranks > rank).argmax(axis=1)] for rank in (below, np.minimum(below + 1, ranks[:, -1:] - 1))
    )
    found: Floats = low + (place - below)[:, 0] * (high - low)
    return found


def _ends(drawn: Floats | None) -> list[float] | None:
    if drawn is None:
        return None
    ends: list[float] = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return ends


def share(right: int, count: int) -> dict[str, Any]:
    """A share of images, ``value`` and ``interval``, Wilson's: unlike a bootstrap's it has a width where all are right.

    Args:
        right: 0 to ``count``.
        count: at least 1.
    """
    return {"value": right / count, "interval": list(wilson_interval(right, count, LEVEL))}
