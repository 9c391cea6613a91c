"""Picture of a sweep: macro-F1, spikes, synaptic operations and time against T, a line for each threshold factor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gascnn.benchmarks.plots import check_picture
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.files import atomic_path

_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Told apart by the colour-blind too: M. Okabe, K. Ito, "Color Universal Design"."""
_MARKS = "os^Dv*"

_PANELS: tuple[tuple[str, Callable[[dict[str, Any]], float | None]], ...] = (
    ("macro-F1 on test images, %", lambda p: 100 * p["test"]["macro_f1"]["value"]),
    ("spikes a neuron and image", lambda p: p["test"]["counts"]["spikes_per_neuron"]["population"]),
    ("synaptic operations an image", lambda p: p["test"]["counts"]["synaptic_operations"]),
    ("ms an image, one at a time", lambda p: 1000 * p["latency_s"]),
)


def draw_sweep(result: dict[str, Any], path: Path) -> None:
    """Draw what ``gascnn bench sweep`` found.

    Args:
        result: as in its JSON.
        path: of the picture; PNG or SVG.

    Raises:
        UsageError: as :func:`gascnn.benchmarks.plots.check_picture`, or no point was measured.
        DataError: the disk is full or the place cannot be written.
    """
    check_picture(path)
    points = [point for point in result["points"] if "error" not in point]
    if not points:
        raise UsageError("there is nothing to draw; no point could be measured")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 7.6), layout="constrained")
    axes = list(figure.subplots(2, 2).flat)
    for axis, (title, value) in zip(axes, _PANELS, strict=True):
        _panel(axis, points, title, value)
    for number, factor in enumerate(_factors(points)):
        _interval(axes[0], [p for p in points if p["factor"] == factor], _style(number)["color"])
    if result["ann"] is not None:
        ann = 100 * result["ann"]["test"]["macro_f1"]["value"]
        axes[0].axhline(ann, color="#555555", linestyle="--", label="ANN")
    for axis in axes[2:]:
        axis.set_yscale("log")
    recommended = result["recommended"]["steps"]
    if recommended is not None:
        axes[0].axvline(recommended, color="#999999", linestyle=":", label=f"recommended T = {recommended}")
    axes[0].legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lower().removeprefix("."))


def _factors(points: list[dict[str, Any]]) -> list[float]:
    return sorted({point["factor"] for point in points})


def _style(number: int) -> dict[str, Any]:
    return {"color": _LINES[number % len(_LINES)], "marker": _MARKS[number % len(_MARKS)], "markersize": 4}


def _panel(
    axis: Any, points: list[dict[str, Any]], title: str, value: Callable[[dict[str, Any]], float | None]
) -> None:
    steps = sorted({point["steps"] for point in points})
    for number, factor in enumerate(_factors(points)):
        line = [(p["steps"], value(p)) for p in points if p["factor"] == factor]
        shown = [(t, v) for t, v in line if v is not None]
        axis.plot(*zip(*shown, strict=True), label=f"thresholds x {factor:g}", **_style(number))
    axis.set_xscale("log")
    axis.set_xticks(steps, [str(t) for t in steps])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("T")
    axis.set_ylabel(title)
    axis.grid(visible=True, color="#dddddd")


def _interval(axis: Any, points: list[dict[str, Any]], colour: str) -> None:
    steps = [p["steps"] for p in points]
    low, high = ([100 * p["test"]["macro_f1"]["interval"][end] for p in points] for end in (0, 1))
    axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
