"""Robust PCA against numpy: the definition of the optimum, two slow implementations, cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl import recovery
from gascnn.toolkit.pgsl.recovery import robust_pca, shrink_singular_values, soft_threshold

EXACT = {"tolerance": 1e-9, "max_iterations": 5000}


def soft(values, threshold):
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0)


def shrink(matrix, threshold):
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ np.diag(np.maximum(s - threshold, 0)) @ v


def ista(observed, mu, weight, steps):
    """Proximal gradient without momentum or continuation, from zero."""
    a, e = np.zeros_like(observed), np.zeros_like(observed)
    for _ in range(steps):
        half = (a + e - observed) / 2
        a, e = shrink(a - half, mu / 2), soft(e - half, weight * mu / 2)
    return a, e


def lin_2009(observed, mu, weight, steps):
    """The accelerated method, transcribed from its table."""
    a = a_before = e = e_before = np.zeros_like(observed)
    t = t_before = 1.0
    mu_k = max(0.99 * np.linalg.norm(observed, 2), mu)
    for _ in range(steps):
        y_a = a + (t_before - 1) / t * (a - a_before)
        y_e = e + (t_before - 1) / t * (e - e_before)
        a_before, e_before = a, e
        a = shrink(y_a - (y_a + y_e - observed) / 2, mu_k / 2)
        e = soft(y_e - (y_a + y_e - observed) / 2, weight * mu_k / 2)
        t_before, t = t, (1 + math.sqrt(1 + 4 * t * t)) / 2
        mu_k = max(0.9 * mu_k, mu)
    return a, e


def attacked_digits(count=5):
    """(count, 8, 8) float64 of 0..1, two pixels of each set to 1 or 0."""
    images = load_dataset("digits").val.images[:count, 0] / 255.0
    rng = np.random.default_rng(0)
    for image in images:
        places = rng.choice(64, 2, replace=False)
        image.flat[places] = image.flat[places] < 0.5
    return images


def assert_optimal(observed, a, e, mu, weight, slack):
    """0 is a subgradient: R = D - A - E lies in mu d||A||_* and in mu lambda d||E||_1, by their definitions."""
    residual = observed - a - e
    assert np.linalg.norm(residual, 2) <= mu * (1 + slack)
    assert np.sum(residual * a) == pytest.approx(mu * np.linalg.norm(a, "nuc"), rel=slack, abs=slack)
    assert np.abs(residual).max() <= weight * mu * (1 + slack)
    assert np.sum(residual * e) == pytest.approx(weight * mu * np.abs(e).sum(), rel=slack, abs=slack)


def corrupted(shape, seed):
    """Rank two, and a twentieth of the values changed by up to 10."""
    rng = np.random.default_rng(seed)
    low_rank = rng.normal(size=(shape[0], 2)) @ rng.normal(size=(2, shape[1]))
    return low_rank, np.where(rng.random(shape) < 0.05, rng.uniform(-10, 10, shape), 0)


@pytest.mark.parametrize("shape", [(80, 60), (60, 80), (60, 60)])
def test_low_rank_and_sparse_are_told_apart_exactly(shape):
    low_rank, sparse = corrupted(shape, 1)
    found = robust_pca(torch.from_numpy(low_rank + sparse), mu=1e-6, tolerance=1e-8, max_iterations=3000)
    assert found.converged
    for part, truth in ((found.low_rank, low_rank), (found.sparse, sparse), (found.recovered, low_rank)):
        assert np.linalg.norm(part.numpy() - truth) < 1e-5 * np.linalg.norm(truth)
    assert np.linalg.matrix_rank(found.low_rank.numpy(), tol=1e-3) == 2


def test_where_something_is_simpler_than_the_truth_it_is_found():
    """Of so small a matrix exact recovery is only likely; here another split has the lower norms (PGSL, eq. 2)."""
    low_rank, sparse = corrupted((30, 40), 1)
    observed = low_rank + sparse
    found = robust_pca(torch.from_numpy(observed), mu=1e-6, tolerance=1e-8, max_iterations=3000).low_rank.numpy()
    assert np.linalg.norm(found - low_rank) > 1e-3 * np.linalg.norm(low_rank)
    norms = [np.linalg.norm(a, "nuc") + np.abs(observed - a).sum() / math.sqrt(40) for a in (found, low_rank)]
    assert norms[0] < norms[1]


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("mu", [0.05, 0.55, 0.95])
def test_the_optimum_is_one_by_definition(mu, relative):
    images = attacked_digits()
    found = robust_pca(torch.from_numpy(images), mu=mu, relative=relative, **EXACT)
    assert found.converged.all()
    for image, a, e in zip(images, found.low_rank.numpy(), found.sparse.numpy(), strict=True):
        unit = np.linalg.norm(image, 2) if relative else 1.0
        assert np.any(a)
        assert np.any(e) or mu * unit / math.sqrt(8) > 1.0  # so large a mu explains every pixel without E
        assert_optimal(image, a, e, mu * unit, 1 / math.sqrt(8), 1e-6)


def test_optimum_at_the_default_tolerance():
    images = attacked_digits()
    found = robust_pca(torch.from_numpy(images).float())
    for image, a, e in zip(images, found.low_rank.double().numpy(), found.sparse.double().numpy(), strict=True):
        assert_optimal(image, a, e, 0.55 * np.linalg.norm(image, 2), 1 / math.sqrt(8), 2e-3)


@pytest.mark.parametrize(("mu", "relative", "weight"), [(0.55, True, None), (0.55, False, None), (0.3, True, 0.5)])
def test_agrees_with_plain_proximal_gradient(mu, relative, weight):
    images = attacked_digits(3)
    found = robust_pca(torch.from_numpy(images), mu=mu, relative=relative, sparsity=weight, **EXACT)
    for image, a, e in zip(images, found.low_rank.numpy(), found.sparse.numpy(), strict=True):
        unit = np.linalg.norm(image, 2) if relative else 1.0
        slow_a, slow_e = ista(image, mu * unit, weight or 1 / math.sqrt(8), 4000)
        np.testing.assert_allclose(a, slow_a, atol=1e-5)
        np.testing.assert_allclose(e, slow_e, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_every_iterate_is_that_of_lin_2009(steps):
    observed = np.random.default_rng(2).normal(size=(6, 9))
    found = robust_pca(torch.from_numpy(observed), mu=0.3, relative=False, tolerance=1e-14, max_iterations=steps)
    a, e = lin_2009(observed, 0.3, 1 / 3, steps)
    np.testing.assert_allclose(found.low_rank.numpy(), a, atol=1e-12)
    np.testing.assert_allclose(found.sparse.numpy(), e, atol=1e-12)
    assert not found.converged
    assert found.iterations == steps


def test_continuation_ends_before_the_iterations_do():
    """D is within tolerance of the optimum for the first mu, A = E = 0, but not for the last one."""
    found = robust_pca(torch.eye(3).double(), mu=0.01, tolerance=0.9)
    assert found.iterations >= math.log(0.01 / 0.99) / math.log(0.9)


@pytest.mark.parametrize(
    ("value", "weight", "relative", "low_rank", "sparse"),
    [
        (3.0, 2.0, False, 2.45, 0.0),  # the nuclear norm is cheaper: A = 3 - 0.55
        (3.0, 0.5, False, 0.0, 2.725),  # the sum of magnitudes is: E = 3 - 0.275
        (-3.0, 2.0, True, -1.35, 0.0),  # mu is 0.55 * 3
        (0.5, 2.0, False, 0.0, 0.0),  # below both thresholds
    ],
)
def test_one_pixel(value, weight, relative, low_rank, sparse):
    found = robust_pca(torch.tensor([[value]]).double(), sparsity=weight, relative=relative, **EXACT)
    assert found.low_rank.item() == pytest.approx(low_rank, abs=1e-7)
    assert found.sparse.item() == pytest.approx(sparse, abs=1e-7)
    assert found.recovered.item() == pytest.approx(value - sparse, abs=1e-7)


def test_rank_one():
    """8 times a unit matrix of rank one without large values is all image: A = (1 - 0.55) D."""
    observed = torch.full((4, 4), 2.0).double()
    found = robust_pca(observed, **EXACT)
    torch.testing.assert_close(found.low_rank, 0.45 * observed, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.recovered, observed, atol=1e-7, rtol=0)


def test_one_bright_pixel():
    """It is all attack: E = 3 - mu lambda, with mu = 0.55 * 3 and lambda = 1 / 2."""
    observed = torch.zeros(4, 4).double()
    observed[1, 2] = 3
    found = robust_pca(observed, **EXACT)
    assert found.sparse[1, 2].item() == pytest.approx(2.175, abs=1e-7)
    assert found.sparse.count_nonzero() == 1
    assert found.low_rank.abs().max() < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_does_not_see_its_batch(dtype, monkeypatch):
    images = torch.from_numpy(attacked_digits(24)).to(dtype)
    images[3] *= 1e-3
    images[5] = 0
    together = robust_pca(images)
    assert together.iterations.unique().numel() > 3
    for number in range(24):
        alone = robust_pca(images[number])
        assert alone.iterations == together.iterations[number]
        assert torch.equal(alone.low_rank, together.low_rank[number])
        assert torch.equal(alone.sparse, together.sparse[number])
    monkeypatch.setattr(recovery, "CHUNK_VALUES", 7 * 64)
    assert torch.equal(robust_pca(images).low_rank, together.low_rank)
    shuffled = robust_pca(images.flip(0).reshape(4, 6, 8, 8))
    assert shuffled.iterations.shape == shuffled.converged.shape == (4, 6)
    assert torch.equal(shuffled.sparse.reshape(24, 8, 8).flip(0), together.sparse)


def test_single_and_double_precision():
    images = torch.from_numpy(attacked_digits(20))
    single, double = robust_pca(images.float(), tolerance=1e-6), robust_pca(images, tolerance=1e-6)
    assert single.low_rank.dtype == single.sparse.dtype == single.recovered.dtype == torch.float32
    assert double.low_rank.dtype == torch.float64
    assert single.converged.all()
    torch.testing.assert_close(single.low_rank.double(), double.low_rank, atol=3e-5, rtol=0)
    torch.testing.assert_close(single.sparse.double(), double.sparse, atol=3e-5, rtol=0)


def test_default_tolerance_is_below_half_a_gray_level():
    images = torch.from_numpy(attacked_digits(20))
    rough, exact = robust_pca(images.float()), robust_pca(images, **EXACT)
    assert (rough.recovered - exact.recovered).abs().max() < 0.5 / 255


def test_scale_goes_through():
    images = torch.from_numpy(attacked_digits(4))
    found, scaled = robust_pca(images), robust_pca(images * 1024)
    assert torch.equal(scaled.low_rank, found.low_rank * 1024)
    assert torch.equal(scaled.recovered, found.recovered * 1024)
    absolute = robust_pca(images, mu=0.55, relative=False, **EXACT)
    in_gray_levels = robust_pca(images * 255, mu=0.55 * 255, relative=False, **EXACT)
    torch.testing.assert_close(in_gray_levels.low_rank, absolute.low_rank * 255, atol=1e-3, rtol=0)


def test_transposed_images():
    observed = torch.from_numpy(attacked_digits(3))[:, :5]
    upright, lying = robust_pca(observed), robust_pca(observed.mT)
    torch.testing.assert_close(lying.low_rank.mT, upright.low_rank)
    torch.testing.assert_close(lying.recovered.mT, upright.recovered)
    assert lying.sparse.shape == (3, 8, 5)


def test_the_larger_mu_the_lower_the_rank():
    image = torch.from_numpy(attacked_digits(1)[0])
    ranks = [
        int(torch.linalg.matrix_rank(robust_pca(image, mu=mu, **EXACT).low_rank, atol=1e-6))
        for mu in (0.02, 0.2, 0.55, 1.0)
    ]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] > ranks[-1] == 0


@pytest.mark.parametrize("threshold", [1e-12, 1e-3, 0.5, 50.0])
def test_shrinkage_of_singular_values(threshold):
    rng = np.random.default_rng(3)
    full = rng.normal(size=(6, 10))
    deficient = np.outer(rng.normal(size=6), rng.normal(size=10))
    graded = np.diag(10.0 ** -np.arange(6)) @ np.linalg.qr(rng.normal(size=(10, 6)))[0].T
    for matrix in (full, deficient, graded, np.zeros((6, 10))):
        found = shrink_singular_values(torch.from_numpy(matrix)[None], torch.tensor([[[threshold]]]).double())
        np.testing.assert_allclose(found[0].numpy(), shrink(matrix, threshold), atol=1e-7 * np.linalg.norm(matrix, 2))


def test_soft_threshold():
    values = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    assert soft_threshold(values, torch.tensor(0.5)).tolist() == [-1.5, 0.0, 0.0, 0.0, 1.5]


def test_nothing_and_zeros():
    none = robust_pca(torch.zeros(0, 3, 8, 8))
    assert none.low_rank.shape == none.recovered.shape == (0, 3, 8, 8)
    assert none.iterations.shape == (0, 3)
    black = robust_pca(torch.zeros(2, 8, 8))
    assert black.converged.all()
    assert not black.low_rank.any()
    assert not black.recovered.any()


def test_input_is_left_alone_and_no_gradient_passes():
    image = torch.from_numpy(attacked_digits(1)).requires_grad_()
    before = image.detach().clone()
    found = robust_pca(image)
    assert torch.equal(image.detach(), before)
    assert not any(part.requires_grad for part in (found.low_rank, found.sparse, found.recovered))


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (torch.zeros(8), r"observed has shape \(8,\); matrices"),
        (torch.zeros(2, 0, 8), r"observed has shape \(2, 0, 8\)"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"torch\.uint8; float32 or float64 is needed"),
        (torch.zeros(8, 8, dtype=torch.float16), r"torch\.float16; float32"),
        (torch.full((8, 8), math.nan), "NaN or infinite"),
        (torch.tensor([[1.0, math.inf]]), "NaN or infinite"),
        (torch.tensor([[1e120, 0.0]], dtype=torch.float64), r"reaches 1e\+120; up to 1e\+100 is allowed"),
    ],
)
def test_matrices_that_cannot_be_taken(observed, message):
    with pytest.raises(DataError, match=message):
        robust_pca(observed)


@pytest.mark.parametrize("value", [0.0, -0.55, math.nan, math.inf])
@pytest.mark.parametrize("name", ["mu", "sparsity", "tolerance"])
def test_settings_out_of_range(name, value):
    with pytest.raises(UsageError, match=f"{name} is .*; a finite number above 0 is needed"):
        robust_pca(torch.zeros(8, 8), **{name: value})


def test_no_iterations():
    with pytest.raises(UsageError, match="max_iterations is 0; 1 or more"):
        robust_pca(torch.zeros(8, 8), max_iterations=0)
