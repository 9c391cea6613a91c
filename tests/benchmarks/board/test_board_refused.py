"""A folder that was changed, cut short or made up is refused before anything is measured, in one line."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.benchmarks.board.folder import open_pack
from gascnn.benchmarks.board.run import run_board
from gascnn.benchmarks.board.script import main
from gascnn.toolkit.errors import FormatError


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
def test_a_manifest_that_cannot_be_is_refused(edit, copied, change, message):
    edit("manifest.json", change)
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
def test_expected_answers_that_cannot_be_are_refused(edit, copied, change, message):
    edit("expected.json", change)
    with pytest.raises(FormatError, match=message):
        open_pack(copied)


def test_images_with_python_objects_are_never_unpickled(seal, copied):
    np.savez(copied / "images.npz", images=np.array([{}], dtype=object), labels=np.zeros(24, np.int64))
    seal("images.npz")
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
