"""How training the GAN tells what it is doing: a record every so many iterations, a bar in between. No torch here."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID


@dataclass(frozen=True)
class GanRecord:
    """What happened since the record before; losses are means over these iterations, without their weights.

    Attributes:
        iteration: from 1.
        iterations: of the whole run.
        learning_rate: of the last one.
        critic: by name: ``loss`` (equation 9), ``distance`` (E[P_a(real)] - E[P_a(SL_2D)]), ``penalty``,
            ``regression``.
        generator: by name: ``loss`` (equation 8), ``realism`` (E[P_a(SL_2D)]), ``variation``, ``attention``,
            ``identity``, ``regression``; empty where it was not updated.
        diversity: of the generator that is saved and makes images (the moving average, if any), the least of all
            classes, as a share of the real images'; see :func:`gascnn.toolkit.training.gan.health.diversity`.
        diversity_trained: the same of the generator that is trained, which the guard against collapse watches.
        time_s: spent on these iterations.
        time_left_s: for the rest of the run, at the pace so far.
    """

    iteration: int
    iterations: int
    learning_rate: float
    critic: dict[str, float]
    generator: dict[str, float]
    diversity: float
    diversity_trained: float
    time_s: float
    time_left_s: float

    def line(self) -> str:
        """The record in one line of text."""
        minutes, seconds = divmod(round(self.time_left_s), 60)
        parts = [f"{self.iteration}/{self.iterations}", f"distance {self.critic['distance']:.3f}"]
        if self.generator:
            parts += [f"{name} {self.generator[name]:.4f}" for name in ("regression", "identity", "attention")]
        parts += [f"diversity {self.diversity:.3f}", f"{self.time_s:.1f} s, {minutes}:{seconds:02d} min left"]
        return "  ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For the history: all but what depends on the moment."""
        return {name: value for name, value in asdict(self).items() if name != "time_left_s"}


class Progress(Protocol):
    """What :func:`gascnn.toolkit.training.gan.train.train_gan` calls; exceptions raised here end the run."""

    def begin(self, iterations: int, done: int) -> None:
        """Once: iterations of the run, and done before (on resuming)."""

    def step(self, iteration: int) -> None:
        """After each iteration, from 1."""

    def record(self, record: GanRecord) -> None:
        """After each checkpoint."""

    def end(self) -> None:
        """Once, however the run ended."""


class Silent:
    """Says nothing."""

    def begin(self, iterations: int, done: int) -> None:
        """Nothing."""

    def step(self, iteration: int) -> None:
        """Nothing."""

    def record(self, record: GanRecord) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Lines(Silent):
    """One line of text a record."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def record(self, record: GanRecord) -> None:
        """Write the line at once."""
        self.stream.write(record.line() + "\n")
        self.stream.flush()


class _RichProgress:
    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=stream, highlight=False)
        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        self.bar: RichBar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.task: TaskID | None = None

    def begin(self, iterations: int, done: int) -> None:
        self.task = self.bar.add_task("training", total=iterations, completed=done)
        self.bar.start()

    def step(self, iteration: int) -> None:
        if self.task is not None:
            self.bar.update(self.task, completed=iteration)

    def record(self, record: GanRecord) -> None:
        self.bar.console.print(record.line(), soft_wrap=True)

    def end(self) -> None:
        self.bar.stop()


def shown_progress(stream: TextIO | None = None) -> Progress:
    """A bar with a line a record; plain lines where there is no terminal (a log file) or rich is not installed.

    Args:
        stream: standard error if left out.
    """
    target = sys.stderr if stream is None else stream
    if not target.isatty():
        return Lines(target)
    try:
        return _RichProgress(target)
    except ImportError:
        return Lines(target)
