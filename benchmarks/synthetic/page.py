"""The examination of made images as a page, the verdict in its first line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gascnn.benchmarks.synthetic import quality, usefulness

COPIES = ("images", "number", "near, %", "relatively near, %", "unmistakable", "smallest", "median")
MEMBERSHIP = ("in the attacker's hands", "area under ROC", "found at 1 % false alarms", "at 0.1 %")
QUALITY = ("compared with training images", "Fréchet distance", "precision, %", "recall, %", "density", "coverage, %")
USEFULNESS = ("trained on", "accuracy, %", "macro-F1, %")

_NAMES = {"synthetic": "made", "test": "held (test), not copies"}


def markdown(report: dict[str, Any]) -> str:
    """The page of what :func:`gascnn.benchmarks.synthetic.measure.examine` found."""
    made, data, settings = report["set"], report["data"], report["settings"]
    channels, height, width = data["image_shape"]
    lines = [
        f"**{report['verdict']['sentence']}**",
        "",
        f"`{made['name']}`, {made['examined']} of {made['images']} images, for `{data['name']}`: {height}x{width}, "
        f"{'gray' if channels == 1 else 'colour'}, {data['images']['train']} training, {data['images']['val']} "
        f"validation and {data['images']['test']} test images. 95 % intervals in brackets. What each figure means: "
        "docs/synthetic.md.",
        "",
        "## Copies of training images",
    ]
    for name, found in report["memorisation"].items():
        lines += ["", *_table((name, *COPIES[1:]), copies(found)), "", _nearer(found)]
    lines += ["", "## Who was trained on"]
    for name, found in report["membership"].items():
        lines += ["", *_table((name, *MEMBERSHIP[1:]), members(found)), "", _candidates(found)]
    lines += ["", "## Like real images"]
    for name, found in report["quality"].items():
        title = f"{name}, {found['images']} images of each, {found['features']} features"
        lines += ["", *_table((title, *QUALITY[1:]), likeness(found))]
    lines += ["", "## Good for", "", *_table(USEFULNESS, uses(report))]
    if report["usefulness"] is not None:
        lines += [
            "",
            f"Classifiers of preset `{settings['preset']}`, {report['usefulness']['training_images']} training images "
            f"each, seeds {', '.join(map(str, settings['seeds']))}.",
        ]
    lines += ["", "## Notes", "", *(f"- {note}" for note in report["notes"])]
    lines += ["", _digests(report), *(["", f"`{report['command']}`"] if report["command"] else [])]
    return "\n".join(lines) + "\n"


def copies(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for the made images, the test images and each kind of planted copy."""
    return [
        (
            _NAMES.get(name, f"planted: {name}"),
            row["images"],
            _percent(row["near"]),
            _percent(row["relatively_near"]),
            row["unmistakable"],
            f"{row['smallest']:.3g}",
            f"{row['median']:.3g}",
        )
        for name, row in found["sets"].items()
    ]


def members(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for the attack, for its variants and for each baseline."""
    at = found["attack"]["found_at"]
    number = found["references"]
    rows = [("all made images", found["attack"], *(_found(at[share]) for share in ("0.01", "0.001")))]
    titles = {
        "same_number": f"{number} made images",
        "calibrated": f"{number} made images, calibrated by validation images",
        "held_reference": f"{number} validation images (know nothing)",
        "training_reference": f"{number} other training images (know the distribution)",
    }
    rows += [(title, found[name], "", "") for name, title in titles.items()]
    return [(title, _interval(area, 3), *more) for title, area, *more in rows]


def likeness(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for the made images and each set beside them."""
    return [
        (
            quality.TITLES[name],
            _interval(row["frechet"], 3),
            _percent(row["precision"]),
            _percent(row["recall"]),
            f"{row['density']:.2f}",
            _percent(row["coverage"]),
        )
        for name, row in found["rows"].items()
    ]


def uses(report: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for the network of the features and for each classifier."""
    condition = report["condition"]
    rows = [
        ("the features' network, tested on made", condition["synthetic"]),
        ("the features' network, tested on real", condition["test"]),
    ]
    if report["usefulness"] is not None:
        rows += [(usefulness.TITLES[name], row) for name, row in report["usefulness"]["rows"].items()]
    return [(title, _percent(row["accuracy"]), _percent(row["macro_f1"])) for title, row in rows]


def _nearer(found: dict[str, Any]) -> str:
    area, thresholds = found["nearer_than_held"], found["thresholds"]
    return (
        f"Distances in {found['unit']}; near is below {thresholds['distance']:.3g}, relatively near below "
        f"{thresholds['ratio']:.3g} of the distance to held images: the 1 % quantiles of {found['held']['images']} "
        f"validation images, whose median is {found['held']['median']:.3g}. Unmistakable is below "
        f"{thresholds['unmistakable']:.3g}. A made image is nearer to its training image than a validation image is "
        f"with a probability of {_interval(area, 3)}, one-sided p {area['p_value']:.2g}."
    )


def _candidates(found: dict[str, Any]) -> str:
    return (
        f"{found['members']} members, {found['non_members']} others. {found['references']} made images less as many "
        f"validation images: {_interval(found['excess'], 3)}."
    )


def _digests(report: dict[str, Any]) -> str:
    features = report["features"]
    onnx = "" if features["onnx"] is None else f"; features-onnx {features['onnx']}"
    return (
        f"SHA-256: made images, {_digest(report['set'])}; data, {_digest(report['data'])}; features "
        f"{features['network']}{onnx}."
    )


def _digest(described: dict[str, Any]) -> str:
    """Of the files it was read from, where these are told; else of its pixels and labels."""
    files = described["provenance"].get("sha256")
    if isinstance(files, dict) and files:
        return ", ".join(f"{name} {digest}" for name, digest in files.items())
    return f"pixels and labels {described['sha256']}"


def _found(found: dict[str, Any] | None) -> str:
    return "too few" if found is None else _percent(found)


def _percent(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{100 * figure['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _interval(figure: dict[str, Any], digits: int) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
    ]
