"""Lava graphs of deployed networks, built from Lava's and NetX's own processes only."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

if importlib.util.find_spec("lava") is not None:
    from lava.lib.dl.netx.hdf5 import Network
    from lava.lib.dl.netx.utils import NetDict
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense

_GROUPS_MAX = 127
"""Lava's Conv stores ``groups`` as int8."""

_WEIGHT_BITS = 8
"""Bits of one inhibitory Dense weight."""

Block = Any
Port = Any


@dataclass(frozen=True)
class Graph:
    """A network, ready to be fed and tapped.

    Attributes:
        entry: the port that receives the input.
        neurons: the neuron process of each synaptic layer.
        owner: what must be kept alive while the graph runs.
    """

    entry: Port
    neurons: list[Any]
    owner: Any


def stock_graph(
    path: Path, input_shape: tuple[int, ...], input_bits: int, input_neurons: bool, reset_interval: int | None
) -> Graph:
    """The file as stock NetX loads it.

    Args:
        path: a file with a group ``layer``.
        input_shape: in Lava's order, for files that do not say it.
        input_bits: 0 for spikes.
        input_neurons: whether the file starts with a population that receives the input at its ``a_in``.
        reset_interval: steps after which all neurons start anew; None for a run of one image.
    """
    # With offset 1 every layer is cleared in the very step in which the next image's first input reaches it.
    network = Network(
        net_config=str(path),
        input_message_bits=input_bits,
        input_shape=input_shape,
        reset_interval=reset_interval,
        reset_offset=1,
    )
    network.net_config.f.close()
    neurons = [block.neuron for block in network.layers]
    if input_neurons:
        # NetX leaves the port `inp` of such a network unconnected.
        return Graph(neurons[0].a_in, neurons[1:], network)
    return Graph(network.inp, neurons, network)


def subtract_graph(path: Path, input_shape: tuple[int, ...], input_bits: int) -> Graph:
    """A file with reset by subtraction: NetX's blocks, each neuron inhibiting itself one step after a spike.

    Args:
        path: a file with a group ``gascnn/layer``.
        input_shape: in Lava's order.
        input_bits: 0 for spikes.
    """
    blocks: list[Block] = []
    entry: Port = None
    with h5py.File(path, "r") as file:
        layers = NetDict(f=file["gascnn/layer"])
        flatten, bits, shape = False, input_bits, input_shape
        for index in range(len(layers)):
            fields = layers[index]
            kind = fields["type"]
            if kind == "flatten":
                flatten = True
                continue
            if kind == "input":
                if "neuron" not in fields.keys():
                    continue
                block, _ = Network.create_input(fields)
                entry = block.neuron.a_in
            elif kind == "conv":
                block, _ = Network.create_conv(fields, input_shape=shape, input_message_bits=bits)
            else:
                block, _ = Network.create_dense(fields, input_message_bits=bits, rec=kind == "dense_rec")
            if blocks:
                source = blocks[-1].out
                (source.transpose([2, 1, 0]).flatten() if flatten else source).connect(block.inp)
            elif entry is None:
                entry = block.inp
            if kind != "input":
                _inhibit(block.neuron, fields.f["self_weight"][()].astype(np.int64))
            blocks.append(block)
            flatten, bits, shape = False, block.output_message_bits, block.shape
    neurons = [block.neuron for block in blocks]
    return Graph(entry, neurons if entry is blocks[0].inp else neurons[1:], blocks)


def _inhibit(neuron: Any, weight: npt.NDArray[np.int64]) -> None:
    shape = neuron.s_out.shape
    if len(shape) == 1:
        synapses = dense_inhibition(weight)
    else:
        kernel, groups = conv_inhibition(weight)
        synapses = [Conv(weight=kernel, input_shape=shape, groups=groups)]
    for synapse in synapses:
        neuron.s_out.connect(synapse.s_in)
        synapse.a_out.connect(neuron.a_in)


def conv_inhibition(weight: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
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


def dense_weights(weight: npt.NDArray[np.int64]) -> list[tuple[npt.NDArray[np.int64], int]]:
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


def dense_inhibition(weight: npt.NDArray[np.int64]) -> list[Any]:
    """Dense processes that together weigh each neuron's spike by -weight."""
    return [
        Dense(weights=-np.diag(mantissas), weight_exp=exponent, num_weight_bits=_WEIGHT_BITS)
        for mantissas, exponent in dense_weights(weight)
    ]
