"""Thresholds between an image's extremes: hand-computed probabilities, exact numbers, records that remember them."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import get_args

import nir
import numpy as np
import pytest
import torch
from torch import nn

from gascnn.exporters.netx import read_netx, write_netx
from gascnn.toolkit.cli.convert import command as convert_command
from gascnn.toolkit.coding import encode, encode_for, expected_input
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.annotations import GraphNotes, graph_notes, set_graph_notes
from gascnn.toolkit.lowering.deployment import Coding, Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork

BETWEEN_EXTREMES = ("rate", "rate-inverted", "rate-normal")
RAMP = np.array([10, 11, 12, 13, 14], dtype=np.uint8).reshape(1, 1, 1, 5)
FLAT = np.full((1, 1, 2, 3), 200, dtype=np.uint8)


def chance(pixel, low, high, coding):
    """Probability of a spike in exact fractions: every outcome of the draws, the threshold from its definition."""
    count = 3 if coding == "rate-normal" else 1
    outcomes = list(itertools.product(range(high - low), repeat=count))
    thresholds = [low + sum((Fraction(2 * d + 1, 2) for d in drawn), Fraction(0)) / count for drawn in outcomes]
    hits = sum(pixel < t if coding == "rate-inverted" else pixel > t for t in thresholds)
    return Fraction(hits, len(outcomes))


@pytest.mark.parametrize(
    ("coding", "by_hand"),
    [
        ("rate", [0, 1 / 4, 2 / 4, 3 / 4, 1]),  # (u - u_min) / (u_max - u_min)
        ("rate-inverted", [1, 3 / 4, 2 / 4, 1 / 4, 0]),
        ("rate-normal", [0, 4 / 64, 32 / 64, 60 / 64, 1]),  # 4 of the 64 sums of three numbers 0..3 are below 2
    ],
)
def test_expected_input_by_hand(coding, by_hand):
    np.testing.assert_allclose(expected_input(RAMP, coding).ravel(), by_hand, rtol=0, atol=1e-7)
    exact = [float(chance(int(pixel), 10, 14, coding)) for pixel in RAMP.ravel()]
    np.testing.assert_allclose(exact, by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("coding", BETWEEN_EXTREMES)
def test_rates_within_binomial_bounds_of_the_probability(coding):
    """Five standard deviations of a binomial, for every pixel value 0..255; the extremes are certain."""
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    expected = expected_input(pixels, coding).astype(np.float64).ravel()
    if coding != "rate-normal":
        np.testing.assert_allclose(expected if coding == "rate" else 1 - expected, np.arange(256) / 255, atol=1e-6)
    trials = 3000
    spikes = encode(pixels, coding, trials, seed=4)
    assert set(np.unique(spikes)) == {0, 1}
    counts = spikes.sum(axis=(0, 1), dtype=int).ravel()
    assert np.all(np.abs(counts - trials * expected) <= 5 * np.sqrt(trials * expected * (1 - expected)) + 1e-3)
    assert {counts[0], counts[255]} == {0, trials}


def test_more_light_more_spikes_and_the_papers_sentence_the_other_way_round():
    gray = np.random.default_rng(0).integers(40, 200, (3, 1, 6, 6)).astype(np.uint8)
    spikes, inverted = (encode(gray, coding, 50, seed=2) for coding in ("rate", "rate-inverted"))
    np.testing.assert_array_equal(spikes + inverted, 1)
    assert np.corrcoef(spikes.mean(1).ravel(), gray.ravel())[0, 1] > 0.9
    assert np.corrcoef(inverted.mean(1).ravel(), gray.ravel())[0, 1] < -0.9


def test_the_extremes_are_each_images_own_over_all_its_channels():
    images = np.stack([np.array([[[0, 100]], [[50, 100]]]), np.array([[[200, 210]], [[220, 205]]])]).astype(np.uint8)
    expected = np.stack([np.array([[[0, 1]], [[0.5, 1]]]), np.array([[[0, 0.5]], [[1, 0.25]]])])
    np.testing.assert_allclose(expected_input(images, "rate"), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("coding", BETWEEN_EXTREMES)
def test_an_image_of_one_value_is_silent_and_disturbs_no_other(coding):
    assert not encode(FLAT, coding, 9, seed=1).any()
    assert not expected_input(FLAT, coding).any()
    textured = np.random.default_rng(1).integers(0, 256, (1, 1, 2, 3)).astype(np.uint8)
    both = encode(np.concatenate([FLAT, textured]), coding, 9, seed=1)
    assert not both[0].any()
    np.testing.assert_array_equal(both[1:], encode(textured, coding, 9, seed=1, first=1))


@pytest.mark.parametrize("coding", BETWEEN_EXTREMES)
def test_every_spike_follows_from_seed_and_image_number(coding):
    """In Python's own integers from the generator's numbers: no rounding that a platform could do otherwise."""
    images = np.random.default_rng(3).integers(5, 250, (2, 2, 3, 4)).astype(np.uint8)
    found = encode(images, coding, 6, seed=11, first=40)
    for number, image in enumerate(images):
        low, high = int(image.min()), int(image.max())
        generator = np.random.default_rng([11, 40 + number])
        count = 3 if coding == "rate-normal" else 1
        draws = [generator.integers(0, high - low, (6, *image.shape)) for _ in range(count)]
        for place in np.ndindex(6, *image.shape):
            threshold = low + sum(Fraction(2 * int(d[place]) + 1, 2) for d in draws) / count
            pixel = int(image[place[1:]])
            assert found[(number, *place)] == (pixel < threshold if coding == "rate-inverted" else pixel > threshold)


@pytest.mark.parametrize("coding", BETWEEN_EXTREMES)
def test_cutting_into_batches_changes_nothing_and_seeds_differ(coding):
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 5, 4)).astype(np.uint8)
    whole = encode(images, coding, 12, seed=3)
    parts = [encode(images[i : i + 2], coding, 12, seed=3, first=i) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert np.any(whole != encode(images, coding, 12, seed=4))
    assert np.any(encode(np.repeat(images[:1], 2, axis=0), coding, 12)[0] != whole[0])


@pytest.mark.parametrize("coding", ["regular", "bernoulli", "constant"])
def test_other_codings_expect_the_intensity_itself(coding):
    pixels = np.array([[[[0, 3, 8, 16]]]], dtype=np.uint8)
    expected = np.array([0, 3, 8, 16]) / 16
    np.testing.assert_allclose(expected_input(pixels, coding, 16).ravel(), expected, rtol=1e-6)


def test_no_images_and_bad_images():
    for coding in BETWEEN_EXTREMES:
        assert encode(RAMP[:0], coding, 4).shape == (0, 4, 1, 1, 5)
        assert expected_input(RAMP[:0], coding).shape == (0, 1, 1, 5)
        with pytest.raises(DataError, match=r"a pixel is 14; this network takes 0\.\.13"):
            encode(RAMP, coding, 4, pixel_max=13)
        with pytest.raises(UsageError, match="steps is 0; it must be at least 1"):
            encode(RAMP, coding, 0)


# --- what remembers a coding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", get_args(Coding))
def test_records_of_every_coding_come_back(coding, tmp_path):
    graph = nir.NIRGraph(nodes={}, edges=[], type_check=False)
    set_graph_notes(graph, GraphNotes(coding=coding, seed=5))
    assert graph_notes(graph).coding == coding
    record = Deployment((1, 1, 5), ("no", "yes"), 7, coding=coding, seed=5, pixel_max=200)
    assert Deployment.from_json(record.to_json()) == record
    if coding == "constant":
        return  # its network would need message bits
    weights = np.array([[2, 4, 6, 8, 10], [10, -8, 6, 4, 2]])
    network = NetxNetwork(InputLayer((5,)), (DenseLayer((2,), weights, CubaNeuron(np.array(20))),), deployment=record)
    write_netx(network, tmp_path / "a.net")
    read = read_netx(tmp_path / "a.net")
    assert read.deployment == record
    np.testing.assert_array_equal(
        encode_for(read, RAMP), encode(RAMP, coding, 7, seed=5, pixel_max=200), err_msg="fed as its record says"
    )


def test_the_command_offers_every_coding():
    (option,) = (p for p in convert_command.params if p.name == "coding")
    assert tuple(option.type.choices) == get_args(Coding)


def test_scales_are_fitted_to_what_the_coding_feeds():
    """A 1x1 convolution of weight 1: the percentile of its activations is the largest expected input.

    Pixels lie in 50..150 of 200, so the intensity reaches 0.75, but every image's own range is all of 0..1.
    """
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    images = np.random.default_rng(0).integers(50, 151, (8, 1, 4, 4)).astype(np.uint8)
    images[:, 0, 0, :2] = (50, 150)
    settings = {"reset": "subtract", "steps": 8, "pixel_max": 200, "percentile": 100.0}
    largest = {
        coding: 1 / float(next(iter(convert(model, images, coding=coding, **settings).scales.values())).gain[0])
        for coding in ("bernoulli", "rate", "rate-inverted")
    }
    assert largest == pytest.approx({"bernoulli": 0.75, "rate": 1.0, "rate-inverted": 1.0})


def test_an_unknown_coding_is_refused_before_anything_is_traced():
    with pytest.raises(UsageError, match="coding is 'morse'; it must be regular or bernoulli or constant or rate or"):
        convert(nn.Identity(), RAMP, coding="morse")
