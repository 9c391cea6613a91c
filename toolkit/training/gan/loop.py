"""The GAN's training loop: iterations, reports and checkpoints from which it goes on to the same bits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gascnn.models.gan import Discriminator, SliceGenerator, condition_of
from gascnn.toolkit.files import write_json
from gascnn.toolkit.training import checkpoint
from gascnn.toolkit.training.gan.grids import grid_of, save_grid
from gascnn.toolkit.training.gan.health import Guard, diversity, made_of, real_spread
from gascnn.toolkit.training.gan.options import GanOptions, learning_rate
from gascnn.toolkit.training.gan.processes import Processes
from gascnn.toolkit.training.gan.progress import GanRecord, Progress
from gascnn.toolkit.training.gan.sources import BalancedDraw, to_plane
from gascnn.toolkit.training.gan.steps import CRITIC_TERMS, GENERATOR_TERMS, CriticUpdate, GeneratorUpdate
from gascnn.toolkit.training.loop import HISTORY_FILE
from gascnn.toolkit.training.optimisation import WeightAverage


class GanLoop:
    """Everything that changes while a GAN is trained, and how.

    Args:
        generator: trained in place.
        critic: likewise.
        images: (n, C, H, W) uint8.
        labels: (n,) int64.
        class_names: in the order of the labels.
        options: how.
        folder: where checkpoints, history and pictures go.
        run: names the run; a checkpoint of another run is refused.
        processes: that train together.
        progress: told of iterations and records, in the first process.

    Attributes:
        done: iterations finished.
        history: a record (plain values) a report.
        time_s: wall time spent in iterations, also before a resumption.

    Raises:
        DataError: images that are all alike.
    """

    def __init__(
        self,
        generator: SliceGenerator,
        critic: Discriminator,
        images: Tensor,
        labels: Tensor,
        class_names: tuple[str, ...],
        options: GanOptions,
        folder: Path,
        run: str,
        processes: Processes,
        progress: Progress,
    ) -> None:
        self.generator, self.critic = generator.to(processes.device), critic.to(processes.device)
        self.images, self.labels, self.classes = images, labels, len(class_names)
        self.options, self.folder, self.run_name = options, folder, run
        self.processes, self.progress = processes, progress
        self.average = WeightAverage(self.generator, options.ema_decay) if options.ema_decay > 0 else None
        self.critic_update = processes.wrapped(CriticUpdate(self.critic, options))
        self.generator_update = processes.wrapped(GeneratorUpdate(self.generator, self.critic, options))
        betas = (options.beta1, options.beta2)
        learnt = [p for p in self.generator.parameters() if p.requires_grad]
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), options.learning_rate, betas)
        self.generator_optimizer = torch.optim.Adam(learnt, options.learning_rate, betas)
        self.random = torch.Generator().manual_seed(options.seed)
        self.draw = BalancedDraw(labels, self.classes)
        self.probe = to_plane(images[self.draw.probe(options.probe_images)]).to(processes.device)
        real_spread(self.probe)
        self.guard = Guard(options, class_names, folder / checkpoint.LAST_FILE)
        self.done = 0
        self.history: list[dict[str, Any]] = []
        self.time_s = 0.0

    @property
    def sampled(self) -> SliceGenerator:
        """The generator that makes images: the moving average if there is one."""
        found: SliceGenerator = self.generator if self.average is None else self.average.model  # type: ignore[assignment]
        return found

    def run(self) -> None:
        """Train until ``options.iterations`` are done.

        Raises:
            TrainingError: a loss or weight that is no finite number, a critic that exploded, a class that collapsed;
                the last good checkpoint is kept.
            DataError: a checkpoint could not be written.
        """
        self.progress.begin(self.options.iterations, self.done)
        try:
            while self.done < self.options.iterations:
                self._stretch()
        finally:
            self.progress.end()

    def _stretch(self) -> None:
        """All iterations up to the next report, and the report."""
        started = time.perf_counter()
        first, every = self.done + 1, self.options.report_every
        last = min(self.options.iterations, (self.done // every + 1) * every)
        critic, generator = [], []
        for iteration in range(first, last + 1):
            found, more = self._iteration(iteration)
            critic.append(found)
            generator += more
            self.progress.step(iteration)
        self.guard.weights(last, {"generator": self.generator, "critic": self.critic})
        # The guard watches what is trained, which collapses first; told is what the generator that is kept makes.
        trained = self._diversity(self.generator)
        good = self.guard.spreads(last, trained)
        kept = trained if self.average is None else self._diversity(self.sampled)
        self.done = last
        taken = time.perf_counter() - started
        self.time_s += taken
        record = GanRecord(
            iteration=last,
            iterations=self.options.iterations,
            learning_rate=learning_rate(last - 1, self.options),
            critic=_means(CRITIC_TERMS, critic),
            generator=_means(GENERATOR_TERMS, generator),
            diversity=min(kept),
            diversity_trained=min(trained),
            time_s=taken,
            time_left_s=self.time_s / last * (self.options.iterations - last),
        )
        self.history.append(record.to_dict())
        if self.processes.rank == 0:
            self._write(first, last, good)
        self.progress.record(record)

    def _iteration(self, iteration: int) -> tuple[list[float], list[list[float]]]:
        """One update of the discriminator and, in every ``critic_steps``-th iteration, one of the generator."""
        options, share = self.options, self.processes.share
        batch = self.draw.batch(options.batch_size, (iteration - 1) * options.batch_size, self.random)
        real = to_plane(share(self.images[batch.chosen]))
        own, wanted = share(condition_of(self.labels[batch.chosen], self.classes)), share(batch.wanted)
        with torch.no_grad():
            synthetic = self.generator(real, wanted).slices
        terms = self.critic_update(real, own, synthetic, share(batch.share))
        critic = self._lower(iteration, "critic", CRITIC_TERMS, terms, self.critic_optimizer)
        if iteration % options.critic_steps:
            return critic, []
        self.critic.requires_grad_(False)
        terms = self.generator_update(real, wanted)
        generator = self._lower(iteration, "generator", GENERATOR_TERMS, terms, self.generator_optimizer)
        self.critic.requires_grad_(True)
        if self.average is not None:
            self.average.update(self.generator, iteration // options.critic_steps)
        return critic, [generator]

    def _lower(
        self, iteration: int, side: str, names: tuple[str, ...], terms: Tensor, optimizer: torch.optim.Optimizer
    ) -> list[float]:
        """A step down the first of the terms; all of them, as means over the processes."""
        values: list[float] = self.processes.mean(terms.detach()).tolist()
        self.guard.losses(iteration, side, dict(zip(names, values, strict=True)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration - 1, self.options)
        optimizer.zero_grad(set_to_none=True)
        terms[0].backward()
        optimizer.step()
        return values

    def _diversity(self, generator: SliceGenerator) -> list[float]:
        found = torch.tensor(diversity(generator, self.probe, self.classes), dtype=torch.float64)
        values: list[float] = self.processes.mean(found.to(self.processes.device)).tolist()
        return values

    def _write(self, first: int, last: int, good: bool) -> None:
        """History, picture if one is due, and the checkpoint, unless a class is about to collapse."""
        if good:
            self.save()
        write_json(self.folder / HISTORY_FILE, self.history)
        every = self.options.grid_every
        if every and (last == self.options.iterations or last // every > (first - 1) // every):
            save_grid(self.folder, last, grid_of(self.sampled, self.probe, self.classes))

    def save(self) -> None:
        """Write the checkpoint of everything, from which :meth:`restore` goes on."""
        tensors = checkpoint.module_tensors("generator", self.generator)
        tensors |= checkpoint.module_tensors("critic", self.critic)
        if self.average is not None:
            tensors |= checkpoint.module_tensors("average", self.average.model)
        tensors |= checkpoint.random_tensors(self.random)
        plain = {}
        for side, optimizer in self._optimizers().items():
            moments, plain[side] = checkpoint.optimizer_state(optimizer)
            tensors |= {f"{side}_{name}": value for name, value in moments.items()}
        values = {
            "run": self.run_name,
            "iteration": self.done,
            "optimizers": plain,
            "history": self.history,
            "time_s": self.time_s,
        }
        checkpoint.save_checkpoint(self.folder / checkpoint.LAST_FILE, tensors, values)

    def restore(self) -> None:
        """Go back to the last checkpoint in the folder.

        Raises:
            FormatError: it is damaged or belongs to another run.
        """
        tensors, values = checkpoint.load_of_run(self.folder / checkpoint.LAST_FILE, self.run_name)
        checkpoint.restore_module("generator", self.generator, tensors)
        checkpoint.restore_module("critic", self.critic, tensors)
        if self.average is not None:
            checkpoint.restore_module("average", self.average.model, tensors)
        for side, optimizer in self._optimizers().items():
            own = {name.removeprefix(f"{side}_"): value for name, value in tensors.items() if name.startswith(side)}
            checkpoint.restore_optimizer(optimizer, own, values["optimizers"][side])
        checkpoint.restore_random(self.random, tensors)
        self.done, self.history, self.time_s = values["iteration"], values["history"], values["time_s"]

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"critic": self.critic_optimizer, "generator": self.generator_optimizer}

    def condition_error(self) -> float:
        """How far P_sc is from what was asked for: mean of |P_sc - SC| over the probe and all classes."""
        conditions = condition_of(torch.arange(self.classes), self.classes).to(self.processes.device)
        errors = []
        with torch.no_grad():
            for one in conditions:
                found = self.critic(made_of(self.sampled, self.probe, one.expand(len(self.probe))))[1]
                errors.append(float((found - one).abs().mean()))
        return sum(errors) / len(errors)


def _means(names: tuple[str, ...], rows: list[list[float]]) -> dict[str, float]:
    columns = zip(*rows, strict=True)
    return {name: sum(column) / len(column) for name, column in zip(names, columns, strict=False)}
