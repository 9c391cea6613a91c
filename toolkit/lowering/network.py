"""The deployed network: integers only, a plain sequence of layers. Simulator, Lava, counts and energy all read this.

Shapes are in PyTorch's order (C, H, W); only Lava itself uses (W, H, C). Time is discrete; see
:mod:`gascnn.hardware.simulator` for the dynamics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import LimitError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.deployment import Deployment

IntArray = npt.NDArray[np.integer]
Reset = Literal["zero", "subtract"]
SegmentKind = Literal["population", "relay", "always-on"]


@dataclass(frozen=True)
class Segment:
    """A range of a layer's channels (or of a dense layer's neurons) with one purpose.

    Attributes:
        kind: ``population`` computes; ``relay`` repeats an earlier population one step later; ``always-on`` spikes
            at every step in which the input does, so that a weight from it is a bias.
        name: the population computed or repeated.
        start, stop: channels ``start:stop`` (neurons for a dense layer).
    """

    kind: SegmentKind
    name: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class CubaNeuron:
    """Current-based leaky integrate-and-fire neuron in Lava's fixed-point arithmetic (``PyLifModelBitAcc``).

    Per step, with ``rtz(x) = sign(x) * (|x| >> 12)``: ``u = wrap24(rtz(u * (4096 - current_decay)) + (a << 6))``;
    ``v = clip(rtz(v * (4096 - voltage_decay)) + u + (bias << 6))``; spike where ``v > threshold << 6``, then ``v = 0``.

    Attributes:
        threshold: weight units, 0..131071 (from 131072 the neuron never spikes); scalar or one a channel.
        current_decay: 0..4096 in 1/4096 (4096: no memory); scalar or one a channel.
        voltage_decay: 0..4096 in 1/4096 (0: no leak); scalar or one a channel.
    """

    threshold: IntArray
    current_decay: IntArray = field(default_factory=lambda: np.array(4096))
    voltage_decay: IntArray = field(default_factory=lambda: np.array(0))

    @property
    def per_channel(self) -> bool:
        """Whether any parameter differs between channels (simulator-only as far as is known)."""
        return any(np.ndim(p) > 0 for p in (self.threshold, self.current_decay, self.voltage_decay))


@dataclass(frozen=True, eq=False)
class SigmaDeltaNeuron:
    """Sigma-delta neuron with graded messages (NetX type SDNN; Lava's ``Delta``, ``SigmaDelta`` and ``Sigma``).

    Per step, with ``S = 12`` and what comes in ``a``: ``sigma += a``; ``act = max(sigma + (bias << S), 0)``;
    ``d = act - act_before + residue``; the message is ``d >> 6`` where ``|d| >= threshold << S``, else nothing;
    ``residue = d`` less what was sent. Input neurons (Delta) take ``act = a << S``. A read-out (Sigma) gives ``sigma``
    itself at every step. An activation of 1 is a message of 64 and a state of 4096; a weight of 64 passes it on as it
    is.

    Attributes:
        threshold: whole activations, 0..2047; the smallest change that is sent; one for all (Lava builds no others).
        read_out: whether it is a read-out: no threshold, no bias, no ReLU.
    """

    threshold: IntArray = field(default_factory=lambda: np.array(0))
    read_out: bool = False

    @property
    def per_channel(self) -> bool:
        """Whether thresholds differ between channels, which Lava cannot build."""
        return np.ndim(self.threshold) > 0


Neuron = CubaNeuron | SigmaDeltaNeuron


@dataclass(frozen=True, eq=False)
class InputLayer:
    """The network's input: a shape, and possibly input neurons that receive the input at their ``a_in``.

    Attributes:
        shape: (C, H, W) or (N,).
        neuron: input neurons, or None for a bare declaration of the shape.
        weight, bias: as stored by slayer; NetX does not apply them, they are kept for the record.
    """

    shape: tuple[int, ...]
    neuron: Neuron | None = None
    weight: int | None = None
    bias: int | None = None


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """Cross-correlation (PyTorch's convolution) into a population of neurons.

    Attributes:
        shape: output (C, H, W).
        weight: (C, C_in / groups, kH, kW), integers in weight units.
        stride, padding, dilation: (vertical, horizontal).
        groups: as in PyTorch; at most 127.
        bias: None, (C,) or (C, H, W); added to the membrane potential at every step.
        self_weight: None, or (C,) not negative: what each neuron subtracts from its own ``u`` one step after a
            spike (reset by subtraction).
        segments: what the channels are for; empty where a file does not say.
    """

    shape: tuple[int, ...]
    weight: IntArray
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    neuron: Neuron
    bias: IntArray | None = None
    self_weight: IntArray | None = None
    segments: tuple[Segment, ...] = ()
    kind: Literal["conv"] = "conv"

    @property
    def cuba(self) -> CubaNeuron:
        """Its neurons, for what works with integrate-and-fire neurons only; see :func:`cuba`."""
        return cuba(self.neuron)


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """All-to-all connection into a vector of neurons, after flattening where the input is (C, H, W).

    Attributes:
        shape: (N,).
        weight: (N, M) integers in weight units, columns in C, H, W order.
        flatten: whether the file has a flatten layer in front.
        bias: None, (1,) or (N,).
        delay: None or (N, M), 0..62 further steps for each synapse.
        weight_rec: None, or (N, N): recurrent synapses with one step of delay (NetX type ``dense_rec``).
        self_weight: None or (N,); see :class:`ConvLayer`.
        segments: what the neurons are for.
    """

    shape: tuple[int, ...]
    weight: IntArray
    neuron: Neuron
    flatten: bool = False
    bias: IntArray | None = None
    delay: IntArray | None = None
    weight_rec: IntArray | None = None
    self_weight: IntArray | None = None
    segments: tuple[Segment, ...] = ()
    kind: Literal["dense"] = "dense"

    @property
    def cuba(self) -> CubaNeuron:
        """Its neurons, for what works with integrate-and-fire neurons only; see :func:`cuba`."""
        return cuba(self.neuron)


SynapticLayer = ConvLayer | DenseLayer


@dataclass(frozen=True, eq=False)
class NetxNetwork:
    """A whole deployed network.

    Attributes:
        input: what goes in; its shape counts the constant channels.
        layers: the synaptic layers in order; each delays by one step.
        input_bits: 0 for spikes, else the first layer multiplies integers below ``2**input_bits`` (graded input).
        reset: ``zero`` (Lava's own) or ``subtract`` (self-inhibition; the file then needs this package's loader).
        constant_channels: how many of the input's last channels are always-on planes that the host adds.
        deployment: how to feed and read the network; None for a foreign file.
    """

    input: InputLayer
    layers: tuple[SynapticLayer, ...]
    input_bits: int = 0
    reset: Reset = "zero"
    constant_channels: int = 0
    deployment: Deployment | None = None

    @property
    def depth(self) -> int:
        """K, the number of synaptic layers; a run of T input steps takes T + K steps."""
        return len(self.layers)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one step of input, constant channels included."""
        return self.input.shape

    @property
    def neurons(self) -> int:
        """Number of neurons in the synaptic layers."""
        return sum(math.prod(layer.shape) for layer in self.layers)

    @property
    def multiply_accumulates(self) -> int:
        """What one step costs if every synapse is computed, whether a spike comes in or not."""
        return sum(layer.weight.size * math.prod(layer.shape[1:]) for layer in self.layers)

    @property
    def sigma_delta(self) -> bool:
        """Whether its neurons are sigma-delta neurons, with graded messages; such networks have no others."""
        return isinstance(self.layers[-1].neuron, SigmaDeltaNeuron)

    @property
    def holds_input(self) -> bool:
        """Whether what was fed last stays after the last input step: its neurons send changes, and nothing changes."""
        return isinstance(self.input.neuron, SigmaDeltaNeuron)

    @property
    def constant_level(self) -> int:
        """What the always-on planes that the host adds hold."""
        if self.sigma_delta:
            return limits.SIGMA_DELTA_BIAS_LEVEL
        return 2**self.input_bits - 1 if self.input_bits else 1

    @property
    def silent_at_rest(self) -> bool:
        """Whether nothing can spike without input: then images may follow each other without a rebuild."""
        return all(layer.bias is None or not np.any(layer.bias) for layer in self.layers) and self.input.neuron is None

    def input_of(self, index: int) -> tuple[int, ...]:
        """Shape of what layer ``index`` receives."""
        return self.input.shape if index == 0 else self.layers[index - 1].shape

    def with_deployment(self, deployment: Deployment | None) -> NetxNetwork:
        """A copy with another deployment record."""
        return replace(self, deployment=deployment)

    def digest(self) -> str:
        """SHA-256 over every integer that decides a spike; equal for equal networks, whatever the file's bytes."""
        digest = hashlib.sha256()
        for name, value in _decisive(self):
            array = np.ascontiguousarray(value, dtype=np.int64)
            digest.update(f"{name}:{array.shape};".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def layer_label(network: NetxNetwork, index: int) -> str:
    """How messages name a layer: its number as in the spike files, its type and what it computes."""
    layer = network.layers[index]
    names = ", ".join(s.name for s in layer.segments if s.kind == "population")
    return f"layer_{index:02d} ({layer.kind}{': ' + names if names else ''})"


def _decisive(network: NetxNetwork) -> Iterator[tuple[str, npt.ArrayLike]]:
    yield "input", network.input.shape
    yield "input_bits", network.input_bits
    yield "constant_channels", network.constant_channels
    if network.input.neuron is not None:
        yield from _neuron_numbers(network.input.neuron)
    for layer in network.layers:
        yield "shape", layer.shape
        yield "weight", layer.weight
        yield from _neuron_numbers(layer.neuron)
        for name in ("bias", "self_weight", "delay", "weight_rec"):
            value = getattr(layer, name, None)
            if value is not None:
                yield name, value
        if isinstance(layer, ConvLayer):
            yield "geometry", (*layer.stride, *layer.padding, *layer.dilation, layer.groups)


def cuba(neuron: Neuron | None) -> CubaNeuron:
    """The neuron, if it is an integrate-and-fire one.

    Raises:
        LimitError: sigma-delta neurons.
    """
    if not isinstance(neuron, CubaNeuron):
        raise LimitError(
            "this works with integrate-and-fire neurons (NetX type CUBA) only; the network has sigma-delta neurons; "
            "convert it without --neuron sdnn"
        )
    return neuron


def _neuron_numbers(neuron: Neuron) -> Iterator[tuple[str, npt.ArrayLike]]:
    if isinstance(neuron, SigmaDeltaNeuron):
        yield "read_out" if neuron.read_out else "message_threshold", neuron.threshold
        return
    yield "threshold", neuron.threshold
    yield "current_decay", neuron.current_decay
    yield "voltage_decay", neuron.voltage_decay
