"""The whole examination of made images, as plain values: verdict, copies, membership, quality, usefulness."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.machine import describe
from gascnn.benchmarks.synthetic.features import NetworkFeatures, OnnxFeatures
from gascnn.benchmarks.synthetic.membership import membership
from gascnn.benchmarks.synthetic.memorisation import memorisation, twins
from gascnn.benchmarks.synthetic.planted import planted
from gascnn.benchmarks.synthetic.quality import noise, quality
from gascnn.benchmarks.synthetic.settings import NO_TRAINING, SyntheticSettings
from gascnn.benchmarks.synthetic.space import Space, feature_space, pixel_space
from gascnn.benchmarks.synthetic.usefulness import agreement, usefulness
from gascnn.benchmarks.synthetic.verdict import detected, verdict
from gascnn.toolkit.data.dataset import SPLITS, Dataset, ImageSet
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.training.inputs import fingerprint
from gascnn.toolkit.training.train import versions

FORMAT = "gascnn-synthetic/1"
FEWEST = {"synthetic": 10, "train": 50, "val": 50, "test": 50}
"""Images: a 1 % quantile of fewer held images is their minimum, which one image decides."""

Images = npt.NDArray[np.uint8]
Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Extractors:
    """What turns images into features.

    Attributes:
        network: of a trained ResNet, which also answers with classes.
        network_sha256: of its bundle's ``model.json``.
        onnx: of a file of the user's, or None.
        onnx_sha256: of that file.
    """

    network: NetworkFeatures
    network_sha256: str
    onnx: OnnxFeatures | None = None
    onnx_sha256: str | None = None


def pooled(dataset: Dataset) -> ImageSet:
    """All images of a set that was made: those of train, val and test, in this order."""
    parts = [dataset.split(name) for name in SPLITS]
    return ImageSet(np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]))


def examine(
    made: Dataset,
    real: Dataset,
    extractors: Extractors,
    settings: SyntheticSettings,
    *,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Examine made images.

    Args:
        made: all its images are examined, whatever their split.
        real: what they stand for: ``train`` is what their generator was trained on, ``val`` and ``test`` it never saw.
        extractors: of features; of images of this size.
        settings: sizes, seeds, preset.
        command: what was typed.
        progress: told each part as it begins.

    Returns:
        ``verdict``, then ``memorisation`` and ``membership`` by space (``pixels``, ``features``, ``features-onnx``),
        ``quality`` by space of features, ``condition`` (the network's answers on ``synthetic`` and ``test``),
        ``usefulness`` (None without training), ``notes``, and what a repetition needs.

    Raises:
        DataError: too few images, sets of different shape or classes.
        TrainingError: a classifier's loss is no longer finite.
    """
    tell = progress or _silent
    synthetic = pooled(made)
    chosen = _chosen(synthetic, made, real, settings)
    images = {name: source.images[chosen[name]] for name, source in _sources(synthetic, real).items()}
    rng = np.random.default_rng((settings.seeds[0], 5))
    copied, others = (rng.permutation(len(images["train"]))[: settings.planted] for _ in range(2))
    copies = planted(images["train"][copied], images["train"][others], settings.seeds[0])
    seconds: dict[str, float] = {}
    with _timed(seconds, "features", tell):
        of_features, logits = _features(images, copies, extractors, settings)
    spaces = [pixel_space(images | copies), *(feature_space(*one) for one in of_features.items())]
    report: dict[str, Any] = {"format": FORMAT, "verdict": {}, "memorisation": {}, "membership": {}}
    for space in spaces:
        with _timed(seconds, f"neighbours in {space.name}", tell):
            # Of pixels, the first space: these neighbours are searched once and kept.
            found = memorisation(space, list(copies), twins(spaces[0]))
            report["memorisation"][space.name] = _numbered(found, chosen)
            report["membership"][space.name] = membership(space, settings.seeds[0])
    report["verdict"] = verdict(report["memorisation"], report["membership"])
    with _timed(seconds, "quality", tell):
        report["quality"] = {name: quality(sets, settings) for name, sets in of_features.items()}
    labels = {"synthetic": synthetic.labels[chosen["synthetic"]], "test": real.test.labels[chosen["test"]]}
    report["condition"] = {name: agreement(logits[name], known) for name, known in labels.items()}
    report["usefulness"] = None
    if settings.preset != NO_TRAINING:
        with _timed(seconds, "usefulness", tell):
            report["usefulness"] = usefulness(synthetic, real, settings, tell)
    return report | {
        "notes": _notes(made, real, extractors, report, spaces[0]),
        "settings": settings.to_dict(),
        "set": _described(made, synthetic) | {"images": len(synthetic), "examined": len(chosen["synthetic"])},
        "data": _described(real, *(real.split(name) for name in SPLITS))
        | {"images": {name: len(real.split(name)) for name in SPLITS}},
        "features": {"network": extractors.network_sha256, "onnx": extractors.onnx_sha256},
        "command": command,
        "processor_s": seconds,
        "machine": describe(),
        "versions": versions(),
    }


