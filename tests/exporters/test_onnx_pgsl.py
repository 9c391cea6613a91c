"""The client of split learning as ONNX, the attack's gradient in forward operators, against the PyTorch module."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_reference import in_onnxruntime

from gascnn.exporters.onnx import pgsl
from gascnn.exporters.onnx.pgsl import export_pgsl_client
from gascnn.exporters.onnx.session import OnnxSession
from gascnn.models.pgsl import PgslClient
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.errors import CheckFailed, DataError

FORMS = ({}, {"bound": 0.3}, {"pixels": 7}, {"pixels": 3, "amount": 0.4})


def client_of(channels: int, size: int, **strength: object) -> PgslClient:
    torch.manual_seed(0)
    client = PgslClient(SaliencyAttack(LocalClassifier(channels, 5, size), **strength), width=8)
    with torch.no_grad():
        for layer in (client.layers[2], client.layers[5]):
            layer.weight.normal_()  # factors of both signs
            layer.bias.normal_()
    client.train()(torch.rand(32, channels, size, size))
    return client.eval()


def images_of(channels: int, size: int, count: int = 12) -> np.ndarray:
    """Noise, half of it coarse and dark, then all black and all white."""
    images = np.random.default_rng(2).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    images[: count // 2] = images[: count // 2, :, ::2, ::2].repeat(2, 2).repeat(2, 3)[:, :, :size, :size] // 3
    images[-2], images[-1] = 0, 255
    return images


@pytest.mark.parametrize("strength", FORMS, ids=str)
@pytest.mark.parametrize(("channels", "size"), [(1, 12), (3, 18), (1, 30)])
def test_the_attack_is_inside(tmp_path, channels, size, strength):
    client, images = client_of(channels, size, **strength), images_of(channels, size)
    report = export_pgsl_client(client, tmp_path / "c.onnx", classes="abcde", check=images)
    pixels = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        expected = client(pixels).numpy()
        moved = float((client.attack(pixels)[0] - pixels).abs().max())
    assert moved > 0
    np.testing.assert_allclose(
        in_onnxruntime(tmp_path / "c.onnx", images, "activations"), expected, atol=1e-5 * np.abs(expected).max()
    )
    assert report.check.agreeing_images == 1
    assert report.check.equal_answers is None
    assert report.metadata.details["attack"] == client.attack.arguments
    assert OnnxSession(tmp_path / "c.onnx").metadata == report.metadata


def test_the_batch_is_free(tmp_path):
    client, images = client_of(1, 12, pixels=7), images_of(1, 12)
    export_pgsl_client(client, tmp_path / "c.onnx", classes="abcde")
    together = in_onnxruntime(tmp_path / "c.onnx", images, "activations")
    assert together.shape == (12, 8, 6, 6)
    alone = np.concatenate([in_onnxruntime(tmp_path / "c.onnx", images[i : i + 1], "activations") for i in range(12)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert OnnxSession(tmp_path / "c.onnx").run(images[:0]).shape == (0, 8, 6, 6)


def test_int8_convolutions_are_integers_and_near(tmp_path):
    client, images = client_of(3, 18, bound=0.2), images_of(3, 18, 40)
    report = export_pgsl_client(
        client, tmp_path / "i.onnx", classes="abcde", calibration=images[::2], calibrated_on="noise", check=images[1::2]
    )
    with torch.no_grad():
        expected = client(torch.from_numpy(images[1::2]).float() / 255).numpy()
    found = in_onnxruntime(tmp_path / "i.onnx", images[1::2], "activations")
    assert 1e-5 < np.abs(found - expected).max() < 0.06 * np.abs(expected).max()
    assert report.check.tolerance is None
    assert report.metadata.precision == "int8"
    assert report.metadata.details["calibration_images"] == 20
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "i.onnx"), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert sum(node.op_type == "QLinearConv" for node in optimised.graph.node) == 2
    # All else, the attack, is in float32: each of the two reads integers and gives integers, that is all.
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "i.onnx").graph.node)
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (4, 4 + 2 * 2)


def test_a_gradient_without_its_masks_is_found_out(tmp_path, monkeypatch):
    right = pgsl._pull_back

    def unmasked(graph, classifier, maps, value, zero):
        return right(graph, classifier, ["ones"] * len(maps), value, zero)

    def with_ones(graph, attack, images):
        graph.constant("ones", np.float32(1))
        return attacked(graph, attack, images)

    attacked = pgsl._attack
    monkeypatch.setattr(pgsl, "_pull_back", unmasked)
    monkeypatch.setattr(pgsl, "_attack", with_ones)
    client = client_of(1, 12, bound=0.3)
    with pytest.raises(
        CheckFailed, match=r"on \d+ of 33 images by more than the 0.0001 that is allowed; nothing was wr"
    ):
        export_pgsl_client(client, tmp_path / "c.onnx", classes="abcde")
    # Of few images all must agree, and who is told of one knows what to do.
    few = np.random.default_rng(0).integers(0, 256, (7, 1, 12, 12), dtype=np.uint8)
    with pytest.raises(
        CheckFailed, match=r"of 7 images by .*; nothing was written. Rounding alone .* check on 20 or more"
    ):
        export_pgsl_client(client, tmp_path / "c.onnx", classes="abcde", check=few)
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_shape_are_refused(tmp_path):
    client = client_of(1, 12)
    with pytest.raises(
        DataError, match=r"calibration images are uint8 \(12, 3, 18, 18\); the network takes uint8 \(n, 1"
    ):
        export_pgsl_client(client, tmp_path / "c.onnx", classes="abcde", calibration=images_of(3, 18))
    with pytest.raises(DataError, match=r"images are uint8 \(12, 3, 18, 18\)"):
        export_pgsl_client(client, tmp_path / "c.onnx", classes="abcde", check=images_of(3, 18))
    assert list(tmp_path.iterdir()) == []
