"""What the simulator or Lava does not support is refused by name, never run wrongly.

``test_netx.py`` and ``test_chip_rules.py`` have what exporters run into; here are the files of others and networks made
by hand, at the door of every backend. Each file below makes stock NetX or Lava itself fail, or compute something that
the stored numbers do not say (checked with lava-nc 0.10.0 and lava-dl 0.6.0).
"""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware import lava
from gascnn.hardware.inputs import check_runnable
from gascnn.hardware.lava.jobs import PreparedTask
from gascnn.hardware.simulator import METHODS, simulate
from gascnn.toolkit.errors import FormatError, GascnnError, LimitError, UsageError
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork


def write(path, change, *, kind="dense", shape=(2, 5, 5)):
    """Input, convolution, flatten, dense, as a stranger writes them, and one change."""
    with h5py.File(path, "w") as file:
        file["layer/0/type"], file["layer/0/shape"] = "input", np.array(shape)
        conv = file.create_group("layer/1")
        conv["type"], conv["shape"], conv["weight"] = "conv", [4, 5, 5], np.full((4, 2, 3, 3), 7)
        for name, value in (("stride", 1), ("padding", 1), ("dilation", 1), ("groups", 1)):
            conv[name] = value
        file["layer/2/type"] = "flatten"
        dense = file.create_group("layer/3")
        dense["type"], dense["shape"] = kind, np.array([3])
        dense["weight"] = np.arange(300).reshape(3, 100) % 7 - 2
        if kind == "dense_rec":
            dense["weight_rec"] = np.arange(9).reshape(3, 3) - 4
        for layer in (conv, dense):
            cell = layer.create_group("neuron")
            cell["type"], cell["vThMant"], cell["iDecay"], cell["vDecay"] = "CUBA", 20, 4096, 0
        for name, value in change.items():
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
    return path


FILES = {
    # name: (datasets, message)
    "sigma-delta": ({"layer/1/neuron/type": "SDNN"}, "neurons of types CUBA and SDNN in one network; one type"),
    "resonate and fire": ({"layer/3/neuron/type": "RF_PHASE"}, "neuron type RF_PHASE is not supported"),
    "unknown neuron": ({"layer/3/neuron/type": "ADAPTIVE"}, "neuron type ADAPTIVE is not supported"),
    "sigma-delta input": ({"layer/0/neuron/type": "SDNN"}, "layer/0/neuron: no 'vThMant' in it"),
    "pooling": ({"layer/2/type": "average"}, r"layer type 'average' is not one NetX can load"),
    "complex layer": ({"layer/3/type": "dense_comp"}, "layer type 'dense_comp' is not one NetX can load"),
    "complex weights": (
        {"layer/3/weight": None, "layer/3/weight/real": np.ones((3, 100)), "layer/3/weight/imag": np.ones((3, 100))},
        r"complex weights \(resonate-and-fire\) are not supported",
    ),
    "message bits": ({"layer/1/neuron/messageBits": 8}, "messageBits cannot be loaded"),
    "array of one as stride": ({"layer/1/stride": [1]}, r"stride has shape \(1,\), which NetX cannot load"),
    "array of one as groups": ({"layer/1/groups": [1]}, r"groups has shape \(1,\), which NetX cannot load"),
    "no stride": ({"layer/1/stride": 0}, r"stride is \(0, 0\); it must be at least 1"),
    "negative padding": ({"layer/1/padding": -1}, r"shape \(4, 5, 5\) does not follow"),
    "no groups": ({"layer/1/groups": 0}, "0 groups does not fit 2 input channels"),
    "delay beyond the matrix": ({"layer/3/delay": np.ones((2, 5))}, r"delay has shape \(2, 5\) for weights of shape"),
    "delays in a row": ({"layer/3/delay": np.ones((1, 100))}, r"delay has shape \(1, 100\) for weights of shape"),
    "delays of another size": ({"layer/3/delay": np.ones(7)}, r"delay has 7 values for weights of shape \(3, 100\)"),
    "negative delay": ({"layer/3/delay": -1}, "delays must not be negative"),
    "bias in a column": ({"layer/3/bias": np.ones((3, 1))}, r"bias has shape \(3, 1\) for 3 neurons"),
    "bias of another size": ({"layer/3/bias": np.ones(2)}, r"bias has shape \(2,\) for 3 neurons"),
    "bias of a convolution": (
        {"layer/1/bias": 4},
        r"bias has shape \(\); expected \(4,\) or \(W, H, C\) = \(5, 5, 4\)",
    ),
    "weights beyond 32 bits": ({"layer/1/weight": np.full((4, 2, 3, 3), 1e30)}, "weight holds 1e.30..1e.30; Lava"),
    "bias beyond 32 bits": ({"layer/1/bias": np.full(4, -(2**40))}, "bias holds .*; Lava holds 32-bit integers"),
    "threshold with a fraction": ({"layer/1/neuron/vThMant": 20.5}, "vThMant must be whole numbers"),
    "threshold as a float": ({"layer/1/neuron/vThMant": 20.0}, "vThMant is stored as float64, with which Lava cannot"),
    "decays as floats": ({"layer/1/neuron/iDecay": np.full(4, 9.0)}, "iDecay is stored as float64"),
    "decay beyond 4096": ({"layer/3/neuron/vDecay": 4097}, "vDecay must be 0..4096; found 4097..4097"),
    "thresholds that overflow their type": (
        {"layer/1/neuron/vThMant": np.full(4, 600, np.int16)},
        "vThMant up to 600 is stored as int16, in which Lava's shift by 6 bits overflows; store it as int64",
    ),
    "thresholds a neuron": ({"layer/1/neuron/vThMant": np.ones((5, 5, 4), int)}, r"vThMant has shape \(5, 5, 4\)"),
    "input without extent": ({"layer/0/shape": [2, 0, 5]}, r"the input's shape is \[2, 0, 5\]; expected \[N\] or"),
    "input of two axes": ({"layer/0/shape": [10, 5]}, r"the input's shape is \[10, 5\]; expected \[N\] or \[C, H, W\]"),
    "input given as a number": ({"layer/0/shape": 50}, "the input's shape is 50; expected"),
    "input of negative size": ({"layer/0/shape": [-2, -5, 5]}, r"the input's shape is \[-2, -5, 5\]"),
    "dense without neurons": ({"layer/3/shape": [0]}, r"weight has shape \(3, 100\); expected \(0, inputs\)"),
}
RECURRENT = {
    "recurrence of another size": ({"layer/3/weight_rec": np.ones((3, 5))}, r"weight_rec has shape \(3, 5\); expected"),
    "flat recurrence only": ({"layer/3/weight_rec": np.ones(9)}, "weight_rec is flat and weight is not"),
}


