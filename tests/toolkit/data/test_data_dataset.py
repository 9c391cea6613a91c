import numpy as np
import pytest

from gascnn.toolkit.data import Dataset, ImageSet
from gascnn.toolkit.errors import DataError, UsageError


def image_set(count=4, shape=(1, 2, 2), labels=None):
    images = np.arange(count * int(np.prod(shape)), dtype=np.uint8).reshape(count, *shape)
    return ImageSet(images, np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64))


def test_take_gives_the_first_images_in_order():
    full = image_set(4, labels=[3, 1, 2, 0])
    part = full.take(2)
    assert len(full) == 4
    assert len(part) == 2
    assert part.labels.tolist() == [3, 1]
    np.testing.assert_array_equal(part.images[1], [[[4, 5], [6, 7]]])
    assert full.take(None) is full
    assert full.take(9) is full


def test_take_refuses_nothing_at_all():
    with pytest.raises(UsageError, match="limit 0: at least one image"):
        image_set().take(0)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.zeros((2, 1, 2, 2), np.float32), "float32 of shape"),
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\)"),
        (np.zeros((2, 4, 2, 2), np.uint8), r"shape \(2, 4, 2, 2\)"),
    ],
)
def test_image_set_refuses_other_arrays(images, match):
    with pytest.raises(DataError, match=match):
        ImageSet(images, np.zeros(2, np.int64))


@pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.zeros(2, np.int32), np.zeros((2, 1), np.int64)])
def test_image_set_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(DataError, match=r"int64 \(2,\) is needed"):
        ImageSet(np.zeros((2, 1, 2, 2), np.uint8), labels)


def test_dataset_knows_its_shape_and_splits():
    data = Dataset("d", ("a", "b"), image_set(3, (3, 4, 5)), image_set(1, (3, 4, 5)), image_set(2, (3, 4, 5)))
    assert data.image_shape == (3, 4, 5)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [3, 1, 2]
    with pytest.raises(UsageError, match="split 'dev': one of train, val, test"):
        data.split("dev")


@pytest.mark.parametrize("label", [2, -1])
def test_dataset_refuses_a_label_without_a_class(label):
    with pytest.raises(DataError, match=rf"test split: label {label} at index 1; with 2 classes 0 to 1"):
        Dataset("d", ("a", "b"), image_set(), image_set(), image_set(2, labels=[0, label]))


def test_dataset_refuses_splits_of_different_shape():
    with pytest.raises(DataError, match="differ in image shape"):
        Dataset("d", ("a", "b"), image_set(), image_set(shape=(1, 3, 3)), image_set())
