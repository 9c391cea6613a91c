"""``gascnn bench sweep`` as a user types it: an ANN, a spiking bundle, deployed files; resumed; refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from gascnn.exporters.netx import read_netx, write_netx
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.data import load_dataset

FEW = ("--data", "digits", "--limit", 30)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", image_size=8, channels=1)


def test_a_deployed_file(gascnn, models, digits, tmp_path):
    done = gascnn(
        "bench", "sweep", models.zero, *FEW, "--steps", "4,16", "--factors", "1,1.5", "--ann", models.ann,
        "--skip-steps", "25%", "--json", tmp_path / "s.json", "--plot", tmp_path / "s.svg",
    )  # fmt: skip
    assert done.status == 0, done.err
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["format"] == 1
    assert [(p["steps"], p["factor"], p["skip_steps"]) for p in found["points"]] == [
        (4, 1.0, 1), (4, 1.5, 1), (16, 1.0, 4), (16, 1.5, 4),
    ]  # fmt: skip
    # The point as one would measure it by hand.
    network = read_netx(models.zero)
    answers = simulate(network, encode_for(network, digits.test.images[:30], steps=16), skip_steps=4).predictions()
    point = found["points"][2]
    assert point["network_digest"] == network.digest()
    assert point["test"]["accuracy"]["value"] == pytest.approx(float(np.mean(answers == digits.test.labels[:30])))
    assert found["ann"]["multiply_accumulates"] == point["test"]["paper_energy"]["ann_macs"]
    assert found["macs_of"] == "the ANN"
    operations = [p["test"]["counts"]["synaptic_operations"] for p in found["points"]]
    assert operations[0] < operations[2]
    assert operations[1] < operations[0]
    assert (tmp_path / "s.svg").read_text().startswith("<?xml")
    assert "T = 16, factor 1.5: macro-F1" in done.err
    assert "synaptic operations" in done.out


def test_an_ann_is_converted_for_each_t(gascnn, models, tmp_path):
    done = gascnn(
        "bench", "sweep", models.ann, *FEW, "--steps", "4,8", "--reset", "subtract", "--coding", "rate",
        "--readout", "membrane", "--tolerance", "0.9", "--json", tmp_path / "s.json",
    )  # fmt: skip
    assert done.status == 0, done.err
    found = json.loads((tmp_path / "s.json").read_text())
    assert len({p["network_digest"] for p in found["points"]}) == 2
    assert found["recommended"]["steps"] == 4
    assert "recommended: T = 4, factor 1" in done.out
    assert found["options"]["coding"] == "rate"
    # The read-out never spikes: it is read by its membrane.
    last = found["points"][-1]["test"]["counts"]["layers"][-1]["ways"]
    assert all(way["operations"] == 0 for way in last if way["source"] == "own")
    assert found["points"][-1]["test"]["accuracy"]["value"] > 0.3


def test_a_spiking_bundle_and_a_nir_file_are_the_same(gascnn, models, tmp_path):
    for name, model in (("a", models.snn), ("b", models.nir)):
        done = gascnn("bench", "sweep", model, *FEW, "--steps", "8", "--json", tmp_path / f"{name}.json")
        assert done.status == 0, done.err
        assert "the deployed network's own synapses" in done.out
    points = [json.loads((tmp_path / f"{name}.json").read_text())["points"][0] for name in "ab"]
    assert points[0]["network_digest"] == points[1]["network_digest"]
    assert points[0]["test"]["counts"] == points[1]["test"]["counts"]


def test_an_interrupted_sweep_goes_on(gascnn, models, tmp_path):
    sweep = ("bench", "sweep", models.zero, *FEW, "--run-folder", tmp_path / "run")
    assert gascnn(*sweep, "--steps", "4").status == 0
    kept = tmp_path / "run" / "point-t4-f1.0.json"
    before = kept.stat().st_mtime_ns
    assert gascnn(*sweep, "--steps", "4,8").error.endswith("name a new folder")
    assert gascnn(*sweep, "--steps", "4,8", "--resume").status == 0
    assert kept.stat().st_mtime_ns == before
    assert (tmp_path / "run" / "point-t8-f1.0.json").exists()
    other = gascnn(*sweep, "--steps", "4", "--resume", "--skip-steps", "1")
    assert other.status == 2
    assert 'was begun with skip_steps null, now it is "1"' in other.error


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("zero", ("--steps", "x"), "--steps is 'x'; give whole numbers such as 4,8,16"),
        ("zero", ("--steps", "0"), "each must be 1..1000"),
        ("zero", ("--factors", "1,y"), "--factors is '1,y'; give numbers such as 0.8,1,1.2"),
        ("zero", ("--factors", "0"), "threshold factor is 0; it must be 0.05..20"),
        ("zero", ("--skip-steps", "all"), "--skip-steps is 'all'"),
        ("zero", ("--limit", "0"), "--limit is 0; it must be at least 1"),
        ("zero", ("--reset", "zero"), "--reset is decided when a network is converted"),
        ("snn", ("--readout", "count"), "--readout is decided when a network is converted"),
        ("snn", ("--coding", "rate"), "--coding is decided when a network is converted"),
        ("snn", ("--data-free",), "--data-free is decided when a network is converted"),
        ("zero", ("--against", "ann"), "but there is no ANN; name its bundle"),
        ("zero", ("--resume",), "--resume goes on in a folder; name it with --run-folder"),
        ("zero", ("--plot", "a.jpg"), "a.jpg is not a picture this command writes"),
        ("zero", ("--memory", "much"), "--memory is 'much'"),
    ],
)
def test_wrong_use(gascnn, models, tmp_path, model, arguments, message):
    path = tmp_path / "s.json"
    done = gascnn("bench", "sweep", getattr(models, model), *FEW, "--json", path, *arguments)
    assert done.status == 2
    assert message in done.error
    assert not path.exists()


def test_another_networks_ann(gascnn, models, tmp_path):
    assert "is an ANN itself; leave --ann out" in gascnn("bench", "sweep", models.ann, *FEW, "--ann", models.ann).error
    network = read_netx(models.zero)
    other = network.with_deployment(replace(network.deployment, image_shape=(1, 4, 16)))
    write_netx(other, tmp_path / "other.net")
    done = gascnn("bench", "sweep", tmp_path / "other.net", *FEW, "--ann", models.ann)
    assert "is not an ANN of the images and classes of" in done.error
