"""Run a deployed network on spikes, layer by layer over windows of steps (layers only look back one step)."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from gascnn.hardware.inputs import check_runnable, checked_spikes
from gascnn.hardware.process import held_memory_bytes, processors
from gascnn.hardware.result import RunResult, concatenate
from gascnn.hardware.simulator.budget import result_bytes, too_little
from gascnn.hardware.simulator.plain import bytes_an_image, plain_only, run_input_neurons, run_plain
from gascnn.hardware.simulator.sigma_delta import run_sigma_delta, sigma_delta_bytes
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import NetxNetwork, layer_label

if TYPE_CHECKING:
    from gascnn.hardware.simulator.events import EventList
    from gascnn.hardware.simulator.job import Job
    from gascnn.hardware.simulator.layers import LayerRun
    from gascnn.hardware.simulator.layout import LayerLayout
    from gascnn.hardware.simulator.memory import Plan

METHODS = ("auto", "events", "dense", "plain")
Spikes = npt.NDArray[np.generic]
Progress = Callable[[int], None]

_PLAIN_BYTES = 768 << 20
"""What the plain version's arrays of one batch may take where no limit is given."""

_STEPS_A_LAYER, _UPDATES_A_LAYER, _INPUTS_A_LAYER = 16, 25_000, 140_000
"""What pays for laying out a layer and calling its kernels: so many steps, or so many updates of its neurons; sorting
so many inputs costs as much again. Fitted to both versions' times on networks of the fidelity suite
(``docs/simulator.md``)."""


def simulate(
    network: NetxNetwork,
    spikes: Spikes,
    *,
    steps: int | None = None,
    record: Literal["spikes", "counts"] = "counts",
    skip_steps: int | None = None,
    progress: Progress | None = None,
    method: str = "auto",
    threads: int | None = None,
    memory_bytes: int | None = None,
) -> RunResult:
    """Run ``network`` from rest for T + K steps on every image, exactly as Lava would.

    Args:
        network: integers, as read from a file or lowered.
        spikes: (image, step, ...) with the network's input shape, constant channels included or left out; uint8.
            0/1, or integers below ``2**input_bits`` where the first layer takes graded input. Integers also reach
            input neurons as they are.
        steps: T, the number of input steps; default all of ``spikes``. Missing steps are silent.
        record: ``spikes`` keeps every spike of every synaptic layer, ``counts`` only how many each neuron fired.
        skip_steps: read-out steps left out at the start; default what the file says.
        progress: called with the number of images finished so far.
        method: how synaptic sums are computed: ``events`` (each spike adds a row of weights), ``dense`` (products of
            whole frames), ``plain`` (numpy, as where numba is missing), ``auto`` (events or dense, per layer, by how
            many spikes come in; plain for a few steps of small layers, and for sigma-delta networks). It never changes
            a bit.
        threads: at most so many; default the processors this process may use.
        memory_bytes: limit for the whole process, what it holds already included; default 1 GiB for the simulator's
            own arrays.

    Returns:
        Counts, read-out and, if asked, all spikes.

    Raises:
        UsageError: ``steps`` or ``threads`` below 1, an unknown method, or ``skip_steps`` that leave nothing to read.
        DataError: spikes of another shape or kind than the network takes.
        LimitError: weights with which Lava's own result is undefined, or a memory limit one image does not fit.
    """
    return Simulator(network, method=method, threads=threads, memory_bytes=memory_bytes).run(
        spikes, steps=steps, record=record, skip_steps=skip_steps, progress=progress
    )


