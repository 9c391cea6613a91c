"""Time to decision: what the answer would be, and how often it would be right, if the run were stopped at step t."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.latency.contender import Images
from gascnn.benchmarks.latency.figures import share
from gascnn.benchmarks.latency.race import check_images
from gascnn.benchmarks.latency.readout import potentials
from gascnn.hardware.backends import NetxFile, check_image_shape
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.result import RunResult, predict
from gascnn.hardware.simulator import Simulator
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import CheckFailed, UsageError
from gascnn.toolkit.lowering.limits import THRESHOLD_MAX
from gascnn.toolkit.lowering.network import NetxNetwork, SigmaDeltaNeuron

FORMAT = 1
"""Of the JSON; counts up when a key changes its meaning."""

MARGINS = (1, 2, 3, 4, 6, 8)
"""Spikes by which the best class must be ahead, for the rules that stop by themselves."""

POINT = 0.01
"""A point of accuracy."""

_MEMORY_BYTES = 256 << 20
_IMAGES_AT_ONCE = 64

_DRAWN_AT_ONCE = ("rate-normal",)
"""Codings whose first t steps depend on T, since random numbers of all steps are drawn several times over."""

Answers = npt.NDArray[np.int64]


def decision_curve(
    file: NetxFile,
    images: Images,
    labels: npt.NDArray[np.integer],
    *,
    steps: int | None = None,
    skip_steps: int | None = None,
    seed: int | None = None,
    margins: Sequence[int] = MARGINS,
    threads: int | None = None,
    memory_bytes: int = _MEMORY_BYTES,
    read_outs: Iterable[tuple[int, ReadOut]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy if the run of T input steps is stopped when t of them have reached the read-out.

    One run of T steps in the bit-exact simulator; its read-out is read after each step, by the rule of
    :meth:`gascnn.hardware.result.RunResult.predictions`: most spikes in steps ``K + skip`` to ``K + t - 1``, ties by
    membrane potential after step ``K + t - 1``, then the lower class. At t = T that is the run's own answer. The input
    is that of T steps, cut off: where the coding's first t steps do not depend on T, a run of t steps gives the same
    (``equals_shorter_run``).

    Args:
        file: the deployed network.
        images: (image, C, H, W) uint8.
        labels: (image,) their classes.
        steps: T; default what the file was fitted for.
        skip_steps: read-out steps left out at the start; default what the file says. The curve begins behind them.
        seed: of the coding; default the file's.
        margins: leads, in spikes, of the rules "stop when the best class is ahead by so many".
        threads: of the simulator.
        memory_bytes: about what the recorded spikes of a batch may take; one image at least is run.
        read_outs: of a run that was made already, batch by batch, each with the number of its first image; nothing is
            run then, and ``steps``, ``seed``, ``threads`` and ``memory_bytes`` are that run's affair.
        progress: called with the number of images done.

    Returns:
        For JSON: ``format``, ``steps``, ``depth`` (K), ``skip_steps``, ``coding``, ``readout`` (``count``, ``membrane``
        or ``sigma-delta``), ``images``, ``equals_shorter_run``; ``points``, one a step t: ``step``, ``total_steps``
        (K + t), ``accuracy`` and ``agreement`` (with the answer at T), each ``value`` and ``interval``, ``tied`` (share
        of images whose most spikes were several classes') and ``silent`` (share without any); ``within_a_point``:
        ``first`` and ``for_good`` (smallest t whose accuracy is at most 0.01 below that at T, and from which on all
        are); ``stop_rules``, one a margin: ``margin``, ``mean_steps``, ``stopped`` (share that stopped before T),
        ``accuracy``, ``agreement``, or None where the read-out does not count spikes; ``notes``.

    Raises:
        DataError: no images, of another shape, or labels that do not fit.
        UsageError: no steps for a foreign file, steps or skipped steps that leave nothing to read, a margin below 1,
            or a sigma-delta network without a read-out.
        CheckFailed: the read-out of the last step is not the run's; never seen.
    """
    network, deployment = file.network, file.network.deployment
    check_images(images, labels, None if deployment is None else deployment.classes)
    check_image_shape(network, images)
    if margins and min(margins) < 1:
        raise UsageError(f"margins are {tuple(margins)}; each must be at least 1")
    if memory_bytes < 1:
        raise UsageError(f"memory_bytes is {memory_bytes}; it must be at least 1")
    if skip_steps is None:
        skip_steps = 0 if deployment is None else deployment.skip_steps
    parts = read_outs
    if parts is None:
        parts = _read_outs(network, images, steps, skip_steps, seed, threads, memory_bytes)
    tally: _Tally | None = None
    for first, part in parts:
        tally = tally or _Tally.of(part, margins)
        tally.add(part, labels[first : first + len(part.answers)])
        if progress is not None:
            progress(tally.images)
    assert tally is not None
    coding = ("constant" if network.input_bits else "regular") if deployment is None else deployment.coding
    return {
        "format": FORMAT,
        "steps": skip_steps + len(tally.right),
        "depth": network.depth,
        "skip_steps": skip_steps,
        "coding": coding,
        "readout": _kind(network),
        "images": tally.images,
        "equals_shorter_run": coding not in _DRAWN_AT_ONCE,
        **tally.described(network.depth, skip_steps, _kind(network) == "count"),
        "notes": _notes(network, coding, skip_steps + len(tally.right), skip_steps),
    }


