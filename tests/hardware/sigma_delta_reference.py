"""Sigma-delta networks neuron by neuron in Python integers, written from Lava's sources alone.

Sources: ``proc/sdn/models.py``, ``proc/conv`` and ``proc/dense`` of lava-nc 0.10.0; ``netx/hdf5.py`` of lava-dl 0.6.0
(``spike_exp`` 6, ``state_exp`` 6). Also random networks, small enough for the real Lava.
"""

from __future__ import annotations

import numpy as np

from gascnn.toolkit.lowering.network import ConvLayer, DenseLayer, InputLayer, NetxNetwork, SigmaDeltaNeuron
from gascnn.toolkit.lowering.shapes import conv_output_shape


def int32(value):
    return (value + 2**31) % 2**32 - 2**31


def wrap24(value):
    return (value + 2**23) % 2**24 - 2**23


class Delta:
    """``delta_dynamics`` without a cumulative error, and the shift of the message."""

    def __init__(self, threshold):
        self.threshold, self.act, self.residue = threshold << 12, 0, 0

    def step(self, act):
        delta = int32(act - self.act + self.residue)
        sent = delta if abs(delta) >= self.threshold else 0
        self.act, self.residue = act, int32(delta - sent)
        return sent >> 6


class SigmaDelta(Delta):
    def __init__(self, threshold, bias):
        super().__init__(threshold)
        self.sigma, self.bias = 0, int32(bias << 12)

    def receive(self, a):
        self.sigma = int32(self.sigma + a)
        return self.step(max(int32(self.sigma + self.bias), 0))


class Sigma:
    def __init__(self):
        self.sigma = 0

    def receive(self, a):
        self.sigma = int32(self.sigma + a)
        return self.sigma


def taps(layer, index):
    """(weight, input index) of each synapse of a neuron."""
    if isinstance(layer, DenseLayer):
        yield from ((int(w), m) for m, w in enumerate(layer.weight[index[0]]))
        return
    channel, row, column = index
    inputs = layer.weight.shape[1]
    first = channel // (layer.shape[0] // layer.groups) * inputs
    for c, i, j in np.ndindex(*layer.weight.shape[1:]):
        y = row * layer.stride[0] - layer.padding[0] + i * layer.dilation[0]
        x = column * layer.stride[1] - layer.padding[1] + j * layer.dilation[1]
        yield int(layer.weight[channel, c, i, j]), (first + c, y, x)


def received(layer, sent, index):
    if isinstance(layer, DenseLayer):
        return int32(sum(w * int(sent.ravel()[m]) for w, m in taps(layer, index)))
    inside = ((w, at) for w, at in taps(layer, index) if all(0 <= p < n for p, n in zip(at, sent.shape, strict=True)))
    return wrap24(sum(w * int(sent[at]) for w, at in inside))


def bias_of(layer, index):
    if layer.bias is None:
        return 0
    if layer.bias.shape == layer.shape:
        return int(layer.bias[index])
    return int(layer.bias[index[0] if len(layer.bias) > 1 else 0])


def reference(network, image):
    """Messages of every layer, (T + K, ...), and the last sums with their biases, for one image (T, ...)."""
    total = len(image) + network.depth
    sent = np.zeros((total, *network.input_shape), dtype=np.int64)
    if network.input.neuron is None:
        sent[: len(image)] = image if network.input_bits else image != 0
    else:
        for index in np.ndindex(*network.input_shape):
            neuron = Delta(int(network.input.neuron.threshold))
            for t in range(total):  # behind the last input step the input stays
                sent[(t, *index)] = neuron.step(int(image[(min(t, len(image) - 1), *index)]) << 12)
    result, potential = [], None
    for layer in network.layers:
        messages = np.zeros((total, *layer.shape), dtype=np.int64)
        potential = np.zeros(layer.shape, dtype=np.int64)
        for index in np.ndindex(*layer.shape):
            bias = bias_of(layer, index)
            neuron = Sigma() if layer.neuron.read_out else SigmaDelta(int(layer.neuron.threshold), bias)
            for t in range(total):
                messages[(t, *index)] = neuron.receive(received(layer, sent[t - 1], index) if t else 0)
            potential[index] = neuron.sigma + (bias << 12)
        result.append(messages)
        sent = messages
    return result, potential.ravel()


def random_network(seed):
    """A network and its input: every kind of layer, thresholds and biases of each shape, still and moving images."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 4)), int(rng.integers(3, 7)), int(rng.integers(3, 7)))
    dense_only = rng.random() < 0.25
    shape = (int(rng.integers(2, 7)),) if dense_only else size
    bare = rng.random() < 0.2
    layers, before = [], shape
    for _ in range(0 if dense_only else int(rng.integers(1, 3))):
        layers.append(random_conv(rng, before))
        before = layers[-1].shape
    for index in range(int(rng.integers(1, 3))):
        layers.append(random_dense(rng, before, flatten=len(before) == 3 and not (bare and not layers and not index)))
        before = layers[-1].shape
    read_out = rng.random() < 0.7
    if read_out:
        last = layers[-1]
        layers[-1] = DenseLayer(last.shape, last.weight, SigmaDeltaNeuron(read_out=True), last.flatten)
    declared = InputLayer(shape, None if bare else cell(rng, 60))
    images = rng.integers(0, 256, (int(rng.integers(1, 3)), int(rng.integers(1, 5)), *shape)) * (
        rng.random((1, 1, *shape)) < 0.7
    )
    if rng.random() < 0.4:
        images[:, 1:] = images[:, :1]
    network = NetxNetwork(declared, tuple(layers), input_bits=8 if bare else 0)
    return network, images.astype(np.uint8)


def cell(rng, most=400):
    return SigmaDeltaNeuron(rng.integers(0, int(rng.choice([1, 4, most])), ()))


def weights(rng, shape):
    high = int(rng.choice([30, 127]))
    return rng.integers(-high, high + 1, shape) * 2


def random_conv(rng, before):
    groups = before[0] if rng.random() < 0.3 else 1
    channels = int(rng.integers(1, 4)) * groups
    kernel = tuple(min(int(n), size) for n, size in zip(rng.integers(1, 4, 2), before[1:], strict=True))
    stride, padding = (tuple(int(n) for n in rng.integers(low, low + 2, 2)) for low in (1, 0))
    weight = weights(rng, (channels, before[0] // groups, *kernel))
    shape = conv_output_shape(before, weight.shape, stride, padding, (1, 1))
    bias = [None, rng.integers(-300, 300, channels), rng.integers(-300, 300, shape)][int(rng.integers(3))]
    return ConvLayer(shape, weight, stride, padding, (1, 1), groups, cell(rng), bias)


def random_dense(rng, before, flatten):
    neurons = int(rng.integers(2, 6))
    weight = weights(rng, (neurons, int(np.prod(before))))
    weight[0, 0] = 2  # NetX alters some matrices without a positive weight
    bias = [None, rng.integers(-300, 300, neurons), rng.integers(-300, 300, 1)][int(rng.integers(3))]
    return DenseLayer((neurons,), weight, cell(rng), flatten, bias)
