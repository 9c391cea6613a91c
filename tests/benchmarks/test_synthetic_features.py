"""Features of a network and of an ONNX file, and what is measured with them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from gascnn.benchmarks.synthetic.features import NetworkFeatures, OnnxFeatures
from gascnn.benchmarks.synthetic.quality import noise, quality
from gascnn.benchmarks.synthetic.settings import SyntheticSettings
from gascnn.models.resnet import resnet
from gascnn.toolkit.errors import DataError, FormatError, UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 1, 8, 8), dtype=np.uint8)


def write_means(path, shape, kind=TensorProto.FLOAT):
    """An ONNX file whose features are each channel's mean, times 2, less 1."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=1),
            helper.make_node("Mul", ["m", "two"], ["d"]),
            helper.make_node("Sub", ["d", "one"], ["y"]),
        ],
        "means",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [helper.make_tensor(name, kind, [], [value]) for name, value in (("two", 2.0), ("one", 1.0))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_features_are_what_the_last_layer_takes():
    torch.manual_seed(0)
    model = resnet(classes=4, blocks=(1, 1), width=4, image_size=8, dropout=0.5)
    model.train()
    features, logits = NetworkFeatures(model).with_logits(IMAGES)
    assert model.training, "its mode is put back"
    assert features.shape == (70, 8)
    last = model.fc
    expected = features @ last.weight.detach().double().numpy().T + last.bias.detach().double().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    pooled = []
    model.avgpool.register_forward_hook(lambda *seen: pooled.append(seen[2]))
    with torch.no_grad():
        assert torch.allclose(model.eval()(torch.tensor(IMAGES) / 255), torch.tensor(logits), atol=1e-5)
    np.testing.assert_allclose(features, pooled[0].flatten(1).numpy(), atol=1e-5)
    np.testing.assert_array_equal(NetworkFeatures(model)(IMAGES), features)
    with pytest.raises(UsageError, match="this is a Flatten"):
        NetworkFeatures(torch.nn.Flatten())


@pytest.mark.parametrize("shape", [["n", 1, "h", "w"], ["n", 3, 16, 16], [32, 3, 8, 8]])
def test_features_of_an_onnx_file(tmp_path, shape):
    """Scaling to twice the size keeps means but for the edges; gray becomes three equal channels."""
    found = OnnxFeatures(write_means(tmp_path / "means.onnx", shape))(IMAGES)
    means = 2 * IMAGES.mean(axis=(2, 3)) / 255 - 1
    assert found.shape == (70, shape[1])
    tolerance = 0.05 if shape[2] == 16 else 1e-5
    np.testing.assert_allclose(found, np.repeat(means, shape[1], axis=1), atol=tolerance)


def test_onnx_files_that_cannot_be_used(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        OnnxFeatures(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(FormatError, match="onnxruntime cannot open it"):
        OnnxFeatures(tmp_path / "text.onnx")
    with pytest.raises(FormatError, match=r"one float32 input \(n, C, H, W\) is needed"):
        OnnxFeatures(write_means(tmp_path / "double.onnx", ["n", 1, 8, 8], TensorProto.DOUBLE))
    with pytest.raises(DataError, match="does not take"):
        OnnxFeatures(write_means(tmp_path / "colour.onnx", ["n", 3, 8, 8]))(IMAGES.repeat(2, axis=1))
    path = write_means(tmp_path / "large.onnx", ["n", 1, 128, 128])
    model = onnx.load(path)
    del model.graph.node[:]
    model.graph.node.extend([helper.make_node("Identity", ["x"], ["y"])])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match="16384 features an image"):
        OnnxFeatures(path)(IMAGES[:2])


def test_quality_orders_what_is_known():
    """Features drawn as the training ones are, moved, and far off: the distances are in that order."""
    rng = np.random.default_rng(1)
    sets = {name: rng.normal(size=(count, 4)) for name, count in (("train", 500), ("val", 260), ("test", 240))}
    sets |= {"synthetic": rng.normal(0.8, 1, size=(300, 4)), "noise": rng.normal(9, 1, size=(240, 4))}
    few = {"exact": sets["train"][:9]}
    found = quality(sets | few, SyntheticSettings(preset="none", seeds=(0, 1), resamples=10))
    assert (found["images"], found["features"], found["notes"]) == (240, 4, [])
    rows = found["rows"]
    assert rows["synthetic"]["frechet"]["value"] == pytest.approx(4 * 0.8**2, rel=0.2)
    assert rows["noise"]["frechet"]["value"] == pytest.approx(4 * 81, rel=0.05)
    for name in ("train", "val", "test"):
        assert rows[name]["frechet"]["value"] < 0.2
        assert rows[name]["precision"]["value"] > 0.85
    assert rows["noise"]["precision"]["value"] == rows["noise"]["recall"]["value"] == 0
    assert len(rows["val"]["frechet"]["by_seed"]) == 2
    assert rows["val"]["frechet"]["value"] == pytest.approx(np.mean(rows["val"]["frechet"]["by_seed"]))
    assert (
        "240 images for 300 features"
        in quality(
            {name: np.repeat(values, 75, axis=1) for name, values in sets.items()},
            SyntheticSettings(preset="none", resamples=2),
        )["notes"][0]
    )


def test_noise_is_even_and_seeded():
    made = noise((40, 1, 16, 16), 3)
    np.testing.assert_array_equal(made, noise((40, 1, 16, 16), 3))
    assert made.mean() == pytest.approx(127.5, abs=3)
    assert (made.min(), made.max()) == (0, 255)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"preset": "paper"}, "preset is 'paper'; allowed: smoke, small, none"),
        ({"seeds": ()}, "different whole numbers from 0"),
        ({"seeds": (1, 1)}, "different whole numbers from 0"),
        ({"threads": -1}, "threads is -1"),
        ({"planted": 3}, "planted is 3"),
    ],
)
def test_settings_that_are_not_allowed(given, told):
    with pytest.raises(UsageError, match=told):
        SyntheticSettings(**given)
