"""Every command on a real network: results, JSON, exit status."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from gascnn.exporters.netx import read_netx, write_netx
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.cli import COMMANDS
from gascnn.toolkit.coding import encode
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.files import sha256_file


def saved(path):
    return json.loads(Path(path).read_text())


def test_help_of_every_command_is_complete(gascnn):
    listed = gascnn("--help").out
    for name in COMMANDS:
        assert name in listed
        shown = gascnn(name, "--help")
        assert shown.status == 0
        assert "Usage: gascnn" in shown.out
    assert gascnn("--version").out.startswith("gascnn, version ")


def test_alias_exports(models, tmp_path):
    command = [str(Path(sys.executable).parent / "gascnn-export"), str(models.snn), "--target", "nir", "-o", "x.nir"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sha256_file(tmp_path / "x.nir") in done.stdout


def test_import_of_the_command_line_is_light():
    script = (
        "import sys, gascnn.toolkit.cli; print([m for m in ('torch', 'numpy', 'rich', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_run_reports_accuracy_of_exactly_this_file(gascnn, models, tmp_path):
    outcome = gascnn("run", models.subtract, "--data", "digits", "--json", tmp_path / "r.json")
    assert outcome.status == 0
    result = saved(tmp_path / "r.json")
    assert result["model"]["sha256"] == result["of_file_sha256"] == sha256_file(models.subtract)
    assert sha256_file(models.subtract) in outcome.out
    # The figures again, by hand from the file.
    data, network = load_dataset("digits"), read_netx(models.subtract)
    found = simulate(network, encode(data.test.images, "regular", 16)).predictions()
    assert result["images"] == len(data.test) == 269
    assert result["accuracy"] == pytest.approx((found == data.test.labels).mean())
    assert result["macro_f1"] == pytest.approx(f1_score(data.test.labels, found, average="macro"))
    assert result["predictions"] == found.tolist()
    assert result["accuracy"] > 0.85
    assert all(rate > 0 for rate in result["firing_rates"].values())


def test_every_kind_of_model_runs(gascnn, models, tmp_path):
    accuracy = {}
    for kind, path in (("ann", models.ann), ("snn", models.snn), ("snn", models.nir), ("netx", models.zero)):
        assert gascnn("run", path, "--data", "digits", "--limit", 120, "--json", tmp_path / "r.json").status == 0
        result = saved(tmp_path / "r.json")
        assert result["model"]["kind"] == kind
        assert result["images"] == 120
        accuracy[path.name] = result["accuracy"]
    assert accuracy["ann"] > 0.9
    assert accuracy["snn"] == accuracy["snn.nir"] > 0.85
    assert accuracy["zero.net"] > 0.6


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_pixels_as_graded_input(gascnn, models, tmp_path, reset):
    """Constant coding: what 8 bits of weight and 24 of state leave for a pixel still tells the digits apart."""
    few = ("--data", "digits", "--steps", 32, "--fit-images", 32, "--limit", 100)
    path = tmp_path / "graded.net"
    assert (
        gascnn(
            "export", models.ann, "--target", "lava", "--coding", "constant", "--reset", reset, *few, "-o", path
        ).status
        == 0
    )
    network = read_netx(path)
    assert 2 <= network.input_bits <= 8
    assert gascnn("run", path, "--data", "digits", "--limit", 100, "--json", tmp_path / "r.json").status == 0
    assert saved(tmp_path / "r.json")["accuracy"] == network.deployment.expected["accuracy"] > 0.85


def test_a_large_network_is_measured_only_if_asked(gascnn, models, tmp_path, monkeypatch):
    monkeypatch.setattr("gascnn.toolkit.cli.export.MEASURED_WORK", 1_000_000)
    command = ("export", models.snn, "--target", "lava", "--data", "digits", "-o", tmp_path / "x.net")
    outcome = gascnn(*command)
    assert outcome.status == 0
    assert "accuracy was not measured: this network is large" in outcome.err
    assert "expected on" not in outcome.out
    assert read_netx(tmp_path / "x.net").deployment.expected == {}
    gascnn(*command, "--limit", 3)
    assert read_netx(tmp_path / "x.net").deployment.expected["images"] == 3


def test_framing_travels_with_the_model(gascnn, tmp_path):
    """From training to the deployed file: each feeds images cut as those the network learned from."""
    ann, net = tmp_path / "ann", tmp_path / "f.net"
    data = ("--data", "digits", "--limit", 40, "--json", tmp_path / "r.json")
    assert gascnn("train", "--data", "digits", "--preset", "smoke", "--framing", "foreground", "-o", ann).status == 0
    assert gascnn("export", ann, "--target", "lava", "--steps", 16, "--fit-images", 16, *data, "-o", net).status == 0
    assert gascnn("run", net, *data).status == 0
    network, result = read_netx(net), saved(tmp_path / "r.json")
    framed, whole = load_dataset("digits", framing="foreground").test.take(40), load_dataset("digits").test.take(40)
    assert (framed.images != whole.images).any()
    expected = simulate(network, encode(framed.images, "regular", 16)).predictions()
    assert result["predictions"] == expected.tolist()
    assert expected.tolist() != simulate(network, encode(whole.images, "regular", 16)).predictions().tolist()

    (tmp_path / "pictures").mkdir()
    for index, image in enumerate(load_dataset("digits").test.images[:4]):
        Image.fromarray(image[0]).save(tmp_path / "pictures" / f"{index}.png")
    assert gascnn("predict", net, tmp_path / "pictures", "-o", tmp_path / "p.csv").status == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    names = load_dataset("digits").class_names
    assert [row["class"] for row in rows] == [names[i] for i in expected[:4]]


def test_export_expects_what_run_then_finds(gascnn, models, tmp_path):
    deployment = read_netx(models.subtract).deployment
    gascnn("run", models.subtract, "--data", "digits", "--limit", 40, "--json", tmp_path / "r.json")
    assert deployment.expected["accuracy"] == saved(tmp_path / "r.json")["accuracy"]
    assert deployment.expected["network_digest"] == read_netx(models.subtract).digest()
    assert "path" not in json.dumps(deployment.provenance)


def test_saved_spikes_are_the_networks_own(gascnn, models, tmp_path):
    spikes = (np.random.default_rng(0).random((3, 10, 1, 8, 8)) < 0.3).astype(np.uint8)
    np.savez(tmp_path / "in.npz", spikes=spikes)
    outcome = gascnn("run", models.zero, "--input", tmp_path / "in.npz", "--save-spikes", tmp_path / "out.npz")
    assert outcome.status == 0
    network = read_netx(models.zero)
    expected = simulate(network, spikes, record="spikes").spikes
    with np.load(tmp_path / "out.npz") as archive:
        assert archive.files == [f"layer_{i:02d}" for i in range(network.depth)]
        for index, right in enumerate(expected):
            found = archive[f"layer_{index:02d}"]
            assert found.dtype == bool
            assert found.shape == (3, 10 + network.depth, *network.layers[index].shape)
            np.testing.assert_array_equal(found, right)
            assert found.any()


def test_saved_input_gives_the_same_spikes_again(gascnn, models, tmp_path):
    gascnn(
        "run", models.subtract, "--data", "digits", "--limit", 4, "--save-input", tmp_path / "in.npz",
        "--save-spikes", tmp_path / "a.npz",
    )  # fmt: skip
    gascnn("run", models.subtract, "--input", tmp_path / "in.npz", "--save-spikes", tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as left, np.load(tmp_path / "b.npz") as right:
        for name in left.files:
            np.testing.assert_array_equal(left[name], right[name])


def test_images_as_bytes_and_as_floats_are_the_same(gascnn, models, tmp_path):
    images = load_dataset("digits").test.images[:6]
    np.savez(tmp_path / "bytes.npz", images=images, labels=np.arange(6))
    np.savez(tmp_path / "floats.npz", images=images.astype(np.float32) / 255)
    for model in (models.zero, models.ann, models.snn):
        answers = []
        for name in ("bytes", "floats"):
            arguments = ("run", model, "--input", tmp_path / f"{name}.npz", "--json", tmp_path / "r.json")
            assert gascnn(*arguments).status == 0
            answers.append(saved(tmp_path / "r.json")["predictions"])
        assert answers[0] == answers[1]


def test_batch_size_changes_nothing(gascnn, models, tmp_path):
    answers = []
    for size in (7, 64):
        gascnn(
            "run", models.zero, "--data", "digits", "--limit", 20, "--batch-size", size, "--json", tmp_path / "r.json"
        )
        answers.append(saved(tmp_path / "r.json")["predictions"])
    assert answers[0] == answers[1]


def test_a_foreign_file_runs_with_steps(gascnn, models, tmp_path):
    # Another program's file has no planes that the host adds.
    alone = ("--bias", "always-on", "--steps", 16, "--fit-images", 32, "--limit", 40)
    ours = tmp_path / "ours.net"
    assert gascnn("export", models.ann, "--target", "lava", "--data", "digits", *alone, "-o", ours).status == 0
    network = replace(read_netx(ours), deployment=None)
    foreign = tmp_path / "foreign.net"
    write_netx(network, foreign)
    with h5py.File(foreign, "r+") as file:
        del file["gascnn"]
    assert "give --steps" in gascnn("run", foreign, "--data", "digits").error
    assert gascnn("run", foreign, "--data", "digits", "--steps", 16, "--json", tmp_path / "f.json").status == 0
    assert gascnn("run", ours, "--data", "digits", "--json", tmp_path / "o.json").status == 0
    assert saved(tmp_path / "f.json")["predictions"] == saved(tmp_path / "o.json")["predictions"]


def test_predict_writes_one_row_a_file(gascnn, models, tmp_path):
    test = load_dataset("digits").test
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    for index in range(5):
        name = f"deep/{index}.png" if index == 3 else f"{index}.png"
        Image.fromarray(test.images[index, 0]).save(folder / name)
    for model in (models.subtract, models.ann):
        assert gascnn("predict", model, folder, "-o", tmp_path / "answers.csv").status == 0
        with open(tmp_path / "answers.csv", newline="") as handle:
            rows = list(csv.DictReader(handle))
        assert {row["file"] for row in rows} == {"0.png", "1.png", "2.png", "deep/3.png", "4.png"}
        by_name = {row["file"]: row["class"] for row in rows}
        right = [by_name["deep/3.png" if i == 3 else f"{i}.png"] == str(test.labels[i]) for i in range(5)]
        assert sum(right) >= 4
        for row in rows:
            scores = {name.removeprefix("score "): float(v) for name, v in row.items() if name.startswith("score ")}
            assert len(scores) == 10
            assert scores[row["class"]] == max(scores.values())


def test_convert_reports_every_node(gascnn, models, tmp_path):
    outcome = gascnn(
        "convert", models.ann, "--data", "digits", "--steps", 8, "--fit-images", 8, "-o", tmp_path / "snn",
        "--json", tmp_path / "c.json",
    )  # fmt: skip
    assert outcome.status == 0
    nodes = {entry["node"]: entry["outcome"] for entry in saved(tmp_path / "c.json")["nodes"]}
    assert nodes["layer1_0_bn1"] == "folded"
    assert nodes["layer1_0_relu"] == "converted"
    assert nodes["readout"] == "added"
    assert nodes["dropout"] == "dropped"


OWN = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(96, 10)
    def forward(self, x):
        x = F.relu(self.conv(x))
        x = F.avg_pool2d(x, 2)
        return self.fc(x.view(x.size(0), -1))

def bad():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Sigmoid(), nn.Linear(54, 10))

def not_a_model():
    return 5
"""


