"""Write a network as another program might: every spelling of the same numbers that NetX reads, checked by nothing.

Fractions that NetX cuts off, scalars and arrays of one, kernels with a time axis, flat matrices, delays beyond the
clipped range or one a neuron, strings of either kind, datasets that nobody reads, and numbers our exporter refuses:
biases that wrap as int16, thresholds below 0 or far beyond 17 bits, dense weights that NetX clips or weakens.
"""

from __future__ import annotations

import h5py
import numpy as np
from fidelity.layers import ACCUMULATOR, NEVER

_EXACT_IN_FLOAT32 = 2**20


def write_foreign(network, path, spelling):
    """Write ``network`` (reset to zero, no always-on planes) to ``path``.

    Returns:
        Arguments for reading it: the input's shape where the file does not say it, and the message bits, which no file
        of another program does.
    """
    rng = np.random.RandomState(spelling)
    declares = network.input.neuron is not None or rng.random_sample() < 0.5
    with h5py.File(path, "w") as file:
        number = 0
        if declares:
            _input(file.create_group("layer/0"), network.input, rng)
            number = 1
        for layer in network.layers:
            if layer.kind == "dense" and layer.flatten:
                _text(file.create_group(f"layer/{number}"), "type", "flatten", rng)
                number += 1
            group = file.create_group(f"layer/{number}")
            (_conv if layer.kind == "conv" else _dense)(group, layer, rng)
            number += 1
        file["simulation/Ts"] = 1
        file["simulation/tSample"] = 20
    return {"input_shape": None if declares else network.input.shape, "input_bits": network.input_bits}


def _input(group, layer, rng):
    _text(group, "type", "input", rng)
    group["shape"] = np.array(layer.shape)
    if layer.neuron is not None:
        _neuron(group, layer.neuron, rng)
    for name in ("weight", "bias"):
        if getattr(layer, name) is not None:
            group[name] = np.array([getattr(layer, name)], dtype=np.float32)


def _conv(group, layer, rng):
    _text(group, "type", "conv", rng)
    group["shape"] = np.array(layer.shape)
    weight = layer.weight[..., None] if _often(rng) else layer.weight
    group["weight"] = _numbers(weight, rng)
    for name in ("stride", "padding", "dilation"):
        vertical, horizontal = getattr(layer, name)
        group[name] = vertical if vertical == horizontal and _often(rng) else np.array([vertical, horizontal])
    group["groups"] = layer.groups
    if layer.bias is not None:
        group["bias"] = _numbers(layer.bias.transpose() if layer.bias.ndim == 3 else layer.bias, rng)
    if _often(rng):
        group["delay"] = rng.randint(0, 3, layer.shape[0]).astype(np.float32)  # nobody reads a convolution's
    group["kernelSize"] = np.array(layer.weight.shape[2:])
    _neuron(group, layer.neuron, rng)


def _dense(group, layer, rng):
    _text(group, "type", "dense" if layer.weight_rec is None else "dense_rec", rng)
    group["shape"] = np.array([*layer.shape, 1, 1] if _often(rng) else layer.shape)
    flat = _often(rng)
    for name in ("weight", "weight_rec"):
        matrix = getattr(layer, name)
        if matrix is not None:
            numbers = _numbers(matrix.ravel() if flat else matrix, rng)
            group.create_dataset(name, data=numbers, compression="gzip" if _often(rng) else None)
    if layer.bias is not None:
        group["bias"] = _numbers(layer.bias, rng)
    if layer.delay is not None:
        group["delay"] = _delay(layer.delay, rng)
    if layer.neuron is not ACCUMULATOR:
        _neuron(group, layer.neuron, rng)


def _delay(delay, rng):
    """The shortest spelling; 62 also as anything beyond."""
    neurons, inputs = delay.shape
    values = delay + np.where(delay == 62, rng.randint(0, 9, delay.shape), 0) if _often(rng) else delay
    if (delay == delay[0, 0]).all():
        values = values[0, 0]
    elif (delay == delay[:, :1]).all():
        values = values[:, 0]
    elif (delay == delay[:1]).all() and inputs != neurons:
        values = values[0]
    return _numbers(np.asarray(values), rng)


def _neuron(group, neuron, rng):
    child = group.create_group("neuron")
    _text(child, "type", "CUBA" if _often(rng) else "LOIHI", rng)
    for name, value in (
        ("vThMant", neuron.threshold),
        ("iDecay", neuron.current_decay),
        ("vDecay", neuron.voltage_decay),
    ):
        array = np.asarray(value, dtype=np.int64)
        if name == "vThMant":
            array = np.where(array > NEVER, rng.choice([NEVER + 1, 2**25 + 3, 2**31 - 1, 2**40]), array)
        if array.ndim == 0 and _often(rng):
            array = array.reshape(1)
        # Lava computes with these as they are stored: the type must hold the threshold shifted by 6 bits.
        fits = np.abs(array).max() < 2**25
        child[name] = array.astype(np.int32) if fits and _often(rng) else array
    child["refDelay"], child["gradedSpike"] = 1, False


def _text(group, name, text, rng):
    text = text.encode() if _often(rng) else text
    if _often(rng):
        group[name] = text
    else:
        group[name] = np.array([text], dtype="S10" if isinstance(text, bytes) else h5py.string_dtype())


def _numbers(values, rng):
    """Integers, or floats with a fraction that NetX cuts off."""
    if _often(rng):
        return values.astype(np.int64 if _often(rng) else np.int32)
    away = np.where(values == 0, rng.choice([-1, 1], values.shape), np.sign(values))
    precise = np.abs(values).max(initial=0) >= _EXACT_IN_FLOAT32
    return (values + away * rng.choice([0, 0.25, 0.75], values.shape)).astype(np.float64 if precise else np.float32)


def _often(rng):
    return rng.random_sample() < 0.5
