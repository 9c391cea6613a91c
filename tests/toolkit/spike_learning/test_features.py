"""The teacher's activations layer by layer: the right ones, the distance by hand, the same over windows of time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for, with_constant_channels
from gascnn.toolkit.errors import ConversionError
from gascnn.toolkit.spike_learning import LearningOptions, learn
from gascnn.toolkit.spike_learning.features import FeatureMatch, FeatureStatistics, TeacherFeatures, feature_loss
from gascnn.toolkit.spike_learning.machine import IntegerMachine


def hooked_relus(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What every ReLU gives, in the order in which torch runs them."""
    found: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _given, value: found.append(value.clone()))
        for module in model.modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def test_activations_are_those_of_the_teachers_own_relus(pair, images):
    given = torch.from_numpy(images(5)).float() / 255
    features = TeacherFeatures(pair.network, pair.ann, (1, 12, 12))
    expected = hooked_relus(pair.ann, given)
    # One layer for each ReLU, the read-out excluded: every one is matched, in order.
    assert features.layers == tuple(range(len(pair.network.layers) - 1))
    assert len(expected) == len(features.layers)
    for found, wanted in zip(features(given), expected, strict=True):
        assert wanted.std() > 0.01
        torch.testing.assert_close(found, wanted.movedim(1, -1), rtol=1e-4, atol=1e-4)


def test_sums_are_those_of_the_spikes(pair, images):
    machine = IntegerMachine(pair.network).eval()
    layers = TeacherFeatures(pair.network, pair.ann, (1, 12, 12)).layers
    with torch.no_grad():
        answer = machine(frames(pair.network, images(4)), keep_spikes=True, summed=layers)
    for k, found in zip(layers, answer.sums, strict=True):
        (segment,) = [s for s in pair.network.layers[k].segments if s.kind == "population"]
        wanted = answer.spikes[k].sum(0)[:, segment.start : segment.stop]  # channels first
        assert wanted.sum() > 0
        torch.testing.assert_close(found.movedim(-1, 1), wanted, rtol=0, atol=0)


def frames(network, images):
    return torch.from_numpy(with_constant_channels(network, encode_for(network, images)))


def test_windows_of_time_change_no_gradient(pair, images):
    given = frames(pair.network, images(2))
    layers = TeacherFeatures(pair.network, pair.ann, (1, 12, 12)).layers
    found = []
    for memory in (1 << 40, 1 << 20):
        machine = IntegerMachine(pair.network, memory_bytes=memory)
        machine._memory_bytes = memory if memory > 1 << 30 else 1  # one step at a time
        answer = machine(given, summed=layers)
        sum(value.square().sum() for value in answer.sums).backward()
        found.append([parameter.grad for parameter in machine.parameters() if parameter.grad is not None])
    assert len(found[0]) == len(found[1]) > 4
    for whole, cut in zip(*found, strict=True):
        assert whole.abs().sum() > 0
        torch.testing.assert_close(whole, cut, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_distance_by_hand():
    # One layer, two images of one position, three channels; the last never fires.
    spikes = [torch.tensor([[2.0, 0.0, 0.0], [4.0, 1.0, 0.0]])]
    wanted = [torch.tensor([[1.0, 0.0, 5.0], [3.0, 2.0, 7.0]])]
    statistics = FeatureStatistics(1)
    for part in (slice(0, 1), slice(1, 2)):
        statistics.add([spikes[0][part]], [wanted[0][part]])
    (match,) = statistics.matches()
    # Least squares: (2 1 + 4 3) / (4 + 16) = 0.7; (0 0 + 1 2) / 1 = 2; nothing to scale. Variances: 1, 1, 1.
    torch.testing.assert_close(match.factor, torch.tensor([0.7, 2.0, 0.0]))
    torch.testing.assert_close(match.power, torch.tensor(3.0))
    # (1.4 - 1)² + 0 and (2.8 - 3)² + 0, their mean over two images, over 3; the third channel is left out.
    expected = ((0.4**2) + (0.2**2)) / 2 / 3
    torch.testing.assert_close(feature_loss(spikes, wanted, [match]), torch.tensor(expected))
    doubled = feature_loss(spikes * 2, wanted * 2, [match, FeatureMatch(match.factor, match.power * 3)])
    torch.testing.assert_close(doubled, torch.tensor(expected * (1 + 1 / 3) / 2))


def test_it_brings_every_layer_closer_to_the_teacher(pair, images, tmp_path):
    options = LearningOptions(epochs=3, batch_size=16, learning_rate=5e-4, feature_weight=1.0, threads=1)
    fresh = images(100, seed=11)
    learned = learn(pair.network, pair.ann, images(256, seed=5), options, tmp_path, steps=4).network
    assert layer_errors(learned, pair.ann, fresh, 4) < 0.9 * layer_errors(pair.network, pair.ann, fresh, 4)


def layer_errors(network, teacher, images, steps):
    """Mean squared distance of the simulator's counts from the teacher's ReLUs, best factor a channel, independent of
    the code under test: numpy on what the simulator and torch's hooks give."""
    counts = simulate(network, encode_for(network, images, steps=steps)).counts
    wanted = hooked_relus(teacher, torch.from_numpy(images).float() / 255)
    errors = []
    for k, activation in enumerate(wanted):
        a = activation.numpy()
        (segment,) = [s for s in network.layers[k].segments if s.kind == "population"]
        n = counts[k][:, segment.start : segment.stop].astype(float)
        axes = (0, 2, 3)
        factor = (n * a).sum(axes, keepdims=True) / np.maximum((n * n).sum(axes, keepdims=True), 1)
        errors.append(np.square(factor * n - a).sum() / np.square(a - a.mean(axes, keepdims=True)).sum())
    return float(np.mean(errors))


def test_a_network_of_another_teacher_is_refused(pair, images, tmp_path):
    other = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    options = LearningOptions(epochs=1, feature_weight=1.0, threads=1)
    with pytest.raises(ConversionError, match="no layer of the network is found in the teacher"):
        learn(pair.network, other, images(32), options, tmp_path)
    nameless = [
        replace(layer, segments=tuple(replace(s, name="x") for s in layer.segments)) for layer in pair.network.layers
    ]
    with pytest.raises(ConversionError, match="no layer of the network is found"):
        TeacherFeatures(replace(pair.network, layers=tuple(nameless)), pair.ann, (1, 12, 12))


def test_a_goal_for_the_rate_lowers_it_to_the_goal_and_no_further(pair, images, tmp_path):
    base = LearningOptions(epochs=2, batch_size=16, learning_rate=1e-3, threads=1)
    given = images(128, seed=5)
    rates = {}
    for name, changes in {
        "free": {},
        "penalty": {"rate_penalty": 3.0},
        "goal": {"rate_penalty": 3.0, "rate_goal": 100.0},
    }.items():
        history = learn(pair.network, pair.ann, given, replace(base, **changes), tmp_path / name, steps=4).history
        rates[name] = history[-1]["spikes_a_source"]
    assert rates["penalty"] < 0.9 * rates["free"]
    assert rates["goal"] == rates["free"]
