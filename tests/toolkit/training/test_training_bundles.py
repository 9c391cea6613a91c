import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import Bundle, load_bundle, save_bundle
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.training.bundles import build_model, result_bundle, to_bundle
from gascnn.toolkit.training.evaluate import predict_scores
from gascnn.toolkit.training.options import TrainingOptions
from gascnn.toolkit.training.train import train


@pytest.fixture
def model():
    torch.manual_seed(0)
    return resnet(classes=3, blocks=(1, 1), width=4, image_size=8, dropout=0.3).eval()


@pytest.fixture
def bundle(model):
    return to_bundle(model, ("a", "b", "c"), (1, 8, 8))


def test_a_trained_network_survives_the_bundle(dataset, tmp_path):
    options = TrainingOptions(epochs=2, batch_size=16, threads=1)
    result = train({"blocks": (1,), "width": 4, "dropout": 0.2}, dataset, options, tmp_path / "run")
    save_bundle(result_bundle(result), tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    again = build_model(bundle)
    assert not again.training
    images = dataset.test.images
    assert np.array_equal(predict_scores(again, images), predict_scores(result.model, images))
    assert bundle.kind == "ann"
    assert bundle.architecture["name"] == "resnet"
    assert bundle.architecture["arguments"]["stem"] == "small"
    assert bundle.image_shape == (1, 8, 8)
    assert bundle.classes == dataset.class_names
    assert bundle.pixel_max == 255
    assert bundle.metrics["test"]["accuracy"] == result.metrics["test"]["accuracy"]
    assert (bundle.metrics["test"]["dataset"], bundle.metrics["test"]["split"]) == ("stripes", "test")
    provenance = bundle.provenance
    assert provenance["seed"] == 0
    assert provenance["options"] == {**options.to_dict(), "select": "val-macro-f1"}
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["training_cpu_time_s"] > 0
    assert str(tmp_path) not in json.dumps([bundle.architecture, bundle.metrics, provenance])


def test_tensors_are_copies_in_row_major_order(model, bundle):
    with torch.no_grad():
        model.fc.weight.zero_()
    assert bundle.tensors["fc.weight"].any()
    channels_last = to_bundle(model.to(memory_format=torch.channels_last), ("a", "b", "c"), (1, 8, 8))
    assert all(value.flags.c_contiguous for value in channels_last.tensors.values())
    assert np.array_equal(channels_last.tensors["conv1.weight"], bundle.tensors["conv1.weight"])


def changed(bundle, name, value):
    tensors = {**bundle.tensors, name: value}
    return replace(bundle, tensors={key: tensor for key, tensor in tensors.items() if tensor is not None})


def test_tensors_that_do_not_fit_are_named(bundle):
    cases = [
        ("layer1.0.conv1.weight", np.zeros((4, 4, 1, 1), np.float32), r"has shape \(4, 4, 1, 1\); .* \(4, 4, 3, 3\)"),
        ("fc.bias", None, r"fc.bias is missing in the bundle; expected shape \(3,\)"),
        ("fc.bias", np.zeros(3, np.int64), "fc.bias is int64; the architecture expects torch.float32"),
        ("extra", np.zeros(3, np.float32), "extra of the bundle belongs to nothing in the architecture"),
    ]
    for name, value, message in cases:
        with pytest.raises(FormatError, match=f"tensor {name}|{message}") as caught:
            build_model(changed(bundle, name, value))
        assert caught.match(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "snn"}, "the bundle is of kind snn; expected ann"),
        ({"architecture": {}}, "architecture needs a 'name'"),
        ({"architecture": {"name": "resnet", "arguments": [1]}}, "architecture needs a 'name'"),
        (
            {"architecture": {"name": "vgg", "arguments": {}}},
            "unknown architecture 'vgg'; known: resnet, or 'package:f",
        ),
        ({"architecture": {"name": "resnet", "arguments": {"classes": 3, "width": -1}}}, "resnet: width is -1"),
        ({"architecture": {"name": "resnet", "arguments": {"classes": 3, "wide": 1}}}, "resnet: .*wide"),
        ({"classes": ("a", "b")}, r"\(classes, channels\) \(3, 1\), but it lists 2 classes"),
        ({"image_shape": (3, 8, 8)}, "images of 3 channels"),
    ],
)
def test_descriptions_that_cannot_be_built_are_refused(bundle, change, message):
    with pytest.raises(FormatError, match=message):
        build_model(replace(bundle, **change))


@pytest.fixture
def foreign_package(tmp_path, monkeypatch):
    (tmp_path / "foreign_networks.py").write_text(
        "from torch import nn\n"
        "SIZE = 3\n"
        "def build(outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(4, outputs))\n"
        "def broken():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "foreign_networks"


def test_a_foreign_network_is_imported_only_on_request(foreign_package):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(UsageError, match="a Sequential is not one of our networks; give architecture="):
        to_bundle(model, ("a", "b"), (1, 2, 2))
    architecture = {"name": f"{foreign_package}:build", "arguments": {"outputs": 2}}
    bundle = to_bundle(model, ("a", "b"), (1, 2, 2), architecture=architecture)
    with pytest.raises(
        UsageError, match=r"wants to import and run foreign_networks:build; if you trust its source, allow it"
    ):
        build_model(bundle)
    again = build_model(bundle, allow_import=True)
    x = torch.rand(3, 1, 2, 2)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:build", r"no_such_package:build cannot be imported \(No module"),
        ("foreign_networks:missing", "foreign_networks:missing cannot be imported"),
        ("foreign_networks:SIZE", "foreign_networks:SIZE is not a function"),
        ("foreign_networks:broken", "foreign_networks:broken gave a int; expected a torch.nn.Module"),
        (":build", "unknown architecture ':build'"),
    ],
)
def test_foreign_networks_that_cannot_be_built_are_refused(foreign_package, name, message):
    bundle = Bundle(
        kind="ann", architecture={"name": name}, image_shape=(1, 2, 2), classes=("a", "b"), tensors={}, pixel_max=255
    )
    with pytest.raises(FormatError, match=message):
        build_model(bundle, allow_import=True)
