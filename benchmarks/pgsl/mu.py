"""PGSL's Figure 3: how far recovered images are from those before the attack, against mu.

PGSL attacks the pixels, recovers them and takes the mean squared error against the original (section V-B); neither the
network nor the down-sampling takes part. Beside each curve stands what no recovery at all would give, which the paper's
figure does not show: the error of the attacked images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl.recovery import MU, robust_pca

MUS = (0.05, 0.15, 0.25, 0.35, 0.45, MU, 0.65, 0.75, 0.85, 0.95, 1.0)
"""Those of section V-B, and the end of its range."""

Part = Literal["recovered", "low_rank"]

PIXEL_SHARE = 0.02
"""Of the pixels that :func:`flip_pixels` changes."""


def mse_against_mu(
    images: npt.NDArray[np.uint8],
    *,
    attack: Callable[[Tensor], Tensor] | None = None,
    mus: Sequence[float] = MUS,
    relative: bool = True,
    sparsity: float | None = None,
    part: Part = "recovered",
) -> dict[str, Any]:
    """Mean squared error between recovered images and the original ones, for each mu.

    Args:
        images: (n, C, H, W) uint8; each channel is a matrix of its own. For choosing mu, validation images.
        attack: takes and gives (n, C, H, W) float32 of 0..1; :func:`flip_pixels` if None.
        mus: above 0.
        relative: the unit of mu, see :func:`gascnn.toolkit.pgsl.recovery.robust_pca`.
        sparsity: lambda; ``1 / sqrt(max(H, W))`` if None.
        part: ``recovered`` compares the attacked image less its sparse part, ``low_rank`` the part of low rank.

    Returns:
        ``images``, ``mse_attacked``, ``pixels_changed`` (mean number an image and channel), and lists in the order of
        ``mu``: ``mse``, ``standard_error`` (of the mean over images), ``iterations`` (mean), ``converged`` (share).
        ``best_mu`` has the smallest error, the first of equals. Pixels are 0..1.

    Raises:
        DataError: images of another kind or none, an attack that gives another shape.
        UsageError: no mu, a part that is not known, a mu or sparsity that is not above 0.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or not images.size:
        raise DataError(
            f"images are {images.dtype} of shape {images.shape}; uint8 (n, C, H, W), n 1 or more, is needed"
        )
    if not mus:
        raise UsageError("no mu is given; at least one is needed")
    if part not in ("recovered", "low_rank"):
        raise UsageError(f"part is {part!r}; recovered or low_rank is needed")
    original = torch.from_numpy(images).float() / 255
    attacked = flip_pixels(original) if attack is None else attack(original.clone()).detach()
    if attacked.shape != original.shape:
        raise DataError(
            f"the attack gives shape {tuple(attacked.shape)}; that of the images, {tuple(original.shape)}, is needed"
        )
    curve: dict[str, Any] = {
        "images": len(images),
        "mse_attacked": float(_errors(attacked, original).mean()),
        "pixels_changed": float((attacked != original).flatten(2).sum(dim=-1).double().mean()),
        "mu": [float(mu) for mu in mus],
        "mse": [],
        "standard_error": [],
        "iterations": [],
        "converged": [],
    }
    for mu in mus:
        found = robust_pca(attacked, mu=mu, relative=relative, sparsity=sparsity)
        errors = _errors(found.recovered if part == "recovered" else found.low_rank, original)
        curve["mse"].append(float(errors.mean()))
        curve["standard_error"].append(float(errors.std() / len(errors) ** 0.5) if len(errors) > 1 else None)
        curve["iterations"].append(float(found.iterations.double().mean()))
        curve["converged"].append(float(found.converged.double().mean()))
    curve["best_mu"] = curve["mu"][int(np.argmin(curve["mse"]))]
    return curve


def flip_pixels(images: Tensor, pixels: int | None = None, *, seed: int = 0) -> Tensor:
    """A few pixels of each image set to whichever of 0 and 1 is further, in all channels: an attack without a model.

    Args:
        images: (n, C, H, W) of 0..1.
        pixels: of each image; a fiftieth of them, at least one, if None.
        seed: 0 or more; with an image's number it decides which.

    Raises:
        UsageError: fewer than 0 or more pixels than there are, a seed below 0.
    """
    area = images.shape[-2] * images.shape[-1]
    count = max(1, round(PIXEL_SHARE * area)) if pixels is None else pixels
    if not 0 <= count <= area:
        raise UsageError(f"{count} pixels; 0 to {area} are allowed")
    if seed < 0:
        raise UsageError(f"seed {seed}; 0 or more is needed")
    changed = images.detach().clone().flatten(2)
    for number in range(len(changed)):
        chosen = torch.from_numpy(np.random.default_rng((seed, number)).choice(area, count, replace=False))
        changed[number, :, chosen] = (changed[number, :, chosen] < 0.5).to(changed.dtype)
    return changed.reshape(images.shape)


def _errors(images: Tensor, original: Tensor) -> Tensor:
    """(n,) mean squared error of each image."""
    return ((images.double() - original.double()) ** 2).flatten(1).mean(dim=1)
