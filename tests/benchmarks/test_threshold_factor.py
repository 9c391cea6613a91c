"""Factors against thresholds scaled in floating point, relays that still repeat, integers that stay legal."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch

from gascnn.benchmarks.threshold_factor import scale_graph, scale_network
from gascnn.hardware.simulator import simulate
from gascnn.models.resnet import resnet
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering import lower
from gascnn.toolkit.lowering.limits import BIAS_MAX
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork, SigmaDeltaNeuron
from gascnn.toolkit.lowering.rules import check_network

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8)).astype(np.uint8)


@pytest.fixture(scope="module")
def graphs():
    """A ResNet with an identity and a projection shortcut, converted for both resets."""
    torch.manual_seed(0)
    model = resnet(classes=3, blocks=(1, 1), width=4, channels=1, image_size=8).eval()
    return {
        reset: convert(model, IMAGES, reset=reset, steps=12, classes=("a", "b", "c")).graph
        for reset in ("zero", "subtract")
    }


def counts(network):
    return simulate(network, encode_for(network, IMAGES)).counts


def population_spikes(network, index):
    layer = network.layers[index]
    rows = [s for s in layer.segments if s.kind == "population"]
    return sum(int(counts(network)[index][:, s.start : s.stop].sum()) for s in rows)


def test_graph_thresholds_are_multiplied_but_not_the_read_outs(graphs):
    graph = graphs["zero"]
    scaled = scale_graph(graph, 0.8)
    readout = next(a for a, b in graph.edges if isinstance(graph.nodes[b], nir.Output))
    neurons = [name for name, node in graph.nodes.items() if isinstance(node, nir.IF)]
    assert len(neurons) > 2
    for name in neurons:
        factor = 1.0 if name == readout else 0.8
        np.testing.assert_allclose(scaled.nodes[name].v_threshold, np.asarray(graph.nodes[name].v_threshold) * factor)
        peaks = scaled.nodes[name].metadata["current_peak"], graph.nodes[name].metadata["current_peak"]
        np.testing.assert_allclose(peaks[0], np.asarray(peaks[1]) / factor, rtol=1e-6)
    assert scale_graph(graph, 1.0) is graph


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("factor", [0.3, 0.8, 1.25, 2.0, 5.0])
def test_deployed_thresholds_follow_the_floating_point_ones(graphs, reset, factor):
    """The first layer's spikes: integers scaled after lowering fire as those lowered from scaled thresholds."""
    deployed = lower(graphs[reset])
    found = population_spikes(scale_network(deployed, factor), 0)
    exact = population_spikes(lower(scale_graph(graphs[reset], factor)), 0)
    assert found == pytest.approx(exact, rel=0.04, abs=12)
    unscaled = population_spikes(deployed, 0)
    assert (exact > 1.05 * unscaled) if factor < 1 else (exact < 0.95 * unscaled)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("factor", [0.05, 0.5, 1.1, 1.7, 20.0])
def test_integers_stay_legal_and_relays_alive(graphs, reset, factor):
    network = lower(graphs[reset])
    scaled = scale_network(network, factor)
    check_network(scaled)
    assert scaled.digest() != network.digest()
    fired = simulate(scaled, encode_for(scaled, IMAGES), record="spikes").spikes
    relays = 0
    for index, layer in enumerate(scaled.layers):
        for segment in layer.segments:
            here = fired[index][:, :, segment.start : segment.stop]
            if segment.kind == "always-on":
                on = here.sum(axis=1)
                assert on.min() >= 12
                assert np.ptp(on) == 0
            elif segment.kind == "relay":
                source = next(s for s in scaled.layers[index - 1].segments if s.name == segment.name)
                sent = fired[index - 1][:, :-1, source.start : source.stop]
                stride = sent.shape[-1] // here.shape[-1]
                np.testing.assert_array_equal(here[:, 1:], sent[..., ::stride, ::stride])
                assert here.any() or factor == 20.0  # there nothing fires any more
                relays += 1
    assert relays == 2


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_thresholds_one_a_channel(graphs, factor):
    network = lower(graphs["zero"], grade="simulator")
    scaled = scale_network(network, factor)
    for old, new in zip(network.layers[:-1], scaled.layers[:-1], strict=True):
        if not np.ndim(old.neuron.threshold):
            continue
        rows = np.zeros(old.shape[0], dtype=bool)
        for segment in old.segments:
            rows[segment.start : segment.stop] = segment.kind == "population"
        np.testing.assert_array_equal(new.neuron.threshold[~rows], old.neuron.threshold[~rows])
        np.testing.assert_allclose(new.neuron.threshold[rows], old.neuron.threshold[rows] * factor, atol=0.5)
    np.testing.assert_array_equal(network.layers[-1].neuron.threshold, scaled.layers[-1].neuron.threshold)


