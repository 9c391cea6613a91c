"""A folder for a board: what goes in, what is refused, and that a folder that is there is kept."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from gascnn.benchmarks.board.run import run_board
from gascnn.exporters.netx import write_netx
from gascnn.hardware.backends import open_netx, run_images
from gascnn.hardware.edge import EdgeModel
from gascnn.toolkit.bundle import load_bundle
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.training.bundles import build_model

IMAGES = 24
STEPS = 8


def rows(result):
    return {row["name"]: row for row in result["contenders"]}


def test_a_folder_holds_the_very_network_and_what_it_answers_here(packed, models, digits):
    assert {path.name for path in packed.iterdir()} == {
        "model.net", "ann.onnx", "ann-int8.onnx", "images.npz", "expected.json", "run.py", "README.md", "manifest.json",
    }  # fmt: skip
    assert (packed / "model.net").read_bytes() == (models / "model.net").read_bytes()
    with np.load(packed / "images.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], digits.test.images[:IMAGES])
        np.testing.assert_array_equal(arrays["labels"], digits.test.labels[:IMAGES])
    expected = json.loads((packed / "expected.json").read_text())
    images = digits.test.images[:IMAGES]
    run = run_images(open_netx(models / "model.net"), images, method="plain")
    assert expected["snn"]["classes"] == run.predictions().tolist()
    assert expected["snn"]["output_counts"] == run.output_counts.tolist()
    # The digest of the third image, written down anew: shape and little-endian counts of each layer, then the read-out.
    digest = hashlib.sha256()
    for part, kind in [*((c, "<i4") for c in run.counts), (run.output_counts, "<i4"), (run.output_membrane, "<i8")]:
        digest.update(str(part[2].shape).encode() + part[2].astype(kind).tobytes())
    assert expected["snn"]["digests"][2] == digest.hexdigest()
    with torch.no_grad():
        logits = build_model(load_bundle(models / "ann"))(torch.from_numpy(images).float() / 255).numpy()
    assert expected["torch"]["classes"] == logits.argmax(1).tolist()
    np.testing.assert_allclose(expected["ann-fp32"]["logits"], logits, atol=1e-5)
    assert EdgeModel(packed / "ann-int8.onnx").metadata.precision == "int8"
    manifest = json.loads((packed / "manifest.json").read_text())
    assert manifest["data"] == {"name": "digits", "provenance": "Optical digits, test split"}
    assert (manifest["images"], manifest["steps"], manifest["calibration_images"]) == (IMAGES, STEPS, 32)
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((packed / name).read_bytes()).hexdigest() == entry["sha256"]
    readme = (packed / "README.md").read_text()
    assert "python run.py -o result.json" in readme
    assert "gascnn[edge]" in readme
    assert "Before the move." in readme


def test_the_same_arguments_give_the_same_folder(make, tmp_path):
    first, second = (make(tmp_path / name, int8=False) for name in ("a", "b"))
    assert first.manifest_sha256 == second.manifest_sha256
    assert first.manifest["contenders"] == ["ann-fp32", "snn"]
    assert not (tmp_path / "a" / "ann-int8.onnx").exists()
    assert sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) == first.bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing is left beside them


def test_int8_never_sees_a_packed_image(make, digits, tmp_path):
    both = np.concatenate([digits.test.images[:8], digits.train.images[:20]])
    made = make(tmp_path / "a", calibration=both)
    assert made.manifest["calibration_images"] == 20
    assert EdgeModel(tmp_path / "a" / "ann-int8.onnx").metadata.details["calibration_images"] == 20
    with pytest.raises(UsageError, match="every calibration image is among the packed ones"):
        make(tmp_path / "b", calibration=digits.test.images[:8])
    with pytest.raises(UsageError, match="int8 needs calibration images"):
        make(tmp_path / "b", calibration=None)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"images": np.empty((0, 1, 8, 8), np.uint8)}, DataError, "there are 0 images; 1 to 10000"),
        ({"images": np.zeros((IMAGES, 1, 8, 8))}, DataError, r"images are float64 \(24, 1, 8, 8\); uint8"),
        ({"images": np.zeros((IMAGES, 1, 9, 9), np.uint8)}, DataError, r"images have shape \(1, 9, 9\)"),
        ({"labels": np.zeros(3, int)}, DataError, r"labels are int64 \(3,\); 24 integers"),
        ({"labels": np.full(IMAGES, 10)}, DataError, "labels go from 10 to 10; there are 10 classes"),
        ({"class_names": tuple("abcdefghij")}, UsageError, "ann answers 0, 1, 2, 3, 4, 5 and 4 more; the images' cl"),
        ({"steps": 0}, UsageError, "steps is 0; it must be at least 1"),
        ({"note": "x" * 2001}, UsageError, "note has 2001 characters; at most 2000"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(make, tmp_path, changed, error, message):
    with pytest.raises(error, match=message):
        make(tmp_path / "pack", **changed)
    assert not list(tmp_path.iterdir())


def test_networks_of_other_classes_or_framing_are_refused(make, digits, tmp_path):
    weight = np.full((10, 64), 2)
    for changed, message in (
        ({"classes": tuple("abcdefghij")}, "other.net answers a, b"),
        ({"framing": "foreground"}, "takes framing foreground, .*ann whole; both must see the same images"),
        ({"pixel_max": 16}, "takes pixel_max 16, .*ann 255"),
    ):
        record = Deployment(**{"image_shape": (1, 8, 8), "classes": tuple(digits.class_names), "steps": 4, **changed})
        layer = DenseLayer((10,), weight, CubaNeuron(np.array(9)))
        write_netx(NetxNetwork(InputLayer((1, 8, 8)), (layer,), deployment=record), tmp_path / "other.net")
        with pytest.raises(UsageError, match=message):
            make(tmp_path / "pack", network_path=tmp_path / "other.net")
    three = NetxNetwork(InputLayer((1, 8, 8)), (DenseLayer((3,), weight[:3], CubaNeuron(np.array(9))),))
    write_netx(three, tmp_path / "three.net")
    with pytest.raises(UsageError, match="has 3 outputs; the images have 10 classes"):
        make(tmp_path / "pack", network_path=tmp_path / "three.net")
    ten = NetxNetwork(InputLayer((1, 8, 8)), (DenseLayer((10,), weight, CubaNeuron(np.array(9))),))
    write_netx(ten, tmp_path / "ten.net")
    with pytest.raises(UsageError, match="does not say how many steps an image takes; give steps"):
        make(tmp_path / "pack", network_path=tmp_path / "ten.net")
    assert make(tmp_path / "pack", network_path=tmp_path / "ten.net", steps=1).manifest["steps"] == 1
    result = run_board(tmp_path / "pack", meter="none")  # T = 1
    assert rows(result)["snn"]["comparison"]["bit_equal"]


def test_a_folder_that_is_there_is_replaced_only_when_told(make, copied):
    with pytest.raises(UsageError, match="is there already and not empty"):
        make(copied, int8=False)
    (copied / "result.json").write_text("{}")
    with pytest.raises(UsageError, match=r"also holds result.json; move it elsewhere"):
        make(copied, int8=False, replace=True)
    (copied / "result.json").unlink()
    make(copied, int8=False, replace=True)
    assert not (copied / "ann-int8.onnx").exists()
    (copied / "manifest.json").unlink()
    with pytest.raises(UsageError, match="is there already and not empty"):
        make(copied, int8=False, replace=True)
