"""Random networks over everything Lava runs: the real Lava against the simulator, in one start of Lava."""

import numpy as np
import pytest

from gascnn.hardware import lava
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.lowering.shapes import conv_output_shape

pytestmark = [pytest.mark.lava, pytest.mark.slow]

SEEDS = {"zero": range(12), "subtract": range(100, 108)}


def one_or_each(rng, low, high, channels):
    """A value for all channels or, sometimes, one for each."""
    return rng.integers(low, high, channels) if rng.random() < 0.3 else np.array(int(rng.integers(low, high)))


def population(rng, reset, channels, drive):
    """Neurons that fire now and then at this drive, and their self-weights."""
    if reset == "subtract":
        leak = int(rng.integers(1, 200)) if rng.random() < 0.3 else 0
        neuron = CubaNeuron(np.array(drive // 2), np.array(leak), np.array(4096))
        return neuron, np.where(rng.random(channels) < 0.7, drive, rng.integers(1, drive + 1, channels))
    decays = (
        one_or_each(rng, 1500, 4097, channels) if rng.random() < 0.6 else np.array(4096),
        one_or_each(rng, 0, 2500, channels) if rng.random() < 0.6 else np.array(0),
    )
    return CubaNeuron(one_or_each(rng, max(1, drive // 4), drive + 1, channels), *decays), None


def random_conv(rng, before, reset, largest_input):
    while True:
        groups = int(rng.choice([1, 2, 4]))
        kernel, stride, padding, dilation = (
            tuple(int(n) for n in rng.integers(*limits, 2)) for limits in ((1, 4), (1, 3), (0, 3), (1, 3))
        )
        channels = groups * int(rng.integers(1, 4))
        if before[0] % groups:
            continue
        weight = rng.integers(-30, 60, (channels, before[0] // groups, *kernel)) * int(rng.choice([1, 2]))
        shape = conv_output_shape(before, weight.shape, stride, padding, dilation)
        if min(shape) >= 2:
            break
    drive = max(3, int(np.abs(weight).reshape(channels, -1).sum(axis=1).mean() * 0.3 * (largest_input + 1) / 2))
    neuron, self_weight = population(rng, reset, channels, drive)
    bias = (
        rng.integers(-drive // 3, drive // 2, channels if rng.random() < 0.5 else shape) if rng.random() < 0.4 else None
    )
    return ConvLayer(shape, weight, stride, padding, dilation, groups, neuron, bias, self_weight)


def random_dense(rng, before, reset):
    neurons, inputs = int(rng.integers(3, 12)), int(np.prod(before))
    weight = rng.integers(-100, 254, (neurons, inputs))
    weight[rng.random(weight.shape) < 0.3] = 0
    weight[0, :2] = 201, -57
    drive = int(np.abs(weight).sum(axis=1).mean() * 0.2)
    neuron, self_weight = population(rng, reset, neurons, drive)
    extra = {}
    if rng.random() < 0.4:
        extra["bias"] = rng.integers(-drive // 3, drive // 2, int(rng.choice([1, neurons])))
    if rng.random() < 0.3:
        extra["delay"] = rng.integers(0, 5, weight.shape)
    elif rng.random() < 0.3:
        extra["weight_rec"] = rng.integers(-100, 120, (neurons, neurons))
        extra["weight_rec"][0, :2] = -99, 100
    return DenseLayer((neurons,), weight, neuron, flatten=len(before) == 3, self_weight=self_weight, **extra)


def random_network(rng, reset):
    shape = int(rng.choice([1, 2, 4])), int(rng.integers(5, 9)), int(rng.integers(5, 9))
    bits, cells = (8 if rng.random() < 0.3 else 0), None
    if rng.random() < 0.2:
        bits, cells = 0, CubaNeuron(np.array(int(rng.integers(20, 120))), np.array(4096), np.array(300))
    layers = [random_conv(rng, shape, reset, 255 if bits else 1)]
    for add in (random_conv, random_dense, random_dense):
        if add is random_conv and rng.random() < 0.5:
            layers.append(random_conv(rng, layers[-1].shape, reset, 1))
        elif add is random_dense and (len(layers[-1].shape) == 3 or rng.random() < 0.5):
            layers.append(random_dense(rng, layers[-1].shape, reset))
    spikes = (rng.random((2, 12, *shape)) < 0.35).astype(np.uint8)
    if bits or cells is not None:
        spikes *= rng.integers(1, 256, spikes.shape).astype(np.uint8)
    return NetxNetwork(InputLayer(shape, cells), tuple(layers), bits, reset), spikes


def test_random_networks():
    assert lava.find_lava() is not None, "Lava is missing: run make setup"
    names = [(reset, seed) for reset, seeds in SEEDS.items() for seed in seeds]
    tasks = [random_network(np.random.default_rng(seed), reset) for reset, seed in names]

    results = lava.run_many(tasks)

    busy = 0
    for name, (network, spikes), found in zip(names, tasks, results, strict=True):
        expected = simulate(network, spikes, record="spikes")
        for layer, (theirs, ours) in enumerate(zip(found.spikes, expected.spikes, strict=True)):
            np.testing.assert_array_equal(theirs, ours, err_msg=f"{name}, layer {layer}")
            busy += 0.02 < theirs.mean() < 0.98
        np.testing.assert_array_equal(found.output_membrane, expected.output_membrane, err_msg=str(name))
        np.testing.assert_array_equal(found.output_counts, expected.output_counts, err_msg=str(name))
    assert busy > 0.8 * sum(network.depth for network, _ in tasks)
