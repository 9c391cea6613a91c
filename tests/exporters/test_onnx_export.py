"""ONNX files against PyTorch, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_reference import bundle_of, exported_as, in_onnxruntime, in_torch, noise, used
from torch import nn

from gascnn.exporters.onnx.check import compare
from gascnn.exporters.onnx.export import LabelledImages, OnnxReport, export_resnet, write_checked
from gascnn.exporters.onnx.graph import GraphBuilder
from gascnn.exporters.onnx.layers import intensities, operations, parameters
from gascnn.exporters.onnx.metadata import OnnxMetadata, read_properties, seal
from gascnn.exporters.onnx.session import OnnxSession
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import Bundle, load_bundle, save_bundle
from gascnn.toolkit.conversion.ir import Kind
from gascnn.toolkit.errors import CheckFailed, ConversionError, DataError, FormatError, UsageError
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.training.bundles import build_model, to_bundle


@pytest.mark.parametrize(
    ("stem", "channels", "size"), [("small", 1, (8, 8)), ("small-stride2", 3, (13, 9)), ("imagenet", 1, (33, 32))]
)
def test_float_files_compute_what_torch_does(tmp_path, stem, channels, size):
    shape = (channels, *size)
    torch.manual_seed(0)
    model = used(resnet(classes=3, blocks=(1, 2), width=4, channels=channels, stem=stem), shape)
    report = export_resnet(bundle_of(model, shape, tmp_path / "ann"), tmp_path / "m.onnx")
    images = noise(9, shape)
    expected = in_torch(model, images)
    np.testing.assert_allclose(
        in_onnxruntime(tmp_path / "m.onnx", images), expected, atol=1e-5 * np.abs(expected).max()
    )
    assert report.check.images == 33
    assert report.check.equal_answers == 1
    assert report.sha256 == sha256_file(tmp_path / "m.onnx")
    assert report.bytes == (tmp_path / "m.onnx").stat().st_size


def test_the_batch_is_free(trained, tmp_path, digits):
    export_resnet(trained, tmp_path / "m.onnx")
    images = digits.test.images[:7]
    together = in_onnxruntime(tmp_path / "m.onnx", images)
    assert together.shape == (7, 10)
    alone = np.concatenate([in_onnxruntime(tmp_path / "m.onnx", images[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert in_onnxruntime(tmp_path / "m.onnx", images[:0]).shape == (0, 10)


def test_another_pixel_max_is_divided_by(tmp_path):
    model = used(resnet(classes=2, blocks=(1,), width=4, image_size=8), (1, 8, 8))
    bundle = to_bundle(model, ["a", "b"], (1, 8, 8))
    save_bundle(Bundle(**{**vars(bundle), "pixel_max": 100}), tmp_path / "ann")
    images = noise(5, (1, 8, 8)) % 101
    expected = in_torch(model, images, pixel_max=100)
    for name, calibration in (("f.onnx", None), ("i.onnx", images)):
        report = export_resnet(tmp_path / "ann", tmp_path / name, calibration=calibration)
        assert report.metadata.pixel_max == 100
    np.testing.assert_allclose(in_onnxruntime(tmp_path / "f.onnx", images), expected, atol=1e-5)
    np.testing.assert_allclose(in_onnxruntime(tmp_path / "i.onnx", images), expected, atol=0.1 * np.abs(expected).max())


def test_metadata_is_in_the_file_and_comes_back(tmp_path):
    model = used(resnet(classes=2, blocks=(1,), width=4, image_size=8), (1, 8, 8))
    bundle = to_bundle(model, ["kein Befund", "Läsion ≥ 1 cm"], (1, 8, 8), framing="foreground")
    save_bundle(bundle, tmp_path / "ann")
    report = export_resnet(
        tmp_path / "ann", tmp_path / "m.onnx", calibration=noise(8, (1, 8, 8)), calibrated_on="noise"
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    found = session.get_modelmeta()
    properties = found.custom_metadata_map
    assert found.producer_name == "gascnn"
    assert json.loads(properties["gascnn.classes"]) == ["kein Befund", "Läsion ≥ 1 cm"]
    assert json.loads(properties["gascnn.image_shape"]) == [1, 8, 8]
    assert properties["gascnn.framing"] == "foreground"
    assert properties["gascnn.part"] == "resnet"
    assert properties["gascnn.precision"] == "int8"
    assert properties["gascnn.bundle_sha256"] == sha256_file(tmp_path / "ann" / "model.json")
    assert json.loads(properties["gascnn.details"])["calibration_images"] == 8
    assert read_properties(properties) == report.metadata == OnnxSession(tmp_path / "m.onnx").metadata
    assert json.loads(json.dumps(report.to_dict()))["metadata"]["classes"] == ["kein Befund", "Läsion ≥ 1 cm"]


def test_the_same_bundle_gives_the_same_bytes(trained, tmp_path, digits):
    for name in ("a", "b"):
        export_resnet(trained, tmp_path / f"{name}.onnx")
        export_resnet(trained, tmp_path / f"{name}8.onnx", calibration=digits.train.images[:64])
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert (tmp_path / "a8.onnx").read_bytes() == (tmp_path / "b8.onnx").read_bytes()


class Everything(nn.Module):
    """Every kind of operation that a trace may hold, in geometries a ResNet does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1))
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(4 * 5 * 3, 6, bias=False)
        self.norm1 = nn.BatchNorm1d(6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = self.norm(torch.relu(x))
        y = self.pool(torch.relu(self.grouped(y) + y + x))
        return self.fc(torch.relu(self.norm1(self.hidden(self.drop(y).flatten(1)))))


class Averaged(nn.Module):
    """Global averaging that flattens on its own, answers straight from a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("build", [Everything, Averaged])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_kind_of_operation(tmp_path, build: Callable[[], nn.Module], precision):
    torch.manual_seed(0)
    shape = (2, 9, 8)
    model, images = used(build(), shape), noise(20, shape)
    path = exported_as(precision, model, images, tmp_path)
    expected = in_torch(model, images)
    allowed = {"fp32": 1e-5, "int8": 0.06}[precision]
    np.testing.assert_allclose(in_onnxruntime(path, images), expected, atol=allowed * np.abs(expected).max())


def test_no_kind_of_operation_is_left_out_of_these_tests():
    kinds = {op.kind for build in (Everything, Averaged) for op in operations(build().eval(), (2, 9, 8))}
    # Identities are taken out, spikes are not made here.
    assert kinds == set(get_args(Kind)) - {"identity", "neurons"}


def test_the_seal_is_what_the_onnx_package_writes():
    digest = hashlib.sha256(b"a model").hexdigest()
    entry = onnx.StringStringEntryProto(key="gascnn.sha256", value=digest)
    assert seal(b"a model") == onnx.ModelProto(metadata_props=[entry]).SerializeToString()


def test_the_onnx_package_reads_the_file(trained, tmp_path):
    export_resnet(trained, tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    data = (tmp_path / "m.onnx").read_bytes()
    model = onnx.load_model_from_string(data)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["gascnn.sha256"] == hashlib.sha256(data[: -len(seal(b""))]).hexdigest()


def test_what_is_not_valid_onnx_is_not_written(tmp_path):
    graph = GraphBuilder("wrong")
    flat = graph.add("Flatten", intensities(graph, graph.input("images", "uint8", (1, 2, 2)), 255), name="flat")
    graph.output(flat, "logits", "float32", (3,))
    metadata = OnnxMetadata("resnet", "fp32", (1, 2, 2), 255, "whole", ("a", "b", "c"), "")
    with pytest.raises(CheckFailed, match=r"^onnx refuses the graph \([^\n]*\); nothing was written$"):
        write_checked(graph.model(), metadata, nn.Flatten(), tmp_path / "m.onnx", None)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_not_written(trained, tmp_path, monkeypatch):
    """One weight is off by a hundredth of the largest: the check sees it, and the older file stays."""
    output = tmp_path / "m.onnx"
    export_resnet(trained, output)
    before = output.read_bytes()

    def wrong(graph, op):
        if op.name == "fc":
            op.weight[3, 2] += 0.01 * op.weight.abs().max()
        return parameters(graph, op)

    monkeypatch.setattr("gascnn.exporters.onnx.layers.parameters", wrong)
    with pytest.raises(
        CheckFailed, match=r"differ by .* of the largest output, on \d+ of 33 images by more than the 0.0001"
    ):
        export_resnet(trained, output)
    assert output.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_file_that_gives_nan_is_not_written(trained, tmp_path, monkeypatch):

    def wrong(graph, op):
        if op.name == "fc":
            op.weight[:] = float("nan")
        return parameters(graph, op)

    monkeypatch.setattr("gascnn.exporters.onnx.layers.parameters", wrong)
    with pytest.raises(CheckFailed, match="differ by nan"):
        export_resnet(trained, tmp_path / "m.onnx")
    with pytest.raises(
        ConversionError, match=r"^onnxruntime cannot quantise the network \([^\n]*\); export it without"
    ):
        export_resnet(trained, tmp_path / "m.onnx", calibration=noise(8, (1, 8, 8)))
    assert list(tmp_path.iterdir()) == []


def test_other_answers_are_refused_even_within_the_tolerance(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("gascnn.exporters.onnx.check.TOLERANCE", 0.5)
    export_resnet(trained, tmp_path / "m.onnx")
    model = build_model(load_bundle(trained))
    session = OnnxSession(tmp_path / "m.onnx")
    monkeypatch.setattr("gascnn.exporters.onnx.check._margins", lambda outputs: np.full(len(outputs), np.inf))
    with torch.no_grad():
        model.fc.bias[0] += 0.4 * float(np.abs(session.run(noise(20, (1, 8, 8)))).max())
    with pytest.raises(CheckFailed, match="answer differently on"):
        compare(session, model, noise(20, (1, 8, 8)))


class Softmaxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.fc(x.flatten(1)), 1)


def test_what_cannot_be_exported_is_named(trained, tmp_path):
    with pytest.raises(ConversionError, match="ends in a softmax"):
        operations(Softmaxed().eval(), (1, 2, 2))
    with pytest.raises(ConversionError, match=r"MaxPool2d\): not supported"):
        operations(nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)).eval(), (1, 4, 4))
    with pytest.raises(FormatError, match="no bundle there"):
        export_resnet(tmp_path, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="is a folder"):
        export_resnet(trained, tmp_path)
    with pytest.raises(DataError, match=r"calibration images are uint8 \(0, 1, 8, 8\)"):
        export_resnet(trained, tmp_path / "m.onnx", calibration=noise(0, (1, 8, 8)))
    with pytest.raises(DataError, match=r"float64 \(2, 1, 8, 8\); the network takes uint8 \(n, 1, 8, 8\)"):
        export_resnet(trained, tmp_path / "m.onnx", calibration=np.zeros((2, 1, 8, 8)))
    with pytest.raises(DataError, match=r"uint8 \(2, 1, 9, 8\)"):
        export_resnet(trained, tmp_path / "m.onnx", check=LabelledImages(noise(2, (1, 9, 8))))
    with pytest.raises(UsageError, match="no images to check on"):
        export_resnet(trained, tmp_path / "m.onnx", check=LabelledImages(noise(0, (1, 8, 8))))
    assert list(tmp_path.iterdir()) == []


def test_code_of_others_is_not_imported(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    save_bundle(to_bundle(model, ["a", "b"], (1, 2, 2), architecture={"name": "antigravity:build"}), tmp_path / "ann")
    with pytest.raises(UsageError, match="wants to import and run antigravity:build"):
        export_resnet(tmp_path / "ann", tmp_path / "m.onnx")


def test_a_file_too_large_for_onnx_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("gascnn.exporters.onnx.export.LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="ONNX holds 1000; train a narrower network"):
        export_resnet(trained, tmp_path / "m.onnx")


def test_write_checked_takes_any_graph(tmp_path):
    """What another part of a network is exported with: a graph of one's own and the module it must equal."""
    graph = GraphBuilder("twice")
    images = graph.input("images", "uint8", (1, 2, 2))
    values = intensities(graph, images, 255)
    twice = graph.add("Add", values, values, name="twice")
    graph.output(twice, "activations", "float32", (1, 2, 2))
    metadata = OnnxMetadata("pgsl-client", "fp32", (1, 2, 2), 255, "whole", (), "", details={"strength": 3})

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    report: OnnxReport = write_checked(graph.model(), metadata, Twice(), tmp_path / "m.onnx", None)
    assert report.check.largest_difference < 1e-6
    session = OnnxSession(tmp_path / "m.onnx")
    assert session.output_shape == (1, 2, 2)
    assert session.metadata.details == {"strength": 3}
