"""Table II as a page: our figures beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gascnn.benchmarks.pgsl.attacks import TITLES
from gascnn.benchmarks.pgsl.recognition import MAJORITY, RECONSTRUCTED

PAPER: dict[str, dict[str, float]] = {
    "mias": {
        "JSMA": 46.3, "C&W": 51.2, "BIM": 56.8, "FGSM": 61.9, "DLG": 65.7, "iDLG": 69.2, "DCGAN": 62.2,
        "recovered": 78.5, "fused": 67.3, "attacked": 46.3, "fusion": 83.2,
    },
    "mnist": {
        "JSMA": 65.4, "C&W": 58.6, "BIM": 81.2, "FGSM": 83.8, "DLG": 88.3, "iDLG": 95.4, "DCGAN": 84.8,
        "recovered": 99.2, "fused": 86.6, "attacked": 65.4, "fusion": 99.8,
    },
}  # fmt: skip
"""PGSL, Table II, in percent."""

NAMES = {
    "clean": "clean images",
    "recovered": "S_r",
    "fused": "S_f",
    "attacked": "S_a",
    "fusion": "PGSL (fusion)",
    MAJORITY: MAJORITY,
}
READINGS = {
    "clean": "trained on clean, tested on attacked",
    "attacked": "trained and tested on attacked",
    "white-box": "trained on clean, attacked by its own gradient",
}
COLUMNS = ("images", "reading", "paper, %", "accuracy, %", "95 % over images", "95 % over seeds", "images a seed")


def markdown(report: dict[str, Any], command: str = "") -> str:
    """The table of one data set.

    Args:
        report: as :func:`gascnn.benchmarks.pgsl.recognition.measure` gives it.
        command: what was typed.
    """
    settings, figures = report["settings"], report["figures"]
    paper = PAPER.get(settings["data"], {})
    lines = [
        _described(report),
        "",
        *_table(
            COLUMNS, (_cells(name, figures[name], paper, _trained_with(report, name)) for name in _ordered(figures))
        ),
        "",
        "Paired differences, percentage points:",
        "",
        *_table(
            ("fusion less", "mean", "95 % over images", "95 % over seeds"),
            (
                (NAMES[name], _percent(one["mean"]), _differs(one), _range(one["interval_seeds"]))
                for name, one in report["fusion_minus"].items()
            ),
        ),
    ]
    return "\n".join([*lines, *(["", f"`{command}`"] if command else [])]) + "\n"


def _described(report: dict[str, Any]) -> str:
    settings = report["settings"]
    options, seeds = settings["options"], report["seeds"]
    strength = {
        "literal": "equation 1",
        "pixels": f"{options['pixels']} pixels by {options['amount']:g}",
        "bound": f"a bound of {options['bound']:g}",
    }[options["attack"]]
    recipes = ", ".join(sorted({seed["split"]["recipe"] for seed in seeds.values()}))
    trained = _numbers(seed["train_images"] for seed in seeds.values())
    size = settings["image_size"]
    unit = "largest singular values" if options["mu_relative"] else "units of the activations"
    return (
        f"`{settings['data']}`, images of {f'{size}x{size}' if size else 'their stored size'}, framing "
        f"{settings['framing']}, {trained} training images, {options['epochs']} epochs, {len(seeds)} "
        f"seed{'s' * (len(seeds) > 1)}; {report['rule']}. "
        f"Recovery of the {options['recovery']}, mu {options['mu']:g} in {unit}. "
        f"JSMA moves {strength}; other attacks: {_flat(settings['strengths'])}. "
        f"Presented: {recipes}{', chosen by validation images' * (len(settings['recipes']) > 1)}. "
        "Intervals: over images, Wilson's where each image counts once, else (differences too) bootstrap of the "
        "images (mias: patients) of all seeds, networks held fixed; over seeds, Student's t. Attacks go by "
        "predictions, of the client's classifier unless the reading says otherwise."
    )


def _trained_with(report: dict[str, Any], name: str) -> str:
    """How many images a row's own network was trained with, where it is not the seed's."""
    counts = [seed["rows"].get(name, {}).get("train_images") for seed in report["seeds"].values()]
    return "" if None in counts else f", trained with {_numbers(counts)}"


def _ordered(figures: dict[str, Any]) -> Iterator[str]:
    """The paper's order, with what it does not have ahead."""
    ahead = [name for name in (MAJORITY, "clean") if name in figures]
    behind = [name for name in ("recovered", "fused", "attacked", "fusion") if name in figures]
    yield from ahead
    yield from (name for name in figures if name not in (*ahead, *behind))
    yield from behind


def _cells(name: str, found: dict[str, Any], paper: dict[str, float], trained_with: str) -> tuple[str, ...]:
    kind, _, reading = name.partition(", ")
    if kind == RECONSTRUCTED:
        title, told = reading, "trained on clean, tested on reconstructed"
    elif reading:
        title, told = TITLES[kind], READINGS[reading]
    else:
        title, told = NAMES[kind], ""
    printed = paper.get(title) if reading else paper.get(kind)
    return (
        title,
        told,
        "–" if printed is None or reading == "white-box" else f"{printed:.1f}",
        _percent(found["mean"]),
        _range(found["interval_images"]),
        _range(found["interval_seeds"]),
        f"{_numbers(found['images'])}{trained_with}",
    )


def _table(columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _numbers(counts: Iterable[int]) -> str:
    """One number, or the lowest and the highest."""
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _range(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def _differs(found: dict[str, Any]) -> str:
    # A bootstrap of differences that are all 0 draws nothing else.
    same = found["interval_images"] == [0, 0] and not any(found["by_seed"])
    return "the same answers" if same else _range(found["interval_images"])


def _flat(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
