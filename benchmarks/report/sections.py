"""The sections of ``report.html``: charts and tables of each part of a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gascnn.benchmarks.report import charts
from gascnn.benchmarks.report.summary import number
from gascnn.benchmarks.report.template import Section, table

_NETWORKS = {"ann": "ANN", "ann-int8": "ANN, 8 bits", "snn": "SNN"}
_KINDS = {"population": "neurons", "relay": "relays (skips)", "always-on": "always-on (biases)"}


def _accuracy(report: dict[str, Any]) -> Section:
    found, classes = report["accuracy"], report["data"]["classes"]
    rows = []
    for name, one in found["networks"].items():
        below = one.get("macro_f1_below")
        rows.append(
            (
                _NETWORKS[name],
                _with_interval(one["accuracy"]),
                _with_interval(one["macro_f1"]),
                "-" if below is None else _with_interval(below),
                _percent(found["agreement"].get(name)),
            )
        )
    names = [*classes, *(f"class {index}" for index in range(len(classes), len(found["confusion"]["snn"])))]
    return {
        "title": "Answers",
        "texts": ["Intervals of 95 %, percentile bootstrap over the images; differences are on the same resamples."],
        "tables": [
            table(
                (
                    "network",
                    "accuracy, %",
                    "macro-F1, %",
                    "macro-F1 below the ANN, points",
                    "same answer as the ANN, %",
                ),
                rows,
            )
        ],
        "charts": [
            _chart(
                charts.confusion(found["confusion"][name], names, _NETWORKS[name]),
                f"Confusion of the {_NETWORKS[name]}",
            )
            for name in ("ann", "snn")
        ],
    }


def _energy(report: dict[str, Any]) -> Section:
    bills = report["energy"]["bills"]
    series = {
        "ANN": [one["ann_pj"] / 1000 for one in bills],
        "ANN, 8 bits": [one["int8_ann_pj"] / 1000 for one in bills],
        "SNN": [one["snn_pj"] / 1000 or None for one in bills],
    }
    rows = [
        (
            one["title"],
            number(one["ann_pj"] / 1000),
            number(one["int8_ann_pj"] / 1000),
            number(one["snn_pj"] / 1000),
            number(one["ratio"]),
            number(one["int8_ratio"]),
            number(one["break_even_spikes_per_source"]),
            one["sentence"],
            one["source"] + ("; " + one["note"] if one["note"] else ""),
        )
        for one in bills
    ]
    power = report["power"]
    measured = [
        (
            one["title"],
            one["meter"],
            number(one["energy_per_inference_j"]),
            "-" if one["interval_j"] is None else f"{one['interval_j'][0]:.3g} to {one['interval_j'][1]:.3g}",
            f"{one['idle_power_w']:.3g}",
            "; ".join(one["warnings"]),
        )
        for one in power["measured"]
    ]
    tables = [
        table(
            (
                "cost table", "#ANN, nJ", "#8-bit ANN, nJ", "#SNN, nJ", "#ANN/SNN", "#8-bit ANN/SNN",
                "#break-even, spikes a source", "in words", "source",
            ),
            rows,
            note="Of one image. Above 1 in ANN/SNN the SNN needs less. Neuromorphic chips have no price for an ANN.",
        )
    ]  # fmt: skip
    if measured:
        columns = ("network", "meter", "#J an image, idle subtracted", "95 %", "#idle, W", "remarks")
        tables.append(table(columns, measured, title="Measured"))
    if power["failed"] or power["unavailable"]:
        rows_missing = [(one["name"], one["why"]) for one in (*power["failed"], *power["unavailable"])]
        tables.append(table(("meter", "why it was not read"), rows_missing, title="Meters not readable here"))
    return {
        "title": "Energy",
        "texts": [
            f"Spikes a source and image: {number(bills[0]['spikes_per_source'])}. Operations are counted on "
            " the deployed integers, with fan-outs as they are; costs are published figures."
        ],
        "charts": [
            _chart(
                charts.bars([one["title"] for one in bills], series, "nJ an image", log=True),
                "Energy of one image by cost table",
            )
        ],
        "tables": tables,
    }


def _firing(report: dict[str, Any]) -> Section:
    layers = report["activity"]["layers"]
    names = [layer["name"] for layer in layers]
    kinds = [kind for kind in _KINDS if any(kind in layer["firing_rate"] for layer in layers)]
    series = {_KINDS[kind]: [layer["firing_rate"].get(kind) for layer in layers] for kind in kinds}
    by_step = [layer["by_step"]["firing_rate"].get("population", []) for layer in layers]
    sources = [kind for kind, value in report["activity"]["operations_by_source"].items() if value]
    operations = {kind: [layer["operations_by_source"].get(kind, 0.0) for layer in layers] for kind in sources}
    rows = [
        (
            layer["name"],
            f"{sum(layer['neurons'].values()):,}",
            f"{layer['synapses']:,}",
            number(layer["firing_rate"].get("population")),
            f"{layer['operations']:,.0f}",
            f"{layer['multiply_accumulates']:,.0f}",
            f"{layer['neuron_updates']:,}",
        )
        for layer in layers
    ]
    pictures = [
        _chart(charts.bars(names, series, "spikes a neuron and step"), "Firing rate by layer"),
        _chart(charts.bars(names, operations, "synaptic operations an image"), "Operations by layer and source"),
    ]
    if all(by_step):
        heat = charts.heat_map(by_step, names, "step", "spikes a neuron")
        pictures.append(_chart(heat, "Firing rate of computing neurons by layer and step"))
    columns = (
        "layer",
        "#neurons",
        "#synapses",
        "#firing rate",
        "#operations",
        "#of them multiplied",
        "#neuron updates",
    )
    return {"title": "Spikes and operations", "charts": pictures, "tables": [table(columns, rows)]}


def _curve(report: dict[str, Any]) -> Section | None:
    points = report["curve"]
    decision = report["decision"]
    ann = 100 * report["accuracy"]["networks"]["ann"]["accuracy"]["value"]
    pictures = []
    if len(points) > 1:
        steps = [point["steps"] for point in points]
        value, low, high = _percentages(point["accuracy"] for point in points)
        line = charts.lines(
            {"SNN": (steps, value)}, "T", "accuracy, %", bands={"SNN": (low, high)}, level=("ANN", ann), log_x=True
        )
        pictures.append(_chart(line, "Accuracy against T: the same integers, run with each T"))
        energy = {"SNN": (steps, [point["snn_pj"] / 1000 for point in points])}
        alone = {"SNN": (steps, [1000 * point["latency_s"] for point in points])}
        drawn = charts.lines(alone, "T", "ms an image, simulator, one thread", log_x=True)
        pictures.append(_chart(drawn, "Latency here against T"))
        pictures.append(
            _chart(charts.lines(energy, "T", f"nJ an image, {points[0]['table']}", log_x=True), "Energy against T")
        )
    if len(decision["points"]) > 1:
        steps = [point["step"] for point in decision["points"]]
        value, low, high = _percentages(point["accuracy"] for point in decision["points"])
        line = charts.lines(
            {"SNN": (steps, value)}, "stopped after step", "accuracy, %", bands={"SNN": (low, high)},
            level=("ANN", ann), marks=False,
        )  # fmt: skip
        pictures.append(_chart(line, "Time to decision: accuracy if the run is stopped early"))
    if not pictures:
        return None
    rows = [
        (
            str(point["steps"]),
            _with_interval(point["accuracy"]),
            _with_interval(point["accuracy_below"]),
            f"{point['synaptic_operations']:,.0f}",
            number(point["ratio"]),
            number(1000 * point["latency_s"]),
        )
        for point in points
    ]
    columns = (
        "T",
        "accuracy, %",
        "below the ANN, points",
        "#operations an image",
        f"#ANN/SNN, {points[0]['table']}",
        "#ms an image here",
    )
    return {"title": "Time", "charts": pictures, "tables": [table(columns, rows)], "texts": decision["notes"]}


def _latency(report: dict[str, Any]) -> Section:
    contenders = report["latency"]["contenders"]
    timed = [one for one in contenders if one["p50_s"] is not None]
    series = {
        name: [None if one[key] is None else 1000 * one[key]["value"] for one in timed]
        for name, key in (("p50", "p50_s"), ("p95", "p95_s"), ("p99", "p99_s"))
    }
    rows = [
        (
            one["title"],
            *(_milliseconds(one[key]) for key in ("p50_s", "p95_s", "p99_s")),
            "-" if one["p50_ratio"] is None else number(one["p50_ratio"]["value"]),
            ", ".join(f"{number(entry['value'])} (batch {entry['batch_size']})" for entry in one["throughput_per_s"]),
            "-" if one["accuracy"] is None else f"{100 * one['accuracy']['value']:.2f} of {one['accuracy']['images']}",
            one["time_includes"],
        )
        for one in contenders
    ]
    columns = (
        "network", "#p50, ms (95 %)", "#p95, ms", "#p99, ms", "#times the baseline", "images a second", "accuracy, %",
        "what is timed",
    )  # fmt: skip
    tables = [table(columns, rows)]
    if report["latency"]["left_out"]:
        missing = [(one["title"], one["reason"]) for one in report["latency"]["left_out"]]
        tables.append(table(("left out", "why"), missing))
    return {
        "title": "Latency on this machine",
        "texts": [
            "Not the chip's: the simulator computes on a processor what a neuromorphic chip would do as spikes come. "
            "One image at a time, one thread, in turns."
        ],
        "charts": [
            _chart(charts.bars([one["title"] for one in timed], series, "ms", log=True), "Latency of one image")
        ],
        "tables": tables,
    }


def _resources(report: dict[str, Any]) -> Section:
    tables = []
    for chip in report["resources"]:
        low, high = chip["cores"]["used"]
        rows = [
            ("cores", f"{low}" if low == high else f"{low} to {high}", f"{chip['cores']['limit']}"),
            ("neurons", f"{chip['neurons']['used']:,}", f"{chip['neurons']['limit']:,}"),
            ("synapses, each stored", f"{chip['synapses']['used']:,}", _limit(chip["synapses"]["limit"])),
            ("synapse memory, bits", f"{chip['synapse_bits']['used']:,}", _limit(chip["synapse_bits"]["limit"])),
        ]
        tables.append(
            table(("resource", "#used", "#limit"), rows, title=chip["chip"], note=f"{chip['fits']} {chip['source']}")
        )
    first = report["resources"]
    layers = [
        (
            layer["name"],
            *(f"{layer['neurons']:,}/{chip['per_core']['neurons']:,}" for chip in first),
            f"{layer['synapses']:,}",
            f"{layer['shared_weights']:,}",
            *(_cores(chip["layers"][place]["cores"]) for chip in first),
        )
        for place, layer in enumerate(first[0]["layers"])
    ]
    columns = (
        "layer", *(f"#neurons/a core's, {chip['chip']}" for chip in first), "#synapses", "#stored once",
        *(f"#cores, {chip['chip']}" for chip in first),
    )  # fmt: skip
    tables.append(table(columns, layers, title="By layer"))
    return {
        "title": "On the chip",
        "texts": [
            "An estimate without the chip's compiler, as used and limit: with kernels shared, and with every synapse "
            "stored. Axons and routing are left out, so a network may need more, never less."
        ],
        "tables": tables,
    }


def _examples(report: dict[str, Any]) -> Section | None:
    if not report["examples"]:
        return None
    classes = report["data"]["classes"]
    total = report["snn"]["steps"] + report["snn"]["depth"]
    return {
        "title": "Images and their spikes",
        "texts": ["The busiest neurons of the first layer, one in the middle, and the read-out; each mark is a spike."],
        "examples": [
            {
                "index": one["index"],
                "picture": charts.picture(one["pixels"]),
                "raster": charts.raster(one["spikes"], total),
                "caption": f"Test image {one['index']}: {_class(one['label'], classes)}. The SNN says "
                f"{_class(one['answer'], classes)}, the ANN {_class(one['ann'], classes)}.",
            }
            for one in report["examples"]
        ],
    }


SECTIONS: tuple[Callable[[dict[str, Any]], Section | None], ...] = (
    _accuracy,
    _energy,
    _firing,
    _curve,
    _latency,
    _resources,
    _examples,
)
"""In the order of the page; None leaves a section out."""


def _chart(image: str, caption: str) -> dict[str, str]:
    return {"image": image, "caption": caption}


def _percentages(figures: Any) -> tuple[list[float], list[float], list[float]]:
    """Values, lower and upper ends."""
    found = list(figures)
    return (
        [100 * one["value"] for one in found],
        [100 * one["interval"][0] for one in found],
        [100 * one["interval"][1] for one in found],
    )


def _with_interval(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{100 * figure['value']:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _milliseconds(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    ends = figure["interval"]
    spread = "" if ends is None else f" ({1000 * ends[0]:.3g} to {1000 * ends[1]:.3g})"
    return f"{1000 * figure['value']:.3g}{spread}"


def _cores(found: list[int]) -> str:
    return f"{found[0]}" if found[0] == found[1] else f"{found[0]} to {found[1]}"


def _limit(value: int | None) -> str:
    return "not published" if value is None else f"{value:,}"


def _class(index: int, classes: list[str]) -> str:
    return classes[index] if index < len(classes) else f"class {index}"
