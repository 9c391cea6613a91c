"""Write a :class:`NetxNetwork` as a NetX file."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict

import h5py
import numpy as np

from gascnn.toolkit.files import atomic_path
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    Neuron,
    SigmaDeltaNeuron,
)
from gascnn.toolkit.lowering.rules import check_network

FORMAT = "gascnn-netx-1"
_COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


def write_netx(network: NetxNetwork, path: str | os.PathLike[str]) -> None:
    """Write ``network`` to ``path``, atomically, after checking every limit.

    Args:
        network: integers in range; a ``subtract`` network is stored where stock NetX does not find it.
        path: the file to write, by custom ending in ``.net``.

    Raises:
        LimitError: a value the target cannot hold, with layer, value, limit and remedy.
        DataError: the disk is full or the place cannot be written; no file is left behind.
    """
    check_network(network)
    # HDF5 reports a full disk in many ways, some of them at exit: build the file in memory, write plain bytes.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        root = file.create_group("layer" if network.reset == "zero" else "gascnn/layer")
        _write_layers(root, network)
        _write_record(file.require_group("gascnn"), network)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _write_layers(root: h5py.Group, network: NetxNetwork) -> None:
    groups = (root.create_group(str(index)) for index in range(2 * network.depth + 1))
    _write_input(next(groups), network.input)
    for layer in network.layers:
        if isinstance(layer, ConvLayer):
            _write_conv(next(groups), layer)
        else:
            if layer.flatten:
                _write_type(next(groups), "flatten")
            _write_dense(next(groups), layer)
    for unused in groups:
        del root[unused.name]


def _write_record(group: h5py.Group, network: NetxNetwork) -> None:
    group["format"] = FORMAT
    group["input_bits"] = network.input_bits
    group["constant_channels"] = network.constant_channels
    group["digest"] = network.digest()
    group["segments"] = json.dumps([[asdict(s) for s in layer.segments] for layer in network.layers])
    if network.deployment is not None:
        group["deployment"] = network.deployment.to_json()


def _write_type(group: h5py.Group, name: str) -> None:
    group["type"] = np.array([name.encode("ascii")], dtype="S10")


def _write_input(group: h5py.Group, layer: InputLayer) -> None:
    _write_type(group, "input")
    group["shape"] = np.array(layer.shape, dtype=np.int64)
    if layer.neuron is not None:
        _write_neuron(group, layer.neuron)
    for name in ("weight", "bias"):
        value = getattr(layer, name)
        if value is not None:
            group[name] = np.array([value], dtype=np.int32)


def _write_conv(group: h5py.Group, layer: ConvLayer) -> None:
    _write_type(group, "conv")
    group["shape"] = np.array(layer.shape, dtype=np.int64)
    group["inChannels"] = layer.weight.shape[1] * layer.groups
    group["outChannels"] = layer.shape[0]
    group["kernelSize"] = np.array(layer.weight.shape[2:], dtype=np.int64)
    for name in ("stride", "padding", "dilation"):
        group[name] = np.array(getattr(layer, name), dtype=np.int64)
    group["groups"] = layer.groups
    _write_numbers(group, layer)
    if layer.bias is not None:
        # NetX takes a bias a neuron in Lava's own axis order (W, H, C).
        group["bias"] = _narrow(layer.bias if layer.bias.ndim == 1 else layer.bias.transpose(2, 1, 0))


def _write_dense(group: h5py.Group, layer: DenseLayer) -> None:
    _write_type(group, "dense" if layer.weight_rec is None else "dense_rec")
    group["shape"] = np.array(layer.shape, dtype=np.int64)
    group["inFeatures"] = layer.weight.shape[1]
    group["outFeatures"] = layer.weight.shape[0]
    _write_numbers(group, layer)
    if layer.bias is not None:
        group["bias"] = _narrow(layer.bias)
    if layer.delay is not None:
        group["delay"] = _narrow(layer.delay)
    if layer.weight_rec is not None:
        group.create_dataset("weight_rec", data=_narrow(layer.weight_rec), **_COMPRESSION)


def _write_numbers(group: h5py.Group, layer: ConvLayer | DenseLayer) -> None:
    group.create_dataset("weight", data=_narrow(layer.weight), **_COMPRESSION)
    if layer.self_weight is not None:
        group["self_weight"] = _narrow(layer.self_weight)
    _write_neuron(group, layer.neuron)


def _write_neuron(group: h5py.Group, neuron: Neuron) -> None:
    child = group.create_group("neuron")
    _write_type(child, "SDNN" if isinstance(neuron, SigmaDeltaNeuron) else "CUBA")
    child["vThMant"] = np.asarray(neuron.threshold, dtype=np.int64)
    if isinstance(neuron, SigmaDeltaNeuron):
        child["activation"] = "relu"  # as slayer writes it; NetX takes no other
        if neuron.read_out:
            child["sigma_output"] = True
        return
    child["iDecay"] = np.asarray(neuron.current_decay, dtype=np.int64)
    child["vDecay"] = np.asarray(neuron.voltage_decay, dtype=np.int64)
    child["refDelay"] = 1
    child["gradedSpike"] = False


def _narrow(values: np.ndarray) -> np.ndarray:
    """The narrowest of int16, int32, int64 that holds the values: smaller files, equal numbers."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.int64)
