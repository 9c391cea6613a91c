"""Percentiles, throughput, ratios and shares against formulas written out here."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import binomtest

from gascnn.benchmarks.latency import figures


def quantile(values, share):
    """Linear between the two samples around place (n - 1) * share, by sorting alone."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread(rounds=12, calls=10, seed=0):
    """Rounds that differ by more than the calls within them."""
    rng = np.random.default_rng(seed)
    return [(level + 0.001 * rng.random(calls)).tolist() for level in rng.uniform(0.01, 0.1, rounds)]


def resampled(rounds, figure):
    """The figure of rounds drawn with replacement, again and again."""
    count = len(rounds)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=figures.RESAMPLES)
    values = [figure([rounds[i] for i in range(count) for _ in range(times[i])]) for times in draws]
    return [quantile(values, 0.025), quantile(values, 0.975)]


def pooled(rounds):
    return [second for calls in rounds for second in calls]


def test_percentiles_are_those_of_all_calls():
    rounds = spread()
    found = figures.percentiles([*rounds[:5], [], *rounds[5:]])  # a round it sat out changes nothing
    for name, percent in (("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99)):
        assert found[name]["value"] == pytest.approx(quantile(pooled(rounds), percent))
        expected = resampled(rounds, lambda chosen, p=percent: quantile(pooled(chosen), p))
        assert found[name]["interval"] == pytest.approx(expected)


def test_intervals_draw_rounds_not_calls():
    """Calls of a round come together: drawing them one by one would promise more than was measured."""
    rounds = spread(rounds=8, calls=30)
    low, high = figures.percentiles(rounds)["p50_s"]["interval"]
    one_by_one = figures.percentiles([[second] for second in pooled(rounds)])["p50_s"]["interval"]
    assert high - low > 2 * (one_by_one[1] - one_by_one[0])


@pytest.mark.parametrize(("samples", "known"), [(19, [True, False, False]), (20, [True, True, False]),
                                                (99, [True, True, False]), (100, [True, True, True])])  # fmt: skip
def test_a_percentile_needs_samples_above_it(samples, known):
    found = figures.percentiles([[0.1]] * samples)
    assert [found[name] is not None for name in ("p50_s", "p95_s", "p99_s")] == known


def test_no_interval_of_few_rounds():
    assert figures.percentiles([[1.0, 2.0, 3.0]] * 4)["p50_s"] == {"value": 2.0, "interval": None}
    assert figures.percentiles([[1.0, 2.0, 3.0]] * 5)["p50_s"] == {"value": 2.0, "interval": [2.0, 2.0]}
    assert figures.throughput([[1.0]] * 4, 1)["interval"] is None
    assert figures.ratio([[1.0]] * 4, [[2.0]] * 4) == {"value": 0.5, "interval": None, "rounds": 4}


def test_throughput_is_all_images_through_all_seconds():
    rounds = [[0.5, 1.5], [], [2.0], [1.0], [1.0, 3.0], [0.25]]
    found = figures.throughput(rounds, 16)
    assert found["value"] == pytest.approx(16 * 7 / 9.25)
    assert (found["samples"], found["batch_size"]) == (7, 16)
    there = [calls for calls in rounds if calls]
    expected = resampled(there, lambda chosen: 16 * len(pooled(chosen)) / sum(pooled(chosen)))
    assert found["interval"] == pytest.approx(expected)


def test_ratios_are_of_the_same_round():
    """The machine is ten times as slow in half of the rounds, for both: the ratio does not see it."""
    slowness = [1.0, 10.0, 1.0, 10.0, 1.0, 10.0]
    above = [[3.0 * slow, 3.0 * slow, 90.0] for slow in slowness]
    below = [[1.0 * slow, 1.0 * slow] for slow in slowness]
    assert figures.ratio(above, below) == {"value": 3.0, "interval": [3.0, 3.0], "rounds": 6}
    above[1] = []  # sat out
    assert figures.ratio(above, below) == {"value": 3.0, "interval": [3.0, 3.0], "rounds": 5}
    assert figures.ratio([[], [1.0]], [[1.0], []]) is None


def test_interval_of_a_ratio():
    above, below = spread(seed=1), spread(seed=2)
    found = figures.ratio(above, below)
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(above, below, strict=True)]
    assert found["value"] == pytest.approx(statistics.median(ratios))
    assert found["interval"] == pytest.approx(resampled([[r] for r in ratios], lambda c: quantile(pooled(c), 0.5)))


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 9), (950, 1000)])
def test_shares_have_wilsons_interval(right, count):
    found = figures.share(right, count)
    assert found["value"] == right / count
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert found["interval"] == pytest.approx([expected.low, expected.high], abs=1e-12)
