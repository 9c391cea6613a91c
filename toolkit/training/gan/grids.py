"""Pictures of the probe on the way: one row a source, the image itself and what is made of it for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.models.gan import SliceGenerator, condition_of
from gascnn.toolkit.files import atomic_path
from gascnn.toolkit.training.gan.health import made_of
from gascnn.toolkit.training.gan.sources import to_pixels

GAP = 2
"""Pixels between images, and around them."""

MOST_ROWS = 8
"""Sources in a picture."""


def grid_of(generator: SliceGenerator, probe: Tensor, classes: int) -> npt.NDArray[np.uint8]:
    """Columns of a picture: sources, then slices for class 0 to K - 1; (row, 1 + K, C, H, W) uint8."""
    probe = probe[:MOST_ROWS]
    conditions = condition_of(torch.arange(classes), classes).to(probe.device)
    columns = [probe, *(made_of(generator, probe, one.expand(len(probe))) for one in conditions)]
    return torch.stack([to_pixels(column).cpu() for column in columns], dim=1).numpy()


def tiled(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(row, column, C, H, W) -> one picture, (height, width) for one channel, (height, width, 3) for three."""
    rows, columns, channels, height, width = images.shape
    picture = np.zeros((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            picture[top : top + height, left : left + width] = images[row, column].transpose(1, 2, 0)
    return picture[:, :, 0] if channels == 1 else picture


def save_grid(folder: Path, iteration: int, images: npt.NDArray[np.uint8]) -> Path:
    """Write ``grid_0000500.png``; without Pillow ``.npz`` with ``images`` as they are. Whole, or not at all.

    Raises:
        DataError: the place cannot be written.
    """
    path = folder / f"grid_{iteration:07d}.png"
    try:
        from PIL import Image
    except ImportError:
        path = path.with_suffix(".npz")
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, images=images)
        return path
    with atomic_path(path) as temporary:
        Image.fromarray(tiled(images)).save(temporary)
    return path
