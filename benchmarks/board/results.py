"""Read a board's result, a file from elsewhere: every field that is used is checked first."""

from __future__ import annotations

import os
from typing import Any

from gascnn.benchmarks.board.checked import Fields, read_json
from gascnn.benchmarks.board.figures import accuracy
from gascnn.benchmarks.board.folder import CONTENDERS, MOST_IMAGES

RESULT_KIND, RESULT_FORMAT = "gascnn-board-result", 1
LARGEST_RESULT = 4 << 20
"""Bytes of a result."""

_REMEDY = "give a result that run.py of a pack wrote"
_PERCENTILES = ("p50_s", "p95_s", "p99_s")
_ROUNDING = 1e-9


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A result as :func:`gascnn.benchmarks.board.run.run_board` gives it, reduced to the fields that were checked.

    Its texts are whatever the file's author wrote: whoever puts them into a page must escape them.

    Raises:
        FormatError: not there, too large, not JSON, no result, of another format, or a field that cannot be; names it.
    """
    fields = read_json(path, RESULT_KIND, RESULT_FORMAT, largest=LARGEST_RESULT, remedy=_REMEDY)
    rows = [_contender(row) for row in fields.tables("contenders", most=len(CONTENDERS))]
    names = [row["name"] for row in rows]
    if len(set(names)) != len(names) or not names:
        fields.refuse("contenders", "a list of networks, each once")
    machine, settings = fields.table("machine"), fields.table("settings")
    return {
        "kind": RESULT_KIND,
        "format": RESULT_FORMAT,
        "name": fields.text("name", 200),
        "started": fields.text("started", 100),
        "duration_s": fields.number("duration_s", 0),
        "pack": _pack(fields.table("pack")),
        "machine": {
            "processor": machine.text("processor", 200),
            "cores": machine.integer("cores", 1),
            "cores_used": machine.integer("cores_used", 1),
            "memory_bytes": machine.integer("memory_bytes"),
            "system": machine.text("system", 300),
            "python": machine.text("python", 100),
            "load": machine.number("load", 0),
        },
        "versions": _texts(fields.plain("versions")),
        "settings": {
            "threads": settings.integer("threads", 1),
            "simulator_method": settings.text("simulator_method", 20),
        },
        "conditions": {when: _conditions(fields.table("conditions").table(when)) for when in ("before", "after")},
        "meters": _meters(fields.table("meters")),
        "contenders": rows,
        "peak_memory_bytes": fields.integer("peak_memory_bytes"),
        "agrees": fields.flag("agrees"),
        "notes": fields.texts("notes", longest=1000, most=100),
    }


def _pack(fields: Fields) -> dict[str, Any]:
    data = fields.table("data")
    return {
        "manifest_sha256": fields.digest("manifest_sha256"),
        "gascnn": fields.text("gascnn", 100),
        "data": {"name": data.text("name"), "provenance": data.text("provenance")},
        "images": fields.integer("images", 1, MOST_IMAGES),
        "classes": fields.texts("classes", longest=500),
        "steps": fields.integer("steps", 1),
        "note": fields.text("note"),
    }


def _contender(fields: Fields) -> dict[str, Any]:
    name = fields.text("name", 20)
    if name not in CONTENDERS:
        fields.refuse("name", f"one of {', '.join(CONTENDERS)}")
    latency, comparison = fields.table("latency"), fields.table("comparison")
    images = comparison.integer("images", 1, MOST_IMAGES)
    found: dict[str, Any] = {
        "images": images,
        "equal_answers": comparison.integer("equal_answers", 0, images),
        "agrees": comparison.flag_or_none("agrees"),
    }
    if name == "snn":
        found["bit_equal"] = comparison.flag("bit_equal")
        found["unequal_images"] = comparison.integer("unequal_images", 0, images)
        found["largest_count_difference"] = comparison.integer("largest_count_difference")
        found["largest_membrane_difference"] = comparison.integer("largest_membrane_difference")
    else:
        found["equal_answers_torch"] = comparison.integer("equal_answers_torch", 0, images)
        found["largest_logit_difference"] = comparison.number("largest_logit_difference", 0)
        found["of_largest_logit"] = comparison.number("of_largest_logit", 0)
        found["identical"] = comparison.flag("identical")
    found["different_answers"] = images - found["equal_answers"]
    found["agreement"] = found["equal_answers"] / images
    return {
        "name": name,
        "accuracy": _accuracy(fields.table("accuracy")),
        "accuracy_where_packed": _accuracy(fields.table("accuracy_where_packed")),
        "latency": {
            "samples": latency.integer("samples", 1),
            "p50_s": latency.number("p50_s", 0),
            **{name: latency.number_or_none(name, 0) for name in _PERCENTILES[1:]},
            "mean_s": latency.number("mean_s", 0),
            "images_per_s": latency.number("images_per_s", 0),
        },
        "comparison": found,
        "energy": _energy(fields.table("energy")),
    }


def _accuracy(fields: Fields) -> dict[str, Any]:
    """Counted anew from the two integers: a share that is not theirs is refused."""
    images = fields.integer("images", 1, MOST_IMAGES)
    counted = accuracy(fields.integer("right", 0, images), images)
    if abs(fields.number("value", 0, 1) - counted["value"]) > _ROUNDING:
        fields.refuse("value", f"right / images, which is {counted['value']:g}")
    return counted


def _energy(fields: Fields) -> dict[str, Any]:
    """What was measured; its parts in the names of :class:`gascnn.hardware.power.EnergyMeasurement`."""
    if not fields.flag("measured"):
        found: dict[str, Any] = {"measured": False, "why": fields.text("why")}
        return {**found, "windows": fields.plain("windows")} if "windows" in fields.values else found
    joules = fields.number_or_none("energy_per_inference_j")
    interval = None if fields.values.get("interval_j") is None else fields.interval("interval_j")
    if interval is not None and (joules is None or not interval[0] <= joules <= interval[1]):
        fields.refuse("interval_j", "null, or an interval around energy_per_inference_j")
    return {
        "measured": True,
        "meter": fields.text("meter", 100),
        "description": fields.text("description"),
        "kind": fields.text("kind", 100),
        "idle_power_w": fields.number("idle_power_w"),
        "power_w": fields.number("power_w"),
        "inferences": fields.integer("inferences", 1),
        "energy_per_inference_j": joules,
        "interval_j": None if interval is None else list(interval),
        "total_energy_per_inference_j": fields.number("total_energy_per_inference_j"),
        "sampling_rate_hz": fields.number("sampling_rate_hz", 0),
        "sampling_error_j": fields.number("sampling_error_j", 0),
        "warnings": fields.texts("warnings", longest=1000, most=100),
    }


def _meters(fields: Fields) -> dict[str, Any]:
    used = fields.values.get("used")
    unavailable = [{"name": e.text("name", 100), "why": e.text("why")} for e in fields.tables("unavailable", most=50)]
    return {"used": None if used is None else fields.text("used", 100), "unavailable": unavailable}


def _conditions(fields: Fields) -> dict[str, Any]:
    frequencies = fields.values.get("frequencies_khz")
    if not isinstance(frequencies, list) or not all(type(n) is int for n in frequencies):
        fields.refuse("frequencies_khz", "a list of integers")
    governors, temperatures = fields.table("governors"), fields.table("temperatures_c")
    return {
        "governors": {name[:100]: governors.integer(name) for name in governors.values},
        "frequencies_khz": frequencies,
        "temperatures_c": {name[:100]: temperatures.number(name) for name in temperatures.values},
        "unreadable": fields.texts("unreadable"),
    }


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {str(name)[:100]: str(value)[:100] for name, value in list(values.items())[:50]}
