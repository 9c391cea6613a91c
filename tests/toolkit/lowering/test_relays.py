"""Residual graphs as plain sequences: every population spikes as it does alone, every relay repeats one step later."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import ConversionError
from gascnn.toolkit.lowering import LoweringOptions, lower

SIZE = (3, 8, 8)


def basic_block(b, x, channels, stride=1, kernel=3):
    """conv - neurons - conv, plus the identity or a 1x1 projection."""
    inner = b.neurons(b.conv(x, channels, kernel, stride))
    same = stride == 1 and b.shapes[x][0] == channels
    # An identity needs weights of one threshold's size to count: a scale is what conversion writes there.
    shortcut = b.scale(x, 30) if same else b.conv(x, channels, 1, stride, 0)
    return b.neurons(b.conv(inner, channels, kernel), shortcut)


def read_out(b, x, classes=4):
    return b.neurons(b.dense(b.flatten(x), classes), one_threshold=True)


def identity_skip(b):
    return read_out(b, basic_block(b, b.neurons(b.conv("in", 5)), 5))


def bare_identity_skip(b):
    """A skip without any node: spikes are added as they are, in units of the current."""
    x = b.neurons(b.conv("in", 5))
    inner = b.neurons(b.conv(x, 5))
    return read_out(b, b.neurons(b.conv(inner, 5, unit=1), x, resistance=2))


def projection(b):
    return read_out(b, basic_block(b, b.neurons(b.conv("in", 4)), 6, stride=2))


def projection_of_an_odd_image(b):
    x = b.neurons(b.conv("in", 4, 2, 1, 0))  # 7 x 7
    return read_out(b, basic_block(b, x, 6, stride=2))


def chain_of_blocks(b):
    x = b.neurons(b.conv("in", 4))
    for channels, stride in ((4, 1), (6, 2), (6, 1), (8, 2)):
        x = basic_block(b, x, channels, stride)
    return read_out(b, x)


def bottleneck(b):
    """A skip over two layers, identity and then projected at stride 2 in the second of them."""
    x = b.neurons(b.conv("in", 6))
    for stride in (1, 2):
        y = b.neurons(b.conv(x, 4, 1))
        y = b.neurons(b.conv(y, 4, 3, stride))
        skip = b.scale(x, 40) if stride == 1 else b.conv(x, 6, 1, 2, 0)
        x = b.neurons(b.conv(y, 6, 1), skip)
    return read_out(b, x)


def stride_in_two_layers(b):
    """The relay is thinned out twice before the 1x1 shortcut of stride 4 reads it."""
    x = b.neurons(b.conv("in", 4))
    y = b.neurons(b.conv(x, 4, 3, 2))
    y = b.neurons(b.conv(y, 5, 3, 2))
    y = b.conv(y, 5, 3)
    return read_out(b, b.neurons(y, b.conv(x, 5, 1, 4, 0)))


def two_kernels(b):
    x = b.neurons(b.conv("in", 4))
    return read_out(b, b.neurons(b.conv(x, 5, 5), b.conv(x, 5, 3), b.conv(x, 5, (1, 3))))


def two_kernels_of_two_ages(b):
    x = b.neurons(b.conv("in", 4))
    y = b.neurons(b.conv(x, 4, 5))
    return read_out(b, b.neurons(b.conv(y, 5, (3, 1)), b.conv(x, 5, (1, 5)), b.conv(x, 5, 3, 1, 2, 2)))


def parallel_branches(b):
    """Two populations of one depth, of different kernel sizes, joined behind."""
    x = b.neurons(b.conv("in", 4))
    left, right = b.neurons(b.conv(x, 3, 3)), b.neurons(b.conv(x, 5, 5))
    return read_out(b, b.neurons(b.conv(left, 6), b.conv(right, 6, 1), b.conv(x, 6, 1)))


def pooled_shortcut(b):
    """Pooling with neurons of its own beside a strided convolution, as conversion places it."""
    x = b.neurons(b.conv("in", 4))
    pooled = b.neurons(b.scale(b.pool(x, total=True), 30))
    y = b.neurons(b.conv(x, 6, 2, 2, 0))
    return read_out(b, b.neurons(b.conv(y, 6), b.conv(pooled, 6, 1)))


def pooling_folded_everywhere(b):
    """Ahead of neurons, behind neurons, and ahead of the classifier."""
    x = b.neurons(b.pool(b.conv("in", 4, unit=8)))
    x = b.neurons(b.conv(b.pool(x), 6, unit=8))
    return b.neurons(b.dense(b.flatten(b.pool(x)), 4, unit=8), one_threshold=True)


def skip_in_dense_layers(b):
    x = b.neurons(b.conv("in", 3, stride=2))
    f = b.flatten(x)
    h = b.neurons(b.dense(f, 12))
    h2 = b.neurons(b.dense(h, 10))
    return b.neurons(b.dense(h2, 4), b.dense(h, 4), b.dense(f, 4), one_threshold=True)


def skip_of_the_input(b):
    x = b.neurons(b.conv("in", 3))
    y = b.neurons(b.conv(x, 4))
    return read_out(b, b.neurons(b.conv(y, 4), b.conv("in", 4, 3)))


def image_skips_into_the_classifier(b):
    x = b.neurons(b.conv("in", 3))
    y = b.neurons(b.conv(x, 4))
    return b.neurons(b.dense(b.flatten(y), 4), b.dense(b.flatten(x), 4), one_threshold=True)


def padded_beyond_the_image(b):
    """The layer that the skip passes is larger than the image: its relay holds zeros there, as the padding did."""
    x = b.neurons(b.conv("in", 4))
    y = b.neurons(b.conv(x, 4, 3, 1, 2))  # 10 x 10
    return read_out(b, b.neurons(b.conv(y, 5, 3), b.conv(x, 5, 3, 1, 2)))


def dilated(b):
    x = b.neurons(b.conv("in", 4, 3, 1, None, 2))
    return read_out(b, b.neurons(b.conv(x, 5, 3, 1, None, 2), b.conv(x, 5, 3, 1, None, 3)))


TOPOLOGIES = [
    identity_skip,
    bare_identity_skip,
    projection,
    projection_of_an_odd_image,
    chain_of_blocks,
    bottleneck,
    stride_in_two_layers,
    two_kernels,
    two_kernels_of_two_ages,
    parallel_branches,
    pooled_shortcut,
    pooling_folded_everywhere,
    skip_in_dense_layers,
    skip_of_the_input,
    image_skips_into_the_classifier,
    padded_beyond_the_image,
    dilated,
]


def compare(network, spikes, expected, depth):
    """Every segment of every layer against the populations' own trains; gives the names of those compared."""
    checked = set()
    for index, (layer, found) in enumerate(zip(network.layers, spikes, strict=True)):
        for segment in layer.segments:
            here = found[:, :, segment.start : segment.stop]
            if segment.kind == "population":
                np.testing.assert_array_equal(here, expected[segment.name], err_msg=f"layer {index} {segment}")
                checked.add(segment.name)
            elif segment.kind == "relay":
                late = index + 1 - depth[segment.name]
                np.testing.assert_array_equal(here, repeated(expected[segment.name], late, here, layer.kind))
    return checked


