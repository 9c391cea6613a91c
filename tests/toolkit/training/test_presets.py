import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gascnn.models.resnet import resnet
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.augment import policy
from gascnn.toolkit.training.options import TrainingOptions
from gascnn.toolkit.training.presets import PRESETS, get_preset, preset_for
from gascnn.toolkit.training.train import train


def digits():
    data = load_digits()
    images = np.minimum(data.images[:, None] * 16, 255).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    parts = {
        name: SimpleNamespace(images=images[chosen], labels=data.target[chosen].astype(np.int64))
        for name, chosen in zip(("train", "val", "test"), np.split(order, [1259, 1528]), strict=True)
    }
    names = tuple("0123456789")
    return SimpleNamespace(name="digits", class_names=names, image_shape=(1, 8, 8), provenance={}, **parts)


def test_the_promised_presets_are_there():
    assert {"smoke", "small", "paper", "digits", "mnist", "brain-mri"} <= set(PRESETS)
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_can_be_used(name):
    preset = get_preset(name)
    model = resnet(classes=4, image_size=preset.image_size or 28, **preset.model)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert callable(policy(preset.options.augmentation))
    assert TrainingOptions.from_dict(json.loads(json.dumps(preset.options.to_dict()))) == preset.options
    assert json.loads(json.dumps(dict(preset.model))).keys() == preset.model.keys()
    assert preset.expected_time_s > 0
    assert preset.cpu_time_s > 0


def test_the_paper_preset_is_resnet18():
    preset = get_preset("paper")
    # 11 689 512 of torchvision, with 2 classes in place of 1000 and one channel in place of three.
    expected = 11_689_512 - 513_000 + 1_026 - 2 * 64 * 49
    model = resnet(classes=2, image_size=128, **preset.model)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_presets_are_found_by_data_set():
    assert preset_for("mnist").name == "mnist"
    assert preset_for("my-folder").name == "small"
    with pytest.raises(UsageError, match="no preset 'large'; known: smoke, small, paper"):
        get_preset("large")


def test_presets_do_not_import_torch():
    code = (
        "import sys, gascnn.toolkit.training.presets, gascnn.toolkit.training.metrics; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_smoke_runs(tmp_path):
    preset = get_preset("smoke")
    result = train(preset.model, digits(), preset.options, tmp_path)
    assert result.metrics["test"]["accuracy"] > 0.15


@pytest.mark.slow
def test_the_digits_preset_keeps_its_promise(tmp_path):
    preset = get_preset("digits")
    # Half the epochs: what is left to gain by the rest is a margin.
    result = train(preset.model, digits(), replace(preset.options, epochs=15), tmp_path)
    assert result.metrics["test"]["accuracy"] >= 0.97
    blocks = [result.model.layer1[0], result.model.layer2[0]]
    assert [block.downsample is None for block in blocks] == [True, False]
