"""The networks that are raced: seeded 8-bit weights, thresholds that give a promised firing rate, no training.

Weights are even integers of a normal distribution whose standard deviation puts the largest near 254, as quantising to
8 bits does. Thresholds are set layer by layer on the first image's spikes (:mod:`gascnn.benchmarks.tuning`), so every
layer fires at the rate asked for, whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.ann import AnnNode, he_scaled
from gascnn.benchmarks.tuning import Spikes, conv_sums, dense_sums, integrate_and_fire, threshold_for
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.limits import WEIGHT_MAX, WEIGHT_MIN
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    Segment,
    SynapticLayer,
)

Weights = npt.NDArray[np.int32]

_DEVIATION = 60.0
"""4.2 standard deviations, about the largest of 40 000 draws, are then the largest 8-bit weight."""

_RELAY_WEIGHT = WEIGHT_MAX
_RELAY_ROOM = 0.9
"""A relay's weight must exceed the threshold it shares; the threshold aimed at is this share of it."""

_SKIP_WEIGHT = 128
_RESCALINGS = 12


@dataclass(frozen=True, eq=False)
class BenchNetwork:
    """A network, what it is fed with, and the ANN it is compared with.

    Attributes:
        name: as on the command line.
        network: integers; reset to zero, no decays, no biases, so that the peers' neurons are the same.
        spikes: (image, T, ...) uint8, 0/1: the input of every contender.
        rate: firing rate promised for every layer, spikes a neuron and step.
        ann: the network of ReLUs of the same shape, a node each operation; residual additions are additions there.
    """

    name: str
    network: NetxNetwork
    spikes: Spikes
    rate: float
    ann: tuple[AnnNode, ...]

    @property
    def steps(self) -> int:
        """T, the number of input steps."""
        return int(self.spikes.shape[1])


@dataclass
class _Builder:
    """Layers so far, and the spikes that come out of them on the first image."""

    rate: float
    rng: np.random.Generator
    mean: float
    spikes: Spikes
    layers: list[SynapticLayer] = field(default_factory=list)

    def draw(self, *shape: int) -> npt.NDArray[np.float64]:
        """Standard normal numbers, shifted by the mean."""
        return self.rng.standard_normal(shape) + self.mean

    def conv(
        self,
        make: Callable[[float], Weights],
        stride: int = 1,
        relays: tuple[int, int] | None = None,
        name: str = "",
    ) -> float:
        """Add a convolution whose weight ``make`` gives for a standard deviation; returns the one that was used.

        Args:
            make: the kernels, without relays.
            stride: of both axes.
            relays: range of the input's channels to pass on to the next layer but one.
            name: of what it computes.
        """
        deviation = _DEVIATION
        for _ in range(_RESCALINGS):
            weight = make(deviation)
            padding = weight.shape[2] // 2
            sums = conv_sums(weight, self.spikes, stride, padding)
            threshold = threshold_for(sums, self.rate)
            if relays is None or threshold < _RELAY_WEIGHT:
                break
            deviation *= _RELAY_ROOM * _RELAY_WEIGHT / threshold
        else:
            raise UsageError(f"{name}: no scale of the weights puts the threshold below a relay's {_RELAY_WEIGHT}")
        segments = [Segment("population", name, 0, len(weight))]
        if relays is not None:
            weight, sums, segment = _with_relays(weight, sums, self.spikes, relays, stride)
            segments.append(segment)
        self._add(
            ConvLayer(
                shape=tuple(sums.shape[1:]),
                weight=weight,
                stride=(stride, stride),
                padding=(padding, padding),
                dilation=(1, 1),
                groups=1,
                neuron=CubaNeuron(threshold=np.array(threshold)),
                segments=tuple(segments),
            ),
            sums,
            threshold,
        )
        return deviation

    def dense(self, weight: Weights, name: str = "") -> None:
        """Add a dense layer."""
        sums = dense_sums(weight, self.spikes)
        threshold = threshold_for(sums, self.rate)
        layer = DenseLayer(
            shape=(len(weight),),
            weight=weight,
            neuron=CubaNeuron(threshold=np.array(threshold)),
            flatten=self.spikes.ndim == 4,
            segments=(Segment("population", name, 0, len(weight)),),
        )
        self._add(layer, sums, threshold)

    def _add(self, layer: SynapticLayer, sums: npt.NDArray[np.float32], threshold: int) -> None:
        self.layers.append(layer)
        self.spikes = integrate_and_fire(sums, threshold)


