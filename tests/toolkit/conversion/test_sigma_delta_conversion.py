"""Conversion to sigma-delta neurons: what the integers compute is what the ANN computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.hardware.simulator import simulate
from gascnn.models.spiking import SpikingNetwork
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.conversion import ConversionOptions, convert
from gascnn.toolkit.conversion.wave import Wave
from gascnn.toolkit.errors import ConversionError, UsageError
from gascnn.toolkit.graph_bundle import graph_from_bundle, graph_to_bundle
from gascnn.toolkit.lowering import LoweringOptions, lower, lower_with_report
from gascnn.toolkit.lowering.annotations import graph_notes, neuron_notes
from gascnn.toolkit.lowering.graph import topological_order
from gascnn.toolkit.lowering.network import ConvLayer
from gascnn.toolkit.spike_learning.machine import IntegerMachine


class Residual(nn.Module):
    """An identity and a projection shortcut, strides, batch norms, pooling: everything a ResNet has."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.conv3 = nn.Conv2d(6, 6, 3, 1, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.conv4, self.conv5, self.down = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(6, 8, 1, 2)
        self.fc = nn.Linear(8, 4)
        self.bn1.running_mean.normal_(0, 0.3)
        self.bn1.running_var.uniform_(0.2, 1)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv3(torch.relu(self.conv2(x))) + x)
        x = torch.relu(self.conv5(torch.relu(self.conv4(x))) + self.down(x))
        return self.fc(x.mean((2, 3)))


