"""Run deployed networks in the real Lava."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.hardware.lava.environment import LavaEnvironment, require_lava
from gascnn.hardware.lava.jobs import PreparedTask, Task, write_job
from gascnn.hardware.lava.outcome import LavaResult
from gascnn.hardware.lava.supervisor import TimeLimits, job_folder, supervise
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import NetxNetwork

Progress = Callable[[float], None]

_INACTIVITY_LIMIT_S = 600.0
"""Without a single finished time step; a large layer takes Lava's CPU simulation a few seconds a step."""


def run(
    network: NetxNetwork | str | os.PathLike[str],
    spikes: npt.NDArray[np.generic],
    *,
    steps: int | None = None,
    record: Literal["spikes", "counts"] = "spikes",
    stock: bool = False,
    skip_steps: int | None = None,
    progress: Progress | None = None,
    time_limit_s: float | None = None,
    environment: LavaEnvironment | None = None,
    input_shape: tuple[int, ...] | None = None,
    input_bits: int | None = None,
    stock_models: bool = False,
) -> LavaResult:
    """Run ``network`` in Lava from rest for T + K steps on every image.

    A network with reset ``zero`` is loaded by the stock ``lava.lib.dl.netx.hdf5.Network``; one with reset
    ``subtract`` is built from Lava's own Conv, Dense and LIF processes. Both run in a process of their own, in Lava's
    interpreter. Lava's process models are swapped, through its run configuration, for faster ones with the same
    numbers; where there is none, its own run.

    Args:
        network: integers, as read from a file or lowered; or a path, and then the file's very bytes are run.
        spikes: (image, step, ...) with the network's input shape, constant channels included or left out; uint8.
        steps: T, the number of input steps; default all of ``spikes``. Missing steps are silent.
        record: ``spikes`` keeps every spike of every synaptic layer, ``counts`` only how many each neuron fired.
        stock: refuse what stock NetX does not load.
        skip_steps: read-out steps left out at the start; default what the file says.
        progress: called with the number of images finished so far, with the fraction of the current one.
        time_limit_s: for the whole run; None for no limit but that on inactivity (10 minutes without a time step).
        environment: where Lava is; default :func:`gascnn.hardware.lava.find_lava`.
        input_shape: (C, H, W) or (N,), for a path to a file that does not say it.
        input_bits: message bits of the input, for a path to a file that does not say them.
        stock_models: run Lava's own process models; implied by ``stock``.

    Returns:
        What :func:`gascnn.hardware.simulator.simulate` gives, with ``wraps`` None (Lava does not tell), which models
        ran and the time they took.

    Raises:
        UsageError: ``steps`` below 1, ``stock`` and reset by subtraction.
        FormatError: a path to something that is not a NetX file Lava runs.
        DataError: spikes of another shape or kind than the network takes.
        LimitError: numbers with which Lava crashes or whose result is undefined.
        BackendError: Lava is not installed, failed, died or ran out of time.
    """
    task = Task(network, spikes, steps, record, skip_steps, stock, input_shape, input_bits, stock_models)
    return run_many([task], progress=progress, time_limit_s=time_limit_s, environment=environment)[0]


def run_many(
    tasks: Sequence[Task | tuple[Any, ...]],
    *,
    progress: Progress | None = None,
    time_limit_s: float | None = None,
    inactivity_limit_s: float = _INACTIVITY_LIMIT_S,
    environment: LavaEnvironment | None = None,
) -> list[LavaResult]:
    """Run several networks with one start of Lava, which takes some seconds.

    Args:
        tasks: what to run; tuples are the arguments of :class:`Task` in order (network, spikes, steps, ...).
        progress: called with the number of images finished so far over all tasks.
        time_limit_s: for all tasks together; None for no limit.
        inactivity_limit_s: how long Lava may take for one time step, its start included.
        environment: where Lava is.

    Returns:
        One result a task. Fails as a whole if one task fails.

    Raises:
        GascnnError: see :func:`run`.
    """
    if not tasks:
        raise UsageError("there is nothing to run; give at least one network")
    prepared = [PreparedTask(t if isinstance(t, Task) else Task(*t), index) for index, t in enumerate(tasks)]
    environment = environment or require_lava()
    with job_folder() as folder:
        write_job(prepared, folder)

        told = 0.0

        def reached() -> int:
            nonlocal told
            done = [task.finished(folder) for task in prepared]
            images = sum(images for _, images in done)
            if progress is not None and images != told:
                told = images
                progress(images)
            return sum(steps for steps, _ in done)

        supervise(environment, folder, TimeLimits(time_limit_s, inactivity_limit_s), reached)
        results = [task.read(folder) for task in prepared]
    if progress is not None:
        progress(float(sum(task.images for task in prepared)))
    return results
