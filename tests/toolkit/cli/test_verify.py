"""The main job's proof, on a trained ResNet with identity and projection shortcuts: simulator against the real Lava."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware import lava
from gascnn.hardware.backends import open_netx
from gascnn.hardware.lava import LavaResult, checked, supervisor
from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator import simulate
from gascnn.hardware.verify import compare
from gascnn.toolkit.coding import encode_for
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
    assert (result["stock_images"], result["fast_images"]) == ((2, 0) if backend == "lava-stock" else (1, 2))
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
    spikes = encode_for(network, load_dataset("digits").test.images[:4])
    expected = simulate(network, spikes, record="spikes")
    busiest = int(expected.counts[1].sum((0, 2, 3))[:8].argmax())
    changed = tmp_path / "changed.net"
    shutil.copy(models.zero, changed)
    with h5py.File(changed, "r+") as file:
        weights = file["layer/3/weight"][()]
        weights[2, busiest, 1, 1] += 2
        file["layer/3/weight"][...] = weights
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


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Change a line of the worker."""

    def change(module, before, after):
        worker = tmp_path / "worker"
        shutil.copytree(supervisor.WORKER.parent, worker)
        text = (worker / module).read_text()
        assert text.count(before) == 1
        (worker / module).write_text(text.replace(before, after))
        monkeypatch.setattr(supervisor, "WORKER", worker / "main.py")

    return change


def verified(gascnn, models, tmp_path, *options):
    common = ("--data", "digits", "--steps", 12, "--json", tmp_path / "v.json")
    outcome = gascnn("verify", models.subtract, *common, *options)
    return outcome, json.loads((tmp_path / "v.json").read_text())


@pytest.mark.lava
def test_one_image_runs_in_lavas_own_models_whatever_runs_the_others(gascnn, models, tmp_path):
    for options, stock, fast, line in (
        (("--limit", 3), 1, 3, "1 image with Lava's own process models, 3 with faster ones (the first with both)"),
        (("--limit", 1), 1, 0, "1 image with Lava's own process models, 0 with faster ones"),
        (("--limit", 2, "--stock"), 2, 0, "2 images with Lava's own process models, 0 with faster ones"),
    ):
        outcome, result = verified(gascnn, models, tmp_path, *options)
        assert outcome.status == 0, outcome.err
        assert (result["stock_images"], result["fast_images"], result["why_stock"]) == (stock, fast, None)
        assert line in outcome.out.splitlines()


@pytest.mark.lava
def test_a_wrong_faster_model_is_caught_by_the_image_that_runs_in_both(gascnn, models, tmp_path, broken):
    broken("arithmetic.py", "return self._wrapped(sums.transpose", "return 2 + self._wrapped(sums.transpose")

    outcome, result = verified(gascnn, models, tmp_path, "--limit", 2)
    assert outcome.status == 1
    assert "the faster models and Lava's own differ on the first image: layer_00 (conv: relu), step 1," in outcome.error
    # The first image that is compared with the simulator is Lava's own; the second is not.
    assert result["first_difference"]["image"] == 1

    for options in (("--limit", 1), ("--limit", 2, "--stock")):
        outcome, result = verified(gascnn, models, tmp_path, *options)
        assert outcome.status == 0, outcome.err
        assert result["fast_images"] == 0


@pytest.mark.lava
def test_what_a_faster_model_leaves_from_image_to_image_is_caught(gascnn, models, tmp_path, broken):
    broken(
        "models.py", "return (self.time_step - 1) % int(self.proc_params[_INTERVAL]) == 0", "return self.time_step == 1"
    )

    outcome, result = verified(gascnn, models, tmp_path, "--limit", 2)

    assert outcome.status == 1
    # In which layer what was left shows first is a matter of the trained weights, whose last bits are the processor's.
    assert "first difference: layer_" in outcome.error
    assert result["first_difference"]["image"] == 1
    assert len(result["reasons"]) == 1


def test_a_read_out_alone_that_differs_between_the_models_is_named(models, monkeypatch):
    file = open_netx(models.zero)
    spikes = (np.random.default_rng(0).random((3, 8, 1, 8, 8)) < 0.4).astype(np.uint8)
    asked = []

    def pretended(tasks, **_):
        asked.extend((len(task.spikes), task.stock_models) for task in tasks)
        runs = [simulate(file.network, task.spikes, record="spikes") for task in tasks]
        runs[1].output_membrane[0, 0] += 1
        return [
            LavaResult(**vars(run), models="stock" if task.stock_models else "fast")
            for task, run in zip(tasks, runs, strict=True)
        ]

    monkeypatch.setattr(checked, "run_many", pretended)

    found = checked.run_checked(file, spikes)

    assert asked == [(1, True), (3, False)]
    assert (found.stock_images, found.fast_images, found.result.images) == (1, 3, 3)
    assert found.problems == (
        "the faster models and Lava's own differ on the first image: its read-out; --stock runs Lava's own alone",
    )
    expected = simulate(file.network, spikes, record="spikes")
    np.testing.assert_array_equal(found.result.output_membrane, expected.output_membrane)


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


def test_a_read_out_by_its_membrane_need_not_spike(models):
    network = read_netx(models.zero)
    left, right = results(network)
    for run in (left, right):
        run.spikes[-1][...] = False
    assert np.ptp(left.output_membrane) > 0
    assert compare(network, left, right).passed
    still = np.zeros_like(left.output_membrane)
    check = compare(network, replace(left, output_membrane=still), replace(right, output_membrane=still))
    assert not check.passed
    assert "is silent: its spikes prove nothing" in check.reasons()[0]


def test_runs_of_other_sizes_are_not_compared(models):
    network = read_netx(models.zero)
    left, right = results(network)
    with pytest.raises(ValueError, match="both runs must record"):
        compare(network, left, replace(right, spikes=None))
    with pytest.raises(ValueError, match="differ in images"):
        compare(network, left, replace(right, spikes=right.spikes[:-1]))
