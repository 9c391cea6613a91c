"""Lava processes that feed spikes from a file and write spikes to a file, as packed bits.

Reading a Lava variable costs 30 microseconds an element; a file costs nothing. In files a step is in C, H, W order,
in Lava in W, H, C.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]


class InputFile:
    """The input of all images, read step by step.

    Args:
        path: ``.npy``, uint8 (image, input step, ...): bits of a step packed along the last axis, or integers.
        packed: whether it holds packed bits.
        first_image: the image the run starts with.
        steps: steps an image takes.
        shape: of one step, in Lava's order.
        hold: whether the last input step stays to the end of the image; else the steps after it are silent.
    """

    def __init__(
        self, path: str, packed: bool, first_image: int, steps: int, shape: tuple[int, ...], hold: bool = False
    ) -> None:
        self._data = np.load(path, mmap_mode="r", allow_pickle=False)
        self._packed, self._first_image, self._steps, self._shape = packed, first_image, steps, shape
        self._hold = hold

    def step(self, index: int) -> npt.NDArray[np.int32]:
        """Input of step ``index`` of the run, counted from 0 over all images."""
        image, step = self._first_image + index // self._steps, index % self._steps
        step = min(step, self._data.shape[1] - 1) if self._hold else step
        if step >= self._data.shape[1]:
            return np.zeros(self._shape, dtype=np.int32)
        values = np.asarray(self._data[image, step])
        if self._packed:
            values = np.unpackbits(values, count=math.prod(self._shape))
        return np.ascontiguousarray(values.reshape(self._shape[::-1]).T.astype(np.int32))


class OutputFile:
    """Spikes of one layer, appended to a file.

    Each step becomes its bits, packed, or with ``graded`` its messages; or, for ``counts``, each image becomes one
    int32 a neuron.

    Args:
        path: the file.
        counts: write counts: of spikes, or of messages that are not 0.
        steps: steps an image takes.
        silent: first steps of an image in which nothing has reached this layer yet; what spikes there is left from
            the image before, whose state Lava's periodic reset clears at the end of them.
        graded: write the messages themselves, one int32 a neuron.
    """

    def __init__(self, path: str, counts: bool, steps: int, silent: int, graded: bool = False) -> None:
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - open until the process is killed
        self._steps, self._silent = steps, silent
        self._counts: npt.NDArray[np.int32] | None = None
        self._count, self._graded = counts, graded

    def step(self, index: int, spikes: IntArray | npt.NDArray[np.bool_]) -> None:
        """Spikes of step ``index`` of the run, counted from 0 over all images, in Lava's order."""
        step = index % self._steps
        fired = spikes.T if spikes.dtype == bool else spikes.T != 0
        if index >= self._steps and step < self._silent:
            fired = np.zeros_like(fired)
        if self._graded and not self._count:
            self._write(np.ascontiguousarray(spikes.T, dtype=np.int32).tobytes())
            return
        if not self._count:
            self._write(np.packbits(fired, axis=None).tobytes())
            return
        if step == 0 or self._counts is None:
            self._counts = np.zeros(fired.shape, dtype=np.int32)
        self._counts += fired
        if step == self._steps - 1:
            self._write(self._counts.tobytes())

    def _write(self, data: bytes) -> None:
        # An unbuffered write may take only a part, as when the disk fills up; the next one then says why.
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) or 0 :]


if importlib.util.find_spec("lava") is not None:
    from lava.magma.core.decorator import implements, requires, tag
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.core.model.py.ports import PyInPort, PyOutPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.process.ports.ports import InPort, OutPort
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.resources import CPU
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

    class SpikeSource(AbstractProcess):
        """Feeds an :class:`InputFile`, whose arguments it takes."""

        def __init__(
            self, *, path: str, packed: bool, first_image: int, steps: int, shape: tuple[int, ...], hold: bool = False
        ) -> None:
            super().__init__(path=path, packed=packed, first_image=first_image, steps=steps, shape=shape, hold=hold)
            self.s_out = OutPort(shape=shape)

    class SpikeSink(AbstractProcess):
        """Writes to an :class:`OutputFile`, whose arguments it takes."""

        def __init__(
            self, *, path: str, counts: bool, steps: int, silent: int, shape: tuple[int, ...], graded: bool = False
        ) -> None:
            super().__init__(path=path, counts=counts, steps=steps, silent=silent, graded=graded)
            self.a_in = InPort(shape=shape)

    @implements(proc=SpikeSource, protocol=LoihiProtocol)
    @requires(CPU)
    @tag("fixed_pt")
    class PySpikeSource(PyLoihiProcessModel):
        """Sends one step of the file a time step."""

        s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters)
            self.file = InputFile(
                *(parameters[name] for name in ("path", "packed", "first_image", "steps", "shape", "hold"))
            )

        def run_spk(self) -> None:
            """One time step; Lava counts them from 1."""
            self.s_out.send(self.file.step(self.time_step - 1))

    @implements(proc=SpikeSink, protocol=LoihiProtocol)
    @requires(CPU)
    @tag("fixed_pt")
    class PySpikeSink(PyLoihiProcessModel):
        """Writes one step of spikes a time step."""

        a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters)
            self.file = OutputFile(*(parameters[name] for name in ("path", "counts", "steps", "silent", "graded")))

        def run_spk(self) -> None:
            """One time step; Lava counts them from 1."""
            self.file.step(self.time_step - 1, self.a_in.recv())
