"""``gascnn export --target onnx``: what it writes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gascnn.exporters.onnx.session import OnnxSession
from gascnn.toolkit.bundle import MODEL_FILE
from gascnn.toolkit.cli import export_onnx, main
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.pgsl.bundle import SplitNetwork, new_parts, save_network
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.split import train_step


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


@pytest.fixture
def split(digits, tmp_path_factory):
    """A split network of digits that has made a few steps, and its bundle."""
    torch.manual_seed(0)
    options, local = PgslOptions(width=8, hidden=8, grid=2, attack="bound", recovery="none"), LocalOptions(width=4)
    client, server = new_parts((1, 8, 8), 10, options, local)
    images, labels = torch.from_numpy(digits.train.images).float() / 255, torch.from_numpy(digits.train.labels)
    for rows in torch.arange(160).split(32):
        train_step(client, server, images[rows], labels[rows])
    network = SplitNetwork(client, server, local, digits.class_names, (1, 8, 8))
    path = tmp_path_factory.mktemp("split") / "split"
    save_network(network, path)
    return network, path


@pytest.mark.parametrize("part", [(), ("--part", "pgsl-client")])
def test_the_client_of_a_split_network(split, digits, tmp_path, capsys, part):
    network, path = split
    output, json_path = tmp_path / "c.onnx", tmp_path / "r.json"
    status, out, err = command(capsys, path, "--target", "onnx", *part, "-o", output, "--json", json_path)
    assert (status, err) == (0, "")
    assert f"{output}: pgsl-client, fp32, opset 17" in out
    session, result = OnnxSession(output), json.loads(json_path.read_text())
    assert session.metadata.bundle_sha256 == sha256_file(path / MODEL_FILE) == result["source"]["sha256"]
    assert result["source"]["kind"] == "pgsl"
    assert session.metadata.classes == digits.class_names
    images = digits.test.images[:20]
    expected = network.client.query(torch.from_numpy(images).float() / 255).activations.numpy()
    np.testing.assert_allclose(session.run(images), expected, atol=1e-4 * np.abs(expected).max())


def test_the_client_in_8_bits(split, tmp_path, capsys):
    output, json_path = tmp_path / "c.onnx", tmp_path / "r.json"
    status, out, err = command(
        capsys, split[1], "--target", "onnx", "--int8", "--data", "digits", "--calibration-images", 40, "--limit", 30,
        "-o", output, "--json", json_path,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "against torch on 30 images: values differ by" in out
    metadata = OnnxSession(output).metadata
    assert (metadata.part, metadata.precision) == ("pgsl-client", "int8")
    assert metadata.details["calibration_images"] == 40
    assert metadata.details["calibrated_on"] == "digits, train split"
    assert 0 < json.loads(json_path.read_text())["check"]["largest_difference"] < 0.1


def test_a_client_that_8_bits_change_much_is_told(split, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_onnx, "FAR_OFF", 1e-3)
    status, _, err = command(
        capsys, split[1], "--target", "onnx", "--int8", "--data", "digits", "--calibration-images", 2, "--limit", 30,
        "-o", tmp_path / "c.onnx",
    )  # fmt: skip
    assert status == 0
    assert "8 bits change activations much; calibrate on more images" in err


def test_a_part_that_the_kind_does_not_have(trained, split, tmp_path, capsys):
    for source, part, message in (
        (trained, "pgsl-client", "of kind ann; --part pgsl-client takes one of kind pgsl, of 'gascnn pgsl train'"),
        (split[1], "resnet", "of kind pgsl; --part resnet takes one of kind ann, of 'gascnn train'"),
    ):
        status, _, err = command(capsys, source, "--target", "onnx", "--part", part, "-o", tmp_path / "m.onnx")
        assert (status, err.count("\n")) == (2, 1)
        assert f"{source} is a bundle {message}" in err
    status, _, err = command(capsys, split[1], "--target", "lava", "-o", tmp_path / "m.net")
    assert (status, err.count("\n")) == (2, 1)
    assert "a split network; it goes with" in err
    assert list(tmp_path.iterdir()) == []
