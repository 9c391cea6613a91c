"""A folder for a board: what goes in, what is refused, and that it measures without torch and says what differs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.benchmarks.board.folder import open_pack
from gascnn.benchmarks.board.pack import pack
from gascnn.benchmarks.board.run import run_board
from gascnn.benchmarks.board.script import main
from gascnn.exporters.netx import write_netx
from gascnn.hardware.backends import open_netx, run_images
from gascnn.hardware.edge import EdgeModel
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import load_bundle, save_bundle
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import DataError, FormatError, UsageError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.lowering.to_netx import lower
from gascnn.toolkit.training.bundles import build_model, to_bundle

MISSING = ("torch", "numba", "rich", "sklearn", "scipy", "matplotlib", "onnx", "nir", "httpx", "PIL", "pandas", "click",
           "llvmlite", "safetensors", "pynvml")  # fmt: skip
IMAGES = 24
STEPS = 8


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", image_size=8)


@pytest.fixture(scope="module")
def models(digits, tmp_path_factory):
    """A bundle trained for a moment, and the same network in spikes."""
    torch.manual_seed(0)
    model = resnet(classes=10, blocks=(1,), width=4, image_size=8).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    images = torch.from_numpy(digits.train.images[:512]).float() / 255
    labels = torch.from_numpy(digits.train.labels[:512])
    for _ in range(2):
        for rows in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    folder = tmp_path_factory.mktemp("board")
    save_bundle(to_bundle(model.eval(), digits.class_names, (1, 8, 8)), folder / "ann")
    found = convert(model, digits.train.images[:64], steps=STEPS, fit_images=16, classes=digits.class_names)
    write_netx(lower(found.graph), folder / "model.net")
    return folder


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """The script sets these; they end with the test."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def make(models, digits, target, **changed):
    values = {
        "network_path": models / "model.net", "baseline_bundle": models / "ann", "images": digits.test.images[:IMAGES],
        "labels": digits.test.labels[:IMAGES], "class_names": digits.class_names, "out_folder": target,
        "calibration": digits.train.images[:32], "calibrated_on": "digits, train split", "data_name": "digits",
    }  # fmt: skip
    return pack(**{**values, **changed})


@pytest.fixture(scope="module")
def packed(models, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "pack"
    make(models, digits, folder, provenance="Optical digits,\n test split", note="Before the move.")
    return folder


@pytest.fixture
def copied(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "pack")
    return tmp_path / "pack"


def seal(folder: Path, name: str) -> None:
    """Make the manifest name the file as it is now: what somebody does who tampers with more than one file."""
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit(folder: Path, name: str, change) -> None:
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    if name != "manifest.json":
        seal(folder, name)


def rows(result):
    return {row["name"]: row for row in result["contenders"]}


# --- the folder -------------------------------------------------------------------------------------------------------


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


def test_the_same_arguments_give_the_same_folder(models, digits, tmp_path):
    first, second = (make(models, digits, tmp_path / name, int8=False) for name in ("a", "b"))
    assert first.manifest_sha256 == second.manifest_sha256
    assert first.manifest["contenders"] == ["ann-fp32", "snn"]
    assert not (tmp_path / "a" / "ann-int8.onnx").exists()
    assert sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) == first.bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing is left beside them


def test_int8_never_sees_a_packed_image(models, digits, tmp_path):
    both = np.concatenate([digits.test.images[:8], digits.train.images[:20]])
    made = make(models, digits, tmp_path / "a", calibration=both)
    assert made.manifest["calibration_images"] == 20
    assert EdgeModel(tmp_path / "a" / "ann-int8.onnx").metadata.details["calibration_images"] == 20
    with pytest.raises(UsageError, match="every calibration image is among the packed ones"):
        make(models, digits, tmp_path / "b", calibration=digits.test.images[:8])
    with pytest.raises(UsageError, match="int8 needs calibration images"):
        make(models, digits, tmp_path / "b", calibration=None)
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
def test_what_does_not_fit_is_refused_and_leaves_nothing(models, digits, tmp_path, changed, error, message):
    with pytest.raises(error, match=message):
        make(models, digits, tmp_path / "pack", **changed)
    assert not list(tmp_path.iterdir())


