import gzip
import hashlib
import json
import struct

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gascnn.toolkit.data import DATASET_NAMES, arrays, describe_datasets, load_dataset, user_cache
from gascnn.toolkit.data.named import MNIST_FILES, mias_split
from gascnn.toolkit.data.sources import load_sources
from gascnn.toolkit.errors import DataError

SPLITS = ("train", "val", "test")
BRAIN_CLASSES = ["glioma", "meningioma", "pituitary", "notumor"]


def idx(array):
    return gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture(scope="module")
def mnist_arrays():
    rng = np.random.default_rng(0)
    counts = (5003, 40)
    return [
        array
        for count in counts
        for array in (
            rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            (np.arange(count) % 10).astype(np.uint8),
        )
    ]


def write_idx(folder, arrays_):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(MNIST_FILES, arrays_, strict=True):
        (folder / name).write_bytes(idx(array))


def write_brain(path, **changes):
    count = 24
    content = {
        "images": np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8),
        "labels": (np.arange(count) % 4).astype(np.uint8),
        "split": np.array((["train"] * 3 + ["val"] + ["test"] * 2) * 4),
        "source": np.array([f"figshare:{index}" for index in range(count)]),
        "class_names": np.array(BRAIN_CLASSES),
    }
    content |= changes
    np.savez(path, **content)
    return content


def write_mias(path, count=322, **changes):
    content = {
        "images": np.random.default_rng(0).integers(0, 256, (count, 4, 4), dtype=np.uint8),
        "labels": (np.arange(count) % 3).astype(np.uint8),
        "ref": np.array([f"mdb{film:03d}" for film in range(1, count + 1)]),
    }
    content |= changes
    np.savez(path, **content)
    return content


