"""Run the network of a job on Loihi 2, through the extension of Lava that drives the chip.

Follows Intel's public tutorials (``docs/loihi.md`` names them): the file as stock NetX loads it, an adapter of
``lava.proc.embedded_io`` where spikes go to the chip and one where they come back, ``Loihi2HwCfg``, and the profiler's
probes as its ``callback_fxs``.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.hardware.lava.worker.events import Events
from gascnn.hardware.lava.worker.graph import Port, Process
from gascnn.hardware.lava.worker.processes import spikes
from gascnn.hardware.lava.worker.session import forget
from gascnn.hardware.lava.worker.watch import Watch

if importlib.util.find_spec("lava") is not None:
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2HwCfg
    from lava.utils import loihi

Run = dict[str, Any]

_GENERATION = "N3B3"
"""Of most Loihi 2 systems, says ``lava.utils.loihi``."""

_CONV_MESSAGE_BITS, _DENSE_MESSAGE_BITS = 16, 24
"""Of graded input, as in lava-dl's tests on the chip and in ``lava.networks.gradedvecnetwork``."""


class ChipRun:
    """A network's images on the chip, and its profile.

    Args:
        run: the network's part of ``job.json``.
        folder: the job's.
        emit: told what happens.
    """

    def __init__(self, run: Run, folder: Path, emit: Events) -> None:
        self._run, self._folder, self._emit = run, folder, emit
        self._chip: dict[str, Any] = run["loihi"]
        self._membrane: list[npt.NDArray[np.int64]] = []
        self._start_s = 0.0
        self._image_s: list[float] = []

    def run(self) -> dict[str, Any]:
        """Run everything; gives the report, with ``membrane`` in it.

        Raises:
            RuntimeError: there is no host, or Lava built another network than the file describes.
        """
        host = use_host()
        images = self._run["images"]
        at_once = images if self._run["continuous"] else 1
        for first in range(0, images, at_once):
            self._answer(first, at_once)
        profile = None if self._chip["profile"] is None else self._profile(self._chip["profile"])
        told = {"start_s": self._start_s, "image_s": self._image_s, "membrane": self._membrane}
        return {**told, "models": "loihi", "host": host, "profile": profile}

    def _answer(self, first: int, images: int) -> None:
        """Images in one graph, a run of T + K steps each; keeps their output and final states."""
        started = time.perf_counter()
        self._emit("image", number=first + 1)
        steps = self._run["steps"]
        network, neurons = self._network(steps if images > 1 else None)
        source = self._source(network, self._run["input"], first)
        for index in self._chip["read"]:
            layer = self._run["layers"][index]
            # The public tests and tutorials read `net.out`; the port of a hidden population is of the same kind.
            port = network.out if index == len(neurons) - 1 else neurons[index].s_out
            self._sink(port, str(self._folder / layer["output"]), layer["counts"], silent=index + 1)
        watch = Watch(source, self._emit)
        try:
            self._start(source, [])
            self._start_s += time.perf_counter() - started
            for image in range(first, first + images):
                started = time.perf_counter()
                self._emit("image", number=image + 1)
                source.run(condition=RunSteps(num_steps=steps))
                self._membrane.append(neurons[-1].v.get().T.ravel().astype(np.int64))
                self._image_s.append(time.perf_counter() - started)
        except Exception:
            watch.look()  # Lava says "1 Exception(s) occurred"; its process says which
            raise
        started = time.perf_counter()
        self._end(source, watch)
        self._start_s += time.perf_counter() - started

    def _profile(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """All steps in a single run, as in the benchmark tutorial, for the probes take no more than one."""
        self._emit("image", number=1)
        steps = wanted["steps"]
        network, _ = self._network(self._run["steps"])
        source = self._source(network, wanted["input"], 0)
        self._sink(network.out, str(self._folder / wanted["output"]), counts=False, silent=0)
        probes = _probes(wanted["probes"], steps)
        watch = Watch(source, self._emit)
        try:
            self._start(source, list(probes.values()))
            source.run(condition=RunSteps(num_steps=steps))
        except Exception:
            watch.look()
            raise
        self._end(source, watch)
        return {"steps": steps, "partition": os.environ.get("PARTITION"), **_figures(probes)}

    def _network(self, reset_interval: int | None) -> tuple[Any, list[Process]]:
        from gascnn.hardware.lava.worker.stock import stock_graph  # brings PyTorch along

        run, bits = self._run, self._run["input_bits"] and self._message_bits
        graph = stock_graph(self._folder / run["network"], tuple(run["input_shape"][::-1]), bits, False, reset_interval)
        if len(graph.neurons) != len(run["layers"]):
            raise RuntimeError(f"Lava built {len(graph.neurons)} layers where {len(run['layers'])} were expected")
        return graph.owner, graph.neurons

    @property
    def _message_bits(self) -> int:
        return _CONV_MESSAGE_BITS if self._chip["conv_input"] else _DENSE_MESSAGE_BITS

    def _source(self, network: Any, name: str, first: int) -> Process:
        """Connect the file of the input, through the adapter that sends spikes to the chip."""
        run, shape = self._run, tuple(int(n) for n in network.inp.shape)
        if math.prod(shape) != math.prod(run["input_shape"]):
            raise RuntimeError(f"Lava's input has shape {shape} where {run['input_shape']} was expected")
        source = spikes.SpikeSource(
            path=str(self._folder / name), packed=run["packed"], first_image=first, steps=run["steps"], shape=shape
        )
        # A convolution on the chip takes messages of its own kind.
        kind = "PyToN3ConvAdapter" if self._chip["conv_input"] else "PyToNxAdapter"
        graded = {"num_message_bits": self._message_bits} if run["input_bits"] else {}
        adapter = getattr(_embedded_io(), kind)(shape=shape, **graded)
        source.s_out.connect(adapter.inp)
        adapter.out.connect(network.inp)
        return source

    def _sink(self, port: Port, path: str, counts: bool, silent: int) -> None:
        """Connect a file to what a population sends, through the adapter that brings it back."""
        shape = tuple(int(n) for n in port.shape)
        adapter = _embedded_io().NxToPyAdapter(shape=shape)
        port.connect(adapter.inp)
        sink = spikes.SpikeSink(path=path, counts=counts, steps=self._run["steps"], silent=silent, shape=shape)
        adapter.out.connect(sink.a_in)

    @staticmethod
    def _start(source: Process, probes: list[Any]) -> None:
        """Compile the graph, load the chip and start what runs on this machine."""
        host_models: dict[Any, Any] = {spikes.SpikeSource: spikes.PySpikeSource, spikes.SpikeSink: spikes.PySpikeSink}
        source.create_runtime(run_cfg=Loihi2HwCfg(exception_proc_model_map=host_models, callback_fxs=probes))

    @staticmethod
    def _end(source: Process, watch: Watch) -> None:
        """Give the board back, and forget the graph."""
        watch.end()
        source.stop()
        forget()


def use_host() -> str:
    """Choose the machine with the chip by the environment variables Lava itself uses.

    ``NXSDKHOST`` (and ``HOST_BINARY``): a board on the network. Otherwise SLURM, with ``PARTITION`` and ``BOARD`` where
    set. ``LOIHI_GEN``: the chip's generation.

    Returns:
        Which was chosen, in words.

    Raises:
        RuntimeError: there is none, or a variable is wrong.
        ImportError: the extension is not installed.
    """
    named = os.environ.get("LOIHI_GEN", _GENERATION)
    known = [generation.value for generation in loihi.ChipGeneration]
    if named not in known:
        raise RuntimeError(f"LOIHI_GEN is {named!r}; it must be one of {', '.join(known)}")
    generation, address = loihi.ChipGeneration(named), os.environ.get("NXSDKHOST")
    try:
        if address:
            binary = {"host_binary_path": os.environ["HOST_BINARY"]} if "HOST_BINARY" in os.environ else {}
            loihi.use_ethernet_host(host_address=address, loihi_gen=generation, **binary)
            return f"{address} ({named})"
        chosen = {name: os.environ[name] for name in ("BOARD", "PARTITION") if os.environ.get(name)}
        loihi.use_slurm_host(loihi_gen=generation)
    except (ValueError, OSError) as error:  # OSError: no such program as sinfo or ping
        raise RuntimeError(
            f"no host with a Loihi 2 ({error}); set NXSDKHOST to the address of a board, or run where SLURM has one"
        ) from error
    # Lava forgets the two; given them as arguments, 0.10.0 stumbles over the line end behind what sinfo prints.
    os.environ.update(chosen)
    return f"SLURM, {' '.join(chosen.values()) or 'any board'} ({named})"


def _embedded_io() -> Any:
    return importlib.import_module("lava.proc.embedded_io.spike")


_PROBES = {
    "time": "Loihi2ExecutionTime",
    "power": "Loihi2Power",
    "activity": "Loihi2Activity",
    "memory": "Loihi2Memory",
}

_FIGURES = {
    "time": {"time_per_step_us": "execution_time_per_step", "mean_time_per_step_us": "avg_time_per_step"},
    "power": {
        f"{kind}{rail}_power_w": f"{kind}{rail}_power"
        for kind in ("", "static_")
        for rail in ("total", "vdd", "vddm", "vddio")
    },
    "activity": {
        "activity_core": "core_idx",
        "synaptic_operations": "syn_ops",
        "neuron_updates": "dendrite_updates",
        "spikes_sent": "axon_out",
        "spikes_received": "spikes_in",
    },
    "memory": {"memory_core": "core_idx", "memory_used_share": "total_mpds"},
}
"""What is kept of each probe, by its name in the benchmark tutorial, which also says the units."""


def _probes(names: list[str], steps: int) -> dict[str, Any]:
    module = importlib.import_module("lava.utils.loihi2_profiler")
    return {name: getattr(module, _PROBES[name])(**({"num_steps": steps} if name == "power" else {})) for name in names}


def _figures(probes: dict[str, Any]) -> dict[str, list[float]]:
    """What the probes hold after the run, as lists of numbers."""
    return {
        ours: [float(number) for number in np.ravel(np.asarray(getattr(probe, theirs)))]
        for name, probe in probes.items()
        for ours, theirs in _FIGURES[name].items()
    }
