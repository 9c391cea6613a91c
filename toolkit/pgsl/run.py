"""Split training in one process as a run that can be stopped: from a data set and options to a trained network."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.files import write_json
from gascnn.toolkit.pgsl.bundle import SplitNetwork, new_parts
from gascnn.toolkit.pgsl.evaluate import answers_to, figures, torch_activations
from gascnn.toolkit.pgsl.local import local_accuracy, train_local_classifier
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.split import ClientState, SplitClient, SplitServer, train_step
from gascnn.toolkit.pgsl.train import epoch_batches
from gascnn.toolkit.training import checkpoint
from gascnn.toolkit.training.batches import to_float
from gascnn.toolkit.training.inputs import DatasetLike, checked_parts, fingerprint
from gascnn.toolkit.training.loop import HISTORY_FILE, own_torch_state
from gascnn.toolkit.training.progress import EpochRecord, Progress, Silent
from gascnn.toolkit.training.run_folder import open_run, settled_threads
from gascnn.toolkit.training.train import versions

_CLIENT, _SERVER = "client.", "server."
_LOSSES = ("attacked", "fused", "recovered")

Images = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Images (n, C, size, size) and labels (n,)."""


@dataclass(frozen=True)
class SplitRecord(EpochRecord):
    """One epoch of split training; ``loss`` is the sum of the three streams', which the server minimises.

    Attributes:
        losses: mean cross entropy of each stream.
        val: accuracy of the decision and of each stream on the validation images, if there are any.
    """

    losses: dict[str, float]
    val: dict[str, float] | None

    def line(self) -> str:
        """The record in one line of text."""
        if self.val is None:
            return super().line()
        return super().line() + "  val " + ", ".join(f"{name} {share:.4f}" for name, share in self.val.items())


