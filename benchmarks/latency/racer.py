"""One contender in the race: its warm-up, its single images, its batches, its one start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gascnn.benchmarks.latency.contender import Classes, Contender, Images, Timed
from gascnn.toolkit.errors import BackendError, GascnnError, UsageError, first_line

Clock = Callable[[], float]


@dataclass(frozen=True)
class Settings:
    """How a race is run; see :func:`gascnn.benchmarks.latency.race.race`.

    Raises:
        UsageError: numbers that make no race.
    """

    rounds: int
    calls: int
    warmup: int
    batch_sizes: tuple[int, ...]
    limit_s: float

    def __post_init__(self) -> None:
        for name in ("rounds", "calls", "warmup"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UsageError(f"batch sizes are {self.batch_sizes}; give at least one, each at least 1")
        if not self.limit_s > 0:
            raise UsageError(f"the limit is {self.limit_s} seconds; it must be above 0")


@dataclass
class Racer:
    """A contender in the race, and what it did.

    Attributes:
        contender: who.
        clock: seconds from any beginning.
        first_call_s: its very first image: what is loaded, compiled or laid out then is in it.
        answers: (image,) to all images, or to the first ones with a clock of its own.
        singles: seconds of single images, one list a round.
        batches: seconds of batches by size, one list a round.
        timed: what its own clock said.
        notes: what a reader must know.
    """

    contender: Contender
    clock: Clock
    first_call_s: float | None = None
    answers: Classes | None = None
    singles: list[list[float]] = field(default_factory=list)
    batches: dict[int, list[list[float]]] = field(default_factory=dict)
    timed: Timed | None = None
    notes: list[str] = field(default_factory=list)

    def warm_up(self, images: Images, calls: int, limit_s: float) -> None:
        """Call it for some single images, fewer where that takes longer than the limit, and then for all at once."""
        begin = self.clock()
        for number in range(calls):
            start = self.clock()
            self._answers(images[number % len(images) :][:1], "in its warm-up")
            now = self.clock()
            if self.first_call_s is None:
                self.first_call_s = now - start
            if now - begin >= limit_s:
                break
        self.answers = self._answers(images, "on all images")

    def plan_batches(self, sizes: tuple[int, ...], images: int) -> None:
        """Note which batches it will take."""
        for size in sizes:
            if size > images:
                self.notes.append(f"batches of {size} were left out: there are {images} images")
            elif size > 1:
                self.batches[size] = []

    def single_images(self, images: Images, number: int, calls: int, share_s: float) -> None:
        """A round of single images, the same ones for every contender; one before them, untimed, fills the caches."""
        times: list[float] = []
        self.singles.append(times)
        if number and not _due(number, 2 * self.singles[0][0], share_s):
            return
        run, clock = self.contender.run, self.clock
        with _Named(self.contender.name, f"in round {number + 1}"):
            begin = clock()
            run(images[number * calls % len(images) :][:1])
            for call in range(calls):
                image = images[(number * calls + call) % len(images) :][:1]
                start = clock()
                run(image)
                end = clock()
                times.append(end - start)
                if end - begin >= share_s:
                    break

    def batch(self, images: Images, number: int, size: int, share_s: float, limit_s: float) -> None:
        """One batch in a round; none at all where a single image lets expect that it takes longer than the limit."""
        times: list[float] = []
        self.batches[size].append(times)
        if number == 0:
            expected_s = size * self.singles[0][0]
            if expected_s > limit_s:
                self.notes.append(f"batches of {size} were left out: one may take {expected_s:.0f} s")
                return
        elif not self.batches[size][0] or not _due(number, self.batches[size][0][0], share_s):
            return
        chosen = images[(number * size + np.arange(size)) % len(images)]
        with _Named(self.contender.name, f"with {size} images in round {number + 1}"):
            start = self.clock()
            self.contender.run(chosen)
            times.append(self.clock() - start)

    def given(self, images: int) -> int:
        """Of so many images, those that its own clock is given."""
        most = self.contender.most_images
        return images if most is None else min(most, images)

    def one_start(self, images: Images) -> None:
        """Let it time the first images by its own clock."""
        own_clock, name = self.contender.own_clock, self.contender.name
        assert own_clock is not None
        chosen = images[: self.given(len(images))]
        with _Named(name, "in its one start"):
            self.timed = own_clock(chosen)
        self.answers = _sound(name, self.timed.classes, len(chosen))
        self.singles = [list(self.timed.image_s)]
        if self.timed.note:
            self.notes.append(self.timed.note)

    def _answers(self, images: Images, when: str) -> Classes:
        with _Named(self.contender.name, when):
            answers = self.contender.run(images)
        return _sound(self.contender.name, answers, len(images))


def _due(number: int, took_s: float, share_s: float) -> bool:
    """Whether something that took so long is done in this round: in every n-th, so that it keeps its share."""
    return number % max(1, math.ceil(took_s / share_s)) == 0


def _sound(name: str, answers: Classes, images: int) -> Classes:
    found = np.asarray(answers)
    if found.shape != (images,) or found.dtype.kind not in "iu":
        raise BackendError(
            f"{name} gave {found.dtype} of shape {found.shape} for {images} images; one class each is needed"
        )
    return found


class _Named:
    """Lets whatever goes wrong inside say in one line whose fault it is."""

    def __init__(self, name: str, when: str) -> None:
        self._name, self._when = name, when

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GascnnError):
            raise type(error)(f"{self._name} failed {self._when}: {first_line(error)}") from error
        if isinstance(error, Exception):
            what = f"{type(error).__name__}: {first_line(error)}"
            raise BackendError(f"{self._name} failed {self._when} ({what}); leave it out or correct it") from error
