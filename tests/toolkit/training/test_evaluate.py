import numpy as np
import pytest
import torch
from torch import nn

from gascnn.models.resnet import resnet
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.training.evaluate import evaluate, predict_scores


class Means(nn.Module):
    """Logits by hand: the mean intensity, and 0.5."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([mean, torch.full_like(mean, 0.5)], dim=1)


def flat_images(*values):
    return np.stack([np.full((1, 2, 2), value, dtype=np.uint8) for value in values])


def test_networks_see_pixels_over_255():
    scores = predict_scores(Means(), flat_images(0, 51, 255))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [[0, 0.5], [0.2, 0.5], [1, 0.5]], rtol=1e-6)


def test_figures_of_a_network():
    class Part:
        images = flat_images(0, 100, 200, 255)
        labels = np.array([1, 0, 0, 0])

    report = evaluate(Means(), Part, ("bright", "dark"))
    assert report["confusion_matrix"] == [[2, 1], [0, 1]]
    assert report["accuracy"] == 0.75


def test_scores_do_not_depend_on_the_batch_size_and_leave_the_model_alone():
    model = resnet(classes=3, blocks=(1,), width=4, image_size=8, dropout=0.5)
    model.bn1.eval()
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 8, 8), dtype=np.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together, single = predict_scores(model, images), predict_scores(model, images, batch_size=1)
    np.testing.assert_allclose(together, single, atol=1e-5)
    assert model.training
    assert not model.bn1.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 4, 4)), r"images are float64 of shape \(2, 1, 4, 4\); expected uint8"),
        (np.zeros((2, 4, 4), dtype=np.uint8), r"of shape \(2, 4, 4\)"),
        (np.zeros((0, 1, 4, 4), dtype=np.uint8), "at least one"),
    ],
)
def test_unusable_images_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        predict_scores(Means(), images)


def test_unusable_batch_size_is_refused():
    with pytest.raises(UsageError, match="batch_size is 0; it must be at least 1"):
        predict_scores(Means(), flat_images(1), batch_size=0)
