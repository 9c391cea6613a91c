"""The race of PGSL's clients: who takes part, that they agree, and what is made of their times."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gascnn.benchmarks.pgsl import edge_client
from gascnn.benchmarks.pgsl.edge_client import (
    AUTOGRAD,
    CONTENDERS,
    FORWARD,
    FP32,
    INT8,
    NETWORKS,
    EdgeNetwork,
    compare_activations,
    export_files,
    markdown,
    race_clients,
    random_client,
    summary,
)
from gascnn.benchmarks.pgsl.edge_contender import AutogradClient
from gascnn.exporters.onnx.check import probe_images
from gascnn.hardware.edge import EdgeModel
from gascnn.toolkit.errors import BackendError, CheckFailed, DataError, UsageError
from gascnn.toolkit.pgsl.options import PgslOptions

TINY = EdgeNetwork(12, classes=3, pixels=5, width=8, local_width=3, calls=4, most_s=100.0, times_torch=1e9)


def test_the_race_from_the_files_to_the_table():
    images = probe_images(TINY.shape)[:9]
    said = []
    report = race_clients([TINY], rounds=3, images={TINY.name: images}, images_are="test", progress=said.append)
    json.dumps(report, allow_nan=False)
    (found,) = report["networks"]
    assert [one["name"] for one in found["contenders"]] == [FP32, INT8, AUTOGRAD, FORWARD]
    for one in found["contenders"]:
        assert one["calls"] == 12
        assert len(one["median_s_rounds"]) == 3
        low, high = one["median_interval_s"]
        assert 0 < low <= one["median_s"] <= high
        assert one["median_s"] <= one["p95_s"] <= one["p99_s"]
    assert {"onnxruntime", "torch", "numpy"} <= found["versions"].keys()
    assert found["agreement"][FP32]["agreeing_images"] >= 0.95
    assert 1e-5 < found["agreement"][INT8]["largest_difference"] < 0.3
    assert (found["images"], found["images_are"], report["threads"]) == (9, "test", 1)
    assert [goal["reached"] for goal in found["goals"]] == [True, True, False]
    text = markdown(report)
    assert "**12x12x1**, attack on 5 pixels" in text
    assert "times the speed of torch-autograd" in text
    assert text.count("**not reached**") == 1
    assert "12x12x1: round 3 of 3" in said


def test_autograd_gives_what_forward_operators_give():
    """Each in its own words: a gradient by the chain rule written out, and one by autograd."""
    images = probe_images((3, 14, 14))
    client = random_client(EdgeNetwork(14, channels=3, classes=4, pixels=20, amount=0.5, width=8), images)
    values = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        expected, found = client(values), AutogradClient(client)(values)
    assert float((expected - found).abs().max()) < 1e-5 * float(expected.abs().max())
    client.attack.pixels = 3
    with torch.no_grad():
        assert not torch.equal(AutogradClient(client)(values), found)  # the attack is in it


def test_files_are_those_of_the_client(tmp_path):
    images = probe_images(TINY.shape)
    client, files = export_files(TINY, tmp_path)
    with torch.no_grad():
        expected = client(torch.from_numpy(images).float() / 255).numpy()
    model = EdgeModel(tmp_path / files["fp32"]["name"])
    assert np.abs(model.activations(images) - expected).max() < 1e-4 * np.abs(expected).max()
    assert model.metadata.details["attack"] == {"pixels": 5, "amount": 1.0, "bound": None}
    rounded = EdgeModel(tmp_path / files["int8"]["name"])
    assert (rounded.metadata.precision, rounded.metadata.details["calibrated_on"]) == ("int8", "noise")
    assert files["int8"]["bytes"] == (tmp_path / "int8.onnx").stat().st_size


def test_statistics_are_those_of_the_images():
    images = probe_images(TINY.shape)[:8]
    client = random_client(TINY, images)
    client.layers[2].train()
    client.layers[2].momentum = 0.0
    values = torch.from_numpy(images).float() / 255
    seen = []
    client.layers[1].register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        client(values)
    torch.testing.assert_close(client.layers[2].running_mean, seen[0].mean((0, 2, 3)))


def test_defaults_are_those_of_the_task():
    assert [network.name for network in NETWORKS] == ["28x28x1", "256x256x1"]
    assert [network.most_s for network in NETWORKS] == [0.005, 0.060]
    assert NETWORKS[0].times_torch == 2.0
    options = PgslOptions()
    assert (NETWORKS[0].pixels, NETWORKS[0].amount, NETWORKS[0].width) == (
        options.pixels,
        options.amount,
        options.width,
    )
    assert NETWORKS[1].pixels == round(options.pixels * 256**2 / 28**2)
    assert all(one.one_thread for one in CONTENDERS)


def test_quantiles_and_ratios_by_hand():
    rounds = {
        FP32: [[1, 2, 9], [3, 4, 5]],
        INT8: [[2, 2, 2]] * 2,
        AUTOGRAD: [[8, 8, 8], [8, 8, 40]],
        FORWARD: [[4] * 3] * 2,
    }
    found = summary(replace(TINY, most_s=3.0, times_torch=3.5), rounds)
    fp32 = found["contenders"][0]
    assert (fp32["median_s"], fp32["median_s_rounds"]) == (3.5, [2, 4])
    assert fp32["p95_s"] == pytest.approx(8.0)  # between 5 and 9, at 4.75 of 0..5
    assert fp32["median_interval_s"] == [2.0, 4.0]  # resamples are twice the one, twice the other, or both
    ratios = {one["what"]: one["found"] for one in found["ratios"]}
    assert ratios[f"{FP32}, times the speed of {AUTOGRAD}"] == 3.0  # of 8/2 and 8/4
    assert ratios[f"{INT8}, times the speed of {FP32}"] == 1.5
    assert [(goal["found"], goal["reached"]) for goal in found["goals"]] == [(3.5, False), (2, True), (3.0, False)]


def test_contenders_that_disagree_have_no_times():
    exact = np.linspace(-1, 1, 40 * 6, dtype=np.float32).reshape(40, 6)
    found = {one.name: exact.copy() for one in CONTENDERS}
    found[INT8] = found[INT8] + 0.1
    found[FP32][0] += 1  # one image of forty may take the other side of a step
    agreement = compare_activations(found)
    assert agreement[FP32]["agreeing_images"] == 39 / 40
    assert agreement[INT8]["largest_difference"] == pytest.approx(0.1, rel=1e-5)
    for wrong in (1e-3, np.nan):
        found[AUTOGRAD] = exact.copy()
        found[AUTOGRAD][:3] += wrong
        with pytest.raises(CheckFailed, match="torch-autograd and torch-forward agree on 92% of 40 images; 95% are"):
            compare_activations(found)


def test_what_makes_no_race_is_refused(tmp_path):
    with pytest.raises(UsageError, match="1 rounds are too few"):
        race_clients([TINY], rounds=1)
    with pytest.raises(UsageError, match="calls are below 1"):
        race_clients([replace(TINY, calls=0)])
    with pytest.raises(DataError, match="takes uint8"):
        export_files(TINY, tmp_path, np.zeros((3, 1, 12, 11), np.uint8))
    with pytest.raises(UsageError, match="image_size is 13"):
        export_files(replace(TINY, size=13), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_contender_that_fails_is_named(tmp_path, monkeypatch):
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no such processor')")
    monkeypatch.setattr(edge_client.edge_contender, "__file__", str(script))
    with pytest.raises(BackendError, match=r"onnxruntime-fp32: its process ended with status 1 \(no such processor\)"):
        race_clients([TINY], rounds=2)
