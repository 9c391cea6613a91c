"""The curve's two ends by hand, a point of it by a slow method, the stand-in attack pixel by pixel."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from gascnn.benchmarks.pgsl.mu import MUS, flip_pixels, mse_against_mu
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import DataError, UsageError


@pytest.fixture(scope="module")
def images():
    return load_dataset("digits").val.images[:12]


def test_a_large_mu_recovers_nothing(images):
    """E = 0, so the attacked images stay what they are, and A = 0, so black remains."""
    pixels = images / 255.0
    kept = mse_against_mu(images, mus=[100.0])
    assert kept["mse"] == [kept["mse_attacked"]]
    assert kept["mse_attacked"] == pytest.approx(np.mean((flip_pixels(torch.tensor(pixels)).numpy() - pixels) ** 2))
    assert mse_against_mu(images, mus=[100.0], part="low_rank")["mse"][0] == pytest.approx(np.mean(pixels**2))


@pytest.mark.parametrize("part", ["recovered", "low_rank"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_point_by_plain_proximal_gradient(images, part, relative):
    original = images[:2, 0] / 255.0
    attacked = flip_pixels(torch.from_numpy(original)[:, None])[:, 0].numpy()
    errors = []
    for seen, truth in zip(attacked, original, strict=True):
        mu = 0.55 * (np.linalg.norm(seen, 2) if relative else 1.0)
        a, e = np.zeros((8, 8)), np.zeros((8, 8))
        for _ in range(3000):
            half = (a + e - seen) / 2
            u, s, v = np.linalg.svd(a - half)
            a, e = u @ np.diag(np.maximum(s - mu / 2, 0)) @ v, e - half
            e = np.sign(e) * np.maximum(np.abs(e) - mu / math.sqrt(8) / 2, 0)
        errors.append(np.mean(((seen - e if part == "recovered" else a) - truth) ** 2))
    curve = mse_against_mu(images[:2], mus=[0.55], part=part, relative=relative)
    assert curve["mse"][0] == pytest.approx(np.mean(errors), rel=0.01)
    assert curve["standard_error"][0] == pytest.approx(np.std(errors, ddof=1) / math.sqrt(2), rel=0.05)


def test_curve_of_the_paper(images):
    curve = mse_against_mu(images)
    assert json.loads(json.dumps(curve, allow_nan=False)) == curve
    assert curve["mu"] == list(MUS)
    assert MUS[0] == 0.05
    assert MUS[-1] == 1.0
    assert 0.55 in MUS
    assert curve["images"] == 12
    assert curve["pixels_changed"] == 1.0
    assert curve["converged"] == [1.0] * len(MUS)
    assert curve["mse"][curve["mu"].index(curve["best_mu"])] == min(curve["mse"])
    assert curve["mse"][0] > curve["mse_attacked"] > min(curve["mse"])


def test_lambda_and_a_single_image(images):
    curve = mse_against_mu(images[:1], mus=[0.2], sparsity=0.2)
    assert curve["standard_error"] == [None]
    assert curve["mse"] != mse_against_mu(images[:1], mus=[0.2])["mse"]


def test_any_attack(images):
    curve = mse_against_mu(images, attack=lambda pixels: pixels + 0.25, mus=[100.0])
    assert curve["mse_attacked"] == pytest.approx(0.0625)
    assert curve["pixels_changed"] == 64


def test_attack_that_writes_into_its_input(images):
    assert mse_against_mu(images, attack=lambda pixels: pixels.zero_(), mus=[100.0])["mse_attacked"] > 0.01


def test_flipped_pixels():
    values = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    changed = flip_pixels(values, 4, seed=1)
    moved = changed != values
    assert moved.flatten(2).sum(-1).eq(4).all()
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert torch.equal(changed[moved], (values[moved] < 0.5).float())
    assert not torch.equal(moved[0], moved[1])
    assert torch.equal(flip_pixels(values[:2], 4, seed=1), changed[:2])
    assert not torch.equal(flip_pixels(values, 4, seed=2), changed)
    assert torch.equal(flip_pixels(values, 0), values)


@pytest.mark.parametrize("pixels", [-1, 43])
def test_more_pixels_than_there_are(pixels):
    with pytest.raises(UsageError, match=f"{pixels} pixels; 0 to 42 are allowed"):
        flip_pixels(torch.zeros(1, 1, 6, 7), pixels)


def test_negative_seed():
    with pytest.raises(UsageError, match="seed -1; 0 or more"):
        flip_pixels(torch.zeros(1, 1, 6, 7), seed=-1)


def test_what_cannot_be_measured(images):
    with pytest.raises(DataError, match=r"float64 of shape \(12, 1, 8, 8\); uint8"):
        mse_against_mu(images / 255.0)
    with pytest.raises(DataError, match=r"uint8 of shape \(0, 1, 8, 8\)"):
        mse_against_mu(images[:0])
    with pytest.raises(DataError, match=r"the attack gives shape \(12, 8, 8\)"):
        mse_against_mu(images, attack=lambda pixels: pixels[:, 0])
    with pytest.raises(UsageError, match="no mu is given"):
        mse_against_mu(images, mus=[])
    with pytest.raises(UsageError, match="part is 'sparse'; recovered or low_rank"):
        mse_against_mu(images, part="sparse")
    with pytest.raises(UsageError, match="mu is 0; a finite number above 0"):
        mse_against_mu(images, mus=[0.0])
