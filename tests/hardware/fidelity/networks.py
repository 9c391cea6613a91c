"""Random networks with their input: one generator for seeds (Lava) and for hypothesis (the quick comparison)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from fidelity import layers
from fidelity.choices import Choices, Drawn, Seeded
from fidelity.reference import Expected, run_first, run_layer, run_reference
from hypothesis import strategies as st

from gascnn.toolkit.lowering.network import InputLayer, NetxNetwork


@dataclass(frozen=True)
class Size:
    """How much work a case may be.

    Attributes:
        steps: the longest T.
        images: the most images.
        pairs: the most pairs of channels a convolution may connect.
        lava_s: what Lava may take, roughly; long windows go to networks that are quick.
    """

    steps: int
    images: int
    pairs: int
    lava_s: float


HYPOTHESIS = Size(steps=12, images=3, pairs=300, lava_s=1e9)
QUICK = Size(steps=40, images=3, pairs=1200, lava_s=1.2)
LONG = Size(steps=70, images=5, pairs=4300, lava_s=5.0)


@dataclass(frozen=True, eq=False)
class Case:
    """A network, what it is fed, and what must come out.

    Attributes:
        foreign: to be stored as another program would (``fidelity.foreign``), with numbers our exporter refuses.
        steps, skip_steps, record: as for ``simulate``.
        spelling: decides how a foreign file spells its numbers.
    """

    network: NetxNetwork
    spikes: np.ndarray
    steps: int | None
    skip_steps: int | None
    record: str
    foreign: bool
    spelling: int
    expected: Expected = field(repr=False)

    @property
    def total(self) -> int:
        """T + K."""
        return (self.spikes.shape[1] if self.steps is None else self.steps) + self.network.depth

    @property
    def images(self) -> int:
        return len(self.spikes)


def seeded_case(seed: int, size: Size) -> Case:
    """The network of a seed."""
    return generate(Seeded(seed), size)


@st.composite
def cases(draw: st.DrawFn, size: Size = HYPOTHESIS) -> Case:
    """Hypothesis over the same networks."""
    return generate(Drawn(draw), size)


def generate(choices: Choices, size: Size) -> Case:
    """One case."""
    reset = choices.pick("zero", "zero", "subtract")
    foreign = reset == "zero" and choices.chance(35)
    image = choices.chance(75)
    declared, bits, constant = _input(choices, image, foreign)
    images = choices.integer(1, size.images)
    plan = _plan(choices, image)
    steps = _steps(choices, size, images, len(plan))
    network = NetxNetwork(declared, (), bits, reset, constant)  # type: ignore[arg-type]
    spikes = _spikes(choices, network, images, steps)
    wanted = choices.pick(None, None, choices.integer(1, steps), steps + choices.integer(1, 6))
    source = run_first(_deep(network, len(plan)), spikes, wanted)
    built = []
    for kind in plan:
        before = built[-1].shape if built else declared.shape
        largest = 2**bits - 1 if bits and not built else 1
        add = layers.conv_layer if kind == "conv" else layers.dense_layer
        last = size.pairs if kind == "conv" else bool(built) or declared.neuron is not None
        built.append(add(choices, before, reset, source, largest, foreign, last))
        source = run_layer(built[-1], source).spikes
    network = NetxNetwork(declared, tuple(built), bits, reset, constant)  # type: ignore[arg-type]
    limit = spikes.shape[1] if wanted is None else wanted
    skip = choices.pick(None, None, choices.integer(0, limit - 1))
    expected = run_reference(network, spikes, wanted, skip)
    record, spelling = choices.pick("spikes", "spikes", "counts"), choices.integer(0, 2**31 - 2)
    return Case(network, spikes, wanted, skip, record, foreign, spelling, expected)


def _deep(network: NetxNetwork, depth: int) -> NetxNetwork:
    """A stand-in as deep as the network will be, to know what its first layer receives over T + K steps."""
    return NetxNetwork(network.input, (None,) * depth, network.input_bits, network.reset, network.constant_channels)  # type: ignore[arg-type]


def _plan(choices, image):
    convolutions = choices.integer(1, 3) if image and choices.chance(85) else 0
    dense = choices.integer(0, 2) if convolutions else choices.integer(1, 3)
    return ["conv"] * convolutions + ["dense"] * dense


def _input(choices, image, foreign):
    """Shape and kind of the input: spikes, graded, or to neurons of its own; always-on planes; message bits."""
    channels = choices.pick(1, 2, 3, 4, 16, 17, 33)
    shape = (channels, choices.integer(1, 9), choices.integer(1, 9)) if image else (choices.pick(*layers.WIDTHS),)
    kind = choices.pick("spikes", "spikes", "graded", "neurons")
    constant = 1 if shape[0] > 1 and not foreign and choices.chance(20) else 0
    if kind == "neurons":
        cells = layers.input_neurons(choices, shape)
        stored = choices.pick(None, 64)
        return InputLayer(shape, cells, stored, None if stored is None else 3), 0, constant
    return InputLayer(shape), choices.integer(1, 8) if kind == "graded" else 0, constant


def _steps(choices, size, images, depth):
    """T: short ones often, for what happens at the start matters most; long ones where they are affordable."""
    affordable = (size.lava_s / images - 0.25 - 0.1 * depth) / (0.0015 * (depth + 1))
    most = int(max(3, min(size.steps, affordable)))
    return choices.integer(1, choices.pick(most, min(most, 20), min(most, 4)))


def _spikes(choices, network, images, steps):
    """uint8 or bool, each image with a pattern of its own, always-on planes left out or not."""
    shape, constant = network.input_shape, network.constant_channels
    top = 255 if network.input.neuron is not None else 2 ** max(network.input_bits, 1) - 1
    shape = (shape[0] - constant, *shape[1:]) if choices.chance(70) else shape
    rows = []
    for _ in range(images):
        kind = choices.pick("random", "random", "zeros", "ones", "burst", "constant")
        rate = choices.pick(0.3, 0.02, 0.1, 0.6, 0.95)
        values = choices.bulk.randint(1, top + 1, (steps, *shape))
        active = choices.bulk.random_sample((steps, *shape)) < rate
        if kind == "constant":
            values, active = values[:1].repeat(steps, 0), active[:1].repeat(steps, 0)
        if kind == "burst":
            active[max(1, steps // 3) :] = False
        rows.append({"zeros": 0 * values, "ones": 0 * values + top}.get(kind, values * active))
    result = np.array(rows).astype(np.uint8)
    return result.astype(bool) if top == 1 and choices.chance(20) else result