def test_digits_are_those_of_scikit_learn():
    data = load_dataset("digits")
    assert data.image_shape == (1, 8, 8)
    assert data.class_names == tuple("0123456789")
    assert [len(data.split(split)) for split in SPLITS] == [1259, 269, 269]
    bunch = load_digits()
    wanted = sorted(
        (np.floor(image * 255 / 16 + 0.5).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    found = sorted(
        (image.tobytes(), int(label))
        for split in SPLITS
        for image, label in zip(data.split(split).images, data.split(split).labels, strict=True)
    )
    assert found == wanted
    assert data.test.images.max() == 255


def test_the_split_of_digits_is_fixed():
    data = load_dataset("digits")
    other = load_dataset("digits", seed=9)
    np.testing.assert_array_equal(data.test.images, other.test.images)
    # by the definition: the first 15 % of each class in the order of SHA-256("0/digits/index") are test
    targets = load_digits().target
    order = sorted(np.flatnonzero(targets == 3), key=lambda i: hashlib.sha256(f"0/digits/{i}".encode()).digest())
    images = (load_digits().images * 255 / 16 + 0.5).astype(np.uint8)
    expected = {images[index].tobytes() for index in order[: round(0.15 * len(order))]}
    assert {image.tobytes() for image in data.test.images[data.test.labels == 3]} == expected
    assert len(set(data.test.take(20).labels.tolist())) >= 7


def test_provenance_is_complete_and_json_ready():
    provenance = load_dataset("digits", image_size=16, channels=3).provenance
    text = json.dumps(provenance)
    assert provenance["licence"].startswith("CC BY 4.0")
    assert "writers are not known" in provenance["split"]
    assert "scaled to 16x16" in provenance["preprocessing"]
    assert "3 channels" in provenance["preprocessing"]
    assert sum(map(sum, provenance["images_per_class"].values())) == 1797
    assert len(provenance["sha256"]["pixels and labels"]) == 64
    assert provenance["warnings"] == []
    assert str(user_cache()) not in text


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
def test_mnist_from_the_original_files(tmp_path, mnist_arrays, place):
    write_idx(tmp_path / place, mnist_arrays)
    data = load_dataset("mnist", data_dir=tmp_path)
    assert [len(data.split(split)) for split in SPLITS] == [3, 5000, 40]
    np.testing.assert_array_equal(data.train.images[:, 0], mnist_arrays[0][:3])
    np.testing.assert_array_equal(data.val.images[:, 0], mnist_arrays[0][3:])
    np.testing.assert_array_equal(data.test.images[:, 0], mnist_arrays[2])
    np.testing.assert_array_equal(data.val.labels, mnist_arrays[1][3:])
    digest = hashlib.sha256((tmp_path / place / MNIST_FILES[0]).read_bytes()).hexdigest()
    assert data.provenance["sha256"][MNIST_FILES[0]] == digest
    assert "40 of its own 10000 test images" in data.provenance["split"]


def test_mnist_from_npz_and_the_originals_go_first(tmp_path, mnist_arrays):
    flipped = dict(zip(("x_train", "y_train", "x_test", "y_test"), mnist_arrays, strict=True))
    flipped["x_test"] = 255 - mnist_arrays[2]
    np.savez_compressed(tmp_path / "mnist.npz", **flipped)
    found = load_dataset("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(found.test.images[:, 0], 255 - mnist_arrays[2])
    write_idx(tmp_path / "mnist", mnist_arrays)
    np.testing.assert_array_equal(load_dataset("mnist", data_dir=tmp_path).test.images[:, 0], mnist_arrays[2])


def test_mnist_that_is_not_what_it_should_be(tmp_path, mnist_arrays, monkeypatch):
    write_idx(tmp_path, mnist_arrays)
    images = tmp_path / MNIST_FILES[0]
    whole = images.read_bytes()
    images.write_bytes(whole[:-2000])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: damaged or cut short"):
        load_dataset("mnist", data_dir=tmp_path)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not the 3922352 values its header announces"):
        load_dataset("mnist", data_dir=tmp_path)
    images.write_bytes(idx(mnist_arrays[1]))
    with pytest.raises(DataError, match=r"train-images.*: not an IDX file of bytes with 3 axes"):
        load_dataset("mnist", data_dir=tmp_path)
    images.write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"train-images.*: not a readable IDX file"):
        load_dataset("mnist", data_dir=tmp_path)
    images.write_bytes(idx(mnist_arrays[0][:4000]))
    with pytest.raises(DataError, match=r"images uint8 \(4000, 28, 28\), labels uint8 \(5003,\)"):
        load_dataset("mnist", data_dir=tmp_path)
    images.write_bytes(whole)
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 1000)
    with pytest.raises(DataError, match=r"\(5003, 28, 28\) values announced"):
        load_dataset("mnist", data_dir=tmp_path)


def test_mnist_with_too_few_training_images_or_other_labels(tmp_path, mnist_arrays):
    few = [array[:50] for array in mnist_arrays]
    write_idx(tmp_path, few)
    with pytest.raises(DataError, match="50 training images; more than 5000 needed"):
        load_dataset("mnist", data_dir=tmp_path)
    mnist_arrays = [array.copy() for array in mnist_arrays]
    mnist_arrays[3][7] = 10
    write_idx(tmp_path, mnist_arrays)
    with pytest.raises(DataError, match="label 10 at index 7"):
        load_dataset("mnist", data_dir=tmp_path)


def test_brain_mri_keeps_the_split_of_its_file(tmp_path):
    content = write_brain(tmp_path / "brain_mri_combined.npz")
    data = load_dataset("brain-mri", data_dir=tmp_path)
    assert data.class_names == tuple(BRAIN_CLASSES)
    for split in SPLITS:
        mask = content["split"] == split
        wanted = {
            (image.tobytes(), int(label))
            for image, label in zip(content["images"][mask], content["labels"][mask], strict=True)
        }
        ours = data.split(split)
        assert {(image.tobytes(), int(label)) for image, label in zip(ours.images, ours.labels, strict=True)} == wanted
    assert "by patient as far as known" in data.provenance["split"]
    assert data.provenance["images_as_published"] is False


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"class_names": np.array(["a", "b", "c", "d"])}, "not the combined brain set; run: gascnn data fetch"),
        ({"split": np.array(["train"] * 3)}, "not the combined brain set"),
        ({"labels": np.full(24, 4)}, "label 4 at index 0"),
        ({"images": np.zeros((24, 8, 8))}, "images float64"),
    ],
)
def test_a_brain_file_of_another_kind_is_refused(tmp_path, changes, match):
    write_brain(tmp_path / "brain_mri_combined.npz", **changes)
    with pytest.raises(DataError, match=rf"brain_mri_combined\.npz: {match}"):
        load_dataset("brain-mri", data_dir=tmp_path)


