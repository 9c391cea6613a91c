"""Run the networks of one job, one after the other, in this process's Lava."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import logging
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.hardware.lava.worker import models
from gascnn.hardware.lava.worker.events import Events
from gascnn.hardware.lava.worker.graph import Graph
from gascnn.hardware.lava.worker.processes import spikes
from gascnn.hardware.lava.worker.subtract import subtract_graph
from gascnn.hardware.lava.worker.watch import Watch

if importlib.util.find_spec("lava") is not None:
    from lava.magma.core.process.process import ProcessServer
    from lava.magma.core.process.variable import VarServer
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

Run = dict[str, Any]

_CHANNEL_SLOTS = 8
"""Messages a channel holds; Lava's default of 64 costs 64 times each layer's size in shared memory."""


def run_job(folder: Path, emit: Events) -> None:
    """Run everything ``job.json`` lists.

    Args:
        folder: the job's folder; results are written there.
        emit: told what happens.

    Raises:
        Exception: whatever Lava raises where it can; what goes wrong in one of Lava's processes is told to ``emit``
            and ends this process.
    """
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if any(run["loader"] == "stock" for run in job["runs"]):
        importlib.import_module("gascnn.hardware.lava.worker.stock")
    emit("imported")
    # What importing made lives on: looking through it after each graph, and copying it in forks, would take seconds.
    gc.collect()
    gc.freeze()
    for index, run in enumerate(job["runs"]):
        emit("network", number=index + 1, networks=len(job["runs"]))
        _run_images(run, folder, emit)


def _run_images(run: Run, folder: Path, emit: Events) -> None:
    """Run all images of a network and write what is left to write: final states, and how it was run."""
    why_stock = None
    if run["models"] == "fast":
        try:
            report = _Graphs(run, folder, emit).run_fast()
        except models.Unsupported as reason:
            why_stock = str(reason)
            forget()
    if run["models"] == "stock" or why_stock is not None:
        report = _Graphs(run, folder, emit).run_stock()
    if run["models"] == "loihi":
        from gascnn.hardware.lava.worker.loihi import ChipRun

        report = ChipRun(run, folder, emit).run()
    np.save(folder / run["membrane"], np.array(report.pop("membrane"), dtype=np.int64), allow_pickle=False)
    (folder / run["report"]).write_text(json.dumps({**report, "why_stock": why_stock}), encoding="utf-8")


class _Graphs:
    """Lava's graphs of one network, as many as its images need.

    Args:
        run: the network's part of ``job.json``.
        folder: the job's.
        emit: told what happens.
    """

    def __init__(self, run: Run, folder: Path, emit: Events) -> None:
        self._run, self._folder, self._emit = run, folder, emit
        self._membrane: list[npt.NDArray[np.int64]] = []
        self._start_s = 0.0
        self._image_s: list[float] = []

    def run_fast(self) -> dict[str, Any]:
        """All images in one graph of the faster models, which go back to rest between them.

        Raises:
            models.Unsupported: there is no faster model for something; nothing was run.
        """
        self._run_graph(0, self._run["images"], None, self._swap)
        return self._report("fast")

    def run_stock(self) -> dict[str, Any]:
        """Lava's own models: a graph an image where they cannot be brought back to rest together."""
        images, steps = self._run["images"], self._run["steps"]
        at_once = images if self._run["continuous"] else 1
        for first in range(0, images, at_once):
            self._run_graph(first, at_once, steps if at_once > 1 else None, self._tap)
        return self._report("stock")

    def _run_graph(
        self, first: int, images: int, reset_interval: int | None, finish: Callable[[Graph], dict[Any, Any]]
    ) -> None:
        """Build the network, run some images through it and take it down; keeps each image's final state."""
        started = time.perf_counter()
        self._emit("image", number=first + 1)
        graph = _build(self._run, self._folder, reset_interval)
        if len(graph.neurons) != len(self._run["layers"]):
            raise RuntimeError(f"Lava built {len(graph.neurons)} layers where {len(self._run['layers'])} were expected")
        swapped = finish(graph)
        source = _source(graph, self._run, self._folder, first)
        watch = Watch(source, self._emit)
        try:
            source.create_runtime(
                run_cfg=Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=swapped),
                compile_config={"pypy_channel_size": _CHANNEL_SLOTS},
            )
            self._start_s += time.perf_counter() - started
            self._run_through(source, graph, first, images)
        except Exception:
            watch.look()  # Lava says "1 Exception(s) occurred"; its process says which
            raise
        started = time.perf_counter()
        watch.end()
        _take_down(source.runtime)
        del graph, source, watch
        forget()
        self._start_s += time.perf_counter() - started

    def _run_through(self, source: Any, graph: Graph, first: int, images: int) -> None:
        state = getattr(graph.neurons[-1], self._run["membrane_variable"])
        for image in range(first, first + images):
            started = time.perf_counter()
            self._emit("image", number=image + 1)
            source.run(condition=RunSteps(num_steps=self._run["steps"]))
            self._membrane.append(state.get().T.ravel().astype(np.int64))
            self._image_s.append(time.perf_counter() - started)

    def _swap(self, graph: Graph) -> dict[Any, Any]:
        """Have the graph run with the faster models; gives which takes whose place."""
        records = [(neuron, self._record(index, silent=0)) for index, neuron in enumerate(graph.neurons)]
        return models.prepare(self._run["steps"], records)

    def _tap(self, graph: Graph) -> dict[Any, Any]:
        """Connect a file to every layer; no model is swapped."""
        for index, neuron in enumerate(graph.neurons):
            shape = tuple(int(n) for n in neuron.s_out.shape)
            # Before the step in which Lava's periodic reset reaches a layer, what spikes there is the image before.
            neuron.s_out.connect(spikes.SpikeSink(**self._record(index, silent=index + 1), shape=shape).a_in)
        return {}

    def _record(self, index: int, silent: int) -> dict[str, Any]:
        layer = self._run["layers"][index]
        path = str(self._folder / layer["output"])
        told = {"path": path, "counts": layer["counts"], "steps": self._run["steps"], "silent": silent}
        return {**told, "graded": self._run["graded"]}

    def _report(self, used: str) -> dict[str, Any]:
        return {"models": used, "start_s": self._start_s, "image_s": self._image_s, "membrane": self._membrane}


