"""Lava's fixed-point models in numpy integers, written from Lava's sources and from nothing of this package.

Sources: ``proc/conv``, ``proc/dense``, ``proc/lif`` and ``utils/weightutils.py`` of lava-nc 0.10.0, and
``lib/dl/netx/utils.py`` of lava-dl 0.6.0. Every intermediate has the width it has there: sums and states are int32 and
wrap, products with a decay are int64. Slow and plain on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

MAX = 2**23
"""States have 24 bits: u in (-MAX, MAX], v in [-MAX + 1, MAX - 1]."""


class Unloadable(Exception):  # noqa: N818 - the suite's own word for what NetX cannot load
    """A dense matrix with which NetX crashes, or that it turns into zeros without a word."""


@dataclass
class Trace:
    """What one layer did: ``spikes`` (image, step, ...), and how often which limit was reached."""

    spikes: np.ndarray
    u: np.ndarray
    v: np.ndarray
    wraps: int = 0
    clips: int = 0
    sums_wrap: bool = False
    overflows: bool = False


@dataclass
class Expected:
    """What a run must give; see ``RunResult``."""

    layers: list[Trace] = field(default_factory=list)
    output_counts: np.ndarray | None = None
    output_membrane: np.ndarray | None = None


def int32(values):
    return values.astype(np.int64).astype(np.int32)


def rtz(product):
    return np.sign(product) * (np.abs(product) >> 12)


def per_channel(value, shape):
    """A scalar, one value a channel, or one a neuron, over (C, H, W) or (N,)."""
    value = np.asarray(value, dtype=np.int64)
    if value.size == 1:
        return value.reshape(())
    return value.reshape(-1, *(1,) * (len(shape) - 1)) if value.ndim == 1 else value


class Neurons:
    """``PyLifModelBitAcc`` for a batch of populations."""

    def __init__(self, neuron, shape, images, bias=None):
        zeros = np.zeros((images, *shape), dtype=np.int32)
        self.u, self.v = zeros, zeros.copy()
        self.wraps = self.clips = 0
        self.overflows = False
        # Lava shifts it in the type it was stored in, which holds it in every file this package reads.
        self.threshold = per_channel(neuron.threshold, shape) << 6
        self.keep_u = 4096 - per_channel(neuron.current_decay, shape)
        self.keep_v = 4096 - per_channel(neuron.voltage_decay, shape)
        mantissa = np.zeros(1) if bias is None else bias
        self.bias = per_channel(mantissa.astype(np.int64).astype(np.int16), shape) << 6

    def step(self, sums):
        wide = rtz(self.u.astype(np.int64) * self.keep_u) + int32(sums.astype(np.int64) << 6)
        u = int32(wide)
        above, below = u > MAX, u <= -MAX
        self.u = np.where(above, u - 2 * MAX, np.where(below, u + 2 * MAX, u)).astype(np.int32)
        exact = rtz(self.v.astype(np.int64) * self.keep_v) + self.u + self.bias
        v = int32(exact)
        self.v = np.clip(v, -MAX + 1, MAX - 1)
        fired = self.v > self.threshold
        self.wraps += int(above.sum()) + int(below.sum())
        self.clips += int((v != self.v).sum())
        self.overflows |= bool((wide != u).any() or (exact != v).any())
        self.v = np.where(fired, 0, self.v).astype(np.int32)
        return fired


def conv_sums(layer, inputs):
    """(B, C_in, H, W) to (B, C, H', W'), exact; and whether anything wraps at 24 bits."""
    (pv, ph), (sv, sh), (dv, dh) = layer.padding, layer.stride, layer.dilation
    height, width = layer.shape[1:]
    padded = np.pad(inputs.astype(np.int64), ((0, 0), (0, 0), (pv, pv), (ph, ph)))
    result = np.zeros((len(inputs), *layer.shape), dtype=np.int64)
    channels, per_group = layer.weight.shape[:2]
    outputs = channels // layer.groups
    for group in range(layer.groups):
        came = padded[:, group * per_group : (group + 1) * per_group]
        went = slice(group * outputs, (group + 1) * outputs)
        for i in range(layer.weight.shape[2]):
            for j in range(layer.weight.shape[3]):
                seen = came[
                    :, :, i * dv : i * dv + sv * (height - 1) + 1 : sv, j * dh : j * dh + sh * (width - 1) + 1 : sh
                ]
                tap = layer.weight[went, :, i, j].astype(np.int64)
                result[:, went] += np.einsum("oc,bchw->bohw", tap, seen)
    wrapped = (result + MAX) % (2 * MAX) - MAX
    return wrapped, bool((wrapped != result).any())


def encode_dense(weight, recurrent=None):
    """What acts of the stored matrices: ``optimize_weight_bits``, then ``clip_weights`` and ``truncate_weights``.

    Returns the matrices and the bits their sums are shifted right by.
    """
    parts = [weight.astype(np.int64)] + ([] if recurrent is None else [recurrent.astype(np.int64)])
    whole = np.hstack(parts)
    high, low = int(whole.max()), int(whole.min())
    if (high > 254 and low < 0) or (low < -256 and high > 0):
        whole = np.clip(whole, -256, 254)
        high, low = int(whole.max()), int(whole.min())
    if high == low == 0:
        raise Unloadable("all zero")
    signed = 0
    if high < 0:
        scale = -256 / low
    elif low >= 0:
        scale = 255 / high
    else:
        signed = 1
        scale = min(127 / high if high else math.inf, -128 / low)
    scale_bits = math.floor(math.log2(scale)) + signed
    if scale_bits < 0:
        raise Unloadable("beyond 8 bits")
    zeros = next((n for n in range(8, 0, -1) if not np.any(whole % 2**n)), 0)
    weight_bits = 8 - scale_bits - (zeros - signed)
    shifted = np.hsplit(whole << scale_bits, [weight.shape[1]])[: len(parts)]
    return [_synapse_weights(part, weight_bits) for part in shifted], scale_bits


def _synapse_weights(weight, weight_bits):
    """``PyDenseModelBitAcc`` decides the sign mode again, for each matrix."""
    inhibitory = weight.max() <= 0 and weight.min() < 0
    mixed = weight.min() < 0 < weight.max()
    value = -weight if inhibitory else weight
    value = np.clip(value, -256 if mixed else 0, 255)
    drop = 8 - weight_bits + int(mixed)
    if drop < 0 and value.any():
        raise Unloadable("shifted the wrong way")
    value = (value >> max(drop, 0)) << max(drop, 0)
    return -value if inhibitory else value


def earlier(values, steps):
    """``values`` (image, step, ...) ``steps`` later; nothing before the first."""
    result = np.zeros_like(values)
    result[:, steps:] = values[:, : max(values.shape[1] - steps, 0)]
    return result


def run_layer(layer, source):
    """One synaptic layer on ``source`` (image, step, ...)."""
    images, total = source.shape[:2]
    sums_wrap = False
    recurrent, shift = None, 0
    if layer.kind == "conv":
        flat = earlier(source, 1).reshape(images * total, *source.shape[2:])
        sums, sums_wrap = conv_sums(layer, flat)
        sums = sums.reshape(images, total, *layer.shape)
    else:
        effective, shift = encode_dense(layer.weight, layer.weight_rec)
        recurrent = effective[1] if len(effective) > 1 else None
        flat = source.reshape(images, total, -1).astype(np.int64)
        delays = np.zeros(layer.weight.shape, dtype=int) if layer.delay is None else layer.delay
        sums = np.zeros((images, total, *layer.shape), dtype=np.int64)
        for delay in np.unique(delays):
            part = np.where(delays == delay, effective[0], 0)
            sums += np.einsum("nm,itm->itn", part, earlier(flat, 1 + int(delay))) >> shift
    neurons = Neurons(layer.neuron, layer.shape, images, layer.bias)
    spikes = np.zeros((images, total, *layer.shape), dtype=bool)
    for t in range(total):
        a = sums[:, t]
        if t and recurrent is not None:
            a = a + (np.einsum("nm,im->in", recurrent, spikes[:, t - 1].astype(np.int64)) >> shift)
        if t and layer.self_weight is not None:
            a = a - per_channel(layer.self_weight, layer.shape) * spikes[:, t - 1]
        spikes[:, t] = neurons.step(a)
    return Trace(spikes, neurons.u, neurons.v, neurons.wraps, neurons.clips, sums_wrap, neurons.overflows)


def whole_input(network, spikes, steps):
    """Input of all T + K steps: always-on planes added, missing steps silent, None after the T-th."""
    wanted = spikes.shape[1] if steps is None else steps
    given = spikes[:, :wanted].astype(np.int64)
    values = np.zeros((len(spikes), wanted + len(network.layers), *network.input.shape), dtype=np.int64)
    values[:, : given.shape[1], : given.shape[2]] = given
    if given.shape[2:] != network.input.shape:
        values[:, :wanted, given.shape[2] :] = 2**network.input_bits - 1 if network.input_bits else 1
    return values


def run_first(network, spikes, steps=None):
    """What the first synaptic layer receives."""
    values = whole_input(network, spikes, steps)
    if network.input.neuron is not None:
        neurons = Neurons(network.input.neuron, network.input.shape, len(values))
        return np.stack([neurons.step(values[:, t]) for t in range(values.shape[1])], axis=1)
    return values if network.input_bits else values != 0


def run_reference(network, spikes, steps=None, skip_steps=None):
    """The whole network, layer by layer; every layer over all T + K steps."""
    source = run_first(network, spikes, steps)
    result = Expected()
    for layer in network.layers:
        result.layers.append(run_layer(layer, source))
        source = result.layers[-1].spikes
    last, depth = result.layers[-1], len(network.layers)
    images = len(source)
    counted = source[:, depth + (skip_steps or 0) :]
    result.output_counts = counted.reshape(images, counted.shape[1], -1).sum(axis=1)
    left = last.v.astype(np.int64)
    if network.reset == "subtract":
        pending = per_channel(network.layers[-1].self_weight, network.layers[-1].shape) * source[:, -1]
        left = last.u.astype(np.int64) - (pending << 6)
    result.output_membrane = left.reshape(images, -1)
    return result
