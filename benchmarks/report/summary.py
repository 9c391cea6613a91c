"""A report as lines for a terminal, the three figures that matter last."""

from __future__ import annotations

from typing import Any

_POINT, _WHOLE = 100, 1000


def show(report: dict[str, Any]) -> list[str]:
    """The summary, without a browser: each network's accuracy, energy by table, latency, the chip, notes, headline."""
    return [
        *_grid(("network", "accuracy", "95 %", "macro-F1", "agrees with the ANN"), _networks(report)),
        "",
        *_grid(
            ("cost table", "ANN, nJ", "SNN, nJ", "ANN/SNN", "8-bit ANN/SNN", "break-even, spikes a source"),
            _bills(report),
        ),
        "",
        *_grid(("latency, one image, one thread", "p50 ms", "p95 ms", "p99 ms", "images/s"), _timed(report)),
        *(f"{one['title']}: left out: {one['reason']}" for one in report["latency"]["left_out"]),
        "",
        *(one["fits"] for one in report["resources"]),
        "",
        *(f"note: {note}" for note in report["notes"]),
        "",
        *headline(report),
    ]


def headline(report: dict[str, Any]) -> list[str]:
    """Accuracy, energy, latency: a line each."""
    found = report["headline"]
    accuracy, energy, latency = found["accuracy"], found["energy"], found["latency"]
    spread = energy["range"]["ann"]
    lines = [
        f"accuracy: {_percent(accuracy['snn'])} of the SNN, {_percent(accuracy['ann'])} of the ANN "
        f"({points(accuracy['below'])})"
    ]
    if energy["ratio"] is None:
        lines.append("energy: no comparison under the paper's table")
    else:
        lines.append(f"energy: {times(energy['ratio'])} by the paper's arithmetic ({energy['table']})")
    if spread["lowest"] is not None:
        lines[-1] += (
            f"; over {spread['of']} tables from {times(spread['lowest']['ratio'])} ({spread['lowest']['table']}) to "
            f"{times(spread['highest']['ratio'])} ({spread['highest']['table']})"
        )
    snn, ann = latency["snn_p50_s"], latency["ann_p50_s"]
    lines.append(f"latency here: SNN in the simulator {_ms(snn)}, ANN in onnxruntime {_ms(ann)}, median of one image")
    return lines


def points(below: dict[str, Any]) -> str:
    """How far below or above the ANN, with the interval in the same direction."""
    sign = -1 if below["value"] < 0 else 1
    low, high = sorted(_POINT * sign * end for end in below["interval"])
    where = "above" if sign < 0 else "below"
    return f"{_POINT * abs(below['value']):.2f} points {where}, 95 %: {low:.2f} to {high:.2f}"


def times(ratio: float) -> str:
    """``3.0 times less`` or ``3.0 times more`` than the ANN."""
    if ratio >= 1:
        return f"{number(ratio)} times less than the ANN"
    return f"{number(1 / ratio)} times more than the ANN"


def _networks(report: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, found in report["accuracy"]["networks"].items():
        low, high = found["accuracy"]["interval"]
        agreement = report["accuracy"]["agreement"].get(name)
        rows.append(
            (
                _name(name, report),
                _percent(found["accuracy"]["value"]),
                f"{_POINT * low:.2f} to {_POINT * high:.2f}",
                _percent(found["macro_f1"]["value"]),
                "-" if agreement is None else _percent(agreement),
            )
        )
    return rows


def _name(name: str, report: dict[str, Any]) -> str:
    return {"ann": "ANN", "ann-int8": "ANN in 8 bits", "snn": f"SNN, T = {report['snn']['steps']}"}[name]


def _bills(report: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            one["title"],
            number(one["ann_pj"] / 1000),
            number(one["snn_pj"] / 1000),
            number(one["ratio"]),
            number(one["int8_ratio"]),
            number(one["break_even_spikes_per_source"]),
        )
        for one in report["energy"]["bills"]
    ]


def _timed(report: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for one in report["latency"]["contenders"]:
        fastest = max((entry["value"] for entry in one["throughput_per_s"]), default=None)
        milliseconds = (
            "-" if one[key] is None else f"{1000 * one[key]['value']:.3g}" for key in ("p50_s", "p95_s", "p99_s")
        )
        rows.append((one["title"], *milliseconds, number(fastest)))
    return rows


def number(value: float | None) -> str:
    """Three digits, whole from 1000 on, or a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= _WHOLE - 0.5 else f"{value:.3g}"


def _grid(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (columns, *rows)
    ]


def _percent(share: float) -> str:
    return f"{_POINT * share:.2f} %"


def _ms(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{1000 * seconds:.3g} ms"
