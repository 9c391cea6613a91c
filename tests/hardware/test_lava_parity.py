"""Every spike of every layer at every step: the real Lava against the simulator, all cases in one start of Lava."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware import lava
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.lowering.shapes import conv_output_shape

pytestmark = pytest.mark.lava

SUBTRACT = {"current_decay": 0, "voltage_decay": 4096}


def neuron(threshold, current_decay=4096, voltage_decay=0):
    return CubaNeuron(*(np.asarray(value) for value in (threshold, current_decay, voltage_decay)))


def conv(before, weight, cell, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, bias=None, self_weight=None):
    shape = conv_output_shape(before, weight.shape, stride, padding, dilation)
    return ConvLayer(shape, weight, stride, padding, dilation, groups, cell, bias, self_weight)


def dense(weight, cell, **rest):
    return DenseLayer((len(weight),), weight, cell, **rest)


def network(shape, *layers, **rest):
    return NetxNetwork(InputLayer(shape), layers, **rest)


def random_spikes(rng, images, steps, shape, rate=0.4):
    return (rng.random((images, steps, *shape)) < rate).astype(np.uint8)


def weights(rng, shape, low=-60, high=100, step=2):
    return rng.integers(low // step, high // step, shape) * step


def strided(rng):
    """Rectangular kernel, stride and padding an axis; what is left of an image must not reach the next one."""
    first = conv((2, 7, 6), weights(rng, (3, 2, 3, 2)), neuron(60, 300), stride=(2, 1), padding=(1, 0))
    second = conv(first.shape, weights(rng, (2, 3, 1, 1)), neuron(50, 4096, 100))
    images = random_spikes(rng, 4, 12, (2, 7, 6))
    images[1], images[2] = 1, 0
    return network((2, 7, 6), first, second), images


def dilated_in_groups(rng):
    layer = conv(
        (4, 8, 7), weights(rng, (6, 2, 2, 3), step=1) | 1, neuron(75), dilation=(2, 1), groups=2, padding=(1, 2)
    )
    return network((4, 8, 7), layer), random_spikes(rng, 2, 10, (4, 8, 7))


def leaking_in_sequence(rng):
    first = conv((1, 6, 6), weights(rng, (3, 1, 3, 3)), neuron(150, 700, 200), padding=(1, 1))
    second = dense(weights(rng, (5, 108)), neuron(900, 1200, 60), flatten=True)
    return network((1, 6, 6), first, second), random_spikes(rng, 4, 15, (1, 6, 6))


def biased(rng):
    first = conv((1, 5, 5), weights(rng, (3, 1, 3, 3)), neuron(90), bias=np.array([13, 0, -20]))
    second = dense(weights(rng, (4, 27)), neuron(300), flatten=True, bias=np.array([75, -3, 0, 20]))
    return network((1, 5, 5), first, second), random_spikes(rng, 2, 12, (1, 5, 5))


def biased_each_neuron(rng):
    first = conv((2, 4, 6), weights(rng, (2, 2, 2, 3)), neuron(80), bias=rng.integers(-30, 50, (2, 3, 4)))
    second = dense(weights(rng, (3, 24)), neuron(100), flatten=True, bias=np.array([9]))
    return network((2, 4, 6), first, second), random_spikes(rng, 1, 12, (2, 4, 6))


def parameters_a_channel(rng):
    cell = neuron([40, 90, 20], [4096, 2500, 3000], [0, 100, 900])
    first = conv((2, 5, 5), weights(rng, (3, 2, 3, 3)), cell)
    second = dense(weights(rng, (3, 27)), neuron([200, 90, 120], [4096, 1000, 2000], 0), flatten=True)
    return network((2, 5, 5), first, second), random_spikes(rng, 3, 10, (2, 5, 5))


def delayed(rng):
    first = dense(weights(rng, (6, 8)), neuron(60), delay=rng.integers(0, 7, (6, 8)))
    second = dense(weights(rng, (4, 6)), neuron(40), delay=np.full((4, 6), 3))
    return network((8,), first, second), random_spikes(rng, 2, 16, (8,))


def recurrent(rng):
    first = dense(weights(rng, (6, 5)), neuron(60), weight_rec=weights(rng, (6, 6), -80, 60))
    return network((5,), first, dense(weights(rng, (3, 6)), neuron(40))), random_spikes(rng, 2, 14, (5,))


def graded(rng):
    first = conv((1, 6, 5), weights(rng, (3, 1, 3, 3)), neuron(6000), stride=(1, 2), padding=(1, 1))
    second = dense(weights(rng, (3, 54)), neuron(150), flatten=True)
    images = rng.integers(0, 256, (2, 1, 1, 6, 5)).repeat(10, axis=1).astype(np.uint8)
    return network((1, 6, 5), first, second, input_bits=8), images


def input_neurons(rng):
    first = conv((2, 5, 4), weights(rng, (2, 2, 2, 2)), neuron(60))
    second = dense(weights(rng, (3, 24)), neuron(50), flatten=True)
    populated = InputLayer((2, 5, 4), neuron(150, 4096, 200), weight=64, bias=0)
    values = rng.integers(0, 256, (2, 12, 2, 5, 4)).astype(np.uint8)
    return NetxNetwork(populated, (first, second)), values


def wrapping_current(rng):
    """A current that keeps everything and is driven beyond 2^23 comes out on the other side."""
    first = conv((1, 4, 4), np.full((2, 1, 2, 2), 9000) * [[[[1]]], [[[-1]]]], neuron(100, 0, 4096))
    return network((1, 4, 4), first), np.ones((1, 12, 1, 4, 4), dtype=np.uint8)


def saturating_membrane(rng):
    first = dense(np.array([[254], [-254]]), neuron(131071, 0, 0))
    return network((1,), first), np.ones((1, 60, 1), dtype=np.uint8)


def accumulator_beyond_24_bits(rng):
    first = conv((2, 3, 3), rng.integers(-(2**21), 2**21, (3, 2, 3, 3)), neuron(100000))
    return network((2, 3, 3), first), random_spikes(rng, 2, 12, (2, 3, 3), 0.9)


def dense_on_an_image(rng):
    return network((2, 3, 3), dense(weights(rng, (4, 18)), neuron(120))), random_spikes(rng, 2, 10, (2, 3, 3))


def residual(rng):
    """Two relay channels repeat the input one step later; the second layer adds them to what was computed."""
    dirac = np.zeros((2, 2, 3, 3), dtype=np.int64)
    dirac[[0, 1], [0, 1], 1, 1] = 2
    kernel = np.concatenate([weights(rng, (3, 2, 3, 3)), dirac])
    first = conv((2, 5, 5), kernel, neuron([70, 70, 70, 1, 1]), stride=(2, 2), padding=(1, 1))
    second = conv(first.shape, weights(rng, (2, 5, 3, 3)), neuron(90), padding=(1, 1))
    return network((2, 5, 5), first, second), random_spikes(rng, 2, 12, (2, 5, 5))


def subtracting(rng):
    """Populations, a relay and an always-on channel, each with a self-weight of its own; biases shift thresholds."""
    kernel = weights(rng, (4, 2, 3, 3), -40, 60)
    kernel[2] = kernel[3] = 0
    kernel[2, 0, 1, 1], kernel[3, 1, 1, 1] = 2, 2
    first = conv(
        (2, 7, 6),
        kernel,
        neuron(60, **SUBTRACT),
        stride=(2, 2),
        padding=(1, 1),
        bias=np.array([-60, 0, 59, 59]),
        self_weight=np.array([120, 120, 2, 0]),
    )
    second = dense(weights(rng, (5, 48), -30, 40), neuron(100, **SUBTRACT), flatten=True, self_weight=np.full(5, 208))
    images = random_spikes(rng, 2, 14, (1, 7, 6))
    return network((2, 7, 6), first, second, reset="subtract", constant_channels=1), images


def subtracting_graded_and_leaking(rng):
    first = conv((1, 6, 6), weights(rng, (2, 1, 3, 3)), neuron(7000, 40, 4096), self_weight=np.array([14080, 6400]))
    second = conv(first.shape, weights(rng, (3, 2, 2, 2)), neuron(60, **SUBTRACT), self_weight=np.full(3, 61))
    images = rng.integers(0, 256, (1, 1, 1, 6, 6)).repeat(16, axis=1).astype(np.uint8)
    return network((1, 6, 6), first, second, reset="subtract", input_bits=8), images


def subtracting_beyond_eight_bits(rng):
    """Self-weights without a shared exponent take several inhibitory synapses; simulator grade only."""
    first = dense(weights(rng, (4, 6), 0, 250), neuron(300, **SUBTRACT), self_weight=np.array([601, 257, 70001, 0]))
    second = dense(
        weights(rng, (3, 4)), neuron(40, **SUBTRACT), self_weight=np.array([64, 96, 80]), delay=np.full((3, 4), 2)
    )
    return network((6,), first, second, reset="subtract"), random_spikes(rng, 1, 16, (6,))


def subtracting_in_many_channels(rng):
    """134 = 2 * 67 channels: the inhibition takes 67 groups of two."""
    first = conv(
        (1, 3, 3), weights(rng, (134, 1, 2, 2)), neuron(50, **SUBTRACT), self_weight=rng.integers(60, 200, 134)
    )
    return network((1, 3, 3), first, reset="subtract"), random_spikes(rng, 1, 10, (1, 3, 3))


CASES = [
    strided,
    dilated_in_groups,
    leaking_in_sequence,
    biased,
    biased_each_neuron,
    parameters_a_channel,
    delayed,
    recurrent,
    graded,
    input_neurons,
    wrapping_current,
    saturating_membrane,
    accumulator_beyond_24_bits,
    dense_on_an_image,
    residual,
    subtracting,
    subtracting_graded_and_leaking,
    subtracting_beyond_eight_bits,
    subtracting_in_many_channels,
]
FOREIGN = {
    # name: (stored matrix, extra datasets, effective matrix by hand)
    "halved": ([[0, -128]], {}, [[0, -64]]),
    "halved in part": ([[-128, -64]], {}, [[-64, -64]]),
    "weakened": ([[0, -12], [0, -16]], {}, [[0, -12], [0, -14]]),
    "clipped": ([[300, -2], [-300, 5]], {}, [[254, -2], [-256, 5]]),
    "odd and negative": ([[-7, -3], [-1, -5]], {}, [[-7, -3], [-1, -5]]),
    "delay a neuron": ([[30, 40], [50, -20]], {"delay": np.array([1.0, 3.0])}, [[30, 40], [50, -20]]),
    "delay an input": ([[30, 40], [50, -20], [7, 9]], {"delay": np.array([4, 1])}, [[30, 40], [50, -20], [7, 9]]),
    "one delay": ([[30, 40], [50, -20], [7, 9]], {"delay": np.array(2)}, [[30, 40], [50, -20], [7, 9]]),
    "fractions": ([[5.99, -5.99]], {}, [[5, -5]]),
}


def write_foreign(path, matrix, extra):
    """A dense layer as another program may write it: no input layer, a bias that makes negative weights visible."""
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer["type"] = np.array([b"dense"])
        layer["shape"] = np.array([len(matrix)])
        layer["weight"] = np.array(matrix, dtype=np.float32)
        layer["bias"] = np.full(len(matrix), 50)
        for name, value in extra.items():
            layer[name] = value
        cell = layer.create_group("neuron")
        cell["type"] = "CUBA"
        cell["iDecay"], cell["vDecay"], cell["vThMant"] = 4096, 0, 90


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Each case's network, input, the simulator's result and Lava's."""
    assert lava.find_lava() is not None, "Lava is missing: run make setup"
    cases, tasks = {}, {}
    for index, case in enumerate(CASES):
        tasks[case.__name__] = case(np.random.default_rng(1000 + index))
    for name, (matrix, extra, _) in FOREIGN.items():
        path = tmp_path_factory.mktemp("foreign") / "a.net"
        write_foreign(path, matrix, extra)
        tasks[name] = path, random_spikes(np.random.default_rng(7), 1, 16, (len(matrix[0]),))
    # Lava's own process models; tests/hardware/test_lava_fast_models.py compares the faster ones with them.
    found = lava.run_many([lava.Task(*task, stock_models=True) for task in tasks.values()])
    for (name, (model, spikes)), result in zip(tasks.items(), found, strict=True):
        parsed = read_netx(model) if isinstance(model, Path) else model
        cases[name] = parsed, spikes, simulate(parsed, spikes, record="spikes"), result
    return cases