def test_a_foreign_file_by_hand():
    """Threshold 10 and a factor of 1.5: 15, weights as they were; the read-out keeps its 10."""
    first = DenseLayer((2,), np.array([[4, 8], [-6, 2]]), CubaNeuron(np.array(10)), bias=np.array([1, 2]))
    last = DenseLayer((1,), np.array([[2, 4]]), CubaNeuron(np.array(10)))
    scaled = scale_network(NetxNetwork(InputLayer((2,)), (first, last)), 1.5)
    assert int(scaled.layers[0].neuron.threshold) == 15
    assert int(scaled.layers[1].neuron.threshold) == 10
    np.testing.assert_array_equal(scaled.layers[0].weight, first.weight)


def test_what_a_threshold_cannot_take_the_weights_give():
    """At 131 071 a threshold is as high as it goes: twice of 100 000 leaves weights and bias 0.655 of themselves."""
    first = DenseLayer((1,), np.array([[200, -100]]), CubaNeuron(np.array(100_000)), bias=np.array([1000]))
    last = DenseLayer((1,), np.array([[2]]), CubaNeuron(np.array(10)))
    scaled = scale_network(NetxNetwork(InputLayer((2,)), (first, last)), 2.0).layers[0]
    share = 131_071 / 200_000
    assert int(scaled.neuron.threshold) == 131_071
    np.testing.assert_array_equal(scaled.weight, [[2 * round(200 * share / 2), 2 * round(-100 * share / 2)]])
    assert int(scaled.bias[0]) == round(1000 * share)


def test_self_weights_by_hand():
    """theta 60 and 100, start at one half: factor 1.2 gives 72 and 120, thresholds of half of that by the bias."""
    layer = DenseLayer(
        (2,),
        np.array([[20, 4], [8, 30]]),
        CubaNeuron(np.array(40), current_decay=np.array(0), voltage_decay=np.array(4096)),
        bias=np.array([10, -10]),
        self_weight=np.array([60, 100]),
    )
    network = NetxNetwork(InputLayer((2,)), (layer, layer), reset="subtract")
    scaled = scale_network(network, 1.2).layers[0]
    np.testing.assert_array_equal(scaled.self_weight, [72, 120])
    fire = int(scaled.neuron.threshold) - scaled.bias
    np.testing.assert_array_equal(fire, [36, 60])
    assert np.abs(scaled.bias).max() <= BIAS_MAX


def test_sigma_delta_thresholds():
    network = NetxNetwork(
        InputLayer((2,), SigmaDeltaNeuron(np.array(0))),
        (
            DenseLayer((2,), np.array([[64, 2], [4, 64]]), SigmaDeltaNeuron(np.array(10)), bias=np.array([0, 0])),
            DenseLayer((2,), np.array([[64, 2], [4, 64]]), SigmaDeltaNeuron(read_out=True)),
        ),
    )
    assert int(scale_network(network, 0.5).layers[0].neuron.threshold) == 5


@pytest.mark.parametrize("factor", [0.0, -1.0, 0.01, 21.0, float("nan")])
def test_factors_out_of_range(graphs, factor):
    with pytest.raises(UsageError, match=r"threshold factor is .*; it must be 0.05\.\.20"):
        scale_network(lower(graphs["zero"]), factor)
    with pytest.raises(UsageError, match="threshold factor"):
        scale_graph(graphs["zero"], factor)
