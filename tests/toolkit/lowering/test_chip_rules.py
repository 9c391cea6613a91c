"""Every rule broken once, and every network that lowering makes keeps them all."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest

from gascnn.toolkit.errors import FormatError, LimitError
from gascnn.toolkit.lowering import LoweringOptions, lower_with_report, rules
from gascnn.toolkit.lowering.annotations import NeuronNotes, set_neuron_notes
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    Segment,
    SigmaDeltaNeuron,
)

NEURON = CubaNeuron(np.array(20))
CONV = ConvLayer(
    (4, 5, 5),
    np.full((4, 2, 3, 3), 2),
    (1, 1),
    (1, 1),
    (1, 1),
    1,
    NEURON,
    segments=(Segment("population", "stem", 0, 4),),
)
DENSE = DenseLayer((3,), np.full((3, 100), 2), NEURON, flatten=True)
LAST = DenseLayer((2,), np.full((2, 3), 2), NEURON)
GRADED = DenseLayer((3,), np.full((3, 50), 2), NEURON)
HARDWARE = Deployment((2, 5, 5), ("a", "b"), 10)


def network(conv=None, dense=None, last=None, **changes):
    layers = (replace(CONV, **(conv or {})), replace(DENSE, **(dense or {})), replace(LAST, **(last or {})))
    return replace(NetxNetwork(InputLayer((2, 5, 5)), layers, deployment=HARDWARE), **changes)


def subtracting(**values):
    """A network with self-inhibition everywhere, ``values`` for its last layer."""
    layers = (
        replace(CONV, self_weight=np.full(4, 20)),
        replace(DENSE, self_weight=np.full(3, 20)),
        replace(LAST, **values),
    )
    return NetxNetwork(InputLayer((2, 5, 5)), layers, reset="subtract", deployment=HARDWARE)


def neuron(threshold=20, current=4096, voltage=0):
    return CubaNeuron(np.array(threshold), np.array(current), np.array(voltage))


def graded(conv=None, dense=None, last=None, **changes):
    """A network of sigma-delta neurons."""
    sends, reads = {"neuron": SigmaDeltaNeuron(np.array(20))}, {"neuron": SigmaDeltaNeuron(read_out=True)}
    declared = InputLayer((2, 5, 5), SigmaDeltaNeuron())
    values = {"conv": sends | (conv or {}), "dense": sends | (dense or {}), "last": reads | (last or {})}
    return network(**values, **{"input": declared, **changes})


def test_the_network_that_is_broken_below_is_fine():
    rules.check_network(network())
    rules.check_network(subtracting(self_weight=np.array([127 << 7, 128])))
    rules.check_network(network(conv={"bias": np.zeros((4, 5, 5), int)}, last={"bias": np.array([-4095])}))
    rules.check_network(graded(conv={"bias": np.full(4, -2047), "neuron": SigmaDeltaNeuron(np.array(2047))}))


STRUCTURE = {
    "neurons_of_one_kind": [
        (graded(dense={"neuron": NEURON}), r"layer_00 .*: neurons of types CUBA and SDNN in one network; one type"),
        (graded(input=InputLayer((2, 5, 5), NEURON)), "neurons of types CUBA and SDNN"),
        (graded(last={"delay": np.ones((2, 3), int)}), r"layer_02 \(dense\): delays with sigma-delta neurons; not"),
        (graded(last={"weight_rec": np.full((2, 2), 2)}), "recurrent synapses with sigma-delta neurons"),
        (graded(dense={"neuron": SigmaDeltaNeuron(read_out=True)}), "layer_01 .* sigma_output that is not the last"),
        (graded(input=InputLayer((2, 5, 5), SigmaDeltaNeuron(read_out=True))), "sigma_output that is not the last"),
        (graded(last={"bias": np.array([1, 2])}), "a sigma_output with a bias; NetX cannot build it"),
    ],
    "geometry_positive": [
        (network(conv={"stride": (0, 1)}), r"layer_00 \(conv: stem\): stride \(0, 1\); 1..127 \(Lava"),
        (network(conv={"padding": (-1, 0)}), r"padding \(-1, 0\); 0..127"),
        (network(conv={"padding": (128, 0)}), r"padding \(128, 0\)"),
        (network(conv={"dilation": (1, 200)}), r"dilation \(1, 200\)"),
        (network(conv={"weight": np.full((4, 2, 3, 128), 2)}), r"kernel size \(3, 128\)"),
        (network(conv={"groups": 128}), "128 groups; at most 127"),
        (network(conv={"groups": 0}), "0 groups"),
    ],
    "conv_follows_an_image": [
        (network(input=InputLayer((50,))), r"a convolution after a layer of shape \(50,\); it needs \(C, H, W\)"),
        (network(conv={"shape": (4, 5, 4)}), r"shape \(4, 5, 4\); \(4, 5, 5\) follows from its input \(2, 5, 5\)"),
        (network(conv={"weight": np.full((4, 2, 9, 9), 2), "shape": (4, -1, -1)}), r"shape \(4, -1, -1\)"),
        (network(conv={"weight": np.full((4, 3, 3, 3), 2)}), "in 1 groups; its input has 2 channels"),
        (network(input=InputLayer((6, 5, 5)), conv={"groups": 3}), "in 3 groups"),
    ],
    "dense_follows_a_vector": [
        (network(dense={"weight": np.full((3, 99), 2)}), r"weight \(3, 99\); its input has 100 elements"),
        (network(dense={"flatten": False}), r"no flatten between \(4, 5, 5\) and a dense layer"),
        (network(last={"flatten": True}), "a flatten after a dense layer; NetX cannot build it"),
    ],
    "parameters_broadcast": [
        (network(conv={"neuron": neuron([20, 20])}), r"vThMant has shape \(2,\); scalar or \(4,\)"),
        (network(conv={"neuron": neuron(current=[1] * 3)}), r"iDecay has shape \(3,\)"),
        (network(conv={"neuron": neuron(voltage=[[1]])}), r"vDecay has shape \(1, 1\)"),
        (network(conv={"bias": np.zeros(3, int)}), r"bias has shape \(3,\); \(4,\) or \(4, 5, 5\)"),
        (network(last={"bias": np.zeros(3, int)}), r"bias has shape \(3,\); \(2,\) or \(1,\)"),
        (subtracting(self_weight=np.full(3, 20)), r"self_weight has shape \(3,\); \(2,\)"),
        (subtracting(self_weight=np.array([20, -20])), "self_weight -20; 0 or more"),
        (subtracting(), "no self_weight in a network with reset subtract"),
        (graded(reset="subtract"), "no self_weight in a network with reset subtract"),
        (graded(dense={"neuron": SigmaDeltaNeuron(np.ones(2, int))}), r"vThMant has shape \(2,\); scalar or \(3,\)"),
        (graded(dense={"neuron": SigmaDeltaNeuron(np.ones(3, int))}), "sigma-delta thresholds a channel; one a layer"),
        (network(last={"self_weight": np.full(2, 20)}), "a self_weight in a network with reset zero"),
    ],
}  # fmt: skip

SIMULATOR = {
    "threshold_in_range": [
        (network(last={"neuron": neuron(131072)}), r"layer_02 \(dense\): threshold 131072..131072; 0..131071"),
        (network(last={"neuron": neuron(-1)}), "threshold -1..-1"),
        (graded(dense={"neuron": SigmaDeltaNeuron(np.array(2048))}), r"2048..2048; 0..2047 \(a 24-bit state\)"),
        (graded(dense={"neuron": SigmaDeltaNeuron(np.array(-1))}), "threshold -1..-1; 0..2047"),
    ],
    "decays_in_range": [
        (network(last={"neuron": neuron(current=4097)}), "iDecay 4097..4097; 0..4096"),
        (network(last={"neuron": neuron(voltage=-1)}), "vDecay -1..-1"),
    ],
    "bias_in_simulator_range": [
        (network(last={"bias": np.array([0, -32768])}), r"bias 32768; at most 32767 \(Lava wraps it as int16\)"),
        (graded(conv={"bias": np.array([0, 0, -2048, 0])}), r"bias 2048; at most 2047 \(a 24-bit state\)"),
    ],
    "weights_fit_int32": [
        (network(conv={"weight": np.full((4, 2, 3, 3), 2**27)}), f"a neuron's weights sum to {18 * 2**27}; below 2.31"),
        (
            NetxNetwork(InputLayer((50,)), (replace(GRADED, weight=np.full((3, 50), 200_000)),), input_bits=8),
            f"sum to {50 * 255 * 200_000}",
        ),
    ],
    "dense_matrix_survives_netx": [
        (network(last={"weight": np.full((2, 3), 256)}), r"dense weights 256..256; -256..254 \(NetX clips beyond"),
        (network(last={"weight": np.full((2, 3), -258)}), r"dense weights -258..-258"),
        (network(last={"weight": np.zeros((2, 3), int)}), "all weights are zero"),
        (network(last={"weight": np.array([[-2, -64, 0], [-8, -32, -64]])}), "no positive weight .* smallest is -64"),
        (network(last={"weight": np.full((2, 3), -256)}), "no positive weight and the smallest is -256"),
    ],
}  # fmt: skip

CHIP = {
    "weights_are_eight_bit": [
        (network(conv={"weight": np.full((4, 2, 3, 3), 3)}), "weights 3..3 with odd ones; even integers -256..254"),
        (network(conv={"weight": np.full((4, 2, 3, 3), 256)}), "weights 256..256; .* or export with --grade simulator"),
        (network(conv={"weight": np.full((4, 2, 3, 3), -258)}), "weights -258..-258"),
    ],
    "bias_in_hardware_range": [
        (network(conv={"bias": np.array([0, 4096, 0, 0])}), r"bias 4096; -4095..4095 \(13 bits\)"),
    ],
    "neuron_parameters_are_shared": [
        (network(conv={"neuron": neuron([20] * 4)}), "thresholds or decays a channel; one value a layer on the chip"),
    ],
    "self_weights_are_representable": [
        (subtracting(self_weight=np.array([128 << 7, 128])), "self-weights up to 16384 share no exponent"),
        (subtracting(self_weight=np.array([200, 3])), "self-weights up to 200"),
    ],
}  # fmt: skip


def cases(table):
    return [pytest.param(*case, id=f"{name}-{i}") for name, found in table.items() for i, case in enumerate(found)]


def test_every_rule_is_broken_below():
    for table, checked in (
        (STRUCTURE, rules.STRUCTURE_RULES),
        (SIMULATOR, rules.SIMULATOR_RULES),
        (CHIP, rules.HARDWARE_RULES),
    ):
        assert list(table) == [rule.__name__ for rule in checked]


@pytest.mark.parametrize(("broken", "match"), cases(STRUCTURE))
def test_structure(broken, match):
    with pytest.raises(FormatError, match=match):
        rules.check_structure(broken)
    with pytest.raises(FormatError, match=match):
        rules.check_network(broken)


@pytest.mark.parametrize(("broken", "match"), cases(SIMULATOR))
def test_simulator_ranges(broken, match):
    for deployment in (None, HARDWARE):
        with pytest.raises(LimitError, match=match):
            rules.check_network(replace(broken, deployment=deployment))


@pytest.mark.parametrize(("broken", "match"), cases(CHIP))
def test_hardware_ranges(broken, match):
    """Only a file that claims to be hardware-legal must be."""
    with pytest.raises(LimitError, match=match):
        rules.check_network(broken)
    rules.check_network(replace(broken, deployment=replace(HARDWARE, grade="simulator")))
    rules.check_network(replace(broken, deployment=None))


def test_messages_are_one_line():
    for table in (STRUCTURE, SIMULATOR, CHIP):
        for found in table.values():
            for broken, _ in found:
                with pytest.raises((FormatError, LimitError)) as caught:
                    rules.check_network(broken)
                assert "\n" not in str(caught.value)


def smallest_exponent(values):
    """By trying them all."""
    fits = [e for e in range(20) if all(v % 2**e == 0 and v // 2**e <= 127 for v in values if v > 0)]
    return fits[0] if fits else 99


def test_self_weight_exponent():
    assert rules.self_weight_exponent(np.zeros(3, int)) == 0
    rng = np.random.default_rng(0)
    for _ in range(2000):
        values = rng.integers(0, 300, 3) << rng.integers(0, 9, 3)
        assert rules.self_weight_exponent(values) == smallest_exponent(values.tolist()), values


# --- whatever lowering returns ---------------------------------------------------------------------------------------


def hardware_legal(made):
    """The chip's ranges, written out once more from its documentation."""
    for layer in made.layers:
        assert layer.weight.min() >= -256
        assert layer.weight.max() <= 254
        assert not np.any(layer.weight % 2)
        assert np.ndim(layer.neuron.threshold) == np.ndim(layer.neuron.current_decay) == 0
        assert 0 <= layer.neuron.threshold <= 131071
        assert 0 <= layer.neuron.current_decay <= 4096
        assert 0 <= layer.neuron.voltage_decay <= 4096
        assert layer.bias is None or np.abs(layer.bias).max() <= 4095
        if layer.self_weight is not None:
            assert smallest_exponent(layer.self_weight.tolist()) <= 7
        if layer.kind == "conv":
            assert 1 <= layer.groups <= 127
            assert max(*layer.stride, *layer.padding, *layer.dilation, *layer.weight.shape[2:]) <= 127
        else:
            assert layer.weight.max() > 0


