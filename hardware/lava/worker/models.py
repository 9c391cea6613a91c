"""Lava's own process models, with the same numbers by faster means.

They take the place of Lava's by its run configuration (``exception_proc_model_map``): the process graph, its
synchronisation and its messages stay Lava's own. Two things more they do, so that all images run in one graph: each
goes back to rest at the start of an image, and populations write their spikes themselves, without a process for it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from gascnn.hardware.lava.worker import arithmetic
from gascnn.hardware.lava.worker.processes.spikes import OutputFile

LARGEST_INPUT = 255
"""Input files hold bytes."""

_INTERVAL, _RECORD = "gascnn_interval", "gascnn_record"


class Unsupported(Exception):  # noqa: N818 - no failure: Lava's own models run then
    """Something in a graph for which there is no faster model; says what."""


def prepare(interval: int, records: list[tuple[Any, dict[str, Any]]]) -> dict[type[Any], type[Any]]:
    """Make every process of the graph just built ready to run with a faster model.

    Args:
        interval: steps an image takes.
        records: populations, each with the arguments of the file of its spikes.

    Returns:
        What Lava's run configuration takes as ``exception_proc_model_map``.

    Raises:
        Unsupported: a process without a faster model.
    """
    for process in ProcessServer().processes:
        if process.__module__.startswith("lava.lib.dl.netx"):
            continue  # blocks, which hold the processes
        check(process)
        process.proc_params[_INTERVAL] = interval
    for population, arguments in records:
        population.proc_params[_RECORD] = arguments
    return dict(_MODELS)


def check(process: Any) -> None:
    """Refuse a process whose faster model could differ from Lava's.

    Raises:
        Unsupported: names it.
    """
    name = type(process).__name__
    if type(process) not in _MODELS:
        raise Unsupported(f"there is no faster {name}")
    if isinstance(process, LIF):
        return
    largest = LARGEST_INPUT if np.any(process.num_message_bits.init) else 1
    weight = np.asarray(process.weight.init if isinstance(process, Conv) else process.weights.init)
    reason = arithmetic.sums_too_large(weight, largest)
    if reason is None and isinstance(process, Conv):
        geometry = [process.groups, process.stride, process.padding, process.dilation, process.kernel_size]
        values = np.concatenate([np.atleast_1d(number.init) for number in geometry])
        if values.max() > np.iinfo(np.int8).max:
            reason = f"{values.max()} as groups, stride, padding, dilation or kernel size leaves 8 bits"
    if reason is None and isinstance(process, DelayDense):
        delays, slots = np.asarray(process.delays.init), process.a_buff.shape[1]
        if delays.min() < 0 or delays.max() >= slots:
            reason = f"delays {delays.min()}..{delays.max()} exceed {slots - 1}"
    if reason is not None:
        raise Unsupported(f"{name} {tuple(weight.shape)}: {reason}")


_MODELS: dict[type[Any], type[Any]] = {}

if importlib.util.find_spec("lava") is not None:
    from lava.magma.core.process.process import ProcessServer
    from lava.proc.conv.models import PyConvModelFixed
    from lava.proc.conv.process import Conv
    from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.lif.models import PyLifModelBitAcc
    from lava.proc.lif.process import LIF
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    class _Model:
        """What the models share."""

        proc_params: Any
        time_step: int
        num_message_bits: Any
        s_in: Any
        a_buf: Any
        a_buff: Any

        @property
        def image_starts(self) -> bool:
            """Whether this step is the first of an image; Lava counts them from 1."""
            return (self.time_step - 1) % int(self.proc_params[_INTERVAL]) == 0

        @property
        def largest(self) -> int:
            """Largest input value."""
            return LARGEST_INPUT if self.num_message_bits.item() > 0 else 1

        def received(self) -> Any:
            """This step's input: booleans, or for graded input integers."""
            values = self.s_in.recv()
            if self.num_message_bits.item() == 0:
                return values != 0
            if values.min() < 0 or values.max() > LARGEST_INPUT:
                raise OverflowError(f"graded input {values.min()}..{values.max()} leaves 0..{LARGEST_INPUT}")
            return values

    class FastConv(_Model, PyConvModelFixed):
        """Lava's Conv as a matrix product."""

        def run_spk(self) -> None:
            """One time step."""
            if self.image_starts:
                if self.time_step == 1:
                    stride, padding, dilation = (
                        (int(first), int(second)) for first, second in (self.stride, self.padding, self.dilation)
                    )
                    self.sum = arithmetic.ConvSum(
                        *(self.weight, self.s_in.shape, stride, padding, dilation),
                        groups=int(self.groups[0]),
                        largest=self.largest,
                    )
                self.a_buf = np.zeros(self.sum.shape, dtype=np.int32)
            self.a_out.send(self.a_buf)
            self.a_buf = self.sum(self.received())

    class _DenseModel(_Model):
        """What the two dense models share."""

        weights: Any

        @property
        def exponent(self) -> int:
            """Of the weights."""
            return int(self.proc_params.get("weight_exp", 0))

        def encoded(self) -> Any:
            """The weights as Lava's own model uses them."""
            mode = self.proc_params.get("sign_mode") or determine_sign_mode(self.weights)
            clipped = clip_weights(self.weights, mode, num_bits=8)
            return truncate_weights(clipped, mode, self.proc_params.get("num_weight_bits", 8))

    class FastDense(_DenseModel, PyDenseModelBitAcc):
        """Lava's Dense as a matrix product."""

        def run_spk(self) -> None:
            """One time step."""
            if self.image_starts:
                if self.time_step == 1:
                    self.sum = arithmetic.DenseSum(self.encoded(), self.exponent, self.largest)
                self.a_buff = np.zeros(len(self.weights), dtype=np.int32)
            self.a_out.send(self.a_buff)
            self.a_buff = self.sum(self.received())

    class FastDelayDense(_DenseModel, PyDelayDenseModelBitAcc):
        """Lava's DelayDense, adding up only what spikes."""

        def run_spk(self) -> None:
            """One time step."""
            if self.image_starts:
                if self.time_step == 1:
                    slots = self.a_buff.shape[1]
                    self.sum = arithmetic.DelayedSum(self.encoded(), self.delays, self.exponent, slots)
                self.a_buff[...] = 0
            self.a_out.send(self.a_buff[:, 0])
            self.a_buff = arithmetic.one_slot_on(self.a_buff)
            self.a_buff += self.sum(self.received())

    class FastLIF(_Model, PyLifModelBitAcc):
        """Lava's LIF in place, which writes its spikes to a file."""

        def run_spk(self) -> None:
            """One time step."""
            if self.time_step == 1:
                self._start()
            activation = self.a_in.recv()
            if self.image_starts:
                self.population.rest()
            fired = self.population.step(activation)
            self.s_out.send(fired)
            if self.file is not None:
                self.file.step(self.time_step - 1, fired)

        def _start(self) -> None:
            self.scale_bias()
            self.population = arithmetic.Population(
                *(self.u, self.v, self.du + self.ds_offset, self.dv + self.dm_offset),
                *(self.effective_bias, self.vth),
            )
            record = self.proc_params.get(_RECORD)
            self.file = None if record is None else OutputFile(**record)

    _MODELS.update({Conv: FastConv, Dense: FastDense, DelayDense: FastDelayDense, LIF: FastLIF})
