"""Sets of made images joined: every image once, in turns, and nothing that does not belong together."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.data.image_set import IMAGES_FILE, RECORD_FILE, read_extra, save_image_set
from gascnn.toolkit.data.joining import in_turns, join_image_sets
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.files import sha256_file

CLASSES = ("well", "ill")


def make(path, count, first, **changes):
    """Images whose pixels all are the number of the image, from ``first`` on."""
    shape = changes.pop("shape", (1, 4, 4))
    images = np.broadcast_to(np.arange(first, first + count, dtype=np.uint8)[:, None, None, None], (count, *shape))
    values = {"framing": "whole", "source": f"from {first}", "provenance": {"first": first}, **changes}
    classes = values.pop("classes", CLASSES)
    save_image_set(path, np.ascontiguousarray(images), np.arange(first, first + count) % 2, classes, **values)
    return path


@pytest.fixture
def sets(tmp_path):
    return [make(tmp_path / "gan", 6, 0, arrays={"source": np.arange(6)}), make(tmp_path / "own", 3, 100)]


def test_every_image_is_there_once_with_its_label_and_its_set(sets, tmp_path):
    counts = [count for _, count in join_image_sets(sets, tmp_path / "both")]
    assert counts == [6, 3]
    found = load_dataset(str(tmp_path / "both"))
    pixels = np.concatenate([found.split(name).images[:, 0, 0, 0] for name in ("train", "val", "test")])
    labels = np.concatenate([found.split(name).labels for name in ("train", "val", "test")])
    assert sorted(pixels) == [0, 1, 2, 3, 4, 5, 100, 101, 102]
    np.testing.assert_array_equal(labels, pixels % 2)
    assert found.provenance["synthetic"] is True
    parts = found.provenance["made"]["parts"]
    assert [(part["name"], part["images"], part["made"]) for part in parts] == [
        ("gan", 6, {"first": 0}),
        ("own", 3, {"first": 100}),
    ]
    assert [part["images_sha256"] for part in parts] == [sha256_file(path / IMAGES_FILE) for path in sets]
    assert str(tmp_path) not in (tmp_path / "both" / RECORD_FILE).read_text()


def test_the_first_images_hold_each_set_by_its_share(sets, tmp_path):
    """Of 6 and 3 images every three have two and one; by hand: places 1/12, 3/12, ... and 1/6, 3/6, 5/6."""
    join_image_sets(sets, tmp_path / "both")
    np.testing.assert_array_equal(read_extra(tmp_path / "both", "part"), [0, 1, 0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(
        read_extra(tmp_path / "both", "images")[:, 0, 0, 0], [0, 100, 1, 2, 101, 3, 4, 102, 5]
    )
    np.testing.assert_array_equal(in_turns([2, 2, 1]), [0, 2, 4, 1, 3])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"shape": (1, 4, 6)},
            r"other has image_shape \(1, 4, 6\), .*gan has \(1, 4, 4\); join sets that were made for",
        ),
        ({"shape": (3, 4, 4)}, r"other has image_shape \(3, 4, 4\)"),
        ({"framing": "foreground"}, "other has framing foreground, .*gan has whole"),
        ({"classes": ("ill", "well")}, r"other has class_names \('ill', 'well'\)"),
    ],
)
def test_sets_for_other_networks_are_refused(changes, said, sets, tmp_path):
    other = make(tmp_path / "other", 3, 50, **changes)
    with pytest.raises(DataError, match=said):
        join_image_sets([sets[0], other], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_real_images_damaged_sets_and_wrong_numbers_are_refused(sets, tmp_path):
    (tmp_path / "scans" / "ill").mkdir(parents=True)
    (tmp_path / "scans" / "ill" / "bob.png").write_text("a picture")
    cases = [
        ([sets[0]], UsageError, "1 image set; give two or more"),
        ([sets[0], tmp_path / "scans"], DataError, "not a set of made images; allowed are folders of 'gascnn synth"),
        ([sets[0], sets[1], tmp_path / "gan" / ".." / "gan"], UsageError, "is given twice"),
    ]
    for paths, kind, said in cases:
        with pytest.raises(kind, match=said):
            join_image_sets(paths, tmp_path / "both")
    with pytest.raises(UsageError, match="joined and written; name another folder"):
        join_image_sets(sets, sets[1])
    (sets[1] / IMAGES_FILE).write_bytes(b"damaged")
    with pytest.raises(DataError, match="make it anew"):
        join_image_sets(sets, tmp_path / "both")
    assert not (tmp_path / "both").exists()
