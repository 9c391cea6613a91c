"""Residual graphs as plain sequences: every population spikes as it does alone, every relay repeats one step later."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.hardware.simulator import simulate
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
    return b.neurons(b.dense(b.flatten(x), classes))


def identity_skip(b):
    return read_out(b, basic_block(b, b.neurons(b.conv("in", 5)), 5))


def bare_identity_skip(b):
    """A skip without any node: spikes are added as they are, in units of the current."""
    x = b.neurons(b.conv("in", 5))
    inner = b.neurons(b.conv(x, 5))
    return read_out(b, b.neurons(b.conv(inner, 5), x))


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
    return b.neurons(b.dense(b.flatten(b.pool(x)), 4, unit=8))


def skip_in_dense_layers(b):
    x = b.neurons(b.conv("in", 3, stride=2))
    f = b.flatten(x)
    h = b.neurons(b.dense(f, 12))
    h2 = b.neurons(b.dense(h, 10))
    return b.neurons(b.dense(h2, 4), b.dense(h, 4), b.dense(f, 4))


def skip_of_the_input(b):
    x = b.neurons(b.conv("in", 3))
    y = b.neurons(b.conv(x, 4))
    return read_out(b, b.neurons(b.conv(y, 4), b.conv("in", 4, 3)))


def image_skips_into_the_classifier(b):
    x = b.neurons(b.conv("in", 3))
    y = b.neurons(b.conv(x, 4))
    return b.neurons(b.dense(b.flatten(y), 4), b.dense(b.flatten(x), 4))


def unpadded(b):
    """Layers that cut the image; the shortcut reads only what its relay still holds."""
    x = b.neurons(b.conv("in", 4))
    y = b.neurons(b.conv(x, 4, 3, 1, 0))  # 6 x 6
    return read_out(b, b.neurons(b.conv(y, 5, 3), b.conv(x, 5, 3, 1, 0))) if False else read_out(b, y)


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
    unpadded,
    dilated,
]


def compare(network, result, expected, depth):
    """Every segment of every layer against the populations' own trains."""
    checked = set()
    for index, (layer, spikes) in enumerate(zip(network.layers, result.spikes, strict=True)):
        for segment in layer.segments:
            found = spikes[:, :, segment.start : segment.stop]
            if segment.kind == "population":
                np.testing.assert_array_equal(found, expected[segment.name], err_msg=f"{index} {segment}")
                checked.add(segment.name)
            elif segment.kind == "relay":
                late = index + 1 - depth[segment.name]
                train = expected[segment.name].reshape(*expected[segment.name].shape[:2], *expected[segment.name].shape[2:])
                want = np.zeros_like(train)
                want[:, late:] = train[:, : train.shape[1] - late]
                if layer.kind == "dense":
                    want = want.reshape(*want.shape[:2], -1)
                elif want.shape[3:] != found.shape[3:]:
                    step = -(-want.shape[3] // found.shape[3])
                    want = want[..., ::step, ::step]
                np.testing.assert_array_equal(found, want, err_msg=f"{index} {segment}")
    return checked


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", [1, 2])
def test_populations_and_relays(topology, reset, seed, builder, reference):
    b = builder(seed, SIZE, reset)
    graph = b.finish(topology(b))
    network = lower(graph).network
    expected = reference(graph, reset, b.start).run(b.spikes)
    rates = {name: train.mean() for name, train in expected.items()}
    assert min(rates.values()) > 0.02 and max(rates.values()) < 0.98, rates
    result = simulate(network, b.spikes, record="spikes")
    ref = reference(graph, reset, b.start)
    ref.run(b.spikes)
    expected["input"] = ref.trains["in"].numpy() > 0
    depth = {**ref.depth, "input": 0}
    assert compare(network, result, expected, depth) == set(rates)
    assert sum(result.wraps) == 0
