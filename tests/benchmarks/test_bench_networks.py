"""The raced networks: the promised firing rates, found by the simulator, and the structure they claim."""

import numpy as np
import pytest

from gascnn.benchmarks.networks import convs, dense, input_spikes, resnet18
from gascnn.hardware.result import population_rates
from gascnn.hardware.simulator import simulate
from gascnn.models.resnet import count_macs, resnet
from gascnn.toolkit.errors import UsageError

SMALL = {
    "convs": lambda rate, **more: convs(rate, width=16, size=12, depth=3, steps=24, images=3, **more),
    "dense": lambda rate, **more: dense(rate, sizes=(128, 256, 256), steps=24, images=3, **more),
    "resnet18": lambda rate, **more: resnet18(rate, width=8, size=32, blocks=(1, 1), steps=24, images=3, **more),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("rate", [0.02, 0.08])
def test_every_layer_fires_as_promised(name, rate):
    bench = SMALL[name](rate)
    assert abs(bench.spikes.mean() - rate) < 0.1 * rate
    result = simulate(bench.network, bench.spikes, method="plain")
    rates = population_rates(bench.network, result.counts, bench.steps)
    # Thresholds are set on the first image; the others may differ a little, read-outs of ten neurons more.
    few = 2 if name == "resnet18" else len(rates)
    assert rates[:few] == pytest.approx([rate] * few, rel=0.15)
    assert rates == pytest.approx([rate] * len(rates), rel=0.6)
    first = simulate(bench.network, bench.spikes[:1], method="plain")
    populations = [
        r
        for r, layer in zip(population_rates(bench.network, first.counts, 24), bench.network.layers, strict=True)
        if np.prod(layer.shape) > 100
    ]
    assert populations == pytest.approx([rate] * len(populations), rel=0.1)


def test_half_of_all_neurons_fire_if_the_weights_have_a_mean():
    bench = convs(0.5, width=16, size=12, depth=2, steps=16, images=1, mean=0.25)
    result = simulate(bench.network, bench.spikes, method="plain")
    assert population_rates(bench.network, result.counts, 16) == pytest.approx([0.5, 0.5], rel=0.1)


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_even_8_bit_integers_of_the_seed(name):
    one, same, other = (SMALL[name](0.08, seed=seed) for seed in (1, 1, 2))
    for layer in one.network.layers:
        assert layer.weight.min() >= -256
        assert layer.weight.max() <= 254
        assert not np.any(layer.weight % 2)
        assert layer.neuron.threshold.ndim == 0
    assert one.network.digest() == same.network.digest() != other.network.digest()
    assert np.array_equal(one.spikes, same.spikes)


def test_full_size_networks_have_the_sizes_of_the_comparison():
    bench = convs(width=64, size=32, depth=2, steps=2, images=1)
    assert [layer.shape for layer in bench.network.layers] == [(64, 32, 32)] * 2
    assert bench.network.layers[1].weight.shape == (64, 64, 3, 3)


def test_resnet_relays_the_input_of_each_block():
    bench = SMALL["resnet18"](0.08)
    stem, first, second, down, out, readout = bench.network.layers
    assert [layer.shape for layer in bench.network.layers[:-1]] == [
        (8, 16, 16), (8 + 8, 16, 16), (8, 16, 16), (16 + 8, 8, 8), (16, 8, 8),
    ]  # fmt: skip
    assert readout.shape == (10,)
    assert readout.flatten
    assert (stem.stride, first.stride, down.stride, out.stride) == ((2, 2), (1, 1), (2, 2), (1, 1))
    assert [(s.kind, s.start, s.stop) for s in down.segments] == [("population", 0, 16), ("relay", 16, 24)]
    spikes = simulate(bench.network, bench.spikes, record="spikes", method="plain").spikes
    # A relay answers each spike a step later; the one of stride 2 repeats every other row and column.
    assert np.array_equal(spikes[1][:, 1:, 8:], spikes[0][:, :-1])
    assert np.array_equal(spikes[3][:, 1:, 16:], spikes[2][:, :-1, :, ::2, ::2])
    assert spikes[3][:, :, 16:].any()
    assert np.count_nonzero(second.weight[:, 8:]) == 8  # the identity, on the kernel's centre
    assert (out.weight[:, 16:, 1, 1] != 0).mean() > 0.5  # the 1x1 shortcut
    assert not np.any(np.delete(out.weight[:, 16:].reshape(16, 8, 9), 4, axis=2))


def test_the_ann_of_the_resnet_does_as_many_multiplications_as_the_model():
    """Node by node against torch's own counter, for the project's ResNet of the same arguments."""
    bench = resnet18(width=4, size=64, blocks=(2, 2), steps=2, images=1, classes=10)
    sides, macs = {"input": 64}, 0
    for node in bench.ann:
        side = sides[node.inputs[0]]
        if node.kind == "conv":
            side //= node.stride
            macs += node.weight.size * side * side
        elif node.kind == "dense":
            macs += node.weight.size
        sides[node.name] = side
    model = resnet(classes=10, blocks=(2, 2), width=4, channels=1, image_size=64)
    assert model.arguments["stem"] == "small-stride2"
    assert macs == sum(count_macs(model, (1, 64, 64)).values())
    assert [node.kind for node in bench.ann].count("add") == 4
    assert bench.ann[-1].name == "readout"


def test_brightness_of_the_input_spreads_around_the_rate():
    spikes = input_spikes(np.random.default_rng(0), 0.3, 2, 400, (50,))
    rates = spikes.mean(axis=1)
    assert spikes.mean() == pytest.approx(0.3, rel=0.1)
    assert rates.min() < 0.1
    assert rates.max() > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: convs(0.0), "firing rate is 0.0; it must be above 0 and below 1"),
        (lambda: dense(1.0), "firing rate is 1.0"),
        (lambda: convs(depth=0), "depth is 0; it must be at least 1"),
        (lambda: dense(sizes=(5,)), "layers is 0; it must be at least 1"),
        (lambda: resnet18(size=40), "size is 40; 4 stages need a multiple of 16"),
        (lambda: convs(0.9, width=8, size=8, depth=1, steps=8), "firing rate of 0.9 is out of reach"),
    ],
)
def test_impossible_networks_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
