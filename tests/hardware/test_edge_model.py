"""Exported files on a board: answers, what is imported, and files and images that are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gascnn.exporters.onnx.export import export_resnet, sealed, write_checked
from gascnn.exporters.onnx.graph import GraphBuilder
from gascnn.exporters.onnx.layers import intensities
from gascnn.exporters.onnx.metadata import OnnxMetadata, seal
from gascnn.hardware.edge import EdgeModel
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import load_bundle, save_bundle
from gascnn.toolkit.errors import BackendError, DataError, FormatError, UsageError
from gascnn.toolkit.training.bundles import build_model, to_bundle

SHAPE = (1, 9, 8)
HEAVY = ("torch", "numba", "rich", "scipy", "sklearn", "nir", "h5py", "click", "onnx", "safetensors", "llvmlite", "PIL",
         "google")  # fmt: skip


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = resnet(classes=3, blocks=(1, 1), width=4, stem="small")
    model.train()(torch.rand(32, *SHAPE))  # batch norms whose statistics are not the initial ones
    path = tmp_path_factory.mktemp("edge") / "ann"
    save_bundle(to_bundle(model.eval(), ["benign", "malignant", "normal"], SHAPE, framing="foreground"), path)
    return path


@pytest.fixture(scope="module")
def exported(ann: Path) -> Path:
    export_resnet(ann, ann.parent / "fp32.onnx")
    return ann.parent / "fp32.onnx"


@pytest.fixture(scope="module")
def quantised(ann: Path) -> Path:
    export_resnet(ann, ann.parent / "int8.onnx", calibration=noise(40, seed=1), calibrated_on="noise")
    return ann.parent / "int8.onnx"


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def metadata(**changed: object) -> OnnxMetadata:
    values = {
        "part": "resnet", "precision": "fp32", "image_shape": SHAPE, "pixel_max": 255, "framing": "whole",
        "classes": ("a", "b"), "bundle_sha256": "", "version": "0",
    }  # fmt: skip
    return OnnxMetadata(**{**values, **changed})


def averages(classes: int = 2, dtype: str = "uint8", shape: tuple[int, ...] = SHAPE) -> GraphBuilder:
    """A valid graph: the sum of all pixels times some constants."""
    graph = GraphBuilder("averages")
    pixels = graph.add("Cast", graph.input("images", dtype, shape), name="pixels", to=1)
    weights = graph.constant("weights", np.ones((int(np.prod(shape)), classes), np.float32))
    total = graph.add("Gemm", graph.add("Flatten", pixels, name="flat"), weights, name="total")
    graph.output(total, "logits", "float32", (classes,))
    return graph


def test_answers_are_those_of_torch(ann, exported):
    model, images = EdgeModel(exported), noise(21)
    with torch.no_grad():
        expected = build_model(load_bundle(ann))(torch.from_numpy(images).float() / 255).numpy()
    np.testing.assert_allclose(model.logits(images), expected, atol=1e-5)
    predictions = model.predict(images)
    assert predictions.dtype == np.int64
    assert predictions.tolist() == expected.argmax(1).tolist()
    assert [model.classes[i] for i in predictions[:3]] == [
        ("benign", "malignant", "normal")[i] for i in expected[:3].argmax(1)
    ]
    assert (model.metadata.framing, model.metadata.image_shape, model.metadata.pixel_max) == ("foreground", SHAPE, 255)


@pytest.mark.parametrize(("side", "at_once"), [(28, 64), (45, 64), (64, 32), (256, 2), (1024, 1)])
def test_large_images_are_computed_few_at_a_time(exported, monkeypatch, side, at_once):
    model = EdgeModel(exported)
    object.__setattr__(model.metadata, "image_shape", (1, side, side))
    assert model.batch_size == at_once
    sizes = []

    class Counting:
        def run(self, outputs, inputs):
            (batch,) = inputs.values()
            sizes.append(len(batch))
            return [np.zeros((len(batch), 3), np.float32)]

    monkeypatch.setattr(model._session, "_session", Counting())
    model.logits(np.zeros((at_once + 1, 1, side, side), np.uint8))
    assert sizes == [at_once, 1]


@pytest.mark.parametrize("which", ["exported", "quantised"])
def test_batches_change_nothing(request, which):
    model, images = EdgeModel(request.getfixturevalue(which)), noise(10)
    together = model.logits(images)
    for size in (1, 3, 10, 64):
        np.testing.assert_allclose(model.logits(images, batch_size=size), together, atol=1e-6)
    assert model.logits(images[:0]).shape == (0, 3)
    assert model.predict(images[:0]).shape == (0,)
    backwards = model.logits(images[::-1])  # not contiguous
    np.testing.assert_allclose(backwards, together[::-1], atol=1e-6)
    np.testing.assert_allclose(EdgeModel(request.getfixturevalue(which), threads=2).logits(images), together, atol=1e-6)


def test_int8_is_near_fp32(exported, quantised):
    images = noise(50)
    exact, rounded = EdgeModel(exported).logits(images), EdgeModel(quantised).logits(images)
    assert 1e-5 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()
    assert EdgeModel(quantised).metadata.details["calibrated_on"] == "noise"


def test_activations_of_a_client(tmp_path):
    graph = GraphBuilder("client")
    values = intensities(graph, graph.input("images", "uint8", SHAPE), 255)
    graph.output(graph.add("Neg", values, name="negated"), "activations", "float32", SHAPE)

    class Negated(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x

    path = tmp_path / "client.onnx"
    write_checked(graph.model(), metadata(part="pgsl-client", classes=()), Negated(), path, None)
    model, images = EdgeModel(path), noise(3)
    np.testing.assert_allclose(model.activations(images), -images.astype(np.float32) / 255, rtol=1e-6)
    with pytest.raises(UsageError, match="holds part pgsl-client; predict needs resnet, use activations"):
        model.predict(images)
    with pytest.raises(UsageError, match="logits needs resnet"):
        model.logits(images)


def test_parts_are_not_confused(exported):
    with pytest.raises(UsageError, match="holds part resnet; activations needs pgsl-client, use logits or predict"):
        EdgeModel(exported).activations(noise(1))


ALONE = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise AssertionError("imported " + name)
sys.meta_path.insert(0, Forbid())
import json
import numpy as np
from gascnn.hardware.edge import EdgeModel
model = EdgeModel(sys.argv[1])
images = np.load(sys.argv[2], allow_pickle=False)
print(json.dumps([model.predict(images).tolist(), sorted({n.partition(".")[0] for n in sys.modules})]))
"""


