"""Bundles: what is saved comes back, what was tampered with does not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from gascnn.toolkit.bundle import MODEL_FILE, WEIGHTS_FILE, Bundle, is_bundle, load_bundle, save_bundle
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.files import sha256_file

TENSORS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2).transpose(1, 0, 2, 3),
    "bn1.num_batches_tracked": np.array(7, dtype=np.int64),
    "mask": np.array([True, False]),
    "half": np.array([0.5], dtype=np.float16),
    "empty": np.zeros((0, 3)),
}
BUNDLE = Bundle(
    kind="ann",
    architecture={"name": "resnet", "arguments": {"blocks": [1, 1]}},
    image_shape=(3, 8, 10),
    classes=("Ödem", "normal"),
    tensors=TENSORS,
    pixel_max=4095,
    framing="foreground",
    metrics={"test": {"accuracy": 0.5, "auc": None}},
    provenance={"seed": 3},
)


@pytest.fixture
def path(tmp_path):
    save_bundle(BUNDLE, tmp_path / "bundle")
    return tmp_path / "bundle"


def rewrite(path, **changes):
    """Change fields of model.json; None takes one out."""
    values = {**json.loads((path / MODEL_FILE).read_text()), **changes}
    (path / MODEL_FILE).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def replace_weights(path, content):
    """Other weights, with their right hash."""
    (path / WEIGHTS_FILE).write_bytes(content)
    rewrite(path, weights_sha256=sha256_file(path / WEIGHTS_FILE))


def test_a_bundle_comes_back(path):
    assert sorted(p.name for p in path.iterdir()) == [MODEL_FILE, WEIGHTS_FILE]
    found = load_bundle(path)
    for field in ("kind", "architecture", "image_shape", "classes", "pixel_max", "framing", "metrics", "provenance"):
        assert getattr(found, field) == getattr(BUNDLE, field)
    assert found.tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found.tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(found.tensors[name], value)
    assert is_bundle(path)
    assert not is_bundle(path / MODEL_FILE)
    assert not is_bundle(path.parent / "nowhere")


def test_the_description_is_for_people_too(path):
    text = (path / MODEL_FILE).read_text(encoding="utf-8")
    assert '"Ödem"' in text
    assert json.loads(text)["weights_sha256"] == sha256_file(path / WEIGHTS_FILE)


def test_a_bundle_replaces_only_a_bundle(path, tmp_path):
    save_bundle(BUNDLE, path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="holds other files"):
        save_bundle(BUNDLE, tmp_path / "own")


@pytest.mark.parametrize("metrics", [{"loss": float("nan")}, {"when": object()}])
def test_metrics_that_json_cannot_hold_leave_nothing(tmp_path, metrics):
    with pytest.raises((ValueError, TypeError)):
        save_bundle(replace(BUNDLE, metrics=metrics), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


# --- tampering -------------------------------------------------------------------------------------------------------


def test_no_bundle(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FormatError, match=r"no bundle there .*train one with 'gascnn train'"):
            load_bundle(place)


def test_missing_weights(path):
    (path / WEIGHTS_FILE).unlink()
    with pytest.raises(FormatError, match=r"weights.safetensors is missing; the bundle is incomplete"):
        load_bundle(path)


def test_other_weights(path):
    content = bytearray((path / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(FormatError, match=r"not the weights model.json was written with"):
        load_bundle(path)


@pytest.mark.parametrize("content", [b"", b"not a header", b"\xff" * 100, (10**12).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_no_safetensors(path, content):
    replace_weights(path, content)
    with pytest.raises(FormatError, match="not a safetensors file"):
        load_bundle(path)


def test_truncated_weights(path):
    replace_weights(path, (path / WEIGHTS_FILE).read_bytes()[:-3])
    with pytest.raises(FormatError, match="not a safetensors file"):
        load_bundle(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_are_not_finite(path, value, dtype):
    replace_weights(path, save({"fine": np.ones(3), "fc.bias": np.array([1, value], dtype=dtype)}))
    with pytest.raises(FormatError, match=r"fc.bias holds NaN or infinity; train again"):
        load_bundle(path)


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", "\x00", "[" * 100_000, '{"schema": 1, "metrics": {"loss": NaN}}']
)
def test_descriptions_that_are_no_json(path, text):
    (path / MODEL_FILE).write_text(text)
    with pytest.raises(FormatError, match=r"model.json: not readable JSON"):
        load_bundle(path)


def test_descriptions_in_another_encoding(path):
    (path / MODEL_FILE).write_bytes('{"schema": 1, "classes": ["Ödem"]}'.encode("latin-1"))
    with pytest.raises(FormatError, match="not readable JSON"):
        load_bundle(path)


@pytest.mark.parametrize(("text", "found"), [("[]", "list"), ("7", "int"), ("{}", "None"), ('{"schema": 2}', "2")])
def test_descriptions_of_another_schema(path, text, found):
    (path / MODEL_FILE).write_text(text)
    with pytest.raises(FormatError, match=f"schema {found}; this version reads schema 1"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("kind", "dnn"),
        ("kind", ["ann"]),
        ("architecture", "resnet"),
        ("image_shape", [3, 8]),
        ("image_shape", [3, 8, 0]),
        ("image_shape", [3, 8, 8.0]),
        ("image_shape", [True, 8, 8]),
        ("image_shape", "388"),
        ("pixel_max", 0),
        ("pixel_max", True),
        ("pixel_max", "255"),
        ("framing", "left"),
        ("framing", ["whole"]),
        ("classes", "ab"),
        ("classes", [1, 2]),
        ("metrics", []),
        ("provenance", "mine"),
        ("weights_sha256", 5),
    ],
)
def test_fields_of_the_wrong_kind(path, field, wrong):
    rewrite(path, **{field: wrong})
    with pytest.raises(FormatError, match=f"field '{field}' is missing or of the wrong kind"):
        load_bundle(path)


@pytest.mark.parametrize(
    "field",
    [
        "kind",
        "architecture",
        "image_shape",
        "pixel_max",
        "framing",
        "classes",
        "metrics",
        "provenance",
        "weights_sha256",
    ],
)
def test_missing_fields(path, field):
    rewrite(path, **{field: None})
    with pytest.raises(FormatError, match=f"field '{field}' is missing"):
        load_bundle(path)
