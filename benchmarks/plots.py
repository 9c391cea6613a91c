"""Pictures of a race and of the cost curves, with matplotlib (the extra ``bench``)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.files import atomic_path

SUFFIXES = (".png", ".svg")
_COLOURS = {"ours": "#0072b2", "peer": "#999999", "ann": "#e69f00", "lava": "#d55e00"}
"""Told apart by the colour-blind too: M. Okabe, K. Ito, "Color Universal Design"."""
_LINES = ("#0072b2", "#56b4e9", "#009e73", "#d55e00")
_MARKS = "os^D"


def check_picture(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before anything is measured.

    Raises:
        UsageError: a kind of file other than PNG and SVG, or no matplotlib.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path} is not a picture this command writes; give a name that ends in {' or '.join(SUFFIXES)}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a picture needs matplotlib; install it with: pip install 'gascnn[bench]'")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw what ``gascnn bench simulator`` found.

    Args:
        result: as in its JSON: bars for each of ``networks``, a panel for each curve of ``scaling``.
        path: of the picture; PNG or SVG.

    Raises:
        UsageError: as :func:`check_picture`, or nothing to draw.
        DataError: the disk is full or the place cannot be written.
    """
    check_picture(path)
    networks, curves = result["networks"], result["scaling"]
    panels = len(networks) + len(curves)
    if not panels:
        raise UsageError("there is nothing to draw; measure a network (--net) or the cost curves (--scaling)")
    from matplotlib.figure import Figure

    columns = min(2, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(6.4 * columns, 3.8 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, network in zip(axes, networks, strict=False):
        _bars(axis, network)
    for axis, curve in zip(axes[len(networks) :], curves, strict=False):
        _curve(axis, curve)
    for axis in axes[panels:]:
        axis.set_axis_off()
    machine = result["machine"]
    figure.supxlabel(f"{machine['processor']}, {result['threads']} threads", fontsize="small", color="#555555")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lower().removeprefix("."))


def _bars(axis: Any, network: dict[str, Any]) -> None:
    """Time an image of each contender, fastest at the top."""
    there = sorted((c for c in network["contenders"] if c["per_image_s"]), key=lambda c: -c["per_image_s"])
    milliseconds = [1000 * c["per_image_s"] for c in there]
    axis.barh([c["title"] for c in there], milliseconds, color=[_COLOURS[c["kind"]] for c in there])
    for row, value in enumerate(milliseconds):
        axis.annotate(
            f"{value:.0f}" if value >= 1000 else f"{value:.3g}",
            (value, row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            size="small",
        )
    axis.set_xscale("log")
    axis.set_xlim(min(milliseconds) / 2, max(milliseconds) * 4)
    axis.set_xlabel("ms an image (log scale)")
    axis.set_title(f"{network['name']}, {100 * network['promised_firing_rate']:g} % firing, T = {network['steps']}")


def _curve(axis: Any, curve: dict[str, Any]) -> None:
    """Time an image against what is varied, both on log scales."""
    values = [point["value"] for point in curve["points"]]
    for number, line in enumerate(curve["points"][0]["lines"]):
        milliseconds = [1000 * point["lines"][number]["per_image_s"] for point in curve["points"]]
        style = {"color": _LINES[number % len(_LINES)], "marker": _MARKS[number % len(_MARKS)]}
        axis.plot(values, milliseconds, label=line["label"], markersize=4, **style)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.set_xticks([], minor=True)
    axis.set_xlabel(curve["title"])
    axis.set_ylabel("ms an image")
    axis.grid(visible=True, color="#dddddd")
    axis.legend()