@pytest.mark.parametrize("name", [*FILES, *RECURRENT])
def test_a_file_that_lava_cannot_run_is_refused_by_name(name, tmp_path):
    change, message = {**FILES, **RECURRENT}[name]
    path = write(tmp_path / "a.net", change, kind="dense_rec" if name in RECURRENT else "dense")

    with pytest.raises(FormatError, match=message) as raised:
        read_netx(path)
    assert "a.net" in str(raised.value) or "layer_0" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_file_that_is_broken_above_is_fine(tmp_path):
    for kind in ("dense", "dense_rec"):
        network = read_netx(write(tmp_path / f"{kind}.net", {}, kind=kind))
        result = simulate(network, np.ones((1, 6, 2, 5, 5), np.uint8))
        assert all(counts.any() for counts in result.counts)


def test_what_lava_does_run_is_not_refused(tmp_path):
    """Odd spellings of numbers that mean what they say."""
    change = {
        "layer/1/neuron/vThMant": np.int16(600),  # a scalar is shifted in 64 bits
        "layer/1/neuron/iDecay": np.array([0, 9, 200, 255], np.uint8),
        "layer/1/wgtExp": 3,  # nobody reads it
        "layer/3/neuron/vThMant": 2**40,
        "layer/3/delay": np.full(3, -0.5),  # cut off to 0
        "layer/3/bias": np.full((1, 1), 5),
    }

    conv, dense = read_netx(write(tmp_path / "a.net", change)).layers

    assert int(conv.neuron.threshold) == 600
    assert conv.neuron.current_decay.tolist() == [0, 9, 200, 255]
    assert int(dense.neuron.threshold) == 131072  # never, and so is everything above
    assert not dense.delay.any()
    assert dense.bias.tolist() == [5]


def test_message_bits_out_of_range_are_refused(tmp_path):
    path = write(tmp_path / "a.net", {})
    for bits in (-1, 17):
        with pytest.raises(UsageError, match=rf"input_bits is {bits}; it must be 0..16"):
            read_netx(path, input_bits=bits)


