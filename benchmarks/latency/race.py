"""The race: the same images through every contender, in turns, in one process.

First every contender is warmed up and answers all images, untimed: that is its accuracy, and what cannot run ends the
race here. Then come the rounds. In each, every contender takes single images for its share of the time, then one batch
of each size; the order moves on by one each round. Contenders with a clock of their own, whose start takes seconds,
have one start ahead of the rounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks import machine
from gascnn.benchmarks.latency.contender import Contender, Images, Unavailable
from gascnn.benchmarks.latency.racer import Clock, Racer, Settings
from gascnn.benchmarks.latency.result import described, load_notes
from gascnn.hardware.process import peak_memory_bytes
from gascnn.toolkit.errors import BackendError, DataError, UsageError

Say = Callable[[str], None]

FORMAT = 1
"""Of the JSON; counts up when a key changes its meaning."""

_PAUSE_S = 0.02
"""Between two contenders: threads of the one before that still wait by spinning come to rest."""

_WARM_UP_SHARE = 0.1
"""Of the limit, for the warm-ups of all together; the first call is never left out."""


def race(
    contenders: Sequence[Contender | Unavailable],
    images: Images,
    *,
    labels: npt.NDArray[np.integer] | None = None,
    rounds: int = 20,
    calls: int = 10,
    warmup: int = 3,
    batch_sizes: Sequence[int] = (1,),
    limit_s: float = 120.0,
    baseline: str | None = None,
    load_before: float | None = None,
    progress: Say | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Time contenders against each other on the same images.

    Args:
        contenders: those that run, and those that cannot, which are named in the result.
        images: (image, C, H, W) uint8, framed and sized as the networks take them.
        labels: (image,) their classes, for the accuracies; None leaves these out.
        rounds: at most; a contender takes part in as many as the limit allows.
        calls: single images a round, at most; 20 rounds of 10 are 200 samples.
        warmup: calls before anything counts.
        batch_sizes: images at once, for the throughput; sizes above the number of images are left out with a note.
        limit_s: seconds the rounds may take, shared equally; warm-up, accuracies and starts of Lava come on top.
        baseline: name of the contender that others are compared with; default the first ANN that runs.
        load_before: load average before the caller's own work; None takes that of now.
        progress: told in a line what is being done.
        clock: seconds from any beginning.

    Returns:
        For JSON: ``format``, ``machine``, ``load_before``, ``load_after``, ``notes``, ``settings``, ``images``,
        ``rounds`` (that were run), ``seconds``, ``baseline``, ``peak_memory_bytes`` (of the process with all
        contenders), ``contenders`` (:func:`gascnn.benchmarks.latency.result.described`) and ``left_out``.

    Raises:
        DataError: no images, of another shape or type, or labels that do not fit.
        UsageError: settings that make no race, two contenders of one name, or of different classes.
        BackendError: a contender failed, or none can run; errors of a contender name it and keep their kind.
    """
    settings = Settings(rounds, calls, warmup, tuple(sorted(set(batch_sizes))), limit_s)
    racers = [Racer(one, clock) for one in contenders if isinstance(one, Contender)]
    left_out = [one for one in contenders if isinstance(one, Unavailable)]
    reference = _checked(racers, left_out, baseline)
    classes = next((racer.contender.classes for racer in racers if racer.contender.classes is not None), None)
    check_images(images, labels, classes)
    before, tell = os.getloadavg()[0] if load_before is None else load_before, progress or _silent
    in_turns = [racer for racer in racers if racer.contender.own_clock is None]
    for racer in in_turns:
        tell(f"{racer.contender.title}: warms up and answers {len(images)} images")
        racer.warm_up(images, settings.warmup, settings.limit_s * _WARM_UP_SHARE / len(in_turns))
    for racer in racers:
        if racer.contender.own_clock is not None:
            tell(f"{racer.contender.title}: one start, {racer.given(len(images))} images")
            racer.one_start(images)
    begin = clock()
    done = _rounds(in_turns, images, settings, tell, clock) if in_turns else 0
    spent_s, after = clock() - begin, os.getloadavg()[0]
    notes = load_notes(before, after, racers)
    if 0 < done < settings.rounds:
        notes.append(f"stopped after {done} of {settings.rounds} rounds, at the limit of {settings.limit_s:g} s")
    if reference is None:
        notes.append(f"no ratios to the ANN: {_why_none(baseline)}")
    base = next((racer for racer in racers if racer.contender.name == reference), None)
    return {
        "format": FORMAT,
        "machine": machine.describe(),
        "load_before": round(before, 2),
        "load_after": round(after, 2),
        "notes": notes,
        "settings": vars(settings) | {"batch_sizes": list(settings.batch_sizes)},
        "images": len(images),
        "image_shape": list(images.shape[1:]),
        "labelled": labels is not None,
        "rounds": done,
        "seconds": spent_s,
        "baseline": reference,
        "peak_memory_bytes": peak_memory_bytes(),
        "contenders": [described(racer, base, labels) for racer in racers],
        "left_out": [vars(one) for one in left_out],
    }