def random_floats(b, rng):
    """Any weights, thresholds, biases and peaks in the place of the builder's whole numbers."""
    for name, node in b.nodes.items():
        if isinstance(node, nir.Conv2d | nir.Affine):
            node.weight = rng.normal(size=node.weight.shape) * rng.lognormal(
                size=(len(node.weight), *(1,) * (node.weight.ndim - 1))
            )
            node.bias = rng.normal(size=len(node.weight)) * rng.integers(0, 2) * 3
        elif isinstance(node, nir.IF | nir.LIF):
            channels = b.shapes[name][0]
            theta = rng.lognormal(0, 0.7, size=channels)
            node.v_threshold = np.broadcast_to(theta.reshape(-1, *(1,) * (node.r.ndim - 1)), node.r.shape).copy()
            peaks = rng.lognormal(1, 2, (2, channels)) if rng.random() < 0.7 else (None, None)
            node.metadata.clear()
            set_neuron_notes(node, NeuronNotes(b.start, *peaks))


@pytest.mark.parametrize("seed", range(40))
def test_lowered_networks_are_hardware_legal(seed, builder):
    rng = np.random.default_rng(seed)
    reset = ("zero", "subtract")[seed % 2]
    keep = 0.8 if rng.random() < 0.3 else 1.0
    b = builder(seed, (2, 6, 6), reset, images=1, steps=2, keep=keep)
    x = b.neurons(b.conv("in", 3))
    for _ in range(2):
        stride, channels = int(rng.integers(1, 3)), int(rng.integers(2, 5))
        y = b.neurons(b.conv(x, channels, int(rng.choice([1, 3])), stride))
        if rng.random() < 0.7:
            y = b.neurons(b.conv(y, channels), b.conv(x, channels, 1, stride, 0))
        x = y
    output = b.neurons(b.dense(b.flatten(x), 3))
    random_floats(b, rng)
    graph = b.finish(output, dt=1.0, coding="constant" if rng.random() < 0.3 else "regular")
    mode = "input" if reset == "subtract" else str(rng.choice(["neuron", "always-on", "input"]))
    made = lower_with_report(graph, LoweringOptions(bias=mode))
    hardware_legal(made.network)
    for layer, report in zip(made.network.layers, made.layers, strict=True):
        assert report.state_used is None or report.state_used <= 0.5
        covered = [i for s in layer.segments for i in range(s.start, s.stop)]
        assert covered == list(range(layer.shape[0]))
