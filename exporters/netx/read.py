"""Read NetX files: our own and those written by lava-dl's slayer, as Lava itself would read them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import h5py
import numpy as np

from gascnn.exporters.netx.fields import Fields
from gascnn.exporters.netx.neurons import read_neuron
from gascnn.exporters.netx.write import FORMAT
from gascnn.toolkit.errors import FormatError, UsageError, first_line
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.limits import DELAY_MAX, MESSAGE_BITS_MAX, STATE_LIMIT_WEIGHT_UNITS
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    Segment,
    SegmentKind,
    SynapticLayer,
)
from gascnn.toolkit.lowering.rules import check_structure
from gascnn.toolkit.lowering.shapes import Pair, conv_output_shape

_LFS_POINTER = b"version https://git-lfs"


def read_netx(
    path: str | os.PathLike[str], *, input_shape: tuple[int, ...] | None = None, input_bits: int | None = None
) -> NetxNetwork:
    """Read a NetX file into the integers Lava would run.

    Args:
        path: the ``.net`` file.
        input_shape: (C, H, W) or (N,), for files that do not say it (the argument of NetX's ``Network``).
        input_bits: message bits of the input, for files without our record (0: spikes).

    Returns:
        The network. Values NetX truncates (weights with a fraction) are truncated in the same way.

    Raises:
        FormatError: not there, not HDF5, truncated, a dataset missing, a layer or neuron type that Lava or this
            package does not run, layers in an order NetX cannot build.
    """
    source = Path(path)
    if not source.is_file():
        raise FormatError(f"{source}: no such file; give the path of a NetX file (.net)")
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        if _starts_with(source, _LFS_POINTER):
            raise FormatError(f"{source}: a Git LFS pointer, not the network; fetch it with git lfs pull") from error
        raise FormatError(f"{source}: not a whole HDF5 file ({first_line(error)}); export it again") from error
    try:
        with file:
            return _read_file(file, source, input_shape, input_bits)
    except (OSError, RuntimeError, KeyError) as error:
        raise FormatError(f"{source}: damaged ({first_line(error)}); export it again") from error


def recorded_digest(path: str | os.PathLike[str]) -> str | None:
    """The digest a file of ours was exported with; None for a foreign file.

    A file whose integers were changed since has another :meth:`NetxNetwork.digest`.
    """
    with h5py.File(path, "r") as file:
        if "gascnn/digest" not in file:
            return None
        return Fields(file, "gascnn", Path(path)).text("digest")


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _read_file(
    file: h5py.File, source: Path, input_shape: tuple[int, ...] | None, input_bits: int | None
) -> NetxNetwork:
    ours = "gascnn" in file
    record = Fields(file, "gascnn", source) if ours else None
    if record is not None and record.text("format") != FORMAT:
        raise FormatError(f"{source}: written in format {record.text('format')}; this version reads {FORMAT}")
    if input_bits is not None and not 0 <= input_bits <= MESSAGE_BITS_MAX:
        raise UsageError(f"input_bits is {input_bits}; it must be 0..{MESSAGE_BITS_MAX}")
    subtract = record is not None and record.has("layer")
    if not subtract and "layer" not in file:
        raise FormatError(f"{source}: no group 'layer' in it; this is not a NetX file")
    root = Fields(file, "gascnn/layer" if subtract else "layer", source)
    declared, layers = _read_layers(root, input_shape)
    if record is not None:
        layers = _with_segments(record, layers)
    network = NetxNetwork(
        input=declared,
        layers=tuple(layers),
        input_bits=_count(record, "input_bits", MESSAGE_BITS_MAX) if record is not None else (input_bits or 0),
        reset="subtract" if subtract else "zero",
        constant_channels=0 if record is None else _count(record, "constant_channels", declared.shape[0] - 1),
        deployment=_read_deployment(record, source),
    )
    check_structure(network)
    return network


def _read_deployment(record: Fields | None, source: Path) -> Deployment | None:
    if record is None or not record.has("deployment"):
        return None
    try:
        return Deployment.from_json(record.text("deployment"))
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from error


def _with_segments(record: Fields, layers: list[SynapticLayer]) -> list[SynapticLayer]:
    """The layers with what their channels are for; every range is checked against the layer."""
    described = record.json("segments")
    try:
        segments = [tuple(Segment(**values) for values in one) for one in described]
    except TypeError as error:
        raise record.error(f"segments are not what this version writes ({error})") from error
    if len(segments) != len(layers):
        raise record.error(f"segments describe {len(segments)} layers; the file has {len(layers)}")
    for index, (layer, ranges) in enumerate(zip(layers, segments, strict=True)):
        for segment in ranges:
            whole = isinstance(segment.start, int) and isinstance(segment.stop, int) and isinstance(segment.name, str)
            if not whole or segment.kind not in get_args(SegmentKind):
                raise record.error(f"segments of layer_{index:02d} are not what this version writes")
            if not 0 <= segment.start < segment.stop <= layer.shape[0]:
                raise record.error(
                    f"segments of layer_{index:02d} reach {segment.start}..{segment.stop}; it has {layer.shape[0]}"
                )
    return [replace(layer, segments=ranges) for layer, ranges in zip(layers, segments, strict=True)]


def _count(record: Fields, name: str, most: int) -> int:
    """A count in the record, refused where it cannot be meant."""
    value = record.integer(name)
    if not 0 <= value <= most:
        raise record.error(f"{name} is {value}; it must be 0..{most}")
    return value


def _read_layers(root: Fields, input_shape: tuple[int, ...] | None) -> tuple[InputLayer, list[SynapticLayer]]:
    names = root.names()
    if not names:
        raise root.error("no layers in it")
    if sorted(names, key=lambda n: (len(n), n)) != [str(i) for i in range(len(names))]:
        raise root.error(f"layers must be numbered 0..{len(names) - 1} without gaps; found {', '.join(names)}")
    declared = InputLayer(_input_shape(input_shape, root)) if input_shape else None
    layers: list[SynapticLayer] = []
    flatten = False
    for index in range(len(names)):
        fields = root.child(str(index))
        kind = fields.text("type")
        if kind == "input" and index > 0:
            raise fields.error("an input layer must come first")
        if kind == "input":
            declared = _read_input(fields)
        elif kind == "flatten":
            flatten = True
        else:
            layers.append(_read_synaptic(fields, kind, declared, layers, flatten))
            flatten = flatten and kind == "conv"
    if not layers:
        raise root.error("no synaptic layer in it")
    return declared or InputLayer(_inferred_input(layers[0], root)), layers


def _read_synaptic(
    fields: Fields, kind: str, declared: InputLayer | None, layers: list[SynapticLayer], flatten: bool
) -> SynapticLayer:
    """One conv or dense layer; a flatten in front counts where NetX has something to flatten."""
    if kind == "conv":
        return _read_conv(fields, layers[-1].shape if layers else (declared.shape if declared else None))
    if kind in ("dense", "dense_rec"):
        behind_neurons = bool(layers) or (declared is not None and declared.neuron is not None)
        return _read_dense(fields, flatten and behind_neurons, kind == "dense_rec")
    raise fields.error(f"layer type {kind!r} is not one NetX can load (input, conv, flatten, dense, dense_rec)")


def _inferred_input(first: SynapticLayer, root: Fields) -> tuple[int, ...]:
    if isinstance(first, DenseLayer):
        return (first.weight.shape[1],)
    raise root.error("the file does not say its input's shape; give it with --input-shape C,H,W")


def _input_shape(shape: Sequence[int] | np.ndarray, fields: Fields) -> tuple[int, ...]:
    """(N,) or (C, H, W), nothing else."""
    if np.ndim(shape) != 1 or len(shape) not in (1, 3) or min(shape) < 1:
        raise fields.error(f"the input's shape is {np.asarray(shape).tolist()}; expected [N] or [C, H, W], at least 1")
    return tuple(int(n) for n in shape)


def _read_input(fields: Fields) -> InputLayer:
    return InputLayer(
        shape=_input_shape(fields.array("shape"), fields),
        neuron=read_neuron(fields.child("neuron")) if fields.has("neuron") else None,
        weight=int(fields.array("weight").ravel()[0]) if fields.has("weight") else None,
        bias=int(fields.array("bias").ravel()[0]) if fields.has("bias") else None,
    )


def _read_conv(fields: Fields, input_shape: tuple[int, ...] | None) -> ConvLayer:
    if input_shape is None:
        raise fields.error("the file does not say its input's shape; give it with --input-shape C,H,W")
    if len(input_shape) != 3:
        raise fields.error(f"a convolution needs an input of (C, H, W); the layer before gives {input_shape}")
    weight = fields.truncated("weight")
    if weight.ndim == 5 and weight.shape[4] == 1:
        weight = weight[..., 0]  # files of slayer's early versions keep the time axis of their Conv3d kernel
    if weight.ndim != 4:
        raise fields.error(f"conv weight has shape {weight.shape}; expected (C_out, C_in/groups, kH, kW)")
    if fields.has("delay") and np.any(fields.array("delay")):
        warnings.warn(
            f"{fields.where}: Lava ignores the delay of a convolution, and so does this package", stacklevel=2
        )
    stride, padding, dilation, groups = _read_geometry(fields)
    shape = tuple(int(n) for n in fields.array("shape").ravel())
    expected = conv_output_shape(input_shape, weight.shape, stride, padding, dilation)
    if shape != expected:
        raise fields.error(f"shape {shape} does not follow from its input {input_shape}; expected {expected}")
    if weight.shape[1] * groups != input_shape[0] or weight.shape[0] % groups:
        raise fields.error(f"weight {weight.shape} with {groups} groups does not fit {input_shape[0]} input channels")
    bias = fields.truncated("bias") if fields.has("bias") else None
    if bias is not None and bias.shape == shape[::-1] and bias.ndim == 3:
        bias = bias.transpose(2, 1, 0)
    elif bias is not None and bias.shape != shape[:1]:
        raise fields.error(f"bias has shape {bias.shape}; expected ({shape[0]},) or (W, H, C) = {shape[::-1]}")
    return ConvLayer(
        shape=shape,
        weight=weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        neuron=read_neuron(fields.child("neuron")),
        bias=bias,
        self_weight=fields.truncated("self_weight") if fields.has("self_weight") else None,
    )


def _read_geometry(fields: Fields) -> tuple[Pair, Pair, Pair, int]:
    for name, sizes in {"stride": ((), (2,)), "padding": ((), (2,)), "dilation": ((), (2,)), "groups": ((),)}.items():
        if fields.array(name).shape not in sizes:
            raise fields.error(f"{name} has shape {fields.array(name).shape}, which NetX cannot load; store a scalar")
    stride = fields.pair("stride")
    if min(stride) < 1:
        raise fields.error(f"stride is {stride}; it must be at least 1")
    return stride, fields.pair("padding"), fields.pair("dilation"), fields.integer("groups")


def _read_dense(fields: Fields, flatten: bool, recurrent: bool) -> DenseLayer:
    if fields.has("weight/imag"):
        raise fields.error("complex weights (resonate-and-fire) are not supported")
    neurons = int(np.prod(fields.array("shape")))
    weight = _matrix(fields, "weight", neurons)
    bias = fields.truncated("bias") if fields.has("bias") else None
    if bias is not None and (bias.size not in (1, neurons) or bias.size != max(bias.shape[-1:], default=1)):
        raise fields.error(f"bias has shape {bias.shape} for {neurons} neurons; expected (1,) or ({neurons},)")
    return DenseLayer(
        shape=(neurons,),
        weight=weight,
        neuron=read_neuron(fields.child("neuron")) if fields.has("neuron") else _DEFAULT_NEURON,
        flatten=flatten,
        bias=None if bias is None else bias.ravel(),
        delay=_read_delay(fields, weight) if fields.has("delay") else None,
        weight_rec=_read_recurrent(fields, neurons) if recurrent else None,
        self_weight=fields.truncated("self_weight") if fields.has("self_weight") else None,
    )


_DEFAULT_NEURON = CubaNeuron(
    threshold=np.array(STATE_LIMIT_WEIGHT_UNITS + 1), current_decay=np.array(0), voltage_decay=np.array(4096)
)
"""What NetX takes for a dense layer without a neuron group: an accumulator that never spikes."""


def _matrix(fields: Fields, name: str, neurons: int) -> np.ndarray:
    weight = fields.truncated(name)
    if weight.ndim == 1 and weight.size % neurons == 0:
        weight = weight.reshape(neurons, -1)
    if weight.ndim != 2 or weight.shape[0] != neurons:
        raise fields.error(f"{name} has shape {weight.shape}; expected ({neurons}, inputs)")
    return weight


def _read_recurrent(fields: Fields, neurons: int) -> np.ndarray:
    weight = _matrix(fields, "weight_rec", neurons)
    if weight.shape[1] != neurons:
        raise fields.error(f"weight_rec has shape {weight.shape}; expected ({neurons}, {neurons})")
    if fields.array("weight_rec").ndim < fields.array("weight").ndim:
        raise fields.error("weight_rec is flat and weight is not, which NetX cannot load; store both as matrices")
    return weight


def _read_delay(fields: Fields, weight: np.ndarray) -> np.ndarray:
    """Delays a synapse (N, M), from a scalar, one a neuron, one an input (tested in this order), or one a synapse."""
    delay = np.clip(fields.array("delay"), None, DELAY_MAX)
    if delay.ndim == 1 and delay.shape[0] == weight.shape[0]:
        delay = np.broadcast_to(delay[:, None], weight.shape)
    elif delay.ndim == 1 and delay.shape[0] != weight.shape[1]:
        raise fields.error(f"delay has {delay.shape[0]} values for weights of shape {weight.shape}")
    elif delay.ndim > 1 and delay.shape != weight.shape:
        raise fields.error(f"delay has shape {delay.shape} for weights of shape {weight.shape}; store one a synapse")
    whole = np.broadcast_to(delay, weight.shape).astype(np.int64)
    if np.any(whole < 0):
        raise fields.error("delays must not be negative")
    return whole
