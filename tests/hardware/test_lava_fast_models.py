"""The faster process models: their arithmetic by hand and by definition, and in Lava against Lava's own."""

import itertools

import numpy as np
import pytest

from gascnn.hardware import lava
from gascnn.hardware.lava.worker import arithmetic
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.lowering.shapes import conv_output_shape

GEOMETRIES = [
    # kernel, stride, padding, dilation, groups
    ((3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 2), (2, 1), (0, 2), (1, 2), 1),
    ((1, 4), (1, 3), (2, 0), (3, 1), 2),
    ((2, 2), (2, 2), (0, 0), (1, 1), 4),
    ((1, 1), (2, 1), (0, 0), (1, 1), 2),
    ((1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((1, 1), (1, 1), (1, 0), (1, 1), 4),
]


def by_definition(weight, values, stride, padding, dilation, groups):
    """Lava's convolution in whole Python numbers, wrapped at 24 bits."""
    outputs, kernel_w, kernel_h, in_group = weight.shape
    padded = np.pad(values, [(p, p) for p in padding] + [(0, 0)]).astype(object)
    places = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(padded.shape[:2], dilation, (kernel_w, kernel_h), stride, strict=True)
    ]
    sums = np.zeros((*places, outputs), dtype=np.int64)
    for x, y, k in itertools.product(*map(range, places), range(outputs)):
        first = k // (outputs // groups) * in_group
        total = sum(
            int(weight[k, kernel_w - 1 - i, kernel_h - 1 - j, c])
            * int(padded[x * stride[0] + i * dilation[0], y * stride[1] + j * dilation[1], first + c])
            for i, j, c in itertools.product(range(kernel_w), range(kernel_h), range(in_group))
        )
        sums[x, y, k] = (total + 2**23) % 2**24 - 2**23
    return sums


# --- synapses --------------------------------------------------------------------------------------------------------


def test_a_convolution_by_hand():
    # One channel, W = 3, H = 2; the kernel, 2 by 1 in W and H, is flipped: a[x] = w[1] s[x] + w[0] s[x + 1].
    weight = np.array([10, 1]).reshape(1, 2, 1, 1)
    total = arithmetic.ConvSum(weight, (3, 2, 1), (1, 1), (0, 0), (1, 1), 1)

    found = total(np.array([[1, 0], [1, 1], [0, 1]], dtype=bool)[:, :, None])

    assert found.dtype == np.int32
    np.testing.assert_array_equal(found[:, :, 0], [[11, 10], [1, 11]])


@pytest.mark.parametrize(
    ("weight", "wrapped"),
    [
        (2**23 - 1, 2**23 - 1),
        (2**23, -(2**23)),
        (2**24 + 5, 5),
        (-(2**23), -(2**23)),
        (-(2**23) - 1, 2**23 - 1),
        (2**31 - 1, -1),
    ],
)
@pytest.mark.parametrize("kernel", [(1, 1), (2, 1)])
def test_a_sum_wraps_at_24_bits(weight, wrapped, kernel):
    weights = np.zeros((1, *kernel, 1), dtype=np.int64)
    weights[0, 0, 0, 0] = weight
    total = arithmetic.ConvSum(weights, (*kernel, 1), (1, 1), (0, 0), (1, 1), 1)

    assert total(np.ones((*kernel, 1), dtype=bool)).tolist() == [[[wrapped]]]
    assert total(np.zeros((*kernel, 1), dtype=bool)).tolist() == [[[0]]]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "groups"), GEOMETRIES)