def test_networks_of_other_classes_or_framing_are_refused(models, digits, tmp_path):
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
            make(models, digits, tmp_path / "pack", network_path=tmp_path / "other.net")
    three = NetxNetwork(InputLayer((1, 8, 8)), (DenseLayer((3,), weight[:3], CubaNeuron(np.array(9))),))
    write_netx(three, tmp_path / "three.net")
    with pytest.raises(UsageError, match="has 3 outputs; the images have 10 classes"):
        make(models, digits, tmp_path / "pack", network_path=tmp_path / "three.net")
    ten = NetxNetwork(InputLayer((1, 8, 8)), (DenseLayer((10,), weight, CubaNeuron(np.array(9))),))
    write_netx(ten, tmp_path / "ten.net")
    with pytest.raises(UsageError, match="does not say how many steps an image takes; give steps"):
        make(models, digits, tmp_path / "pack", network_path=tmp_path / "ten.net")
    assert make(models, digits, tmp_path / "pack", network_path=tmp_path / "ten.net", steps=1).manifest["steps"] == 1
    result = run_board(tmp_path / "pack", meter="none")  # T = 1
    assert rows(result)["snn"]["comparison"]["bit_equal"]


def test_a_folder_that_is_there_is_replaced_only_when_told(models, digits, copied):
    with pytest.raises(UsageError, match="is there already and not empty"):
        make(models, digits, copied, int8=False)
    (copied / "result.json").write_text("{}")
    with pytest.raises(UsageError, match=r"also holds result.json; move it elsewhere"):
        make(models, digits, copied, int8=False, replace=True)
    (copied / "result.json").unlink()
    make(models, digits, copied, int8=False, replace=True)
    assert not (copied / "ann-int8.onnx").exists()
    (copied / "manifest.json").unlink()
    with pytest.raises(UsageError, match="is there already and not empty"):
        make(models, digits, copied, int8=False, replace=True)


# --- on the board -----------------------------------------------------------------------------------------------------


