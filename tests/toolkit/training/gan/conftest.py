import pytest
import torch

from gascnn.models.resnet import resnet
from gascnn.toolkit.training.bundles import to_bundle
from gascnn.toolkit.training.gan.options import GanOptions

TINY = {
    "width": 2,
    "residual_blocks": 1,
    "critic_width": 2,
    "critic_hidden": 6,
    "iterations": 6,
    "batch_size": 6,
    "critic_steps": 2,
    "learning_rate": 1e-3,
    "ema_decay": 0.9,
    "report_every": 2,
    "grid_every": 0,
    "probe_images": 6,
    "least_diversity": 0.0,
    "threads": 1,
}


@pytest.fixture
def tiny():
    """Options of a GAN that trains in a blink."""
    return lambda **changes: GanOptions(**{**TINY, **changes})


def bundle_of(classes=("row", "column", "diagonal"), size=8, **changes):
    torch.manual_seed(0)
    network = resnet(classes=len(classes), blocks=(1,), width=4, image_size=size)
    return to_bundle(network, classes, (1, size, size), **changes)


@pytest.fixture
def network():
    """The bundle of a ResNet for the data set of stripes."""
    return bundle_of()


@pytest.fixture
def network_of():
    return bundle_of
