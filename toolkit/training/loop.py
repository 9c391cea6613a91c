"""The training loop: one epoch after another, each ending in a checkpoint from which it goes on to the same bits."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.toolkit.errors import FormatError, TrainingError, UsageError
from gascnn.toolkit.files import write_json
from gascnn.toolkit.training import checkpoint
from gascnn.toolkit.training.augment import policy
from gascnn.toolkit.training.batches import class_weights, epoch_order, mix_batch, soft_loss, to_float
from gascnn.toolkit.training.evaluate import evaluate
from gascnn.toolkit.training.inputs import ImageSetLike
from gascnn.toolkit.training.optimisation import WeightAverage, learning_rate, make_optimizer
from gascnn.toolkit.training.options import TrainingOptions
from gascnn.toolkit.training.progress import EpochRecord, Progress

HISTORY_FILE = "history.json"


class Loop:
    """Everything that changes while a network is trained, and how it changes in an epoch.

    Args:
        model: trained in place.
        images: (n, C, H, W) uint8.
        labels: (n,) int64.
        class_names: in the order of the outputs.
        validation: images to validate on, or None.
        options: ``select`` must be settled (not ``auto``).
        folder: where checkpoints go.
        run: names the run; a checkpoint of another run is refused.
        progress: told of steps and epochs.

    Attributes:
        done: epochs finished.
        history: a record (plain values) an epoch.
        best: ``epoch``, ``macro_f1`` and ``accuracy`` of the best validation so far.
        time_s: wall time spent in epochs, also before a resumption.
        cpu_time_s: the same in processor time of this process, all threads.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        class_names: tuple[str, ...],
        validation: ImageSetLike | None,
        options: TrainingOptions,
        folder: Path,
        run: str,
        progress: Progress,
    ) -> None:
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.model = model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks this keyword
        self.images, self.labels, self.class_names = images, labels, class_names
        self.validation, self.options, self.folder = validation, options, folder
        self.run, self.progress, self.layout = run, progress, layout
        self.batch_size = min(options.batch_size, len(images))
        self.steps = len(images) // self.batch_size
        self.augment = policy(options.augmentation)
        self.weights: Tensor | None = None
        if options.balance == "weights":
            self.weights = class_weights(labels, len(class_names), options.balance_power)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.optimizer = make_optimizer(model, options)
        self.average = WeightAverage(model, options.ema_decay) if options.ema_decay > 0 else None
        self.done = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.time_s = self.cpu_time_s = 0.0

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the moving average if there is one."""
        return self.model if self.average is None else self.average.model

    def run_epochs(self) -> None:
        """Train until ``options.epochs`` are done.

        Raises:
            TrainingError: the loss or a weight is no longer a finite number; the last checkpoint is kept.
            DataError: a checkpoint could not be written.
        """
        self.progress.begin(self.options.epochs, self.steps, self.done)
        try:
            for count in range(1, self.options.epochs - self.done + 1):
                self._epoch(count)
        finally:
            self.progress.end()

    def _epoch(self, count: int) -> None:
        """One epoch; ``count`` is its number in this process, from 1."""
        wall, cpu = time.perf_counter(), time.process_time()
        epoch = self.done + 1
        loss = self._train(epoch)
        self._check_finite(epoch)
        report = self._validate(epoch)
        self.done = epoch
        better = report is not None and self._is_best(epoch, report)
        taken = time.perf_counter() - wall
        self.time_s += taken
        self.cpu_time_s += time.process_time() - cpu
        options = self.options
        record = EpochRecord(
            epoch=epoch,
            epochs=options.epochs,
            loss=loss,
            learning_rate=learning_rate(epoch * self.steps - 1, options.epochs * self.steps, options),
            val_accuracy=None if report is None else report["accuracy"],
            val_macro_f1=None if report is None else report["macro_f1"],
            best=better,
            time_s=taken,
            time_left_s=self.time_s / epoch * (options.epochs - epoch),
        )
        self.history.append({key: value for key, value in asdict(record).items() if key != "time_left_s"})
        # The best first: a kill between the two repeats this epoch and writes the same best again.
        if better and options.select == "val-macro-f1":
            values = {"run": self.run, **(self.best or {})}
            checkpoint.save_checkpoint(
                self.folder / checkpoint.BEST_FILE, checkpoint.module_tensors("model", self.evaluated), values
            )
        self.save()
        write_json(self.folder / HISTORY_FILE, self.history)
        self.progress.epoch(record)

    def _train(self, epoch: int) -> float:
        self.model.train()
        order = epoch_order(self.labels, len(self.class_names), self.options, self.generator)
        total = 0.0
        for step in range(self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            value = self._step(chosen, (epoch - 1) * self.steps + step)
            if not math.isfinite(value):
                raise TrainingError(self._explain(f"the loss became {value} in step {step + 1} of epoch {epoch}"))
            total += value
            self.progress.step(epoch, step + 1, value)
        return total / self.steps

    def _step(self, chosen: Tensor, step: int) -> float:
        options = self.options
        images = self.augment(to_float(self.images[chosen]), self.generator)
        targets = F.one_hot(self.labels[chosen], len(self.class_names)).float()
        images, targets = mix_batch(images, targets, options, self.generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, options.epochs * self.steps, options)
        logits = self.model(images.contiguous(memory_format=self.layout))
        if logits.shape != targets.shape:
            raise UsageError(
                f"the model answers a batch with shape {tuple(logits.shape)}; expected {tuple(targets.shape)}, "
                "one logit a class; build it with as many classes as the data set has"
            )
        loss = soft_loss(logits, targets, self.weights, options.label_smoothing)
        value = float(loss.detach())
        if math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if options.gradient_clip > 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), options.gradient_clip)
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.model, step + 1)
        return value

    def _check_finite(self, epoch: int) -> None:
        for name, value in self.evaluated.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(self._explain(f"{name} holds NaN or infinity after epoch {epoch}"))

    def _explain(self, finding: str) -> str:
        options = self.options
        clip = f"lower gradient_clip ({options.gradient_clip:g})" if options.gradient_clip else "set gradient_clip to 1"
        kept = self.folder / checkpoint.LAST_FILE
        return (
            f"{finding}; lower learning_rate ({options.learning_rate:g}) or {clip} in a new run; "
            f"{kept} holds the weights after epoch {self.done}"
        )

    def _validate(self, epoch: int) -> dict[str, Any] | None:
        options = self.options
        if self.validation is None or (epoch % options.validate_every and epoch != options.epochs):
            return None
        return evaluate(self.evaluated, self.validation, self.class_names)

    def _is_best(self, epoch: int, report: dict[str, Any]) -> bool:
        """Whether macro-F1, then accuracy, is the highest so far; of equals the later, better settled epoch."""
        found = (report["macro_f1"], report["accuracy"])
        if self.best is not None and found < (self.best["macro_f1"], self.best["accuracy"]):
            return False
        self.best = {"epoch": epoch, "macro_f1": found[0], "accuracy": found[1]}
        return True

    def save(self) -> None:
        """Write the checkpoint of everything, from which :meth:`restore` goes on."""
        tensors, plain = checkpoint.optimizer_state(self.optimizer)
        tensors |= checkpoint.module_tensors("model", self.model)
        if self.average is not None:
            tensors |= checkpoint.module_tensors("average", self.average.model)
        tensors |= checkpoint.random_tensors(self.generator)
        values = {
            "run": self.run,
            "epoch": self.done,
            "optimizer": plain,
            "history": self.history,
            "best": self.best,
            "time_s": self.time_s,
            "cpu_time_s": self.cpu_time_s,
        }
        checkpoint.save_checkpoint(self.folder / checkpoint.LAST_FILE, tensors, values)

    def restore(self) -> None:
        """Go back to the last checkpoint in the folder.

        Raises:
            FormatError: it is damaged or belongs to another run.
        """
        tensors, values = checkpoint.load_of_run(self.folder / checkpoint.LAST_FILE, self.run)
        checkpoint.restore_module("model", self.model, tensors)
        if self.average is not None:
            checkpoint.restore_module("average", self.average.model, tensors)
        checkpoint.restore_optimizer(self.optimizer, tensors, values["optimizer"])
        checkpoint.restore_random(self.generator, tensors)
        self.done, self.history, self.best = values["epoch"], values["history"], values["best"]
        self.time_s, self.cpu_time_s = values["time_s"], values["cpu_time_s"]

    def selected(self) -> tuple[nn.Module, int]:
        """The network to keep, in row-major layout and evaluation mode, and the epoch it comes from.

        Raises:
            FormatError: the best checkpoint is missing, damaged, or belongs to another run or epoch.
        """
        model, epoch = self.evaluated, self.done
        if self.options.select == "val-macro-f1" and self.best is not None:
            path = self.folder / checkpoint.BEST_FILE
            tensors, values = checkpoint.load_of_run(path, self.run)
            epoch = self.best["epoch"]
            if values["epoch"] != epoch:
                raise FormatError(
                    f"{path} holds epoch {values['epoch']}, expected {epoch}; start again in a new folder"
                )
            checkpoint.restore_module("model", model, tensors)
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub lacks it
        return model.eval().requires_grad_(True), epoch


@contextlib.contextmanager
def own_torch_state(seed: int, threads: int) -> Iterator[None]:
    """Run a block with torch's global random state seeded and its number of threads set; both are put back."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(before)
