"""Images of a network, a data set and a generator through one interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gascnn.toolkit.conversion.synthesis import (
    DatasetSource,
    GeneratorSource,
    ImageSource,
    SynthesisOptions,
    SynthesisSource,
)
from gascnn.toolkit.data import Dataset, ImageSet
from gascnn.toolkit.errors import DataError, UsageError


def small_dataset():
    """Image k of train is filled with k, its label is k % 3."""
    images = np.repeat(np.arange(20, dtype=np.uint8), 16).reshape(20, 1, 4, 4)
    whole = ImageSet(images, np.arange(20, dtype=np.int64) % 3)
    return Dataset("small", ("a", "b", "c"), whole, whole.take(3), whole.take(3))


def painted(labels, seed):
    """What a conditional generator gives: intensities by class, a little random."""
    noise = torch.rand(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (torch.from_numpy(labels).view(-1, 1, 1, 1) + noise) / 3


def sources(model):
    options = SynthesisOptions(iterations=2, threads=1)
    return {
        "network": SynthesisSource(model, (1, 8, 8), options),
        "data set": DatasetSource(small_dataset()),
        "generator": GeneratorSource(painted, 3, (1, 4, 4), batch_size=4),
    }


@pytest.mark.parametrize("kind", ["network", "data set", "generator"])
def test_all_give_seeded_labelled_images(digits_model, kind):
    source: ImageSource = sources(digits_model)[kind]
    images, labels = source.sample(11, 5)
    assert images.shape == (11, *source.image_shape)
    assert (images.dtype, labels.dtype, labels.shape) == (np.uint8, np.int64, (11,))
    again, other = source.sample(11, 5), source.sample(11, 6)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert not np.array_equal(images, other[0])
    with pytest.raises(UsageError, match="0 images; at least one is needed"):
        source.sample(0, 0)


def test_a_data_set_gives_each_image_once_with_its_label():
    images, labels = DatasetSource(small_dataset()).sample(20, 0)
    numbers = images[:, 0, 0, 0]
    assert sorted(numbers) == list(range(20))
    np.testing.assert_array_equal(labels, numbers % 3)
    with pytest.raises(UsageError, match="21 images of small, train split, which has 20; ask for fewer"):
        DatasetSource(small_dataset()).sample(21, 0)
    assert len(DatasetSource(small_dataset(), "val").sample(3, 0)[0]) == 3


def test_a_generator_is_asked_class_by_class():
    images, labels = GeneratorSource(painted, 3, (1, 4, 4), batch_size=4).sample(7, 0)
    np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(images.reshape(7, -1).mean(1) // 85, labels)
    assert not np.array_equal(images[0], images[3])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 1, 4, 5), np.uint8), r"gave uint8 \(2, 1, 4, 5\); \(2, 1, 4, 4\) of uint8 or reals"),
        (np.zeros((2, 1, 4, 4), np.int64), r"gave int64"),
        (np.full((2, 1, 4, 4), -0.5), "pixels outside 0..1 or NaN"),
        (np.full((2, 1, 4, 4), np.nan), "pixels outside 0..1 or NaN"),
    ],
)
def test_generators_that_give_something_else(given, message):
    with pytest.raises(DataError, match=message):
        GeneratorSource(lambda labels, seed: given, 2, (1, 4, 4)).sample(2, 0)


def test_generators_of_nothing():
    with pytest.raises(UsageError, match="1 classes in batches of 64; at least 2 and 1 are needed"):
        GeneratorSource(painted, 1, (1, 4, 4))


def test_whole_pixels_pass_as_they_are():
    images = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    np.testing.assert_array_equal(GeneratorSource(lambda labels, seed: images, 2, (1, 4, 4)).sample(2, 0)[0], images)