NEURON = CubaNeuron(np.array(20))
CONV = ConvLayer((4, 5, 5), np.full((4, 2, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1, NEURON)
DENSE = DenseLayer((3,), np.full((3, 100), 2), NEURON, flatten=True)
SUBTRACTING = {"conv": {"self_weight": np.full(4, 20)}, "dense": {"self_weight": np.full(3, 20)}, "reset": "subtract"}


def network(conv=None, dense=None, **changes):
    layers = (replace(CONV, **(conv or {})), replace(DENSE, **(dense or {})))
    return replace(NetxNetwork(InputLayer((2, 5, 5)), layers), **changes)


def neuron(**changes):
    return {"neuron": replace(NEURON, **{name: np.array(value) for name, value in changes.items()})}


NETWORKS = {
    "groups": (
        NetxNetwork(
            InputLayer((128, 1, 1)),
            (ConvLayer((128, 1, 1), np.full((128, 1, 1, 1), 2), (1, 1), (0, 0), (1, 1), 128, NEURON),),
        ),
        r"layer_00 \(conv\): 128 groups; at most 127 \(Lava stores them as int8",
    ),
    "shape": (network(conv={"shape": (4, 5, 4)}), r"layer_00 \(conv\): shape \(4, 5, 4\)"),
    "no flatten": (network(dense={"flatten": False}), r"layer_01 \(dense\): no flatten between"),
    "parameters": (network(dense=neuron(threshold=[1, 2])), r"layer_01 .*: vThMant has shape \(2,\)"),
    "current decay": (network(conv=neuron(current_decay=4097)), r"layer_00 .*: iDecay 4097..4097; 0..4096"),
    "voltage decay": (network(dense=neuron(voltage_decay=-1)), r"layer_01 .*: vDecay -1..-1; 0..4096"),
    "threshold": (network(conv=neuron(threshold=131073)), r"layer_00 .*: threshold 131073..131073; \+-131072"),
    "threshold below": (network(conv=neuron(threshold=-131073)), r"layer_00 .*: threshold -131073..-131073"),
    "input's decay": (
        network(input=InputLayer((2, 5, 5), **neuron(current_decay=-3))),
        "the input's neurons: iDecay -3..-3; 0..4096",
    ),
    "input's parameters": (
        network(input=InputLayer((2, 5, 5), **neuron(threshold=[1, 2, 3]))),
        r"a parameter of the input's neurons has shape \(3,\)",
    ),
    "message bits": (network(input_bits=17), "input_bits is 17; it must be 0..16"),
    "delay": (network(dense={"delay": np.full((3, 100), 63)}), r"layer_01 .*: delays 63..63; 0..62"),
    "delay below 0": (network(dense={"delay": np.full((3, 100), -1)}), r"layer_01 .*: delays -1..-1; 0..62"),
    "delay's shape": (network(dense={"delay": np.zeros(3, int)}), r"layer_01 .*: delay has shape \(3,\)"),
    "recurrence": (network(dense={"weight_rec": np.ones((3, 5), int)}), r"layer_01 .*: weight_rec has shape \(3, 5\)"),
    "recurrence with delays": (
        network(dense={"weight_rec": np.full((3, 3), 2), "delay": np.zeros((3, 100), int)}),
        "layer_01 .*: recurrent synapses with delays come out scaled in NetX; remove the delays",
    ),
    "self-weight": (
        network(**{**SUBTRACTING, "conv": {"self_weight": np.full(4, 2**23)}}),
        r"layer_00 .*: self_weight 8388608; below 8388608 \(Lava wraps it at 24 bits\)",
    ),
    "negative self-weight": (
        network(**{**SUBTRACTING, "dense": {"self_weight": np.full(3, -1)}}),
        r"layer_01 .*: self_weight -1; 0 or more",
    ),
    "no self-weight": (network(reset="subtract"), r"layer_00 .*: no self_weight in a network with reset subtract"),
    "sums": (network(conv={"weight": np.full((4, 2, 3, 3), 2**27)}), r"layer_00 .*2\^31"),
    "graded sums": (network(conv={"weight": np.full((4, 2, 3, 3), 2**20)}, input_bits=8), r"layer_00 .*2\^31"),
    "zeros": (
        network(dense={"weight": np.zeros((3, 100), int)}),
        "layer_01 .*: all weights are zero; NetX cannot load",
    ),
    "beyond 8 bits": (network(dense={"weight": np.full((3, 100), 256)}), "layer_01 .*exceed 8 bits; NetX drops all"),
    "odd and negative": (
        network(dense={"weight": np.where(np.arange(300).reshape(3, 100) > 9, -255, 0)}),
        "layer_01 .*come out as zeros in Lava without a word",
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_lava_cannot_run_is_refused_by_name(name, method):
    broken, message = NETWORKS[name]
    spikes = np.ones((1, 2, *broken.input_shape), np.uint8)

    with pytest.raises(GascnnError, match=message) as raised:
        simulate(broken, spikes, method=method)
    assert "\n" not in str(raised.value)
    with pytest.raises(GascnnError, match=message):
        PreparedTask(lava.Task(broken, spikes), 0)


def test_the_network_that_is_broken_above_is_fine():
    for fine in (network(), network(**SUBTRACTING)):
        check_runnable(fine)
        assert simulate(fine, np.ones((1, 9, 2, 5, 5), np.uint8)).counts[0].any()


@pytest.mark.parametrize("limit", [1, 1 << 20, 1 << 25])
@pytest.mark.parametrize("method", METHODS)
def test_a_memory_limit_that_nothing_fits_never_changes_a_spike(method, limit):
    """A limit below what the process holds anyway is refused, or kept by running image after image; both are right."""
    spikes = np.ones((3, 9, 2, 5, 5), np.uint8)
    right = simulate(network(), spikes)

    try:
        found = simulate(network(), spikes, method=method, memory_bytes=limit)
    except LimitError as error:
        assert "memory" in str(error)  # noqa: PT017 - either outcome is right
        return
    for theirs, ours in zip(found.counts, right.counts, strict=True):
        np.testing.assert_array_equal(theirs, ours)
