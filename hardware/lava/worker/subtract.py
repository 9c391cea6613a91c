"""Networks with reset by subtraction: Lava's Conv, Dense and LIF, each neuron inhibiting itself one step after a spike.

Built as NetX builds its blocks, but without importing it: it brings PyTorch along, and each of the many processes of
a graph, made anew for every image, is a fork of this one.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import numpy.typing as npt

from gascnn.hardware.lava.worker.graph import Graph, Port, Process

if importlib.util.find_spec("lava") is not None:
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.lif.process import LIF

Integers = npt.NDArray[np.int64]

_GROUPS_MAX = 127
"""Lava's Conv stores ``groups`` as int8."""

_WEIGHT_BITS = 8
_STATE_SHIFT = 6
_DELAY_MAX = 62


def subtract_graph(path: Path, input_shape: tuple[int, ...], input_bits: int) -> Graph:
    """Build the network of a file.

    Args:
        path: a file with a group ``gascnn/layer``, as this package writes it.
        input_shape: in Lava's order.
        input_bits: 0 for spikes.
    """
    builder = _Builder(input_shape, input_bits)
    with h5py.File(path, "r") as file:
        layers = file["gascnn/layer"]
        for index in range(len(layers)):
            builder.add(layers[str(index)])
    return Graph(builder.entry, builder.neurons, builder)


class _Builder:
    """Adds layer to layer.

    Args:
        input_shape: in Lava's order.
        input_bits: 0 for spikes.
    """

    def __init__(self, input_shape: tuple[int, ...], input_bits: int) -> None:
        self.entry: Port = None
        self.neurons: list[Process] = []
        self._shape, self._bits = input_shape, input_bits
        self._source: Port = None
        self._flatten = False

    def add(self, fields: h5py.Group) -> None:
        """Add what one group of the file describes."""
        kind = np.asarray(fields["type"][()]).ravel()[0].decode()
        if kind == "input":
            if "neuron" in fields:
                population = _population(fields, self._shape)
                self.entry, self._source = population.a_in, population.s_out
        elif kind == "flatten":
            self._flatten = True
        elif kind == "conv":
            self._add_conv(fields)
        else:
            self._add_dense(fields)

    def _add_conv(self, fields: h5py.Group) -> None:
        synapse = Conv(
            # Lava convolves where PyTorch correlates: the kernel is flipped, and its axes are W before H.
            weight=_whole(fields, "weight")[:, :, ::-1, ::-1].transpose(0, 3, 2, 1),
            input_shape=self._shape,
            groups=int(fields["groups"][()]),
            num_message_bits=self._bits,
            **{name: fields[name][()][::-1] for name in ("stride", "padding", "dilation")},
        )
        neuron = _population(fields, tuple(int(n) for n in fields["shape"][()][::-1]))
        self._connect(synapse, neuron)
        weight = _whole(fields, "self_weight")
        if np.any(weight):
            kernel, groups = conv_inhibition(weight)
            _close_loop(neuron, Conv(weight=kernel, input_shape=neuron.s_out.shape, groups=groups))

    def _add_dense(self, fields: h5py.Group) -> None:
        forward = _whole(fields, "weight")
        parts = [forward, _whole(fields, "weight_rec")] if "weight_rec" in fields else [forward]
        # NetX's own encoding, and for a recurrent layer of both matrices together.
        encoded, bits, exponent, _ = _netx_utilities().optimize_weight_bits(np.hstack(parts))
        encoded = np.hsplit(encoded, [forward.shape[1]])
        common = {"weight_exp": exponent, "num_weight_bits": bits, "num_message_bits": self._bits}
        if "delay" in fields:
            synapse = DelayDense(
                weights=encoded[0], delays=_whole(fields, "delay").astype(int), max_delay=_DELAY_MAX, **common
            )
        else:
            synapse = Dense(weights=encoded[0], **common)
        neuron = _population(fields, (len(forward),))
        self._connect(synapse, neuron)
        if len(parts) > 1:
            _close_loop(neuron, Dense(weights=encoded[1], **common))
        for mantissas, power in dense_inhibition(_whole(fields, "self_weight")):
            inhibition = -np.diag(mantissas)
            _close_loop(neuron, Dense(weights=inhibition, weight_exp=power, num_weight_bits=_WEIGHT_BITS))

    def _connect(self, synapse: Process, neuron: Process) -> None:
        """Connect a layer's synapse and population to what was there before."""
        if self._source is None:
            self.entry = synapse.s_in
        else:
            # Columns of a dense matrix are in C, H, W order, as in PyTorch.
            source = self._source.transpose([2, 1, 0]).flatten() if self._flatten else self._source
            source.connect(synapse.s_in)
        synapse.a_out.connect(neuron.a_in)
        self.neurons.append(neuron)
        self._source, self._shape = neuron.s_out, tuple(neuron.s_out.shape)
        self._bits, self._flatten = 0, False


def _population(fields: h5py.Group, shape: tuple[int, ...]) -> Process:
    neuron = fields["neuron"]
    # In an input layer, slayer's bias belongs to a transform of the input that nothing applies.
    bias = _whole(fields, "bias") if "bias" in fields and "self_weight" in fields else np.zeros(1, dtype=np.int64)
    return LIF(
        shape=shape,
        vth=_whole(neuron, "vThMant"),
        du=_whole(neuron, "iDecay") - 1,
        dv=_whole(neuron, "vDecay"),
        bias_mant=np.broadcast_to(bias, shape).astype(np.int32),
        bias_exp=_STATE_SHIFT,
    )


def _whole(fields: h5py.Group, name: str) -> Integers:
    return np.asarray(fields[name][()], dtype=np.int64)


def _close_loop(neuron: Process, synapse: Process) -> None:
    """Connect a population to itself."""
    neuron.s_out.connect(synapse.s_in)
    synapse.a_out.connect(neuron.a_in)


def _netx_utilities() -> ModuleType:
    """``lava.lib.dl.netx.utils``, without the package around it."""
    package = importlib.util.find_spec("lava.lib.dl.netx")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("no NetX in this Lava; lava-dl is missing")
    spec = importlib.util.spec_from_file_location("netx_utils", Path(package.origin).with_name("utils.py"))
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("NetX has no module utils")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def conv_inhibition(weight: Integers) -> tuple[Integers, int]:
    """A 1x1 kernel of -weight on the diagonal, in as many groups as Lava can count.

    Args:
        weight: (C,), not negative.

    Returns:
        The kernel in Lava's order (C, 1, 1, C / groups) and the number of groups.
    """
    channels = len(weight)
    groups = max(g for g in range(1, min(channels, _GROUPS_MAX) + 1) if channels % g == 0)
    in_group = channels // groups
    kernel = np.zeros((channels, 1, 1, in_group), dtype=np.int64)
    channel = np.arange(channels)
    kernel[channel, 0, 0, channel % in_group] = -weight
    return kernel, groups


def dense_inhibition(weight: Integers) -> list[tuple[Integers, int]]:
    """Split weights into 8-bit mantissas with an exponent each: one pair where they share an exponent.

    Args:
        weight: (N,), not negative.

    Returns:
        (mantissas, exponent) pairs with ``weight = sum(mantissas << exponent)``.
    """
    nonzero = weight[weight > 0]
    if nonzero.size == 0:
        return []
    shared = int((nonzero & -nonzero).min()).bit_length() - 1
    parts = []
    left = weight >> shared
    exponent = shared
    while np.any(left):
        parts.append((left & ((1 << _WEIGHT_BITS) - 1), exponent))
        left = left >> _WEIGHT_BITS
        exponent += _WEIGHT_BITS
    return parts
