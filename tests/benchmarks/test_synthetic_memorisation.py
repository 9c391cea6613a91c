"""Copies are found, images that are none are not, and the first line says so."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.benchmarks.synthetic.membership import membership
from gascnn.benchmarks.synthetic.memorisation import _counted, memorisation, twins
from gascnn.benchmarks.synthetic.planted import planted
from gascnn.benchmarks.synthetic.space import feature_space, pixel_space
from gascnn.benchmarks.synthetic.verdict import detected, verdict
from gascnn.toolkit.errors import DataError

WAVES = np.stack([np.cos(np.pi * (np.arange(16) + 0.5) * k / 16) for k in range(6)])
"""Slow ones, so that the images are smooth, and blurring them leaves something."""

BASIS = np.einsum("tij,iy,jx->tyx", np.random.default_rng(99).normal(size=(30, 6, 6)), WAVES, WAVES).reshape(30, 256)


def people(seed, count):
    """16x16 images of thirty independent traits and a little noise: every draw is another person."""
    rng = np.random.default_rng(seed)
    values = 128 + 3 * rng.normal(size=(count, 30)) @ BASIS + 3 * rng.normal(size=(count, 256))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(count, 1, 16, 16)


TRAIN, VAL, TEST = people(0, 300), people(1, 200), people(2, 200)
COPIES = planted(TRAIN[:20], TRAIN[20:40], seed=0)


def examined(synthetic, val=VAL, test=TEST):
    space = pixel_space({"synthetic": synthetic, "train": TRAIN, "val": val, "test": test, **COPIES})
    found = {"pixels": memorisation(space, list(COPIES))}
    return found["pixels"], verdict(found, {"pixels": membership(space, 0)})


def with_copies(kind, count):
    """Strangers, and so many copies of training images."""
    made = people(3, 200)
    made[:count] = planted(TRAIN[100 : 100 + count], TRAIN[200 : 200 + count], seed=1)[kind]
    return made


def test_strangers_are_no_copies():
    found, first_line = examined(people(3, 200))
    assert found["sets"]["synthetic"]["unmistakable"] == 0
    assert found["sets"]["synthetic"]["near"]["value"] <= 0.05
    assert found["sets"]["synthetic"]["relatively_near"]["value"] <= 0.05
    assert found["nearer_than_held"]["value"] == pytest.approx(0.5, abs=0.1)
    assert first_line["level"] == "no sign"
    assert first_line["sentence"].startswith("No sign of replaying patients at this sensitivity (pixels: ")
    assert first_line["sentence"].endswith("This is no proof of privacy.")


@pytest.mark.parametrize("kind", ["exact", "mirrored", "shifted", "noisy", "brighter", "blurred"])
def test_planted_copies_are_found(kind):
    """A fifth of the images are copies; the others are strangers."""
    found, first_line = examined(with_copies(kind, 40))
    made = found["sets"]["synthetic"]
    assert made["relatively_near"]["count"] >= 36
    assert first_line["level"] == "replays"
    assert first_line["sentence"].startswith("REPLAYS PATIENTS: ")


@pytest.mark.parametrize("kind", ["exact", "mirrored", "shifted"])
def test_a_single_copy_is_enough(kind):
    found, first_line = examined(with_copies(kind, 1))
    assert found["sets"]["synthetic"]["unmistakable"] == 1
    assert found["sets"]["synthetic"]["near"]["interval"][0] < 0.05, "by its share it would pass"
    assert first_line["sentence"].startswith("REPLAYS PATIENTS: 1 of 200 made images are less than half as far from a")
    pair = found["pairs"][0]
    assert (pair["image"], pair["training_image"]) == (0, 100)
    assert pair["mirrored"] == (kind == "mirrored")
    assert pair["shift"] == ([-2, -2] if kind == "shifted" else [0, 0])


def test_averages_are_no_copies():
    """As near to all as can be, and to nobody in particular."""
    rng = np.random.default_rng(4)
    blurred = np.stack([TRAIN[rng.choice(300, 30)].mean(axis=0) for _ in range(100)]).astype(np.uint8)
    found, first_line = examined(blurred)
    assert found["sets"]["synthetic"]["median"] < found["held"]["median"]
    assert found["sets"]["synthetic"]["relatively_near"]["value"] <= 0.05
    assert found["sets"]["synthetic"]["near"]["interval"][0] > 0.05
    assert first_line["level"] == "no sign"
    assert "as near to held ones, as averages are: look at the pairs" in first_line["sentence"]


def test_means_of_two_give_their_sources_away():
    rng = np.random.default_rng(6)
    _, first_line = examined(np.stack([TRAIN[rng.choice(300, 2)].mean(axis=0) for _ in range(200)]).astype(np.uint8))
    assert first_line["level"] in ("signs", "replays")


def test_thresholds_are_the_quantiles_of_held_images():
    found, _ = examined(people(3, 60))

    def least(first, second):
        space = pixel_space({"a": first, "b": second})
        return space.nearest("a", "b").distances

    to_train, to_test = least(VAL, TRAIN), least(VAL, TEST)
    assert found["thresholds"]["distance"] == pytest.approx(np.quantile(to_train, 0.01))
    assert found["thresholds"]["ratio"] == pytest.approx(np.quantile(to_train / to_test, 0.01))
    control = least(TEST, TRAIN)
    assert found["thresholds"]["unmistakable"] == pytest.approx(min(to_train.min(), control.min()) / 2)
    held = found["sets"]["test"]
    assert held["near"]["count"] == (control < np.quantile(to_train, 0.01)).sum()
    ratios = control / least(TEST, VAL)
    assert held["relatively_near"]["count"] == (ratios < np.quantile(to_train / to_test, 0.01)).sum()


def test_kinds_of_copies():
    assert COPIES["exact"] is not None
    np.testing.assert_array_equal(COPIES["mirrored"][3, 0, 5], TRAIN[3, 0, 5, ::-1])
    np.testing.assert_array_equal(COPIES["shifted"][3, 0, 2:, 2:], TRAIN[3, 0, :-2, :-2])
    np.testing.assert_array_equal(COPIES["shifted"][3, 0, 0, 2:], TRAIN[3, 0, 0, :-2])
    middle = TRAIN[3, 0, 4:7, 8:11].astype(float)
    assert COPIES["blurred"][3, 0, 5, 9] == round(middle.mean())
    corner = TRAIN[3, 0].astype(float)
    expected = (4 * corner[0, 0] + 2 * corner[0, 1] + 2 * corner[1, 0] + corner[1, 1]) / 9
    assert COPIES["blurred"][3, 0, 0, 0] == round(expected)
    assert COPIES["brighter"][3, 0, 7, 7] == min(255, round(1.15 * int(TRAIN[3, 0, 7, 7]) + 8))
    assert COPIES["mixed"][3, 0, 7, 7] == round(0.7 * int(TRAIN[3, 0, 7, 7]) + 0.3 * int(TRAIN[23, 0, 7, 7]))
    inside = (TRAIN[:20] > 60) & (TRAIN[:20] < 195)
    noise = (COPIES["noisy"].astype(float) - TRAIN[:20])[inside]
    assert noise.std() == pytest.approx(13, rel=0.05)


def test_which_kinds_are_found_is_told():
    found, _ = examined(people(3, 60))
    seen, missed = detected({"pixels": found})
    assert set(seen) | set(missed) == set(COPIES)
    assert {"exact", "mirrored", "shifted", "noisy"} <= set(seen)
    for kind in COPIES:
        assert (found["sets"][kind]["relatively_near"]["value"] >= 0.5) == (kind in seen)


def leaking(images, count):
    """Held images of which the first are training images, every other one mirrored."""
    held = images.copy()
    held[:count] = TRAIN[200 : 200 + count]
    held[1:count:2] = held[1:count:2, :, :, ::-1]
    return held


@pytest.mark.parametrize(("val", "test"), [(0, 1), (1, 0), (8, 5)])
def test_held_images_that_are_in_training_hide_no_copies(val, test):
    """A single one made the threshold of unmistakable copies 0, four in a hundred that of the ratio."""
    made = with_copies("exact", 3)
    found, first_line = examined(made, leaking(VAL, val), leaking(TEST, test))
    assert found["left_out"] == {"val": val, "test": test}
    assert (found["held"]["images"], found["sets"]["test"]["images"]) == (200 - val, 200 - test)
    assert found["sets"]["synthetic"]["unmistakable"] == 3
    assert found["sets"]["synthetic"]["relatively_near"]["count"] >= 3
    assert found["sets"]["test"]["unmistakable"] == 0
    assert first_line["level"] == "replays"
    # As if the split were clean: the same thresholds without these images.
    clean, _ = examined(made, VAL[val:], leaking(TEST, test))
    assert found["thresholds"]["distance"] == pytest.approx(clean["thresholds"]["distance"])
    clean, _ = examined(made, VAL[val:], TEST[test:])
    assert found["thresholds"]["unmistakable"] == pytest.approx(clean["thresholds"]["unmistakable"])


def test_strangers_are_no_copies_beside_a_split_that_is_not_clean():
    found, first_line = examined(people(3, 200), leaking(VAL, 8), leaking(TEST, 5))
    assert found["sets"]["synthetic"]["unmistakable"] == 0
    assert first_line["level"] == "no sign"


def test_a_split_of_training_images_alone_is_refused():
    with pytest.raises(DataError, match=r"all 30 images of the test split equal training images \(pixels\)"):
        examined(people(3, 60), test=TRAIN[:30])


def test_copies_at_a_threshold_of_0():
    """What equals a training image, and no held one, is a copy however small the smallest held distance is."""
    space = feature_space("features", {
        "synthetic": np.array([[0.0], [5.0], [9.0]]), "train": np.array([[0.0], [5.0]]),
        "val": np.array([[1.0], [2.0]]), "test": np.array([[5.0], [3.0]]),
    })  # fmt: skip
    found = memorisation(space, [])
    assert found["thresholds"]["unmistakable"] == 0.5
    assert found["sets"]["synthetic"]["unmistakable"] == 1, "0 is a copy; 5 is as near to a held image"
    none = {"distance": 0.0, "ratio": 0.0, "unmistakable": 0.0}
    counted = _counted(np.array([0.0, 0.0, 2.0]), np.array([0.0, 1.0, 0.5]), none)
    assert counted["unmistakable"] == 1


def test_images_seen_in_pixels_are_left_out_of_features_too():
    """Features of equal images differ in their last bits, so that their distance is not 0."""
    rng = np.random.default_rng(0)
    train, val, test = rng.normal(size=(20, 2)), rng.normal(size=(30, 2)), rng.normal(size=(30, 2))
    val[4], test[7] = train[0] + 1e-12, train[1] + 1e-12
    space = feature_space("features", {"synthetic": train[5:], "train": train, "val": val, "test": test})
    seen = {"val": np.arange(30) == 4, "test": np.arange(30) == 7}
    assert not twins(space)["val"].any()
    assert memorisation(space, [])["thresholds"]["unmistakable"] < 1e-11
    found = memorisation(space, [], seen)
    assert found["left_out"] == {"val": 1, "test": 1}
    assert found["thresholds"]["unmistakable"] > 1e-4
    assert found["sets"]["synthetic"]["unmistakable"] == 15


def test_equal_images_on_both_sides_say_nothing():
    """An image that is in the training set and in the test set: a ratio of 1, not 0."""
    space = feature_space("features", {
        "synthetic": np.zeros((12, 2)), "train": np.vstack([np.zeros((1, 2)), np.ones((5, 2))]),
        "val": np.random.default_rng(0).normal(size=(20, 2)), "test": np.array([[0.0, 0.0], [3.0, 3.0]]),
    })  # fmt: skip
    found = memorisation(space, [])
    assert found["sets"]["synthetic"]["ratio"] == 1.0
    assert found["sets"]["synthetic"]["relatively_near"]["count"] == 0
    assert found["sets"]["synthetic"]["unmistakable"] == 0
    assert found["sets"]["synthetic"]["near"]["count"] == 12


def test_small_shares_do_not_replay():
    """What is held against the limit is the interval's lower end."""
    none, some = {"value": 0.0, "interval": [0.0, 0.02]}, {"value": 0.04, "interval": [0.02, 0.08]}
    sets = {
        "synthetic": {"images": 200, "unmistakable": 0, "near": none, "relatively_near": some},
        "test": {"relatively_near": {"value": 0.01, "interval": [0.005, 0.025]}},
    }
    found = {"pixels": {"unit": "gray levels, RMS", "thresholds": {"unmistakable": 5.0}, "sets": sets}}
    quiet = {"pixels": {"leaks": False, "attack": {"value": 0.5, "interval": [0.45, 0.55]}}}
    assert verdict(found, quiet)["level"] == "no sign"
    some["interval"] = [0.026, 0.08]
    told = verdict(found, quiet)
    assert told["level"] == "signs"
    assert told["sentence"].startswith("SIGNS OF REPLAYING PATIENTS: 4.0 % (2.6 to 8.0) are relatively near a training")
    some["interval"] = [0.051, 0.08]
    assert verdict(found, quiet)["level"] == "replays"
