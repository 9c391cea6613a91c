"""Leaks, synaptic memory, graded input, groups and grades, each against a reference that knows nothing of layers."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import ConversionError, UsageError
from gascnn.toolkit.lowering import LoweringOptions, lower
from gascnn.toolkit.lowering.annotations import GraphNotes, NeuronNotes, set_graph_notes, set_neuron_notes

SIZE = (3, 6, 6)


def residual(b, channels=4):
    """Stem, a block with identity, read-out."""
    x = b.neurons(b.conv("in", channels))
    y = b.neurons(b.conv(x, channels))
    x = b.neurons(b.conv(y, channels), b.scale(x, 30))
    return b.neurons(b.dense(b.flatten(x), 3), one_threshold=True)


def populations_equal(network, found, expected):
    """Compare what every population of a network did; gives their names."""
    names = []
    for layer, spikes in zip(network.layers, found, strict=True):
        for segment in layer.segments:
            if segment.kind == "population":
                part = spikes[:, :, segment.start : segment.stop]
                np.testing.assert_array_equal(part, expected[segment.name], err_msg=str(segment))
                assert part.any(), segment
                names.append(segment.name)
    return names


# --- LIF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("biases", [0, 40])
def test_lif_that_keeps_half(reset, biases, builder, reference):
    """Halving whole numbers of 1/64 weight units is exact for six steps, so every spike must agree."""
    b = builder(4, SIZE, reset, biases=biases, steps=5, images=8, density=0.6, keep=0.5)
    graph = b.finish(residual(b), dt=1.0)
    network = lower(graph, LoweringOptions(bias="input"))
    assert all(layer.neuron.current_decay == (2048 if reset == "subtract" else 4096) for layer in network.layers)
    assert all(layer.neuron.voltage_decay == (4096 if reset == "subtract" else 2048) for layer in network.layers)
    expected = reference(graph, reset, b.start, "input").run(b.spikes)
    found = simulate(network, b.spikes, record="spikes").spikes
    assert len(populations_equal(network, found, expected)) == 4


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("keep", [0.99, 0.9, 0.7])
def test_lif_with_other_leaks(reset, keep, builder, reference):
    """Decays in 1/4096 and self-weights of few bits: rates within 4 points; relays must be exact all the same."""
    b = builder(4, SIZE, reset, steps=120, images=4, density=0.5, keep=keep)
    graph = b.finish(residual(b), dt=1.0)
    network = lower(graph)
    decay = network.layers[0].neuron.current_decay if reset == "subtract" else network.layers[0].neuron.voltage_decay
    assert decay == round((1 - keep) * 4096)
    result = simulate(network, b.spikes, record="spikes")
    expected = reference(graph, reset, b.start).run(b.spikes)
    for layer, before, spikes in zip(network.layers[1:], result.spikes, result.spikes[1:], strict=False):
        for segment in layer.segments:
            part = spikes[:, :, segment.start : segment.stop]
            if segment.kind == "relay":
                np.testing.assert_array_equal(part[:, 1:], before[:, :-1, : part.shape[2]])
                assert part.mean() > 0.05
            else:
                assert abs(part.mean() - expected[segment.name].mean()) < 0.04
    assert sum(result.wraps) == 0


def sequence(shape, *nodes, **notes):
    names = ["in", *(f"n{i}" for i in range(len(nodes))), "out"]
    ends = nir.Input({"input": np.array(shape)}), nir.Output({"output": np.array(nodes[-1].v_threshold.shape)})
    graph = nir.NIRGraph(
        dict(zip(names, (ends[0], *nodes, ends[1]), strict=True)),
        list(pairwise(names)),
        type_check=False,
    )
    set_graph_notes(graph, GraphNotes(**notes))
    return graph


def lif(size, tau, **parameters):
    values = {"tau": tau, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0, **parameters}
    return nir.LIF(**{name: np.broadcast_to(value, (size,)).astype(float) for name, value in values.items()})


def test_the_gain_of_a_lif_step():
    """dt / tau = 1/4 and R = 2: a weight of 1 moves the membrane by half a threshold."""
    affine = nir.Affine(np.ones((1, 1)), np.zeros(1))
    network = lower(sequence((1,), affine, lif(1, 4.0, r=2.0), reset="zero", dt=1.0))
    assert network.layers[0].weight.item() == 254
    assert network.layers[0].neuron.threshold == 508
    assert network.layers[0].neuron.voltage_decay == 1024


def test_leaky_neurons_need_the_length_of_a_step():
    graph = sequence((1,), nir.Affine(np.ones((1, 1)), np.zeros(1)), lif(1, 4e-3), reset="zero")
    with pytest.raises(ConversionError, match="need the length of a step; give it with --dt"):
        lower(graph)
    assert lower(graph, LoweringOptions(dt=1e-3)).layers[0].neuron.voltage_decay == 1024
    with pytest.raises(ConversionError, match=r"dt / tau is 2.5; one step must be shorter than the time constant"):
        lower(graph, LoweringOptions(dt=1e-2))


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"v_leak": 0.1}, "v_leak must be 0"),
        ({"v_reset": -0.1}, "v_reset must be 0"),
        ({"v_threshold": 0.0}, "v_threshold must be positive; found 0"),
        ({"tau": np.array([2.0, 4.0])}, "tau differs between neurons"),
    ],
)
def test_neurons_that_lava_does_not_have(parameters, match):
    node = lif(2, **{"tau": 4.0, **parameters})
    with pytest.raises(ConversionError, match=match):
        lower(sequence((2,), nir.Affine(np.eye(2), np.zeros(2)), node, reset="zero", dt=1.0))


# --- CubaLIF ---------------------------------------------------------------------------------------------------------


def cuba(size, theta, gain=1.0):
    """Half of current and membrane kept at dt 1; ``gain`` is what an input of 1 adds to the current."""
    values = {"tau_syn": 2, "tau_mem": 2, "r": 2, "v_leak": 0, "v_threshold": theta, "v_reset": 0, "w_in": 2 * gain}
    return nir.CubaLIF(**{name: np.full(size, float(value)) for name, value in values.items()})


def test_cuba_lif_keeps_current_and_membrane():
    """i = i / 2 + w s, v = v / 2 + i: whole numbers of 1/64 weight units for five steps."""
    rng = np.random.default_rng(0)
    first, second = 2.0 * rng.integers(-10, 30, (8, 5)), 2.0 * rng.integers(-10, 30, (3, 8))
    nodes = [nir.Affine(first, np.zeros(8)), cuba(8, 60.0), nir.Affine(second, np.zeros(3)), cuba(3, 60.0)]
    for node in (nodes[1], nodes[3]):
        set_neuron_notes(node, NeuronNotes(0.0, np.full(len(node.r), 65535 / 60.01)))
    network = lower(sequence((5,), *nodes, reset="zero", dt=1.0))
    assert [(la.neuron.current_decay, la.neuron.voltage_decay) for la in network.layers] == [(2048, 2048)] * 2
    spikes = (rng.random((20, 5, 5)) < 0.6).astype(np.uint8)
    result = simulate(network, spikes, record="spikes")
    signal = spikes.astype(float)
    for weight, found, depth in ((first, result.spikes[0], 1), (second, result.spikes[1], 2)):
        current, membrane = np.zeros((20, len(weight))), np.zeros((20, len(weight)))
        out = np.zeros((20, 5, len(weight)))
        for t in range(5):
            current = current / 2 + signal[:, t] @ weight.T
            membrane = membrane / 2 + current
            out[:, t] = membrane > 60
            membrane[membrane > 60] = 0
        np.testing.assert_array_equal(found[:, depth : depth + 5], out)
        assert 0.05 < out.mean() < 0.95
        signal = out


def test_cuba_lif_biases_pass_through_the_current():
    """A bias current b settles at 2 b where half is kept; the neuron's own bias, which is not filtered, is that much.

    Always-on channels cannot pass such a layer, so the neuron's own is the default.
    """
    one = nir.Affine(np.eye(2), np.array([0.25, -0.5]))
    network = lower(sequence((2,), one, cuba(2, 1.0), one, cuba(2, 1.0), reset="zero", dt=1.0))
    for layer in network.layers:
        assert layer.neuron.threshold == 254
        assert layer.bias.tolist() == [127, -254]
    deeper = sequence((2,), *(one, cuba(2, 1.0)) * 3, reset="zero", dt=1.0)
    with pytest.raises(ConversionError, match=r"synaptic current has a memory.* bias neuron"):
        lower(deeper, LoweringOptions(bias="always-on"))
    assert lower(deeper).depth == 3


def test_cuba_lif_cannot_reset_by_subtraction():
    graph = sequence((2,), nir.Affine(np.eye(2), np.zeros(2)), cuba(2, 1.0), reset="subtract", dt=1.0)
    with pytest.raises(ConversionError, match="keeps the membrane in the current; use IF or LIF"):
        lower(graph)


# --- graded input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reset", "mode"), [("zero", "neuron"), ("zero", "always-on"), ("zero", "input"), ("subtract", "input")]
)
def test_graded_pixels(reset, mode, builder, reference):
    """Pixels as integers at every step, a residual block behind them, biases everywhere.

    The graph means intensities: its first weights are 255 times those of the reference, which is fed with pixels.
    """
    steps = 60
    b = builder(9, SIZE, reset, steps=steps)
    b.spikes[:] = b.rng.integers(0, 21, (3, 1, *SIZE))
    first = b.neurons(b.conv("in", 4))
    theta = 126 * 16 if reset == "subtract" else 100
    stem = b.nodes["conv_1"]
    stem.weight = 2.0 * b.rng.integers(-1, 2, stem.weight.shape) * (4 if reset == "subtract" else 1)
    # A plane holds 255: what an even weight from it adds is a multiple of 510.
    stem.bias = 510.0 * np.array([0, -1, 0, 1]) if mode == "input" else np.array([10.0, -20.0, 0.0, 30.0])
    b.nodes[first].v_threshold[:] = theta
    peak = np.full(4, 65535 / (theta + 0.01))
    set_neuron_notes(b.nodes[first], NeuronNotes(b.start, peak, peak))
    b.biases = 60
    b.trains[first] = (torch.rand(3, steps, 4, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.4).double()
    y = b.neurons(b.conv(first, 4))
    x = b.neurons(b.conv(y, 4), b.scale(first, 30))
    graph = b.finish(b.neurons(b.dense(b.flatten(x), 3), one_threshold=True), coding="constant")
    expected = reference(graph, reset, b.start, mode).run(b.spikes)
    stem.weight = stem.weight * 255
    network = lower(graph, bias=mode, input_bits=8)
    assert network.input_bits == 8
    result = simulate(network, b.spikes, record="spikes")
    assert sum(result.wraps) == 0
    for depth, (layer, spikes) in enumerate(zip(network.layers, result.spikes, strict=True), start=1):
        # Behind the input's end, the always-on relay of a graded plane may fire once more: too late to be seen.
        window = slice(0, depth + steps)
        for segment in layer.segments:
            part = spikes[:, window, segment.start : segment.stop]
            if segment.kind == "population":
                np.testing.assert_array_equal(part, expected[segment.name][:, window], err_msg=str(segment))
                assert 0.02 < part.mean() < 0.98
            elif segment.kind == "always-on":
                assert part[:, depth:].all()


def test_a_skip_from_graded_input_is_refused(builder):
    b = builder(1, SIZE, "zero")
    x = b.neurons(b.conv("in", 4))
    graph = b.finish(b.neurons(b.conv(x, 4), b.conv("in", 4)), coding="constant")
    with pytest.raises(ConversionError, match="a skip from graded input; relays repeat spikes only"):
        lower(graph)


def graded_chain(peak, reset):
    """Two layers; the membranes of the first were seen as far as ``peak`` thresholds from 0."""
    shape = (2, 2, 2)
    stem = nir.Conv2d((2, 2), np.array([[[[0.5]], [[-1.0]]], [[[1.0]], [[0.25]]]]), 1, 0, 1, 1, np.zeros(2))
    first = nir.IF(r=np.ones(shape), v_threshold=np.ones(shape), v_reset=np.zeros(shape))
    set_neuron_notes(first, NeuronNotes(0.0, np.full(2, 1.0), np.full(2, peak)))
    flat = nir.Flatten({"input": np.array(shape)}, 0, -1)
    vector = nir.IF(r=np.ones(2), v_threshold=np.ones(2), v_reset=np.zeros(2))
    set_neuron_notes(vector, NeuronNotes(0.0, np.full(2, 1.0), np.full(2, 2.0)))
    return sequence(
        shape, stem, first, flat, nir.Affine(np.full((2, 8), 0.1), np.zeros(2)), vector, reset=reset, coding="constant"
    )


def test_pixels_and_weights_share_the_state():
    """Subtract: u reaches theta times 64 < 65536, so theta <= 1016 = 127 * 8 and a weight of 1 is theta / (2^b - 1).

    b = 8: 4 = 2 bits; 7: 8; 6: 16; 5: 1016 / 31 = 33 = 5 bits, 4 but for their parity; 4: 1016 / 15 = 68 = 6.1.
    """
    network = lower(graded_chain(64.0, "subtract"))
    assert network.layers[0].self_weight.tolist() == [1016, 1016]
    assert network.input_bits == 5
    assert network.layers[0].weight[:, :, 0, 0].tolist() == [[16, -32], [32, 8]]
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 2)).astype(np.uint8)
    fed = encode_for(network, images)
    np.testing.assert_array_equal(fed[:, 5], np.round(images / 255 * 31))
    assert simulate(network, fed).counts[0].any()


def test_reset_to_zero_has_room_for_whole_pixels():
    network = lower(graded_chain(64.0, "zero"))
    assert (network.input_bits, network.constant_channels) == (8, 0)
    assert network.layers[0].weight[:, :, 0, 0].tolist() == [[128, -254], [254, 64]]
    assert network.layers[0].neuron.threshold == 254 * 255


def test_bits_can_be_asked_for():
    assert lower(graded_chain(64.0, "subtract"), input_bits=8).input_bits == 8
    with pytest.raises(UsageError, match=r"input_bits is 9; it must be 1..8"):
        lower(graded_chain(64.0, "subtract"), input_bits=9)


def test_planes_of_graded_input_need_few_channels():
    """Pixels and planes are both 255 times what a spike is: a bias of 3 times the largest weight needs 3 planes."""
    affine = nir.Affine(np.full((1, 3), 0.5), np.array([1.5]))
    node = nir.IF(r=np.ones(1), v_threshold=np.ones(1), v_reset=np.zeros(1))
    options = LoweringOptions(bias="input")
    assert lower(sequence((3,), affine, node, reset="zero"), options).constant_channels == 3
    network = lower(sequence((3,), affine, node, reset="zero", coding="constant"), options)
    assert network.constant_channels == 3
    # All are divided by 255 alike: the bias of 1.5 is still three times 0.5.
    assert network.layers[0].weight.tolist() == [[254] * 6]
    assert network.layers[0].neuron.threshold == 254 * 255 * 2


def test_dense_planes_count_their_area():
    """Behind a flatten, an always-on channel of 2 x 2 is four columns: enough for a bias of four times the weights."""
    shape = (1, 2, 2)
    stem = nir.Conv2d((2, 2), np.ones((1, 1, 1, 1)), 1, 0, 1, 1, np.zeros(1))
    flat = nir.Flatten({"input": np.array(shape)}, 0, -1)
    image = nir.IF(r=np.ones(shape), v_threshold=np.ones(shape), v_reset=np.zeros(shape))
    vector = nir.IF(r=np.ones(2), v_threshold=np.ones(2), v_reset=np.zeros(2))
    affine = nir.Affine(np.full((2, 4), 0.5), np.array([2.0, -1.5]))
    network = lower(sequence(shape, stem, image, flat, affine, vector, reset="zero"))
    assert [s.stop - s.start for s in network.layers[0].segments] == [1, 1]
    assert network.layers[1].weight[:, 4:].tolist() == [[254, 254, 254, 254], [-254, -254, -254, 0]]


# --- groups, kernels, grades, vectors --------------------------------------------------------------------------------


def assert_one_by_one(b, graph, reference, options=None, reset="zero"):
    network = lower(graph, options)
    found = simulate(network, b.spikes, record="spikes").spikes
    populations_equal(network, found, reference(graph, reset, b.start).run(b.spikes))
    return network


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize(("channels", "kept"), [(6, 6), (128, 64), (130, 65)])
def test_depthwise_convolutions(channels, kept, reset, builder, reference):
    b = builder(1, (channels, 5, 5), reset, images=2, steps=12)
    x = b.neurons(b.conv("in", channels, 3, groups=channels))
    graph = b.finish(b.neurons(b.dense(b.flatten(x), 3), one_threshold=True))
    network = assert_one_by_one(b, graph, reference, reset=reset)
    assert network.layers[0].groups == kept
    assert network.layers[0].weight.shape == (channels, channels // kept, 3, 3)


@pytest.mark.parametrize("groups", [2, 3])
def test_grouped_convolutions_beside_relays_are_written_out(groups, builder, reference):
    b = builder(1, (6, 5, 5), "zero", images=2, steps=12)
    x = b.neurons(b.conv("in", 6, groups=groups))
    y = b.neurons(b.conv(x, 6, groups=groups))
    graph = b.finish(b.neurons(b.conv(y, 6, groups=groups), b.scale(x, 30)))
    network = assert_one_by_one(b, graph, reference)
    assert [layer.groups for layer in network.layers] == [groups, 1, 1]


def test_odd_geometry(builder, reference):
    """Kernels, strides, paddings and dilations that differ between the axes."""
    b = builder(2, (2, 11, 8), "zero")
    x = b.neurons(b.conv("in", 4, (3, 2), (2, 1), (1, 2), (2, 3)))
    graph = b.finish(b.neurons(b.conv(x, 3, (1, 4), (1, 2), (0, 1))))
    assert_one_by_one(b, graph, reference)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_vectors_all_the_way(reset, builder, reference):
    """A multilayer perceptron on a flat input, with and without planes for its biases."""
    b = builder(3, (12,), reset, biases=40)
    x = b.neurons(b.dense("in", 9))
    graph = b.finish(b.neurons(b.dense(x, 4), one_threshold=True))
    network = lower(graph, LoweringOptions(bias="input"))
    assert network.input_shape == (13,)
    found = simulate(network, b.spikes, record="spikes").spikes
    populations_equal(network, found, reference(graph, reset, b.start, "input").run(b.spikes))


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_flatten_directly_before_neurons(reset, builder, reference):
    """Spikes or a convolution, flattened, then neurons: a dense layer that only reorders."""
    b = builder(4, (2, 4, 4), reset)
    x = b.neurons(b.conv("in", 3))
    y = b.neurons(b.flatten(b.conv(x, 3)), one_threshold=True)
    graph = b.finish(b.neurons(b.dense(y, 3), one_threshold=True))
    network = assert_one_by_one(b, graph, reference, reset=reset)
    assert [layer.kind for layer in network.layers] == ["conv", "dense", "dense"]


def test_several_ways_from_one_source(builder, reference):
    b = builder(5, SIZE, "zero")
    x = b.neurons(b.conv("in", 4))
    total = b.neurons(b.conv(x, 4, 3), b.conv(x, 4, 1), b.scale(x, 20), b.conv(b.pool(x, 1), 4, (3, 1)))
    assert_one_by_one(b, b.finish(total), reference)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_simulator_grade(reset, builder, reference):
    """One threshold a channel also with reset to zero; relays need no share of the weights' range."""
    b = builder(6, SIZE, reset, grade="simulator")
    network = assert_one_by_one(b, b.finish(residual(b)), reference, LoweringOptions(grade="simulator"), reset)
    assert network.deployment.grade == "simulator"
    if reset == "zero":
        assert len(set(network.layers[0].neuron.threshold.tolist())) > 1
        assert network.layers[1].weight[4:].max() == 2


def test_foreign_graphs_must_be_told_their_reset():
    """No notes at all: a reset is asked for, the rest has defaults."""
    affine = nir.Affine(np.array([[1.0, 0.5]]), np.zeros(1))
    graph = nir.NIRGraph.from_list(affine, nir.IF(r=np.ones(1), v_threshold=np.ones(1)))
    with pytest.raises(ConversionError, match="does not say how its neurons reset"):
        lower(graph)
    network = lower(graph, LoweringOptions(reset="zero"))
    assert network.layers[0].weight.tolist() == [[254, 128]]  # 127 -> 128
    assert network.deployment.classes == ("0",)
    assert network.deployment.steps == 64
