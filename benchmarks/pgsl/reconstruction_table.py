"""PGSL's Table I as Markdown, with the paper's figures beside ours."""

from __future__ import annotations

from typing import Any

from gascnn.benchmarks.pgsl.reconstruction import PREFIXES, bases
from gascnn.benchmarks.pgsl.reconstruction_systems import ITSELF, JSMA

PAPER = {
    "DLG": (3.14, 0.12),
    "iDLG": (2.63, 0.048),
    "DCGAN": (2.96, 0.056),
    "MIA": (2.925, 0.08),
    "JSMA + DLG": (4.362, 0.24),
    "JSMA + iDLG": (3.924, 0.22),
    "JSMA + DCGAN": (5.947, 0.29),
    "[8] + DLG": (2.543, 0.097),
    "[8] + iDLG": (1.349, 0.04),
    "[8] + DCGAN": (7.86, 2.34),
    "Ours (DLG)": (1.854, 0.046),
    "Ours (iDLG)": (1.126, 0.026),
    "Ours (DCGAN)": (2.372, 0.078),
}
"""Mean squared errors of Table I, MIAS and MNIST."""

DATA_SETS = ("mias", "mnist")
GRAY_LEVELS = 255**2

NOTE = (
    "Mean squared error against the image before the attack, pixels 0..1; times 65025 it is in squared gray levels. "
    "Interval: 95 %, bootstrap over test images (patients, for mias). Ratio: of attacked to not attacked, of noisy to "
    "not noisy, of recovered (Ours) to not recovered. The paper gives no unit, and its errors above 1 cannot be of "
    "pixels of 0..1: compare the ratios, not the errors."
)


def markdown(report: dict[str, Any]) -> str:
    """A report of :func:`gascnn.benchmarks.pgsl.reconstruction.reconstruction` as a table and what belongs to it."""
    settings, seeds = report["settings"], report["seeds"]
    place = DATA_SETS.index(settings["data"]) if settings["data"] in DATA_SETS else None
    counts = sorted({len(seed["units"]) for seed in seeds.values()})
    side = f", {settings['image_size']} pixels a side" if settings["image_size"] else ""
    options = settings["options"]
    unit = "largest singular values" if options["mu_relative"] else "units of the pixels"
    lines = [
        f"`{settings['data']}`{side}: {_either(counts)} test images, {len(seeds)} seed{'s' * (len(seeds) > 1)}; "
        f"JSMA of {options['pixels']} pixels, Laplacian noise of scale {settings['laplace_scale']:g}, "
        f"mu {options['mu']:g} in {unit}. {NOTE}",
        "",
        "| row | MSE | interval | ratio | interval | paper's MSE | paper's ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_line(report, row, place) for row in report["figures"]),
        "",
        *_findings(report),
    ]
    return "\n".join(lines) + "\n"


def curve_markdown(report: dict[str, Any]) -> str:
    """A report of :func:`gascnn.benchmarks.pgsl.reconstruction.reconstruction_curve`: a row for each strength."""
    curve = report["curve"]
    lines = [
        f"`{report['settings']['data']}`: mean squared error (95 % interval over images) against the pixels moved.",
        "",
        "| pixels | accuracy, fused | " + " | ".join(curve) + " |",
        "| --- | --- |" + " --- |" * len(curve),
    ]
    for place, point in enumerate(next(iter(curve.values()))):
        cells = [points[place]["mse"] for points in curve.values()]
        figures = " | ".join(f"{cell['mean']:.2g} ({_interval(cell['interval_images'])})" for cell in cells)
        lines.append(f"| {point['pixels']} | {point['accuracy']:.1%} | {figures} |")
    return "\n".join(lines) + "\n"


def _line(report: dict[str, Any], row: str, place: int | None) -> str:
    figure, quotient = report["figures"][row], report["ratios"].get(row)
    paper = PAPER[row][place] if place is not None and row in PAPER else None
    base = bases([*report["figures"]]).get(row)
    cells = [
        row,
        f"{figure['mean']:.3g}",
        _interval(figure["interval_images"]),
        "-" if quotient is None else f"{quotient['value']:.3g}",
        "-" if quotient is None else _interval(quotient["interval"]),
        "-" if paper is None else f"{paper:g}",
        "-" if paper is None or base is None else f"{PAPER[row][place or 0] / PAPER[base][place or 0]:.3g}",
    ]
    return "| " + " | ".join(cells) + " |"


def _findings(report: dict[str, Any]) -> list[str]:
    """What the figures say of the defence, in their own words."""
    found = report["figures"]
    itself = found[PREFIXES[JSMA] + ITSELF]["mean"]
    best = min(
        (row for row in found if row.startswith(PREFIXES[JSMA]) and ITSELF not in row),
        key=lambda row: found[row]["mean"],
    )
    inverted, undone = found[PREFIXES[JSMA] + "activations"]["mean"], found[PREFIXES[JSMA] + "map undone"]["mean"]
    return [
        f"The attack itself moves an image by {itself:.3g} ({itself * GRAY_LEVELS:.3g} in squared gray levels). "
        f"Inverting the activations leaves {inverted:.3g}, and {undone:.3g} once the map that travels in them is taken "
        f"away; the best adversary against the attack is `{best}`, with {found[best]['mean']:.3g}."
    ]


def _interval(ends: list[float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def _either(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