@dataclass(frozen=True, eq=False)
class ReadOut:
    """Answers of some images at each step t of skip + 1 .. T.

    Attributes:
        answers: (image, t) classes.
        leads: (image, t) by how many spikes the best class is ahead of the second.
        most: (image, t) spikes of the best class.
    """

    answers: Answers
    leads: Answers
    most: Answers


def read_out(network: NetxNetwork, inputs: npt.NDArray[np.uint8], result: RunResult, skip_steps: int) -> ReadOut:
    """Answers at each step of a run.

    Args:
        network: what ran.
        inputs: (image, T, ...) checked input.
        result: of that run, with every spike.
        skip_steps: read-out steps left out.

    Raises:
        UsageError: see :func:`gascnn.benchmarks.latency.readout.potentials`.
        CheckFailed: at T it is not the run's own answer.
    """
    membranes = potentials(network, inputs, result)[:, skip_steps:]
    images, points, classes = membranes.shape
    if network.sigma_delta:
        counts = np.zeros(membranes.shape, dtype=np.int32)
    else:
        assert result.spikes is not None
        first = network.depth + skip_steps
        spikes = result.spikes[-1][:, first : first + points].reshape(membranes.shape)
        counts = np.cumsum(spikes, axis=1, dtype=np.int32)
    answers = predict(counts.reshape(-1, classes), membranes.reshape(-1, classes)).reshape(images, points)
    if not np.array_equal(answers[:, -1], result.predictions()):
        raise CheckFailed("the answers read at the last step are not the run's; report this with the file")
    ordered = np.sort(counts, axis=2).astype(np.int64)
    second = ordered[..., -2] if classes > 1 else 0
    return ReadOut(answers, ordered[..., -1] - second, ordered[..., -1])


def _read_outs(
    network: NetxNetwork,
    images: Images,
    steps: int | None,
    skip_steps: int,
    seed: int | None,
    threads: int | None,
    memory_bytes: int,
) -> Iterator[tuple[int, ReadOut]]:
    """Batch by batch, with the number of its first image: of each, every layer's spikes are held and let go."""
    simulator = Simulator(network, threads=threads)
    start, size = 0, 1
    while start < len(images):
        given = encode_for(network, images[start : start + size], steps=steps, seed=seed, first=start)
        inputs = checked_spikes(network, given)
        result = simulator.run(inputs, record="spikes", skip_steps=skip_steps)
        yield start, read_out(network, inputs, result, skip_steps)
        start += size
        size = _images_within(memory_bytes, network, inputs.shape[1])