def test_own_model_exports(gascnn, tmp_path, monkeypatch):
    import importlib

    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("own_net_for_test.py").write_text(OWN)
    torch.manual_seed(0)
    net = importlib.import_module("own_net_for_test").Net()
    torch.save(net.state_dict(), "w.pt")
    common = ("--target", "lava", "--data", "digits", "--steps", 8, "--fit-images", 8, "--limit", 10)
    assert (
        gascnn("export", "--model", "own_net_for_test:Net", "--weights", "w.pt", *common, "-o", "own.net").status == 0
    )
    assert read_netx("own.net").depth == 2
    refused = gascnn("export", "--model", "own_net_for_test:bad", *common, "-o", "bad.net")
    assert refused.status == 2
    # All refused operations at once, each with a remedy; nothing is written.
    assert "2 operation(s) cannot be converted" in refused.error
    assert "MaxPool2d" in refused.error
    assert "average pooling" in refused.error
    assert "Sigmoid" in refused.error
    assert not Path("bad.net").exists()
    assert (
        "gives a int; it must give a torch.nn.Module"
        in gascnn("export", "--model", "own_net_for_test:not_a_model", *common, "-o", "bad.net").error
    )
    torch.save({"conv.weight": torch.zeros(2)}, "other.pt")
    assert (
        "the weights do not fit the model"
        in gascnn("export", "--model", "own_net_for_test:Net", "--weights", "other.pt", *common, "-o", "bad.net").error
    )
    Path("code.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert (
        "not a state dict that can be read safely"
        in gascnn("export", "--model", "own_net_for_test:Net", "--weights", "code.pt", *common, "-o", "bad.net").error
    )
    assert "has no absent" in gascnn("export", "--model", "own_net_for_test:absent", *common, "-o", "bad.net").error
    assert "cannot import no_such_module" in gascnn("export", "--model", "no_such_module:f", *common, "-o", "b").error


