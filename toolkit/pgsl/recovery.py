"""Attacked images made whole again: robust PCA by accelerated proximal gradient (PGSL, section IV-C).

An image is taken as a matrix of low rank plus a sparse one, the attack, and the two are told apart by minimising::

    F(A, E) = mu ||A||_* + mu lambda ||E||_1 + 1/2 ||D - A - E||_F²                                   (PGSL, eq. 4)

with D what is observed, A the part of low rank and E the attack. Where PGSL's text leaves a choice:

* **Eq. 2, the sign.** ``||x||_* - lambda ||Map||_*`` is not convex; with x + Map given, lambda < 1 makes everything map
  and lambda > 1 has no minimum. The sign is plus, as in the works it cites.
* **Eq. 2, the norm of the map**, nuclear in print. With two nuclear norms all is map for lambda < 1 and all is image
  for lambda > 1. An attack on few pixels is sparse; robust PCA, which PGSL says this is, takes ``||E||_1``.
* **Eq. 5**, ``1/2 ||x - Map||²``, leaves out what was observed; it stands for the constraint ``A + E = D`` of eq. 3.
* **Eq. 6.** The gradient of ``1/2 ||D - A - E||_F²`` in (A, E) has the Lipschitz constant 2, so steps are 1/2.
* **mu** of eq. 4, scanned over 0.05..1.0: in units of D's largest singular value, where 1 leaves no A at all and maps
  of any scale are treated alike, or with ``relative=False`` in the unit of the pixels. Neither is best for all images:
  the first is for small ones made of strokes, the second for smooth ones, such as mammograms.
* **What is recovered**: ``D - E``, as in ``x = x̂ - Map'``; A itself is :attr:`Recovery.low_rank`.
* **lambda** is not printed: ``1 / sqrt(max(H, W))``, as in the work of Lin et al.

docs/pgsl-recovery.md measures these choices against the others.

Source of the algorithm: Z. Lin, A. Ganesh, J. Wright, L. Wu, M. Chen, Y. Ma, "Fast convex optimization algorithms for
exact recovery of a corrupted low-rank matrix", 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gascnn.toolkit.errors import DataError, UsageError

MU = 0.55
"""PGSL, section V-B."""

TOLERANCE = 1e-4
MAX_ITERATIONS = 1000

CONTINUATION_START = 0.99
"""First mu, in largest singular values of D (Lin et al. 2009)."""

CONTINUATION_FACTOR = 0.9
"""From one mu to the next (eta, Lin et al. 2009)."""

LIPSCHITZ = 2.0
"""Of the gradient of ``1/2 ||D - A - E||_F²`` with respect to (A, E)."""

VALUE_MAX = 1e100
"""Beyond, squares could overflow."""

CHUNK_VALUES = 2**19
"""Values worked on together: bounds the memory and stays in the cache; results do not depend on it."""


@dataclass(frozen=True, eq=False)
class Recovery:
    """What was told apart.

    Attributes:
        low_rank: A, (..., H, W).
        sparse: E, (..., H, W), the attack. ``low_rank + sparse`` comes as close to what was observed as mu lets it.
        recovered: D - E, (..., H, W), what was observed without the attack.
        iterations: (...), int64, of each matrix.
        converged: (...), bool; False where ``max_iterations`` ended the work.
    """

    low_rank: Tensor
    sparse: Tensor
    recovered: Tensor
    iterations: Tensor
    converged: Tensor


@torch.no_grad()
def robust_pca(
    observed: Tensor,
    *,
    mu: float = MU,
    relative: bool = True,
    sparsity: float | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Recovery:
    """Minimise ``mu ||A||_* + mu lambda ||E||_1 + 1/2 ||D - A - E||_F²`` for each matrix D.

    With ``S_t`` the shrinkage ``sign(x) max(|x| - t, 0)``, of singular values for A and of values for E, step k is::

        Y  = X_k + (t_{k-1} - 1) / t_k (X_k - X_{k-1}),          X = (A, E)
        R  = Y_A + Y_E - D
        A_{k+1} = S_{mu_k / 2}(Y_A - R / 2),   E_{k+1} = S_{lambda mu_k / 2}(Y_E - R / 2)
        t_{k+1} = (1 + sqrt(1 + 4 t_k²)) / 2
        mu_{k+1} = max(0.9 mu_k, mu),                            mu_0 = max(0.99 ||D||_2, mu)

    until a step was made with mu_k = mu, and a subgradient G of F at X_{k+1} has
    ``||G||_F <= 2 tolerance max(1, ||X_{k+1}||_F)``. Each matrix stops by itself and is what it would be alone.

    Singular values come from an eigendecomposition of the smaller Gram matrix in double precision, at about half a
    singular value decomposition's time; A is within 1e-7 ``||D||_2`` of what that would give. No gradient passes.

    Args:
        observed: (..., H, W), float32 or float64, finite; every matrix along the leading axes is its own problem.
        mu: above 0. The larger, the lower the rank of A and the fewer and smaller the values of E.
        relative: mu is in units of each D's largest singular value; D is divided by it and the results multiplied.
            Otherwise it is in the unit of ``observed``.
        sparsity: lambda, above 0; ``1 / sqrt(max(H, W))`` if None.
        tolerance: above 0, of the stopping rule.
        max_iterations: 1 or more.

    Returns:
        The parts in ``observed``'s dtype, and how each matrix ended.

    Raises:
        DataError: fewer than two axes, an empty matrix, another dtype, values that are NaN, infinite or above 1e100.
        UsageError: mu, sparsity, tolerance or max_iterations out of range.
    """
    _check_observed(observed)
    _check_settings(mu, sparsity, tolerance, max_iterations)
    *leading, height, width = observed.shape
    weight = 1 / math.sqrt(max(height, width)) if sparsity is None else sparsity
    count = math.prod(leading)
    matrices = observed.detach().reshape(count, height, width)
    wide = matrices if height <= width else matrices.transpose(1, 2).contiguous()
    low_rank, sparse = torch.empty_like(wide), torch.empty_like(wide)
    iterations = torch.zeros(count, dtype=torch.int64, device=observed.device)
    converged = torch.zeros(count, dtype=torch.bool, device=observed.device)
    at_once = max(1, CHUNK_VALUES // (height * width))
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        largest = largest_singular_value(wide[part])
        unit = torch.where(largest > 0, largest, 1.0) if relative else torch.ones_like(largest)
        scale = unit.to(wide.dtype)
        state = _State(wide[part] / scale, mu, largest / unit, weight)
        _minimise(state, (low_rank[part], sparse[part], iterations[part], converged[part]), tolerance, max_iterations)
        low_rank[part] *= scale
        sparse[part] *= scale
    if height > width:
        low_rank, sparse = low_rank.transpose(1, 2), sparse.transpose(1, 2)
    sparse = sparse.reshape(observed.shape)
    return Recovery(
        low_rank.reshape(observed.shape),
        sparse,
        observed.detach() - sparse,
        iterations.reshape(leading),
        converged.reshape(leading),
    )


def _minimise(state: _State, results: tuple[Tensor, ...], tolerance: float, max_iterations: int) -> None:
    """Iterate, and move every matrix to its place in ``results`` when it is done."""
    low_rank, sparse, iterations, converged = results
    place = torch.arange(len(low_rank), device=low_rank.device)
    for iteration in range(1, max_iterations + 1):
        done = state.step() <= tolerance
        leaving = done if iteration < max_iterations else torch.ones_like(done)
        if not bool(leaving.any()):
            continue
        left = place[leaving]
        low_rank[left], sparse[left] = state.low_rank[leaving], state.sparse[leaving]
        iterations[left], converged[left] = iteration, done[leaving]
        place = place[~leaving]
        if not len(place):
            return
        state.keep(~leaving)


class _State:
    """Iterates of the matrices that are still worked on, (n, H, W) with H <= W.

    Args:
        observed: D.
        last_mu: where continuation ends.
        largest: (n, 1, 1), of the singular values.
        sparsity: lambda.
    """

    def __init__(self, observed: Tensor, last_mu: float, largest: Tensor, sparsity: float) -> None:
        self.observed, self.last_mu, self.sparsity = observed, last_mu, sparsity
        self.mu = (CONTINUATION_START * largest).clamp_min(last_mu)
        self.low_rank, self.sparse = torch.zeros_like(observed), torch.zeros_like(observed)
        self.low_rank_before, self.sparse_before = self.low_rank, self.sparse
        self.t = self.t_before = 1.0

    def step(self) -> Tensor:
        """One step; (n,) the stopping rule's left side over ``2 max(1, ||X||_F)``, infinite where mu still falls."""
        momentum = (self.t_before - 1) / self.t
        ahead_a = self.low_rank + momentum * (self.low_rank - self.low_rank_before)
        ahead_e = self.sparse + momentum * (self.sparse - self.sparse_before)
        gradient = (ahead_a + ahead_e - self.observed) / LIPSCHITZ
        threshold = self.mu / LIPSCHITZ
        self.low_rank_before, self.sparse_before = self.low_rank, self.sparse
        self.low_rank = shrink_singular_values(ahead_a - gradient, threshold)
        self.sparse = soft_threshold(ahead_e - gradient, (self.sparsity * threshold).to(gradient.dtype))
        self.t_before, self.t = self.t, (1 + math.sqrt(1 + 4 * self.t * self.t)) / 2
        ahead_a -= self.low_rank
        ahead_e -= self.sparse
        moved = ahead_a + ahead_e
        subgradient = _norm(LIPSCHITZ * ahead_a - moved, LIPSCHITZ * ahead_e - moved)
        size = _norm(self.low_rank, self.sparse).clamp_min(1.0)
        falling = (self.mu > self.last_mu).flatten()
        self.mu = (CONTINUATION_FACTOR * self.mu).clamp_min(self.last_mu)
        return torch.where(falling, torch.inf, subgradient / (LIPSCHITZ * size))

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the matrices."""
        self.observed, self.mu = self.observed[kept], self.mu[kept]
        self.low_rank, self.low_rank_before = self.low_rank[kept], self.low_rank_before[kept]
        self.sparse, self.sparse_before = self.sparse[kept], self.sparse_before[kept]


def soft_threshold(values: Tensor, threshold: Tensor) -> Tensor:
    """``sign(x) max(|x| - threshold, 0)``, the proximal operator of ``threshold ||x||_1``."""
    return values - values.clamp(-threshold, threshold)


def shrink_singular_values(matrices: Tensor, threshold: Tensor) -> Tensor:
    """``U max(S - threshold, 0) V^T`` of ``U S V^T``, the proximal operator of ``threshold ||.||_*``.

    With ``M M^T = U S² U^T`` it is ``U max(1 - threshold / S, 0) U^T M``. In double precision a singular value is
    off by no more than about 1e-8 of the largest one, and the components that far down are the small ones.

    Args:
        matrices: (n, H, W), H <= W.
        threshold: float64, broadcasts to (n, 1, 1), above 0.
    """
    squares, vectors = torch.linalg.eigh(_gram(matrices))
    singular = squares.clamp_min(0).sqrt()[:, None, :]
    share = (1 - threshold / singular).clamp_min(0)  # of 0 it is minus infinity, hence 0
    projection = torch.bmm(vectors * share, vectors.transpose(1, 2))
    return torch.bmm(projection.to(matrices.dtype), matrices)


def largest_singular_value(matrices: Tensor) -> Tensor:
    """(n, 1, 1), in double precision, of (n, H, W) with H <= W."""
    squares: Tensor = torch.linalg.eigvalsh(_gram(matrices))[:, -1]
    return squares.clamp_min(0).sqrt().reshape(-1, 1, 1)


def _gram(matrices: Tensor) -> Tensor:
    """``M M^T`` in double precision."""
    double = matrices.double()
    return torch.bmm(double, double.transpose(1, 2))


def _norm(first: Tensor, second: Tensor) -> Tensor:
    """(n,) Frobenius norm of the two together, in double precision."""
    pair = torch.cat((first, second), dim=-1).double().flatten(1)
    norm: Tensor = torch.linalg.vector_norm(pair, dim=1)
    return norm


def _check_observed(observed: Tensor) -> None:
    if observed.ndim < 2 or 0 in observed.shape[-2:]:
        raise DataError(
            f"observed has shape {tuple(observed.shape)}; matrices (..., H, W), H and W 1 or more, are needed"
        )
    if observed.dtype not in (torch.float32, torch.float64):
        raise DataError(f"observed is {observed.dtype}; float32 or float64 is needed: turn pixels into 0..1 first")
    if not bool(torch.isfinite(observed).all()):
        raise DataError(
            "observed holds NaN or infinite values; finite ones are needed: check what it was computed from"
        )
    if observed.numel() and float(observed.abs().max()) > VALUE_MAX:
        raise DataError(f"observed reaches {float(observed.abs().max()):g}; up to {VALUE_MAX:g} is allowed: scale it")


def _check_settings(mu: float, sparsity: float | None, tolerance: float, max_iterations: int) -> None:
    for name, value in (("mu", mu), ("sparsity", sparsity), ("tolerance", tolerance)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value:g}; a finite number above 0 is needed")
    if max_iterations < 1:
        raise UsageError(f"max_iterations is {max_iterations}; 1 or more is needed")
