"""A board's script: it measures without torch, and says what differs from what was expected."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from gascnn.benchmarks.board.folder import open_pack
from gascnn.benchmarks.board.run import run_board
from gascnn.benchmarks.board.script import main
from gascnn.exporters.netx import write_netx
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork

MISSING = ("torch", "numba", "rich", "sklearn", "scipy", "matplotlib", "onnx", "nir", "httpx", "PIL", "pandas", "click",
           "llvmlite", "safetensors", "pynvml")  # fmt: skip
IMAGES = 24


def rows(result):
    return {row["name"]: row for row in result["contenders"]}


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


def test_random_codings_depend_on_the_image_not_on_who_simulates(make, digits, tmp_path):
    """With bernoulli coding each image has its own draws: one by one they must be those of the whole batch."""
    record = Deployment((1, 8, 8), tuple(digits.class_names), 6, coding="bernoulli", seed=3)
    weight = 2 * np.random.default_rng(0).integers(-9, 10, (10, 64))
    network = NetxNetwork(
        InputLayer((1, 8, 8)), (DenseLayer((10,), weight, CubaNeuron(np.array(20))),), deployment=record
    )
    write_netx(network, tmp_path / "random.net")
    for seed in (None, 5):
        made = make(tmp_path / f"{seed}", network_path=tmp_path / "random.net", int8=False, seed=seed)
        row = rows(run_board(made.folder, meter="none", snn_images=7))["snn"]
        assert row["comparison"]["bit_equal"]
        assert row["comparison"]["agrees"]
    first, second = (open_pack(tmp_path / name).expected_snn.digests for name in ("None", "5"))
    assert first != second


def test_a_changed_image_is_found_even_under_a_new_digest(seal, copied):
    with np.load(copied / "images.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    images[7] = 255 - images[7]
    np.savez(copied / "images.npz", images=images, labels=labels)
    seal("images.npz")
    result = run_board(copied, meter="none")
    found = rows(result)
    assert found["snn"]["comparison"]["unequal_images"] == 1
    assert found["snn"]["comparison"]["bit_equal"] is False
    assert found["snn"]["comparison"]["largest_membrane_difference"] > 0
    assert found["ann-fp32"]["comparison"]["agrees"] is False
    assert found["ann-fp32"]["comparison"]["largest_logit_difference"] > 0.01
    assert result["agrees"] is False
    assert any(note.startswith("snn: 1 of 24 images are not bit-equal") for note in result["notes"])


def test_expected_classes_that_were_tampered_with_are_told(edit, copied, tmp_path, capsys):
    def change(expected):
        for name in ("snn", "ann-fp32", "ann-int8"):
            expected[name]["classes"][3] = (expected[name]["classes"][3] + 1) % 10

    edit("expected.json", change)
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


def test_rounding_of_another_processor_is_told_and_allowed(edit, copied):
    def change(expected, by):
        expected["ann-fp32"]["logits"][0][2] += by

    largest = max(
        abs(v) for row in json.loads((copied / "expected.json").read_text())["ann-fp32"]["logits"] for v in row
    )
    edit("expected.json", lambda value: change(value, 5e-5 * largest))
    found = rows(run_board(copied, meter="none", snn_images=1))["ann-fp32"]["comparison"]
    assert (found["agrees"], found["identical"]) == (True, False)
    assert found["of_largest_logit"] == pytest.approx(5e-5, rel=0.05)
    edit("expected.json", lambda value: change(value, 1e-3 * largest))
    result = run_board(copied, meter="none", snn_images=1)
    assert rows(result)["ann-fp32"]["comparison"]["agrees"] is False
    assert any("more than rounding" in note for note in result["notes"])
