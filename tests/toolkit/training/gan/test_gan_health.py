import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gascnn.models.gan import Slices
from gascnn.toolkit.errors import DataError, TrainingError
from gascnn.toolkit.training.gan.grids import GAP, grid_of, save_grid
from gascnn.toolkit.training.gan.health import Guard, diversity, spread

CLASSES = ("row", "column", "diagonal")
KEPT = Path("run") / "last.safetensors"


class Scaled(nn.Module):
    """Gives its input back, times the condition."""

    def forward(self, images, condition):
        slices = images * condition.view(-1, 1, 1, 1)
        return Slices(slices, images, images)


def test_spread_by_hand():
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.5]]).view(2, 1, 1, 2)
    assert spread(images) == pytest.approx((1 + 0.25) / 2)


def test_diversity_is_1_for_copies_and_0_for_one_image():
    probe = torch.rand(70, 1, 8, 8) * 2 - 1  # more than go through at once
    assert diversity(Scaled(), probe, 3) == pytest.approx([0.0, 0.5, 1.0])


def test_images_that_are_all_alike_are_refused():
    with pytest.raises(DataError, match="the first 4 training images are all alike"):
        diversity(Scaled(), torch.full((4, 1, 8, 8), 0.5), 3)


def test_losses_that_are_not_finite(tiny):
    guard = Guard(tiny(), CLASSES, KEPT)
    guard.losses(3, "critic", {"loss": -9999.0, "penalty": 1.0})
    with pytest.raises(TrainingError, match="the generator's identity became nan in iteration 7; lower learning_rate"):
        guard.losses(7, "generator", {"loss": 1.0, "identity": float("nan")})
    with pytest.raises(TrainingError, match=r"became inf in iteration 1; .*last.safetensors holds the last good state"):
        guard.losses(1, "critic", {"loss": float("inf")})
    with pytest.raises(TrainingError, match=r"loss became -1.2e\+04 in iteration 2, beyond largest_loss \(10000\)"):
        guard.losses(2, "critic", {"loss": -12000.0})
    guard.losses(2, "generator", {"loss": -12000.0})


def test_weights_that_are_not_finite(tiny):
    guard, module = Guard(tiny(), CLASSES, KEPT), nn.Linear(2, 1)
    guard.weights(4, {"critic": module})
    with torch.no_grad():
        module.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="bias of the critic holds NaN or infinity after iteration 4"):
        guard.weights(4, {"critic": module})


def test_a_class_has_collapsed_after_patience_in_a_row(tiny):
    guard = Guard(tiny(least_diversity=0.1, patience=2, iterations=100), CLASSES, KEPT)
    low, high = [0.5, 0.05, 0.5], [0.5, 0.1, 0.5]
    assert [guard.spreads(10, found) for found in (low, high, low)] == [False, True, False]
    with pytest.raises(TrainingError, match=r"the generator collapsed: images of class column differ by 0\.05 of what"):
        guard.spreads(20, low)


def test_a_class_that_is_collapsed_at_the_end_ends_the_run(tiny):
    guard = Guard(tiny(least_diversity=0.1, patience=5, iterations=100), CLASSES, KEPT)
    assert not guard.spreads(99, [0.0, 1.0, 1.0])
    with pytest.raises(TrainingError, match="images of class row differ by 0 "):
        guard.spreads(100, [0.0, 1.0, 1.0])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_holds_every_source_and_class_where_they_belong(tmp_path, channels):
    probe = torch.rand(2, channels, 8, 8) * 2 - 1
    path = save_grid(tmp_path, 500, grid_of(Scaled(), probe, 3))
    assert path.name == "grid_0000500.png"
    picture = np.asarray(Image.open(path)).reshape(2 * (8 + GAP) + GAP, 4 * (8 + GAP) + GAP, channels)
    shades = (probe.numpy() + 1) * 127.5
    for row in range(2):
        for column, factor in enumerate((1.0, 0.0, 0.5, 1.0)):
            top, left = GAP + row * (8 + GAP), GAP + column * (8 + GAP)
            expected = (shades[row] - 127.5) * factor + 127.5
            found = picture[top : top + 8, left : left + 8].transpose(2, 0, 1)
            np.testing.assert_allclose(found, expected, atol=0.51)


def test_without_pillow_a_picture_is_an_npz(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_pillow(name, *arguments, **more):
        if name.partition(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named PIL", name=name)
        return real_import(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    grid = grid_of(Scaled(), torch.rand(12, 1, 8, 8) * 2 - 1, 3)
    path = save_grid(tmp_path, 7, grid)
    assert [p.name for p in tmp_path.iterdir()] == ["grid_0000007.npz"]
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["images"], grid)
    assert grid.shape == (8, 4, 1, 8, 8)
