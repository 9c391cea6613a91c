"""The main job's proof, on a trained ResNet with identity and projection shortcuts: simulator against the real Lava."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware import lava
from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator import simulate
from gascnn.hardware.verify import compare
from gascnn.toolkit.coding import encode
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.files import sha256_file


@pytest.mark.lava
@pytest.mark.parametrize(("reset", "backend"), [("zero", "lava-stock"), ("zero", "lava"), ("subtract", "lava")])
def test_every_spike_is_equal_in_lava(gascnn, models, tmp_path, reset, backend):
    path = getattr(models, reset)
    outcome = gascnn(
        "verify", path, "--data", "digits", "--limit", 2, "--backend", backend, "--json", tmp_path / "v.json"
    )
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "v.json").read_text())
    assert result["passed"]
    assert result["model"]["sha256"] == sha256_file(path)
    assert sha256_file(path) in outcome.out
    relays = [s for layer in read_netx(path).layers for s in layer.segments if s.kind == "relay"]
    assert {s.name for s in relays} == {"relu", "layer1_0_relu_out"}  # one identity, one projection shortcut
    for layer in result["layers"]:
        assert layer["spikes"] >= 5
        assert layer["firing_rate"] > 0
        assert layer["differences"] == 0


@pytest.mark.lava
def test_a_weight_changed_by_two_is_seen_and_named(models, tmp_path):
    """Lava runs a file in which one weight differs from the network the simulator has."""
    network = read_netx(models.zero)
    changed = tmp_path / "changed.net"
    shutil.copy(models.zero, changed)
    with h5py.File(changed, "r+") as file:
        weights = file["layer/3/weight"][()]
        weights[2, 3, 1, 1] += 2
        file["layer/3/weight"][...] = weights
    spikes = encode(load_dataset("digits").test.images[:2], "regular", 16)
    expected = simulate(network, spikes, record="spikes")
    same = compare(network, expected, lava.run(models.zero, spikes))
    assert same.passed
    check = compare(network, expected, lava.run(changed, spikes))
    assert not check.passed
    assert check.first_difference is not None
    # File layer 3 is the third synaptic layer; nothing before it can differ.
    assert check.first_difference.layer.startswith("layer_02 (conv: layer1_0_relu_out)")
    assert check.first_difference.neuron[0] == 2
    assert [layer.differences > 0 for layer in check.layers[:2]] == [False, False]
    assert "where the simulator has" in check.reasons()[0]


def results(network, flip=None):
    spikes = (np.random.default_rng(0).random((2, 8, 1, 8, 8)) < 0.4).astype(np.uint8)
    left = simulate(network, spikes, record="spikes")
    right = simulate(network, spikes, record="spikes")
    if flip is not None:
        layer, index = flip
        right.spikes[layer][index] ^= True
    return left, right


def test_the_first_difference_is_the_earliest(models):
    network = read_netx(models.zero)
    left, right = results(network, (3, (1, 9, 4, 2, 1)))
    right.spikes[1][1, 9, 5, 0, 0] ^= True
    right.spikes[1][1, 12, 0, 0, 0] ^= True
    check = compare(network, left, right)
    found = check.first_difference
    assert (found.layer.split()[0], found.image, found.step, found.neuron) == ("layer_01", 1, 9, (5, 0, 0))
    assert [layer.differences for layer in check.layers] == [0, 2, 0, 1, 0, 0]
    assert not check.passed


def test_a_read_out_that_differs_fails_even_where_spikes_agree(models):
    network = read_netx(models.zero)
    left, right = results(network)
    other = replace(right, output_membrane=right.output_membrane + 1)
    assert isinstance(other, RunResult)
    assert compare(network, left, right).readout_equal
    check = compare(network, left, other)
    assert not check.passed
    assert "the read-out" in check.reasons()[0]


def test_runs_of_other_sizes_are_not_compared(models):
    network = read_netx(models.zero)
    left, right = results(network)
    with pytest.raises(ValueError, match="both runs must record"):
        compare(network, left, replace(right, spikes=None))
    with pytest.raises(ValueError, match="differ in images"):
        compare(network, left, replace(right, spikes=right.spikes[:-1]))
