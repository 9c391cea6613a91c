"""Time single images of several networks in turns, so that a board that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ROUNDS = 20
"""Turns, or as many as the network of fewest images has images."""

QUICK_S = 0.1
"""A network quicker than this answers one image uncounted at the start of each turn: the others emptied its caches."""

_SLOW_S = 30.0

Progress = Callable[[str, int, int], None]
"""Told who is measured, how many images are done, and of how many."""


@dataclass
class Task:
    """What is timed.

    Attributes:
        name: of the network.
        call: answers the image of this number.
        keep: what is left of an answer, made of it untimed.
        images: numbers of the images, each answered once and timed.
        limit_s: seconds for all of them together, if there is a limit.
        least: images answered whatever the limit.
        warm_s: what one uncounted image took beforehand.
        answers: by image, filled here.
        seconds: of each answer in the order they were given, filled here.
    """

    name: str
    call: Callable[[int], Any]
    keep: Callable[[Any], Any]
    images: Sequence[int]
    limit_s: float | None = None
    least: int = 1
    warm_s: float = 0.0
    answers: dict[int, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    @property
    def out_of_time(self) -> bool:
        """Whether one more image of mean duration would pass the limit."""
        done = len(self.seconds)
        if self.limit_s is None or done < self.least:
            return False
        return sum(self.seconds) * (done + 1) / done > self.limit_s


def take_turns(tasks: Sequence[Task], progress: Progress | None = None) -> int:
    """Answer and time all images; in each turn every network has its share of them, and another one begins.

    Returns:
        The number of turns.
    """
    rounds = max(1, min(ROUNDS, *(len(task.images) for task in tasks)))
    for turn in range(rounds):
        first = turn % len(tasks)
        for task in (*tasks[first:], *tasks[:first]):
            _turn(task, turn, rounds)
            if progress is not None:
                progress(task.name, len(task.answers), len(task.images))
    return rounds


def _turn(task: Task, turn: int, rounds: int) -> None:
    start, stop = (len(task.images) * n // rounds for n in (turn, turn + 1))
    share = task.images[start:stop]
    if not share or task.out_of_time:
        return
    if task.warm_s < QUICK_S:
        task.call(share[0])
    for image in share:
        if task.out_of_time:
            return
        begun = time.perf_counter()
        answer = task.call(image)
        task.seconds.append(time.perf_counter() - begun)
        task.answers[image] = task.keep(answer)


def warm_up(call: Callable[[int], Any], image: int) -> float:
    """Answer an image twice, uncounted, or once where that takes long already; gives the seconds of the last call.

    The first call may compile, lay out or fetch what later ones find ready.
    """
    seconds = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        call(image)
        seconds = time.perf_counter() - begun
        if seconds >= _SLOW_S:
            break
    return seconds
