"""``gascnn export --target onnx``: what it writes, and what it refuses."""

from __future__ import annotations

import json

import pytest

from gascnn.exporters.onnx.session import OnnxSession
from gascnn.toolkit.cli import main
from gascnn.toolkit.files import sha256_file


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["export", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def test_the_command(trained, tmp_path, capsys):
    output, json_path = tmp_path / "m.onnx", tmp_path / "r.json"
    status, out, err = command(
        capsys, trained, "--target", "onnx", "--part", "resnet", "--int8", "--data", "digits", "--limit", 50,
        "--calibration-images", 40, "-o", output, "--json", json_path,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert f"{output}: resnet, int8, opset 17" in out
    assert "against torch on 50 images" in out
    result = json.loads(json_path.read_text())
    assert result["target"] == "onnx"
    assert result["sha256"] == sha256_file(output)
    assert result["metadata"]["details"]["calibration_images"] == 40
    assert result["check"]["equal_answers"] >= 0.9
    assert command(capsys, trained, "--target", "onnx", "-o", output)[0] == 0
    assert OnnxSession(output).metadata.precision == "fp32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "onnx", "--int8"), "--int8 needs --data"),
        (("--target", "onnx", "--steps", "4"), "--steps is for spiking networks; leave it out with --target onnx"),
        (("--target", "onnx", "--limit", "0"), "--limit is 0"),
        (("--target", "onnx", "--part", "head"), "'head' is not"),
        (("--target", "nir", "--int8"), "--int8 is for --target onnx"),
        (("--target", "lava", "--part", "resnet"), "--part is for --target onnx"),
    ],
)
def test_the_command_refuses_in_one_line(trained, tmp_path, capsys, arguments, message):
    status, _, err = command(capsys, trained, *arguments, "-o", tmp_path / "m.onnx")
    assert status == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_needs_an_ann_bundle(tmp_path, capsys):
    assert "needs MODEL" in command(capsys, "--target", "onnx", "-o", tmp_path / "m.onnx")[2]
    (tmp_path / "x.onnx").write_bytes(b"no model")
    status, _, err = command(capsys, tmp_path / "x.onnx", "--target", "onnx", "-o", tmp_path / "m.onnx")
    assert status == 2
    assert err.count("\n") == 1