class Simulator:
    """A network made ready to run: its weights are laid out once for any number of runs.

    Args:
        network, method, threads, memory_bytes: see :func:`simulate`.
    """

    def __init__(
        self,
        network: NetxNetwork,
        *,
        method: str = "auto",
        threads: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        if method not in METHODS:
            raise UsageError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1")
        self._network, self._method, self._memory_bytes = network, method, memory_bytes
        self._threads = threads or processors()
        if network.sigma_delta:
            if method in ("events", "dense"):
                raise UsageError(
                    f"method {method} is for spikes; sigma-delta networks run with plain, which auto takes"
                )
            self._method = "plain"
        elif method != "plain" and not has_numba():
            if method != "auto":
                raise UsageError(f"method {method} needs numba; install gascnn[fast], or use method plain")
            self._method = "plain"
        check_runnable(network)

    def run(
        self,
        spikes: Spikes,
        *,
        steps: int | None = None,
        record: Literal["spikes", "counts"] = "counts",
        skip_steps: int | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """Run it; see :func:`simulate`."""
        network = self._network
        inputs = checked_spikes(network, spikes, steps)
        skip = skip_steps if skip_steps is not None else (network.deployment.skip_steps if network.deployment else 0)
        if not 0 <= skip < inputs.shape[1]:
            raise UsageError(f"skip_steps is {skip}; it must be 0..{inputs.shape[1] - 1} for {inputs.shape[1]} steps")
        told = progress or _silent
        if self._method == "plain" or (self._method == "auto" and not self._kernels_pay(*inputs.shape[:2])):
            return self._plain(inputs, record == "spikes", skip, told)
        from gascnn.hardware.simulator.job import Job

        return self._fast(Job(network, inputs, record == "spikes", skip), told)

    @cached_property
    def _layouts(self) -> list[LayerLayout]:
        from gascnn.hardware.simulator.layout import LayerLayout

        network = self._network
        largest = [1] * network.depth
        if network.input_bits and network.input.neuron is None:
            largest[0] = 2**network.input_bits - 1
        return [
            LayerLayout(layer, network.input_of(k), largest[k], layer_label(network, k))
            for k, layer in enumerate(network.layers)
        ]

    def _kernels_pay(self, images: int, steps: int) -> bool:
        """Whether the kernels win back what they cost; layers that only the plain version runs win nothing."""
        network, total = self._network, steps + self._network.depth
        layers = [layer for k, layer in enumerate(network.layers) if not plain_only(layer, network.input_of(k))]
        updates = images * total * sum(math.prod(layer.shape) for layer in layers)
        inputs = images * total * math.prod(network.input_shape)
        won = len(layers) * total / _STEPS_A_LAYER + updates / _UPDATES_A_LAYER
        return won >= 1 + network.depth + inputs / _INPUTS_A_LAYER

    def _plain(self, inputs: npt.NDArray[np.uint8], keep: bool, skip: int, progress: Progress) -> RunResult:
        total = inputs.shape[1] + self._network.depth
        room = self._room(_PLAIN_BYTES, len(inputs), total, keep)
        graded = self._network.sigma_delta
        need = sigma_delta_bytes(self._network, total) if graded else bytes_an_image(self._network, total)
        run = run_sigma_delta if graded else run_plain
        if room < need and self._memory_bytes is not None:
            raise too_little(need, total, room)
        batch = max(1, room // need)
        results = []
        for start in range(0, len(inputs), batch):
            results.append(run(self._network, inputs[start : start + batch], keep, skip))
            progress(min(start + batch, len(inputs)))
        return concatenate(results)

    def _fast(self, job: Job, progress: Progress) -> RunResult:
        from gascnn.hardware.simulator.memory import DEFAULT_BYTES, plan

        for layout in self._layouts:
            layout.prepare()
        room = self._room(DEFAULT_BYTES, len(job.inputs), job.total, job.every_spike)
        cut = plan(self._layouts, len(job.inputs), job.total, self._threads, room, self._whole)
        job.allocate()
        groups = [slice(i, min(i + cut.images, len(job.inputs))) for i in range(0, len(job.inputs), cut.images)]
        done = 0
        with ThreadPoolExecutor(cut.threads, thread_name_prefix="simulator") as workers:
            try:
                for images in self._finished(job, groups, cut, workers):
                    done += images
                    progress(done)
            except BaseException:
                workers.shutdown(cancel_futures=True)
                raise
        return job.result()

    def _room(self, default: int, images: int, steps: int, every_spike: bool) -> int:
        """Bytes for the arrays of a run; ``default`` where no limit was given."""
        if self._memory_bytes is None:
            return default
        return self._memory_bytes - held_memory_bytes() - result_bytes(self._network, images, steps, every_spike)

    @property
    def _whole(self) -> bool:
        return self._network.input.neuron is not None or any(layout.stepwise for layout in self._layouts)

    def _finished(self, job: Job, groups: list[slice], cut: Plan, workers: Executor) -> Iterator[int]:
        """Run all groups; gives the size of each when it is finished."""
        if cut.together or cut.threads == 1:
            for group in groups:
                self._run_group(job, group, cut, workers if cut.together else None)
                yield group.stop - group.start
            return
        futures = {workers.submit(self._run_group, job, group, cut, None): group for group in groups}
        for future in as_completed(futures):
            future.result()
            yield futures[future].stop - futures[future].start

    def _run_group(self, job: Job, group: slice, cut: Plan, workers: Executor | None) -> None:
        images, depth, total = group.stop - group.start, self._network.depth, job.total
        runs: list[LayerRun | None] = [None] * depth
        keep_runs = cut.window < total
        reached = [0] * (depth + 1)
        while reached[0] < total:
            end = min(reached[0] + cut.window, total)
            source, before, reached[0] = self._input(job, group, reached[0], end), reached[0], end
            for k in range(depth):
                first, reached[k + 1] = reached[k + 1], min(end + k + 1, total)
                if first == total:
                    break  # and so are all layers behind it
                run = runs[k] or self._layer_run(k, images, workers)
                source = run.step(source, reached[k + 1] - first, before + 1 - first)
                job.keep(k, group, source, first)
                runs[k], before = run if keep_runs else None, first
                if reached[k + 1] == total:
                    job.finish(k, group, run)

    def _layer_run(self, k: int, images: int, workers: Executor | None) -> LayerRun:
        from gascnn.hardware.simulator.layers import KernelRun, StepwiseRun

        layout = self._layouts[k]
        if layout.stepwise:
            return StepwiseRun(layout, images)
        return KernelRun(layout, images, self._method, workers, self._threads)  # type: ignore[arg-type]

    def _input(self, job: Job, group: slice, first: int, end: int) -> EventList | Spikes:
        from gascnn.hardware.simulator.events import events_of

        given = job.inputs[group, first:end]
        if self._network.input.neuron is not None:
            padded = np.zeros((len(given), job.total, *given.shape[2:]), dtype=given.dtype)
            padded[:, : given.shape[1]] = given
            given = run_input_neurons(self._network, padded).view(np.uint8)
        if self._layouts[0].stepwise or not self._layouts[0].takes_events:
            return given
        channels = given.shape[2]
        return events_of(given.reshape(*given.shape[:2], channels, self._layouts[0].pixels_in))


def has_numba() -> bool:
    """Whether the fast methods can run; without it ``auto`` takes the plain one."""
    try:
        return importlib.util.find_spec("numba") is not None
    except (ImportError, ValueError):  # something stands in its place that cannot be imported
        return False


def _silent(images: int) -> None:
    """Where nobody asked for progress."""