def test_a_board_without_torch_gets_the_same_answers(packed, without, tmp_path):
    """The folder's own script, in a process that meets none of what a board lacks; the simulator is the plain one."""
    code = (
        f"import runpy, sys; sys.argv[0] = {str(packed / 'run.py')!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", without(*MISSING) + code, "-o", "result.json", "--meter", "none", "--name", "Pi"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "24 of 24 answers as expected" in done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["settings"]["simulator_method"] == "plain"
    assert "numba" not in result["versions"]
    assert result["name"] == "Pi"
    assert result["agrees"] is True
    assert result["pack"]["manifest_sha256"] == hashlib.sha256((packed / "manifest.json").read_bytes()).hexdigest()
    found = rows(result)
    assert list(found) == ["ann-fp32", "ann-int8", "snn"]
    with np.load(packed / "images.npz") as arrays:
        labels = arrays["labels"]
    expected = json.loads((packed / "expected.json").read_text())
    for name, row in found.items():
        right = int((np.array(expected[name]["classes"]) == labels).sum())
        assert row["accuracy"]["right"] == right
        assert row["accuracy_where_packed"] == row["accuracy"]
        low, high = row["accuracy"]["interval"]
        assert low < right / IMAGES < high or right == IMAGES == round(IMAGES * high)
        assert row["latency"]["samples"] == IMAGES
        assert 0 < row["latency"]["p50_s"] <= row["latency"]["p95_s"]
        assert row["latency"]["p99_s"] is None  # of 24 images it would be the slowest one
        assert row["energy"] == {"measured": False, "why": "no meter was wanted"}
    assert found["snn"]["comparison"]["bit_equal"] is True
    assert found["ann-fp32"]["comparison"]["identical"] is True  # the same machine and onnxruntime
    assert 20e6 < result["peak_memory_bytes"] < 2e9


def test_fewer_images_are_spread_and_said(packed):
    result = run_board(packed, snn_images=5, meter="none")
    row = rows(result)["snn"]
    assert row["comparison"]["images"] == row["accuracy"]["images"] == row["latency"]["samples"] == 5
    assert row["latency"]["p95_s"] is None
    assert "snn: answered 5 of the 24 images" in result["notes"]
    hurried = rows(run_board(packed, time_limit_s=1e-9, meter="none"))
    assert hurried["snn"]["comparison"]["images"] == 3
    assert hurried["ann-fp32"]["comparison"]["images"] == IMAGES


def test_random_codings_depend_on_the_image_not_on_who_simulates(models, digits, tmp_path):
    """With bernoulli coding each image has its own draws: one by one they must be those of the whole batch."""
    record = Deployment((1, 8, 8), tuple(digits.class_names), 6, coding="bernoulli", seed=3)
    weight = 2 * np.random.default_rng(0).integers(-9, 10, (10, 64))
    network = NetxNetwork(
        InputLayer((1, 8, 8)), (DenseLayer((10,), weight, CubaNeuron(np.array(20))),), deployment=record
    )
    write_netx(network, tmp_path / "random.net")
    for seed in (None, 5):
        made = make(models, digits, tmp_path / f"{seed}", network_path=tmp_path / "random.net", int8=False, seed=seed)
        row = rows(run_board(made.folder, meter="none", snn_images=7))["snn"]
        assert row["comparison"]["bit_equal"]
        assert row["comparison"]["agrees"]
    first, second = (open_pack(tmp_path / name).expected_snn.digests for name in ("None", "5"))
    assert first != second


@pytest.mark.parametrize("name", ["model.net", "ann.onnx", "images.npz", "expected.json", "run.py", "README.md"])
def test_a_damaged_file_is_found_before_anything_is_measured(copied, name):
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(FormatError, match=rf"{name}: changed or cut short since it was packed \(its SHA-256 differs\)"):
        run_board(copied, meter="none")
    (copied / name).unlink()
    with pytest.raises(FormatError, match=f"{name}: missing; copy the folder again"):
        run_board(copied, meter="none")


def test_a_changed_image_is_found_even_under_a_new_digest(copied):
    with np.load(copied / "images.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    images[7] = 255 - images[7]
    np.savez(copied / "images.npz", images=images, labels=labels)
    seal(copied, "images.npz")
    result = run_board(copied, meter="none")
    found = rows(result)
    assert found["snn"]["comparison"]["unequal_images"] == 1
    assert found["snn"]["comparison"]["bit_equal"] is False
    assert found["snn"]["comparison"]["largest_membrane_difference"] > 0
    assert found["ann-fp32"]["comparison"]["agrees"] is False
    assert found["ann-fp32"]["comparison"]["largest_logit_difference"] > 0.01
    assert result["agrees"] is False
    assert any(note.startswith("snn: 1 of 24 images are not bit-equal") for note in result["notes"])


def test_expected_classes_that_were_tampered_with_are_told(copied, tmp_path, capsys):
    def change(expected):
        for name in ("snn", "ann-fp32", "ann-int8"):
            expected[name]["classes"][3] = (expected[name]["classes"][3] + 1) % 10

    edit(copied, "expected.json", change)
    assert main(copied, ["-o", str(tmp_path / "result.json"), "--meter", "none"]) == 1
    said = capsys.readouterr().err
    assert "snn: 1 of 24 answers are not those expected" in said
    assert "ann-fp32: 1 of 24 answers are not those expected" in said
    result = json.loads((tmp_path / "result.json").read_text())
    assert {name: row["comparison"]["different_answers"] for name, row in rows(result).items()} == {
        "ann-fp32": 1, "ann-int8": 1, "snn": 1,
    }  # fmt: skip
    assert rows(result)["snn"]["comparison"]["bit_equal"] is True
    assert rows(result)["ann-fp32"]["comparison"]["agreement"] == 23 / 24
    assert rows(result)["ann-int8"]["comparison"]["agrees"] is None


def test_rounding_of_another_processor_is_told_and_allowed(copied):
    def change(expected, by):
        expected["ann-fp32"]["logits"][0][2] += by

    largest = max(
        abs(v) for row in json.loads((copied / "expected.json").read_text())["ann-fp32"]["logits"] for v in row
    )
    edit(copied, "expected.json", lambda value: change(value, 5e-5 * largest))
    found = rows(run_board(copied, meter="none", snn_images=1))["ann-fp32"]["comparison"]
    assert (found["agrees"], found["identical"]) == (True, False)
    assert found["of_largest_logit"] == pytest.approx(5e-5, rel=0.05)
    edit(copied, "expected.json", lambda value: change(value, 1e-3 * largest))
    result = run_board(copied, meter="none", snn_images=1)
    assert rows(result)["ann-fp32"]["comparison"]["agrees"] is False
    assert any("more than rounding" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "format 2 of gascnn-board-pack; this version reads format 1"),
        (lambda m: m.update(kind="other"), "not a file of kind gascnn-board-pack"),
        (
            lambda m: m["files"].update({"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}),
            "files is a dict; it must",
        ),
        (lambda m: m["files"]["run.py"].update(sha256="0"), "files.run.py.sha256 is '0'; it must be a SHA-256"),
        (lambda m: m.update(images=25), r"images are uint8 \(24, 1, 8, 8\), not uint8 \(25, 1, 8, 8\)"),
        (lambda m: m.update(images=True), "images is True; it must be an integer of 1 to 10000"),
        (lambda m: m.update(classes=["a"]), "labels are not one of 1 classes"),
        (lambda m: m.update(contenders=["snn"]), "contenders is a list; it must be ann-fp32"),
        (lambda m: m.pop("steps"), "steps is missing; it must be an integer"),
        (lambda m: m.update(image_shape=[1, 8]), "image_shape is a list; it must be three positive integers"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(copied, change, message):
    edit(copied, "manifest.json", change)
    with pytest.raises(FormatError, match=message) as caught:
        open_pack(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["snn"]["digests"].pop(), "snn.digests is a list; it must be a list of 24 digests"),
        (lambda e: e["ann-fp32"]["logits"].pop(), r"ann-fp32.logits is a list; it must be numbers of shape \(24, 10\)"),
        (lambda e: e["ann-fp32"]["logits"][0].pop(), r"ann-fp32.logits is a list; it must be numbers of shape"),
        (lambda e: e["snn"]["classes"].__setitem__(0, 10), "snn.classes is a list; it must be numbers of 10 classes"),
        (lambda e: e["snn"]["output_counts"][0].__setitem__(0, 0.5), "output_counts is a list; it must be numbers"),
        (lambda e: e.pop("torch"), "torch is missing; it must be an object"),
    ],
)
def test_expected_answers_that_cannot_be_are_refused(copied, change, message):
    edit(copied, "expected.json", change)
    with pytest.raises(FormatError, match=message):
        open_pack(copied)


def test_images_with_python_objects_are_never_unpickled(copied):
    np.savez(copied / "images.npz", images=np.array([{}], dtype=object), labels=np.zeros(24, np.int64))
    seal(copied, "images.npz")
    with pytest.raises(FormatError, match="holds Python objects"):
        open_pack(copied)


def test_wrong_use_is_one_line(packed, tmp_path, capsys):
    assert main(tmp_path, ["-o", str(tmp_path / "r.json")]) == 2
    assert "no manifest.json there; give a folder of 'gascnn bench pack'" in capsys.readouterr().err
    for options, message in (
        (["-o", str(tmp_path)], "not a file in a folder that is there"),
        (["-o", str(tmp_path / "no" / "r.json")], "not a file in a folder that is there"),
        (["-o", "r.json", "--threads", "0"], "threads is 0; it must be at least 1"),
        (["-o", "r.json", "--snn-images", "0"], "snn_images is 0; it must be at least 1"),
        (["-o", "r.json", "--time-limit", "0"], "time_limit_s is 0; it must be above 0"),
        (["-o", "r.json", "--meter", "sundial"], "meter sundial cannot be read: there is none of that name"),
    ):
        assert main(packed, options) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
