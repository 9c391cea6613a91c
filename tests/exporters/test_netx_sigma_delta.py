"""Files of sigma-delta networks: what is in them, what comes back, what is refused."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from gascnn.exporters.netx import read_netx, recorded_digest, write_netx
from gascnn.toolkit.errors import FormatError, LimitError
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


def network(threshold=3, bias=None):
    rng = np.random.default_rng(0)
    weight = rng.integers(-60, 60, (4, 3, 3, 3)) * 2
    segments = (Segment("population", "relu", 0, 3), Segment("always-on", "always-on", 3, 4))
    conv = ConvLayer(
        (4, 5, 5), weight, (1, 1), (1, 1), (1, 1), 1, SigmaDeltaNeuron(np.array(threshold)), bias, segments=segments
    )
    last = DenseLayer((2,), rng.integers(-60, 60, (2, 100)) * 2, SigmaDeltaNeuron(read_out=True), flatten=True)
    deployment = Deployment((2, 5, 5), ("a", "b"), steps=1, coding="constant")
    declared = InputLayer((3, 5, 5), SigmaDeltaNeuron(np.array(7)))
    return NetxNetwork(declared, (conv, last), constant_channels=1, deployment=deployment)


def test_what_is_written_comes_back(tmp_path):
    biases = (None, np.arange(4), np.ones((4, 5, 5), int))
    for number, made in enumerate((network(0), *(network(9, bias) for bias in biases))):
        path = tmp_path / f"{number}.net"
        write_netx(made, path)
        read = read_netx(path)
        assert read.digest() == made.digest() == recorded_digest(path)
        assert read.deployment == made.deployment
        assert read.layers[0].segments == made.layers[0].segments
        assert (read.sigma_delta, read.holds_input, read.constant_level) == (True, True, 32)
        assert read.layers[1].neuron.read_out
        assert int(read.layers[0].neuron.threshold) == int(made.layers[0].neuron.threshold)


def test_the_datasets_stock_netx_reads(tmp_path):
    write_netx(network(), tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net") as file:
        neurons = [file[f"layer/{i}/neuron"] for i in (0, 1, 3)]
        assert [n["type"][0] for n in neurons] == [b"SDNN"] * 3
        assert [int(n["vThMant"][()]) for n in neurons] == [7, 3, 0]
        assert ["sigma_output" in n for n in neurons] == [False, False, True]
        assert {n["activation"][()] for n in neurons} == {b"relu"}
        assert "iDecay" not in neurons[0]
        assert "gascnn/layer" not in file


def test_every_number_is_in_the_digest():
    base = network()
    changed = (
        network(4),
        replace(base, input=replace(base.input, neuron=SigmaDeltaNeuron(np.array(8)))),
        replace(base, layers=(base.layers[0], replace(base.layers[1], neuron=SigmaDeltaNeuron()))),
        replace(base, input=replace(base.input, neuron=CubaNeuron(np.array(7)))),
    )
    assert len({made.digest() for made in (base, *changed)}) == 5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"neuron": SigmaDeltaNeuron(np.array(2048))}, r"layer_00 .*threshold 2048..2048; 0..2047"),
        ({"neuron": SigmaDeltaNeuron(np.full(4, 3))}, "sigma-delta thresholds a channel; one a layer"),
        ({"weight": np.full((4, 3, 3, 3), 3)}, "weights 3..3 with odd ones"),
        ({"self_weight": np.full(4, 64)}, "a self_weight in a network with reset zero"),
    ],
)
def test_what_cannot_run_is_not_written(tmp_path, change, match):
    base = network()
    broken = replace(base, layers=(replace(base.layers[0], **change), base.layers[1]))
    with pytest.raises((LimitError, FormatError), match=match):
        write_netx(broken, tmp_path / "a.net")
    assert not (tmp_path / "a.net").exists()


@pytest.mark.parametrize(
    ("where", "name", "value", "match"),
    [
        (
            "layer/1/neuron",
            "vThMant",
            -1,
            r"layer/1/neuron: vThMant is -1..-1; with neuron type SDNN Lava holds 0..524287",
        ),
        ("layer/1/neuron", "vThMant", 524288, "vThMant is 524288..524288"),
        ("layer/1/neuron", "vThMant", 1.5, "vThMant must be whole numbers"),
        ("layer/1/neuron", "vThMant", np.full(4, 3000, np.int16), "stored as int16, in which Lava's shift by 12 bits"),
        ("layer/1/neuron", "vThMant", np.full(4, 3), "sigma-delta thresholds a channel"),
        ("layer/1/neuron", "messageBits", 16, "messageBits cannot be loaded by NetX"),
        ("layer/1/neuron", "sigma_output", False, "a sigma_output that is not the last layer"),
        ("layer/3", "bias", np.array([1, 2]), "a sigma_output with a bias"),
        ("layer/3", "delay", np.ones(2), "delays with sigma-delta neurons; not supported"),
        ("layer/3/neuron", "type", np.array([b"CUBA"]), "no 'vDecay' in it|no 'iDecay' in it"),
        (
            "layer/3/neuron",
            "type",
            np.array([b"SDN"]),
            "neuron type SDN is not supported; supported: CUBA, LOIHI, SDNN",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path, where, name, value, match):
    path = tmp_path / "a.net"
    write_netx(network(), path)
    with h5py.File(path, "a") as file:
        if name in file[where]:
            del file[where][name]
        file[where][name] = value
    with pytest.raises(FormatError, match=match) as caught:
        read_netx(path)
    assert "\n" not in str(caught.value)


def test_a_dense_layer_without_neurons_does_not_go_with_messages(tmp_path):
    path = tmp_path / "a.net"
    write_netx(network(), path)
    with h5py.File(path, "a") as file:
        del file["layer/3/neuron"]
    with pytest.raises(FormatError, match="neurons of types CUBA and SDNN in one network"):
        read_netx(path)


def test_any_sigma_output_counts(tmp_path):
    """NetX asks only whether it is there."""
    path = tmp_path / "a.net"
    write_netx(network(), path)
    with h5py.File(path, "a") as file:
        del file["layer/3/neuron/sigma_output"]
        file["layer/3/neuron/sigma_output"] = False
        del file["layer/3/neuron/vThMant"]
    assert read_netx(path).layers[1].neuron.read_out
