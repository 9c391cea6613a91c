"""``gascnn pgsl client infer``: onnxruntime, httpx and numpy, and nothing of torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gascnn.hardware.edge import EdgeModel
from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, note, percent, say, table
from gascnn.toolkit.cli.pgsl import agreed_dataset
from gascnn.toolkit.data import load_folder_images
from gascnn.toolkit.data.arrays import read_arrays
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.files import atomic_path
from gascnn.toolkit.pgsl.wire.client import Key, WireClient

Scores = dict[str, npt.NDArray[np.float32]]


class _Images(NamedTuple):
    names: Sequence[str]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None


def classify(
    *,
    images: Path | None,
    server: str,
    key: Path,
    model: Path,
    data: str | None,
    data_dir: Path | None,
    split: str,
    limit: int | None,
    threads: int,
    output: Path | None,
    patience: float,
    timeout: float,
    plain_http_anywhere: bool,
) -> dict[str, Any]:
    """Classify, write the CSV, show; returns what ``--json`` writes.

    Raises:
        DataError: images that the model or the server does not take, or none.
        UsageError: both IMAGES and a data set, or neither.
    """
    options.positive("--limit", limit)
    if (images is None) == (data is None):
        raise UsageError("give IMAGES or --data, one of them")
    edge = EdgeModel(model, threads=threads)
    with WireClient(
        server, Key.read(key), patience_s=patience, timeout_s=timeout, plain_anywhere=plain_http_anywhere
    ) as wire:
        terms = wire.terms()
        _check_same_network(model, edge, terms)
        if data is not None:
            chosen = agreed_dataset(data, data_dir, terms, edge.metadata.framing).split(split)
            found = _Images([str(i) for i in range(len(chosen.images))], chosen.images, chosen.labels)
        else:
            assert images is not None
            found = _read(images, edge)
        found = _Images(
            found.names[:limit], found.images[:limit], None if found.labels is None else found.labels[:limit]
        )
        if not len(found.images):
            raise DataError(f"{data or images} holds no images; give at least one")
        scores = _scores(edge, wire, found.images, terms["images"])
    if output is not None:
        _write(output, edge.classes, found.names, scores["scores"])
        say(f"{len(found.names)} images classified into {output}")
    return _shown(edge.classes, scores, found.labels)


def _check_same_network(path: Path, edge: EdgeModel, terms: dict[str, Any]) -> None:
    metadata = edge.metadata
    if list(metadata.image_shape) != terms["image_shape"] or len(edge.classes) != terms["classes"]:
        raise DataError(
            f"{path} takes images of {list(metadata.image_shape)} in {len(edge.classes)} classes, the server "
            f"{terms['image_shape']} in {terms['classes']}; use the model that was trained with it"
        )
    if metadata.details.get("layers_sha256") == terms["layers_sha256"]:
        return
    if not terms["training"]:
        raise DataError(f"{path} is no client of the server's network; use the model that was trained with it")
    note(f"the server's network is in training; {path} has not the weights that it goes with now")


def _scores(edge: EdgeModel, wire: WireClient, images: npt.NDArray[np.uint8], at_once: int) -> Scores:
    parts = []
    # No more than the board's memory is kept small with, however many the server takes.
    at_once = min(at_once, edge.batch_size)
    with bar("classifying", len(images)) as progress:
        for start in range(0, len(images), at_once):
            parts.append(wire.query(edge.activations(images[start : start + at_once]), at_once))
            progress(min(start + at_once, len(images)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(path: Path, edge: EdgeModel) -> _Images:
    if path.suffix != ".npz":
        names, images = load_folder_images(path, edge.metadata.image_shape, edge.metadata.framing)
        return _Images(names, images, None)
    arrays = read_arrays(path, ("images",), ("labels",))
    images, labels = arrays["images"], arrays.get("labels")
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise DataError(f"{path}: labels are {labels.dtype} {labels.shape}; expected a whole number for each image")
    return _Images([str(i) for i in range(len(images))], images, labels)


def _write(path: Path, classes: Sequence[str], names: Sequence[str], scores: npt.NDArray[np.float32]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "class", *(f"score {name}" for name in classes)])
        for name, row in zip(names, scores, strict=True):
            writer.writerow([name, classes[int(row.argmax())], *(f"{score:.6g}" for score in row)])


def _shown(classes: Sequence[str], scores: Scores, labels: npt.NDArray[np.int64] | None) -> dict[str, Any]:
    predictions = [int(i) for i in scores["scores"].argmax(1)]
    result: dict[str, Any] = {"images": len(predictions), "classes": list(classes), "predictions": predictions}
    if labels is None:
        counts = {name: predictions.count(i) for i, name in enumerate(classes)}
        table(["class", "images"], [[name, count] for name, count in counts.items() if count])
        return result
    named = {"fusion": scores["scores"], **{name: scores[name] for name in ("recovered", "fused", "attacked")}}
    shares = {name: float((value.argmax(1) == labels).mean()) for name, value in named.items()}
    table(["decision", "accuracy"], [[name, percent(share)] for name, share in shares.items()])
    return {**result, "accuracy": shares}