def repeated(train, late, like, kind):
    """The train ``late`` steps later, thinned out (or given a border of zeros) to the layer's size, or flattened."""
    result = np.zeros_like(train)
    result[:, late:] = train[:, : train.shape[1] - late]
    if kind == "dense":
        return result.reshape(*result.shape[:2], -1)
    if result.shape[3] >= like.shape[3]:
        step = -(-result.shape[3] // like.shape[3])
        return result[..., ::step, ::step]
    extra = like.shape[3] - result.shape[3]
    return np.pad(result, ((0, 0),) * 3 + ((0, extra),) * 2)


def run_both(b, graph, reset, reference, mode, **options):
    """(network, spikes of its layers, reference trains by name, depths)."""
    network = lower(graph, LoweringOptions(bias=mode, **options))
    alone = reference(graph, reset, b.start, mode or "input")
    expected = alone.run(b.spikes)
    rates = {name: train.mean() for name, train in expected.items()}
    assert min(rates.values()) > 0.02, rates
    assert max(rates.values()) < 0.98, rates
    result = simulate(network, b.spikes, record="spikes")
    assert sum(result.wraps) == 0
    expected["input"] = alone.trains["in"].numpy() > 0
    return network, result.spikes, expected, {**alone.depth, "input": 0}


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", [1, 2])
def test_populations_and_relays(topology, reset, seed, builder, reference):
    b = builder(seed, SIZE, reset)
    graph = b.finish(topology(b))
    network, spikes, expected, depth = run_both(b, graph, reset, reference, None)
    populations = set(depth) - {"in", "input"}
    assert compare(network, spikes, expected, depth) == populations
    assert network.deployment.grade == "hardware"


BIASED = [
    identity_skip,
    projection,
    bottleneck,
    two_kernels_of_two_ages,
    pooling_folded_everywhere,
    skip_in_dense_layers,
]


@pytest.mark.parametrize(
    ("reset", "mode"), [("zero", "neuron"), ("zero", "always-on"), ("zero", "input"), ("subtract", "input")]
)
@pytest.mark.parametrize("topology", BIASED, ids=lambda f: f.__name__)
def test_biases_act_when_their_mode_says(topology, reset, mode, builder, reference):
    b = builder(3, SIZE, reset, biases=90)
    graph = b.finish(topology(b))
    network, spikes, expected, depth = run_both(b, graph, reset, reference, mode)
    assert compare(network, spikes, expected, depth) == set(depth) - {"in", "input"}
    on = [
        found[:, :, s.start : s.stop]
        for la, found in zip(network.layers, spikes, strict=True)
        for s in la.segments
        if s.kind == "always-on"
    ]
    if mode == "neuron":
        assert not on
        return
    steps = b.spikes.shape[1]
    for k, channels in enumerate(on, start=1):
        first, last = (k, k + steps) if mode == "input" else (k - 1, channels.shape[1])
        assert channels[:, first:last].all()
        assert not channels[:, :first].any()
        assert not channels[:, last:].any()


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_without_biases_a_layer_is_only_late(reset, builder, reference):
    """Shifted by its depth, a deployed population equals one that sees everything without delay."""
    b = builder(5, SIZE, reset)
    graph = b.finish(chain_of_blocks(b))
    network, spikes, *_ = run_both(b, graph, reset, reference, None)
    undelayed = reference(graph, reset, b.start)
    undelayed.population_depth = lambda name: 0
    expected = undelayed.run(b.spikes)
    steps = b.spikes.shape[1]
    for index, (layer, found) in enumerate(zip(network.layers, spikes, strict=True), start=1):
        for segment in layer.segments:
            if segment.kind == "population":
                part = found[:, index : index + steps, segment.start : segment.stop]
                np.testing.assert_array_equal(part, expected[segment.name])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_random_chains(seed, reset, builder, reference):
    """Blocks of random kind, width, kernel, stride and skip, on images that are not square."""
    b = builder(100 + seed, (int(1 + seed % 3), 9, 7), reset, biases=40 * (seed % 2), steps=16)
    x = b.neurons(b.conv("in", 4, (3, 5)))
    for _ in range(3):
        channels, stride = int(b.rng.integers(3, 7)), int(b.rng.integers(1, 3))
        kernel = tuple(int(n) for n in b.rng.choice([1, 3, 5], 2))
        kind = b.rng.integers(3)
        if kind == 0:
            x = basic_block(b, x, channels, stride, kernel)
        elif kind == 1:
            x = b.neurons(b.conv(x, channels, kernel, stride), b.conv(x, channels, 1, stride, 0))
        else:
            y = b.neurons(b.conv(x, 4, 1))
            y = b.neurons(b.conv(y, 4, kernel, stride))
            x = b.neurons(b.conv(y, channels, 1), b.conv(x, channels, 1, stride, 0))
    graph = b.finish(read_out(b, x))
    network, spikes, expected, depth = run_both(b, graph, reset, reference, "input")
    assert compare(network, spikes, expected, depth) == set(depth) - {"in", "input"}


# --- what relays cannot carry ----------------------------------------------------------------------------------------


def assert_refused(b, output, match):
    graph = b.finish(output)
    with pytest.raises(ConversionError, match=match):
        lower(graph)


def test_a_relay_that_ends_too_early_is_refused(builder):
    b = builder(1, SIZE, "zero")
    x = b.neurons(b.conv("in", 4))
    y = b.neurons(b.conv(x, 4, 3, 1, 0))  # 6 x 6: the relay of x loses its last two rows and columns
    assert_refused(b, b.neurons(b.conv(y, 5, 3), b.conv(x, 5, 3, 1, 0)), "its relay ends before position 6")


def test_a_skip_into_a_dense_layer_past_a_cut_is_refused(builder):
    for stride, padding in ((2, 1), (1, 0)):
        b = builder(1, SIZE, "zero")
        x = b.neurons(b.conv("in", 4))
        y = b.neurons(b.conv(x, 4, 3, stride, padding))
        output = b.neurons(b.dense(b.flatten(y), 4), b.dense(b.flatten(x), 4))
        assert_refused(b, output, "into a dense layer passes a layer that turns")


def test_a_wide_shortcut_past_a_stride_is_refused(builder):
    b = builder(1, SIZE, "zero")
    x = b.neurons(b.conv("in", 4))
    y = b.neurons(b.conv(x, 4, 3, 2))
    assert_refused(b, b.neurons(b.conv(y, 5), b.conv(x, 5, 3, 2)), "use a 1x1 kernel in the shortcut")


def test_branches_of_different_stride_are_refused(builder):
    b = builder(1, SIZE, "zero")
    x = b.neurons(b.conv("in", 4))
    y = b.neurons(b.conv(x, 4, 3, 2))
    left = b.conv(y, 4, 1, 2, 0)  # 8 -> 4 -> 2, beside 8 -> (4) -> 2 by a stride of 4: seen from its relay, 2
    assert lower(b.finish(b.neurons(left, b.conv(x, 4, 1, 4, 0)))).depth == 3
    b = builder(1, SIZE, "zero")
    x = b.neurons(b.conv("in", 4))
    left, right = b.neurons(b.conv(x, 4, 3, 2)), b.neurons(b.conv(x, 4, 2, 1, 0))
    assert_refused(b, b.neurons(b.conv(left, 4, 1), b.conv(right, 4, 1, 2, 0)), "have different sizes")
    b = builder(1, (3, 9, 9), "zero")
    assert_refused(b, b.neurons(b.conv("in", 4, 3, 2, 0), b.conv("in", 4, 6, 1, 0)), "strides .2, 2. and .1, 1.")


def test_always_on_channels_must_reach_the_border(builder):
    """Two rows beyond the image hold no always-on spikes: neither this layer's biases nor a later one's."""
    for biased in (1, 2):
        b = builder(1, SIZE, "subtract", biases=0)
        x = b.neurons(b.conv("in", 4))
        b.biases = 60 if biased == 1 else 0
        y = b.neurons(b.conv(x, 4, 3, 1, 2))
        b.biases = 60
        assert_refused(b, read_out(b, y), "reads only padding at its border")


def test_populations_of_one_depth_must_leak_alike(builder):
    import nir

    b = builder(1, SIZE, "zero")
    x = b.neurons(b.conv("in", 4))
    left, right = b.neurons(b.conv(x, 4)), b.neurons(b.conv(x, 4))
    node, ones = b.nodes[right], np.ones(b.shapes[right])
    b.nodes[right] = nir.LIF(tau=2 * ones, r=ones, v_leak=0 * ones, v_threshold=node.v_threshold)
    graph = b.finish(b.neurons(b.conv(left, 4), b.conv(right, 4)), dt=1.0)
    with pytest.raises(ConversionError, match="share a layer but leak differently"):
        lower(graph)
