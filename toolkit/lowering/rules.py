"""Checks of a deployed network, one small function a rule; a broken rule names layer, value, limit and remedy.

Structure rules hold for anything Lava can build; the others are checked before a file is written. Every silent error
of Lava and NetX that an exporter could run into (``docs/netx.md``) is a rule here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gascnn.toolkit.errors import FormatError, LimitError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    NetxNetwork,
    SigmaDeltaNeuron,
    SynapticLayer,
    layer_label,
)
from gascnn.toolkit.lowering.netx_dense import effective_dense
from gascnn.toolkit.lowering.shapes import conv_output_shape


@dataclass(frozen=True)
class Violation:
    """A broken rule: what was found, what is allowed, what to do."""

    found: str
    allowed: str
    remedy: str


Rule = Callable[[NetxNetwork, int, SynapticLayer], Iterator[Violation]]


def check_structure(network: NetxNetwork) -> None:
    """Check that the layers fit together in a way NetX can build.

    Raises:
        FormatError: names the first layer that does not fit.
    """
    _raise_first(network, STRUCTURE_RULES, FormatError)


def check_network(network: NetxNetwork) -> None:
    """Check everything a file must fulfil before it is written; hardware ranges where its grade claims them.

    Raises:
        FormatError: layers that do not fit together.
        LimitError: names layer, value, limit and remedy.
    """
    check_structure(network)
    _raise_first(network, SIMULATOR_RULES, LimitError)
    if network.deployment is not None and network.deployment.grade == "hardware":
        _raise_first(network, HARDWARE_RULES, LimitError)


def _raise_first(network: NetxNetwork, rules: tuple[Rule, ...], error: type[FormatError] | type[LimitError]) -> None:
    for index, layer in enumerate(network.layers):
        for rule in rules:
            for broken in rule(network, index, layer):
                raise error(f"{layer_label(network, index)}: {broken.found}; {broken.allowed}; {broken.remedy}")


# --- structure -------------------------------------------------------------------------------------------------------


def conv_follows_an_image(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """A convolution needs (C, H, W) in front of it, and its shape must follow from it."""
    if not isinstance(layer, ConvLayer):
        return
    before = network.input_of(index)
    if len(before) != 3:
        yield Violation(
            f"a convolution after a layer of shape {before}",
            "it needs (C, H, W)",
            "put convolutions before the dense layers",
        )
        return
    expected = conv_output_shape(before, layer.weight.shape, layer.stride, layer.padding, layer.dilation)
    if layer.shape != expected or min(expected) < 1:
        yield Violation(f"shape {layer.shape}", f"{expected} follows from its input {before}", "correct the shape")
    if layer.weight.shape[1] * layer.groups != before[0] or layer.weight.shape[0] % layer.groups:
        yield Violation(
            f"weight {layer.weight.shape} in {layer.groups} groups",
            f"its input has {before[0]} channels",
            "correct the weight or the groups",
        )


def dense_follows_a_vector(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """A dense layer after (C, H, W) needs a flatten in front, after a vector it must not have one."""
    if not isinstance(layer, DenseLayer):
        return
    before = network.input_of(index)
    behind_neurons = index > 0 or network.input.neuron is not None
    if layer.weight.shape[1] != math.prod(before):
        yield Violation(
            f"weight {layer.weight.shape}",
            f"its input has {math.prod(before)} elements",
            "correct the weight's columns",
        )
    if behind_neurons and len(before) == 3 and not layer.flatten:
        yield Violation(f"no flatten between {before} and a dense layer", "NetX needs one", "insert a flatten layer")
    if behind_neurons and len(before) == 1 and layer.flatten:
        yield Violation("a flatten after a dense layer", "NetX cannot build it", "remove the flatten layer")


def parameters_broadcast(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """Neuron parameters are scalars or one a channel, self-weights one a channel, biases that or one a neuron."""
    channels = layer.shape[0]
    neuron = layer.neuron
    named = {"vThMant": neuron.threshold}
    if isinstance(neuron, CubaNeuron):
        named |= {"iDecay": neuron.current_decay, "vDecay": neuron.voltage_decay}
    for name, value in named.items():
        if np.shape(value) not in ((), (channels,)):
            yield Violation(f"{name} has shape {np.shape(value)}", f"scalar or ({channels},)", "correct it")
    if isinstance(neuron, SigmaDeltaNeuron) and neuron.per_channel:
        yield Violation("sigma-delta thresholds a channel", "one a layer (Lava cannot build others)", "use one")
    biases = ((channels,), layer.shape) if isinstance(layer, ConvLayer) else ((channels,), (1,))
    if layer.bias is not None and layer.bias.shape not in biases:
        yield Violation(f"bias has shape {layer.bias.shape}", f"{biases[0]} or {biases[1]}", "correct it")
    if layer.self_weight is not None and layer.self_weight.shape != (channels,):
        yield Violation(f"self_weight has shape {layer.self_weight.shape}", f"({channels},)", "correct it")
    elif layer.self_weight is not None and layer.self_weight.min() < 0:
        yield Violation(f"self_weight {layer.self_weight.min()}", "0 or more (it is subtracted)", "correct its sign")
    if (layer.self_weight is not None) != (network.reset == "subtract"):
        yield Violation(
            f"{'a' if layer.self_weight is not None else 'no'} self_weight in a network with reset {network.reset}",
            "self-inhibition is what makes reset by subtraction",
            "export it again",
        )


def geometry_positive(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """Stride and dilation at least 1, padding at least 0, groups at least 1, all within Lava's int8."""
    if not isinstance(layer, ConvLayer):
        return
    for name, values, low in (
        ("stride", layer.stride, 1),
        ("padding", layer.padding, 0),
        ("dilation", layer.dilation, 1),
        ("kernel size", layer.weight.shape[2:], 1),
    ):
        if min(values) < low or max(values) > limits.GEOMETRY_MAX:
            yield Violation(
                f"{name} {values}", f"{low}..{limits.GEOMETRY_MAX} (Lava stores it as int8)", "use a smaller one"
            )
    if not 1 <= layer.groups <= limits.GROUPS_MAX:
        yield Violation(
            f"{layer.groups} groups",
            f"at most {limits.GROUPS_MAX} (Lava stores them as int8: 128 give silence, 200 hang it)",
            "use a divisor of the channels below 128 with block-diagonal kernels",
        )