def check_images(
    images: Images, labels: npt.NDArray[np.integer] | None, classes: tuple[str, ...] | None = None
) -> None:
    """Refuse images or labels that nothing can be measured on.

    Raises:
        DataError: names what was found.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"images are {images.dtype} of shape {images.shape}; uint8 (image, C, H, W) is needed")
    if not len(images):
        raise DataError("there are no images to measure with; give at least one")
    if labels is None:
        return
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype} of shape {labels.shape}; one whole number for each of {len(images)} images is "
            "needed"
        )
    if labels.min() < 0 or (classes is not None and labels.max() >= len(classes)):
        most = "" if classes is None else f" to {len(classes) - 1}"
        raise DataError(f"labels are {labels.min()} to {labels.max()}; these networks answer 0{most}")


def _checked(racers: list[Racer], left_out: list[Unavailable], baseline: str | None) -> str | None:
    """The baseline's name, or None where it cannot run."""
    names = [racer.contender.name for racer in racers]
    absent = [one.name for one in left_out]
    twice = [name for name in (*names, *absent) if (*names, *absent).count(name) > 1]
    if twice:
        raise UsageError(f"two contenders are called {twice[0]}; give each a name of its own")
    if not racers:
        why = "; ".join(f"{one.name}: {one.reason}" for one in left_out) or "none was given"
        raise BackendError(f"no contender can run ({why})")
    known = [racer.contender for racer in racers if racer.contender.classes is not None]
    for one in known[1:]:
        if one.classes != known[0].classes:
            raise UsageError(
                f"{one.name} answers {', '.join(one.classes or ())}, but {known[0].name} "
                f"{', '.join(known[0].classes or ())}; compare networks of the same classes in the same order"
            )
    if baseline is not None and baseline not in (*names, *absent):
        raise UsageError(f"the baseline {baseline!r} is not among the contenders; give one of {', '.join(names)}")
    if baseline is not None:
        return baseline if baseline in names else None
    return next((racer.contender.name for racer in racers if racer.contender.kind == "ann"), None)


def _why_none(baseline: str | None) -> str:
    return "no ANN can run" if baseline is None else f"{baseline} cannot run"


def _rounds(racers: list[Racer], images: Images, settings: Settings, tell: Say, clock: Clock) -> int:
    """Run them; how many there were."""
    for racer in racers:
        racer.plan_batches(settings.batch_sizes, len(images))
    parts = 1 + len(racers[0].batches)
    share_s = settings.limit_s / (settings.rounds * len(racers) * parts)
    begin = clock()
    tell(f"latency: up to {settings.rounds} rounds in turns, {settings.limit_s:g} s")
    for number in range(settings.rounds):
        turn = number % len(racers)
        for racer in [*racers[turn:], *racers[:turn]]:
            time.sleep(_PAUSE_S)
            racer.single_images(images, number, settings.calls, share_s)
            for size in racer.batches:
                racer.batch(images, number, size, share_s, settings.limit_s)
        if clock() - begin >= settings.limit_s:
            break
    return number + 1


def _silent(line: str) -> None:
    del line
