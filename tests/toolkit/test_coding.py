"""Input spikes counted, spaced and seeded."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gascnn.toolkit.coding import encode
from gascnn.toolkit.errors import DataError, UsageError

EVERY_PIXEL = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("steps", [1, 2, 7, 64, 255, 300])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_regular_coding_gives_the_nearest_numbers_of_spikes(steps, seed):
    """x T spikes, rounded down or up, for every pixel value; none where x = 0, all where x = 1."""
    spikes = encode(EVERY_PIXEL, "regular", steps, seed=seed)
    assert spikes.shape == (1, steps, 1, 16, 16)
    assert spikes.dtype == np.uint8
    assert set(np.unique(spikes)) <= {0, 1}
    counts = spikes.sum(axis=(0, 1)).ravel().astype(int)
    exact = np.arange(256) * steps / 255
    assert np.all(counts >= np.floor(exact))
    assert np.all(counts <= np.ceil(exact))
    assert counts[0] == 0
    assert counts[255] == steps


def test_regular_coding_is_evenly_spaced():
    """Between two spikes of intensity x lie 1 / x steps, rounded down or up."""
    spikes = encode(EVERY_PIXEL, "regular", 400)[0, :, 0].reshape(400, 256)
    for pixel in range(2, 256):
        gaps = np.diff(np.flatnonzero(spikes[:, pixel]))
        assert gaps.min() >= np.floor(255 / pixel)
        assert gaps.max() <= np.ceil(255 / pixel)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 255), st.integers(1, 40), st.integers(0, 2**31), st.data())
def test_regular_coding_follows_its_formula(pixel_max, steps, seed, data):
    """floor(x (t + 1) + phase) > floor(x t + phase), with one phase in [0, 1) that suits all spikes of a pixel."""
    pixel = data.draw(st.integers(0, pixel_max))
    spikes = encode(np.full((1, 1, 1, 1), pixel, np.uint8), "regular", steps, seed=seed, pixel_max=pixel_max).ravel()
    phases = np.arange(pixel_max) / pixel_max
    times = np.arange(steps + 1)[:, None] * pixel
    expected = np.diff((times + np.arange(pixel_max)) // pixel_max, axis=0)
    assert len(phases)
    assert any(np.array_equal(spikes, expected[:, i]) for i in range(pixel_max))


def test_neighbours_do_not_fire_together():
    """A flat image of one half: half of its pixels at each step, not all at every second one."""
    spikes = encode(np.full((1, 1, 24, 24), 128, np.uint8), "regular", 50)
    rates = spikes.mean(axis=(0, 2, 3, 4))
    assert np.all(np.abs(rates - 0.5) < 0.1)


def test_the_seed_moves_the_phases():
    one, two = (encode(EVERY_PIXEL, "regular", 20, seed=seed) for seed in (0, 1))
    assert np.any(one != two)
    np.testing.assert_array_equal(one, encode(EVERY_PIXEL, "regular", 20, seed=0))


@pytest.mark.parametrize("coding", ["regular", "bernoulli", "constant"])
def test_cutting_into_batches_changes_nothing(coding):
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 5, 4)).astype(np.uint8)
    whole = encode(images, coding, 12, seed=3)
    parts = [encode(images[i : i + 3], coding, 12, seed=3, first=i) for i in (0, 3, 6)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_bernoulli_rates_within_binomial_bounds():
    """Five standard deviations of a binomial with x = pixel / 255, for every pixel value; 0 and 255 are certain."""
    images = np.repeat(EVERY_PIXEL, 20, axis=0)
    trials = 20 * 200
    counts = encode(images, "bernoulli", 200, seed=5).sum(axis=(0, 1), dtype=int).ravel()
    chance = np.arange(256) / 255
    spread = np.sqrt(trials * chance * (1 - chance))
    assert np.all(np.abs(counts - trials * chance) <= 5 * spread)
    assert (counts[0], counts[255]) == (0, trials)


def test_bernoulli_images_differ_and_are_seeded():
    images = np.full((2, 1, 8, 8), 128, np.uint8)
    spikes = encode(images, "bernoulli", 10, seed=1)
    assert np.any(spikes[0] != spikes[1])
    assert np.any(spikes != encode(images, "bernoulli", 10, seed=2))
    np.testing.assert_array_equal(spikes, encode(images, "bernoulli", 10, seed=1))


def test_constant_coding_is_the_pixel_at_every_step():
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 3, 3)).astype(np.uint8)
    spikes = encode(images, "constant", 4)
    for step in range(4):
        np.testing.assert_array_equal(spikes[:, step], images)
    spikes[:] = 0  # it is a copy
    assert images.any()


@pytest.mark.parametrize(("pixel_max", "bits"), [(255, 4), (16, 8), (16, 3), (255, 1)])
def test_constant_pixels_of_other_depths(pixel_max, bits):
    pixels = np.arange(pixel_max + 1, dtype=np.uint8).reshape(1, 1, 1, -1)
    found = encode(pixels, "constant", 2, pixel_max=pixel_max, bits=bits)[0, 1, 0, 0]
    np.testing.assert_array_equal(
        found, [math.floor(p * (2**bits - 1) / pixel_max + 0.5) for p in range(pixel_max + 1)]
    )


def test_memory_does_not_grow_beyond_the_spikes():
    """A batch of 100 images is 40 MB of spikes; time was once a 64-bit axis of its own, ten times that."""
    images = np.full((100, 1, 64, 64), 90, np.uint8)
    tracemalloc.start()
    encode(images, "regular", 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


@pytest.mark.parametrize(
    ("images", "arguments", "error", "match"),
    [
        (EVERY_PIXEL, ("morse", 4), UsageError, "unknown input coding 'morse'; known: regular, bernoulli, constant"),
        (EVERY_PIXEL, ("regular", 0), UsageError, "steps is 0; it must be at least 1"),
        (
            EVERY_PIXEL[0],
            ("regular", 4),
            DataError,
            r"images are uint8 of shape \(1, 16, 16\); expected uint8 \(image, C",
        ),
        (EVERY_PIXEL / 255, ("regular", 4), DataError, "images are float64"),
    ],
)
def test_what_cannot_be_encoded(images, arguments, error, match):
    with pytest.raises(error, match=match):
        encode(images, *arguments)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"pixel_max": 100}, DataError, r"a pixel is 255; this network takes 0..100"),
        ({"pixel_max": 0}, UsageError, "pixel_max is 0; it must be at least 1"),
        ({"bits": 0}, UsageError, "bits is 0; it must be 1..8"),
        ({"bits": 9}, UsageError, "bits is 9; it must be 1..8"),
        ({"seed": -1}, UsageError, "seed is -1; it must be at least 0"),
    ],
)
def test_options_out_of_range(options, error, match):
    with pytest.raises(error, match=match):
        encode(EVERY_PIXEL, "regular", 4, **options)


def test_no_images_give_no_spikes():
    assert encode(EVERY_PIXEL[:0], "regular", 4).shape == (0, 4, 1, 16, 16)
