"""The simulator against a scalar reference in plain Python integers, written from Lava's sources, neuron by neuron.

``test_lava_parity.py`` compares with Lava itself; this file covers more networks, and both ways of computing sums.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator import simulate, synapse
from gascnn.toolkit.errors import DataError, LimitError, UsageError
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

MAX = 2**23


def rtz(value: int) -> int:
    return (abs(value) >> 12) * (1 if value >= 0 else -1)


def at(parameter: np.ndarray, channel: int) -> int:
    return int(parameter) if np.ndim(parameter) == 0 else int(parameter[channel])


class ScalarNeuron:
    """PyLifModelBitAcc of lava-nc 0.10.0, one neuron, Python integers."""

    def __init__(self, neuron: CubaNeuron, channel: int, bias: int) -> None:
        self.u = self.v = self.wraps = 0
        self.threshold = at(neuron.threshold, channel)
        self.keep_u = 4096 - at(neuron.current_decay, channel)
        self.keep_v = 4096 - at(neuron.voltage_decay, channel)
        self.bias = (bias + 2**15) % 2**16 - 2**15  # int16

    def step(self, a: int) -> bool:
        u = rtz(self.u * self.keep_u) + (a << 6)
        if u > MAX:
            u, self.wraps = u - 2 * MAX, self.wraps + 1
        elif u <= -MAX:
            u, self.wraps = u + 2 * MAX, self.wraps + 1
        v = max(-MAX + 1, min(MAX - 1, rtz(self.v * self.keep_v) + u + (self.bias << 6)))
        spike = v > self.threshold << 6
        self.u, self.v = u, 0 if spike else v
        return spike


def conv_sum(layer: ConvLayer, image: np.ndarray, out: tuple[int, int, int]) -> int:
    channel, row, column = out
    per_group = layer.weight.shape[1]
    first = channel // (layer.shape[0] // layer.groups) * per_group
    total = 0
    for c in range(per_group):
        for i in range(layer.weight.shape[2]):
            for j in range(layer.weight.shape[3]):
                y = row * layer.stride[0] - layer.padding[0] + i * layer.dilation[0]
                x = column * layer.stride[1] - layer.padding[1] + j * layer.dilation[1]
                if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                    total += int(layer.weight[channel, c, i, j]) * int(image[first + c, y, x])
    return (total + MAX) % (2 * MAX) - MAX


def reference(network: NetxNetwork, image: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Spikes of every layer, (T + K, ...), and wraps, for one image of shape (T, ...)."""
    total = len(image) + network.depth
    source = np.zeros((total, *network.input_shape), dtype=np.int64)
    source[: len(image)] = image
    if not network.input_bits:
        source = (source != 0).astype(np.int64)
    result, wraps = [], []
    for layer in network.layers:
        spikes = np.zeros((total, *layer.shape), dtype=np.int64)
        neurons = {}
        for index in np.ndindex(*layer.shape):
            bias = 0
            if layer.bias is not None:
                bias = int(layer.bias[index]) if layer.bias.shape == layer.shape else int(layer.bias[index[0]])
            neurons[index] = ScalarNeuron(layer.neuron, index[0], bias)
        for t in range(total):
            for index, neuron in neurons.items():
                a = _sum(layer, source, spikes, t, index)
                spikes[(t, *index)] = neuron.step(a)
        result.append(spikes.astype(bool))
        wraps.append(sum(n.wraps for n in neurons.values()))
        source = spikes
    return result, wraps


def _sum(layer: ConvLayer | DenseLayer, source: np.ndarray, own: np.ndarray, t: int, index: tuple[int, ...]) -> int:
    if isinstance(layer, ConvLayer):
        a = conv_sum(layer, source[t - 1], index) if t else 0  # type: ignore[arg-type]
    else:
        a = 0
        flat = source.reshape(len(source), -1)
        for m in range(layer.weight.shape[1]):
            delay = 1 + (0 if layer.delay is None else int(layer.delay[index[0], m]))
            if t >= delay:
                a += int(layer.weight[index[0], m]) * int(flat[t - delay, m])
        if layer.weight_rec is not None and t:
            a += int(layer.weight_rec[index[0]] @ own[t - 1])
    if layer.self_weight is not None and t:
        a -= int(layer.self_weight[index[0]]) * int(own[(t - 1, *index)])
    return a