@pytest.mark.parametrize("name", [*(case.__name__ for case in CASES), *FOREIGN])
def test_every_spike_equals_the_simulator(results, name):
    model, spikes, expected, found = results[name]

    assert len(found.spikes) == len(expected.spikes) == model.depth
    for layer, (theirs, ours) in enumerate(zip(found.spikes, expected.spikes, strict=True)):
        assert theirs.dtype == bool
        assert theirs.shape == (len(spikes), spikes.shape[1] + model.depth, *model.layers[layer].shape)
        np.testing.assert_array_equal(theirs, ours, err_msg=f"layer {layer}")
        assert 0 < theirs.mean() < 1, f"layer {layer} does nothing worth comparing"
    for layer in range(model.depth):
        np.testing.assert_array_equal(found.counts[layer], expected.counts[layer])
    np.testing.assert_array_equal(found.output_counts, expected.output_counts)
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)
    assert found.steps == spikes.shape[1]
    assert found.wraps is None


def test_relays_repeat_their_input_one_step_later(results):
    _, spikes, _, found = results["residual"]

    np.testing.assert_array_equal(found.spikes[0][:, 1:13, 3:], spikes[:, :, :, ::2, ::2])


def test_the_always_on_channel_is_added(results):
    _, _, _, found = results["subtracting"]

    assert found.spikes[0][:, 1:15, 3].all()
    assert not found.spikes[0][:, 0, 3].any()


