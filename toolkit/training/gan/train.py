"""Training a GAN: from a ResNet's bundle, a data set and options to a generator that makes labelled images."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from gascnn.models.gan import FirstStage
from gascnn.models.resnet import ResNet
from gascnn.toolkit.bundle import Bundle
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training import checkpoint
from gascnn.toolkit.training.bundles import build_model
from gascnn.toolkit.training.gan.bundle import Gan, new_parts
from gascnn.toolkit.training.gan.loop import GanLoop
from gascnn.toolkit.training.gan.options import GanOptions
from gascnn.toolkit.training.gan.processes import Processes, joined
from gascnn.toolkit.training.gan.progress import Progress, Silent
from gascnn.toolkit.training.gan.sources import fitting_images
from gascnn.toolkit.training.inputs import DatasetLike, fingerprint
from gascnn.toolkit.training.loop import own_torch_state
from gascnn.toolkit.training.run_folder import open_run, settled_threads
from gascnn.toolkit.training.train import versions


def train_gan(
    network: Bundle,
    dataset: DatasetLike,
    options: GanOptions,
    run_folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Gan:
    """Train a GAN on the training images of a data set; checkpoints go to ``run_folder`` with every report.

    The ResNet was trained before, with cross entropy as in the paper, and stays as it is. A run that was killed at any
    moment and resumed gives the same weights, to the bit, as one that was not, on the same machine and processor with
    the same versions and number of processes. Under ``torchrun`` every process calls this and gets the same result;
    the first one writes.

    Args:
        network: of kind ``ann``, of a ResNet; its images' shape, classes and framing are the GAN's.
        dataset: its training images alone are read.
        options: how.
        run_folder: made if it is not there; also gets pictures of the probe and the history.
        resume: go on with the run in ``run_folder``, if one was begun there.
        progress: told of iterations and records, in the first process; silent if left out.

    Returns:
        Generator (the moving average, if any) and discriminator, on the CPU.

    Raises:
        UsageError: no ResNet, images whose sides are no multiples of 4, a folder that holds a run (or another one), a
            batch that the processes cannot share, a device that is not there.
        DataError: images that do not fit the ResNet, a class without images, a checkpoint that could not be written.
        FormatError: a bundle of another kind, or a checkpoint that is damaged.
        TrainingError: a loss that is no finite number, a critic that exploded, a class that collapsed.
    """
    folder = Path(run_folder)
    images, labels = fitting_images(dataset, network.image_shape, network.classes, network.framing)
    threads = settled_threads(options.threads, folder, resume)
    with own_torch_state(options.seed, threads), joined(options.device, options.batch_size) as processes:
        resnet = _resnet(network)
        description = _description(resnet, dataset, options, threads, fingerprint(images.numpy(), labels.numpy()))
        generator, critic = new_parts(network.image_shape, FirstStage(resnet), options)
        loop = GanLoop(
            generator,
            critic,
            images,
            labels,
            tuple(dataset.class_names),
            options,
            folder,
            hashlib.sha256(json.dumps(description).encode()).hexdigest(),
            processes,
            progress if progress is not None and processes.rank == 0 else Silent(),
        )
        _begin(loop, folder, description, resume, processes)
        loop.run()
        # Nobody leaves before all files are written.
        processes.wait()
        metrics = {"train": _figures(loop, dataset)}
    return Gan(
        generator=loop.sampled.cpu().eval().requires_grad_(False),
        critic=loop.critic.cpu().eval().requires_grad_(False),
        options=options,
        class_names=tuple(dataset.class_names),
        image_shape=network.image_shape,
        framing=network.framing,
        metrics=metrics,
        provenance=_provenance(description, network, dataset, options, loop, processes),
    )


def _resnet(network: Bundle) -> ResNet:
    found = build_model(network)
    if not isinstance(found, ResNet):
        raise UsageError(
            f"the network is a {type(found).__name__}; the GAN takes features of a ResNet, of 'gascnn train'"
        )
    return found


def _begin(loop: GanLoop, folder: Path, description: dict[str, Any], resume: bool, processes: Processes) -> None:
    """Open the run's folder, in the first process alone, and go to where the run stands, in all of them."""
    last = folder / checkpoint.LAST_FILE
    if processes.rank == 0:
        open_run(folder, description, resume)
        for leftover in folder.glob(".grid_*"):  # of a process that was killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)
        if not last.exists():
            loop.save()
    processes.wait()
    # The first checkpoint too: what is trained from is then always what was read.
    loop.restore()


def _description(
    resnet: ResNet, dataset: DatasetLike, options: GanOptions, threads: int, digest: str
) -> dict[str, Any]:
    """What a resumed run must agree in."""
    return {
        "options": {**options.to_dict(), "threads": threads},
        "model": {"resnet_weights_sha256": checkpoint.weights_sha256(resnet)},
        "dataset": {
            "name": dataset.name,
            "classes": list(dataset.class_names),
            "image_shape": [int(n) for n in dataset.image_shape],
            "train_sha256": digest,
        },
    }


def _figures(loop: GanLoop, dataset: DatasetLike) -> dict[str, Any]:
    last = loop.history[-1]
    return {
        "dataset": dataset.name,
        "split": "train",
        "iteration": last["iteration"],
        "critic": last["critic"],
        "generator": last["generator"],
        "diversity": last["diversity"],
        "diversity_trained": last["diversity_trained"],
        "condition_error": loop.condition_error(),
    }


def _provenance(
    description: dict[str, Any],
    network: Bundle,
    dataset: DatasetLike,
    options: GanOptions,
    loop: GanLoop,
    processes: Processes,
) -> dict[str, Any]:
    stage = loop.generator.first_stage
    return {
        "dataset": {**description["dataset"], "source": dict(dataset.provenance)},
        "fitted_images": len(loop.labels),
        "resnet": {
            "weights_sha256": description["model"]["resnet_weights_sha256"],
            "architecture": network.architecture,
            "used": "nothing: the plane is the image" if stage is None else "conv1, bn1, relu (and pool), frozen",
        },
        "options": description["options"],
        "seed": options.seed,
        "parameters": {
            "generator": sum(p.numel() for p in loop.generator.parameters() if p.requires_grad),
            "critic": sum(p.numel() for p in loop.critic.parameters()),
        },
        "weights": "moving average of the generator" if loop.average is not None else "as trained",
        "processes": processes.count,
        "training_time_s": round(loop.time_s, 3),
        "versions": {**versions(), "torch": torch.__version__},
    }
