import io

import numpy as np
import PIL.Image
import pytest
from PIL import Image

from gascnn.toolkit.data.decoding import read_image, read_images
from gascnn.toolkit.errors import DataError

GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "A.TIFF"])
def test_gray_is_read_as_it_is(tmp_path, name):
    (frame,) = read_image(saved(tmp_path / name, Image.fromarray(GRAY))).frames
    np.testing.assert_array_equal(frame.gray, GRAY)
    assert frame.color is None


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(GRAY), quality=90)
    np.testing.assert_array_equal(read_image(path).frames[0].gray, np.asarray(Image.open(path)))


def test_colour_keeps_both_forms(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    (frame,) = read_image(saved(tmp_path / "a.png", Image.fromarray(rgb))).frames
    np.testing.assert_array_equal(frame.color, rgb)
    np.testing.assert_array_equal(frame.gray, np.asarray(Image.fromarray(rgb).convert("L")))


def test_gray_stored_as_colour_counts_as_gray(tmp_path):
    (frame,) = read_image(saved(tmp_path / "a.png", Image.fromarray(GRAY).convert("RGB"))).frames
    assert frame.color is None
    np.testing.assert_array_equal(frame.gray, GRAY)


def test_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    (frame,) = read_image(saved(tmp_path / "a.png", image)).frames
    assert frame.color.tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_one_bit_becomes_black_and_white(tmp_path):
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read_image(saved(tmp_path / "a.png", image)).frames[0].gray.tolist() == [[0, 255]]


def test_sixteen_bits_are_equalised(tmp_path):
    deep = np.array([[0, 100], [100, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        assert read_image(saved(tmp_path / name, Image.fromarray(deep))).frames[0].gray.tolist() == [
            [0, 170],
            [170, 255],
        ]


def test_real_numbers_get_a_percentile_window(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(np.arange(101, dtype=np.float32)[None]))
    assert read_image(path).frames[0].gray[0, [0, 1, 50, 99]].tolist() == [0, 0, 128, 255]


def test_nan_names_the_file(tmp_path):
    path = saved(tmp_path / "bad.tif", Image.fromarray(np.array([[0.0, np.nan]], np.float32)))
    with pytest.raises(DataError, match=r"bad\.tif: 1 of 2 pixels are NaN"):
        read_image(path)


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [("RGBA", (200, 100, 50, 0), 0), ("RGBA", (200, 200, 200, 128), 100), ("LA", (200, 128), 100)],
)
def test_transparency_lies_over_black(tmp_path, mode, pixel, expected):
    (frame,) = read_image(saved(tmp_path / "a.png", Image.new(mode, (2, 2), pixel))).frames
    assert frame.gray.tolist() == [[expected] * 2] * 2


def test_transparent_palette_entry_is_black(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([90, 90, 90, 200, 200, 200])
    path = saved(tmp_path / "a.png", image, transparency=0)
    assert read_image(path).frames[0].gray.tolist() == [[0, 200]]


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show the stored picture rotated by 90 degrees clockwise
    path = saved(tmp_path / "a.png", Image.fromarray(GRAY), exif=exif)
    np.testing.assert_array_equal(read_image(path).frames[0].gray, np.rot90(GRAY, -1))


def test_every_page_of_a_tiff_is_an_image(tmp_path):
    pages = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    first, second = read_image(tmp_path / "a.tif").frames
    np.testing.assert_array_equal(first.gray, GRAY)
    np.testing.assert_array_equal(second.gray, 255 - GRAY)


def test_the_content_decides_between_raster_formats(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, "PNG")
    (tmp_path / "really_png.jpg").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_image(tmp_path / "really_png.jpg").frames[0].gray, GRAY)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.bmp", "cut.tif"])
def test_a_truncated_file_is_named(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / name, Image.fromarray(noise))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{name}: unreadable as an image, damaged or cut short"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image at all"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: unreadable as an image"):
        read_image(tmp_path / "x.png")


def test_formats_that_are_not_announced_are_not_decoded(tmp_path):
    saved(tmp_path / "a.gif", Image.fromarray(GRAY))
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: unreadable"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("factor", [1.5, 3])
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, factor):
    path = saved(tmp_path / "bomb.png", Image.fromarray(GRAY))
    # Pillow itself warns beyond its limit and refuses beyond twice of it
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", int(GRAY.size / factor))
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels.*scale the image down"):
        read_image(path)


def test_a_bomb_in_a_later_page_is_refused(tmp_path, monkeypatch):
    pages = [Image.fromarray(GRAY), Image.fromarray(np.zeros((60, 80), np.uint8))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"a\.tif: .*pixels.*scale the image down"):
        read_image(tmp_path / "a.tif")


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: not there"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "notes.txt").write_text("n")
    with pytest.raises(DataError, match=r"notes\.txt: not an image of a kind"):
        read_image(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"gone\.xyz: could not be opened \(FileNotFoundError\)"):
        read_image(tmp_path / "gone.xyz")


def test_several_files_come_in_order_scaled_and_the_first_bad_one_is_named(tmp_path):
    paths = [saved(tmp_path / f"{index}.png", Image.new("L", (4 + index, 4), index)) for index in range(20)]
    decoded = read_images(paths, (2, 3))
    assert [int(file.frames[0].gray[0, 0]) for file in decoded] == list(range(20))
    assert {file.frames[0].gray.shape for file in decoded} == {(2, 3)}
    for index in (7, 13):
        paths[index].write_bytes(b"")
    with pytest.raises(DataError, match=r"7\.png"):
        read_images(paths)


def test_a_name_with_control_characters_stays_on_one_line(tmp_path):
    path = tmp_path / "a\nb.png"
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert "a?b.png: unreadable" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_pillow_the_remedy_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.fromarray(GRAY))
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"Pillow is not installed .* pip install 'gascnn\[pictures\]'"):
        read_image(path)