def test_mias_pairs_stay_together_by_the_stated_hash(tmp_path):
    content = write_mias(tmp_path / "mias.npz")
    data = load_dataset("mias", data_dir=tmp_path)
    assert data.class_names == ("normal", "benign", "malignant")
    for split in SPLITS:
        wanted = set()
        for film in range(1, 323):
            pair = (film + 1) // 2
            x = int(hashlib.sha256(f"mias pair {pair}".encode()).hexdigest()[:8], 16) / 2**32
            if ("train" if x < 0.70 else "val" if x < 0.85 else "test") == split:
                wanted.add(content["images"][film - 1].tobytes())
        assert {image.tobytes() for image in data.split(split).images} == wanted
    assert [len(data.split(split)) for split in SPLITS] == [240, 34, 48]
    assert all(mias_split(2 * pair - 1) == mias_split(2 * pair) for pair in range(1, 162))
    assert "research purposes only" in data.provenance["licence"]


def test_a_mias_file_of_another_kind_is_refused(tmp_path):
    write_mias(tmp_path / "mias.npz", ref=np.array(["film"] * 322))
    with pytest.raises(DataError, match="film references are not of the form mdb001"):
        load_dataset("mias", data_dir=tmp_path)
    write_mias(tmp_path / "mias.npz", ref=np.array(["mdb001"]))
    with pytest.raises(DataError, match="1 films for 322 labels"):
        load_dataset("mias", data_dir=tmp_path)


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    given, environment = tmp_path / "given", tmp_path / "environment"
    for level, place in ((1, user_cache()), (2, environment), (3, given)):
        place.mkdir(parents=True)
        write_mias(place / "mias.npz", images=np.full((322, 4, 4), level, np.uint8))
        if place == environment:
            monkeypatch.setenv("GASCNN_DATA", str(environment))
        found = load_dataset("mias", data_dir=given)
        assert int(found.train.images[0, 0, 0, 0]) == level
    assert int(load_dataset("mias").train.images[0, 0, 0, 0]) == 2


def test_the_cache_is_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert user_cache() == tmp_path / "x" / "gascnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "gascnn"


@pytest.mark.parametrize("name", ["mnist", "brain-mri", "mias"])
def test_a_missing_set_names_the_places_and_the_remedy(tmp_path, monkeypatch, name):
    monkeypatch.setenv("GASCNN_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError) as caught:
        load_dataset(name, data_dir=tmp_path / "dir")
    message = str(caught.value)
    places = [str(tmp_path / "dir"), str(tmp_path / "env"), str(user_cache())]
    assert all(place in message for place in places)
    assert message.index(places[0]) < message.index(places[1]) < message.index(places[2])
    assert message.endswith(f"run: gascnn data fetch {name}")


def test_the_list_tells_what_is_there(tmp_path, mnist_arrays):
    write_idx(tmp_path / "mnist", mnist_arrays)
    write_brain(tmp_path / "brain_mri_combined.npz")
    (tmp_path / "mias.npz").write_bytes(b"broken")
    found = {entry.name: entry for entry in describe_datasets(tmp_path)}
    assert tuple(found) == DATASET_NAMES == ("digits", "mnist", "brain-mri", "mias")
    assert found["digits"].present
    assert found["digits"].path is None
    assert found["digits"].looked_in == ()
    assert found["digits"].images == {"train": 1259, "val": 269, "test": 269}
    assert found["mnist"].images == {"train": 3, "val": 5000, "test": 40}
    assert found["mnist"].path == tmp_path / "mnist"
    assert found["brain-mri"].images == {"train": 12, "val": 4, "test": 8}
    assert found["brain-mri"].path == tmp_path / "brain_mri_combined.npz"
    assert not found["mias"].present
    assert "not a readable .npz file" in found["mias"].problem
    assert found["mias"].looked_in == (tmp_path, user_cache())


def test_the_list_tells_what_is_missing(tmp_path):
    found = {entry.name: entry for entry in describe_datasets(tmp_path)}
    assert [name for name, entry in found.items() if entry.present] == ["digits"]
    assert found["mnist"].path is None
    assert found["mnist"].problem is None
    assert found["mnist"].download_bytes == 9912422 + 28881 + 1648877 + 4542
    assert all(entry.licence and entry.origin and entry.citation for entry in found.values())


def test_every_name_has_a_source_and_its_terms():
    assert tuple(load_sources()) == DATASET_NAMES


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"scikit-learn is not installed .* pip install 'gascnn\[train\]'"):
        load_dataset("digits")
