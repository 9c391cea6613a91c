"""A job's files: what the worker gets and what it gives back."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.exporters.netx import read_netx, write_netx
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.lava.outcome import LavaResult
from gascnn.toolkit.errors import BackendError, LimitError, UsageError
from gascnn.toolkit.lowering.limits import SIGMA_DELTA_SHIFT
from gascnn.toolkit.lowering.network import DenseLayer, NetxNetwork, SynapticLayer, layer_label
from gascnn.toolkit.lowering.netx_dense import effective_dense
from gascnn.toolkit.lowering.rules import weights_fit_int32

_STATE_SHIFT = 6


@dataclass(frozen=True, eq=False)
class Task:
    """One network and the images to run through it.

    Attributes:
        network: a network, or the path of a NetX file, whose very bytes are then run.
        spikes: as for :func:`gascnn.hardware.simulator.simulate`.
        steps: T; default all of ``spikes``.
        record: ``spikes`` keeps every spike of every synaptic layer, ``counts`` only how many each neuron fired.
        skip_steps: read-out steps left out at the start; default what the file says.
        stock: refuse a network that stock NetX does not load.
        input_shape, input_bits: for files that do not say them; see :func:`gascnn.exporters.netx.read_netx`.
        stock_models: run Lava's own process models, not the faster ones with the same numbers; implied by ``stock``.
    """

    network: NetxNetwork | str | os.PathLike[str]
    spikes: npt.NDArray[np.generic]
    steps: int | None = None
    record: Literal["spikes", "counts"] = "spikes"
    skip_steps: int | None = None
    stock: bool = False
    input_shape: tuple[int, ...] | None = None
    input_bits: int | None = None
    stock_models: bool = False


class PreparedTask:
    """A checked task and the names of its files in the job's folder.

    Args:
        task: what to run.
        index: its place in the job.

    Raises:
        GascnnError: as :func:`gascnn.hardware.lava.run` does, before Lava is started.
    """

    def __init__(self, task: Task, index: int) -> None:
        self.task = task
        self.network = (
            task.network
            if isinstance(task.network, NetxNetwork)
            else read_netx(task.network, input_shape=task.input_shape, input_bits=task.input_bits)
        )
        if task.record not in ("spikes", "counts"):
            raise UsageError(f"record is {task.record!r}; it must be 'spikes' or 'counts'")
        if task.stock and self.network.reset != "zero":
            raise UsageError(
                "stock Lava has no reset by subtraction; run this network with backend lava (this package's loader), "
                "or export it with reset zero"
            )
        _check_runnable(self.network)
        self.inputs = checked_spikes(self.network, task.spikes, task.steps)
        self.images, self.input_steps = self.inputs.shape[:2]
        self.steps = self.input_steps + self.network.depth
        deployment = self.network.deployment
        self.skip = task.skip_steps if task.skip_steps is not None else (deployment.skip_steps if deployment else 0)
        if not 0 <= self.skip < self.input_steps:
            raise UsageError(f"skip_steps is {self.skip}; it must be 0..{self.input_steps - 1} of {self.input_steps}")
        self._name = f"run_{index}"

    @property
    def follow_each_other(self) -> bool:
        """Whether images may follow each other in Lava's own models, cleared by its periodic reset, with exact results.

        Not with reset by subtraction, biases or input neurons, which are active before an image arrives, nor with
        delays or recurrent synapses, which carry spikes over the border, nor with sigma-delta neurons, which have no
        reset.
        """
        network = self.network
        return (
            self.images > 1
            and network.reset == "zero"
            and network.silent_at_rest
            and not network.sigma_delta
            and all(np.min(layer.neuron.threshold) >= 0 for layer in network.layers)
            and not any(
                isinstance(layer, DenseLayer) and (layer.delay is not None or layer.weight_rec is not None)
                for layer in network.layers
            )
        )

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the files the worker needs; gives this run's part of ``job.json``."""
        network, task = self.network, self.task
        if isinstance(task.network, NetxNetwork):
            write_netx(task.network, folder / f"{self._name}.net")
        else:
            shutil.copyfile(task.network, folder / f"{self._name}.net")
        packed = network.input_bits == 0 and network.input.neuron is None
        flat = self.inputs.reshape(self.images, self.input_steps, -1)
        values = np.packbits(flat, axis=-1) if packed else flat
        np.save(folder / f"{self._name}_input.npy", values, allow_pickle=False)
        return {
            "network": f"{self._name}.net",
            "models": "stock" if task.stock or task.stock_models else "fast",
            "loader": "stock" if network.reset == "zero" else "subtract",
            "input": f"{self._name}_input.npy",
            "packed": packed,
            "input_shape": list(network.input_shape),
            "input_bits": network.input_bits,
            "input_neurons": network.input.neuron is not None,
            "images": self.images,
            "steps": self.steps,
            "continuous": self.follow_each_other,
            "hold": network.holds_input,
            "graded": network.sigma_delta,
            "layers": [
                {"output": self._output(index), "counts": self._counted(index)} for index in range(network.depth)
            ],
            "membrane": f"{self._name}_membrane.npy",
            "membrane_variable": "sigma" if network.sigma_delta else "v" if network.reset == "zero" else "u",
            "report": f"{self._name}_report.json",
        }

    def finished(self, folder: Path) -> tuple[int, float]:
        """Steps done in all and images finished, counting the fraction of the current one."""
        last = self.network.depth - 1
        try:
            size = (folder / self._output(last)).stat().st_size
        except OSError:
            size = 0
        steps = size // self._bytes_a_step(last)
        return steps, steps / self.steps

    def _bytes_a_step(self, index: int) -> int:
        neurons = math.prod(self.network.layers[index].shape)
        return 4 * neurons if self.network.sigma_delta else math.ceil(neurons / 8)

    def read(self, folder: Path) -> LavaResult:
        """What the worker wrote.

        Raises:
            BackendError: a file is missing or not of the size it must have.
        """
        network, last = self.network, self.network.depth - 1
        counts: list[npt.NDArray[np.int32]] = []
        every: list[npt.NDArray[Any]] = []
        for index, layer in enumerate(network.layers):
            if self._counted(index):
                numbers = self._load(folder, index, 4 * math.prod(layer.shape)).view(np.int32)
                counts.append(numbers.reshape(self.images, *layer.shape))
                continue
            sent = self._sent(folder, index)
            counts.append(np.count_nonzero(sent, axis=1).astype(np.int32))
            every.append(sent)
        flat = every[-1].reshape(self.images, self.steps, -1)
        counted = flat[:, :0] if network.sigma_delta else flat[:, network.depth + self.skip :]
        keep = self.task.record == "spikes"
        return LavaResult(
            steps=self.input_steps,
            counts=counts,
            output_counts=counted.sum(axis=1, dtype=np.int32),
            output_membrane=self._potential(folder, network.layers[last], flat[:, -1]),
            spikes=[sent.astype(bool, copy=False) for sent in every] if keep else None,
            messages=every if keep and network.sigma_delta else None,
            **self._report(folder),
        )

    def _sent(self, folder: Path, index: int) -> npt.NDArray[Any]:
        """(image, T + K, ...) spikes of a layer, or its messages."""
        shape = self.network.layers[index].shape
        rows = self._load(folder, index, self.steps * self._bytes_a_step(index))
        if self.network.sigma_delta:
            return rows.view(np.int32).reshape(self.images, self.steps, *shape)
        bits = np.unpackbits(rows.reshape(self.images, self.steps, -1), axis=2, count=math.prod(shape))
        return bits.view(bool).reshape(self.images, self.steps, *shape)

    def _potential(self, folder: Path, layer: SynapticLayer, last_spikes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """(image, N) final states: with reset by subtraction less what is still on its way, with a sum's bias."""
        state = self._membrane(folder, math.prod(layer.shape))
        if layer.self_weight is not None:
            state -= (_each_neuron(layer.self_weight, layer.shape) << _STATE_SHIFT) * last_spikes
        if self.network.sigma_delta and layer.bias is not None:
            state += _each_neuron(layer.bias, layer.shape) << SIGMA_DELTA_SHIFT
        return state

    def _output(self, index: int) -> str:
        return f"{self._name}_layer_{index:02d}.bin"

    def _counted(self, index: int) -> bool:
        # The read-out needs the steps of the last layer.
        return self.task.record == "counts" and index < self.network.depth - 1

    def _load(self, folder: Path, index: int, bytes_an_image: int) -> npt.NDArray[np.uint8]:
        path = folder / self._output(index)
        expected = bytes_an_image * self.images
        found = path.stat().st_size if path.exists() else 0
        if found != expected:
            label = layer_label(self.network, index)
            raise BackendError(f"Lava's output of {label} has {found} bytes; expected {expected}; run it again")
        return np.fromfile(path, dtype=np.uint8)

    def _membrane(self, folder: Path, size: int) -> npt.NDArray[np.int64]:
        try:
            values = np.load(folder / f"{self._name}_membrane.npy", allow_pickle=False)
            return np.asarray(values, dtype=np.int64).reshape(self.images, size)
        except (OSError, ValueError) as error:
            raise BackendError(f"Lava's final membrane potentials are incomplete ({error}); run it again") from error

    def _report(self, folder: Path) -> dict[str, Any]:
        try:
            report = json.loads((folder / f"{self._name}_report.json").read_text(encoding="utf-8"))
            return {**report, "image_s": tuple(report["image_s"])}
        except (OSError, ValueError, KeyError) as error:
            raise BackendError(f"Lava's report on its run is incomplete ({error}); run it again") from error


def _each_neuron(values: npt.NDArray[np.integer], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """(N,) from one number a channel, or one a neuron."""
    numbers = values.astype(np.int64)
    if numbers.ndim == 1:
        numbers = numbers.reshape(-1, *(1,) * (len(shape) - 1))
    return np.broadcast_to(numbers, shape).ravel()


def write_job(tasks: Sequence[PreparedTask], folder: Path) -> None:
    """Write all files of a job.

    Raises:
        BackendError: the disk is full or the folder cannot be written.
    """
    try:
        job = {"runs": [task.write(folder) for task in tasks]}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    except OSError as error:
        raise BackendError(
            f"could not write Lava's input to {folder}: {error.strerror}; free some space or set TMPDIR"
        ) from error


def _check_runnable(network: NetxNetwork) -> None:
    """Refuse what Lava turns into nonsense or cannot load, by the layer's name."""
    for index, layer in enumerate(network.layers):
        label = layer_label(network, index)
        for broken in weights_fit_int32(network, index, layer):
            raise LimitError(f"{label}: {broken.found}; {broken.allowed}; {broken.remedy}")
        if isinstance(layer, DenseLayer):
            effective_dense(layer, label)
