import zipfile

import numpy as np
import pytest

from gascnn.toolkit.data import arrays, load_dataset
from gascnn.toolkit.errors import DataError

LABELS = np.arange(20) % 2


def images(shape=(20, 6, 5), dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def saved(path, **content):
    np.savez(path, **content)
    return str(path)


def everything(data):
    """All images and labels of a data set, sorted by the images' bytes."""
    parts = [data.train, data.val, data.test]
    pairs = [
        (image.tobytes(), int(label)) for part in parts for image, label in zip(part.images, part.labels, strict=True)
    ]
    return sorted(pairs)


@pytest.mark.parametrize(
    ("stored", "shape", "expected"),
    [
        (images(), (1, 6, 5), lambda a: a[:, None]),
        (images((20, 6, 5, 3)), (3, 6, 5), lambda a: a.transpose(0, 3, 1, 2)),
        (images((20, 3, 6, 5)), (3, 6, 5), lambda a: a),
        (images((20, 1, 6, 3)), (1, 6, 3), lambda a: a),
        (images((20, 6, 5, 1)), (1, 6, 5), lambda a: a.transpose(0, 3, 1, 2)),
        (images(dtype=np.int64), (1, 6, 5), lambda a: a[:, None].astype(np.uint8)),
    ],
)
def test_the_three_layouts(tmp_path, stored, shape, expected):
    data = load_dataset(saved(tmp_path / "set.npz", images=stored, labels=LABELS))
    assert data.name == "set"
    assert data.class_names == ("0", "1")
    assert data.image_shape == shape
    wanted = sorted((image.tobytes(), int(label)) for image, label in zip(expected(stored), LABELS, strict=True))
    assert everything(data) == wanted


def test_reals_from_0_to_1_become_bytes(tmp_path):
    bytes_ = images()
    for dtype in (np.float32, np.float64):
        data = load_dataset(saved(tmp_path / "a.npz", images=(bytes_ / 255).astype(dtype), labels=LABELS))
        assert everything(data) == sorted((i.tobytes(), int(label)) for i, label in zip(bytes_, LABELS, strict=True))


def test_sixteen_bits_are_equalised_image_by_image(tmp_path):
    deep = np.zeros((20, 2, 2), np.uint16)
    for index in range(20):
        deep[index] = [[index, 100 + index], [100 + index, 60000]]
    data = load_dataset(saved(tmp_path / "a.npz", images=deep, labels=LABELS))
    assert np.unique(data.train.images, axis=0).tolist() == [[[[0, 170], [170, 255]]]]


def test_given_splits_and_names_are_kept(tmp_path):
    split = np.array(["train"] * 10 + ["val"] * 4 + ["test"] * 6)
    stored = images()
    path = saved(tmp_path / "a.npz", images=stored, labels=LABELS, split=split, class_names=np.array(["no", "yes"]))
    data = load_dataset(path, seed=5)
    assert data.class_names == ("no", "yes")
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [10, 4, 6]
    assert {image.tobytes() for image in data.test.images} == {image.tobytes() for image in stored[14:]}
    assert data.provenance["split"] == "as given by the source"


def test_a_missing_val_is_drawn_from_train(tmp_path):
    split = np.array(["train"] * 14 + ["test"] * 6)
    stored = images()
    data = load_dataset(saved(tmp_path / "a.npz", images=stored, labels=LABELS, split=split))
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [12, 2, 6]
    assert "drawn from its train with seed 0: 15% val" in data.provenance["split"]


def test_exact_copies_are_on_one_side(tmp_path):
    stored = np.repeat(images((10, 6, 5)), 4, axis=0)
    data = load_dataset(saved(tmp_path / "a.npz", images=stored, labels=np.arange(40) // 20))
    sides = [{image.tobytes() for image in data.split(split).images} for split in ("train", "val", "test")]
    assert sum(len(side) for side in sides) == len(sides[0] | sides[1] | sides[2]) == 10


def test_groups_stay_together_and_are_not_told(tmp_path):
    groups = np.array([f"Jane Doe {index // 2}" for index in range(20)])
    stored = images()
    data = load_dataset(saved(tmp_path / "a.npz", images=stored, labels=np.arange(20) // 10, groups=groups))
    sides = {}
    for name in ("train", "val", "test"):
        for image in data.split(name).images:
            index = next(i for i in range(20) if stored[i].tobytes() == image.tobytes())
            sides.setdefault(groups[index], set()).add(name)
    assert all(len(side) == 1 for side in sides.values())
    assert "all images of a group are on one side" in data.provenance["split"]
    assert "Jane" not in str(data.provenance)


def test_a_group_in_both_train_and_test_is_warned_of(tmp_path):
    split = np.array(["train"] * 10 + ["val"] * 4 + ["test"] * 6)
    groups = np.array([*range(18), 0, 1])
    path = saved(tmp_path / "a.npz", images=images(), labels=LABELS, split=split, groups=groups)
    assert load_dataset(path).provenance["warnings"] == [
        "2 groups have images in both train and test; the figures will be too good"
    ]


def test_copies_between_train_and_test_are_counted(tmp_path):
    stored = images()
    stored[15:17] = stored[:2]
    split = np.array(["train"] * 10 + ["val"] * 4 + ["test"] * 6)
    data = load_dataset(saved(tmp_path / "a.npz", images=stored, labels=LABELS, split=split))
    assert data.provenance["warnings"] == ["2 test images are also in train, pixel for pixel"]


def test_size_and_channels(tmp_path):
    path = saved(tmp_path / "a.npz", images=images(), labels=LABELS)
    assert load_dataset(path, image_size=4, channels=3).image_shape == (3, 4, 4)


def nan_images():
    values = np.zeros((20, 2, 2))
    values[3, 1, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"images": images()}, "no array 'labels', only 'images'; 'images' and 'labels' are needed"),
        ({"images": images((20, 6)), "labels": LABELS}, r"images of shape \(20, 6\)"),
        ({"images": images((20, 2, 6, 5)), "labels": LABELS}, r"images of shape \(20, 2, 6, 5\)"),
        (
            {"images": images((0, 6, 5)), "labels": LABELS[:0]},
            r"no images \(shape \(0, 6, 5\)\); three splits need at least one each",
        ),
        ({"images": images(), "labels": LABELS[:19]}, r"labels are int64 of shape \(19,\); integers \(20,\)"),
        ({"images": images(), "labels": LABELS / 2}, "labels are float64"),
        ({"images": images(), "labels": LABELS - 1}, "labels from -1 to 0; number the classes"),
        ({"images": images(), "labels": LABELS * 30}, "labels from 0 to 30; number the classes"),
        ({"images": images(), "labels": LABELS * 2}, "class '1' has no image"),
        ({"images": images(), "labels": LABELS * 0}, "1 class names; at least two"),
        (
            {"images": images(), "labels": LABELS, "class_names": np.array(["a", "a"])},
            "2 class names; at least two diff",
        ),
        ({"images": images(), "labels": LABELS * 2, "class_names": np.array(["a", "b"])}, "label 2 at index 1"),
        ({"images": images(), "labels": LABELS, "split": np.array(["dev"] * 20)}, "split of image 0 is none of train"),
        ({"images": images(), "labels": LABELS, "split": np.array(["test"] * 20)}, "no image of split 'train'"),
        ({"images": images(), "labels": LABELS, "split": np.array(["train"] * 3)}, r"split: <U5 of shape \(3,\)"),
        ({"images": images(), "labels": LABELS, "groups": np.zeros(20)}, r"groups: float64 of shape \(20,\)"),
        ({"images": nan_images(), "labels": LABELS}, "1 of 80 pixels are NaN or infinite"),
        ({"images": images() / 200, "labels": LABELS}, r"reals from 0 to 1\.\d+; 0 to 1 are needed"),
        (
            {"images": images().astype(np.int32) * 300, "labels": LABELS},
            "int32 from 0 to .*; save them as uint8 or uint16",
        ),
        ({"images": images().astype(complex), "labels": LABELS}, "of kind complex128"),
        ({"images": images((2, 6, 5)), "labels": LABELS[:2]}, "too few images for a val split"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, content, match):
    with pytest.raises(DataError, match=match) as caught:
        load_dataset(saved(tmp_path / "set.npz", **content))
    assert "set" in str(caught.value)


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    uneven = np.empty(2, object)
    uneven[:] = [Trap(), Trap()]
    path = saved(tmp_path / "set.npz", images=uneven, labels=LABELS[:2])
    with pytest.raises(DataError, match=r"images\.npy holds Python objects \(images of unequal size\?\)"):
        load_dataset(path)


def test_no_archive_and_a_cut_one(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"a\.npz: not a readable \.npz file \(BadZipFile\)"):
        load_dataset(str(tmp_path / "a.npz"))
    path = tmp_path / "b.npz"
    np.savez_compressed(path, images=images(), labels=LABELS)
    content = bytearray(path.read_bytes())
    content[150:400] = bytes(250)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.npz: (damaged|not a readable)"):
        load_dataset(str(path))


def test_an_array_bomb_is_refused_from_its_header(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.npz", images=images(), labels=LABELS)
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 599)
    with pytest.raises(DataError, match=r"images\.npy unpacks to more than 599 bytes"):
        load_dataset(path)


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "a.npz"
    saved(path, images=images(), labels=LABELS)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["images.npy"] = members["images.npy"].replace(b"(20, 6, 5)", b"(2000,6,5)")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"a\.npz: damaged or cut short"):
        load_dataset(str(path))
