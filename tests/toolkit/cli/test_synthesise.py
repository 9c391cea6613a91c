"""``gascnn synthesise`` and ``calibrate``, and conversion where no data set can be read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gascnn.toolkit.bundle import MODEL_FILE, WEIGHTS_FILE, load_bundle, save_bundle
from gascnn.toolkit.conversion.synthesis import synthesise
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.data.image_set import read_extra, save_image_set
from gascnn.toolkit.files import sha256_file

FEW = ("--images", 24, "--batch-size", 12, "--iterations", 20, "--threads", 1)


@pytest.fixture(scope="module")
def made(models, tmp_path_factory):
    """Synthetic images of the trained network, and what ``--json`` said."""
    from gascnn.toolkit.cli import main

    folder = tmp_path_factory.mktemp("made")
    words = ["synthesise", models.ann, *FEW, "-o", folder / "synthetic", "--json", folder / "made.json"]
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 0
    return folder / "synthetic", json.loads((folder / "made.json").read_text())


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """Data sets by name cannot be loaded, those in folders cannot be found."""
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("GASCNN_DATA", str(tmp_path / "nothing"))

    def refused(*arguments):
        raise AssertionError(f"real data was asked for: {arguments}")

    monkeypatch.setattr("gascnn.toolkit.data.loading.load_named", refused)
    monkeypatch.setattr("gascnn.toolkit.data.loading.read_class_folder", refused)
    monkeypatch.setattr("gascnn.toolkit.data.loading.read_npz", refused)
    monkeypatch.setattr("sklearn.datasets.load_digits", refused)


def without_statistics(models, tmp_path):
    """The bundle as versions before this one wrote it."""
    bundle = load_bundle(models.ann)
    assert bundle.statistics is not None
    save_bundle(replace(bundle, statistics=None), tmp_path / "old")
    return tmp_path / "old"


def test_images_and_what_travels_with_them(models, made):
    path, result = made
    data = load_dataset(str(path))
    assert data.image_shape == (1, 8, 8)
    assert data.class_names == load_bundle(models.ann).classes
    assert len(data.train) + len(data.val) + len(data.test) == 24
    assert read_extra(path, "soft_labels").shape == (24, 10)
    assert result["images"] == 24
    assert result["options"]["iterations"] == 20
    provenance = data.provenance["made"]
    assert provenance["network"]["bundle"]["sha256"] == sha256_file(models.ann / MODEL_FILE)
    assert provenance["synthesis"]["options"]["seed"] == 0
    assert "path" not in provenance["network"]["bundle"]
    assert result["sha256"] == data.provenance["sha256"]["images.npz"]


def test_an_interrupted_run_goes_on(gascnn, models, made, tmp_path):
    path, _ = made
    shutil.copytree(path.with_name("synthetic.run"), tmp_path / "again.run")
    (tmp_path / "again.run" / "batch_00001.npz").unlink()
    outcome = gascnn("synthesise", models.ann, *FEW, "-o", tmp_path / "again")
    assert "holds a run; resume it (--resume)" in outcome.error
    outcome = gascnn("synthesise", models.ann, *FEW, "--resume", "-o", tmp_path / "again")
    assert outcome.status == 0
    one, other = load_dataset(str(path)), load_dataset(str(tmp_path / "again"))
    np.testing.assert_array_equal(one.train.images, other.train.images)
    np.testing.assert_array_equal(one.train.labels, other.train.labels)


def test_train_to_netx_without_any_data(gascnn, models, made, no_data, tmp_path):
    """Statistics were saved when it was trained; from then on no data set is read."""
    outcome = gascnn("run", models.ann, "--data", "digits")
    assert "real data was asked for" in outcome.error
    path, _ = made
    outcome = gascnn("synthesise", models.ann, *FEW, "-o", tmp_path / "own")
    assert outcome.status == 0, outcome.err
    outcome = gascnn("convert", models.ann, "--data", tmp_path / "own", "--steps", 8, "-o", tmp_path / "snn")
    assert outcome.status == 0, outcome.err
    assert "data-free: scales from activations saved with the bundle; fitted on synthetic images of own" in outcome.err
    net = tmp_path / "x.net"
    few = ("--steps", 8, "--reset", "subtract")
    outcome = gascnn("export", models.ann, "--target", "lava", "--data-free", "--data", path, *few, "-o", net)
    assert outcome.status == 0, outcome.err
    assert "accuracy was not measured: the images of synthetic are synthetic" in outcome.err
    outcome = gascnn("run", net, "--data", path, "--split", "train", "--json", tmp_path / "run.json")
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "run.json").read_text())["images"] == 22


def test_without_data_images_are_made_on_the_way(gascnn, models, no_data, tmp_path, monkeypatch):
    monkeypatch.setattr("gascnn.toolkit.conversion.synthesis.synthesise", partial(synthesise, iterations=10))
    few = ("--steps", 4, "--fit-images", 8, "--calibration-images", 8)
    outcome = gascnn("convert", models.ann, *few, "-o", tmp_path / "snn", "--json", tmp_path / "c.json")
    assert outcome.status == 0, outcome.err
    assert "scales from activations saved with the bundle; fitted on 8 synthetic images made on the way" in outcome.err
    data = json.loads((tmp_path / "c.json").read_text())["source"]["data"]
    assert data["synthetic"] is True
    assert data["made"]["images"] == 8
    outcome = gascnn("export", models.ann, "--target", "lava", *few, "-o", tmp_path / "x.net")
    assert outcome.status == 0, outcome.err
    old = without_statistics(models, tmp_path)
    outcome = gascnn("convert", old, "--data-free", *few, "-o", tmp_path / "snn2")
    assert "scales from activations of synthetic images; fitted on 8 synthetic images" in outcome.err


def test_statistics_are_added_to_an_old_bundle(gascnn, models, tmp_path):
    old = without_statistics(models, tmp_path)
    before = (old / WEIGHTS_FILE).read_bytes()
    outcome = gascnn("calibrate", old, "--data", "digits", "--json", tmp_path / "c.json")
    assert outcome.status == 0, outcome.err
    found, trained = load_bundle(old), load_bundle(models.ann)
    assert (old / WEIGHTS_FILE).read_bytes() == before
    assert found.metrics == trained.metrics
    assert found.statistics.record == trained.statistics.record
    assert found.statistics.record["images"] == 512
    for name, value in trained.statistics.tensors.items():
        np.testing.assert_array_equal(found.statistics.tensors[name], value)
    assert json.loads((tmp_path / "c.json").read_text())["sha256"] == sha256_file(old / MODEL_FILE)
    outcome = gascnn("calibrate", old, "--data", "digits", "--calibration-images", 20, "-o", tmp_path / "other")
    assert load_bundle(tmp_path / "other").statistics.record["images"] == 20


def test_training_without_statistics(gascnn, tmp_path):
    outcome = gascnn(
        "train", "--data", "digits", "--preset", "smoke", "--epochs", 1, "--no-statistics", "-o", tmp_path / "a"
    )
    assert outcome.status == 0, outcome.err
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [MODEL_FILE, WEIGHTS_FILE]
    assert load_bundle(tmp_path / "a").statistics is None


def assert_refused(outcome, message):
    assert outcome.status == 2, outcome.err
    assert message in outcome.error


def test_wrong_use(gascnn, models, made, tmp_path):
    path, _ = made
    out = ("-o", tmp_path / "x")
    assert_refused(gascnn("synthesise", *out), "give either a bundle or --model")
    assert_refused(gascnn("synthesise", models.snn, *out), "is no ANN; synthesise takes the bundle")
    assert_refused(gascnn("synthesise", models.ann, "--preset", "huge", *out), "no preset 'huge'; known: smoke")
    assert_refused(gascnn("synthesise", models.ann, "--images", 2, *out), "--images is 2; a set of three splits")
    assert_refused(gascnn("synthesise", models.ann, "--temperature", 0, *out), "temperature is 0.0; allowed:")
    assert_refused(
        gascnn("synthesise", "--model", "torch.nn:Identity", *out), "--model needs --image-shape C,H,W, such as"
    )
    assert_refused(
        gascnn("synthesise", "--model", "torch.nn:Identity", "--image-shape", "3,4,4", *out), "Identity returns shape"
    )
    assert_refused(
        gascnn("convert", models.ann, "--data-free", "--data", "digits", *out), "--data-free, but digits holds real"
    )
    assert_refused(
        gascnn("export", models.snn, "--target", "lava", "--data-free", "--data", "digits", *out), "holds real images"
    )
    assert_refused(gascnn("convert", "--model", "torch.nn:Identity", *out), "given with --model needs --data")
    assert_refused(gascnn("convert", models.ann, "--percentile", 98, *out), "percentile 98 is not among")
    assert_refused(gascnn("calibrate", models.snn, "--data", "digits"), "is no ANN; calibrate takes the bundle")
    assert_refused(gascnn("calibrate", models.ann, "--data", path), "holds synthetic images; statistics are those")
    assert not list(tmp_path.iterdir())


def test_images_framed_for_another_network(gascnn, models, tmp_path):
    images = np.zeros((12, 1, 8, 8), np.uint8)
    labels = np.arange(12, dtype=np.int64) % 10
    classes = [str(k) for k in range(10)]
    save_image_set(tmp_path / "cut", images, labels, classes, framing="foreground", source="test")
    assert_refused(
        gascnn("convert", models.ann, "--data", tmp_path / "cut", "-o", tmp_path / "x"),
        "cut has images framed as foreground",
    )


def test_of_a_network_of_ones_own(gascnn, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    few = ("--images", 6, "--iterations", 5)
    outcome = gascnn("synthesise", "--model", "mine:net", "--image-shape", "3,4,4", *few, "-o", tmp_path / "images")
    assert outcome.status == 0, outcome.err
    assert "no batch norm whose statistics could be matched" in outcome.err
    data = load_dataset(str(tmp_path / "images"))
    assert data.class_names == ("0", "1", "2")
    assert data.image_shape == (3, 4, 4)
