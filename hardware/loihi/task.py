"""What goes to the chip and what comes back: checks, files, result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.hardware.lava.jobs import PreparedTask, Task
from gascnn.hardware.loihi.profile import PROBES, ChipProfile, chip_profile
from gascnn.hardware.result import RunResult
from gascnn.toolkit.errors import LimitError, UsageError
from gascnn.toolkit.lowering.network import DenseLayer, NetxNetwork, layer_label
from gascnn.toolkit.lowering.rules import HARDWARE_RULES

Read = Literal["output", "layers"]

STEP_LIMIT = 1_000_000
"""Time steps of one job, all images and the profile together: the chip is shared."""


@dataclass(frozen=True, eq=False)
class LoihiResult(RunResult):
    """What the chip answered.

    With ``read="output"`` (see :func:`gascnn.hardware.loihi.run`) ``counts`` and ``spikes`` hold one array, that of the
    last layer.

    Attributes:
        host: where the chip was.
        start_s: time to compile, load the chip and give it back, all graphs together, on this machine's clock.
        image_s: time each image took on this machine's clock, input and output included.
        profile: the chip's own measurements, where they were asked for.
        deviation: how the first image's output differs from the simulator's, in words; None where it does not, or was
            not compared.
    """

    host: str = ""
    start_s: float = 0.0
    image_s: tuple[float, ...] = ()
    profile: ChipProfile | None = None
    deviation: str | None = None


def check_runnable(network: NetxNetwork) -> None:
    """Refuse what the public tutorials do not show on the chip, or what it cannot hold.

    Raises:
        UsageError: reset by subtraction, sigma-delta or input neurons, delays, recurrent synapses.
        LimitError: names layer, value and limit.
    """
    if network.reset != "zero":
        raise UsageError("NetX on Loihi has no reset by subtraction; export the network with reset zero")
    if network.sigma_delta or network.input.neuron is not None:
        kind = "sigma-delta neurons" if network.sigma_delta else "input neurons"
        raise UsageError(
            f"backend loihi runs no {kind}; export with --neuron cuba and a spike coding, or use backend lava"
        )
    for index, layer in enumerate(network.layers):
        label = layer_label(network, index)
        if isinstance(layer, DenseLayer) and (layer.delay is not None or layer.weight_rec is not None):
            kind = "delays" if layer.delay is not None else "recurrent synapses"
            raise UsageError(f"{label}: backend loihi runs no {kind}; leave them out, or use backend lava")
        for rule in HARDWARE_RULES:
            for broken in rule(network, index, layer):
                raise LimitError(f"{label}: {broken.found}; {broken.allowed}; export with --grade hardware")


class ChipTask(PreparedTask):
    """A checked task for the chip and the names of its files.

    Args:
        task: what to run.
        read: whether the last layer's spikes are fetched from the chip or every layer's.
        profile_steps: time steps to profile at least; None for no profile.
        probes: what to profile.
        step_limit: of the whole job.

    Raises:
        GascnnError: as :func:`gascnn.hardware.loihi.run`, before anything is started.
    """

    def __init__(
        self, task: Task, read: Read, profile_steps: int | None, probes: tuple[str, ...], step_limit: int
    ) -> None:
        super().__init__(task, 0)
        check_runnable(self.network)
        if read not in ("output", "layers"):
            raise UsageError(f"read is {read!r}; it must be 'output' or 'layers'")
        unknown = [probe for probe in probes if probe not in PROBES]
        if unknown or not probes:
            raise UsageError(f"probes are {', '.join(probes) or 'none'}; they must be some of {', '.join(PROBES)}")
        if profile_steps is not None and profile_steps < 1:
            raise UsageError(f"profile_steps is {profile_steps}; it must be at least 1")
        self._read, self._probes = read, probes
        # Whole images, over and over.
        self._profiled_images = 0 if profile_steps is None else math.ceil(profile_steps / self.steps)
        total = (self.images + self._profiled_images) * self.steps
        if total > step_limit:
            raise UsageError(
                f"{self.images} images and {self._profiled_images} for the profile of {self.steps} steps each are "
                f"{total} time steps; the limit of a job is {step_limit}; run fewer images at once"
            )

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the files the worker needs; gives this run's part of ``job.json``."""
        told = super().write(folder)
        profile = None
        if self._profiled_images:
            values = np.load(folder / told["input"], mmap_mode="r", allow_pickle=False)
            again = np.arange(self._profiled_images) % self.images
            name = f"{self._name}_profile_input.npy"
            np.save(folder / name, values[again], allow_pickle=False)
            steps = self._profiled_images * self.steps
            profile = {"input": name, "output": self._profile_output, "steps": steps, "probes": list(self._probes)}
        depth = self.network.depth
        chip = {
            "conv_input": self.network.layers[0].kind == "conv",
            "read": list(range(depth)) if self._read == "layers" else [depth - 1],
            "profile": profile,
        }
        return {**told, "models": "loihi", "loihi": chip}

    def finished(self, folder: Path) -> tuple[int, float]:
        """As in Lava; the steps of the profile count too."""
        steps, images = super().finished(folder)
        profiled = folder / self._profile_output
        size = profiled.stat().st_size if profiled.exists() else 0
        return steps + size // self._bytes_a_step(self.network.depth - 1), images

    def read_chip(self, folder: Path) -> LoihiResult:
        """What the worker wrote.

        Raises:
            BackendError: a file is missing or not of the size it must have.
        """
        report = self._report(folder)
        profile = None if report["profile"] is None else chip_profile(report["profile"], self.steps)
        last = self.network.depth - 1
        counts: list[npt.NDArray[np.int32]] = []
        every: list[npt.NDArray[np.bool_]] = []
        for index, layer in enumerate(self.network.layers):
            if self._read == "output" and index < last:
                continue
            if self._counted(index):
                numbers = self._load(folder, index, 4 * math.prod(layer.shape)).view(np.int32)
                counts.append(numbers.reshape(self.images, *layer.shape))
                continue
            every.append(self._sent(folder, index))
            counts.append(np.count_nonzero(every[-1], axis=1).astype(np.int32))
        flat = every[-1].reshape(self.images, self.steps, -1)
        return LoihiResult(
            steps=self.input_steps,
            counts=counts,
            output_counts=flat[:, self.network.depth + self.skip :].sum(axis=1, dtype=np.int32),
            output_membrane=self._potential(folder, self.network.layers[last], flat[:, -1]),
            spikes=every if self.task.record == "spikes" else None,
            host=report["host"],
            start_s=report["start_s"],
            image_s=report["image_s"],
            profile=profile,
        )

    def output_of_first(self, folder: Path) -> npt.NDArray[np.bool_]:
        """(T + K, N) output spikes of the first image."""
        sent: npt.NDArray[np.bool_] = self._sent(folder, self.network.depth - 1)[0]
        return sent.reshape(self.steps, -1)

    @property
    def _profile_output(self) -> str:
        return f"{self._name}_profile_output.bin"
