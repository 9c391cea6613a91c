"""Table I on a few digits: what each row must be by hand, going on after an end, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gascnn.benchmarks.pgsl.decoder import DecoderSettings
from gascnn.benchmarks.pgsl.gradient_inversion import InversionSettings
from gascnn.benchmarks.pgsl.reconstruction import (
    MEAN,
    METHODS,
    bases,
    example_images,
    figures,
    ratio,
    reconstruction,
    reconstruction_curve,
)
from gascnn.benchmarks.pgsl.reconstruction_settings import ReconstructionSettings, preset
from gascnn.benchmarks.pgsl.reconstruction_table import PAPER, curve_markdown, markdown
from gascnn.benchmarks.pgsl.reconstructors import ReconstructorSettings, reconstructors
from gascnn.models.pgsl import PgslClient, PgslServer
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.recovery import robust_pca

SETTINGS = ReconstructionSettings(
    "digits",
    train_images=40,
    auxiliary_images=24,
    images=3,
    examples=2,
    options=PgslOptions(width=8, hidden=8, pixels=2, batch_size=20, epochs=1, recovery_iterations=1000),
    local=LocalOptions(epochs=1),
    methods=ReconstructorSettings(InversionSettings(3, 1), DecoderSettings(hidden=4, epochs=1)),
    strengths=(0, 3),
    curve_methods=("MIA",),
)


@pytest.fixture(scope="module")
def report():
    return reconstruction(SETTINGS)


def test_rows_by_hand(report):
    """Errors anew from the pictures that are kept, and robust PCA of them by the solver itself."""
    pictures = {row: images / 255 for row, images in example_images(report).items()}
    dataset = load_dataset("digits")
    original = dataset.test.images[:2] / 255
    np.testing.assert_array_equal(pictures["original"], original)
    rows = report["seeds"]["0"]["rows"]
    assert set(rows) == set(report["figures"]) == set(pictures) - {"original"}
    for row, values in rows.items():
        errors = ((pictures[row] - original) ** 2).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(values["errors"][:2], errors, rtol=1e-4, atol=1e-9)
        assert len(values["errors"]) == 3
        assert report["figures"][row]["mean"] == pytest.approx(np.mean(values["errors"]))
    mean = np.round(dataset.val.images[:24].mean(axis=0)) / 255
    np.testing.assert_allclose(pictures[MEAN][0], mean, atol=1.01 / 255)
    for name in METHODS["jsma"]:
        attacked = torch.from_numpy(pictures[f"JSMA + {name}"]).float()
        recovered = robust_pca(attacked, mu=0.55).recovered.clamp(0, 1).numpy()
        np.testing.assert_allclose(pictures[f"Ours ({name})"], recovered, atol=0.51 / 255)
    moved = pictures["JSMA + image itself"] - original
    assert set((moved != 0).sum(axis=(1, 2, 3)).tolist()) <= {1, 2}
    assert moved.min() == 0
    assert (pictures["[8] + image itself"] != original).mean() > 0.4


def test_ratios_and_table(report):
    found = report["figures"]
    assert set(PAPER) <= set(found)
    assert bases(list(found))["JSMA + DCGAN, untold"] == "DCGAN"
    assert bases(list(found))["Ours (image itself)"] == "JSMA + image itself"
    assert bases(list(found))["[8] + iDLG"] == "iDLG"
    assert "DLG" not in bases(list(found))
    quotient = report["ratios"]["Ours (DLG)"]
    assert quotient["value"] == pytest.approx(found["Ours (DLG)"]["mean"] / found["JSMA + DLG"]["mean"])
    assert quotient["interval"][0] <= quotient["value"] <= quotient["interval"][1]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    as_mnist = report | {"settings": report["settings"] | {"data": "mnist"}}
    lines = markdown(as_mnist).splitlines()
    line = next(line for line in lines if line.startswith("| JSMA + DLG |"))
    assert line.endswith("| 0.24 | 2 |")  # 0.24 over DLG's 0.12
    assert next(line for line in lines if line.startswith("| Ours (DLG) |")).endswith("| 0.046 | 0.192 |")
    digits = markdown(report)
    assert next(line for line in digits.splitlines() if line.startswith("| DLG |")).endswith("| - | - | - | - |")
    assert "cannot be of pixels of 0..1" in digits
    assert sum(line.startswith("| ") for line in lines) == len(found) + 2


def test_ratio_draws_units_together():
    """Patient 7 has two images; a resample of it alone, of patient 8 alone or of both: three possible ratios."""
    seeds = [
        {"units": [7, 7, 8], "rows": {"a": {"errors": [1.0, 3.0, 6.0]}, "b": {"errors": [1.0, 1.0, 1.0]}}},
    ]
    assert ratio(seeds, "a", "b") == {"of": "b", "value": pytest.approx(10 / 3), "interval": [2.0, 6.0]}
    seeds[0]["rows"]["b"]["errors"] = [0.0, 0.0, 1.0]
    assert ratio(seeds, "a", "b") is None
    assert figures(seeds)["a"]["mean"] == pytest.approx(10 / 3)


def test_it_goes_on_where_it_ended(report, tmp_path):
    path, seen = tmp_path / "partial.json", []

    def stop(text):
        seen.append(text)
        if text.endswith("JSMA + iDLG"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruction(SETTINGS, stop, path)
    kept = json.loads(path.read_text())["seeds"]["0"]["rows"]
    assert "JSMA + DLG" in kept
    assert "JSMA + iDLG" not in kept
    seen.clear()
    again = reconstruction(SETTINGS, seen.append, path)
    assert again["figures"] == report["figures"]
    assert not any("split network, none" in text for text in seen)
    with pytest.raises(UsageError, match="its settings is not this run's"):
        reconstruction(replace(SETTINGS, laplace_scale=0.2), None, path)


def test_curve_against_strength():
    report = reconstruction_curve(SETTINGS)
    itself = report["curve"]["image itself"]
    assert [point["pixels"] for point in itself] == [0, 3]
    assert itself[0]["mse"]["mean"] == 0
    moved = example_images(report)["3 pixels, image itself"] != example_images(report)["original"]
    assert set(moved.sum(axis=(1, 2, 3)).tolist()) <= {1, 2, 3}
    assert list(report["curve"]) == ["image itself", "image itself, recovered", "MIA", "MIA, recovered"]
    assert all(0 <= point["accuracy"] <= 1 for point in itself)
    assert len(curve_markdown(report).splitlines()) == 6
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_methods_for_another_table():
    images = torch.from_numpy(load_dataset("digits").test.images)
    torch.manual_seed(0)
    client = PgslClient(SaliencyAttack(LocalClassifier(1, 10, 8), pixels=2), width=8).train()
    server = PgslServer(classes=10, image_size=8, width=8, hidden=8, recovery_on="none").train()
    told = []
    methods = reconstructors(client, server, images[:20], SETTINGS.methods, told.append)
    assert {"DLG", "iDLG", "DCGAN", "MIA"} <= set(methods)
    statistics = client.layers[2].running_mean.clone()
    for method in methods.values():
        made = method(images[20:22])
        assert made.dtype == torch.uint8
        assert made.shape == images[20:22].shape
        assert method(images[20:22]).equal(made)
        assert method(images[21:22]).equal(made[1:])
    assert client.training
    assert server.training
    assert client.layers[2].running_mean.equal(statistics)
    assert told.count("iDLG") == 5
    # The label that the gradients were made with matters to a method that matches gradients, and to no other.
    labels = [torch.tensor([label]) for label in (0, 1)]
    assert not methods["iDLG"](images[20:21], labels[0]).equal(methods["iDLG"](images[20:21], labels[1]))
    assert methods["activations"](images[20:21], labels[0]).equal(methods["activations"](images[20:21], labels[1]))


def test_refused():
    assert preset("small", "mias").options.mu_relative is False
    assert preset("small", "mnist").options.mu_relative is True
    for name, data, message in (
        ("huge", "mnist", "preset is 'huge'; allowed: smoke, small"),
        ("smoke", "mias", "preset smoke is for digits, not for mias"),
    ):
        with pytest.raises(UsageError, match=message):
            preset(name, data)
    with pytest.raises(UsageError, match="attack is 'bound'"):
        replace(SETTINGS, options=PgslOptions(attack="bound"))
    with pytest.raises(UsageError, match=r"seeds are \(1, 1\)"):
        replace(SETTINGS, seeds=(1, 1))
    with pytest.raises(UsageError, match="images"):
        replace(SETTINGS, images=0)
    with pytest.raises(UsageError, match="move 65 pixels; an image has 64"):
        reconstruction_curve(replace(SETTINGS, strengths=(0, 65)))
    with pytest.raises(UsageError, match="method is 'guess'; allowed: image itself, DLG"):
        reconstruction_curve(replace(SETTINGS, curve_methods=("guess",)))
    client = PgslClient(SaliencyAttack(LocalClassifier(1, 10, 8)), width=8)
    server = PgslServer(classes=10, image_size=8, width=8, recovery_on="none")
    with pytest.raises(DataError, match=r"auxiliary images are torch.float32 of shape \(3, 1, 8, 8\); uint8"):
        reconstructors(client, server, torch.zeros(3, 1, 8, 8))