def _build(run: Run, folder: Path, reset_interval: int | None) -> Graph:
    path, shape, bits = folder / run["network"], tuple(run["input_shape"][::-1]), run["input_bits"]
    if run["loader"] == "subtract":
        return subtract_graph(path, shape, bits)
    from gascnn.hardware.lava.worker.stock import stock_graph  # brings PyTorch along

    return stock_graph(path, shape, bits, run["input_neurons"], reset_interval)


def _source(graph: Graph, run: Run, folder: Path, first: int) -> Any:
    """Connect the file of the input."""
    shape = tuple(int(n) for n in graph.entry.shape)
    if math.prod(shape) != math.prod(run["input_shape"]):
        raise RuntimeError(f"Lava's input has shape {shape} where {run['input_shape']} was expected")
    source = spikes.SpikeSource(
        path=str(folder / run["input"]),
        packed=run["packed"],
        first_image=first,
        steps=run["steps"],
        shape=shape,
        hold=run["hold"],
    )
    source.s_out.connect(graph.entry)
    return source


def _take_down(runtime: Any) -> None:
    """End a graph whose results are on disk; Lava's own stop() takes longer and can hang."""
    for actor in runtime._messaging_infrastructure.actors:
        actor.kill()
    runtime._is_started = runtime._is_running = False
    try:
        runtime.join()
        runtime.stop()
    except Exception:  # the results are safe, and the parent removes what is left
        traceback.print_exc()


def forget() -> None:
    """Free a graph that was taken down: Lava remembers every process and variable, and adds a log handler for each."""
    ProcessServer().reset_server()
    VarServer().reset_server()
    logging.getLogger().handlers.clear()
    gc.collect()