def train_network(
    dataset: DatasetLike,
    options: PgslOptions,
    run_folder: str | os.PathLike[str],
    *,
    local: LocalOptions | None = None,
    limit: int | None = None,
    threads: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> SplitNetwork:
    """Train the local classifier, then client and server; a checkpoint goes to ``run_folder`` after every epoch.

    The weights are those of the last epoch; nothing is chosen by the validation images. A run that was killed at any
    moment and resumed gives the same weights, to the bit, as one that was not, on the same machine with the same
    versions.

    Args:
        dataset: images to train, validate and test on. The test images are looked at once, at the end.
        options: of both sides.
        run_folder: made if it is not there.
        local: of the local classifier.
        limit: train on the first so many images alone.
        threads: of torch; 0 takes its default.
        resume: go on with the run in ``run_folder``, if one was begun there.
        progress: told of steps and epochs; silent if left out.

    Raises:
        UsageError: the folder holds a run and ``resume`` is false, the run there was begun with something else (the
            message names it), or images and options do not fit together.
        DataError: images or labels that cannot be used, or a checkpoint that could not be written.
        FormatError: a checkpoint that is damaged.
        TrainingError: a loss that is no longer a finite number.
    """
    folder = Path(run_folder)
    local = LocalOptions(seed=options.seed) if local is None else local
    parts = _limited_parts(dataset, limit)
    threads = settled_threads(threads, folder, resume)
    images, labels = parts["train"]
    channels, height, width = dataset.image_shape
    with own_torch_state(options.seed, threads):
        client, server = new_parts((channels, height, width), len(dataset.class_names), options, local)
        description = {
            "options": {**options.to_dict(), "threads": threads},
            "model": {f"local_{name}": value for name, value in asdict(local).items()},
            "dataset": {
                "name": dataset.name,
                "classes": list(dataset.class_names),
                "image_shape": [channels, height, width],
                "fit_sha256": fingerprint(images, labels),
            },
        }
        run = _Run(client, server, parts, folder, _name(description), progress or Silent())
        open_run(folder, description, resume)
        if (folder / checkpoint.LAST_FILE).exists():
            run.restore()
        else:
            run.begin(local, len(dataset.class_names))
        run.run_epochs()
        metrics = run.metrics(dataset.name, tuple(dataset.class_names))
    return SplitNetwork(
        client=client,
        server=server,
        local=local,
        class_names=tuple(dataset.class_names),
        image_shape=(channels, height, width),
        framing=getattr(dataset, "framing", "whole"),
        metrics=metrics,
        provenance={
            "dataset": {**description["dataset"], "source": dict(dataset.provenance)},
            "fitted_images": len(images),
            "options": description["options"],
            "local": asdict(local),
            "local_accuracy": run.local_accuracy,
            "seed": options.seed,
            "parameters": {
                "client": _count(client.model.layers),
                "local": _count(client.model.attack.classifier),
                "server": _count(server.model),
            },
            "selection": f"last epoch ({options.epochs})",
            "history": run.history,
            "training_time_s": round(run.time_s, 3),
            "training_cpu_time_s": round(run.cpu_time_s, 3),
            "versions": versions(),
        },
    )


class _Run:
    """Everything that changes while a split network trains, and its checkpoint."""

    def __init__(
        self,
        client: SplitClient,
        server: SplitServer,
        parts: dict[str, Images],
        folder: Path,
        name: str,
        progress: Progress,
    ) -> None:
        self.client, self.server, self.parts = client, server, parts
        self.folder, self.name, self.progress = folder, name, progress
        self.images, self.labels = (torch.tensor(array) for array in parts["train"])
        self.done = 0
        self.history: list[dict[str, Any]] = []
        self.local_accuracy: dict[str, float] = {}
        self.time_s = self.cpu_time_s = 0.0

    def begin(self, local: LocalOptions, classes: int) -> None:
        """Train the local classifier, and write the first checkpoint."""
        wall, cpu = time.perf_counter(), time.process_time()
        trained = train_local_classifier(self.images, self.labels, classes, local)
        self.client.model.attack.classifier.load_state_dict(trained.state_dict())
        for name in ("train", "val"):
            if name in self.parts:
                images, labels = (torch.from_numpy(array.copy()) for array in self.parts[name])
                self.local_accuracy[name] = local_accuracy(trained, images, labels)
        self._add_time(wall, cpu)
        self.save()

    def run_epochs(self) -> None:
        """Train until ``options.epochs`` are done."""
        epochs = self.server.options.epochs
        self.progress.begin(epochs, len(self._batches(0)), self.done)
        try:
            while self.done < epochs:
                self._epoch(epochs)
        finally:
            self.progress.end()

    def _epoch(self, epochs: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        losses = self._train()
        val = None
        if "val" in self.parts:
            val = {name: found["accuracy"] for name, found in self._figures("val").items()}
        self.done += 1
        taken = self._add_time(wall, cpu)
        record = SplitRecord(
            epoch=self.done,
            epochs=epochs,
            loss=sum(losses.values()),
            learning_rate=float(self.server.optimizer.param_groups[0]["lr"]),
            val_accuracy=None if val is None else val["fusion"],
            val_macro_f1=None,
            best=False,
            time_s=taken,
            time_left_s=self.time_s / self.done * (epochs - self.done),
            losses=losses,
            val=val,
        )
        kept = ("epoch", "loss", "learning_rate", "losses", "val", "time_s")
        self.history.append({name: value for name, value in asdict(record).items() if name in kept})
        self.save()
        write_json(self.folder / HISTORY_FILE, self.history)
        self.progress.epoch(record)

    def _train(self) -> dict[str, float]:
        """Mean loss of each stream over one epoch."""
        totals = [0.0] * len(_LOSSES)
        batches = self._batches(self.done)
        for number, chosen in enumerate(batches, start=1):
            reply = train_step(self.client, self.server, to_float(self.images[chosen]), self.labels[chosen])
            totals = [total + loss for total, loss in zip(totals, reply.losses, strict=True)]
            self.progress.step(self.done + 1, number, sum(reply.losses))
        return {name: total / len(batches) for name, total in zip(_LOSSES, totals, strict=True)}

    def _batches(self, epoch: int) -> Sequence[Tensor]:
        return epoch_batches(len(self.images), epoch, self.server.options)

    def _figures(self, split: str) -> dict[str, dict[str, Any]]:
        images, labels = self.parts[split]
        return figures(answers_to(self.server, torch_activations(self.client), images), labels)

    def _add_time(self, wall: float, cpu: float) -> float:
        taken = time.perf_counter() - wall
        self.time_s += taken
        self.cpu_time_s += time.process_time() - cpu
        return taken

    def metrics(self, dataset: str, classes: tuple[str, ...]) -> dict[str, Any]:
        """Figures on validation and test images, as far as there are any."""
        commonest = int(np.bincount(self.parts["train"][1]).argmax())
        return {
            split: {
                "dataset": dataset,
                "split": split,
                "images": len(self.parts[split][1]),
                **self._figures(split),
                "commonest_class": {
                    "class": classes[commonest],
                    "accuracy": float((self.parts[split][1] == commonest).mean()),
                },
            }
            for split in ("val", "test")
            if split in self.parts
        }

    def save(self) -> None:
        """Write the checkpoint, from which :meth:`restore` goes on; dropout and order follow from the counts alone."""
        server, values = self.server.state()
        tensors = {_SERVER + name: value for name, value in server.items()}
        tensors |= {_CLIENT + name: value for name, value in self.client.state().tensors.items()}
        tensors |= checkpoint.module_tensors("local", self.client.model.attack.classifier)
        values_kept = {
            "run": self.name,
            "epoch": self.done,
            "server": values,
            "history": self.history,
            "local_accuracy": self.local_accuracy,
            "time_s": self.time_s,
            "cpu_time_s": self.cpu_time_s,
        }
        checkpoint.save_checkpoint(self.folder / checkpoint.LAST_FILE, tensors, values_kept)

    def restore(self) -> None:
        """Go back to the last checkpoint in the folder.

        Raises:
            FormatError: it is damaged or belongs to another run.
        """
        tensors, values = checkpoint.load_of_run(self.folder / checkpoint.LAST_FILE, self.name)
        checkpoint.restore_module("local", self.client.model.attack.classifier, tensors)
        self.server.restore(_below(_SERVER, tensors), values["server"])
        self.client.take(ClientState(_below(_CLIENT, tensors)))
        self.done, self.history = values["epoch"], values["history"]
        self.local_accuracy = values["local_accuracy"]
        self.time_s, self.cpu_time_s = values["time_s"], values["cpu_time_s"]


def _limited_parts(dataset: DatasetLike, limit: int | None) -> dict[str, Images]:
    """Images and labels of each split that has any; of the training images the first ``limit``."""
    found = checked_parts(dataset)
    if limit is not None:
        if limit < 2:
            raise UsageError(f"limit is {limit}; a batch needs 2 training images")
        found["train"] = (found["train"][0][:limit], found["train"][1][:limit])
    return found


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _name(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
