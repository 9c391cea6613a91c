"""Networks trained for a moment, the folder of a board that holds them, and what tampers with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gascnn.benchmarks.board.pack import Pack, pack
from gascnn.exporters.netx import write_netx
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import save_bundle
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.data import Dataset, load_dataset
from gascnn.toolkit.lowering.to_netx import lower
from gascnn.toolkit.training.bundles import to_bundle

IMAGES = 24
STEPS = 8


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Scikit-learn's digits, 8x8."""
    return load_dataset("digits", image_size=8)


@pytest.fixture(scope="session")
def models(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained for a moment, and the same network in spikes."""
    torch.manual_seed(0)
    model = resnet(classes=10, blocks=(1,), width=4, image_size=8).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    images = torch.from_numpy(digits.train.images[:512]).float() / 255
    labels = torch.from_numpy(digits.train.labels[:512])
    for _ in range(2):
        for rows in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    folder = tmp_path_factory.mktemp("board")
    save_bundle(to_bundle(model.eval(), digits.class_names, (1, 8, 8)), folder / "ann")
    found = convert(model, digits.train.images[:64], steps=STEPS, fit_images=16, classes=digits.class_names)
    write_netx(lower(found.graph), folder / "model.net")
    return folder


@pytest.fixture(scope="session")
def make(models: Path, digits: Dataset) -> Callable[..., Pack]:
    """Packs 24 test images with both networks into a folder; what is given by name is changed."""

    def make_pack(target: Path, **changed: Any) -> Pack:
        values = {
            "network_path": models / "model.net", "baseline_bundle": models / "ann",
            "images": digits.test.images[:IMAGES], "labels": digits.test.labels[:IMAGES],
            "class_names": digits.class_names, "out_folder": target, "calibration": digits.train.images[:32],
            "calibrated_on": "digits, train split", "data_name": "digits",
        }  # fmt: skip
        return pack(**{**values, **changed})

    return make_pack


@pytest.fixture(scope="session")
def packed(make: Callable[..., Pack], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no test changes."""
    folder = tmp_path_factory.mktemp("packed") / "pack"
    make(folder, provenance="Optical digits,\n test split", note="Before the move.")
    return folder


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    """A folder to tamper with."""
    shutil.copytree(packed, tmp_path / "pack")
    return tmp_path / "pack"


@pytest.fixture
def seal(copied: Path) -> Callable[[str], None]:
    """Makes the manifest name a file as it is now: what somebody does who tampers with more than one file."""

    def seal_file(name: str) -> None:
        manifest = json.loads((copied / "manifest.json").read_text())
        data = (copied / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (copied / "manifest.json").write_text(json.dumps(manifest))

    return seal_file


@pytest.fixture
def edit(copied: Path, seal: Callable[[str], None]) -> Callable[..., None]:
    """Changes a JSON file of the folder by a function, and seals it."""

    def edit_file(name: str, change: Callable[[Any], object]) -> None:
        value = json.loads((copied / name).read_text())
        change(value)
        (copied / name).write_text(json.dumps(value))
        if name != "manifest.json":
            seal(name)

    return edit_file


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The board's script sets these; they end with the test."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
