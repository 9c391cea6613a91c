"""Synaptic operations by hand on tiny layers, and against a loop over every spike and every synapse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gascnn.benchmarks.counts import count_operations, fan_out, own_synapses, sent_by_input
from gascnn.benchmarks.paper_energy import ADD_PJ, MAC_PJ, paper_energy
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator import simulate
from gascnn.hardware.summary import summarise
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    Segment,
    SigmaDeltaNeuron,
)
from gascnn.toolkit.lowering.shapes import conv_output_shape

ONE = (1, 1)


def conv(before, weight, stride=ONE, padding=(0, 0), dilation=ONE, groups=1, **more):
    shape = conv_output_shape(before, weight.shape, stride, padding, dilation)
    return ConvLayer(shape, weight, stride, padding, dilation, groups, CubaNeuron(np.array(20)), **more)


# --- fan-out by hand -------------------------------------------------------------------------------------------------


def test_borders_of_a_padded_kernel():
    """3x3 with padding 1 on 3x3: a corner is read by 4 positions, an edge by 6, the middle by 9."""
    layer = conv((1, 3, 3), np.full((1, 1, 3, 3), 2), padding=ONE)
    np.testing.assert_array_equal(fan_out(layer, (1, 3, 3)), [[[4, 6, 4], [6, 9, 6], [4, 6, 4]]])


def test_borders_without_padding():
    """3x3 without padding on 4x4 has 2x2 outputs: the corner reaches one, the middle four."""
    layer = conv((1, 4, 4), np.full((1, 1, 3, 3), 2))
    np.testing.assert_array_equal(fan_out(layer, (1, 4, 4))[0, 0], [1, 2, 2, 1])
    np.testing.assert_array_equal(fan_out(layer, (1, 4, 4))[0, 1], [2, 4, 4, 2])


def test_a_stride_passes_over_pixels():
    """1x1 with stride 2 on 4x4 reads every second row and column; the others reach nothing."""
    layer = conv((1, 4, 4), np.full((3, 1, 1, 1), 2), stride=(2, 2))
    expected = np.zeros((4, 4), dtype=int)
    expected[::2, ::2] = 3
    np.testing.assert_array_equal(fan_out(layer, (1, 4, 4))[0], expected)


def test_groups_and_zero_weights():
    """Two groups of one channel in and two out: a channel reaches its own group; one weight of the four is zero."""
    weight = np.array([2, 4, 0, 6]).reshape(4, 1, 1, 1)
    layer = conv((2, 1, 1), weight, groups=2)
    np.testing.assert_array_equal(fan_out(layer, (2, 1, 1)).ravel(), [2, 1])
    np.testing.assert_array_equal(fan_out(layer, (2, 1, 1), stored=True).ravel(), [2, 2])
    np.testing.assert_array_equal(fan_out(layer, (2, 1, 1), np.array([True, False, False, True])).ravel(), [1, 1])


def test_dense_columns():
    layer = DenseLayer((2,), np.array([[2, 0, 4], [6, 0, 0]]), CubaNeuron(np.array(1)))
    np.testing.assert_array_equal(fan_out(layer, (3,)), [2, 0, 1])


@pytest.mark.parametrize("seed", range(12))
def test_fan_out_against_a_loop_over_outputs_and_taps(seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 4))
    before = (groups * int(rng.integers(1, 3)), int(rng.integers(5, 9)), int(rng.integers(5, 9)))
    kernel = tuple(int(n) for n in rng.integers(1, 4, 2))
    weight = rng.integers(-2, 3, (groups * int(rng.integers(1, 4)), before[0] // groups, *kernel)) * 2
    stride, padding, dilation = (
        tuple(int(n) for n in rng.integers(low, high, 2)) for low, high in ((1, 4), (0, 3), (1, 3))
    )
    layer = conv(before, weight, stride, padding, dilation, groups)
    expected = np.zeros(before, dtype=int)
    for out, c, i, j in np.ndindex(weight.shape):
        source = out // (len(weight) // groups) * (before[0] // groups) + c
        for y, x in np.ndindex(layer.shape[1:]):
            row, column = y * stride[0] + i * dilation[0] - padding[0], x * stride[1] + j * dilation[1] - padding[1]
            if 0 <= row < before[1] and 0 <= column < before[2] and weight[out, c, i, j]:
                expected[source, row, column] += 1
    np.testing.assert_array_equal(fan_out(layer, before), expected)


# --- a network with borders, a stride, groups, a relay and an always-on channel ---------------------------------------


def tiny_network(reset="zero", input_bits=0):
    """conv (two populations' channels, a relay, an always-on plane) -> grouped conv of stride 2 -> dense."""
    rng = np.random.default_rng(7)
    kernel = np.zeros((4, 2, 3, 3), dtype=int)
    kernel[:2] = rng.integers(-3, 8, (2, 2, 3, 3)) * 2
    kernel[0, 0, 1, 1] = 0
    kernel[2, 0, 1, 1] = kernel[3, 1, 1, 1] = 254
    own = (
        {"self_weight": np.array([20, 20, 254, 254]), "bias": np.array([0, 0, -100, -100])}
        if reset == "subtract"
        else {}
    )
    first = conv((2, 5, 5), kernel, padding=ONE, segments=(
        Segment("population", "a", 0, 2), Segment("relay", "input", 2, 3), Segment("always-on", "always-on", 3, 4),
    ), **own)  # fmt: skip
    grouped = rng.integers(-2, 6, (4, 2, 3, 3)) * 2
    second = conv(first.shape, grouped, stride=(2, 2), padding=ONE, groups=2,
                  segments=(Segment("population", "b", 0, 4),),
                  **({"self_weight": np.full(4, 20), "bias": np.zeros(4, dtype=int)} if own else {}))  # fmt: skip
    dense = DenseLayer((3,), rng.integers(-4, 9, (3, 36)) * 2, CubaNeuron(np.array(20)), flatten=True,
                       **({"self_weight": np.full(3, 20), "bias": np.zeros(3, dtype=int)} if own else {}))  # fmt: skip
    return NetxNetwork(
        InputLayer((2, 5, 5)), (first, second, dense), input_bits=input_bits, reset=reset, constant_channels=1
    )


def loop_over_spikes(network, sent):
    """Operations by (layer, source kind, target kind): every source, every target, every tap."""
    found = {}

    def kind(segments, channel):
        return next((s.kind for s in segments if s.start <= channel < s.stop), "population")

    for k, layer in enumerate(network.layers):
        before = network.input_of(k)
        for index in np.ndindex(before):
            planes = index[0] >= before[0] - network.constant_channels
            source = ("always-on" if planes else "input") if k == 0 else kind(network.layers[k - 1].segments, index[0])
            for target in range(layer.shape[0]):
                synapses = synapses_between(layer, before, index, target)
                key = (k, source, kind(layer.segments, target))
                found[key] = found.get(key, 0) + int(sent[k][index]) * synapses
    return {key: value for key, value in found.items() if value}


def synapses_between(layer, before, index, target):
    if isinstance(layer, DenseLayer):
        return int(layer.weight[target, np.ravel_multi_index(index, before)] != 0)
    per_group = before[0] // layer.groups
    if index[0] // per_group != target // (layer.shape[0] // layer.groups):
        return 0
    total = 0
    for y, x in itertools.product(range(layer.shape[1]), range(layer.shape[2])):
        i, j = (index[1 + a] + layer.padding[a] - (y, x)[a] * layer.stride[a] for a in (0, 1))
        if 0 <= i < layer.weight.shape[2] and 0 <= j < layer.weight.shape[3]:
            total += int(layer.weight[target, index[0] % per_group, i, j] != 0)
    return total


def run(network, images=3, steps=8, density=0.5):
    rng = np.random.default_rng(1)
    bare = (network.input_shape[0] - network.constant_channels, *network.input_shape[1:])
    most = 2**network.input_bits if network.input_bits else 2
    values = rng.integers(1, most, (images, steps, *bare)) * (rng.random((images, steps, *bare)) < density)
    fed = checked_spikes(network, values.astype(np.uint8))
    summary = summarise(simulate(network, fed))
    sent = sent_by_input(network, fed)
    return count_operations(network, sent, summary.totals, images=images, steps=steps), sent, summary


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_every_way_against_a_loop_over_every_spike(reset):
    network = tiny_network(reset)
    counts, sent, summary = run(network)
    expected = loop_over_spikes(network, [sent, *summary.totals])
    found = {(w.layer, w.source, w.target): w.operations for w in counts.ways if w.source != "own" and w.operations}
    assert found == expected
    assert (0, "always-on", "always-on") in found
    assert (0, "input", "relay") in found
    assert (1, "relay", "population") in found
    own = sum(int(total.sum()) for total in summary.totals) if reset == "subtract" else 0
    assert counts.additions(source="own") * counts.images == own
    assert counts.additions() * counts.images == sum(expected.values()) + own
    assert counts.multiply_accumulates() == 0


def test_figures_of_an_image():
    network = tiny_network()
    counts, sent, summary = run(network)
    told = counts.to_dict()
    assert told["synaptic_operations"] == pytest.approx(sum(told["operations_by_source"].values()))
    assert told["neuron_updates"] == (4 * 25 + 4 * 9 + 3) * (8 + 3)
    assert told["spikes_per_neuron"]["relay"] == pytest.approx(summary.totals[0][2].sum() / (25 * 3))
    # The relay answers each of its pixels' spikes with one: 25 pixels, density one half, 8 steps.
    assert summary.totals[0][2].sum() == sent[0].sum()
    population = summary.totals[0][:2].sum() + summary.totals[1].sum() + summary.totals[2].sum()
    assert told["spikes_per_neuron"]["population"] == pytest.approx(population / ((2 * 25 + 4 * 9 + 3) * 3))
    assert told["spikes_per_neuron"]["always-on"] == pytest.approx(8.0)  # a plane that is on in 8 steps
    assert told["spikes_per_source"] == pytest.approx(counts.additions() / told["synapses"])


def test_graded_input_multiplies_at_every_step_whatever_the_pixel():
    """25 + 25 input elements over their nonzero weights, T = 8: zero pixels are billed too."""
    network = tiny_network(input_bits=8)
    counts, _, _ = run(network, density=0.3)
    synapses = int(fan_out(network.layers[0], (2, 5, 5)).sum())
    assert counts.multiply_accumulates() == pytest.approx(synapses * 8)
    assert counts.additions(source="input") == 0
    assert counts.additions(source="population") > 0


def test_recurrent_synapses_are_their_own_source():
    recurrent = np.array([[0, 2], [4, 6]])
    layer = DenseLayer((2,), np.array([[8, 8], [8, 8]]), CubaNeuron(np.array(10)), weight_rec=recurrent)
    network = NetxNetwork(InputLayer((2,)), (layer,))
    counts = count_operations(network, np.array([3, 1]), [np.array([5, 2])], images=1, steps=4)
    # Neuron 0 reaches neuron 1 (weight 4), neuron 1 reaches both (2 and 6): 5 * 1 + 2 * 2.
    assert counts.additions(source="own") == 9
    assert counts.additions(source="input") == (3 + 1) * 2


def test_input_neurons_count_what_they_send():
    """Input neurons of threshold 1 that add up ones fire at every second step."""
    neuron = CubaNeuron(np.array(1))
    network = NetxNetwork(InputLayer((2,), neuron), (DenseLayer((1,), np.array([[2, 4]]), CubaNeuron(np.array(9))),))
    fed = np.ones((1, 6, 2), dtype=np.uint8)
    np.testing.assert_array_equal(sent_by_input(network, fed), [3, 3])


def test_messages_of_sigma_delta_neurons_multiply():
    """Pixels 0, 9 and 200 at every step: two messages, once each; a sum of 0 sends nothing on."""
    hidden = DenseLayer(
        (2,), np.array([[64, 64, 0], [64, 64, 64]]), SigmaDeltaNeuron(np.array(5)), bias=np.array([0, -250])
    )
    last = DenseLayer((2,), np.array([[64, 2], [4, 64]]), SigmaDeltaNeuron(read_out=True))
    network = NetxNetwork(InputLayer((3,), SigmaDeltaNeuron(np.array(0))), (hidden, last), input_bits=8)
    fed = checked_spikes(network, np.tile(np.array([0, 9, 200], dtype=np.uint8), (1, 3, 1)))
    summary = summarise(simulate(network, fed))
    sent = sent_by_input(network, fed)
    np.testing.assert_array_equal(sent, [0, 1, 1])
    np.testing.assert_array_equal(summary.totals[0], [1, 0])
    counts = count_operations(network, sent, summary.totals, images=1, steps=3)
    # Pixel 9 reaches both neurons, pixel 200 the second; the first's message reaches both read-outs.
    assert (counts.multiply_accumulates(), counts.additions()) == (3 + 2, 0)
    assert counts.spikes_per_neuron() == 0.5


def test_what_stands_for_the_anns_weights():
    """Into populations only, always-on sources left out; zeros are no synapses."""
    network = tiny_network()
    first = fan_out(network.layers[0], (2, 5, 5), np.array([True, True, False, False]))[0].sum()
    second = fan_out(network.layers[1], (4, 5, 5))[:3].sum()
    assert own_synapses(network) == first + second + np.count_nonzero(network.layers[2].weight)


def test_totals_that_do_not_fit():
    network = tiny_network()
    with pytest.raises(DataError, match=r"spike totals have shapes .* this network's input and layers have"):
        count_operations(network, np.zeros((1, 5, 5)), [], images=1, steps=1)
    with pytest.raises(UsageError, match="0 images of 3 steps; both must be at least 1"):
        count_operations(network, np.zeros((2, 5, 5)), [], images=0, steps=3)


# --- the paper's energy ----------------------------------------------------------------------------------------------


def test_papers_energy_by_hand():
    """2 inputs over 3 neurons: 4 spikes, fan-out 3, one image: 12 additions of 0.1 pJ; the ANN's 6 MACs of 3.2 pJ."""
    layer = DenseLayer((3,), np.full((3, 2), 2), CubaNeuron(np.array(50)))
    network = NetxNetwork(InputLayer((2,)), (layer,))
    counts = count_operations(network, np.array([3, 1]), [np.zeros(3)], images=1, steps=4)
    energy = paper_energy(counts, 6)
    assert (energy.snn_pj, energy.ann_pj) == (pytest.approx(12 * ADD_PJ), pytest.approx(6 * MAC_PJ))
    assert energy.ratio == pytest.approx(6 * 3.2 / 1.2)
    assert energy.spikes_per_source == pytest.approx(2.0)  # 12 additions over 6 synapses
    assert energy.ratio == pytest.approx(32 / energy.additions_per_ann_mac)
    assert energy.to_dict()["mac_pj"] == pytest.approx(3.2)


def test_at_0_615_spikes_a_source_the_paper_is_reached():
    layer = DenseLayer((1,), np.full((1, 1000), 2), CubaNeuron(np.array(50)))
    network = NetxNetwork(InputLayer((1000,)), (layer,))
    sent = (np.arange(1000) < 615).astype(int)
    energy = paper_energy(count_operations(network, sent, [np.zeros(1)], images=1, steps=1), 1000)
    assert energy.ratio == pytest.approx(52.03, abs=0.01)


def test_a_silent_network_has_no_ratio_and_no_ann_is_refused():
    layer = DenseLayer((1,), np.array([[2]]), CubaNeuron(np.array(50)))
    counts = count_operations(NetxNetwork(InputLayer((1,)), (layer,)), np.zeros(1), [np.zeros(1)], images=1, steps=1)
    assert paper_energy(counts, 5).ratio is None
    with pytest.raises(UsageError, match="ann_macs is 0; an ANN has at least one multiply-accumulate"):
        paper_energy(counts, 0)


def test_graded_input_is_billed_as_multiply_accumulates():
    network = tiny_network(input_bits=8)
    counts, _, _ = run(network)
    energy = paper_energy(counts, 1000)
    expected = counts.additions() * 0.1 + counts.multiply_accumulates() * 3.2
    assert energy.snn_pj == pytest.approx(expected)
