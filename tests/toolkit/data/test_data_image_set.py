"""Image sets of our own making come back as they were written, or not at all."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.data.image_set import IMAGES_FILE, RECORD_FILE, is_image_set, read_extra, save_image_set
from gascnn.toolkit.errors import DataError, UsageError

COUNT = 60
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 6, 5), dtype=np.uint8)
LABELS = np.arange(COUNT, dtype=np.int64) % 3
CLASSES = ("glioma", "Ödem", "normal")


@pytest.fixture
def path(tmp_path):
    save_image_set(
        tmp_path / "made",
        IMAGES,
        LABELS,
        CLASSES,
        framing="foreground",
        source="drawn at random",
        provenance={"seed": 7},
        arrays={"soft_labels": np.eye(3, dtype=np.float32)[LABELS]},
    )
    return tmp_path / "made"


def change(path, **values):
    record = {**json.loads((path / RECORD_FILE).read_text()), **values}
    (path / RECORD_FILE).write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


def test_images_come_back_untouched_in_three_splits(path):
    """Framed as foreground already: cut and stretched again they would be others."""
    assert is_image_set(path)
    for framing in ("foreground", "whole"):
        found = load_dataset(str(path), framing=framing)
        assert found.framing == "foreground"
        assert found.image_shape == (1, 6, 5)
        assert found.class_names == CLASSES
        known = {image.tobytes(): int(label) for image, label in zip(IMAGES, LABELS, strict=True)}
        for split, count in (("train", 54), ("val", 3), ("test", 3)):
            part = found.split(split)
            assert len(part) == count
            for image, label in zip(part.images, part.labels, strict=True):
                assert known.pop(image.tobytes()) == label
        assert not known
    assert found.provenance["synthetic"] is True
    assert found.provenance["source"] == "drawn at random"
    assert found.provenance["made"] == {"seed": 7}
    assert str(path.parent) not in json.dumps(found.provenance)


def test_what_is_kept_beside_the_images_is_in_their_order(path):
    train = load_dataset(str(path)).train
    soft = read_extra(path, "soft_labels")[read_extra(path, "split") == "train"]
    np.testing.assert_array_equal(soft.argmax(1), train.labels)
    with pytest.raises(DataError, match="no array 'colour'"):
        read_extra(path, "colour")


def test_three_images_are_one_for_each_split(tmp_path):
    save_image_set(tmp_path / "few", IMAGES[:3], LABELS[:3], CLASSES, source="test")
    found = load_dataset(str(tmp_path / "few"))
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [1, 1, 1]


def test_an_older_set_is_replaced_and_other_folders_are_left_alone(path, tmp_path):
    save_image_set(path, IMAGES[:9], LABELS[:9], CLASSES, source="again")
    assert len(load_dataset(str(path)).train) == 7
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds other files"):
        save_image_set(tmp_path / "own", IMAGES, LABELS, CLASSES, source="test")
    assert [p.name for p in (tmp_path / "own").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"image_size": 6}, "made images of 1x6x5, 1x6x6 are wanted; they are not scaled"),
        ({"channels": 3}, "made images of 1x6x5, 3x6x5 are wanted; they are not scaled"),
    ],
)
def test_other_sizes_are_refused(path, wanted, message):
    with pytest.raises(DataError, match=message):
        load_dataset(str(path), **wanted)


def test_another_framing_is_refused(tmp_path):
    save_image_set(tmp_path / "whole", IMAGES, LABELS, CLASSES, source="test")
    with pytest.raises(DataError, match="framed as whole, foreground is wanted; they are not cut"):
        load_dataset(str(tmp_path / "whole"), framing="foreground")


def test_what_cannot_be_a_set(tmp_path):
    with pytest.raises(DataError, match="2 images; an image set has three splits and needs at least 3"):
        save_image_set(tmp_path / "x", IMAGES[:2], LABELS[:2], CLASSES, source="test")
    with pytest.raises(DataError, match="labels 0 to 2; 2 classes allow 0 and up"):
        save_image_set(tmp_path / "x", IMAGES, LABELS, CLASSES[:2], source="test")
    with pytest.raises(UsageError, match="framing 'round'"):
        save_image_set(tmp_path / "x", IMAGES, LABELS, CLASSES, framing="round", source="test")
    with pytest.raises(DataError, match=r"images are float64"):
        save_image_set(tmp_path / "x", IMAGES / 255, LABELS, CLASSES, source="test")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", 3),
        ("images", 2),
        ("image_shape", [1, 6]),
        ("framing", "round"),
        ("classes", ["one"]),
        ("images_sha256", None),
        ("provenance", []),
    ],
)
def test_damaged_records(path, field, value):
    change(path, **{field: value})
    with pytest.raises(DataError, match=f"field '{field}' is missing or of the wrong kind; make the set anew"):
        load_dataset(str(path))


def test_records_that_are_none(path):
    (path / RECORD_FILE).write_text("[]")
    with pytest.raises(DataError, match="schema list; this version reads schema 1"):
        load_dataset(str(path))
    (path / RECORD_FILE).write_text("{")
    with pytest.raises(DataError, match="not readable JSON"):
        load_dataset(str(path))


def test_images_that_do_not_belong_to_the_record(path, tmp_path):
    shutil.copytree(path, tmp_path / "other")
    change(tmp_path / "other", images=59)
    with pytest.raises(DataError, match=r"holds other images than images.json says"):
        load_dataset(str(tmp_path / "other"))
    content = (path / IMAGES_FILE).read_bytes()
    (path / IMAGES_FILE).write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"images.npz is missing or not what images.json was written with"):
        load_dataset(str(path))
    (path / IMAGES_FILE).unlink()
    with pytest.raises(DataError, match=r"images.npz is missing"):
        load_dataset(str(path))