def neurons_of_one_kind(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """Sigma-delta neurons send changes, which other neurons would take for spikes; only the last may be a read-out."""
    neurons = (network.input.neuron, *(other.neuron for other in network.layers))
    if len({type(neuron) for neuron in neurons if neuron is not None}) > 1:
        yield Violation(
            "neurons of types CUBA and SDNN in one network", "one type for all", "use sigma-delta neurons everywhere"
        )
    neuron = layer.neuron
    if not isinstance(neuron, SigmaDeltaNeuron):
        return
    if isinstance(layer, DenseLayer) and (layer.delay is not None or layer.weight_rec is not None):
        what = "delays" if layer.delay is not None else "recurrent synapses"
        yield Violation(f"{what} with sigma-delta neurons", "not supported", "remove them")
    read_out_input = isinstance(network.input.neuron, SigmaDeltaNeuron) and network.input.neuron.read_out
    if (neuron.read_out and index < network.depth - 1) or read_out_input:
        yield Violation("a sigma_output that is not the last layer", "only the last reads out", "remove it")
    if neuron.read_out and layer.bias is not None:
        yield Violation("a sigma_output with a bias", "NetX cannot build it (TypeError)", "remove the bias")


STRUCTURE_RULES: tuple[Rule, ...] = (
    neurons_of_one_kind,
    geometry_positive,
    conv_follows_an_image,
    dense_follows_a_vector,
    parameters_broadcast,
)


# --- what Lava's CPU models can hold ---------------------------------------------------------------------------------


def threshold_in_range(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """The threshold (vThMant) is an unsigned 17-bit number; of sigma-delta neurons one that fits their state."""
    worst = np.asarray(layer.neuron.threshold)
    graded = isinstance(layer.neuron, SigmaDeltaNeuron)
    most = limits.SIGMA_DELTA_THRESHOLD_MAX if graded else limits.THRESHOLD_MAX
    if worst.min() < 0 or worst.max() > most:
        yield Violation(
            f"threshold {worst.min()}..{worst.max()}",
            f"0..{most} ({'a 24-bit state' if graded else '17 bits'})",
            "lower the layer's integer scale",
        )


def decays_in_range(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """Decays are shares of 4096."""
    if not isinstance(layer.neuron, CubaNeuron):
        return
    for name, value in (("iDecay", layer.neuron.current_decay), ("vDecay", layer.neuron.voltage_decay)):
        if np.min(value) < 0 or np.max(value) > limits.DECAY_UNITY:
            yield Violation(
                f"{name} {np.min(value)}..{np.max(value)}", f"0..{limits.DECAY_UNITY}", "give it in 1/4096 lost a step"
            )


def bias_in_simulator_range(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """Lava's CPU model stores the bias mantissa as int16 and wraps beyond it without a word."""
    if isinstance(layer.neuron, SigmaDeltaNeuron):
        yield from _sigma_delta_bias(layer)
    elif layer.bias is not None and np.abs(layer.bias).max(initial=0) > limits.BIAS_SIMULATOR_MAX:
        yield Violation(
            f"bias {np.abs(layer.bias).max()}",
            f"at most {limits.BIAS_SIMULATOR_MAX} (Lava wraps it as int16)",
            "lower the layer's integer scale",
        )


def _sigma_delta_bias(layer: SynapticLayer) -> Iterator[Violation]:
    worst = 0 if layer.bias is None else int(np.abs(layer.bias).max(initial=0))
    if worst > limits.SIGMA_DELTA_THRESHOLD_MAX:
        yield Violation(
            f"bias {worst}",
            f"at most {limits.SIGMA_DELTA_THRESHOLD_MAX} (a 24-bit state)",
            "lower the layer's integer scale",
        )


def weights_fit_int32(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """Lava holds weights and converts sums as int32."""
    per_neuron = np.abs(layer.weight).reshape(len(layer.weight), -1).sum(axis=1).max(initial=0)
    largest_input = max(1, 2**network.input_bits - 1) if index == 0 else 1
    if int(per_neuron) * largest_input >= 2**31:
        yield Violation(
            f"a neuron's weights sum to {int(per_neuron) * largest_input}",
            "below 2^31",
            "lower the layer's integer scale",
        )


def dense_matrix_survives_netx(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """NetX re-encodes dense weights: all-zero matrices crash it, some one-signed ones come out altered.

    Raises:
        LimitError: a matrix NetX cannot load, or turns into zeros without a word.
    """
    if not isinstance(layer, DenseLayer):
        return
    low, high = int(layer.weight.min()), int(layer.weight.max())
    if low < limits.WEIGHT_MIN or high > limits.WEIGHT_MAX:
        yield Violation(
            f"dense weights {low}..{high}",
            f"{limits.WEIGHT_MIN}..{limits.WEIGHT_MAX} (NetX clips beyond, or silently drops all of them)",
            "lower the layer's integer scale",
        )
        return
    effective = effective_dense(layer, layer_label(network, index))
    pairs = ((layer.weight, effective.weight), (layer.weight_rec, effective.recurrent))
    if any(s is not None and e is not None and not np.array_equal(s, e >> effective.shift) for s, e in pairs):
        yield Violation(
            f"no positive weight and the smallest is {low}",
            "NetX alters such weights (down to half, for a minimum of the form -2^k)",
            "change the layer's integer scale a little",
        )


SIMULATOR_RULES: tuple[Rule, ...] = (
    threshold_in_range,
    decays_in_range,
    bias_in_simulator_range,
    weights_fit_int32,
    dense_matrix_survives_netx,
)


# --- what the chip documents -----------------------------------------------------------------------------------------


def weights_are_eight_bit(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """8-bit weights of mixed sign are even integers in -256..254."""
    low, high = int(layer.weight.min()), int(layer.weight.max())
    if low < limits.WEIGHT_MIN or high > limits.WEIGHT_MAX or np.any(layer.weight % limits.WEIGHT_STEP):
        yield Violation(
            f"weights {low}..{high}{' with odd ones' if np.any(layer.weight % 2) else ''}",
            f"even integers {limits.WEIGHT_MIN}..{limits.WEIGHT_MAX} (8 bits with sign)",
            "quantise to 8 bits, or export with --grade simulator",
        )


def bias_in_hardware_range(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """The chip's bias mantissa has 13 bits with sign."""
    if layer.bias is not None and np.abs(layer.bias).max(initial=0) > limits.BIAS_MAX:
        yield Violation(
            f"bias {np.abs(layer.bias).max()}",
            f"-{limits.BIAS_MAX}..{limits.BIAS_MAX} (13 bits)",
            "lower the layer's scale",
        )


def neuron_parameters_are_shared(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """One threshold and one decay a layer; per-channel ones run in Lava's simulator only, as far as is known."""
    if layer.neuron.per_channel:
        yield Violation(
            "thresholds or decays a channel", "one value a layer on the chip", "export with --grade simulator"
        )


def self_weights_are_representable(network: NetxNetwork, index: int, layer: SynapticLayer) -> Iterator[Violation]:
    """Self-inhibition is k * 2^e with k <= 127 and one e <= 7 for the layer."""
    if layer.self_weight is not None and self_weight_exponent(layer.self_weight) > limits.SELF_WEIGHT_EXPONENT_MAX:
        yield Violation(
            f"self-weights up to {layer.self_weight.max()} share no exponent",
            f"k * 2^e with k <= {limits.SELF_WEIGHT_MANTISSA_MAX} and e <= {limits.SELF_WEIGHT_EXPONENT_MAX}",
            "lower the layer's integer scale",
        )


HARDWARE_RULES: tuple[Rule, ...] = (
    weights_are_eight_bit,
    bias_in_hardware_range,
    neuron_parameters_are_shared,
    self_weights_are_representable,
)


def self_weight_exponent(values: np.ndarray) -> int:
    """The smallest exponent e with which all values are k * 2^e, k <= 127; 99 if there is none.

    Args:
        values: integers, not negative.
    """
    nonzero = values[values > 0].astype(np.int64)
    if nonzero.size == 0:
        return 0
    needed = max(0, (int(nonzero.max()) // (limits.SELF_WEIGHT_MANTISSA_MAX + 1)).bit_length())
    shared = int((nonzero & -nonzero).min()).bit_length() - 1
    return needed if needed <= shared else 99