def _sources(synthetic: ImageSet, real: Dataset) -> dict[str, ImageSet]:
    return {"synthetic": synthetic, **{name: real.split(name) for name in SPLITS}}


def _chosen(
    synthetic: ImageSet, made: Dataset, real: Dataset, settings: SyntheticSettings
) -> dict[str, npt.NDArray[np.int64]]:
    """Numbers of the images that are examined: all of them, up to the settings' limits."""
    if made.image_shape != real.image_shape or tuple(made.class_names) != tuple(real.class_names):
        raise DataError(
            f"{made.name} has images of {made.image_shape} in {len(made.class_names)} classes, {real.name} of "
            f"{real.image_shape} in {len(real.class_names)}; both must be alike, class by class"
        )
    most = {"synthetic": settings.most_synthetic, "val": settings.most_held, "test": settings.most_held}
    rng = np.random.default_rng((settings.seeds[0], 6))
    found = {}
    for name, source in _sources(synthetic, real).items():
        if len(source) < FEWEST[name]:
            where = made.name if name == "synthetic" else f"{real.name}, {name} split"
            raise DataError(f"{where}: {len(source)} images; {FEWEST[name]} are needed to tell copies from others")
        found[name] = np.sort(rng.permutation(len(source))[: most.get(name, len(source))])
    return found


def _features(
    images: Mapping[str, Images], copies: Mapping[str, Images], extractors: Extractors, settings: SyntheticSettings
) -> tuple[dict[str, dict[str, npt.NDArray[np.float64]]], dict[str, npt.NDArray[np.float32]]]:
    """By space the features of every set, noise among them, and the network's logits of every set."""
    fewest = min(len(part) for part in images.values())
    sets = {**images, **copies, "noise": noise((fewest, *images["train"].shape[1:]), settings.seeds[0])}
    both = {name: extractors.network.with_logits(part) for name, part in sets.items()}
    found = {"features": {name: one[0] for name, one in both.items()}}
    if extractors.onnx is not None:
        found["features-onnx"] = {name: extractors.onnx(part) for name, part in sets.items()}
    return found, {name: one[1] for name, one in both.items()}


def _numbered(found: dict[str, Any], chosen: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, Any]:
    """Pairs by the images' numbers in their whole sets."""
    for key, name in (("pairs", "synthetic"), ("held_pairs", "test")):
        for pair in found[key]:
            pair["image"] = int(chosen[name][pair["image"]])
            pair["training_image"] = int(chosen["train"][pair["training_image"]])
    return found


def _described(dataset: Dataset, *parts: ImageSet) -> dict[str, Any]:
    digest = fingerprint(*(array for part in parts for array in (part.images, part.labels)))
    return {
        "name": dataset.name,
        "classes": list(dataset.class_names),
        "image_shape": list(dataset.image_shape),
        "framing": dataset.framing,
        "sha256": digest,
        "provenance": dataset.provenance,
    }


def _notes(made: Dataset, real: Dataset, extractors: Extractors, report: dict[str, Any], pixels: Space) -> list[str]:
    notes = [
        "Intervals take images as independent. Where one patient has several slices they are too narrow, and training "
        "images are nearer to each other than to held ones for that reason alone."
    ]
    if not made.provenance.get("synthetic"):
        notes.append(f"{made.name} is not marked as synthetic: real images are called made ones here.")
    if extractors.network_sha256 in json.dumps(made.provenance, default=str):
        notes.append(
            "The features, and the condition's accuracy, are those of the very network the images were made with, "
            "which flatters them; give --features another one."
        )
    side = max(real.image_shape[1:])
    if pixels.sets["train"].shape[-1] != real.image_shape[-1]:
        notes.append(f"Images of {side} pixels a side were averaged down before their pixels were compared.")
    notes += _left_out(report["memorisation"][pixels.name]["left_out"], pixels)
    missed = detected(report["memorisation"])[1]
    if missed:
        notes.append(f"Of planted copies that were {', '.join(missed)} fewer than half are found in any space.")
    for name, found in report["quality"].items():
        notes += [f"{name}: {note}." for note in found["notes"]]
    if report["usefulness"] is not None:
        notes += [f"Classifiers: {note}." for note in report["usefulness"]["notes"]]
    return notes


def _left_out(found: Mapping[str, int], pixels: Space) -> list[str]:
    if not any(found.values()):
        return []
    titles = {"val": "validation", "test": "test"}
    counts = [f"{found[name]} of {len(pixels.sets[name])} {title} images" for name, title in titles.items()]
    return [
        f"{' and '.join(counts)} equal training images, as they are, mirrored or shifted: the split is not clean. They "
        "are left out of the thresholds and of the rows of test images. A made image that is as near to one of them as "
        "to a training image is not told to be a copy."
    ]


@contextmanager
def _timed(seconds: dict[str, float], what: str, progress: Progress) -> Iterator[None]:
    progress(what)
    started = time.process_time()
    yield
    seconds[what] = round(time.process_time() - started, 2)


def _silent(_: str) -> None:
    pass
