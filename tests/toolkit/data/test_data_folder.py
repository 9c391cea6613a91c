import hashlib
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from gascnn.toolkit.data import load_dataset, load_folder_images
from gascnn.toolkit.data.folder import natural_key
from gascnn.toolkit.errors import DataError, UsageError


def levels(split):
    """The gray level of each image of one level, with its label."""
    return {(int(image[0, 0, 0]), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


def test_names_sort_as_people_count():
    assert sorted(["cls10", "cls2", "Cls1", "b", "2", "10"], key=natural_key) == [
        "2",
        "10",
        "b",
        "Cls1",
        "cls2",
        "cls10",
    ]


def test_one_folder_a_class(class_folder):
    data = load_dataset(str(class_folder))
    assert data.name == "twoclass"
    assert data.class_names == ("cls2", "cls10")
    assert data.image_shape == (1, 6, 8)
    together = levels(data.train) | levels(data.val) | levels(data.test)
    assert together == {(index, 1) for index in range(10)} | {(100 + index, 0) for index in range(10)}
    # round(0.15 * 10) = 2 of each class for test and for val
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        assert np.bincount(data.split(split).labels).tolist() == [count, count]


def test_the_split_is_that_of_the_files_hashes(class_folder):
    files = [hashlib.sha256((class_folder / "cls2" / f"i{i}.png").read_bytes()).hexdigest() for i in range(10)]
    order = sorted(range(10), key=lambda i: hashlib.sha256(f"0/file {files[i]}".encode()).digest())
    data = load_dataset(str(class_folder))
    assert {level for level, label in levels(data.test) if label == 0} == {100 + index for index in order[:2]}
    assert {level for level, label in levels(data.val) if label == 0} == {100 + index for index in order[2:4]}


def test_the_split_depends_on_the_seed_and_not_on_the_place(class_folder, tmp_path):
    first = load_dataset(str(class_folder))
    shutil.move(class_folder, tmp_path / "elsewhere")
    moved = load_dataset(str(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(moved.train.images, first.train.images)
    assert moved.provenance["sha256"] == first.provenance["sha256"]
    other = load_dataset(str(tmp_path / "elsewhere"), seed=1)
    assert levels(other.test) != levels(first.test)


def test_exact_copies_are_on_one_side(class_folder):
    for index in range(10):
        for copy in range(3):
            shutil.copy(class_folder / "cls2" / f"i{index}.png", class_folder / "cls2" / f"copy{copy}-{index}.png")
    data = load_dataset(str(class_folder))
    sides = [{level for level, label in levels(data.split(split)) if label == 0} for split in ("train", "val", "test")]
    assert sum(len(side) for side in sides) == len(sides[0] | sides[1] | sides[2]) == 10
    assert data.provenance["warnings"] == []


def test_the_hash_covers_the_content(class_folder, write_gray):
    before = load_dataset(str(class_folder)).provenance["sha256"]
    write_gray(class_folder / "cls2" / "i3.png", 77)
    assert load_dataset(str(class_folder)).provenance["sha256"] != before


def test_the_first_images_are_of_both_classes(class_folder):
    assert set(load_dataset(str(class_folder)).train.take(6).labels.tolist()) == {0, 1}


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Validation", "Testing")])
def test_splits_on_top(tmp_path, write_gray, names):
    for position, name in enumerate(names):
        for code, class_name in enumerate(("a", "b")):
            for index in range(3):
                write_gray(tmp_path / "s" / name / class_name / f"{index}.png", 100 * code + 10 * position + index)
    data = load_dataset(str(tmp_path / "s"))
    for position, split in enumerate(("train", "val", "test")):
        assert levels(data.split(split)) == {
            (100 * code + 10 * position + index, code) for code in range(2) for index in range(3)
        }
    assert data.provenance["split"] == "as given by the source"


def test_a_missing_val_folder_is_drawn_from_train(tmp_path, class_folder, write_gray):
    shutil.move(class_folder, tmp_path / "s" / "train")
    for name in ("cls2", "cls10"):
        write_gray(tmp_path / "s" / "test" / name / "t.png", 200)
    data = load_dataset(str(tmp_path / "s"))
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [16, 4, 2]
    assert levels(data.test) == {(200, 0), (200, 1)}


def test_images_in_deeper_folders_belong_to_the_class(tmp_path, class_folder):
    deep = class_folder / "cls2" / "patient" / "series"
    deep.mkdir(parents=True)
    (class_folder / "cls2" / "i0.png").rename(deep / "x.png")
    assert sum(load_dataset(str(class_folder)).provenance["images_per_class"]["train"]) == 12


def test_what_usually_lies_beside_images_is_passed_over(class_folder):
    for name in (".DS_Store", "._i0.png", "labels.csv", "README", "Thumbs.db", "notes.TXT"):
        (class_folder / "cls2" / name).write_bytes(b"x")
    (class_folder / "about.txt").write_text("x")
    (class_folder / ".git").mkdir()
    assert len(load_dataset(str(class_folder)).train) == 12


@pytest.mark.parametrize("name", ["broken.png", "broken.jpg", "broken.dcm", "broken.nii.gz"])
def test_one_unreadable_file_stops_everything_and_is_named(class_folder, name):
    (class_folder / "cls2" / name).write_bytes(b"\x89PNG\r\n\x1a\n rest of a picture")
    with pytest.raises(DataError, match=rf"cls2/{name}: "):
        load_dataset(str(class_folder))


def test_an_unknown_file_is_named(class_folder):
    (class_folder / "cls2" / "scan.mha").write_bytes(b"x" * 200)
    with pytest.raises(DataError, match=r"scan\.mha: not an image of a kind that is read \(PNG, JPEG"):
        load_dataset(str(class_folder))


def test_folders_that_cannot_be_used(tmp_path, class_folder, write_gray):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"empty: no sub-folders; one folder of images for each class"):
        load_dataset(str(empty))
    write_gray(tmp_path / "single" / "a" / "1.png")
    with pytest.raises(DataError, match=r"single: 1 class; at least two class folders"):
        load_dataset(str(tmp_path / "single"))
    (class_folder / "cls3").mkdir()
    with pytest.raises(DataError, match=r"cls3: class folder without images"):
        load_dataset(str(class_folder))


def test_splits_on_top_that_cannot_be_used(tmp_path, write_gray):
    write_gray(tmp_path / "a" / "test" / "x" / "1.png")
    write_gray(tmp_path / "a" / "val" / "x" / "1.png")
    with pytest.raises(DataError, match="folders for splits but no train folder"):
        load_dataset(str(tmp_path / "a"))
    for split, name in (("train", "x"), ("train", "y"), ("test", "z")):
        write_gray(tmp_path / "b" / split / name / "1.png")
    with pytest.raises(DataError, match="class 'z' has no folder under train"):
        load_dataset(str(tmp_path / "b"))
    write_gray(tmp_path / "c" / "train" / "x" / "1.png")
    (tmp_path / "c" / "test").mkdir()
    with pytest.raises(DataError, match=r"c/test: no class folders in it"):
        load_dataset(str(tmp_path / "c"))


def test_too_few_images_for_a_split(tmp_path, write_gray):
    for name in ("a", "b"):
        for index in range(2):
            write_gray(tmp_path / "s" / name / f"{index}.png", index)
    with pytest.raises(DataError, match="s: too few images for a val split"):
        load_dataset(str(tmp_path / "s"))


def test_images_of_several_sizes_need_one(class_folder, write_gray):
    write_gray(class_folder / "cls2" / "large.png", size=(20, 10))
    with pytest.raises(DataError, match=r"images of 2 sizes \(8x6 and 20x10, for example\); give one"):
        load_dataset(str(class_folder))
    assert load_dataset(str(class_folder), image_size=4).image_shape == (1, 4, 4)


def test_the_majority_decides_on_colour_unless_told(class_folder, write_gray):
    colour = np.zeros((6, 8, 3), np.uint8)
    colour[..., 0] = 90
    for index in range(10):
        write_gray(class_folder / "cls2" / f"i{index}.png", colour)
    # ten of twenty are no majority
    assert load_dataset(str(class_folder)).image_shape == (1, 6, 8)
    write_gray(class_folder / "cls10" / "i0.png", colour)
    data = load_dataset(str(class_folder))
    assert data.image_shape == (3, 6, 8)
    assert {tuple(image[:, 0, 0].tolist()) for image in data.train.images[data.train.labels == 0]} == {(90, 0, 0)}
    gray = load_dataset(str(class_folder), channels=1)
    # 0.299 * 90 = 26.9
    assert {level for level, label in levels(gray.train) if label == 0} == {27}


def test_colour_becomes_gray_before_it_is_scaled(class_folder, write_gray):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    write_gray(class_folder / "cls2" / "i0.png", rgb)
    expected = np.asarray(Image.fromarray(rgb).convert("L").resize((3, 3), Image.Resampling.BOX))
    data = load_dataset(str(class_folder), image_size=3)
    found = [image[0] for name in ("train", "val", "test") for image in data.split(name).images]
    assert any(np.array_equal(image, expected) for image in found)


def test_a_link_to_a_folder_is_followed_and_a_loop_refused(class_folder, tmp_path):
    (class_folder / "cls3").symlink_to(class_folder / "cls2", target_is_directory=True)
    assert load_dataset(str(class_folder)).class_names == ("cls2", "cls3", "cls10")
    (class_folder / "cls3").unlink()
    (class_folder / "cls2" / "round").symlink_to(class_folder / "cls2", target_is_directory=True)
    with pytest.raises(DataError, match=r"cls2/round: links back to a folder above itself"):
        load_dataset(str(class_folder))


def test_a_link_to_itself_or_to_nothing_is_named(class_folder):
    (class_folder / "cls2" / "self.png").symlink_to("self.png")
    with pytest.raises(DataError, match=r"self\.png: a link to nothing"):
        load_dataset(str(class_folder))


def test_slices_of_a_volume_stay_on_one_side(tmp_path):
    for code, name in enumerate(("a", "b")):
        for index in range(6):
            data = np.random.default_rng(10 * code + index).integers(0, 250, (4, 4, 8)).astype(np.uint8)
            data[0, 0] = 20 * code + index  # which volume a slice is of
            (tmp_path / "v" / name).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v" / name / f"{index}.nii.gz")
    data = load_dataset(str(tmp_path / "v"))
    owners = [set(data.split(split).images[:, 0, 0, 0].tolist()) for split in ("train", "val", "test")]
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [32, 8, 8]
    assert len(owners[0] | owners[1] | owners[2]) == sum(len(side) for side in owners) == 12
    assert "all slices of a file are on one side" in data.provenance["split"]


def test_unlabelled_images(tmp_path, write_gray):
    root = tmp_path / "new"
    for name in ("scan10.png", "scan2.png", "deep/x.png"):
        write_gray(root / name, int(name.count("0")) * 100)
    pages = [Image.fromarray(np.full((6, 8), level, np.uint8)) for level in (30, 40)]
    pages[0].save(root / "pages.tif", save_all=True, append_images=pages[1:])
    (root / "notes.txt").write_text("x")
    names, images = load_folder_images(root, (1, 4, 5))
    assert names == ["deep/x.png", "pages.tif#0", "pages.tif#1", "scan2.png", "scan10.png"]
    assert images.shape == (5, 1, 4, 5)
    assert images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [0, 30, 40, 0, 100]
    assert load_folder_images(root, (3, 4, 5))[1].shape == (5, 3, 4, 5)


def test_unlabelled_images_that_cannot_be_used(tmp_path, write_gray):
    with pytest.raises(DataError, match=r"gone: no folder there"):
        load_folder_images(tmp_path / "gone", (1, 4, 4))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no image in it"):
        load_folder_images(tmp_path / "empty", (1, 4, 4))
    write_gray(tmp_path / "one" / "a.png")
    with pytest.raises(UsageError, match=r"image shape \(2, 4, 4\)"):
        load_folder_images(tmp_path / "one", (2, 4, 4))
    (tmp_path / "one" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.png: unreadable"):
        load_folder_images(tmp_path / "one", (1, 4, 4))
