"""A classifier of digits, trained in seconds, and data sets that nobody may open."""

from __future__ import annotations

import builtins
import io
import os

import pytest
import torch
import torch.nn.functional as F

from gascnn.models.resnet import resnet
from gascnn.toolkit.data import load_dataset

SHAPE = (1, 8, 8)


def trained(steps=120):
    """A small ResNet with batch norms, fitted to digits for seconds."""
    digits = load_dataset("digits")
    images = torch.from_numpy(digits.train.images).float() / 255
    labels = torch.from_numpy(digits.train.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = resnet(classes=10, blocks=(1, 1), width=8, channels=1, image_size=8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
        for _ in range(steps):
            chosen = torch.randint(len(images), (64,))
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def digits_model():
    return trained()


@pytest.fixture(scope="session")
def held_out():
    """Real validation images, loaded before anybody is forbidden to."""
    return load_dataset("digits").val


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """No data set can be had: not by name, not by path, not from a file that looks like one."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("GASCNN_DATA", str(tmp_path / "empty"))

    def refused(*arguments, **keywords):
        raise AssertionError(f"real data was asked for: {arguments}")

    for name in (
        "gascnn.toolkit.data.load_dataset",
        "gascnn.toolkit.data.loading.load_dataset",
        "gascnn.toolkit.data.loading.load_named",
        "sklearn.datasets.load_digits",
    ):
        monkeypatch.setattr(name, refused)
    allowed_open = builtins.open

    def guarded(file, *arguments, **keywords):
        if isinstance(file, str | os.PathLike) and str(file).endswith((".png", ".jpg", ".dcm", ".nii", "ubyte.gz")):
            refused(file)
        return allowed_open(file, *arguments, **keywords)

    monkeypatch.setattr(builtins, "open", guarded)
    monkeypatch.setattr(io, "open", guarded)
