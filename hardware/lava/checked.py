"""Run for a verification: at least one image by Lava's own process models, whatever runs the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gascnn.hardware.backends import NetxFile
from gascnn.hardware.lava.environment import LavaEnvironment
from gascnn.hardware.lava.jobs import Task
from gascnn.hardware.lava.run import run_many
from gascnn.hardware.result import RunResult, concatenate
from gascnn.hardware.verify import compare


@dataclass(frozen=True, eq=False)
class CheckedRun:
    """Lava's answer, and by which models.

    Attributes:
        result: every spike of every image; those of the first image from Lava's own models.
        stock_images: how many images Lava's own process models ran; at least 1.
        fast_images: how many the faster models ran; the first image counts in both.
        why_stock: why the faster models ran none although they were asked for; None otherwise.
        problems: where the two disagree on the first image; empty if nowhere.
    """

    result: RunResult
    stock_images: int
    fast_images: int
    why_stock: str | None = None
    problems: tuple[str, ...] = ()


def run_checked(
    file: NetxFile,
    spikes: npt.NDArray[np.generic],
    *,
    steps: int | None = None,
    stock: bool = False,
    stock_models: bool = False,
    progress: Callable[[float], None] | None = None,
    environment: LavaEnvironment | None = None,
) -> CheckedRun:
    """Run the first image by Lava's own process models and all of them by the faster ones, in one start of Lava.

    Args:
        file: what to run; its very bytes.
        spikes: (image, step, ...).
        steps: T; default all of ``spikes``.
        stock: refuse what stock NetX does not load, and run nothing but Lava's own models.
        stock_models: run nothing but Lava's own models; so it is for a single image too.
        progress: called with the number of images done.
        environment: where Lava is.

    Raises:
        GascnnError: as :func:`gascnn.hardware.lava.run`.
    """
    values = np.asarray(spikes)
    images = len(values) if values.ndim else 0
    alone = stock or stock_models or images < 2

    def task(part: npt.NDArray[np.generic], own: bool) -> Task:
        network = file.network
        return Task(file.path, part, steps, "spikes", None, stock, network.input_shape, network.input_bits, own)

    if alone:
        result = run_many([task(values, own=True)], progress=progress, environment=environment)[0]
        return CheckedRun(result, result.images, 0)
    # The first image runs twice: what is told must still end at the number of images.
    told = None if progress is None else _scaled(progress, images / (images + 1))
    own, fast = run_many([task(values[:1], own=True), task(values, own=False)], progress=told, environment=environment)
    joined = concatenate([own, _images(fast, 1, images)])
    if fast.models == "stock":
        return CheckedRun(joined, images, 0, fast.why_stock)
    problems = _disagreement(file, own, _images(fast, 0, 1))
    return CheckedRun(joined, 1, images, None, problems)


def _scaled(progress: Callable[[float], None], share: float) -> Callable[[float], None]:
    return lambda done: progress(done * share)


def _images(result: RunResult, start: int, stop: int) -> RunResult:
    return RunResult(
        steps=result.steps,
        counts=[counts[start:stop] for counts in result.counts],
        output_counts=result.output_counts[start:stop],
        output_membrane=result.output_membrane[start:stop],
        spikes=None if result.spikes is None else [spikes[start:stop] for spikes in result.spikes],
        messages=None if result.messages is None else [sent[start:stop] for sent in result.messages],
    )


def _disagreement(file: NetxFile, own: RunResult, fast: RunResult) -> tuple[str, ...]:
    check = compare(file.network, own, fast)
    first = check.first_difference
    if first is None and check.readout_equal:
        return ()
    where = "its read-out" if first is None else f"{first.layer}, step {first.step}, neuron {first.neuron}"
    return (f"the faster models and Lava's own differ on the first image: {where}; --stock runs Lava's own alone",)
