"""Run deployed networks on Loihi 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gascnn.hardware.lava.environment import LavaEnvironment
from gascnn.hardware.lava.jobs import Task, write_job
from gascnn.hardware.lava.supervisor import TimeLimits, job_folder, supervise
from gascnn.hardware.loihi.available import require_loihi
from gascnn.hardware.loihi.profile import PROBES
from gascnn.hardware.loihi.task import STEP_LIMIT, ChipTask, LoihiResult, Read
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.lowering.network import NetxNetwork

_INACTIVITY_LIMIT_S = 1800.0
"""Compiling a large network for the chip, and waiting for a board, takes a while in which nothing is heard."""

_SHIFT_SOUGHT = 8


def run(
    network: NetxNetwork | str | os.PathLike[str],
    spikes: npt.NDArray[np.generic],
    *,
    steps: int | None = None,
    record: Literal["spikes", "counts"] = "spikes",
    read: Read = "output",
    skip_steps: int | None = None,
    profile_steps: int | None = None,
    probes: tuple[str, ...] = PROBES,
    check: bool = True,
    step_limit: int = STEP_LIMIT,
    progress: Callable[[float], None] | None = None,
    time_limit_s: float | None = None,
    inactivity_limit_s: float = _INACTIVITY_LIMIT_S,
    environment: LavaEnvironment | None = None,
    input_shape: tuple[int, ...] | None = None,
    input_bits: int | None = None,
) -> LoihiResult:
    """Run ``network`` on Loihi 2 from rest for T + K steps on every image.

    The file is loaded by the stock ``lava.lib.dl.netx.hdf5.Network`` in a process of its own, in Lava's interpreter,
    and run with ``Loihi2HwCfg``; the host is chosen by the variables NXSDKHOST, HOST_BINARY, PARTITION, BOARD and
    LOIHI_GEN. Never run on a chip here: ``docs/loihi.md`` says what was tested in its place.

    Args:
        network: integers, or the path of a NetX file, whose very bytes are then run; reset by zero, hardware grade.
        spikes: (image, step, ...), as for :func:`gascnn.hardware.simulator.simulate`.
        steps: T; default all of ``spikes``.
        record: ``spikes`` keeps every spike that is read, ``counts`` only how many each neuron fired.
        read: ``output`` fetches the last layer's spikes, as every tutorial does; ``layers`` those of all layers, each
            through an adapter of its own.
        skip_steps: read-out steps left out at the start; default what the file says.
        profile_steps: time steps to profile at least, in a run of its own after the answers; None for no profile. The
            benchmark tutorial takes 10000: power is measured slowly.
        probes: what to profile.
        check: compare the first image's output spikes with the simulator's and fail where they differ; if False the
            result says so in ``deviation``.
        step_limit: time steps of the whole job at most.
        progress: called with the number of images finished so far, with the fraction of the current one.
        time_limit_s: for the whole run; None for no limit but that on inactivity.
        inactivity_limit_s: how long nothing may be heard, compilation and the wait for a board included.
        environment: where Lava is.
        input_shape, input_bits: for a path to a file that does not say them.

    Raises:
        UsageError: a network the tutorials do not show on the chip, too many steps, a bad argument.
        FormatError: a path to something that is not a NetX file Lava runs.
        DataError: spikes of another shape or kind than the network takes.
        LimitError: numbers the chip does not hold.
        BackendError: no Lava, no extension, no host; the run failed, died or ran out of time; or, with ``check``, the
            first image's output is not the simulator's.
    """
    environment = require_loihi(environment)
    asked = Task(network, spikes, steps, record, skip_steps, False, input_shape, input_bits, True)
    task = ChipTask(asked, read, profile_steps, tuple(probes), step_limit)
    with job_folder() as folder:
        write_job([task], folder)
        told = 0.0

        def reached() -> int:
            nonlocal told
            done, images = task.finished(folder)
            if progress is not None and images != told:
                told = images
                progress(images)
            return done

        supervise(environment, folder, TimeLimits(time_limit_s, inactivity_limit_s), reached)
        result = task.read_chip(folder)
        deviation = _deviation(task, task.output_of_first(folder)) if task.images else None
    if deviation is not None and check:
        raise BackendError(
            f"the chip's answer is not the network's: {deviation}; run with check=False to have it anyway"
        )
    if progress is not None:
        progress(float(task.images))
    return replace(result, deviation=deviation)


def _deviation(task: ChipTask, found: npt.NDArray[np.bool_]) -> str | None:
    """How the first image's output differs from the simulator's, or None."""
    expected = simulate(task.network, task.inputs[:1], record="spikes", skip_steps=task.skip).spikes
    assert expected is not None
    wanted = expected[-1][0].reshape(found.shape)
    differs = found != wanted
    if not differs.any():
        return None
    for shift in range(1, min(_SHIFT_SOUGHT, len(found) - 1) + 1):
        if wanted[:-shift].any() and np.array_equal(found[shift:], wanted[:-shift]):
            return f"the output spikes of image 0 come {shift} steps later than the simulator's"
    step, neuron = (int(i) for i in np.argwhere(differs)[0])
    return (
        f"{int(differs.sum())} output spikes of image 0 differ from the simulator's, the first in step {step} at "
        f"neuron {neuron}"
    )
