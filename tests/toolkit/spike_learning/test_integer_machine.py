"""The forward pass is the deployed network: every spike of every layer, against the simulator, which equals Lava."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for, with_constant_channels
from gascnn.toolkit.errors import ConversionError, DataError
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.spike_learning import IntegerMachine

KINDS = {
    "zero": {},
    "zero, planes for biases": {"lowering": {"bias": "input"}},
    "zero, leak": {"leak": 0.9},
    "zero, membrane read out": {"readout": "membrane"},
    "zero, pixels": {"coding": "constant"},
    "zero, a threshold a channel": {"lowering": {"grade": "simulator"}},
    "subtract": {"reset": "subtract"},
    "subtract, leak": {"reset": "subtract", "leak": 0.9},
    "subtract, pixels": {"reset": "subtract", "coding": "constant"},
}


def frames_of(network, images, steps):
    return torch.from_numpy(with_constant_channels(network, encode_for(network, images, steps=steps)))


def assert_same_spikes(network, frames):
    """All layers, neurons and steps, the silent ones behind the last frame included; and the whole read-out."""
    machine = IntegerMachine(network).eval()
    with torch.no_grad():
        found = machine(frames, tail=network.depth, keep_spikes=True)
        short = machine(frames)
    wanted = simulate(network, frames.numpy(), record="spikes", method="plain")
    for k, (mine, theirs) in enumerate(zip(found.spikes, wanted.spikes, strict=True)):
        assert not theirs[:, :k].any()  # before the layer's own step 0
        local = theirs[:, k:]
        np.testing.assert_array_equal(mine.transpose(0, 1).numpy()[:, : local.shape[1]] != 0, local)
        assert local.any() or k == network.depth - 1, f"layer {k} is silent: nothing was compared"
    np.testing.assert_array_equal(short.counts.numpy(), wanted.output_counts)
    units = 64 * machine.layers[-1].width.numpy()
    np.testing.assert_allclose(short.membrane.numpy() * units, wanted.output_membrane, rtol=1e-6, atol=0.01)
    return machine


@pytest.mark.parametrize("kind", KINDS)
def test_every_spike_is_that_of_the_simulator(kind, ann, deploy, images):
    network = deploy(ann(), **KINDS[kind])
    machine = assert_same_spikes(network, frames_of(network, images(3, seed=7), 12))
    assert machine.deployed().digest() == network.digest()


def test_also_after_learning_and_with_three_channels(ann, deploy, images):
    network = deploy(ann((1, 2), channels=3), channels=3)
    machine = IntegerMachine(network)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    learnt = machine.deployed()
    changed = [np.mean(a.weight != b.weight) for a, b in zip(learnt.layers, network.layers, strict=True)]
    assert min(changed) > 0.1
    for layer in learnt.layers:
        assert not np.any(layer.weight % 2)
        assert np.abs(layer.weight).max() <= 254
    assert_same_spikes(learnt, frames_of(learnt, images(3, 8, 3), 12))


def test_relays_are_copied_and_stay_as_they_are(ann, deploy):
    network = deploy(ann())
    machine = IntegerMachine(network)
    relays = [s for layer in network.layers for s in layer.segments if s.kind == "relay"]
    assert sum(len(layer.rows.copied) for layer in machine.layers) >= sum(s.stop - s.start for s in relays) > 0
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.add_(1.0)
    for new, old in zip(machine.deployed().layers, network.layers, strict=True):
        for segment in old.segments:
            if segment.kind != "population":
                rows = slice(segment.start, segment.stop)
                np.testing.assert_array_equal(new.weight[rows], old.weight[rows])


def test_connections_that_are_not_there_stay_away(ann, deploy):
    network = deploy(ann())
    machine = IntegerMachine(network)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.add_(1.0)
    second = next(k for k, layer in enumerate(network.layers) if any(s.kind == "relay" for s in layer.segments)) + 1
    before, after = network.layers[second].weight, machine.deployed().layers[second].weight
    shortcut = next(s for s in network.layers[second - 1].segments if s.kind == "relay")
    columns = slice(shortcut.start, shortcut.stop)
    diagonal = before[:, columns] != 0
    assert diagonal.sum() == columns.stop - columns.start  # an identity shortcut
    np.testing.assert_array_equal(after[:, columns] != 0, diagonal)
    assert np.any(after[:, columns] != before[:, columns])


def test_windows_of_time_change_nothing(ann, deploy, images):
    network = deploy(ann())
    frames = frames_of(network, images(2), 12)
    found = []
    for memory_bytes in (1 << 40, 1 << 20):
        machine = IntegerMachine(network, memory_bytes=memory_bytes)
        answer = machine(frames)
        (answer.membrane.sum() + answer.counts.square().sum() + answer.rates.sum()).backward()
        found.append((answer.counts.detach(), [p.grad.clone() for p in machine.parameters()]))
    assert IntegerMachine(network, memory_bytes=1 << 20)._window(2, 13) < 13
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=0)
    for short, whole in zip(found[1][1], found[0][1], strict=True):
        assert whole.abs().sum() > 0
        torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-6)


def test_dropout_is_held_over_time(ann, deploy, images):
    network = deploy(ann(), coding="constant", readout="membrane")
    machine = IntegerMachine(network, dropout=0.5).train()
    torch.manual_seed(0)
    masks = machine._masks(200)
    assert [m is not None for m in masks] == [k == network.depth - 2 for k in range(network.depth)]
    mask = masks[-2]
    assert mask.shape[0] == 200  # one an image, none a step
    assert set(mask.unique().tolist()) == {0.0, 2.0} or set(mask.unique().tolist()) == {0.0, 1.0, 2.0}
    assert 0.4 < float((mask == 0).float().mean()) < 0.6
    machine.eval()
    assert machine._masks(2) == [None] * network.depth


def test_what_cannot_be_learnt_is_refused(ann, deploy):
    network = deploy(ann())
    with pytest.raises(ConversionError, match="biases of their own, which act long before the image arrives"):
        IntegerMachine(deploy(ann(), lowering={"bias": "neuron"}))
    with pytest.raises(ConversionError, match="does not say which channels compute"):
        IntegerMachine(replace(network, layers=tuple(replace(layer, segments=()) for layer in network.layers)))
    delayed = replace(network.layers[-1], delay=np.ones_like(network.layers[-1].weight))
    with pytest.raises(ConversionError, match="delays and recurrent synapses cannot be learnt with"):
        IntegerMachine(replace(network, layers=(*network.layers[:-1], delayed)))
    neuron = CubaNeuron(np.array(5))
    fed = NetxNetwork(InputLayer((2,), neuron), (DenseLayer((2,), np.eye(2, dtype=int), neuron),))
    with pytest.raises(ConversionError, match="has input neurons"):
        IntegerMachine(fed)
    with pytest.raises(DataError, match=r"frames are \(5, 5\); this network takes"):
        IntegerMachine(network)(torch.zeros(1, 3, 5, 5))


def test_weights_of_a_readout_that_never_spikes_are_not_lost_in_its_threshold(pair):
    """An optimiser's step is as large for every weight: those of the read-out must be of the others' size."""
    layers = IntegerMachine(pair.network).machine_layers
    last = pair.network.layers[-1]
    assert np.abs(last.weight).max() < 0.1 * last.neuron.threshold.max()  # out of reach, or this proves nothing
    largest = [float(layer.weight.detach().abs().max()) for layer in layers]
    assert min(largest) > 0.2
    assert max(largest) < 10


def test_a_bias_has_few_places_where_it_may_change(pair):
    """Planes that are always on are all alike: many free weights on them would be rounded up at once."""
    machine = IntegerMachine(pair.network)
    planes = pair.network.constant_channels
    assert planes > 0
    for k, layer in enumerate(machine.machine_layers):
        before = pair.network.layers[k - 1].segments if k else ()
        ranges = [(s.start, s.stop) for s in before if s.kind == "always-on"]
        if k == 0:
            ranges = [(pair.network.input_shape[0] - planes, pair.network.input_shape[0])]
        if layer.weight.ndim != 4:
            continue
        for start, stop in ranges:
            free = layer.trainable[:, start:stop].flatten(1).sum(1)
            used = (layer.integers()[:, start:stop] != 0).flatten(1).sum(1)
            assert bool((free >= used).all())
            assert int((free - used).max()) <= 1
            assert int(free.min()) >= 1  # a bias that was 0 can become another
