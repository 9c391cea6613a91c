"""What ``gascnn bench sweep`` shows."""

from __future__ import annotations

from typing import Any

from gascnn.toolkit.cli.output import note, percent, say, table


def show(result: dict[str, Any]) -> None:
    """Figures, work and the recommended T of a sweep, as in its JSON."""
    measured = [point for point in result["points"] if "error" not in point]
    for point in result["points"]:
        if "error" in point:
            note(f"T = {point['steps']}, factor {point['factor']:g} could not be measured: {point['error']}")
    if any(point["test"]["wraps"] for point in measured):
        worst = max(measured, key=lambda p: p["test"]["wraps"] or 0)
        note(f"the current u wrapped {worst['test']['wraps']} times at T = {worst['steps']}; that point means little")
    if result["ann"] is not None:
        figures = result["ann"]
        say(f"ANN: macro-F1 {_with_interval(figures['test']['macro_f1'])}, {figures['multiply_accumulates']} MACs")
    say(f"{result['data']['test_images']} test images of {result['data']['name']}; 95 % intervals")
    say()
    table(("T", "factor", "accuracy", "macro-F1", "steps", "ms", "ms, one at once"), [_figures(p) for p in measured])
    say()
    columns = ("T", "factor", "spikes a neuron", "synaptic operations", "of relays", "of always-on", "of inputs")
    table((*columns, "spikes a source", "x less energy"), [_work(p) for p in measured])
    say()
    say(f"energy by the paper's formula, against the MACs of {result['macs_of']} (docs/sweep.md)")
    _show_recommended(result)


def _with_interval(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{percent(figure['value'])} ({100 * low:.2f}..{100 * high:.2f})"


def _figures(point: dict[str, Any]) -> tuple[object, ...]:
    test = point["test"]
    return (
        point["steps"],
        float(point["factor"]),
        _with_interval(test["accuracy"]),
        _with_interval(test["macro_f1"]),
        point["total_steps"],
        round(1000 * test["time_per_image_s"], 3),
        round(1000 * point["latency_s"], 3),
    )


def _work(point: dict[str, Any]) -> tuple[object, ...]:
    counts, energy = point["test"]["counts"], point["test"]["paper_energy"]
    by_source = counts["operations_by_source"]
    spikes = counts["spikes_per_neuron"]["population"]
    return (
        point["steps"],
        float(point["factor"]),
        "-" if spikes is None else round(spikes, 3),
        round(counts["synaptic_operations"]),
        round(by_source["relay"]),
        round(by_source["always-on"]),
        round(by_source["input"]),
        "-" if energy["spikes_per_source"] is None else round(energy["spikes_per_source"], 3),
        "-" if energy["ratio"] is None else round(energy["ratio"], 1),
    )


def _show_recommended(result: dict[str, Any]) -> None:
    chosen = result["recommended"]
    say()
    if chosen["steps"] is None:
        say(f"no T is recommended: {chosen['why']}")
        return
    say(f"recommended: T = {chosen['steps']}, factor {chosen['factor']:g}")
    say(f"({chosen['rule']})")
    say(f"its macro-F1 on the test images: {_with_interval(chosen['test']['macro_f1'])}")
