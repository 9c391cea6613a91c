"""Random layers over what the format allows, with thresholds at which most of them fire."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from fidelity.reference import Unloadable, encode_dense, run_layer

from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer
from gascnn.toolkit.lowering.shapes import conv_output_shape

WIDTHS = (1, 2, 3, 4, 8, 15, 16, 17, 32, 33, 64, 65)
"""Channels around the widths of vector registers."""

NEVER = 131_071
ACCUMULATOR = CubaNeuron(np.array(NEVER + 1), np.array(0), np.array(4096))
"""What NetX makes of a dense layer without neurons."""

INT32 = 2**31


def conv_layer(choices, before, reset, source, largest, foreign, pairs):
    """A convolution on ``source`` (image, step, C, H, W) of at most ``pairs`` pairs of channels."""
    kernel, stride, padding, dilation = _geometry(choices, before)
    groups = _groups(choices, before[0])
    most = max(1, pairs // (before[0] // groups))
    channels = choices.pick(*[w for w in WIDTHS if w <= most])
    if groups > 1:
        channels = groups * choices.integer(1, 2) if channels > 1 else groups
    size = (channels, before[0] // groups, *kernel)
    weight = _conv_weights(choices, size, largest)
    shape = conv_output_shape(before, size, stride, padding, dilation)
    layer = ConvLayer(shape, weight, stride, padding, dilation, groups, CubaNeuron(np.array(0)))
    return _populated(choices, layer, reset, source, largest, foreign)


def dense_layer(choices, before, reset, source, largest, foreign, behind_neurons):
    """A dense layer, possibly with delays or recurrent synapses."""
    inputs = math.prod(before)
    neurons = choices.pick(*[w for w in WIDTHS if w * inputs <= 70_000])
    weight = _dense_weights(choices, (neurons, inputs), foreign)
    recurrent = delay = None
    if choices.chance(20):
        recurrent = _dense_weights(choices, (neurons, neurons), foreign)
    elif choices.chance(30):
        delay = _delays(choices, weight.shape)
    if not loadable(weight, recurrent, foreign):
        weight = 2 * (weight // 3)
        recurrent = None if recurrent is None else 2 * (recurrent // 3)
        weight[0, 0] = 2 * choices.integer(1, 100)
    flatten = len(before) == 3 and (behind_neurons or choices.chance(50))
    layer = DenseLayer((neurons,), weight, CubaNeuron(np.array(0)), flatten=flatten, delay=delay, weight_rec=recurrent)
    if foreign and choices.chance(10):
        return replace(layer, neuron=ACCUMULATOR)
    return _populated(choices, layer, reset, source, largest, foreign)


def loadable(weight, recurrent, foreign):
    """Whether NetX loads the matrix, and for a file of ours leaves it alone."""
    try:
        effective, shift = encode_dense(weight, recurrent)
    except Unloadable:
        return False
    stored = [weight] if recurrent is None else [weight, recurrent]
    return foreign or all(np.array_equal(s, e >> shift) for s, e in zip(stored, effective, strict=True))


def input_neurons(choices, shape):
    """A population that receives integers 0..255 at its current."""
    decays = _decays(choices, shape[0])
    return CubaNeuron(_one_or_each(choices, np.array(choices.pick(30, 100, 300, 2000)), shape[0]), *decays)


def _geometry(choices, before):
    """Kernel, stride, padding, dilation an axis, such that an output is left."""
    square = choices.chance(50)
    axes = []
    for axis in (0, 1):
        if axis and square:
            kernel, stride, padding, dilation = axes[0]
        else:
            kernel = choices.pick(3, 1, 2, 4, 5, 7)
            stride = choices.pick(1, 1, 2, 3)
            padding = choices.pick(0, 1, 2, 3)
            dilation = choices.pick(1, 1, 2, 3)
        room = before[1 + axis] + 2 * padding
        if dilation * (kernel - 1) + 1 > room:
            dilation = 1
        axes.append((min(kernel, room), stride, padding, dilation))
    return tuple(zip(*axes, strict=True))


def _groups(choices, channels):
    divisors = [n for n in range(1, min(channels, 127) + 1) if channels % n == 0]
    kind = choices.pick("one", "one", "each", "some")
    return {"one": 1, "each": divisors[-1], "some": divisors[len(divisors) // 2]}[kind]


def _conv_weights(choices, size, largest):
    fan_in = math.prod(size[1:]) * largest
    kind = choices.pick(
        *("even", "odd", "small", "sparse", "large", "beyond 24 bits", "positive"),
        *("even", "odd", "positive", "even", "odd", "positive", "negative", "zero"),
    )
    top = min(
        {"small": 8, "large": 60_000, "beyond 24 bits": max(2**23, 4 * 2**23 // fan_in)}.get(kind, 254),
        (INT32 - 1) // fan_in,
    )
    weight = choices.bulk.randint(-top, top + 1, size)
    if kind == "even":
        return 2 * (weight // 2)
    if kind == "sparse":
        return np.where(choices.bulk.random_sample(size) < 0.8, 0, weight)
    return {"positive": np.abs(weight), "negative": -np.abs(weight), "zero": 0 * weight}.get(kind, weight)


def _dense_weights(choices, size, foreign):
    kinds = ["even", "odd", "sparse", "small", "positive", "even", "odd", "positive", "negative", "one column"]
    kind = choices.pick(*kinds, *(("beyond 8 bits", "power of two") if foreign else ()))
    top = {"small": 5, "beyond 8 bits": 400}.get(kind, 254)
    weight = choices.bulk.randint(-top, top + 1, size)
    if kind == "even":
        return 2 * (weight // 2)
    if kind == "sparse":
        return np.where(choices.bulk.random_sample(size) < 0.8, 0, weight)
    if kind == "power of two":
        return -np.minimum(np.abs(weight), choices.pick(8, 64, 128, 256))
    if kind == "one column":
        return np.where(np.arange(size[1]) == choices.integer(0, size[1] - 1), weight, 0)
    return {"positive": 2 * np.abs(weight // 2), "negative": -2 * np.abs(weight // 2)}.get(kind, weight)


def _delays(choices, size):
    """A delay a synapse, or a neuron, an input, or the same for all."""
    neurons, inputs = size
    shape = choices.pick(size, (neurons, 1), (1, inputs), (1, 1))
    return np.broadcast_to(choices.bulk.randint(0, choices.pick(2, 7, 63), shape), size).copy()


def _one_or_each(choices, value, channels, low=0, high=None):
    """One value for all channels or, sometimes, one a channel around it."""
    if choices.chance(65):
        return value
    spread = (value * choices.bulk.uniform(0.3, 1.7, channels)).astype(np.int64)
    return np.clip(spread, low, high)


def _decays(choices, channels):
    """Of current and voltage: all, nothing, or something in between."""
    decays = []
    for usual, other in ((4096, 0), (0, 4096)):
        value = choices.pick(usual, usual, other, choices.integer(1, 4095), choices.pick(1, 100, 900, 4095))
        decays.append(_one_or_each(choices, np.array(value), channels, 0, 4096))
    return decays


def _populated(choices, layer, reset, source, largest, foreign):
    """The layer with neurons, bias and self-weights; the threshold follows from how it answers to ``source``."""
    channels = layer.shape[0]
    per_neuron = np.abs(layer.weight).reshape(channels, -1).sum(axis=1)
    drive = int(min(max(2, per_neuron.mean() * largest * choices.pick(20, 5, 50, 100) / 100), NEVER))
    decays = _decays(choices, channels)
    if reset == "subtract":
        if choices.chance(80):
            leak = choices.pick(0, 0, choices.integer(1, 300))
            decays = [np.array(leak), np.array(4096)]
        theta = np.where(
            choices.bulk.random_sample(channels) < 0.7, drive, choices.bulk.randint(0, drive + 1, channels)
        )
        layer = replace(layer, self_weight=theta)
    if choices.chance(40):
        layer = replace(layer, bias=_bias(choices, layer, drive, foreign))
    wanted = choices.pick("any", "any", "any", "any", "any", "any", "silent", "lowest", "each", "negative", "beyond")
    threshold = np.array({"silent": NEVER, "lowest": 0}.get(wanted, max(drive // 2, 1)))
    if foreign and wanted in ("negative", "beyond"):
        threshold = np.array(-drive if wanted == "negative" else NEVER + 1)
    elif wanted == "each":
        threshold = np.clip(threshold * choices.bulk.uniform(0.1, 2, channels), 0, NEVER).astype(np.int64)
    else:
        threshold = _one_or_each(choices, threshold, channels, 0, NEVER)
    layer = replace(layer, neuron=CubaNeuron(threshold, *decays))
    if wanted in ("silent", "beyond", "negative"):
        return layer
    return _woken(choices, layer, source, drive)


def _woken(choices, layer, source, drive):
    """The layer with a threshold lowered until something fires; where none brings that about, often with a bias."""
    for _ in range(5):
        if run_layer(layer, source).spikes.mean() > 0.01:
            return layer
        layer = replace(layer, neuron=replace(layer.neuron, threshold=np.asarray(layer.neuron.threshold) // 5))
    if not choices.chance(75):
        return layer
    bias = choices.bulk.randint(1, min(drive, 32_000) + 1, layer.shape[0])
    return replace(layer, bias=bias)


def _bias(choices, layer, drive, foreign):
    """One a channel or one a neuron; for dense layers also one for all."""
    shapes = [layer.shape[:1], layer.shape if len(layer.shape) == 3 else (1,)]
    top = choices.pick(drive // 4 + 1, drive + 1, 32_767)
    if foreign and choices.chance(30):
        top = 200_000
    top = top if foreign else min(top, 32_767)
    return choices.bulk.randint(-top, top + 1, choices.pick(*shapes))
