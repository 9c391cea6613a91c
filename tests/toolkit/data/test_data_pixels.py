import numpy as np
import pytest
from PIL import Image

from gascnn.toolkit.data.pixels import (
    Frame,
    convert_stack,
    equalise,
    frame_from_rgb,
    luma,
    percentile_window,
    resize,
    stretch,
    to_uint8,
)
from gascnn.toolkit.errors import DataError


def equalised_by_definition(values):
    flat = values.ravel().tolist()
    darkest = flat.count(min(flat))
    return np.array(
        [round(255 * (sum(other <= value for other in flat) - darkest) / (len(flat) - darkest)) for value in flat]
    ).reshape(values.shape)


def test_equalise_by_hand():
    # cdf 1, 3, 4 of 4 pixels: (1-1)/3, (3-1)/3, (4-1)/3 of 255
    assert equalise(np.array([[0, 100], [100, 65535]], np.uint16)).tolist() == [[0, 170], [170, 255]]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32])
def test_equalise_follows_its_definition_for_every_depth(dtype):
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(info.min, info.max, (7, 9), dtype=dtype)
    values[2] = values[0, 0]
    np.testing.assert_array_equal(equalise(values), equalised_by_definition(values))


def test_equalise_keeps_the_order_and_uses_the_whole_range():
    values = np.random.default_rng(1).normal(900, 60, (64, 64)).astype(np.uint16)
    out = equalise(values)
    order = np.argsort(values, axis=None)
    assert np.all(np.diff(out.ravel()[order].astype(int)) >= 0)
    assert (out.min(), out.max()) == (0, 255)
    # a flat histogram has mean 127.5
    assert abs(out.mean() - 127.5) < 3


def test_a_constant_image_becomes_black():
    assert not equalise(np.full((3, 3), 77, np.uint16)).any()
    assert not percentile_window(np.full((3, 3), 0.7)).any()


def test_stretch_clips_and_rounds():
    assert stretch(np.array([-5.0, 0, 2.5, 5, 10, 11]), 0, 10).tolist() == [0, 0, 64, 128, 255, 255]


def test_percentile_window_by_hand():
    # of 0..100 the 1st percentile is 1 and the 99th 99
    out = percentile_window(np.arange(101, dtype=np.float32))
    assert out[[0, 1, 50, 99, 100]].tolist() == [0, 0, 128, 255, 255]


def test_percentile_window_of_a_few_bright_pixels_falls_back_to_the_whole_range():
    values = np.zeros(1000)
    values[0] = 4.0
    assert percentile_window(values)[[0, 1]].tolist() == [255, 0]


def test_eight_bits_stay_and_deeper_ones_do_not():
    eight = np.array([[3, 250]], np.uint8)
    assert to_uint8(eight) is eight
    assert to_uint8(np.array([[True, False]])).tolist() == [[255, 0]]
    assert to_uint8(np.array([[3, 250]], np.uint16)).tolist() == [[0, 255]]


def test_numbers_that_are_no_intensity_are_refused():
    with pytest.raises(DataError, match="2 of 4 pixels are NaN or infinite"):
        to_uint8(np.array([0.0, np.nan, np.inf, 1]))
    with pytest.raises(DataError, match="complex128"):
        to_uint8(np.zeros(2, complex))


def test_shrinking_averages_boxes():
    image = np.array([[0, 4, 100, 200], [8, 12, 100, 200]], np.uint8)
    assert resize(image, 1, 2).tolist() == [[6, 150]]


def test_growing_interpolates_linearly():
    # twice the width: centres at 0.25, 0.75, 1.25, 1.75 of pixels centred at 0.5 and 1.5
    assert resize(np.array([[0, 100]], np.uint8), 1, 4).tolist() == [[0, 25, 75, 100]]


def test_each_axis_has_its_own_filter():
    image = np.array([[0, 100], [50, 150]], np.uint8)
    assert resize(image, 1, 4).tolist() == [[25, 50, 100, 125]]
    assert resize(image, 2, 2) is image


def test_frame_knows_whether_it_is_colour():
    gray = np.random.default_rng(0).integers(0, 256, (4, 5), dtype=np.uint8)
    frame = frame_from_rgb(np.repeat(gray[..., None], 3, axis=2))
    assert frame.color is None
    np.testing.assert_array_equal(frame.channels(1), gray[None])
    np.testing.assert_array_equal(frame.channels(3), np.stack([gray] * 3))
    rgb = np.zeros((1, 1, 3), np.uint8)
    rgb[0, 0] = (200, 100, 50)
    colored = frame_from_rgb(rgb)
    assert colored.channels(3)[:, 0, 0].tolist() == [200, 100, 50]
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert colored.channels(1).tolist() == [[[124]]]


def test_frame_is_scaled_in_gray_and_colour():
    rgb = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    small = Frame(luma(rgb), rgb).resized(2, 2)
    assert small.gray.shape == (2, 2)
    expected = np.asarray(Image.fromarray(rgb).resize((2, 2), Image.Resampling.BOX))
    np.testing.assert_array_equal(small.channels(3), expected.transpose(2, 0, 1))


def test_stack_is_scaled_and_recoloured():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 8), dtype=np.uint8)
    small = convert_stack(images, 3, 1)
    assert small.shape == (5, 1, 3, 3)
    gray = Image.fromarray(images[4].transpose(1, 2, 0)).convert("L").resize((3, 3), Image.Resampling.BOX)
    np.testing.assert_array_equal(small[4, 0], np.asarray(gray))
    tripled = convert_stack(small, None, 3)
    assert tripled.shape == (5, 3, 3, 3)
    np.testing.assert_array_equal(tripled[:, 2], small[:, 0])
    np.testing.assert_array_equal(convert_stack(images, None, None), images)
