"""Spike learning: a deployed network is retrained as it runs, to answer as the ANN does (GASCNN, IV-C)."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gascnn.toolkit.errors import ConversionError, DataError, TrainingError, UsageError
from gascnn.toolkit.lowering.deployment import STEPS_MAX
from gascnn.toolkit.lowering.network import NetxNetwork
from gascnn.toolkit.lowering.rules import check_network
from gascnn.toolkit.spike_learning.loop import LearningLoop
from gascnn.toolkit.spike_learning.machine import IntegerMachine
from gascnn.toolkit.spike_learning.options import LearningOptions
from gascnn.toolkit.training import checkpoint
from gascnn.toolkit.training.evaluate import predict_scores
from gascnn.toolkit.training.inputs import fingerprint
from gascnn.toolkit.training.loop import own_torch_state
from gascnn.toolkit.training.progress import Progress, Silent
from gascnn.toolkit.training.run_folder import open_run, settled_threads


@dataclass(frozen=True, eq=False)
class Learned:
    """A retrained network.

    Attributes:
        network: integers, as the forward pass used them.
        history: one record an epoch: loss, agreement with the teacher on images held out, spikes a neuron and step.
        provenance: options, teacher, images, times; plain values.
    """

    network: NetxNetwork
    history: list[dict[str, Any]]
    provenance: dict[str, Any]


def learn(
    network: NetxNetwork,
    teacher: nn.Module,
    images: npt.NDArray[np.uint8],
    options: LearningOptions,
    run_folder: str | os.PathLike[str],
    *,
    labels: npt.NDArray[np.integer] | None = None,
    steps: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Learned:
    """Retrain a deployed network with spikes; checkpoints go to ``run_folder`` after every epoch.

    The forward pass is the integer machine: the network given back gives the same spikes in the simulator and in Lava.
    A run that was interrupted and resumed gives the same integers as one that was not.

    Args:
        network: exported by this package; its integers are where learning starts.
        teacher: the ANN, which takes (image, C, H, W) ``pixel / pixel_max``.
        images: (image, C, H, W) uint8 to learn from, synthetic ones where the real are gone.
        options: how.
        run_folder: made if it is not there.
        labels: (image,) classes; default what the teacher says.
        steps: T; default what the network was fitted for.
        resume: go on with the run in ``run_folder``, if one was begun there.
        progress: told of steps and epochs.

    Raises:
        UsageError: ``steps`` out of range, a folder that holds another run, a network whose answers do not follow the
            teacher's at all.
        DataError: images or labels that do not fit.
        ConversionError: a network that cannot be learnt with, a teacher of other outputs.
        TrainingError: the loss is no longer a finite number; the last checkpoint is kept.
    """
    deployment = network.deployment
    if deployment is None:
        raise ConversionError("the network does not say how it is fed; learn one that gascnn exported")
    steps = deployment.steps if steps is None else steps
    if not 1 <= steps <= STEPS_MAX:
        raise UsageError(f"T is {steps}; it must be 1..{STEPS_MAX}")
    _check_images(images, labels, deployment.image_shape, len(deployment.classes))
    folder = Path(run_folder)
    options = replace(options, threads=settled_threads(options.threads, folder, resume))
    with own_torch_state(options.seed, options.threads):
        answers = _teacher_answers(teacher, images, deployment.pixel_max, len(deployment.classes))
        classes = answers.argmax(1) if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64))
        machine = IntegerMachine(
            network, height=options.surrogate_height, dropout=options.dropout, memory_bytes=options.memory_bytes
        )
        description = _description(network, teacher, images, classes, steps, options)
        loop = LearningLoop(
            machine,
            teacher.eval(),
            torch.from_numpy(images),
            classes,
            answers,
            steps,
            options,
            folder,
            hashlib.sha256(json.dumps(description).encode()).hexdigest(),
            progress or Silent(),
        )
        open_run(folder, description, resume)
        if (folder / checkpoint.LAST_FILE).exists():
            loop.restore()
        else:
            loop.match()
            loop.save()
        loop.run_epochs()
        learned = machine.deployed()
    try:
        check_network(learned)
    except ValueError as error:
        raise TrainingError(f"what was learnt is beyond the chip's ranges ({error}); lower learning_rate") from error
    provenance = {**description, "steps": steps, "images": len(images), "time_s": round(loop.time_s, 3)}
    return Learned(learned, loop.history, provenance)


def _check_images(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer] | None,
    shape: tuple[int, ...],
    classes: int,
) -> None:
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) < 2:
        raise DataError(f"images are {images.dtype} {images.shape}; expected uint8 (image, C, H, W), at least two")
    if images.shape[1:] != tuple(shape):
        raise DataError(f"images have shape {images.shape[1:]}; the network takes {tuple(shape)}")
    if labels is None:
        return
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels must be {len(images)} whole numbers 0..{classes - 1}")


def _teacher_answers(teacher: nn.Module, images: npt.NDArray[np.uint8], pixel_max: int, classes: int) -> Tensor:
    """(image, class) logits."""
    if pixel_max != 255:
        raise ConversionError(f"the network's pixels go to {pixel_max}; spike learning feeds its teacher 8-bit pixels")
    try:
        answers = torch.from_numpy(predict_scores(teacher, images))
    except RuntimeError as error:
        raise ConversionError(
            f"the teacher cannot take images of {images.shape[1:]} ({error}); give the ANN that was converted"
        ) from error
    if answers.ndim != 2 or answers.shape[1] != classes:
        raise ConversionError(
            f"the teacher answers {tuple(answers.shape[1:])} an image, the network has {classes} classes; "
            "give the ANN that was converted"
        )
    if not bool(torch.isfinite(answers).all()):
        raise DataError("the teacher's answers hold NaN or infinity; train it again")
    return answers


def _description(
    network: NetxNetwork,
    teacher: nn.Module,
    images: npt.NDArray[np.uint8],
    classes: Tensor,
    steps: int,
    options: LearningOptions,
) -> dict[str, Any]:
    """What a resumed run must agree in."""
    return {
        "options": {**options.to_dict(), "steps": steps},
        "model": {"network_digest": network.digest(), "teacher_sha256": checkpoint.weights_sha256(teacher)},
        "dataset": {"images": len(images), "fit_sha256": fingerprint(images, classes.numpy())},
    }
