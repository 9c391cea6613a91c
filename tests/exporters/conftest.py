"""A trained bundle for all tests of ONNX files; and their helpers, which tests import by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import save_bundle
from gascnn.toolkit.data import Dataset, load_dataset
from gascnn.toolkit.training.bundles import to_bundle

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", image_size=8)


@pytest.fixture(scope="session")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small ResNet, trained for a few seconds on digits."""
    torch.manual_seed(0)
    model = resnet(classes=10, blocks=(1, 1), width=8, image_size=8).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    images = torch.from_numpy(digits.train.images).float() / 255
    labels = torch.from_numpy(digits.train.labels)
    for _ in range(6):
        for rows in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    path = tmp_path_factory.mktemp("trained") / "ann"
    save_bundle(to_bundle(model.eval(), digits.class_names, (1, 8, 8)), path)
    return path
