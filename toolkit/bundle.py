"""Bundles: a trained model as a folder of ``model.json`` and ``weights.safetensors``. No pickles anywhere.

``model.json`` says what the network is, what images it takes, its classes, its measured figures and where it came
from; the tensors are in safetensors, under the names of a PyTorch ``state_dict`` (``kind`` ``ann``) or of a NIR
graph's nodes (``kind`` ``snn``); of a split network (``kind`` ``pgsl``) they are those of both sides,
of a GAN (``kind`` ``gan``) generator's and discriminator's.
``statistics.safetensors``, if it is there, is named in ``model.json`` too.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.files import atomic_folder, sha256_file
from gascnn.toolkit.framing import FRAMINGS

SCHEMA = 1
KINDS = ("ann", "snn", "pgsl", "gan")
MODEL_FILE, WEIGHTS_FILE, STATISTICS_FILE = "model.json", "weights.safetensors", "statistics.safetensors"


@dataclass(frozen=True, eq=False)
class Statistics:
    """Aggregates of a network's activations on its training images, by which it can be converted without them.

    Attributes:
        tensors: one number a channel each, under ``population.quantity``; see
            :mod:`gascnn.toolkit.conversion.statistics`.
        record: which percentiles, of how many images of what; plain values.
    """

    tensors: dict[str, npt.NDArray[np.generic]] = field(repr=False)
    record: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained network with everything needed to use it.

    Attributes:
        kind: ``ann`` (trained in PyTorch), ``snn`` (converted to spikes, still in floating point), ``pgsl`` (a split
            network, client and server) or ``gan`` (generator and discriminator).
        architecture: ``ann``: ``{"name": "resnet", "arguments": {...}}`` or ``{"name": "package:function"}``;
            ``snn``: the NIR graph without its arrays; ``pgsl``, ``gan``: their options.
        image_shape: (C, H, W).
        classes: class names in the order of the outputs.
        tensors: named arrays.
        pixel_max: the pixel value that means intensity 1; the network sees ``pixel / pixel_max``.
        framing: what part of an image it was trained on; see :mod:`gascnn.toolkit.framing`.
        metrics: measured figures, each with the data it was measured on.
        provenance: data set, options, seeds, versions.
        statistics: of its activations, if they were saved with it.
    """

    kind: Literal["ann", "snn", "pgsl", "gan"]
    architecture: dict[str, Any]
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    tensors: dict[str, npt.NDArray[np.generic]] = field(repr=False)
    pixel_max: int = 255
    framing: str = "whole"
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder with a ``model.json``."""
    return (Path(path) / MODEL_FILE).is_file()


def save_bundle(bundle: Bundle, path: str | os.PathLike[str]) -> None:
    """Write the folder ``path``, whole or not at all; an older bundle there is replaced.

    Raises:
        DataError: the disk is full or the place cannot be written.
        UsageError: ``path`` is a file, or a folder that holds something else.
    """
    from safetensors.numpy import save

    with atomic_folder(path, marker=MODEL_FILE) as folder:
        (folder / WEIGHTS_FILE).write_bytes(save({k: np.asarray(v, order="C") for k, v in bundle.tensors.items()}))
        description = {
            "schema": SCHEMA,
            "kind": bundle.kind,
            "architecture": bundle.architecture,
            "image_shape": list(bundle.image_shape),
            "pixel_max": bundle.pixel_max,
            "framing": bundle.framing,
            "classes": list(bundle.classes),
            "metrics": bundle.metrics,
            "provenance": bundle.provenance,
            "weights_sha256": sha256_file(folder / WEIGHTS_FILE),
        }
        if bundle.statistics is not None:
            tensors = {k: np.asarray(v, order="C") for k, v in bundle.statistics.tensors.items()}
            (folder / STATISTICS_FILE).write_bytes(save(tensors))
            digest = sha256_file(folder / STATISTICS_FILE)
            description["statistics"] = {**bundle.statistics.record, "sha256": digest}
        text = json.dumps(description, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle and check that its files belong together.

    Raises:
        FormatError: not a bundle, another schema, a field missing or of the wrong kind, weights that do not match.
    """
    folder = Path(path)
    if not is_bundle(folder):
        raise FormatError(f"{folder}: no bundle there (a folder with {MODEL_FILE}); train one with 'gascnn train'")
    values = _read_description(folder / MODEL_FILE)
    tensors = _read_tensors(folder, WEIGHTS_FILE, values["weights_sha256"], "weights")
    statistics = None
    if "statistics" in values:
        record = {name: value for name, value in values["statistics"].items() if name != "sha256"}
        expected = values["statistics"].get("sha256")
        statistics = Statistics(_read_tensors(folder, STATISTICS_FILE, expected, "statistics"), record)
    channels, height, width = values["image_shape"]
    return Bundle(
        kind=values["kind"],
        architecture=values["architecture"],
        image_shape=(channels, height, width),
        classes=tuple(values["classes"]),
        tensors=tensors,
        pixel_max=values["pixel_max"],
        framing=values["framing"],
        metrics=values["metrics"],
        provenance=values["provenance"],
        statistics=statistics,
    )


def _read_tensors(folder: Path, name: str, expected: str, what: str) -> dict[str, npt.NDArray[np.generic]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / name
    if not path.is_file():
        raise FormatError(f"{folder}: {name} is missing; the bundle is incomplete")
    if sha256_file(path) != expected:
        raise FormatError(f"{path}: not the {what} {MODEL_FILE} was written with (their SHA-256 differs)")
    try:
        tensors: dict[str, npt.NDArray[np.generic]] = load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise FormatError(f"{path}: not a safetensors file ({error})") from error
    bad = [name for name, value in tensors.items() if value.dtype.kind == "f" and not np.all(np.isfinite(value))]
    if bad:
        raise FormatError(f"{path}: {bad[0]} holds NaN or infinity; train again")
    return tensors


def _read_description(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, OSError, RecursionError) as error:
        raise FormatError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise FormatError(f"{path}: schema {found}; this version reads schema {SCHEMA}")
    checks: dict[str, bool] = {
        "kind": values.get("kind") in KINDS,
        "architecture": isinstance(values.get("architecture"), dict),
        "image_shape": _positive_integers(values.get("image_shape"), 3),
        "pixel_max": _positive_integers([values.get("pixel_max")], 1),
        "framing": values.get("framing") in FRAMINGS,
        "classes": isinstance(values.get("classes"), list) and all(isinstance(c, str) for c in values["classes"]),
        "metrics": isinstance(values.get("metrics"), dict),
        "provenance": isinstance(values.get("provenance"), dict),
        "weights_sha256": isinstance(values.get("weights_sha256"), str),
        "statistics": isinstance(values.get("statistics", {}), dict),
    }
    wrong = [name for name, good in checks.items() if not good]
    if wrong:
        raise FormatError(f"{path}: field {wrong[0]!r} is missing or of the wrong kind")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _positive_integers(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(n) is int and n > 0 for n in value)
