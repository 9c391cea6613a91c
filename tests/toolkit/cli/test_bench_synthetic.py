"""``gascnn bench synthetic`` on a network that was trained for a second, with sets whose verdict is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from gascnn.benchmarks.synthetic.features import NetworkFeatures
from gascnn.benchmarks.synthetic.measure import Extractors, examine, pooled
from gascnn.benchmarks.synthetic.settings import SyntheticSettings
from gascnn.toolkit.bundle import MODEL_FILE, load_bundle
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.data.dataset import ImageSet
from gascnn.toolkit.data.image_set import save_image_set
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.training.bundles import build_model
from gascnn.toolkit.training.inputs import fingerprint


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from gascnn.toolkit.cli import main

    path = tmp_path_factory.mktemp("features") / "ann"
    words = ["train", "--data", "digits", "--preset", "smoke", "--epochs", "1", "--no-statistics", "-o", str(path)]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0
    return path


def save(path, images, labels, **more):
    save_image_set(path, images, labels, [str(k) for k in range(10)], source="of a test", **more)
    return path


def drawn_anew(count, seed):
    """Digits by the mean and covariance of their class: like the training images, and none of them."""
    train, rng = load_dataset("digits").train, np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 10
    images = np.empty((count, 1, 8, 8), np.uint8)
    for k in range(10):
        values = train.images[train.labels == k].reshape(-1, 64).astype(float)
        made = rng.multivariate_normal(values.mean(axis=0), np.cov(values.T), (labels == k).sum(), method="eigh")
        images[labels == k] = np.clip(np.rint(made), 0, 255).reshape(-1, 1, 8, 8)
    return images, labels


def test_report_page_and_picture(gascnn, bundle, tmp_path):
    images, labels = drawn_anew(120, 0)
    made = save(tmp_path / "made", images, labels, provenance={"network": {"sha256": sha256_file(bundle / MODEL_FILE)}})
    files = ("--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md", "--pairs", tmp_path / "r.svg")
    result = gascnn("bench", "synthetic", made, "--data", "digits", "--features", bundle, *files)
    assert result.status == 0, result.err
    report = json.loads((tmp_path / "r.json").read_text())
    sentence = report["verdict"]["sentence"]
    assert sentence.startswith("No sign of replaying patients at this sensitivity (pixels: ")
    assert result.out.splitlines()[0] == sentence
    page = (tmp_path / "r.md").read_text().splitlines()
    assert page[0] == f"**{sentence}**"
    assert "which flatters them" in result.err, "the set's provenance names the network of the features"
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    everything, real = pooled(load_dataset(str(made))), load_dataset("digits")
    assert report["set"]["sha256"] == fingerprint(everything.images, everything.labels)
    parts = [array for part in (real.train, real.val, real.test) for array in (part.images, part.labels)]
    assert report["data"]["sha256"] == fingerprint(*parts)
    assert report["features"] == {"network": sha256_file(bundle / MODEL_FILE), "onnx": None}
    rows = report["quality"]["features"]["rows"]
    assert rows["noise"]["frechet"]["value"] > rows["synthetic"]["frechet"]["value"] > rows["train"]["frechet"]["value"]
    assert report["usefulness"]["training_images"] == 120
    for pair in report["memorisation"]["pixels"]["pairs"]:
        if not pair["mirrored"] and pair["shift"] == [0, 0]:
            difference = everything.images[pair["image"]].astype(float) - real.train.images[pair["training_image"]]
            assert pair["distance"] == pytest.approx(np.sqrt((difference**2).mean()))
    assert str(tmp_path) not in json.dumps(report)
    assert report["command"] == "gascnn bench synthetic made --data digits --features ann"
    assert page[-1] == f"`{report['command']}`"
    assert f"images.npz {sha256_file(made / 'images.npz')}; data, " in page[-3]
    assert sha256_file(bundle / MODEL_FILE) in page[-3]


def write_pooling(path):
    """An ONNX file whose features are the means of 2x2 pixels."""
    pool = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    shapes = (("x", ["n", 1, 8, 8]), ("y", ["n", 1, 4, 4]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph([pool], "pooling", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_set_of_training_images_is_told_in_the_first_line(gascnn, bundle, tmp_path):
    train, onnx = load_dataset("digits").train, write_pooling(tmp_path / "pooling.onnx")
    made = save(tmp_path / "copies", train.images[:60, :, :, ::-1].copy(), train.labels[:60])
    words = ("--data", "digits", "--features", bundle, "--features-onnx", onnx, "--preset", "none", "--json",
             tmp_path / "r.json")  # fmt: skip
    result = gascnn("bench", "synthetic", made, *words)
    assert result.status == 0, result.err
    assert result.out.startswith("REPLAYS PATIENTS: 60 of 60 made images are less than half as far")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["usefulness"] is None
    assert report["features"]["onnx"] == sha256_file(onnx)
    assert (report["quality"]["features-onnx"]["features"], report["quality"]["features"]["features"]) == (16, 8)
    pooled_pixels = report["memorisation"]["features-onnx"]["sets"]
    assert pooled_pixels["exact"]["relatively_near"]["value"] == 1.0
    assert report["membership"]["pixels"]["attack"]["found_at"]["0.01"]["value"] >= 60 / 1259
    pairs = report["memorisation"]["pixels"]["pairs"]
    everything = pooled(load_dataset(str(made)))
    for pair in pairs:
        np.testing.assert_array_equal(
            everything.images[pair["image"]][:, :, ::-1], train.images[pair["training_image"]]
        )
        assert (pair["distance"], pair["mirrored"]) == (0.0, True)


def test_a_test_image_that_is_in_training_hides_no_copies_and_is_told(bundle, tmp_path):
    real, (images, labels) = load_dataset("digits"), drawn_anew(60, 2)
    test = real.test.images.copy()
    test[5] = real.train.images[700]
    real = replace(real, test=ImageSet(test, real.test.labels))
    images[:4] = real.train.images[:4]
    made = load_dataset(str(save(tmp_path / "made", images, labels)))
    extractors = Extractors(NetworkFeatures(build_model(load_bundle(bundle))), sha256_file(bundle / MODEL_FILE))
    report = examine(made, real, extractors, SyntheticSettings(preset="none"))
    assert report["verdict"]["sentence"].startswith("REPLAYS PATIENTS: 4 of 60 made images")
    assert {space["left_out"]["test"] for space in report["memorisation"].values()} == {1}
    notes = [note for note in report["notes"] if "equal training images" in note]
    assert len(notes) == 1
    assert notes[0].startswith(f"0 of {len(real.val)} validation images and 1 of {len(real.test)} test images equal")


def test_wrong_use(gascnn, bundle, tmp_path):
    images, labels = drawn_anew(20, 1)
    made = save(tmp_path / "made", images, labels)
    few = save(tmp_path / "few", images[:9], labels[:9])
    other = save(tmp_path / "other", np.zeros((12, 1, 9, 9), np.uint8), np.arange(12, dtype=np.int64) % 10)
    known = ("--data", "digits", "--features", bundle)
    for words, told in (
        ((made, "--data", "digits", "--features", tmp_path), "a folder without model.json"),
        ((few, *known), "few: 9 images; 10 are needed"),
        ((other, *known), "8x8 are wanted"),
        ((tmp_path / "nowhere", *known), "neither a data set's name"),
        ((made, *known, "--seeds", "0,0"), "seeds are (0, 0)"),
        ((made, *known, "--pairs", "pairs.jpg"), "pairs.jpg is not a picture"),
        ((made, *known, "--features-onnx", tmp_path / "none.onnx"), "none.onnx: no such file"),
    ):
        result = gascnn("bench", "synthetic", *words)
        assert (result.status, told in result.error) == (2, True), result.err