def convs(
    rate: float = 0.08,
    *,
    width: int = 64,
    size: int = 32,
    depth: int = 6,
    steps: int = 32,
    images: int = 8,
    channels: int = 3,
    mean: float = 0.0,
    seed: int = 0,
) -> BenchNetwork:
    """3x3 convolutions one after the other, all of the same size.

    Args:
        rate: spikes a neuron and step, in the input and in every layer.
        width: channels of each layer.
        size: pixels a side.
        depth: number of convolutions.
        steps: T.
        images: how many images of input are made.
        channels: of the input.
        mean: of the weights, in standard deviations; rates above about 0.3 need a positive one.
        seed: of weights and input.

    Raises:
        UsageError: a number out of range, or a rate that cannot be reached.
    """
    _check(rate, width=width, size=size, depth=depth, steps=steps, images=images, channels=channels)
    rng = np.random.default_rng(seed)
    spikes = input_spikes(rng, rate, images, steps, (channels, size, size))
    builder = _Builder(rate, rng, mean, spikes[0])
    nodes: list[AnnNode] = []
    for index in range(depth):
        normal = builder.draw(width, channels if index == 0 else width, 3, 3)
        builder.conv(_quantiser(normal), name=f"conv{index}")
        nodes.append(AnnNode(f"conv{index}", "conv", (nodes[-1].name if nodes else "input",), he_scaled(normal), 1, 1))
    network = NetxNetwork(InputLayer((channels, size, size)), tuple(builder.layers))
    return BenchNetwork("convs", network, spikes, rate, tuple(nodes))


def dense(
    rate: float = 0.08,
    *,
    sizes: tuple[int, ...] = (784, 1024, 1024, 1024, 10),
    steps: int = 32,
    images: int = 64,
    seed: int = 0,
) -> BenchNetwork:
    """Dense layers one after the other.

    Args:
        rate: spikes a neuron and step, in the input and in every layer.
        sizes: neurons of the input and of each layer.
        steps: T.
        images: how many images of input are made.
        seed: of weights and input.

    Raises:
        UsageError: a number out of range, or a rate that cannot be reached.
    """
    _check(rate, layers=len(sizes) - 1, neurons=min(sizes, default=0), steps=steps, images=images)
    rng = np.random.default_rng(seed)
    spikes = input_spikes(rng, rate, images, steps, (sizes[0],))
    builder = _Builder(rate, rng, 0.0, spikes[0])
    nodes: list[AnnNode] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        normal = builder.draw(outputs, inputs)
        builder.dense(_quantiser(normal)(_DEVIATION), name=f"dense{index}")
        before = nodes[-1].name if nodes else "input"
        nodes.append(AnnNode(f"dense{index}", "dense", (before,), he_scaled(normal), relu=index < len(sizes) - 2))
    network = NetxNetwork(InputLayer((sizes[0],)), tuple(builder.layers))
    return BenchNetwork("dense", network, spikes, rate, tuple(nodes))


def resnet18(
    rate: float = 0.08,
    *,
    width: int = 64,
    size: int = 64,
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    steps: int = 32,
    images: int = 4,
    channels: int = 1,
    classes: int = 10,
    seed: int = 0,
) -> BenchNetwork:
    """The ResNet-18 that :func:`gascnn.models.resnet.resnet18` and lowering give at 64x64, without its biases.

    A 3x3 stem of stride 2; each block two convolutions, the first of which also relays the block's input, and the
    second adds it (through a 1x1 kernel where the size changes); the global average folded into the dense layer. The
    ANN has the same blocks with additions, and no relays.

    Args:
        rate: spikes a neuron and step, in the input and in every layer.
        width: channels of the first stage; each further one has twice as many.
        size: pixels a side; a multiple of ``2**len(blocks)``.
        blocks: in each stage.
        steps: T.
        images: how many images of input are made.
        channels: of the input.
        classes: outputs.
        seed: of weights and input.

    Raises:
        UsageError: a number out of range, or a rate that cannot be reached.
    """
    _check(rate, width=width, size=size, stages=len(blocks), steps=steps, images=images, channels=channels)
    if size % 2 ** len(blocks):
        raise UsageError(f"size is {size}; {len(blocks)} stages need a multiple of {2 ** len(blocks)}")
    rng = np.random.default_rng(seed)
    spikes = input_spikes(rng, rate, images, steps, (channels, size, size))
    builder = _Builder(rate, rng, 0.0, spikes[0])
    stem = builder.draw(width, channels, 3, 3)
    builder.conv(_quantiser(stem), stride=2, name="stem")
    nodes = [AnnNode("stem", "conv", ("input",), he_scaled(stem), 2, 1)]
    inputs = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            outputs = width * 2**stage
            _add_block(builder, nodes, f"layer{stage + 1}_{block}", inputs, outputs, 2 if stage and not block else 1)
            inputs = outputs
    side = size // 2 ** len(blocks)
    normal = builder.draw(classes, inputs)
    # The average over side x side positions, folded: every position has the same weight.
    builder.dense(np.repeat(_quantiser(normal)(_DEVIATION), side * side, axis=1), name="readout")
    nodes.append(AnnNode("average", "average", (nodes[-1].name,)))
    nodes.append(AnnNode("readout", "dense", ("average",), he_scaled(normal), relu=False))
    network = NetxNetwork(InputLayer((channels, size, size)), tuple(builder.layers))
    return BenchNetwork("resnet18", network, spikes, rate, tuple(nodes))


