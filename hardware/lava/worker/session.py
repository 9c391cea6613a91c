"""Run the networks of one job, one after the other, in this process's Lava."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import logging
import math
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gascnn.hardware.lava.worker.events import Events, cause_of
from gascnn.hardware.lava.worker.graph import Graph
from gascnn.hardware.lava.worker.processes import spikes
from gascnn.hardware.lava.worker.subtract import subtract_graph

if importlib.util.find_spec("lava") is not None:
    from lava.magma.core.process.process import ProcessServer
    from lava.magma.core.process.variable import VarServer
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

Run = dict[str, Any]

_WATCH_INTERVAL_S = 0.25
_LAST_WORDS_S = 2.0
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
    images = run["images"]
    at_once = images if run["continuous"] else 1
    membrane = []
    for first in range(0, images, at_once):
        emit("image", number=first + 1)
        membrane += _run_graph(run, folder, first, at_once, emit)
        _forget()
    np.save(folder / run["membrane"], np.array(membrane, dtype=np.int64), allow_pickle=False)


def _run_graph(run: Run, folder: Path, first: int, images: int, emit: Events) -> list[npt.NDArray[np.int64]]:
    """Build the network, run some images through it and take it down; gives each image's final state."""
    graph = _build(run, folder, images)
    if len(graph.neurons) != len(run["layers"]):
        raise RuntimeError(f"Lava built {len(graph.neurons)} layers where {len(run['layers'])} were expected")
    source = _attach(graph, run, folder, first)
    watch = _Watch(source, emit)
    configuration = Loihi2SimCfg(select_tag="fixed_pt")
    state = getattr(graph.neurons[-1], run["membrane_variable"])
    membrane = []
    for image in range(images):
        emit("image", number=first + image + 1)
        try:
            source.run(
                condition=RunSteps(num_steps=run["steps"]),
                run_cfg=configuration,
                compile_config={"pypy_channel_size": _CHANNEL_SLOTS},
            )
        except Exception:
            watch.look()  # Lava says "1 Exception(s) occurred"; its process says which
            raise
        membrane.append(state.get().T.ravel().astype(np.int64))
    watch.end()
    _take_down(source.runtime)
    return membrane


def _build(run: Run, folder: Path, images: int) -> Graph:
    path, shape, bits = folder / run["network"], tuple(run["input_shape"][::-1]), run["input_bits"]
    if run["loader"] == "subtract":
        return subtract_graph(path, shape, bits)
    from gascnn.hardware.lava.worker.stock import stock_graph  # brings PyTorch along

    return stock_graph(path, shape, bits, run["input_neurons"], run["steps"] if images > 1 else None)


def _attach(graph: Graph, run: Run, folder: Path, first: int) -> Any:
    """Connect files to both ends and to every layer; gives the source."""
    shape = tuple(int(n) for n in graph.entry.shape)
    if math.prod(shape) != math.prod(run["input_shape"]):
        raise RuntimeError(f"Lava's input has shape {shape} where {run['input_shape']} was expected")
    source = spikes.SpikeSource(
        path=str(folder / run["input"]), packed=run["packed"], first_image=first, steps=run["steps"], shape=shape
    )
    source.s_out.connect(graph.entry)
    for index, (neuron, layer) in enumerate(zip(graph.neurons, run["layers"], strict=True)):
        sink = spikes.SpikeSink(
            path=str(folder / layer["output"]),
            counts=layer["counts"],
            steps=run["steps"],
            silent=index + 1,
            shape=tuple(int(n) for n in neuron.s_out.shape),
        )
        neuron.s_out.connect(sink.a_in)
    return source


class _Watch:
    """Looks after Lava's processes while this one waits for them: where one of them ends, Lava waits for ever.

    Args:
        process: a process of the graph about to run.
        emit: told what went wrong; then this process ends.
    """

    def __init__(self, process: Any, emit: Events) -> None:
        self._process, self._emit = process, emit
        self._first_seen_s: float | None = None
        signal.signal(signal.SIGALRM, lambda *_: self.look())
        signal.setitimer(signal.ITIMER_REAL, _WATCH_INTERVAL_S, _WATCH_INTERVAL_S)

    def end(self) -> None:
        """Stop looking."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the handler would keep the graph

    def look(self) -> None:
        """End this process if one of Lava's has ended."""
        messaging = getattr(self._process.runtime, "_messaging_infrastructure", None)
        if messaging is None:
            return
        ends = [end for end in map(_end_of, messaging.actors) if end is not None]
        manager = getattr(messaging.smm, "_manager", None)
        server = getattr(manager, "_process", None)
        if server is not None and server.exitcode is not None:
            ends.append(_End(_KILLED, "Lava's shared-memory manager ended"))
        if not ends:
            return
        # What one process raised says more than that others ended after it, and may arrive a moment later.
        worst = max(ends, key=lambda end: end.weight)
        self._first_seen_s = self._first_seen_s or time.monotonic()
        if worst.weight > _ENDED or time.monotonic() - self._first_seen_s > _LAST_WORDS_S:
            self._emit("error", cause=worst.cause)
            os._exit(1)


_ENDED, _KILLED, _RAISED = range(3)


class _End(NamedTuple):
    """How a process of Lava ended, and how much that says about the cause."""

    weight: int
    cause: str


def _end_of(actor: Any) -> _End | None:
    """How a process of Lava (of its subclass of multiprocessing.Process) ended, or None while it runs."""
    try:
        raised = actor.exception
        code = actor.exitcode
    except (ValueError, OSError, EOFError):  # closed: Lava itself has just found out
        raised, code = vars(actor).get("_exception"), None
    if raised is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{raised[1]}\n")  # the log
        return _End(_RAISED, cause_of(raised[0]))
    if code is None:
        return None
    if code < 0:
        hint = ": the shared memory in /dev/shm ran out" if code == -signal.SIGBUS else ""
        return _End(_KILLED, f"one of Lava's processes was killed by {signal.Signals(-code).name}{hint}")
    return _End(_ENDED, f"one of Lava's processes ended with status {code}")


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


def _forget() -> None:
    """Free a graph that was taken down: Lava remembers every process and variable, and adds a log handler for each."""
    ProcessServer().reset_server()
    VarServer().reset_server()
    logging.getLogger().handlers.clear()
    gc.collect()