def neuron_of(draw: st.DrawFn, channels: int, reset: str, scale: int) -> CubaNeuron:
    def parameter(low: int, high: int) -> np.ndarray:
        if draw(st.booleans()):
            return np.array(draw(st.integers(low, high)))
        return np.array([draw(st.integers(low, high)) for _ in range(channels)])

    if reset == "subtract":
        return CubaNeuron(parameter(1, scale), np.array(0), np.array(4096))
    return CubaNeuron(parameter(0, scale), parameter(0, 4096), parameter(0, 4096))


@st.composite
def networks(draw: st.DrawFn) -> tuple[NetxNetwork, np.ndarray]:
    """One or two convolutions and a dense layer, over what the format allows."""
    reset = draw(st.sampled_from(["zero", "zero", "subtract"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Large weights bring wrap-around of u, saturation of v and of the 24-bit sums.
    scale = draw(st.sampled_from([20, 254, 60_000, 1_500_000]))
    shape: tuple[int, ...] = (draw(st.sampled_from([1, 2, 4])), draw(st.integers(3, 6)), draw(st.integers(3, 6)))
    declared, layers = InputLayer(shape), []
    for _ in range(draw(st.integers(1, 2))):
        kernel = (draw(st.integers(1, min(3, shape[1]))), draw(st.integers(1, min(3, shape[2]))))
        stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        dilation = (1, 1)
        if draw(st.booleans()) and 2 * (kernel[0] - 1) < shape[1] and 2 * (kernel[1] - 1) < shape[2]:
            dilation = (2, 2)
        groups = draw(st.sampled_from([g for g in (1, 2, 4) if shape[0] % g == 0]))
        channels = groups * draw(st.integers(1, 2))
        size = [(shape[1 + a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)]
        out = (channels, *size)
        bias = None
        if draw(st.booleans()):
            bias = rng.integers(-40_000, 40_000, out if draw(st.booleans()) else (channels,))
        layers.append(
            ConvLayer(
                shape=out, weight=rng.integers(-scale, scale + 1, (channels, shape[0] // groups, *kernel)),
                stride=stride, padding=padding, dilation=dilation, groups=groups,
                neuron=neuron_of(draw, channels, reset, min(scale, 131_071)), bias=bias,
                self_weight=rng.integers(0, scale + 1, channels) if reset == "subtract" else None,
            )
        )  # fmt: skip
        shape = out
    neurons, inputs = draw(st.integers(1, 4)), int(np.prod(shape))
    weight = 2 * rng.integers(-127, 127, (neurons, inputs))
    weight[0, 0] = 2  # a matrix without a positive entry is another matter (test_netx_dense.py)
    recurrent = None
    if reset == "zero" and draw(st.booleans()):
        recurrent = 2 * rng.integers(-127, 127, (neurons, neurons))
        recurrent[0, 0] = 4
    layers.append(
        DenseLayer(
            shape=(neurons,), weight=weight, flatten=True, neuron=neuron_of(draw, neurons, reset, 300),
            bias=rng.integers(-100, 100, neurons) if draw(st.booleans()) else None,
            delay=rng.integers(0, 4, weight.shape) if draw(st.booleans()) and recurrent is None else None,
            weight_rec=recurrent, self_weight=rng.integers(0, 300, neurons) if reset == "subtract" else None,
        )
    )  # fmt: skip
    graded = draw(st.booleans()) and scale <= 254
    network = NetxNetwork(declared, tuple(layers), input_bits=8 if graded else 0, reset=reset)  # type: ignore[arg-type]
    kind = draw(st.sampled_from(["random", "random", "zeros", "ones"]))
    steps = draw(st.integers(1, 5))
    top = 256 if graded else 2
    spikes = {
        "random": rng.integers(0, top, (2, steps, *declared.shape)),
        "zeros": np.zeros((2, steps, *declared.shape)),
        "ones": np.full((2, steps, *declared.shape), top - 1),
    }[kind]
    return network, spikes.astype(np.uint8)


WAYS = (
    {"method": "plain"},
    {"method": "events", "threads": 1},
    {"method": "events", "threads": 2},
    {"method": "dense", "threads": 2},
    {"method": "auto"},
)


def without_torch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(synapse, "_torch", lambda products: None)


def assert_same(found: RunResult, right: RunResult) -> None:
    assert found.spikes is not None
    assert right.spikes is not None
    for left, expected in zip([*found.spikes, *found.counts], [*right.spikes, *right.counts], strict=True):
        np.testing.assert_array_equal(left, expected)
    np.testing.assert_array_equal(found.output_counts, right.output_counts)
    np.testing.assert_array_equal(found.output_membrane, right.output_membrane)
    assert found.wraps == right.wraps


TOTAL = {"spikes": 0, "wraps": 0}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(networks())
def test_every_spike_and_wrap_equals_the_scalar_reference(case: tuple[NetxNetwork, np.ndarray]) -> None:
    network, spikes = case
    result = simulate(network, spikes, record="spikes")
    assert result.spikes is not None
    assert result.wraps is not None
    for way in WAYS:
        assert_same(simulate(network, spikes, record="spikes", **way), result)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        without_torch(patch)
        assert_same(simulate(network, spikes, record="spikes", method="dense"), result)
    wraps = [0] * network.depth
    for image in range(len(spikes)):
        expected, wrapped = reference(network, spikes[image])
        wraps = [a + b for a, b in zip(wraps, wrapped, strict=True)]
        for found, right in zip(result.spikes, expected, strict=True):
            np.testing.assert_array_equal(found[image], right)
            TOTAL["spikes"] += int(right.sum())
    assert result.wraps == wraps
    TOTAL["wraps"] += sum(wraps)
    for found, recorded in zip(result.counts, result.spikes, strict=True):
        np.testing.assert_array_equal(found, recorded.sum(axis=1))


def test_the_networks_above_spiked_and_wrapped() -> None:
    """Parity over silence would prove nothing; runs after the test above in this file."""
    if TOTAL["spikes"] == 0:  # this test was chosen alone
        test_every_spike_and_wrap_equals_the_scalar_reference()
    assert TOTAL["spikes"] > 2000
    assert TOTAL["wraps"] > 20


def small_resnet_like(rng: np.random.Generator) -> NetxNetwork:
    def conv(cin: int, cout: int, stride: int, size: int) -> ConvLayer:
        return ConvLayer(
            shape=(cout, size, size), weight=2 * rng.integers(-60, 100, (cout, cin, 3, 3)), stride=(stride, stride),
            padding=(1, 1), dilation=(1, 1), groups=1, neuron=CubaNeuron(np.array(900)),
        )  # fmt: skip

    dense = DenseLayer((5,), 2 * rng.integers(-50, 80, (5, 16 * 16)), CubaNeuron(np.array(3000)), flatten=True)
    return NetxNetwork(InputLayer((3, 8, 8)), (conv(3, 8, 1, 8), conv(8, 16, 2, 4), dense))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
@pytest.mark.parametrize("torch_installed", [True, False])
def test_batches_windows_steps_and_arithmetic_change_nothing(
    way: dict[str, object], torch_installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    network = small_resnet_like(rng)
    spikes = (rng.random((5, 40, 3, 8, 8)) < 0.3).astype(np.uint8)
    whole = simulate(network, spikes, record="spikes", method="plain")
    if not torch_installed:
        without_torch(monkeypatch)
    monkeypatch.setattr("gascnn.hardware.simulator.engine._PLAIN_BYTES", 1)
    monkeypatch.setattr("gascnn.hardware.simulator.memory._STEPS_AT_ONCE", 8)
    monkeypatch.setattr("gascnn.hardware.simulator.memory._NEURON_STEPS", 1)
    cut = simulate(network, spikes, record="spikes", **way)  # type: ignore[arg-type]
    assert_same(cut, whole)
    assert all(layer.any() for layer in cut.spikes or [])
    expected, _ = reference(network, spikes[3][:6])
    short = simulate(network, spikes[3:4], steps=6, record="spikes", **way)  # type: ignore[arg-type]
    assert short.spikes is not None
    for left, right in zip(short.spikes, expected, strict=True):
        np.testing.assert_array_equal(left[0], right)


def test_read_out_window_and_ties_by_hand() -> None:
    # Weights 10, 10, 12 against thresholds 25: two inputs give 20, 20, 24 and no spike, a third makes all spike.
    layer = DenseLayer((3,), np.array([[10], [10], [12]]), CubaNeuron(np.array(25)))
    network = NetxNetwork(InputLayer((1,)), (layer,))
    spikes = np.array([[[1], [1], [0]], [[1], [1], [1]], [[0], [0], [0]]], dtype=np.uint8)
    result = simulate(network, spikes, record="spikes")
    assert result.output_counts.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert result.output_membrane.tolist() == [[20 * 64, 20 * 64, 24 * 64], [0, 0, 0], [0, 0, 0]]
    # Highest membrane where counts tie, then the lowest class.
    assert result.predictions().tolist() == [2, 0, 0]
    assert result.spikes is not None
    assert result.spikes[0].shape == (3, 4, 3)
    assert result.spikes[0][1, :, 0].tolist() == [False, False, False, True]


def test_subtract_membrane_is_what_is_left_after_the_last_spike() -> None:
    # theta 20 by self-inhibition, fires above 20: 15, 30 (spike), 25 (spike), 20, as u before each comparison.
    layer = DenseLayer(
        (1,), np.array([[15]]), CubaNeuron(np.array(20), np.array(0), np.array(4096)), self_weight=np.array([20])
    )
    network = NetxNetwork(InputLayer((1,)), (layer,), reset="subtract")
    result = simulate(network, np.ones((1, 4, 1), np.uint8), record="spikes")
    assert result.spikes is not None
    assert result.spikes[0][0, :, 0].tolist() == [False, False, True, True, False]
    assert result.output_membrane.tolist() == [[20 * 64]]
    pending = simulate(network, np.ones((1, 3, 1), np.uint8))
    assert pending.output_membrane.tolist() == [[(25 - 20) * 64]]


def test_skipped_steps_are_left_out_of_the_count() -> None:
    layer = DenseLayer((1,), np.array([[10]]), CubaNeuron(np.array(9)))
    network = NetxNetwork(InputLayer((1,)), (layer,))
    spikes = np.ones((1, 6, 1), np.uint8)
    assert simulate(network, spikes).output_counts.tolist() == [[6]]
    assert simulate(network, spikes, skip_steps=2).output_counts.tolist() == [[4]]
    with pytest.raises(UsageError, match=r"skip_steps is 6; it must be 0..5 for 6 steps"):
        simulate(network, spikes, skip_steps=6)


def test_input_neurons_receive_integers_at_their_current() -> None:
    # u = 7 * 64 a step into v: 7, 14 > 10 -> spike at step 1; the dense layer answers a step later.
    neuron = CubaNeuron(np.array(10))
    dense = DenseLayer((1,), np.array([[4]]), CubaNeuron(np.array(3)))
    network = NetxNetwork(InputLayer((1,), neuron=neuron), (dense,))
    result = simulate(network, np.full((1, 4, 1), 7, np.uint8), record="spikes")
    assert result.spikes is not None
    assert result.spikes[0][0, :, 0].tolist() == [False, False, True, False, True]


def test_sums_without_a_defined_result_are_refused() -> None:
    conv = ConvLayer((1, 1, 1), np.full((1, 64, 1, 1), 2**26), (1, 1), (0, 0), (1, 1), 1, CubaNeuron(np.array(1)))
    network = NetxNetwork(InputLayer((64, 1, 1)), (conv,))
    with pytest.raises(LimitError, match=r"layer_00 \(conv\): synaptic sums may reach 4294967296; .*scale down"):
        simulate(network, np.ones((1, 1, 64, 1, 1), np.uint8))


@pytest.mark.parametrize(
    ("spikes", "message"),
    [
        (np.ones((1, 2, 2), np.uint8), r"spikes of one step have shape \(2,\); this network takes \(1,\)"),
        (np.ones((0, 2, 1), np.uint8), r"spikes have shape \(0, 2, 1\); expected \(image, step, 1\)"),
        (np.full((1, 2, 1), 2, np.uint8), r"spikes must be integers 0..1; found 2..2"),
        (np.full((1, 2, 1), 0.5), "spikes must be integers 0..1"),
        (np.full((1, 2, 1), np.nan), "NaN or infinity"),
        (np.full((1, 2, 1), "a"), "spikes have type <U1"),
        (np.full((1, 2, 1), -1), "spikes must be integers 0..1; found -1..-1"),
    ],
)
def test_bad_spikes_are_refused(spikes: np.ndarray, message: str) -> None:
    network = NetxNetwork(InputLayer((1,)), (DenseLayer((1,), np.array([[10]]), CubaNeuron(np.array(9))),))
    with pytest.raises(DataError, match=message):
        simulate(network, spikes)


def test_no_steps_is_refused() -> None:
    network = NetxNetwork(InputLayer((1,)), (DenseLayer((1,), np.array([[10]]), CubaNeuron(np.array(9))),))
    with pytest.raises(UsageError, match="steps is 0; it must be at least 1"):
        simulate(network, np.ones((1, 2, 1), np.uint8), steps=0)
