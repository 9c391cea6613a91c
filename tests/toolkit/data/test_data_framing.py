import numpy as np
import pytest
from PIL import Image

from gascnn.toolkit.data import load_dataset, load_folder_images
from gascnn.toolkit.data.pixels import convert_stack
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.framing import foreground


def head(top, left, height, width, size=40, level=120):
    """A gray block on black, a few speckles beside it."""
    image = np.zeros((size, size), np.uint8)
    image[top : top + height, left : left + width] = level
    image[0, 0] = image[-1, 3] = level
    return image


def test_the_square_around_the_foreground_by_hand():
    # 10 rows, 20 columns: a square of 20, five rows of black above and below; 120 becomes 255.
    found = foreground(head(12, 8, 10, 20), head(12, 8, 10, 20))
    assert found.shape == (20, 20)
    expected = np.zeros((20, 20), np.uint8)
    expected[5:15] = 255
    np.testing.assert_array_equal(found, expected)


def test_a_square_that_reaches_beyond_the_image_is_filled_with_black():
    image = head(0, 2, 4, 30)
    image[0, 0] = image[-1, 3] = 0
    found = foreground(image, image)
    assert found.shape == (30, 30)
    # The square begins 13 rows above the image.
    assert found[13:17].min() == 255
    assert found[:13].max() == 0
    assert found[17:].max() == 0


def test_margin_and_brightness_make_no_difference():
    small = foreground(head(3, 5, 24, 24, level=80), head(3, 5, 24, 24, level=80))
    other = foreground(head(30, 41, 24, 24, 80, 200), head(30, 41, 24, 24, 80, 200))
    np.testing.assert_array_equal(small, other)


def test_brightness_is_a_quantile_not_the_maximum():
    image = np.full((100, 100), 100, np.uint8)
    image[0, :20] = 255  # 0.2 % of the pixels
    image[50:, :] = 50
    found = foreground(image, image)
    assert found[40, 40] == 255
    assert found[60, 40] == round(255 * 50 / 100)


@pytest.mark.parametrize("level", [0, 3, 255])
def test_flat_images_are_kept_whole(level):
    image = np.full((9, 9), level, np.uint8)
    found = foreground(image, image)
    assert found.shape == (9, 9)
    # Too dark to be stretched to white: a fifth of 255 at least becomes 255.
    assert found.max() == min(255, round(level * 255 / 51))


def test_colour_is_judged_in_gray_and_kept():
    rgb = np.zeros((1, 3, 20, 20), np.uint8)
    rgb[0, :, 5:15, 5:15] = np.array([200, 100, 50]).reshape(3, 1, 1)
    found = convert_stack(rgb, 10, None, "foreground")
    assert found.shape == (1, 3, 10, 10)
    # Its luma is 124; that becomes 255, so red 200 is cut off at 255.
    assert found[0, :, 4, 4].tolist() == [255, round(100 * 255 / 124), round(50 * 255 / 124)]
    assert (found[0, :, 0, 0] > 0).all()


def test_every_way_of_reading_frames_alike(tmp_path):
    rng = np.random.default_rng(0)
    images = np.stack([head(*rng.integers(2, 12, 2), 16, 20, level=int(rng.integers(60, 250))) for _ in range(24)])
    labels = np.arange(24) % 2
    np.savez(tmp_path / "set.npz", images=images, labels=labels, split=["train"] * 16 + ["val"] * 4 + ["test"] * 4)
    for index, image in enumerate(images[20:]):
        (tmp_path / "scans").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "scans" / f"{index}.png")
    framed = load_dataset(str(tmp_path / "set.npz"), image_size=12, framing="foreground")
    assert "foreground" in framed.provenance["preprocessing"]
    _, scans = load_folder_images(tmp_path / "scans", (1, 12, 12), "foreground")
    assert {i.tobytes() for i in scans} == {i.tobytes() for i in framed.test.images}
    whole = load_dataset(str(tmp_path / "set.npz"), image_size=12)
    assert not np.array_equal(whole.test.images, framed.test.images)
    for name in ("healthy", "ill"):
        (tmp_path / "folder" / name).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(tmp_path / "folder" / ("healthy", "ill")[label] / f"{index}.png")
    folder = load_dataset(str(tmp_path / "folder"), image_size=12, framing="foreground")
    every = np.concatenate([folder.train.images, folder.val.images, folder.test.images])
    assert {i.tobytes() for i in framed.train.images} <= {i.tobytes() for i in every}


def test_an_unknown_framing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="framing 'half': one of whole, foreground is needed"):
        load_dataset("digits", framing="half")
    with pytest.raises(UsageError, match="framing 'half'"):
        load_folder_images(tmp_path, (1, 8, 8), "half")
