"""Training a classifier: from a data set and options to the weights that were selected, and their figures."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gascnn.models.resnet import ResNet, resnet
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training import checkpoint
from gascnn.toolkit.training.evaluate import evaluate
from gascnn.toolkit.training.inputs import DatasetLike, checked_parts, fingerprint
from gascnn.toolkit.training.loop import Loop, own_torch_state
from gascnn.toolkit.training.options import TrainingOptions
from gascnn.toolkit.training.progress import Progress, Silent
from gascnn.toolkit.training.run_folder import open_run, settled_threads


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network and how it came about.

    Attributes:
        model: in evaluation mode, with the selected weights.
        class_names: in the order of its outputs.
        image_shape: (C, H, W).
        metrics: ``val`` and ``test``, as far as there are such images that were not trained on; each the figures of
            :func:`gascnn.toolkit.training.metrics.classification_report` with ``dataset`` and ``split``.
        provenance: data set, options, model, selection, seed, versions, times; plain values.
        history: one record an epoch.
        epoch: from which the weights are, counted from 1.
        framing: what part of an image it was trained on.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    history: list[dict[str, Any]]
    epoch: int
    framing: str = "whole"


def train(
    model: nn.Module | Mapping[str, Any],
    dataset: DatasetLike,
    options: TrainingOptions,
    run_folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a network on a data set; checkpoints go to ``run_folder`` after every epoch.

    A run that was killed at any moment and resumed gives the same weights, to the bit, as one that was not, on the
    same machine with the same versions.

    Args:
        model: a module (it is copied), or arguments of :func:`gascnn.models.resnet.resnet`; ``classes``,
            ``channels`` and ``image_size`` default to the data set's.
        dataset: images to fit on, to validate on, to test on. The test images are looked at once, at the end.
        options: how to train.
        run_folder: made if it is not there.
        resume: go on with the run in ``run_folder``, if one was begun there.
        progress: told of steps and epochs; silent if left out.

    Returns:
        The selected weights and their figures.

    Raises:
        UsageError: the folder holds a run and ``resume`` is false, the run there was begun with another option, model
            or data set (the message names it), or the arguments do not fit together.
        DataError: images or labels that cannot be used, or a checkpoint that could not be written.
        FormatError: a checkpoint that is damaged.
        TrainingError: the loss is no longer a finite number.
    """
    folder = Path(run_folder)
    parts = checked_parts(dataset)
    options = _settled(options, folder, resume, has_validation="val" in parts)
    names = ("train", "val") if options.fit_on == "train+val" else ("train",)
    images = np.concatenate([parts[name][0] for name in names])
    labels = np.concatenate([parts[name][1] for name in names])
    with own_torch_state(options.seed, options.threads):
        network = _network(model, dataset)
        description = _description(network, dataset, options, fingerprint(images, labels))
        loop = Loop(
            network,
            torch.tensor(images),
            torch.tensor(labels),
            tuple(dataset.class_names),
            dataset.val if "val" in parts and "val" not in names else None,
            options,
            folder,
            hashlib.sha256(json.dumps(description).encode()).hexdigest(),
            progress or Silent(),
        )
        open_run(folder, description, resume)
        if (folder / checkpoint.LAST_FILE).exists():
            loop.restore()
        else:
            loop.save()
        loop.run_epochs()
        trained, epoch = loop.selected()
        metrics = {
            name: {"dataset": dataset.name, "split": name, **evaluate(trained, part, dataset.class_names)}
            for name, part in (("val", dataset.val), ("test", dataset.test))
            if part is not None and name in parts and name not in names
        }
    channels, height, width = dataset.image_shape
    return TrainingResult(
        model=trained,
        class_names=tuple(dataset.class_names),
        image_shape=(channels, height, width),
        metrics=metrics,
        provenance=_provenance(description, dataset, options, loop, epoch),
        history=loop.history,
        epoch=epoch,
        framing=getattr(dataset, "framing", "whole"),
    )


def _network(model: nn.Module | Mapping[str, Any], dataset: DatasetLike) -> nn.Module:
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    channels, height, width = dataset.image_shape
    arguments = {"classes": len(dataset.class_names), "channels": channels, "image_size": max(height, width), **model}
    try:
        return resnet(**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the model's arguments cannot be used: {error}") from error


def _settled(options: TrainingOptions, folder: Path, resume: bool, *, has_validation: bool) -> TrainingOptions:
    """The options with ``auto`` and 0 threads replaced by what they mean here."""
    if options.fit_on == "train+val" and not has_validation:
        raise UsageError("fit_on is train+val but the data set has no validation images; use fit_on train")
    if options.select == "val-macro-f1" and not has_validation:
        raise UsageError("select is val-macro-f1 but the data set has no validation images; use select last")
    if options.select == "auto":
        by_validation = has_validation and options.fit_on == "train"
        options = replace(options, select="val-macro-f1" if by_validation else "last")
    return replace(options, threads=settled_threads(options.threads, folder, resume))


def _description(network: nn.Module, dataset: DatasetLike, options: TrainingOptions, digest: str) -> dict[str, Any]:
    """What a resumed run must agree in."""
    if isinstance(network, ResNet):
        model = {"name": "resnet", "arguments": network.arguments}
    else:
        shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
        model = {"name": f"{type(network).__module__}:{type(network).__qualname__}", "tensors": shapes}
    return {
        "options": options.to_dict(),
        "model": model,
        "dataset": {
            "name": dataset.name,
            "classes": list(dataset.class_names),
            "image_shape": [int(n) for n in dataset.image_shape],
            "fit_sha256": digest,
        },
    }


def _provenance(
    description: dict[str, Any], dataset: DatasetLike, options: TrainingOptions, loop: Loop, epoch: int
) -> dict[str, Any]:
    if options.select == "val-macro-f1":
        selection = f"epoch {epoch} of {options.epochs}: the highest macro-F1 on the validation images"
    elif options.fit_on == "train+val":
        selection = f"last epoch ({epoch}): training and validation images were both trained on, none left to select by"
    else:
        selection = f"last epoch ({epoch})"
    return {
        "dataset": {**description["dataset"], "source": dict(dataset.provenance)},
        "fitted_images": len(loop.labels),
        "options": options.to_dict(),
        "seed": options.seed,
        "model": description["model"]["name"],
        "parameters": sum(p.numel() for p in loop.model.parameters()),
        "selection": selection,
        "weights": "moving average" if loop.average is not None else "as trained",
        "training_time_s": round(loop.time_s, 3),
        "training_cpu_time_s": round(loop.cpu_time_s, 3),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that a trained network depends on, for its provenance."""
    names = ("gascnn", "torch", "numpy", "scikit-learn", "safetensors")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
