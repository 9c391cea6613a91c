"""How a training run tells what it is doing: a protocol, and one implementation that draws with rich."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID


@dataclass(frozen=True)
class EpochRecord:
    """One epoch as it is reported and kept in the history.

    Attributes:
        epoch: from 1.
        epochs: of the whole run.
        loss: mean training loss, as trained on (smoothed, mixed, weighted).
        learning_rate: of the last step.
        val_accuracy: None where this epoch was not validated.
        val_macro_f1: likewise.
        best: whether these weights are the ones to keep so far.
        time_s: spent on this epoch.
        time_left_s: for the rest of the run, at the pace of this process so far.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    val_accuracy: float | None
    val_macro_f1: float | None
    best: bool
    time_s: float
    time_left_s: float

    def line(self) -> str:
        """The record in one line of text."""
        parts = [f"epoch {self.epoch}/{self.epochs}", f"loss {self.loss:.4f}"]
        if self.val_accuracy is not None and self.val_macro_f1 is not None:
            parts.append(f"val accuracy {self.val_accuracy:.4f}, macro-F1 {self.val_macro_f1:.4f}")
        parts.append(f"{self.time_s:.1f} s, {_minutes(self.time_left_s)} left")
        return "  ".join(parts) + (" *" if self.best else "")


class Progress(Protocol):
    """What :func:`gascnn.toolkit.training.train.train` calls; exceptions raised here end the run."""

    def begin(self, epochs: int, steps: int, done: int) -> None:
        """Once: epochs of the run, steps an epoch, epochs done before (on resuming)."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """After each step, both counted from 1."""

    def epoch(self, record: EpochRecord) -> None:
        """After each epoch, its validation and its checkpoint."""

    def end(self) -> None:
        """Once, however the run ended."""


class Silent:
    """Says nothing."""

    def begin(self, epochs: int, steps: int, done: int) -> None:
        """Nothing."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Nothing."""

    def epoch(self, record: EpochRecord) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Lines(Silent):
    """One line of text an epoch."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def epoch(self, record: EpochRecord) -> None:
        """Write the line at once."""
        self.stream.write(record.line() + "\n")
        self.stream.flush()


class _RichProgress:
    def __init__(self, stream: TextIO, force: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=stream, force_terminal=True if force else None, highlight=False)
        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        self.bar: RichBar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.task: TaskID | None = None
        self.steps = 0

    def begin(self, epochs: int, steps: int, done: int) -> None:
        self.steps = steps
        self.task = self.bar.add_task("training", total=epochs * steps, completed=done * steps)
        self.bar.start()

    def step(self, epoch: int, step: int, loss: float) -> None:
        if self.task is not None:
            done = (epoch - 1) * self.steps + step
            self.bar.update(self.task, completed=done, description=f"epoch {epoch}  loss {loss:.4f}")

    def epoch(self, record: EpochRecord) -> None:
        self.bar.console.print(record.line(), soft_wrap=True)

    def end(self) -> None:
        self.bar.stop()


def rich_progress(*, force: bool = False, stream: TextIO | None = None) -> Progress:
    """A bar of steps with a line an epoch: loss, validation accuracy and macro-F1, time left.

    Args:
        force: draw also where ``stream`` is not a terminal.
        stream: standard error if left out.

    Returns:
        The bar, or plain lines where there is no terminal (a log file) or rich is not installed.
    """
    target = sys.stderr if stream is None else stream
    if not force and not target.isatty():
        return Lines(target)
    try:
        return _RichProgress(target, force)
    except ImportError:
        return Lines(target)


def _minutes(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes}:{seconds:02d} min"
