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

_INTERVAL, _RECORD, _RANGE = "gascnn_interval", "gascnn_record", "gascnn_range"


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
    blocks = "lava.lib.dl.netx"  # they hold the processes
    processes = [process for process in ProcessServer().processes if not process.__module__.startswith(blocks)]
    signed = any(isinstance(process, (SigmaDelta, Delta)) for process in processes)
    for process in processes:
        if type(process) not in _MODELS:
            raise Unsupported(f"there is no faster {type(process).__name__}")
        if not isinstance(process, _POPULATIONS):
            process.proc_params[_RANGE] = input_range(process, signed)
        process.proc_params[_INTERVAL] = interval
    for population, arguments in records:
        population.proc_params[_RECORD] = arguments
    return dict(_MODELS)


def input_range(synapse: Any, signed: bool) -> tuple[int, int]:
    """Least and largest input value with which the faster model of a synapse gives Lava's sums.

    Args:
        synapse: Conv, Dense or DelayDense.
        signed: whether it receives the messages of sigma-delta neurons, which nothing bounds: they may be as large as
            keeps Lava's own sums in 32 bits.

    Raises:
        Unsupported: names the synapse, whose faster model could differ from Lava's.
    """
    weight = np.asarray(synapse.weight.init if isinstance(synapse, Conv) else synapse.weights.init)
    graded = bool(np.any(synapse.num_message_bits.init))
    largest = LARGEST_INPUT if graded else 1
    if graded and signed:
        largest = max(largest, arithmetic.largest_input(weight))
    reason = arithmetic.sums_too_large(weight, largest) or _geometry(synapse)
    if reason is not None:
        raise Unsupported(f"{type(synapse).__name__} {tuple(weight.shape)}: {reason}")
    return (-largest if graded and signed else 0), largest


def _geometry(synapse: Any) -> str | None:
    """What of a synapse's geometry Lava would not hold, if anything."""
    if isinstance(synapse, Conv):
        geometry = [synapse.groups, synapse.stride, synapse.padding, synapse.dilation, synapse.kernel_size]
        values = np.concatenate([np.atleast_1d(number.init) for number in geometry])
        if values.max() > np.iinfo(np.int8).max:
            return f"{values.max()} as groups, stride, padding, dilation or kernel size leaves 8 bits"
    if isinstance(synapse, DelayDense):
        delays, slots = np.asarray(synapse.delays.init), synapse.a_buff.shape[1]
        if delays.min() < 0 or delays.max() >= slots:
            return f"delays {delays.min()}..{delays.max()} exceed {slots - 1}"
    return None


_MODELS: dict[type[Any], type[Any]] = {}
_POPULATIONS: tuple[type[Any], ...] = ()

if importlib.util.find_spec("lava") is not None:
    from lava.magma.core.process.process import ProcessServer
    from lava.proc.conv.models import PyConvModelFixed
    from lava.proc.conv.process import Conv
    from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.lif.models import PyLifModelBitAcc
    from lava.proc.lif.process import LIF
    from lava.proc.sdn.models import PyDeltaModelFixed, PySigmaDeltaModelFixed, PySigmaModelFixed
    from lava.proc.sdn.process import Delta, Sigma, SigmaDelta
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    class _Model:
        """What the models share."""

        proc_params: Any
        time_step: int

        @property
        def image_starts(self) -> bool:
            """Whether this step is the first of an image; Lava counts them from 1."""
            return (self.time_step - 1) % int(self.proc_params[_INTERVAL]) == 0

    class _Synapse(_Model):
        """What the synapses share."""

        num_message_bits: Any
        s_in: Any
        a_buf: Any
        a_buff: Any

        @property
        def largest(self) -> int:
            """Largest absolute input value."""
            return int(self.proc_params[_RANGE][1])

        def received(self) -> Any:
            """This step's input: booleans, or for graded input integers."""
            values = self.s_in.recv()
            if self.num_message_bits.item() == 0:
                return values != 0
            least, largest = self.proc_params[_RANGE]
            if values.min() < least or values.max() > largest:
                raise OverflowError(
                    f"messages of {values.min()}..{values.max()} leave {least}..{largest}; "
                    "only Lava's own models (--stock) can be tried"
                )
            return values

    class _Population(_Model):
        """What the populations share."""

        file: OutputFile | None

        def open_file(self) -> None:
            """Where what is sent is written to, if anywhere."""
            record = self.proc_params.get(_RECORD)
            self.file = None if record is None else OutputFile(**record)

        def write(self, sent: Any) -> None:
            """What was sent in this step."""
            if self.file is not None:
                self.file.step(self.time_step - 1, sent)

    class FastConv(_Synapse, PyConvModelFixed):
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

    class _DenseModel(_Synapse):
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

    class FastLIF(_Population, PyLifModelBitAcc):
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
            self.write(fired)

        def _start(self) -> None:
            self.scale_bias()
            self.population = arithmetic.Population(
                *(self.u, self.v, self.du + self.ds_offset, self.dv + self.dm_offset),
                *(self.effective_bias, self.vth),
            )
            self.open_file()

    class _Messages(_Population):
        """What sigma-delta populations share: Lava's own dynamics, from rest at every image."""

        s_out: Any

        def rest_at_start(self) -> None:
            """Back to rest, if an image starts."""
            if self.time_step == 1:
                self.open_file()
            if self.image_starts:
                for state in ("sigma", "act", "residue", "error"):
                    if hasattr(self, state):
                        setattr(self, state, np.zeros_like(getattr(self, state)))

        def send_messages(self, messages: Any) -> None:
            """This step's messages."""
            self.s_out.send(messages)
            self.write(messages)

    class FastSigmaDelta(_Messages, PySigmaDeltaModelFixed):
        """Lava's SigmaDelta, which writes its messages to a file."""

        def run_spk(self) -> None:
            """One time step."""
            self.rest_at_start()
            self.send_messages(np.right_shift(self.dynamics(self.a_in.recv()), self.state_exp))

    class FastDelta(_Messages, PyDeltaModelFixed):
        """Lava's Delta, which turns pixels into their changes."""

        def run_spk(self) -> None:
            """One time step."""
            self.rest_at_start()
            values = np.left_shift(self.a_in.recv(), self.spike_exp + self.state_exp)
            messages = np.right_shift(self.delta_dynamics(values), self.state_exp)
            self.act = values
            self.send_messages(messages)

    class FastSigma(_Messages, PySigmaModelFixed):
        """Lava's Sigma, the sum a read-out keeps."""

        def run_spk(self) -> None:
            """One time step."""
            self.rest_at_start()
            self.sigma = self.sigma_dynamics(self.a_in.recv())
            self.send_messages(self.sigma)

    _MODELS.update({Conv: FastConv, Dense: FastDense, DelayDense: FastDelayDense, LIF: FastLIF})
    _MODELS.update({SigmaDelta: FastSigmaDelta, Delta: FastDelta, Sigma: FastSigma})
    _POPULATIONS = (LIF, SigmaDelta, Delta, Sigma)
