"""The loop of spike learning: one epoch after another, each ending in a checkpoint from which it goes on."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.toolkit.coding import encode_for, with_constant_channels
from gascnn.toolkit.errors import TrainingError, UsageError
from gascnn.toolkit.files import write_json
from gascnn.toolkit.spike_learning.augment import augment
from gascnn.toolkit.spike_learning.features import FeatureMatch, FeatureStatistics, TeacherFeatures, feature_loss
from gascnn.toolkit.spike_learning.machine import Answer, IntegerMachine
from gascnn.toolkit.spike_learning.objective import learning_loss, matching_factor
from gascnn.toolkit.spike_learning.options import LearningOptions
from gascnn.toolkit.training import checkpoint
from gascnn.toolkit.training.batches import to_float
from gascnn.toolkit.training.loop import HISTORY_FILE
from gascnn.toolkit.training.progress import EpochRecord, Progress

_MATCHING_IMAGES = 256
_MATCH = "features."


class LearningLoop:
    """Everything that changes while a network learns, and how it changes in an epoch.

    Args:
        machine: learns in place.
        teacher: the ANN, in evaluation mode.
        images: (image, C, H, W) uint8.
        labels: (image,) int64.
        answers: (image, class) the teacher's logits.
        steps: T.
        options: how.
        folder: where checkpoints go.
        run: names the run; a checkpoint of another run is refused.
        progress: told of steps and epochs.

    Attributes:
        done: epochs finished.
        history: a record an epoch.
        time_s: wall time of epochs, also before a resumption.
    """

    def __init__(
        self,
        machine: IntegerMachine,
        teacher: nn.Module,
        images: Tensor,
        labels: Tensor,
        answers: Tensor,
        steps: int,
        options: LearningOptions,
        folder: Path,
        run: str,
        progress: Progress,
    ) -> None:
        self.machine, self.teacher = machine, teacher
        self.images, self.labels, self.answers = images, labels, answers
        self.steps, self.options, self.folder, self.run, self.progress = steps, options, folder, run, progress
        self.generator = torch.Generator().manual_seed(options.seed)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed))
        held = min(int(len(images) * options.held_out), len(images) - 1)
        self.held, self.learnt = order[:held], order[held:]
        self.batch_size = min(options.batch_size, len(self.learnt))
        self.batches = len(self.learnt) // self.batch_size
        self.optimizer = torch.optim.Adam(machine.parameters(), lr=options.learning_rate)
        self.by_membrane, self.factor = False, 1.0
        self.features: TeacherFeatures | None = None
        if options.feature_weight > 0:
            shape = (images.shape[1], images.shape[2], images.shape[3])
            self.features = TeacherFeatures(machine.network, self.teacher, shape)
        self.matches: list[FeatureMatch] = []
        self.done = 0
        self.history: list[dict[str, Any]] = []
        self.time_s = 0.0

    def match(self) -> None:
        """Find out how the network is read, and what turns its answers into logits and its spikes into activations.

        Raises:
            UsageError: its answers do not follow the teacher's at all.
        """
        chosen = self.learnt[:_MATCHING_IMAGES]
        counts, membranes = [], []
        statistics = FeatureStatistics(len(self._summed))
        self.machine.eval()
        with torch.no_grad():
            for part in chosen.split(self.batch_size):
                answer = self.machine(self._frames(self.images[part]), skip_steps=self._skip, summed=self._summed)
                counts.append(answer.counts)
                membranes.append(answer.membrane)
                if self.features is not None:
                    statistics.add(answer.sums, self.features(to_float(self.images[part])))
        self.matches = statistics.matches()
        seen = torch.cat(counts)
        self.by_membrane = not bool(seen.any())
        factor = matching_factor(torch.cat(membranes) if self.by_membrane else seen, self.answers[chosen])
        if factor is None:
            raise UsageError(
                "the network's answers do not follow the teacher's at all; give the ANN it was converted from, "
                "or convert it for more steps"
            )
        self.factor = factor

    def run_epochs(self) -> None:
        """Learn until ``options.epochs`` are done.

        Raises:
            TrainingError: the loss or a weight is no longer a finite number; the last checkpoint is kept.
            DataError: a checkpoint could not be written.
        """
        self.progress.begin(self.options.epochs, self.batches, self.done)
        try:
            while self.done < self.options.epochs:
                self._epoch()
        finally:
            self.progress.end()

    def _epoch(self) -> None:
        started, epoch = time.perf_counter(), self.done + 1
        loss, rate = self._learn(epoch)
        for name, value in self.machine.named_parameters():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(self._explain(f"{name} holds NaN or infinity after epoch {epoch}"))
        agreement = self._agreement()
        self.done = epoch
        taken = time.perf_counter() - started
        self.time_s += taken
        record = EpochRecord(
            epoch=epoch,
            epochs=self.options.epochs,
            loss=loss,
            learning_rate=self.options.rate_at(epoch),
            val_accuracy=agreement,
            val_macro_f1=None,
            best=False,
            time_s=taken,
            time_left_s=self.time_s / epoch * (self.options.epochs - epoch),
        )
        kept = ("epoch", "loss", "learning_rate", "time_s")
        plain = {key: value for key, value in asdict(record).items() if key in kept}
        self.history.append({**plain, "agreement": agreement, "spikes_a_source": rate})
        self.save()
        write_json(self.folder / HISTORY_FILE, self.history)
        self.progress.epoch(record)

    def _learn(self, epoch: int) -> tuple[float, float]:
        """Mean loss, and spikes a synaptic source and image."""
        self.machine.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate_at(epoch)
        order = self.learnt[torch.randperm(len(self.learnt), generator=self.generator)]
        total, spikes = 0.0, 0.0
        for step in range(self.batches):
            value, rate = self._step(order[step * self.batch_size : (step + 1) * self.batch_size])
            if not math.isfinite(value):
                raise TrainingError(self._explain(f"the loss became {value} in step {step + 1} of epoch {epoch}"))
            total, spikes = total + value, spikes + rate
            self.progress.step(epoch, step + 1, value)
        return total / self.batches, spikes / self.batches

    def _step(self, chosen: Tensor) -> tuple[float, float]:
        targets = F.one_hot(self.labels[chosen], self.answers.shape[1]).float()
        batch = (self.images[chosen], targets, self.answers[chosen])
        images, targets, wanted = augment(*batch, self.teacher, self.options, self.generator)
        answer = self.machine(self._frames(images), skip_steps=self._skip, summed=self._summed)
        options = self.options
        loss = learning_loss(self._logits(answer), wanted, targets, options.distillation, options.temperature)
        if self.features is not None:
            activations = self.features(to_float(images))
            loss = loss + options.feature_weight * feature_loss(answer.sums, activations, self.matches)
        rate = self.steps * (answer.rates * self._synapses).sum() / self._synapses.sum()
        if options.rate_penalty:
            loss = loss + options.rate_penalty * (rate - options.rate_goal).relu()
        value = float(loss.detach())
        if math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if options.gradient_clip > 0:
                nn.utils.clip_grad_norm_(self.machine.parameters(), options.gradient_clip)
            self.optimizer.step()
        return value, float(rate.detach())

    @property
    def _skip(self) -> int:
        deployment = self.machine.network.deployment
        return 0 if deployment is None else min(deployment.skip_steps, self.steps - 1)

    @property
    def _summed(self) -> tuple[int, ...]:
        return () if self.features is None else self.features.layers

    @cached_property
    def _synapses(self) -> Tensor:
        """(layer,) synapses that go out from a layer's neurons, at borders as in the middle; none from the read-out."""
        layers = self.machine.network.layers[1:]
        numbers = [np.count_nonzero(layer.weight) * math.prod(layer.shape[1:]) for layer in layers]
        return torch.tensor([*numbers, 0], dtype=torch.float32)

    def _frames(self, images: Tensor) -> Tensor:
        network = self.machine.network
        return torch.from_numpy(with_constant_channels(network, encode_for(network, images.numpy(), steps=self.steps)))

    def _logits(self, answer: Answer) -> Tensor:
        return self.factor * (answer.membrane if self.by_membrane else answer.counts)

    def _agreement(self) -> float | None:
        """Share of the images held out whose class is the teacher's."""
        if not len(self.held):
            return None
        self.machine.eval()
        right = 0
        with torch.no_grad():
            for part in self.held.split(self.batch_size):
                answer = self.machine(self._frames(self.images[part]), skip_steps=self._skip)
                # Spikes decide; potentials, here squeezed below half a spike, break ties.
                settled = answer.counts + 0.49 * torch.tanh(answer.membrane)
                right += int((settled.argmax(1) == self.answers[part].argmax(1)).sum())
        return right / len(self.held)

    def _explain(self, finding: str) -> str:
        options = self.options
        return (
            f"{finding}; lower learning_rate ({options.learning_rate:g}) or gradient_clip ({options.gradient_clip:g}) "
            f"in a new run; {self.folder / checkpoint.LAST_FILE} holds the weights after epoch {self.done}"
        )

    def save(self) -> None:
        """Write the checkpoint of everything, from which :meth:`restore` goes on."""
        tensors, plain = checkpoint.optimizer_state(self.optimizer)
        tensors |= checkpoint.module_tensors("machine", self.machine)
        tensors |= checkpoint.random_tensors(self.generator)
        for k, match in enumerate(self.matches):
            tensors |= {f"{_MATCH}{k}.factor": match.factor, f"{_MATCH}{k}.power": match.power}
        values = {
            "run": self.run,
            "epoch": self.done,
            "optimizer": plain,
            "history": self.history,
            "by_membrane": self.by_membrane,
            "factor": self.factor,
            "time_s": self.time_s,
        }
        checkpoint.save_checkpoint(self.folder / checkpoint.LAST_FILE, tensors, values)

    def restore(self) -> None:
        """Go back to the last checkpoint in the folder.

        Raises:
            FormatError: it is damaged or belongs to another run.
        """
        tensors, values = checkpoint.load_of_run(self.folder / checkpoint.LAST_FILE, self.run)
        checkpoint.restore_module("machine", self.machine, tensors)
        checkpoint.restore_optimizer(self.optimizer, tensors, values["optimizer"])
        checkpoint.restore_random(self.generator, tensors)
        self.done, self.history, self.time_s = values["epoch"], values["history"], values["time_s"]
        self.by_membrane, self.factor = values["by_membrane"], values["factor"]
        self.matches = [
            FeatureMatch(tensors[f"{_MATCH}{k}.factor"], tensors[f"{_MATCH}{k}.power"])
            for k in range(len(self._summed))
        ]
