"""How many images a conversion takes: enough of a small network, few of a large one, what was asked for always."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.models.resnet import count_macs, resnet, resnet18
from gascnn.toolkit.conversion import ConversionOptions, convert
from gascnn.toolkit.conversion.trace import trace


@pytest.mark.parametrize(
    ("products", "steps", "asked", "expected"),
    [
        (1_000_000, 64, {}, (512, 64)),
        (600_000_000, 64, {}, (250, 8)),  # 150e9 / 600e6; 150e9 / (64 * 600e6) is 3, and 8 are the fewest
        (100_000_000, 100, {}, (512, 15)),
        (600_000_000, 64, {"calibration_images": 400, "fit_images": 300}, (400, 300)),
        (1_000_000, 64, {"calibration_images": 20}, (20, 20)),
        (1_000_000, 64, {"calibration_images": 20, "fit_images": 50}, (20, 20)),
    ],
)
def test_images_by_the_size_of_the_network(products, steps, asked, expected):
    found = ConversionOptions(steps=steps, **asked).with_counts(products, 1000)
    assert (found.calibration_images, found.fit_images) == expected


def test_products_are_those_that_hooks_count():
    model = resnet(classes=3, blocks=(1, 1), width=4, channels=1, image_size=16)
    assert trace(model, (1, 16, 16)).multiply_accumulates == sum(count_macs(model, (1, 16, 16)).values())


def test_resnet18_takes_fewer_images():
    products = trace(resnet18(classes=4, channels=1, image_size=64), (1, 64, 64)).multiply_accumulates
    found = ConversionOptions().with_counts(products, 1000)
    assert 8 <= found.fit_images < 64
    assert 128 <= found.calibration_images < 512


def test_the_result_says_how_many_it_took():
    model = resnet(classes=3, blocks=(1,), width=4, channels=1, image_size=8)
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8)).astype(np.uint8)
    found = convert(model.eval(), images, steps=8, fit_images=5).options
    assert (found.calibration_images, found.fit_images) == (30, 5)