def test_data_list_and_doctor(gascnn, tmp_path):
    assert gascnn("data", "list", "--data-dir", tmp_path, "--json", tmp_path / "d.json").status == 0
    listed = {d["name"]: d["present"] for d in saved(tmp_path / "d.json")["datasets"]}
    assert listed["digits"] is True
    assert listed["mnist"] is False
    assert gascnn("doctor", "--json", tmp_path / "x.json").status == 0
    facts = saved(tmp_path / "x.json")
    assert facts["backends"]["sim"] == "ready"
    assert {one["name"] for one in facts["meters"]} >= {"rapl", "ina3221", "pmic", "usb-log"}
    assert all(one["state"] for one in facts["meters"])


def test_demo_without_lava(gascnn, tmp_path):
    folder = tmp_path / "demo"
    common = ("demo", "--no-lava", "--preset", "smoke", "--steps", 8, "-o", folder)
    first = gascnn(*common, "--json", tmp_path / "d.json")
    assert first.status == 0
    assert "$ gascnn train --data digits" in first.out
    result = saved(tmp_path / "d.json")
    for reset in ("zero", "subtract"):
        assert result[reset]["export"]["sha256"] == sha256_file(folder / f"{reset}.net")
        assert "verify" not in result[reset]
    lines = first.out.strip().splitlines()
    assert lines[-4].endswith(f"for any browser: {folder / 'report/report.html'}")
    assert [line.split(":")[0] for line in lines[-3:]] == ["accuracy", "energy", "latency here"]
    assert result["report"]["headline"]["accuracy"]["snn"] > 0.5
    assert (folder / "report/report.json").is_file()
    again = gascnn(*common)
    assert again.status == 0
    assert "is there from an earlier demo" in again.out
    fresh = gascnn(*common, "--fresh")
    assert fresh.status == 0
    assert "$ gascnn train" in fresh.out
