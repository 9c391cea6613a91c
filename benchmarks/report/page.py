"""``report.html``: one file without scripts, whose pictures are inside and which asks nothing of any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gascnn.benchmarks.report.sections import SECTIONS
from gascnn.benchmarks.report.summary import points, times
from gascnn.benchmarks.report.template import fill
from gascnn.toolkit.files import write_text


def write_page(path: Path, report: dict[str, Any]) -> None:
    """Write a report as a page.

    Args:
        path: of the file.
        report: as it was checked.

    Raises:
        UsageError: what it is drawn with is not installed.
        DataError: it cannot be written.
    """
    write_text(path, render(report))


def render(report: dict[str, Any]) -> str:
    """The page. All that is from the report is escaped.

    Raises:
        UsageError: what it is drawn with is not installed.
    """
    machine = report["machine"]
    return fill(
        version=report["version"],
        created=report["created"],
        command=report["command"],
        title=f"{report['snn']['file']} beside its ANN, on {report['data']['name']}",
        summary=_summary(report),
        headline=_headline(report),
        notes=report["notes"],
        sections=[section for make in SECTIONS if (section := make(report)) is not None],
        made=[
            f"{machine['processor']}, {machine['cores_used']} of {machine['cores']} cores, {machine['system']}, Python "
            f"{machine['python']}, load {machine['load']}. Measured in {report['time_s']:g} s.",
            _versions(report),
            "All figures are in report.json beside this page.",
        ],
    )


def _summary(report: dict[str, Any]) -> str:
    data, snn = report["data"], report["snn"]
    return (
        f"{data['images']} {data['split']} images of {data['name']}, {len(data['classes'])} classes. The network has "
        f"{snn['neurons']:,} neurons in {snn['depth']} layers, reset {snn['reset']}, coding {snn['coding']}, "
        f"T = {snn['steps']} ({snn['steps'] + snn['depth']} steps in all); SHA-256 {snn['sha256'][:12]}. The ANN has "
        f"{report['ann']['parameters']:,} parameters and {report['ann']['macs']:,} multiply-accumulates."
    )


def _headline(report: dict[str, Any]) -> list[dict[str, str]]:
    found = report["headline"]
    spread, latency = found["energy"]["range"]["ann"], found["latency"]
    ratio = found["energy"]["ratio"]
    span = (
        ""
        if spread["lowest"] is None
        else (
            f"SNN than ANN, by the paper's arithmetic; over {spread['of']} tables from "
            f"{times(spread['lowest']['ratio'])} to {times(spread['highest']['ratio'])}"
        )
    )
    return [
        {
            "name": "Accuracy",
            "value": f"{100 * found['accuracy']['snn']:.2f} %",
            "more": f"ANN {100 * found['accuracy']['ann']:.2f} %; {points(found['accuracy']['below'])}",
        },
        {
            "name": "Energy",
            "value": "no comparison" if ratio is None else times(ratio).removesuffix(" than the ANN"),
            "more": span,
        },
        {
            "name": "Latency here, one image, one thread",
            "value": "-" if latency["snn_p50_s"] is None else f"{1000 * latency['snn_p50_s']:.3g} ms",
            "more": "SNN in the simulator; ANN in onnxruntime "
            + ("-" if latency["ann_p50_s"] is None else f"{1000 * latency['ann_p50_s']:.3g} ms"),
        },
    ]


def _versions(report: dict[str, Any]) -> str:
    found: dict[str, str] = {}
    for one in report["latency"]["contenders"]:
        found |= one["versions"]
    return "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
