"""Sigma-delta neurons from the command line: digits from images to messages."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.data import load_dataset

DATA = ("--data", "digits")


@pytest.fixture(scope="module")
def sdnn(models, tmp_path_factory):
    """The ANN of all tests as a spiking bundle and as a NetX file."""
    from gascnn.toolkit.cli import main

    folder = tmp_path_factory.mktemp("sdnn")
    few = ("--calibration-images", 200)
    for arguments in (
        ("convert", models.ann, *DATA, "--neuron", "sdnn", *few, "-o", folder / "snn", "--json", folder / "snn.json"),
        ("export", folder / "snn", "--target", "lava", *DATA, "--limit", 300, "-o", folder / "a.net",
         "--json", folder / "a.json"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        assert left.value.code == 0
    return folder


def report(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_digits_lose_nothing(gascnn, models, sdnn, tmp_path):
    gascnn("run", models.ann, *DATA, "--json", tmp_path / "ann.json")
    gascnn("run", sdnn / "a.net", *DATA, "--json", tmp_path / "net.json")
    ann, net = report(tmp_path / "ann.json"), report(tmp_path / "net.json")
    same = np.mean(np.array(ann["predictions"]) == net["predictions"])
    assert same > 0.97
    assert net["accuracy"] > ann["accuracy"] - 0.02
    assert net["auc"] > 0.99, "the sums at the end rank the images"
    assert (net["neuron"], net["steps"]) == ("sdnn", 1)
    expected = report(sdnn / "a.json")["expected"]
    assert expected["accuracy"] == net["accuracy"]
    assert expected["network_digest"] == net["network_digest"]


def test_what_it_costs_is_reported(sdnn):
    made = report(sdnn / "snn.json")
    cost = made["messages"]
    network = read_netx(sdnn / "a.net")
    assert cost["operations"] < 0.95 * cost["all_operations"] < network.multiply_accumulates
    assert cost["thresholds"] == [int(n.threshold) for n in (network.input.neuron, *(
        layer.neuron for layer in network.layers[:-1]))]  # fmt: skip
    assert 0 < cost["error"] <= made["options"]["message_error"]


def test_the_bundle_in_floating_point_is_the_ann(gascnn, models, sdnn, tmp_path):
    gascnn("run", models.ann, *DATA, "--json", tmp_path / "ann.json")
    gascnn("run", sdnn / "snn", *DATA, "--json", tmp_path / "snn.json")
    ann, snn = report(tmp_path / "ann.json"), report(tmp_path / "snn.json")
    assert np.mean(np.array(ann["predictions"]) == snn["predictions"]) > 0.98
    assert snn["auc"] > 0.99


def test_from_the_ann_at_once_is_the_same(gascnn, models, sdnn, tmp_path):
    path = tmp_path / "b.net"
    done = gascnn("export", models.ann, "--target", "lava", *DATA, "--neuron", "sdnn", "--calibration-images", 200,
                  "--limit", 20, "-o", path)  # fmt: skip
    assert done.status == 0
    assert "synaptic operations an image where all messages take" in done.out
    assert read_netx(path).digest() == read_netx(sdnn / "a.net").digest()


def test_through_nir(gascnn, sdnn, tmp_path):
    gascnn("export", sdnn / "snn", "--target", "nir", "-o", tmp_path / "a.nir")
    done = gascnn("export", tmp_path / "a.nir", "--target", "lava", "-o", tmp_path / "c.net")
    assert done.status == 0
    assert read_netx(tmp_path / "c.net").digest() == read_netx(sdnn / "a.net").digest()


def test_saved_messages_and_input(gascnn, sdnn, tmp_path):
    path = sdnn / "a.net"
    done = gascnn(
        "run", path, *DATA, "--limit", 3, "--save-spikes", tmp_path / "s.npz", "--save-input", tmp_path / "i.npz"
    )
    assert done.status == 0
    network = read_netx(path)
    images = load_dataset("digits").test.take(3).images
    expected = simulate(network, encode_for(network, images), record="spikes").messages
    with np.load(tmp_path / "s.npz") as saved:
        for index, sent in enumerate(expected):
            assert saved[f"layer_{index:02d}"].dtype == np.int32
            np.testing.assert_array_equal(saved[f"layer_{index:02d}"], sent)
    with np.load(tmp_path / "i.npz") as saved:
        assert saved["spikes"].shape == (3, 1, *network.input_shape)
        assert set(np.unique(saved["spikes"][:, :, -1])) == {32}


@pytest.mark.lava
def test_verify_in_stock_lava(gascnn, sdnn, tmp_path):
    done = gascnn(
        "verify", sdnn / "a.net", *DATA, "--limit", 2, "--backend", "lava-stock", "--json", tmp_path / "v.json"
    )
    assert done.status == 0
    assert "every message of every layer at every step is equal" in done.out
    found = report(tmp_path / "v.json")
    assert (found["passed"], found["stock_images"], found["neuron"]) == (True, 2, "sdnn")
    assert all(layer["spikes"] > 0 for layer in found["layers"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--reset", "subtract"),
            "--reset subtract is for integrate-and-fire neurons; leave it out with --neuron sdnn",
        ),
        (("--reset", "zero"), "--reset zero is for"),
        (("--steps", 8), "--steps 8 is for integrate-and-fire neurons"),
        (("--coding", "regular"), "--coding regular is for"),
        (("--leak", 0.9), "leak 0.9 is for integrate-and-fire neurons"),
        (("--readout", "membrane"), "readout membrane is for"),
        (("--message-error", -1), "message_error is -1.0; it must be a share of the variance, 0 or more"),
    ],
)
def test_options_for_other_neurons(gascnn, models, tmp_path, options, message):
    done = gascnn("convert", models.ann, *DATA, "--neuron", "sdnn", *options, "-o", tmp_path / "x")
    assert done.status == 2
    assert done.error.startswith(message)
    assert not (tmp_path / "x").exists()


def test_message_error_needs_messages(gascnn, models, tmp_path):
    done = gascnn("convert", models.ann, *DATA, "--message-error", 0.1, "-o", tmp_path / "x")
    assert done.status == 2
    assert done.error == "--message-error is for sigma-delta neurons; give --neuron sdnn, or leave it out"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--neuron", "cuba"), "MODEL was converted for neuron sdnn; convert its ANN with --neuron cuba"),
        (("--reset", "subtract"), "reset subtract is for integrate-and-fire neurons"),
        (("--bias", "neuron"), "bias neuron is for integrate-and-fire neurons"),
        (("--input-bits", 4), "input_bits 4 is for integrate-and-fire neurons"),
    ],
)
def test_exports_that_cannot_be(gascnn, sdnn, tmp_path, options, message):
    done = gascnn("export", sdnn / "snn", "--target", "lava", *options, "-o", tmp_path / "x.net")
    assert done.status == 2
    assert done.error.startswith(message)
    assert not (tmp_path / "x.net").exists()


def test_a_network_of_spikes_is_not_made_sdnn(gascnn, models, tmp_path):
    done = gascnn("export", models.snn, "--target", "lava", "--neuron", "sdnn", "-o", tmp_path / "x.net")
    assert done.status == 2
    assert done.error == "MODEL was converted for neuron cuba; convert its ANN with --neuron sdnn"


def test_methods_for_spikes(gascnn, sdnn):
    done = gascnn("run", sdnn / "a.net", *DATA, "--limit", 1, "--method", "events")
    assert done.status == 2
    assert done.error.startswith("method events is for spikes; sigma-delta networks run with plain")