@pytest.mark.parametrize(("largest", "bits"), [(1, 8), (1, 22), (255, 8), (255, 18)])
def test_convolutions_by_definition(kernel, stride, padding, dilation, groups, largest, bits):
    rng = np.random.default_rng([*kernel, *stride, groups, largest, bits])
    weight = rng.integers(-(2**bits), 2**bits, (4, *kernel, 4 // groups))
    values = rng.integers(0, largest + 1, (6, 7, 4)) * (rng.random((6, 7, 4)) < 0.6)
    total = arithmetic.ConvSum(weight, values.shape, stride, padding, dilation, groups, largest)

    for _ in range(2):  # nothing is left of a step in the next
        found = total(values.astype(bool) if largest == 1 else values)
        np.testing.assert_array_equal(found, by_definition(weight, values, stride, padding, dilation, groups))
        values = values[::-1]


@pytest.mark.parametrize("groups", [6, 3, 1])
def test_self_inhibition_is_a_product_a_channel(groups):
    rng = np.random.default_rng(groups)
    weight = np.zeros((6, 1, 1, 6 // groups), dtype=np.int64)
    channel = np.arange(6)
    weight[channel, 0, 0, channel % (6 // groups)] = [-3, -200, 0, -(2**23) - 7, -1, -64]
    values = rng.integers(0, 2, (3, 4, 6))
    geometry = (1, 1), (0, 0), (1, 1), groups

    found = arithmetic.ConvSum(weight, values.shape, *geometry)(values.astype(bool))

    np.testing.assert_array_equal(found, by_definition(weight, values, *geometry))


def test_a_dense_sum_by_hand():
    weights = np.array([[3, -5, 0], [100, 7, -9]])

    assert arithmetic.DenseSum(weights, 0)(np.array([1, 1, 0])).tolist() == [-2, 107]
    assert arithmetic.DenseSum(weights, 3)(np.array([1, 1, 0])).tolist() == [-16, 856]
    assert arithmetic.DenseSum(weights, -2)(np.array([0, 1, 1])).tolist() == [-2, -1]  # rounded down
    assert arithmetic.DenseSum(weights, 0, 255)(np.array([255, 0, 200])).tolist() == [765, 23700]
    exact = arithmetic.DenseSum(np.array([[2**30 - 1, 2**29 + 1]]), 0)(np.array([1, 1]))
    assert exact.tolist() == [2**30 + 2**29]


def test_delays_by_hand():
    weights, delays = np.array([[4, 6, 8], [10, -12, 0]]), np.array([[0, 2, 2], [1, 0, 2]])
    total = arithmetic.DelayedSum(weights, delays, -1, 3)

    assert total(np.array([True, True, True])).tolist() == [[2, 0, 7], [-6, 5, 0]]
    assert total(np.array([0, 3, 0])).tolist() == [[0, 0, 9], [-18, 0, 0]]
    assert total(np.zeros(3, dtype=bool)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert arithmetic.one_slot_on(np.array([[1, 2, 3], [4, 5, 6]])).tolist() == [[2, 3, 0], [5, 6, 0]]


def test_sums_that_leave_32_bits_are_named():
    assert arithmetic.sums_too_large(np.array([[2**30, 2**30 - 1]]), 1) is None
    assert arithmetic.sums_too_large(np.array([[2**30, -(2**30)]]), 1) == "sums of up to 2147483648 leave 32 bits"
    assert arithmetic.sums_too_large(np.array([[2**24]]), 255) == "sums of up to 4278190080 leave 32 bits"
    assert arithmetic.exact_float(2**24) is np.float32
    assert arithmetic.exact_float(2**24 + 1) is np.float64


# --- populations -----------------------------------------------------------------------------------------------------


def population(threshold, current_decay=4096, voltage_decay=0, bias=0, neurons=1):
    current, voltage = np.zeros((2, neurons), dtype=np.int32)
    bias = np.full(neurons, bias << 6, dtype=np.int32)
    return current, voltage, arithmetic.Population(current, voltage, current_decay, voltage_decay, bias, threshold)


def step(cells, *activation):
    return cells.step(np.array(activation, dtype=np.int32)).tolist()


def test_a_population_by_hand():
    current, voltage, cells = population(10, current_decay=2048, voltage_decay=1024, bias=1)

    assert step(cells, 4) == [False]
    assert (current[0], voltage[0]) == (256, 256 + 64)
    assert step(cells, -7) == [False]  # u = 128 - 448; v = 240 - 320 + 64
    assert (current[0], voltage[0]) == (-320, -16)
    assert step(cells, 17) == [True]  # u = -160 + 1088; v = -12 + 928 + 64 = 980 > 640
    assert (current[0], voltage[0]) == (928, 0)
    cells.rest()
    assert (current[0], voltage[0]) == (0, 0)


def test_the_threshold_itself_does_not_fire():
    _, _, cells = population(np.array([5, 4]), neurons=2)

    assert step(cells, 5, 5) == [False, True]


def test_decays_round_towards_zero():
    current, voltage, cells = population(1000, current_decay=np.array([1, 1]), voltage_decay=4095, neurons=2)
    current[:] = 1000, -1000  # 1000 * 4095 / 4096 = 999.76
    voltage[:] = 8191, -8191  # / 4096 = 1.9998

    step(cells, 0, 0)

    assert current.tolist() == [999, -999]
    assert voltage.tolist() == [1 + 999, -1 - 999]


def test_the_current_wraps_once_and_the_membrane_saturates():
    current, voltage, cells = population(2**17, current_decay=0, neurons=4)
    current[:] = 2**23 - 64, -(2**23) + 64, 2**23 - 64, -(2**22)
    voltage[:] = 2**23 - 1, -(2**23) + 1, 0, -(2**23) + 1

    assert step(cells, 1, -1, 2, 0) == [False] * 4

    # 2^23 itself stays, -2^23 does not.
    assert current.tolist() == [2**23, 2**23, -(2**23) + 64, -(2**22)]
    assert voltage.tolist() == [2**23 - 1, 1, -(2**23) + 64, -(2**23) + 1]


def in_python_numbers(activations, threshold, current_decay, voltage_decay, bias):
    """One neuron, in whole Python numbers."""
    u = v = 0
    fired = []
    for a in activations:
        u = int(np.sign(u)) * (abs(u) * (4096 - current_decay) >> 12) + a * 64
        u = u - 2**24 if u > 2**23 else u + 2**24 if u <= -(2**23) else u
        v = int(np.sign(v)) * (abs(v) * (4096 - voltage_decay) >> 12) + u + bias * 64
        v = min(max(v, -(2**23) + 1), 2**23 - 1)
        fired.append(v > threshold * 64)
        v = 0 if fired[-1] else v
    return fired, u, v


@pytest.mark.parametrize("seed", range(8))
def test_populations_in_python_numbers(seed):
    rng = np.random.default_rng(seed)
    neurons, drive = 20, int(rng.choice([50, 20_000, 150_000]))
    decays = [rng.choice([0, 4096, 1, 4095, *rng.integers(2, 4095, 3)], neurons) for _ in range(2)]
    if seed < 4:
        decays = [d[:1] for d in decays]
    bias, threshold = int(rng.integers(-20, 20)), rng.integers(1, drive, neurons)
    activations = rng.integers(-drive, drive, (60, neurons))
    current, voltage, cells = population(threshold, *decays, bias, neurons)

    fired = np.array([step(cells, *row) for row in activations])

    for n in range(neurons):
        own = [int(np.broadcast_to(d, neurons)[n]) for d in decays]
        expected = in_python_numbers(activations[:, n].tolist(), int(threshold[n]), *own, bias)
        assert (fired[:, n].tolist(), int(current[n]), int(voltage[n])) == expected
    assert 0 < fired.mean() < 1


# --- in Lava ---------------------------------------------------------------------------------------------------------


def cell(rng, channels, drive, reset):
    if reset == "subtract":
        return CubaNeuron(np.array(drive // 2), np.array(0), np.array(4096)), rng.integers(drive // 2, drive, channels)
    threshold = rng.integers(drive // 3, drive, channels) if rng.random() < 0.5 else np.array(drive // 2)
    return CubaNeuron(threshold, np.array(int(rng.integers(1500, 4097))), np.array(int(rng.integers(0, 1500)))), None


def random_conv(rng, before, geometry, reset, largest=1):
    kernel, stride, padding, dilation, groups = geometry
    weight = rng.integers(-30, 60, (4, before[0] // groups, *kernel)) * 2
    drive = max(4, int(np.abs(weight).sum(axis=(1, 2, 3)).mean() * 0.2 * largest))
    neuron, self_weight = cell(rng, 4, drive, reset)
    bias = rng.integers(-drive // 4, drive // 3, 4).clip(-4000, 4000) if rng.random() < 0.5 else None
    shape = conv_output_shape(before, weight.shape, stride, padding, dilation)
    return ConvLayer(shape, weight, stride, padding, dilation, groups, neuron, bias, self_weight)


def random_dense(rng, before, reset, extra):
    weight = rng.integers(-100, 254, (6, int(np.prod(before))))
    weight[0, :2] = 201, -57
    neuron, self_weight = cell(rng, 6, int(np.abs(weight).sum(axis=1).mean() * 0.15), reset)
    more = {
        "delay": {"delay": rng.integers(0, 6, weight.shape)},
        "recurrent": {"weight_rec": rng.integers(-90, 100, (6, 6))},
        "bias": {"bias": rng.integers(-200, 300, 6)},
        "": {},
    }[extra]
    return DenseLayer((6,), weight, neuron, flatten=len(before) == 3, self_weight=self_weight, **more)


def random_network(rng, geometry, reset, kind, extra):
    """Conv, 1x1 conv and dense; ``kind`` of input: spikes, graded, or into a population."""
    shape, bits, neurons = (4, 7, 6), 0, None
    if kind == "graded":
        bits = 8
    elif kind == "population":
        neurons = CubaNeuron(np.array(90), np.array(4096), np.array(300))
    first = random_conv(rng, shape, geometry, reset, 128 if bits else 1)
    second = random_conv(rng, first.shape, ((1, 1), (1, 1), (0, 0), (1, 1), 2), reset)
    last = random_dense(rng, second.shape, reset, extra)
    spikes = (rng.random((2, 12, *shape)) < 0.35).astype(np.uint8)
    if kind != "spikes":
        spikes *= rng.integers(1, 256, spikes.shape).astype(np.uint8)
    return NetxNetwork(InputLayer(shape, neurons), (first, second, last), bits, reset), spikes


def wrapping_network(rng):
    """Sums of a conv beyond 24 bits."""
    weight = rng.integers(-(2**21), 2**21, (3, 2, 3, 3))
    layer = ConvLayer((3, 2, 2), weight, (1, 1), (0, 0), (1, 1), 1, CubaNeuron(np.array(90_000)))
    return NetxNetwork(InputLayer((2, 4, 4)), (layer,)), (rng.random((2, 12, 2, 4, 4)) < 0.8).astype(np.uint8)


def networks():
    """Every geometry with every kind of input and read-out, in turn, and both resets."""
    kinds, extras = (
        itertools.cycle(["spikes", "graded", "population"]),
        itertools.cycle(["", "delay", "recurrent", "bias"]),
    )
    for seed, (geometry, reset) in enumerate(itertools.product(GEOMETRIES, ["zero", "subtract"])):
        rng = np.random.default_rng(seed)
        yield random_network(rng, geometry, reset, next(kinds), next(extras))
    yield wrapping_network(np.random.default_rng(99))


@pytest.mark.lava
@pytest.mark.slow
def test_the_faster_models_equal_lavas_own_spike_for_spike():
    assert lava.find_lava() is not None, "Lava is missing: run make setup"
    tasks = list(networks())

    results = lava.run_many([lava.Task(*task, stock_models=own) for own in (True, False) for task in tasks])

    busy = 0
    for index, (own, fast) in enumerate(zip(results[: len(tasks)], results[len(tasks) :], strict=True)):
        assert (own.models, fast.models, fast.why_stock) == ("stock", "fast", None)
        assert len(own.image_s) == len(fast.image_s) == len(tasks[index][1])
        for layer, (theirs, ours) in enumerate(zip(own.spikes, fast.spikes, strict=True)):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"network {index}, layer {layer}")
            busy += 0.02 < theirs.mean() < 0.98
        np.testing.assert_array_equal(fast.output_membrane, own.output_membrane, err_msg=f"network {index}")
        np.testing.assert_array_equal(fast.output_counts, own.output_counts, err_msg=f"network {index}")
    assert busy > 0.8 * sum(network.depth for network, _ in tasks)


@pytest.mark.lava
def test_what_no_faster_model_fits_runs_in_lavas_own():
    """Sums that could leave 32 bits with any byte as input, though not with the four bits this network takes."""
    layer = ConvLayer(
        (1, 2, 1),
        np.full((1, 1, 1, 1), 2**24),
        (1, 1),
        (0, 0),
        (1, 1),
        1,
        CubaNeuron(np.array(10)),
        None,
        np.array([9]),
    )
    network = NetxNetwork(InputLayer((1, 2, 1)), (layer,), 4, "subtract")
    spikes = np.array([[0, 15], [3, 0]], dtype=np.uint8).reshape(2, 1, 1, 2, 1).repeat(3, axis=1)

    result = lava.run(network, spikes)

    assert result.models == "stock"
    assert result.why_stock == "Conv (1, 1, 1, 1): sums of up to 4278190080 leave 32 bits"
    assert not result.spikes[0].any()  # 2^24 n wraps to 0