def _add_block(builder: _Builder, nodes: list[AnnNode], name: str, inputs: int, outputs: int, stride: int) -> None:
    """A residual block: two layers of the deployed network, three or four nodes of the ANN."""
    before = nodes[-1].name
    first, second = builder.draw(outputs, inputs, 3, 3), builder.draw(outputs, outputs, 3, 3)
    builder.conv(_quantiser(first), stride, relays=(0, inputs), name=f"{name}_relu")
    shortcut = None if stride == 1 and inputs == outputs else builder.draw(outputs, inputs)

    def kernel(deviation: float) -> Weights:
        centre = np.zeros((outputs, inputs, 3, 3), dtype=np.int32)
        if shortcut is None:
            centre[np.arange(outputs), np.arange(outputs), 1, 1] = _SKIP_WEIGHT
        else:
            centre[:, :, 1, 1] = _quantiser(shortcut)(deviation)
        return np.concatenate([_quantiser(second)(deviation), centre], axis=1)

    builder.conv(kernel, name=f"{name}_relu_out")
    nodes.append(AnnNode(f"{name}_conv1", "conv", (before,), he_scaled(first), stride, 1))
    nodes.append(AnnNode(f"{name}_conv2", "conv", (nodes[-1].name,), he_scaled(second), 1, 1, relu=False))
    added = nodes[-1].name
    if shortcut is not None:
        kernel_1x1 = he_scaled(shortcut)[:, :, None, None]
        nodes.append(AnnNode(f"{name}_shortcut", "conv", (before,), kernel_1x1, stride, 0, relu=False))
        before = nodes[-1].name
    nodes.append(AnnNode(f"{name}_add", "add", (added, before)))


def _with_relays(
    weight: Weights, sums: npt.NDArray[np.float32], spikes: Spikes, relays: tuple[int, int], stride: int
) -> tuple[Weights, npt.NDArray[np.float32], Segment]:
    """Append channels that answer every spike of the input's channels with one spike a step later."""
    start, stop = relays
    identity = np.zeros((stop - start, *weight.shape[1:]), dtype=np.int32)
    middle = weight.shape[2] // 2
    identity[np.arange(stop - start), np.arange(start, stop), middle, middle] = _RELAY_WEIGHT
    relayed = spikes[:, start:stop, ::stride, ::stride].astype(np.float32) * _RELAY_WEIGHT
    segment = Segment("relay", "input of the block", len(weight), len(weight) + stop - start)
    return np.concatenate([weight, identity]), np.concatenate([sums, relayed], axis=1), segment


def _quantiser(normal: npt.NDArray[np.float64]) -> Callable[[float], Weights]:
    """Function giving even 8-bit weights of a standard deviation."""

    def quantise(deviation: float) -> Weights:
        return np.clip(2 * np.round(normal * deviation / 2), WEIGHT_MIN, WEIGHT_MAX).astype(np.int32)

    return quantise


def input_spikes(rng: np.random.Generator, rate: float, images: int, steps: int, shape: tuple[int, ...]) -> Spikes:
    """Bernoulli spikes of images whose pixels have brightnesses spread evenly around ``rate``.

    Args:
        rng: source of randomness.
        rate: mean spikes a pixel and step.
        images: how many.
        steps: T.
        shape: of one image.

    Returns:
        (image, T, ...) uint8, 0/1.
    """
    spread = min(rate, 1 - rate)
    brightness = rate + spread * (2 * rng.random((images, 1, *shape)) - 1)
    return (rng.random((images, steps, *shape)) < brightness).astype(np.uint8)


def _check(rate: float, **numbers: int) -> None:
    if not 0 < rate < 1:
        raise UsageError(f"firing rate is {rate}; it must be above 0 and below 1")
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
