"""Accuracy, activity, work and time of a spiking network against T and against the threshold factor.

T is chosen on validation images and its figures are given on test images. Every point is a network of its own, run in
the bit-exact simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.bootstrap import estimate
from gascnn.benchmarks.sweep_point import PARTS, PointFolder, Source, Told, measure_point
from gascnn.benchmarks.sweep_settings import Settings
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.inputs import ImageSetLike, fingerprint

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reference:
    """The ANN the networks are compared with.

    Attributes:
        predictions: by part, its answers to the images.
        macs: its multiply-accumulates for an image (:func:`gascnn.benchmarks.ann_macs.ann_macs`).
    """

    predictions: Mapping[str, Labels]
    macs: int


def sweep(
    source: Source,
    parts: Mapping[str, ImageSetLike],
    settings: Settings,
    *,
    reference: Reference | None = None,
    folder: PointFolder | None = None,
    begin: Callable[[str], Told] | None = None,
    done: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Measure every point and recommend a T.

    Args:
        source: gives the networks.
        parts: ``val`` and ``test``, images with labels.
        settings: what to sweep.
        reference: the ANN's answers and work, if it is there.
        folder: where points are kept.
        begin: told the name of each point as it begins; gives a function that takes the number of images done.
        done: told each point's figures.

    Returns:
        ``points`` (in order; those that failed hold ``error``), ``ann`` (or None) and ``recommended``.

    Raises:
        UsageError: settings out of range, or the ANN wanted as the target where there is none.
    """
    settings = settings.checked()
    if settings.against == "ann" and reference is None:
        raise UsageError("the target is the ANN's macro-F1, but there is no ANN; name its bundle (--ann), or take best")
    macs = None if reference is None else reference.macs
    points = []
    for steps in settings.steps:
        for factor in settings.factors:
            told = begin(f"T = {steps}, factor {factor:g}") if begin else _ignore
            raw = folder.load(steps, factor) if folder is not None else None
            if raw is None:
                raw = measure_point(source, steps, factor, parts, settings, macs, told)
                if folder is not None and "error" not in raw:
                    folder.save(raw)
            points.append(_with_figures(raw, parts, reference))
            if done is not None:
                done(points[-1])
    ann = None if reference is None else _reference_figures(reference, parts)
    return {"points": points, "ann": ann, "recommended": recommend(points, settings, ann)}


def describe_parts(parts: Mapping[str, ImageSetLike]) -> dict[str, str]:
    """SHA-256 of each part's images and labels: a resumed run must be of the same."""
    return {name: fingerprint(part.images, part.labels) for name, part in parts.items()}


def recommend(points: list[dict[str, Any]], settings: Settings, ann: dict[str, Any] | None) -> dict[str, Any]:
    """The smallest T whose macro-F1 on the validation images is within the tolerance of the target.

    Of several points with that T the one of the fewest synaptic operations. Test images have no say.

    Args:
        points: as measured.
        settings: tolerance and target.
        ann: figures of the ANN.
    """
    measured = [point for point in points if "error" not in point]
    rule = (
        f"smallest T whose macro-F1 on the validation images is at most {settings.tolerance:g} below "
        f"{'the ANN' if settings.against == 'ann' else 'the best point'}, then fewest synaptic operations"
    )
    nothing = {"rule": rule, "steps": None, "factor": None, "target_macro_f1": None}
    if not measured:
        return {**nothing, "why": "no point could be measured"}
    best = max(point["val"]["macro_f1"]["value"] for point in measured)
    target = ann["val"]["macro_f1"]["value"] if ann is not None and settings.against == "ann" else best
    target -= settings.tolerance
    enough = [point for point in measured if point["val"]["macro_f1"]["value"] >= target - 1e-12]
    if not enough:
        return {
            **nothing,
            "target_macro_f1": target,
            "why": f"no point reaches macro-F1 {target:.4f} on the validation images; the best has {best:.4f}; "
            "try a larger T",
        }
    chosen = min(enough, key=lambda p: (p["steps"], p["val"]["counts"]["synaptic_operations"], p["factor"]))
    return {
        "rule": rule,
        "steps": chosen["steps"],
        "factor": chosen["factor"],
        "target_macro_f1": target,
        "network_digest": chosen["network_digest"],
        "val": chosen["val"],
        "test": chosen["test"],
    }


def _ignore(images: int) -> None:
    """Where nobody asked for progress."""


def _with_figures(
    raw: dict[str, Any], parts: Mapping[str, ImageSetLike], reference: Reference | None
) -> dict[str, Any]:
    """A point with figures in the place of its answers."""
    if "error" in raw:
        return raw
    point = dict(raw)
    for name in PARTS:
        answers = np.asarray(raw[name]["predictions"], dtype=np.int64)
        figures = _figures(parts[name], answers, None if reference is None else reference.predictions[name])
        point[name] = figures | {key: value for key, value in raw[name].items() if key != "predictions"}
    return point


def _reference_figures(reference: Reference, parts: Mapping[str, ImageSetLike]) -> dict[str, Any]:
    figures = {name: _figures(parts[name], reference.predictions[name], None) for name in PARTS}
    return {**figures, "multiply_accumulates": reference.macs}


def _figures(part: ImageSetLike, answers: Labels, reference: Labels | None) -> dict[str, Any]:
    estimates = estimate(part.labels, answers, reference)
    return {name: value.to_dict() for name, value in estimates.items()}
