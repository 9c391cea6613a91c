"""Int8 files: PyTorch's answers, integer kernels throughout, and the integers by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import torch
from onnx_reference import exported_as, in_onnxruntime, in_torch, noise
from torch import nn

from gascnn.exporters.onnx.export import LabelledImages, export_resnet
from gascnn.toolkit.bundle import load_bundle
from gascnn.toolkit.training.bundles import build_model


def test_int8_answers_as_torch_does_on_digits(trained, tmp_path, digits):
    test = digits.test
    report = export_resnet(
        trained,
        tmp_path / "i.onnx",
        calibration=digits.train.images[:256],
        check=LabelledImages(test.images, test.labels),
    )
    answers = in_torch(build_model(load_bundle(trained)), test.images).argmax(1)
    found = in_onnxruntime(tmp_path / "i.onnx", test.images).argmax(1)
    equal = float((found == answers).mean())
    assert equal >= 0.97
    assert report.check.tolerance is None
    assert report.check.equal_answers == equal
    assert report.check.accuracy == float((found == test.labels).mean())
    assert report.check.torch_accuracy == float((answers == test.labels).mean()) > 0.9


def test_int8_is_computed_in_integers(trained, tmp_path, digits):
    """onnxruntime finds every layer, so that none is computed in floating point."""
    export_resnet(trained, tmp_path / "i.onnx", calibration=digits.train.images[:64])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "i.onnx"), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    counts = {name: found[name] for name in
              ("QLinearConv", "QLinearAdd", "QLinearAveragePool", "QGemm", "Conv", "Gemm", "Add", "AveragePool", "Relu",
               "QuantizeLinear", "DequantizeLinear")}  # fmt: skip
    # The one QuantizeLinear takes the pixels in.
    assert counts == {"QLinearConv": 6, "QLinearAdd": 2, "QLinearAveragePool": 1, "QGemm": 1, "Conv": 0, "Gemm": 0,
                      "Add": 0, "AveragePool": 0, "Relu": 0, "QuantizeLinear": 1, "DequantizeLinear": 0}  # fmt: skip
    assert (tmp_path / "i.onnx").stat().st_size < 0.85 * export_resnet(trained, tmp_path / "f.onnx").bytes


class Two(nn.Module):
    """A convolution and a linear layer: small enough for arithmetic by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.fc = nn.Linear(3 * 3 * 2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).flatten(1))


def test_int8_is_the_integer_arithmetic_of_its_description(tmp_path):
    """Integers by hand from the network's own weights; then onnxruntime's answers, by hand, from those integers."""
    torch.manual_seed(3)
    model, images = Two().eval(), noise(16, (1, 5, 4))
    path = exported_as("int8", model, images, tmp_path)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    pixel = np.float32(1 / 255)
    hidden_step = np.float32(float(in_torch(nn.Sequential(model.conv, nn.ReLU()), images).max()) / 255)
    for name, layer, step in (("conv", model.conv, pixel), ("fc", model.fc, hidden_step)):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        steps = np.abs(weight.reshape(len(weight), -1)).max(axis=1) / 64  # seven bits, one step an output channel
        np.testing.assert_allclose(stored[f"{name}.weight_scale"], steps, rtol=1e-6)
        along = steps.reshape(-1, *(1,) * (weight.ndim - 1))
        np.testing.assert_allclose(stored[f"{name}.weight_quantized"], weight / along, atol=0.501)
        assert np.abs(stored[f"{name}.weight_quantized"].astype(int)).max() == 64
        np.testing.assert_allclose(stored[f"{name}.bias_quantized"], bias / (step * steps), atol=0.51, rtol=1e-6)
    assert (stored["intensities_scale"], stored["intensities_zero_point"]) == (pixel, 0)
    np.testing.assert_allclose(stored["relu_scale"], hidden_step, rtol=1e-6)
    assert stored["relu_zero_point"] == 0

    integers = [torch.tensor(values).double() for values in (images, stored["conv.weight_quantized"])]
    sums = nn.functional.conv2d(*integers, stride=2, padding=1).numpy()
    sums += stored["conv.bias_quantized"].reshape(-1, 1, 1)
    before = sums * (pixel * stored["conv.weight_scale"]).astype(float).reshape(-1, 1, 1)
    hidden = np.clip(np.rint(before / float(hidden_step)), 0, 255).reshape(16, -1)
    expected = hidden @ stored["fc.weight_quantized"].astype(float).T + stored["fc.bias_quantized"]
    expected *= (hidden_step * stored["fc.weight_scale"]).astype(float)
    found = in_onnxruntime(path, images)
    # A sum that ends in one half may be rounded to either side: one step of a hidden value.
    largest = float(model.fc.weight.detach().abs().max())
    np.testing.assert_allclose(found, expected, atol=1.01 * float(hidden_step) * largest)
    assert np.median(np.abs(found - expected)) < 1e-5
    assert np.abs(found - in_torch(model, images)).max() > 1e-3


def test_channels_that_died_keep_their_bias(tmp_path):
    torch.manual_seed(3)
    model, images = Two().eval(), noise(16, (1, 5, 4))
    with torch.no_grad():
        model.conv.weight[0], model.conv.bias[0] = 1e-12, 1.5
        model.conv.weight[1], model.conv.bias[1] = 0.0, 0.5
        model.conv.bias[2] = -100.0  # never open
    expected = in_torch(model, images)
    found = in_onnxruntime(exported_as("int8", model, images, tmp_path), images)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
