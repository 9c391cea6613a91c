"""Cost curves of the simulator: time an image against steps, width, image size and firing rate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gascnn.benchmarks.networks import BenchNetwork, convs
from gascnn.hardware.simulator import Simulator
from gascnn.toolkit.errors import UsageError

Say = Callable[[str], None]

DEPTH = 3
RATE = 0.08
HIGH_RATE_MEAN = 0.25
"""Mean of the weights in standard deviations, for all points of the curve of rates: at 50 % with mean 0 neurons that
drift down would never fire."""


@dataclass(frozen=True)
class Curve:
    """One quantity that is varied.

    Attributes:
        name: argument of :func:`gascnn.benchmarks.networks.convs`.
        title: with its unit.
        values: in rising order.
        lines: label, method and threads of what is timed.
    """

    name: str
    title: str
    values: tuple[float, ...]
    lines: tuple[tuple[str, str, int], ...]


def curves(threads: int) -> tuple[Curve, ...]:
    """The four curves of ``--scaling``.

    Args:
        threads: of the lines that use several.
    """
    both = (("auto", "auto", threads), ("auto, one thread", "auto", 1))
    methods = (*both, ("events", "events", threads), ("dense", "dense", threads))
    return (
        Curve("steps", "time steps T", (8, 16, 32, 64, 128, 256), both),
        Curve("width", "channels", (16, 32, 64, 128), both),
        Curve("size", "pixels a side", (16, 32, 48, 64), both),
        Curve("rate", "spikes a neuron and step", (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 0.5), methods),
    )


def measure(
    curve: Curve, *, rounds: int = 5, images: int = 4, at_least_s: float = 0.1, say: Say | None = None, **sizes: Any
) -> dict[str, Any]:
    """Time every line at every value, the lines in turns.

    Args:
        curve: what is varied.
        rounds: of which the median is given.
        images: run at once.
        at_least_s: how long each line runs in a round.
        say: told in a line what is being done.
        sizes: further arguments of :func:`gascnn.benchmarks.networks.convs`.

    Returns:
        ``name``, ``title``, ``images_at_once`` and ``points``: for each value the network's neurons and measured
        firing rate, and for each line ``per_image_s`` with its rounds.

    Raises:
        UsageError: ``rounds`` or ``images`` below 1, or a network that cannot be made.
    """
    for name, number in (("rounds", rounds), ("images", images)):
        if number < 1:
            raise UsageError(f"{name} is {number}; it must be at least 1")
    points = []
    for value in curve.values:
        if say is not None:
            say(f"{curve.title}: {value:g}")
        points.append(_point(curve, value, rounds, images, at_least_s, sizes))
    return {"name": curve.name, "title": curve.title, "images_at_once": images, "points": points}


def _point(
    curve: Curve, value: float, rounds: int, images: int, at_least_s: float, sizes: dict[str, Any]
) -> dict[str, Any]:
    arguments: dict[str, Any] = {"rate": RATE, "depth": DEPTH, "images": images, **sizes}
    arguments[curve.name] = value if curve.name == "rate" else int(value)
    if curve.name == "rate":
        arguments["mean"] = HIGH_RATE_MEAN
    bench = convs(**arguments)
    runs = {label: _runner(bench, method, threads) for label, method, threads in curve.lines}
    counts = next(iter(runs.values()))()
    spikes = sum(int(count.sum()) for count in counts)
    times: dict[str, list[float]] = {label: [] for label in runs}
    for number in range(rounds + 1):
        for label, run in runs.items():
            seconds = _mean_s(run, at_least_s) / images
            if number:  # the first round warms up
                times[label].append(seconds)
    return {
        "value": value,
        "neurons": bench.network.neurons,
        "multiply_accumulates_a_step": bench.network.multiply_accumulates,
        "firing_rate": spikes / (bench.network.neurons * bench.steps * images),
        "lines": [
            {"label": label, "per_image_s": statistics.median(one), "per_image_s_rounds": one}
            for label, one in times.items()
        ],
    }


def _runner(bench: BenchNetwork, method: str, threads: int) -> Callable[[], Sequence[Any]]:
    simulator = Simulator(bench.network, method=method, threads=threads)
    return lambda: simulator.run(bench.spikes).counts


def _mean_s(run: Callable[[], Any], at_least_s: float) -> float:
    started = time.perf_counter()
    runs = 0
    while True:
        run()
        runs += 1
        passed = time.perf_counter() - started
        if passed >= at_least_s:
            return passed / runs