def test_a_silent_image_between_others_stays_silent(results):
    _, spikes, _, found = results["strided"]

    assert not spikes[2].any()
    assert not any(layer[2].any() for layer in found.spikes)
    assert all(layer[3].any() for layer in found.spikes)


def test_the_current_wraps_where_the_simulator_says(results):
    _, _, expected, found = results["wrapping_current"]

    assert expected.wraps[0] > 0
    # 36000 weight units a step: positive beyond 131071 from the 4th on, then negative, and the other channel opposite.
    np.testing.assert_array_equal(found.spikes[0][0, :8, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.spikes[0][0, :8, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1])


def test_the_membrane_saturates(results):
    _, _, _, found = results["saturating_membrane"]

    # 254 t (t + 1) / 2 weight units after t steps: beyond the threshold of 131071 from the 32nd on.
    np.testing.assert_array_equal(np.flatnonzero(found.spikes[0][0, :, 0])[0], 32)
    assert found.output_membrane[0, 1] == -(2**23) + 1


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_matrices_act_as_computed_by_hand(results, name):
    model, spikes, _, found = results[name]
    effective = np.array(FOREIGN[name][2])
    delays = np.zeros(effective.shape, dtype=int) if model.layers[0].delay is None else model.layers[0].delay
    membrane = np.zeros(len(effective), dtype=int)
    for step in range(spikes.shape[1] + 1):
        sums = [
            sum(w * spikes[0, step - 1 - d, i] for i, (w, d) in enumerate(zip(*row, strict=True)) if step - 1 - d >= 0)
            for row in zip(effective, delays, strict=True)
        ]
        membrane = membrane + np.array(sums) + 50
        fired = membrane > 90
        np.testing.assert_array_equal(found.spikes[0][0, step], fired, err_msg=f"step {step}")
        membrane[fired] = 0


def test_counts_steps_and_skipping_agree(tmp_path):
    rng = np.random.default_rng(3)
    model, spikes = leaking_in_sequence(rng)
    settings = {"steps": 20, "skip_steps": 4, "record": "counts"}
    seen = []

    found = lava.run(model, spikes, progress=seen.append, **settings)

    expected = simulate(model, spikes, **settings)
    assert found.spikes is None
    assert found.steps == 20
    for theirs, ours in zip(found.counts, expected.counts, strict=True):
        np.testing.assert_array_equal(theirs, ours)
        assert theirs.any()
    np.testing.assert_array_equal(found.output_counts, expected.output_counts)
    np.testing.assert_array_equal(found.predictions(), expected.predictions())
    assert (found.output_counts < found.counts[-1]).any(), "nothing was skipped"
    assert seen == sorted(seen)
    assert seen[-1] == 4.0