def _images_within(memory_bytes: int, network: NetxNetwork, steps: int) -> int:
    a_step = math.prod(network.input_shape) + network.neurons * (5 if network.sigma_delta else 1)
    return max(1, min(_IMAGES_AT_ONCE, memory_bytes // (a_step * (steps + network.depth))))


@dataclass(eq=False)
class _Tally:
    """Sums over images of what is told of each step and of each rule.

    Attributes:
        right, agreeing, tied, silent: (t,) numbers of images.
        margins: of the rules.
        rules: (margin, 4) stopped before T, sum of their steps, right, agreeing.
        images: so far.
    """

    right: Answers
    agreeing: Answers
    tied: Answers
    silent: Answers
    margins: tuple[int, ...]
    rules: Answers
    images: int = 0

    @classmethod
    def of(cls, part: ReadOut, margins: Sequence[int]) -> _Tally:
        points = part.answers.shape[1]
        right, agreeing, tied, silent = np.zeros((4, points), dtype=np.int64)
        chosen = tuple(sorted(set(margins)))
        return cls(right, agreeing, tied, silent, chosen, np.zeros((len(chosen), 4), dtype=np.int64))

    def add(self, part: ReadOut, labels: npt.NDArray[np.integer]) -> None:
        """Count a batch."""
        answers, last, points = part.answers, part.answers[:, -1], part.answers.shape[1]
        self.images += len(answers)
        self.right += (answers == labels[:, None]).sum(axis=0)
        self.agreeing += (answers == last[:, None]).sum(axis=0)
        self.tied += (part.leads == 0).sum(axis=0)
        self.silent += (part.most == 0).sum(axis=0)
        for row, margin in zip(self.rules, self.margins, strict=True):
            ahead = part.leads >= margin
            place = np.where(ahead.any(axis=1), ahead.argmax(axis=1), points - 1)
            chosen = answers[np.arange(len(answers)), place]
            row += [(place < points - 1).sum(), place.sum(), (chosen == labels).sum(), (chosen == last).sum()]

    def described(self, depth: int, skip_steps: int, counts: bool) -> dict[str, Any]:
        """Plain values."""
        images, first = self.images, skip_steps + 1
        points = [
            {
                "step": first + place,
                "total_steps": depth + first + place,
                "accuracy": share(int(self.right[place]), images),
                "agreement": share(int(self.agreeing[place]), images),
                "tied": int(self.tied[place]) / images,
                "silent": int(self.silent[place]) / images,
            }
            for place in range(len(self.right))
        ]
        # In whole images, so that a point is not missed by rounding.
        near = self.right[-1] - self.right <= math.floor(POINT * images + 1e-9)
        for_good = np.logical_and.accumulate(near[::-1])[::-1]
        rules = [
            {
                "margin": margin,
                "mean_steps": first + int(row[1]) / images,
                "stopped": int(row[0]) / images,
                "accuracy": share(int(row[2]), images),
                "agreement": share(int(row[3]), images),
            }
            for margin, row in zip(self.margins, self.rules, strict=True)
        ]
        return {
            "points": points,
            "within_a_point": {"first": first + int(near.argmax()), "for_good": first + int(for_good.argmax())},
            "stop_rules": rules if counts else None,
        }


def _kind(network: NetxNetwork) -> str:
    """How the last layer is read."""
    neuron = network.layers[-1].neuron
    if isinstance(neuron, SigmaDeltaNeuron):
        return "sigma-delta"
    return "membrane" if np.all(neuron.threshold > THRESHOLD_MAX) else "count"


def _notes(network: NetxNetwork, coding: str, steps: int, skip_steps: int) -> list[str]:
    notes = []
    if steps - skip_steps == 1:
        notes.append("one read-out step: the curve is a single point")
    if _kind(network) != "count":
        notes.append("the read-out does not count spikes: answers go by its membrane at each step, no rule by margins")
    if coding in _DRAWN_AT_ONCE:
        notes.append(f"coding {coding} draws other spikes for another T: a run of t steps is not this one stopped at t")
    fitted = network.deployment.steps if network.deployment is not None else steps
    if fitted != steps:
        notes.append(f"run with T = {steps}; the network was fitted for T = {fitted}")
    return notes
