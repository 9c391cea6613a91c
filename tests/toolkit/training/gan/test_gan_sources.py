from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.training.gan.sources import BalancedDraw, fitting_images, to_pixels, to_plane

CLASSES = ("row", "column", "diagonal")


def test_pixels_come_back_from_planes():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    plane = to_plane(pixels)
    assert (plane.min(), plane.max()) == (-1, 1)
    assert torch.equal(to_pixels(plane), pixels)
    assert to_pixels(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


def test_every_class_has_its_turn_and_every_image_its_chance():
    labels = torch.tensor([0] * 50 + [2] * 3 + [1] * 7)
    draw, generator = BalancedDraw(labels, 3), torch.Generator().manual_seed(0)
    batches = [draw.batch(4, 4 * i, generator) for i in range(300)]
    chosen = torch.cat([batch.chosen for batch in batches])
    assert labels[chosen].tolist() == [i % 3 for i in range(1200)]
    assert set(chosen.tolist()) == set(range(60))
    counts = torch.bincount(chosen, minlength=60)
    # 400 draws of 3 images: 133 each, standard deviation 9.4.
    assert ((counts[50:53] - 400 / 3).abs() < 5 * 9.4).all()


def test_conditions_are_uniform_whatever_the_source_is():
    draw, generator = BalancedDraw(torch.arange(30) % 3, 3), torch.Generator().manual_seed(1)
    batch = draw.batch(3000, 0, generator)
    assert set(batch.wanted.tolist()) == {0.0, 0.5, 1.0}
    for own in range(3):
        wanted = batch.wanted[batch.chosen % 3 == own]
        shares = [(wanted == value).double().mean() for value in (0.0, 0.5, 1.0)]
        # 1000 draws: a third each, standard deviation 0.015.
        assert all(abs(share - 1 / 3) < 5 * 0.015 for share in shares)
    assert 0 <= batch.share.min() < 0.01 < 0.99 < batch.share.max() < 1


def test_a_draw_depends_on_its_generator_alone():
    draw = BalancedDraw(torch.arange(30) % 3, 3)
    one, same, other = (draw.batch(8, 0, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.chosen, same.chosen)
    assert torch.equal(one.share, same.share)
    assert not torch.equal(one.share, other.share)


def test_probe_takes_classes_in_turn():
    assert BalancedDraw(torch.tensor([0, 0, 0, 1, 2, 2]), 3).probe(5).tolist() == [0, 3, 4, 1, 5]
    assert BalancedDraw(torch.tensor([0, 0, 0, 1, 2, 2]), 3).probe(99).tolist() == [0, 3, 4, 1, 5, 2]


def test_images_that_fit_are_given_as_they_are(dataset):
    images, labels = fitting_images(dataset, (1, 8, 8), CLASSES, "whole")
    np.testing.assert_array_equal(images, dataset.train.images)
    np.testing.assert_array_equal(labels, dataset.train.labels)


def test_images_that_do_not_fit_are_refused(dataset, dataset_maker):
    def refused(data, message, error=DataError, shape=(1, 8, 8), classes=CLASSES, framing="whole"):
        with pytest.raises(error, match=message):
            fitting_images(data, shape, classes, framing)

    refused(dataset, "sides that are multiples of 4, from 8 on; train the ResNet with", UsageError, (1, 30, 30))
    refused(dataset, r"stripes has images of \(1, 8, 8\), \(1, 12, 12\) are wanted", shape=(1, 12, 12))
    refused(dataset, r"\(3, 8, 8\) are wanted", shape=(3, 8, 8))
    refused(dataset, "framed as whole, foreground is wanted", framing="foreground")
    refused(dataset, "has classes row, column, diagonal; wanted are row, column", classes=("row", "column"))
    one = SimpleNamespace(**{**vars(dataset), "class_names": ("row",)})
    refused(one, "stripes has 1 class; a condition in .* needs at least 2", classes=("row",))
    empty = SimpleNamespace(**{**vars(dataset), "train": None})
    refused(empty, "data set stripes has no training images", UsageError)
    missing = dataset_maker()
    missing.train.labels[missing.train.labels == 1] = 0
    refused(missing, "class column of stripes has no training images")
    wrong = dataset_maker()
    wrong.train.labels[0] = 3
    refused(wrong, "labels run from 0 to 3; allowed: 0 to 2")