@pytest.mark.parametrize("which", ["exported", "quantised"])
def test_only_numpy_and_onnxruntime_are_imported(request, tmp_path, which):
    path = request.getfixturevalue(which)
    np.save(tmp_path / "images.npy", noise(5))
    script = ALONE.replace("FORBIDDEN", repr(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", script, path, tmp_path / "images.npy"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    predictions, modules = json.loads(done.stdout)
    assert predictions == EdgeModel(path).predict(noise(5)).tolist()
    foreign = {name for name in modules if not name.startswith("_") and name not in sys.stdlib_module_names}
    assert foreign <= {"gascnn", "numpy", "onnxruntime", "sitecustomize"}


def test_importtime_lists_nothing_heavy(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import gascnn.hardware.edge"],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"gascnn", "onnxruntime", "numpy"} <= imported
    assert not imported & set(HEAVY)


def refused(path: Path) -> str:
    """The message, which is one line and names the file."""
    with pytest.raises(FormatError) as caught:
        EdgeModel(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_truncated_file_is_refused_wherever_it_ends(exported, tmp_path, capfd):
    data = exported.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in [*range(0, len(data), len(data) // 40), *range(len(data) - 130, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        assert any(word in refused(path) for word in ("not an ONNX file", "missing", "holds no metadata", "cut short"))
    # Cut exactly where the last field begins: all is there but the digest.
    path.write_bytes(data[: -len(seal(b""))])
    assert "gascnn.sha256 is missing" in refused(path)
    assert capfd.readouterr().err == ""  # onnxruntime's own log stays silent


def test_a_changed_byte_is_found_wherever_it_is(exported, tmp_path):
    data = exported.read_bytes()
    path = tmp_path / "changed.onnx"
    for place in range(0, len(data) - 110, len(data) // 50):
        changed = bytearray(data)
        changed[place] ^= 4
        path.write_bytes(changed)
        assert "changed or cut short since it was exported (its SHA-256 differs)" in refused(path)


def test_what_is_not_a_model_is_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing.onnx")
    assert "no such file" in refused(tmp_path)
    for content in (b"", b"not a model\n" * 50, b"\x80\x04\x95pickled", bytes(1000)):
        (tmp_path / "x.onnx").write_bytes(content)
        assert "not an ONNX file that onnxruntime runs" in refused(tmp_path / "x.onnx")


def test_a_foreign_model_is_refused(tmp_path):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(averages().model().SerializeToString())
    assert "holds no metadata of 'gascnn export'; it was written by another program" in refused(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"part": "generator"}, "gascnn.part is missing or of the wrong kind"),
        ({"precision": "fp16"}, "gascnn.precision is"),
        ({"image_shape": (9, 8)}, "gascnn.image_shape is"),
        ({"image_shape": (1, 9, 0)}, "gascnn.image_shape is"),
        ({"image_shape": (1, 8, 9)}, "inputs or outputs are not those of its metadata"),
        ({"pixel_max": 0}, "gascnn.pixel_max is"),
        ({"framing": "upside down"}, "gascnn.framing is"),
        ({"classes": (1, 2)}, "gascnn.classes is"),
        ({"classes": ("a", "b", "c")}, "gives (2,) for 3 classes"),
        ({"details": [1]}, "gascnn.details is"),
    ],
)
def test_metadata_that_cannot_be_is_refused(tmp_path, changed, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(sealed(averages().model(), metadata()))
    assert EdgeModel(path).classes == ("a", "b")
    path.write_bytes(sealed(averages().model(), metadata(**changed)))
    assert message in refused(path)


def test_another_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gascnn.exporters.onnx.metadata.SCHEMA", "2")
    (tmp_path / "m.onnx").write_bytes(sealed(averages().model(), metadata()))
    monkeypatch.undo()
    assert "metadata of schema '2'; this version reads schema 1" in refused(tmp_path / "m.onnx")


def test_inputs_of_another_type_are_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(sealed(averages(dtype="float32").model(), metadata()))
    assert "inputs or outputs are not those of its metadata" in refused(tmp_path / "m.onnx")


def test_an_operator_that_is_not_there_is_refused(tmp_path):
    graph = GraphBuilder("odd")
    graph.output(graph.add("Frobnicate", graph.input("images", "uint8", SHAPE), name="x"), "logits", "float32", (2,))
    (tmp_path / "m.onnx").write_bytes(sealed(graph.model(), metadata()))
    assert "not an ONNX file that onnxruntime runs" in refused(tmp_path / "m.onnx")


def test_a_file_too_large_is_not_read(exported, monkeypatch):
    monkeypatch.setattr("gascnn.exporters.onnx.session.LARGEST_FILE", 100)
    assert "an ONNX file has 100 at most" in refused(exported)


@pytest.mark.parametrize(
    "images",
    [noise(2).astype(np.float32), noise(2)[0], noise(2)[:, :, :8], noise(2).reshape(2, 1, 8, 9), noise(2).tolist(),
     noise(2).astype(np.int8), np.uint8(3), np.full((1, *SHAPE), np.nan)],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(exported, images):
    with pytest.raises(DataError, match=r"^images are [^\n]*; [^\n]* takes uint8 \(n, 1, 9, 8\)$"):
        EdgeModel(exported).predict(images)


def test_counts_that_cannot_be_are_refused(exported):
    with pytest.raises(UsageError, match="threads is 0; it must be at least 1"):
        EdgeModel(exported, threads=0)
    with pytest.raises(UsageError, match="threads is 20000; it must be at most 1024"):
        EdgeModel(exported, threads=20000)
    with pytest.raises(UsageError, match="batch_size is 0; it must be at least 1"):
        EdgeModel(exported).predict(noise(1), batch_size=0)


def test_what_breaks_inside_onnxruntime_is_one_line(tmp_path):
    """A graph whose reshape cannot hold: it opens, and fails when it runs."""
    graph = GraphBuilder("odd")
    pixels = graph.add("Cast", graph.input("images", "uint8", SHAPE), name="pixels", to=1)
    shape = graph.constant("shape", np.array([-1, 2, 71], np.int64))
    summed = graph.add("ReduceSum", graph.add("Reshape", pixels, shape, name="r"), graph.constant(
        "axes", np.array([2], np.int64)), name="s", keepdims=0)  # fmt: skip
    graph.output(summed, "logits", "float32", (2,))
    (tmp_path / "m.onnx").write_bytes(sealed(graph.model(), metadata()))
    with pytest.raises(BackendError, match=r"^[^\n]*onnxruntime stopped \([^\n]*\)$"):
        EdgeModel(tmp_path / "m.onnx").predict(noise(1))