def pictures(count, seed=0):
    """Smooth blobs of different brightness: images that differ."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:8, :8] / 8
    centre, size = rng.random((count, 2, 2, 1, 1)), rng.uniform(0.05, 0.5, (count, 2, 1, 1))
    blob = np.exp(-((y - centre[:, :, 0]) ** 2 + (x - centre[:, :, 1]) ** 2) / size**2)
    return np.round(255 * blob * rng.uniform(0.2, 1, (count, 2, 1, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    return Residual().eval()


@pytest.fixture(scope="module")
def conversion(model):
    return convert(model, pictures(96), neuron="sdnn")


def logits(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images.astype(np.float32) / 255)).numpy()


def relative_error(found, wanted):
    """Of logits up to a factor and a constant each image."""
    found, wanted = (v - v.mean(1, keepdims=True) for v in (found.astype(np.float64), wanted.astype(np.float64)))
    factor = (found * wanted).sum() / (wanted * wanted).sum()
    return ((found / factor - wanted) ** 2).mean() / (wanted**2).mean()


def test_the_integers_compute_what_the_ann_does(model, conversion):
    images = pictures(64, seed=1)
    for options, allowed in ((LoweringOptions(), 0.05), (LoweringOptions(grade="simulator"), 0.03)):
        result = simulate(lower(conversion.graph, options), encode_for(lower(conversion.graph), images))
        assert relative_error(result.output_membrane, logits(model, images)) < allowed
    seen = simulate(lower(conversion.graph), encode_for(lower(conversion.graph), pictures(96)))
    assert not any(seen.wraps), "the calibration images leave room"


def test_without_thresholds_only_the_weights_are_rounded(model):
    images = pictures(64, seed=1)
    network = lower(convert(model, pictures(96), neuron="sdnn", message_error=0).graph)
    assert Wave(network).thresholds == [0] * network.depth
    result = simulate(network, encode_for(network, images))
    assert relative_error(result.output_membrane, logits(model, images)) < 0.02


def test_the_answer_is_there_after_one_wave(conversion):
    """T = 1: K + 1 steps, a message a neuron at most, and more steps change nothing."""
    network = lower(conversion.graph)
    images = pictures(8, seed=2)
    result = simulate(network, encode_for(network, images), record="spikes")
    longer = simulate(network, encode_for(network, images, steps=5))
    assert network.deployment.steps == result.steps == 1
    assert result.messages[0].shape[1] == network.depth + 1
    assert max(counts.max() for counts in result.counts[:-1]) == 1
    np.testing.assert_array_equal(longer.output_membrane, result.output_membrane)
    for short, long in zip(result.counts[:-1], longer.counts[:-1], strict=True):
        np.testing.assert_array_equal(short, long)


def test_the_wave_is_the_machine(conversion):
    network = lower(conversion.graph)
    images = pictures(8, seed=3)
    result = simulate(network, encode_for(network, images), record="spikes")
    wave = Wave(network, torch.float64)
    states = wave.input(torch.from_numpy(images))
    for index, sent in enumerate(result.messages):
        messages = wave.messages(states, wave.thresholds[index])
        states = wave.sums(index, messages)
        if index < network.depth - 1:
            states = states.relu()
            expected = wave.messages(states, wave.thresholds[index + 1])
            np.testing.assert_array_equal(sent.sum(axis=1), expected.numpy())
    np.testing.assert_array_equal(result.output_membrane, states.numpy())


def operations_by_hand(layer, messages):
    """Messages over weights that are not 0 and lead somewhere, one by one."""
    total = 0
    for where in np.argwhere(messages):
        if not isinstance(layer, ConvLayer):
            total += np.count_nonzero(layer.weight[:, np.ravel_multi_index(where, messages.shape)])
            continue
        channel, row, column = where
        for i, j in np.ndindex(*layer.weight.shape[2:]):
            y, x = row + layer.padding[0] - i, column + layer.padding[1] - j
            inside = y % layer.stride[0] == 0 and x % layer.stride[1] == 0
            inside &= 0 <= y // layer.stride[0] < layer.shape[1] and 0 <= x // layer.stride[1] < layer.shape[2]
            total += np.count_nonzero(layer.weight[:, channel, i, j]) if inside else 0
    return total


def test_operations_are_counted_synapse_by_synapse(conversion):
    network = lower(conversion.graph)
    wave, rng = Wave(network), np.random.default_rng(0)
    for index in (0, 3, network.depth - 1):
        messages = (rng.random((2, *network.input_of(index))) < 0.3) * rng.integers(1, 90, network.input_of(index))
        expected = sum(operations_by_hand(network.layers[index], image) for image in messages) / 2
        assert wave.operations(index, torch.from_numpy(messages)) == pytest.approx(expected)


def test_thresholds_save_operations_for_the_error_allowed(model):
    allowed = (0, 1e-6, 1e-5, 1e-4)
    made = [convert(model, pictures(96), neuron="sdnn", message_error=e).messages for e in allowed]
    assert [m.operations for m in made] == sorted((m.operations for m in made), reverse=True)
    assert made[0].operations == made[0].all_operations
    assert made[3].operations < 0.9 * made[0].operations
    assert all(m.error <= e for m, e in zip(made, allowed, strict=True))
    assert made[3].error > 1e-5


def test_what_is_noted_is_what_is_deployed(conversion):
    notes = graph_notes(conversion.graph)
    network = lower(conversion.graph)
    assert (notes.neuron, notes.reset, notes.coding, notes.steps) == ("sdnn", None, "constant", 1)
    assert Wave(network).thresholds == list(conversion.messages.thresholds)
    assert max(conversion.messages.thresholds) > 0
    again = graph_from_bundle(graph_to_bundle(conversion.graph))
    assert lower(again).digest() == network.digest()
    for name, scale in conversion.scales.items():
        assert neuron_notes(again.nodes[name]).message_threshold == pytest.approx(scale.message_threshold)


def test_relays_repeat_what_is_sent(conversion):
    network = lower(conversion.graph)
    images = pictures(4, seed=5)
    sent = simulate(network, encode_for(network, images), record="spikes").messages
    found = 0
    for index, layer in enumerate(network.layers[1:], start=1):
        for segment in (s for s in layer.segments if s.kind == "relay"):
            source = next(s for s in network.layers[index - 1].segments if s.name == segment.name)
            stride = getattr(layer, "stride", (1, 1))
            before = sent[index - 1][:, :, source.start : source.stop, :: stride[0], :: stride[1]]
            threshold = int(layer.neuron.threshold) << 6
            passed = np.where(np.abs(before[:, :-1]) >= threshold, before[:, :-1], 0)
            np.testing.assert_array_equal(sent[index][:, 1:, segment.start : segment.stop], passed)
            found += np.count_nonzero(passed)
    assert found > 100


def test_nothing_is_sent_without_an_image(conversion):
    network = lower(conversion.graph)
    dark = np.zeros((1, 1, *network.input_shape), dtype=np.uint8)
    assert not any(counts.any() for counts in simulate(network, dark).counts)


def test_the_report(conversion):
    report = conversion.to_dict()
    assert report["messages"]["thresholds"] == conversion.messages.thresholds
    assert 0 < min(report["firing_rates"].values()) <= 1
    lowered = lower_with_report(conversion.graph)
    assert lowered.to_dict()["neuron"] == "sdnn"
    assert not lowered.wrap_unproven()
    assert all(0 < layer.state_used <= 1 for layer in lowered.layers)


def test_in_floating_point_it_is_the_ann(model, conversion):
    images = pictures(16, seed=6)
    network = SpikingNetwork(conversion.graph, topological_order(conversion.graph), "none")
    output = network(torch.from_numpy(images.astype(np.float32) / 255)[:, None])
    assert relative_error(output.membrane.numpy(), logits(model, images)) < 0.01, "but for the corrected biases"
    assert not output.counts.any()
    np.testing.assert_array_equal(output.predictions(), output.membrane.argmax(1))


def test_pixels_of_another_depth():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).eval()
    images = np.random.default_rng(0).integers(0, 16, (32, 1, 4, 4)).astype(np.uint8)
    conversion = convert(net, images, neuron="sdnn", pixel_max=15, message_error=0)
    network = lower(conversion.graph)
    with torch.no_grad():
        wanted = net(torch.from_numpy(images.astype(np.float32) / 15)).numpy()
    fed = encode_for(network, images)
    assert fed.max() == 255
    assert relative_error(simulate(network, fed).output_membrane, wanted) < 0.01


def test_dead_channels_and_dense_networks():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        net[1].bias[:2] = -50.0
        net[3].weight[0] = 0.0
        net[3].bias[0] = -1.0
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 4, 4)).astype(np.uint8)
    network = lower(convert(net, images, neuron="sdnn").graph)
    with torch.no_grad():
        wanted = net(torch.from_numpy(images.astype(np.float32) / 255)).numpy()
    result = simulate(network, encode_for(network, images))
    assert relative_error(result.output_membrane, wanted) < 0.1
    assert (result.predictions() == wanted.argmax(1)).mean() > 0.9


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reset": "subtract"}, "reset subtract is for integrate-and-fire neurons; leave it out with neuron sdnn"),
        ({"leak": 0.9}, "leak 0.9 is for"),
        ({"initial_membrane": 0.0}, "initial_membrane 0.0 is for"),
        ({"coding": "bernoulli"}, "coding bernoulli is for"),
        ({"skip_steps": 3}, "skip_steps 3 is for"),
        ({"readout": "membrane"}, "readout membrane is for"),
        ({"percentile": 99.0}, "percentile 99.0 is for"),
        ({"fit_images": 3}, "fit_images 3 is for"),
        ({"message_error": -0.1}, "message_error is -0.1; it must be a share of the variance, 0 or more"),
        ({"message_error": float("nan")}, "message_error is nan"),
    ],
)
def test_options_of_other_neurons(options, match):
    with pytest.raises(UsageError, match=match):
        ConversionOptions(neuron="sdnn", **options).checked()


def test_what_is_no_neuron():
    with pytest.raises(UsageError, match="neuron is 'lif'; it must be cuba or sdnn"):
        ConversionOptions(neuron="lif").checked()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reset": "zero"}, "reset zero is for integrate-and-fire neurons; leave it out with sigma-delta neurons"),
        ({"bias": "neuron"}, "bias neuron is for"),
        ({"bias": "always-on"}, "bias always-on is for"),
        ({"input_bits": 4}, "input_bits 4 is for"),
    ],
)
def test_lowering_options_of_other_neurons(conversion, options, match):
    with pytest.raises(UsageError, match=match):
        lower(conversion.graph, LoweringOptions(**options))


def test_graphs_that_are_no_relus(conversion):
    again = graph_from_bundle(graph_to_bundle(conversion.graph))
    name = next(iter(conversion.scales))
    again.nodes[name].metadata.pop("current_peak")
    with pytest.raises(ConversionError, match=f"{name}: its calibration is missing"):
        lower(again)
    again.nodes[name].metadata |= {"current_peak": np.ones(6), "initial_membrane": 0.5}
    with pytest.raises(ConversionError, match=f"{name}: sigma-delta neurons stand for ReLUs, which have no memory"):
        lower(again)


def test_spike_learning_is_refused(conversion):
    with pytest.raises(ConversionError, match="sigma-delta networks are not learnt with spikes"):
        IntegerMachine(lower(conversion.graph))
