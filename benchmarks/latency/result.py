"""What the race gives for a contender, and what it says of the machine's load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.latency import figures
from gascnn.benchmarks.latency.contender import Timed
from gascnn.benchmarks.latency.racer import Racer

BUSY = 0.5
"""Load, beyond what the race itself makes, from which the machine is called busy."""


def described(racer: Racer, baseline: Racer | None, labels: npt.NDArray[np.integer] | None) -> dict[str, Any]:
    """One contender.

    Args:
        racer: after the race.
        baseline: the one it is compared with, if there is one.
        labels: (image,) classes, if they are known.

    Returns:
        ``name``, ``title``, ``kind``, ``steps``, ``threads``, ``time_includes``, ``versions``;
        ``samples`` (single images timed) and ``rounds`` (it took part in);
        ``p50_s``, ``p95_s``, ``p99_s``: ``value`` and ``interval``, or None with too few samples;
        ``throughput_per_s``: one entry a batch size, with ``value``, ``interval`` and ``samples``;
        ``p50_ratio``: ``value``, ``interval``, ``rounds`` and ``within_rounds``, how many times the baseline's time,
        or None;
        ``accuracy``, ``agreement`` (with the baseline's answers): ``value``, ``interval`` and ``images``, or None;
        ``first_call_s``; ``cold``: ``wall_s``, ``start_s`` and ``images`` of a contender with its own clock, or None;
        ``single_s_rounds``: every sample;
        ``notes``.
    """
    contender, samples = racer.contender, sum(map(len, racer.singles))
    notes = [*racer.notes, *_sample_notes(samples)]
    rounds = sum(bool(calls) for calls in racer.singles)
    if 0 < rounds < figures.LEAST_ROUNDS:
        notes.append(f"no intervals of times below {figures.LEAST_ROUNDS} rounds")
    return {
        "name": contender.name,
        "title": contender.title,
        "kind": contender.kind,
        "steps": contender.steps,
        "threads": contender.threads,
        "time_includes": contender.includes,
        "versions": dict(contender.versions),
        "samples": samples,
        "rounds": rounds,
        **(figures.percentiles(racer.singles) if samples else dict.fromkeys(("p50_s", "p95_s", "p99_s"))),
        "throughput_per_s": _throughputs(racer),
        "p50_ratio": None if baseline is None or racer is baseline else _ratio(racer, baseline),
        "accuracy": None if labels is None else _equal(racer, labels),
        "agreement": None if baseline is None or racer is baseline else _agreement(racer, baseline),
        "first_call_s": racer.first_call_s,
        "cold": None if racer.timed is None else _cold(racer.timed),
        "single_s_rounds": racer.singles,
        "notes": notes,
    }


def load_notes(before: float, after: float, racers: Sequence[Racer]) -> list[str]:
    """Lines to show where the processors had other work to do; none where they had not.

    Args:
        before, after: load averages of a minute.
        racers: whose threads are load too.
    """
    own = max((racer.contender.threads or 1 for racer in racers), default=1)
    notes = []
    if before >= BUSY:
        notes.append(f"load average {before:.1f} before the race: the machine was busy, do not quote it")
    if after >= own + BUSY:
        notes.append(f"load average {after:.1f} after the race, {own} of it ours: others were at work, do not quote it")
    return notes


def _sample_notes(samples: int) -> list[str]:
    if not samples:
        return ["no time of single images: this backend tells only the whole"]
    return [
        f"no p{percent} below {least} samples" for percent, least in figures.LEAST_SAMPLES.items() if samples < least
    ]


def _throughputs(racer: Racer) -> list[dict[str, Any]]:
    taken = {1: racer.singles, **racer.batches}
    return [figures.throughput(rounds, size) for size, rounds in taken.items() if any(rounds)]


def _ratio(racer: Racer, baseline: Racer) -> dict[str, Any] | None:
    if racer.contender.own_clock is None and baseline.contender.own_clock is None:
        found = figures.ratio(racer.singles, baseline.singles)
        return None if found is None else found | {"within_rounds": True}
    there = [[second for calls in one.singles for second in calls] for one in (racer, baseline)]
    if not all(there):
        return None
    above, below = (float(np.median(seconds)) for seconds in there)
    return {"value": above / below, "interval": None, "rounds": 0, "within_rounds": False}


def _equal(racer: Racer, others: npt.NDArray[np.integer]) -> dict[str, Any]:
    assert racer.answers is not None
    images = min(len(racer.answers), len(others))
    equal = int(np.count_nonzero(racer.answers[:images] == others[:images]))
    return figures.share(equal, images) | {"images": images}


def _agreement(racer: Racer, baseline: Racer) -> dict[str, Any]:
    assert baseline.answers is not None
    return _equal(racer, baseline.answers)


def _cold(timed: Timed) -> dict[str, Any]:
    """Whatever of the one start was not an image's own time is its start."""
    start_s = max(0.0, timed.wall_s - sum(timed.image_s)) if timed.image_s else None
    return {"wall_s": timed.wall_s, "start_s": start_s, "images": len(timed.classes)}
