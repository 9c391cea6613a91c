import hashlib

import numpy as np
import pytest

from gascnn.toolkit.data.splitting import draw_splits, hash_fraction, hash_order, require_every_split, shuffled
from gascnn.toolkit.errors import DataError


def test_order_is_that_of_sha256():
    names = [f"n{index}" for index in range(20)]
    expected = sorted(range(20), key=lambda index: hashlib.sha256(f"7/n{index}".encode()).hexdigest())
    assert hash_order(names, 7) == expected
    assert hash_order(names, 8) != expected


def test_fraction_is_the_first_32_bits():
    assert hash_fraction("abc") == int(hashlib.sha256(b"abc").hexdigest()[:8], 16) / 2**32


def test_split_is_stratified_and_takes_the_first_of_the_order():
    labels = np.array([0] * 100 + [1] * 20)
    names = [str(index) for index in range(120)]
    splits = draw_splits(labels, names, seed=3)
    for code, (test, val) in ((0, (15, 15)), (1, (3, 3))):
        ours = splits[labels == code]
        assert [int(np.sum(ours == name)) for name in ("test", "val")] == [test, val]
    of_class_0 = [index for index in hash_order(names, 3) if index < 100]
    assert set(np.flatnonzero((splits == "test") & (labels == 0))) == set(of_class_0[:15])
    assert set(np.flatnonzero((splits == "val") & (labels == 0))) == set(of_class_0[15:30])


def test_the_seed_decides_and_the_order_of_the_images_does_not():
    labels = np.arange(60) % 3
    names = [f"f{index}" for index in range(60)]
    splits = draw_splits(labels, names, seed=0)
    assert (splits != draw_splits(labels, names, seed=1)).any()
    turned = draw_splits(labels[::-1], names[::-1], seed=0)
    np.testing.assert_array_equal(turned[::-1], splits)


@pytest.mark.parametrize("seed", range(10))
def test_groups_are_never_divided(seed):
    rng = np.random.default_rng(seed)
    groups = [f"p{number}" for number in rng.integers(0, 30, 400)]
    labels = rng.integers(0, 4, 400)
    splits = draw_splits(labels, groups, seed)
    for group in set(groups):
        assert len({splits[index] for index in range(400) if groups[index] == group}) == 1
    assert set(splits) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, {"train": 1}), (2, {"train": 1, "test": 1}), (3, {"train": 1, "val": 1, "test": 1})],
)
def test_few_groups_serve_train_first_then_test_then_val(count, expected):
    splits = draw_splits(np.zeros(count, int), [str(index) for index in range(count)], 0)
    assert {name: int(np.sum(splits == name)) for name in set(splits.tolist())} == expected


def test_one_huge_group_among_three_leaves_a_group_for_each_split():
    groups = ["a"] * 98 + ["b", "c"]
    assert set(draw_splits(np.zeros(100, int), groups, 0)) == {"train", "val", "test"}


def test_only_the_missing_split_is_drawn():
    splits = draw_splits(np.zeros(40, int), [str(index) for index in range(40)], 0, {"val": 0.15})
    assert [int(np.sum(splits == name)) for name in ("train", "val", "test")] == [34, 6, 0]


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="here: too few patients for a val split"):
        require_every_split(np.array(["train", "test"]), "here", "patient")


def test_shuffling_mixes_sorted_classes_and_loses_nothing():
    names = [str(index) for index in range(100)]
    order = shuffled(names, np.arange(50, 100))
    assert sorted(order.tolist()) == list(range(50, 100))
    assert order.tolist() != list(range(50, 100))
