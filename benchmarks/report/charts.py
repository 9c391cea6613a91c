"""The report's pictures, drawn by matplotlib as SVG that stands in the page itself.

Small enough to be read on a telephone, in colours that the colour-blind tell apart (M. Okabe, K. Ito, "Color Universal
Design"); what a colour says, a mark, a line or a label says too.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)
MARKS = "os^Dv*"
HATCHES = ("", "//", "..", "xx", "--", "\\\\")

_WIDTH_IN, _HEIGHT_IN = 4.2, 2.9
_NARROW = 28


def bars(groups: Sequence[str], series: Mapping[str, Sequence[float | None]], label: str, *, log: bool = False) -> str:
    """Bars side by side; what is None is left out and says so.

    Args:
        groups: along the vertical axis, first on top.
        series: by name, one value a group.
        label: of the values.
        log: whether their axis is logarithmic.
    """
    height = max(_HEIGHT_IN, 0.22 * len(groups) * len(series) + 0.9)

    def draw(axis: Any) -> None:
        places = np.arange(len(groups), dtype=float)
        thick = 0.8 / len(series)
        for number, (name, values) in enumerate(series.items()):
            shown = [0.0 if value is None else value for value in values]
            axis.barh(
                places + (number - (len(series) - 1) / 2) * thick,
                shown,
                thick,
                label=name,
                color=COLOURS[number % len(COLOURS)],
                hatch=HATCHES[number % len(HATCHES)],
                edgecolor="white",
                linewidth=0.5,
            )
        axis.set_yticks(places, [_short(group) for group in groups])
        axis.invert_yaxis()
        axis.set_xlabel(label)
        if log and any(value for values in series.values() for value in values):
            axis.set_xscale("log")
        axis.grid(visible=True, axis="x", color="#dddddd")
        axis.set_axisbelow(True)
        if len(series) > 1:
            _legend_above(axis, len(series))

    return _svg(draw, height)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    *,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    level: tuple[str, float] | None = None,
    marks: bool = True,
    log_x: bool = False,
) -> str:
    """Lines through points, with bands for intervals and a dashed line for what they are compared with.

    Args:
        series: by name, x and y.
        x_label, y_label: of the axes.
        bands: by the series' name, lower and upper ends.
        level: name and height of the dashed line.
        marks: whether each point is marked.
        log_x: whether x is logarithmic, with a tick at each point.
    """

    def draw(axis: Any) -> None:
        for number, (name, (x, y)) in enumerate(series.items()):
            style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "markersize": 4}
            axis.plot(x, y, label=name, marker=MARKS[number % len(MARKS)] if marks else None, **style)
            if bands is not None and name in bands:
                axis.fill_between(x, *bands[name], color=style["color"], alpha=0.18, linewidth=0)
        if level is not None:
            axis.axhline(level[1], color=GREY, linestyle="--", label=level[0])
        if log_x:
            ticks = sorted({value for x, _ in series.values() for value in x})
            axis.set_xscale("log", base=2)
            axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axis.set_xticks([], minor=True)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.grid(visible=True, color="#dddddd")
        if len(series) + (level is not None) > 1:
            _legend_above(axis, len(series) + (level is not None))

    return _svg(draw)


def heat_map(values: npt.ArrayLike, rows: Sequence[str], x_label: str, label: str) -> str:
    """A grid of values, lightest where they are highest."""

    def draw(axis: Any) -> None:
        image = axis.imshow(np.asarray(values, dtype=float), aspect="auto", cmap="cividis", interpolation="nearest")
        axis.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axis.set_xlabel(x_label)
        axis.figure.colorbar(image, ax=axis, label=label)

    return _svg(draw, max(_HEIGHT_IN, 0.2 * len(rows) + 0.9))


def confusion(matrix: npt.ArrayLike, classes: Sequence[str], title: str) -> str:
    """A confusion matrix; each cell says how many images."""
    counts = np.asarray(matrix, dtype=int)
    side = max(2.9, 0.33 * len(classes) + 1.4)

    def draw(axis: Any) -> None:
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            colour = "white" if share[row, column] > 0.6 else "black"
            axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, size=7)
        names = [_short(name) for name in classes]
        upright = max(map(len, names)) > 2
        axis.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("answer")
        axis.set_ylabel("label")
        axis.set_title(title, size="medium")

    return _svg(draw, side)


def raster(layers: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Spikes of some layers' neurons over time, as :func:`gascnn.benchmarks.report.examples.examples` keeps them."""
    figure = Figure(figsize=(_WIDTH_IN, 3.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(layers), 1, sharex=True))
    for axis, layer in zip(axes, layers, strict=True):
        spikes = np.zeros((len(layer["shown"]), steps), dtype=np.uint8)
        spikes[layer["rows"], layer["steps"]] = 1
        axis.imshow(spikes, aspect="auto", cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(f"{_short(layer['name'], 34)}: {len(layer['shown'])} of {layer['neurons']}", size=7, loc="left")
        axis.tick_params(labelsize=6)
    axes[-1].set_xlabel("step")
    return _encoded(figure)


def picture(pixels: npt.ArrayLike) -> str:
    """A grey image, its pixels kept sharp, as a PNG in the page."""
    from PIL import Image

    values = np.asarray(pixels, dtype=np.uint8)
    scale = max(1, 128 // max(values.shape))
    buffer = io.BytesIO()
    Image.fromarray(values.repeat(scale, axis=0).repeat(scale, axis=1)).save(buffer, "PNG")
    return _data("image/png", buffer.getvalue())


def _svg(draw: Callable[[Any], None], height: float = _HEIGHT_IN) -> str:
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    axis = figure.subplots()
    axis.tick_params(labelsize=7)
    axis.xaxis.label.set_fontsize(8)
    axis.yaxis.label.set_fontsize(8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    draw(axis)
    return _encoded(figure)


def _encoded(figure: Figure) -> str:
    buffer = io.BytesIO()
    # No date: the same figures give the same page.
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _data("image/svg+xml", buffer.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _legend_above(axis: Any, entries: int) -> None:
    axis.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(entries, 3), fontsize=7, frameon=False, borderpad=0.2
    )


def _short(name: str, room: int = _NARROW) -> str:
    return name if len(name) <= room else f"{name[: room - 1]}…"
