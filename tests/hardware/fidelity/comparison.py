"""Where two runs differ first, and what the networks compared have in them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from fidelity.layers import loadable

from gascnn.toolkit.lowering.network import layer_label

FEATURES = (
    "30 steps or more",
    "all weights zero",
    "always on planes",
    "an all one image",
    "an all zero image",
    "another program's file",
    "bias a channel",
    "bias a neuron",
    "bias wraps in 16 bits",
    "channels not a multiple of 8",
    "convolutions then dense",
    "counts only",
    "current decays in part",
    "current without decay",
    "delay of 62",
    "delays",
    "dense bias each",
    "dense bias for all",
    "dense odd weights",
    "dense only",
    "dense weights altered by NetX",
    "dense weights of one sign",
    "depthwise",
    "dilation",
    "even kernel",
    "fewer steps than spikes",
    "fires at rest",
    "graded input",
    "graded input of one bit",
    "graded input to dense",
    "groups",
    "images that follow each other in Lava",
    "input neurons",
    "kernel 1x1",
    "layer that always fires",
    "more steps than spikes",
    "more than 16 channels",
    "oblong kernel",
    "one step",
    "padding",
    "padding beyond the kernel",
    "parameters a channel",
    "recurrent",
    "reset by subtraction",
    "reset to zero",
    "self weights a channel",
    "several convolutions",
    "several images",
    "silent layer",
    "states wrap in 32 bits",
    "steps skipped",
    "strides",
    "strides of two sizes",
    "subtraction with a leak",
    "subtraction with other decays",
    "sums wrap in 24 bits",
    "threshold 0",
    "threshold below 0",
    "threshold beyond 17 bits",
    "threshold of 17 bits",
    "u wraps",
    "v is clipped",
    "voltage decays in part",
    "voltage without memory",
    "weights beyond 8 bits",
)
"""Everything a set of networks must have in it to be worth comparing; see :func:`features`."""


def first_difference(case, result, record, name):
    """What differs first, in one line that names layer, image, step and neuron; None where nothing does.

    Args:
        case: with what must come out.
        result: a ``RunResult``.
        record: what it was asked to keep.
        name: of what gave it.
    """
    if (record == "spikes") != (result.spikes is not None):
        return f"{name} was asked for {record}"
    for index, right in enumerate(case.expected.layers):
        difference = _layer_difference(result, index, right, name)
        if difference is not None:
            return f"{layer_label(case.network, index)}, {difference}"
    for what in ("output_counts", "output_membrane"):
        found, right = getattr(result, what), getattr(case.expected, what)
        if (where := _differs(found, right)) is not None:
            return f"{what}: {_values(found, right, where, name)}"
    if result.steps != case.total - case.network.depth:
        return f"{name} says {result.steps} steps of {case.total - case.network.depth}"
    return None


def _layer_difference(result, index, right, name):
    if result.spikes is not None and (where := _differs(result.spikes[index], right.spikes)) is not None:
        return f"spikes: {_values(result.spikes[index], right.spikes, where, name)}"
    counts = right.spikes.sum(axis=1)
    if (where := _differs(result.counts[index], counts)) is not None:
        return f"counts: {_values(result.counts[index], counts, where, name)}"
    if result.wraps is not None and result.wraps[index] != right.wraps:
        return f"wraps of u: {name} {result.wraps[index]}, reference {right.wraps}"
    return None


def _differs(found, right):
    """The first place, steps before images before neurons; () where the shapes differ; None where nothing does."""
    if found.shape != right.shape:
        return ()
    places = np.argwhere(found != right)
    if not len(places):
        return None
    first = np.lexsort(places[:, 1::-1].T) if found.ndim > 2 else [0]
    return tuple(int(n) for n in places[first[0]])


def _values(found, right, where, name):
    if not where:
        return f"{name} {found.shape}, reference {right.shape}"
    axes = ("image", "step", "neuron") if found.ndim > 2 and found.dtype == bool else ("image", "neuron")
    named = [*zip(axes[:-1], where, strict=False), (axes[-1], where[len(axes) - 1 :])]
    return f"{', '.join(f'{axis} {n}' for axis, n in named)}: {name} {found[where]}, reference {right[where]}"


def features(case):
    """What the case has in it; each is something that once could have gone wrong."""
    network, expected = case.network, case.expected
    present = set(_input_features(case))
    for layer, trace in zip(network.layers, expected.layers, strict=True):
        present |= set(_conv_features(layer) if layer.kind == "conv" else _dense_features(layer))
        present |= set(_population_features(layer, trace))
    present |= {"reset by subtraction"} if network.reset == "subtract" else {"reset to zero"}
    kinds = [layer.kind for layer in network.layers]
    present |= {
        name
        for name, holds in {
            "dense only": "conv" not in kinds,
            "several convolutions": kinds.count("conv") > 1,
            "convolutions then dense": kinds[0] != kinds[-1],
            "another program's file": case.foreign,
            "fewer steps than spikes": case.steps is not None and case.steps < case.spikes.shape[1],
            "more steps than spikes": case.steps is not None and case.steps > case.spikes.shape[1],
            "steps skipped": bool(case.skip_steps),
            "counts only": case.record == "counts",
            "several images": case.images > 1,
            "images that follow each other in Lava": case.images > 1
            and network.reset == "zero"
            and network.silent_at_rest
            and not present & {"recurrent", "delays", "threshold below 0"},
            "one step": case.total - network.depth == 1,
            "30 steps or more": case.total - network.depth >= 30,
        }.items()
        if holds
    }
    return present


def _named(**holds):
    return [name.replace("_", " ") for name, value in holds.items() if value]


def _input_features(case):
    network, spikes = case.network, case.spikes
    graded = network.input_bits > 0
    top = 2**network.input_bits - 1 if graded else 1
    images = spikes.reshape(len(spikes), -1)
    yield from _named(
        graded_input=graded and network.layers[0].kind == "conv",
        graded_input_to_dense=graded and network.layers[0].kind == "dense",
        graded_input_of_one_bit=network.input_bits == 1,
        input_neurons=network.input.neuron is not None,
        always_on_planes=network.constant_channels,
        an_all_zero_image=(images == 0).all(axis=1).any(),
        an_all_one_image=network.input.neuron is None and (images == top).all(axis=1).any(),
    )


def _conv_features(layer):
    kernel = layer.weight.shape[2:]
    yield from _named(
        strides=max(layer.stride) > 1,
        strides_of_two_sizes=layer.stride[0] != layer.stride[1],
        padding=max(layer.padding) > 0,
        padding_beyond_the_kernel=any(p >= k for p, k in zip(layer.padding, kernel, strict=True)),
        dilation=max(d * (k > 1) for d, k in zip(layer.dilation, kernel, strict=True)) > 1,
        groups=1 < layer.groups < layer.weight.shape[1] * layer.groups,
        depthwise=layer.groups > 1 and layer.weight.shape[1] == 1,
        even_kernel=any(k % 2 == 0 for k in kernel),
        kernel_1x1=kernel == (1, 1),
        oblong_kernel=kernel[0] != kernel[1],
        bias_a_channel=layer.bias is not None and layer.bias.ndim == 1,
        bias_a_neuron=layer.bias is not None and layer.bias.ndim == 3,
        weights_beyond_8_bits=np.abs(layer.weight).max() > 256,
        all_weights_zero=not layer.weight.any(),
        more_than_16_channels=layer.shape[0] > 16,
        channels_not_a_multiple_of_8=layer.shape[0] > 8 and layer.shape[0] % 8,
    )


def _dense_features(layer):
    delay = np.zeros(1) if layer.delay is None else layer.delay
    yield from _named(
        dense_odd_weights=(layer.weight % 2).any(),
        dense_weights_of_one_sign=layer.weight.min() >= 0 or layer.weight.max() <= 0,
        dense_weights_altered_by_NetX=not loadable(layer.weight, layer.weight_rec, foreign=False),
        delays=delay.any(),
        delay_of_62=delay.max() == 62,
        recurrent=layer.weight_rec is not None,
        dense_bias_for_all=layer.bias is not None and layer.bias.size == 1 < layer.shape[0],
        dense_bias_each=layer.bias is not None and layer.bias.size == layer.shape[0],
    )


def _population_features(layer, trace):
    neuron = layer.neuron
    threshold, du, dv = (np.asarray(p) for p in (neuron.threshold, neuron.current_decay, neuron.voltage_decay))
    yield from _named(
        current_decays_in_part=((du > 0) & (du < 4096)).any(),
        current_without_decay=layer.self_weight is None and (du == 0).any(),
        voltage_decays_in_part=((dv > 0) & (dv < 4096)).any(),
        voltage_without_memory=layer.self_weight is None and (dv == 4096).any(),
        parameters_a_channel=neuron.per_channel,
        subtraction_with_a_leak=layer.self_weight is not None and du.any(),
        subtraction_with_other_decays=layer.self_weight is not None and (dv < 4096).any(),
        self_weights_a_channel=layer.self_weight is not None and len(set(layer.self_weight.tolist())) > 1,
        threshold_0=(threshold == 0).any(),
        threshold_of_17_bits=(threshold == 131_071).any(),
        threshold_below_0=(threshold < 0).any(),
        threshold_beyond_17_bits=(threshold > 131_071).any(),
        bias_wraps_in_16_bits=layer.bias is not None and np.abs(layer.bias).max() > 32_768,
        u_wraps=trace.wraps,
        v_is_clipped=trace.clips,
        sums_wrap_in_24_bits=trace.sums_wrap,
        states_wrap_in_32_bits=trace.overflows,
        fires_at_rest=trace.spikes[:, 0].any(),
        silent_layer=not trace.spikes.any(),
        layer_that_always_fires=trace.spikes[:, 1:].all(),
    )


class Summary:
    """What was compared so far."""

    def __init__(self):
        self.networks = self.layers = self.silent = self.busy = self.spikes = self.neuron_steps = 0
        self.features = Counter()

    def add(self, case):
        self.networks += 1
        present = features(case)
        assert present <= set(FEATURES), present - set(FEATURES)
        self.features.update(present)
        for trace in case.expected.layers:
            rate = trace.spikes.mean()
            self.layers += 1
            self.silent += rate == 0
            self.busy += 0.005 < rate < 0.99
            self.spikes += int(trace.spikes.sum())
            self.neuron_steps += trace.spikes.size

    def lines(self):
        yield (
            f"{self.networks} networks of {self.layers} layers: {self.neuron_steps} neuron steps with {self.spikes} "
            f"spikes compared; {self.silent / self.layers:.0%} of the layers silent, "
            f"{self.busy / self.layers:.0%} firing at 0.5 to 99 %"
        )
        width = max(map(len, FEATURES))
        for name in FEATURES:
            yield f"  {name:{width}} {self.features[name]:5d}"

    def hollow(self, least):
        """What is missing for the comparison to mean anything: features seen less often, or too much silence."""
        for name in FEATURES:
            if self.features[name] < least:
                yield f"{name}: {self.features[name]} networks, expected {least}"
        if self.busy < 0.6 * self.layers:
            yield f"{self.busy} of {self.layers} layers fire now and then, expected 60 %"
