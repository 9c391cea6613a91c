import gzip

import nibabel as nib
import numpy as np
import pytest

from gascnn.toolkit.data import nifti
from gascnn.toolkit.data.decoding import read_image
from gascnn.toolkit.errors import DataError


def volume(path, data, slope=None, inter=0.0):
    image = nib.Nifti1Image(data, np.eye(4))
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
        image.header.set_data_dtype(data.dtype)
    nib.save(image, path)
    return path


def slices(path):
    return [frame.gray for frame in read_image(path).frames]


def noise(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_middle_half_of_the_slices_is_taken(tmp_path, name):
    data = noise((5, 7, 10), np.uint8)
    found = slices(volume(tmp_path / name, data))
    # from 10 // 4 = 2 up to, not including, ceil(30 / 4) = 8
    assert len(found) == 6
    for index, image in enumerate(found):
        np.testing.assert_array_equal(image, data[:, :, 2 + index])


@pytest.mark.parametrize(("count", "taken"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [1, 2]), (8, [2, 3, 4, 5])])
def test_small_volumes(tmp_path, count, taken):
    data = noise((4, 4, count), np.uint8)
    found = slices(volume(tmp_path / "a.nii", data))
    np.testing.assert_array_equal(np.stack(found, axis=-1), data[:, :, taken])


def test_blank_slices_are_left_out(tmp_path):
    data = noise((4, 4, 8), np.uint8)
    data[:, :, 3] = 9
    found = slices(volume(tmp_path / "a.nii", data))
    np.testing.assert_array_equal(np.stack(found, axis=-1), data[:, :, [2, 4, 5]])
    with pytest.raises(DataError, match=r"b\.nii: every slice of the middle half is blank"):
        slices(volume(tmp_path / "b.nii", np.zeros((4, 4, 8), np.uint8)))


def test_sixteen_bits_are_equalised_slice_by_slice(tmp_path):
    data = np.zeros((2, 2, 2), np.int16)
    data[:, :, 0] = [[-5, 100], [100, 3000]]
    data[:, :, 1] = [[1, 2], [3, 4]]
    first, second = slices(volume(tmp_path / "a.nii", data))
    assert first.tolist() == [[0, 170], [170, 255]]
    assert second.tolist() == [[0, 85], [170, 255]]


def test_real_numbers_get_the_percentile_window_of_the_slices_taken(tmp_path):
    data = np.random.default_rng(0).normal(300, 50, (20, 20, 8)).astype(np.float32)
    data[..., 0] = 1e6  # outside the middle half: must not count
    low, high = np.percentile(data[..., 2:6], [1, 99])
    expected = np.rint(np.clip((data[..., 2:6].astype(float) - low) * 255 / (high - low), 0, 255))
    np.testing.assert_array_equal(np.stack(slices(volume(tmp_path / "a.nii.gz", data)), axis=-1), expected)


def test_scaled_bytes_are_real_numbers(tmp_path):
    data = noise((6, 6, 4), np.uint8)
    plain = slices(volume(tmp_path / "a.nii", data.astype(np.float64) * 2.5 - 7))
    scaled = slices(volume(tmp_path / "b.nii", data, slope=2.5, inter=-7))
    np.testing.assert_array_equal(np.stack(scaled), np.stack(plain))


def test_flat_images_and_a_single_volume_in_four_axes(tmp_path):
    data = noise((4, 5), np.uint8)
    np.testing.assert_array_equal(slices(volume(tmp_path / "a.nii", data))[0], data)
    four = noise((4, 5, 4, 1), np.uint8)
    np.testing.assert_array_equal(np.stack(slices(volume(tmp_path / "b.nii", four)), -1), four[:, :, 1:3, 0])


def test_a_series_of_volumes_is_refused(tmp_path):
    path = volume(tmp_path / "bold.nii", noise((4, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"bold\.nii: a NIfTI image of shape \(4, 4, 4, 3\); two or three axes"):
        slices(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_names_the_file(tmp_path, bad):
    data = np.ones((4, 4, 4), np.float32)
    data[1, 1, 1] = bad
    with pytest.raises(DataError, match=r"a\.nii: 1 of 32 pixels are NaN or infinite"):
        slices(volume(tmp_path / "a.nii", data))


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.nii: NIfTI voxels of kind complex64"):
        slices(volume(tmp_path / "a.nii", np.ones((4, 4, 4), np.complex64)))


@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
def test_cut_short(tmp_path, name):
    path = volume(tmp_path / name, noise((20, 20, 20), np.uint8))
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(DataError, match=rf"{name}: unreadable as an image, damaged or cut short"):
        slices(path)


def test_no_nifti_at_all(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"hello" * 200)
    with pytest.raises(DataError, match=r"a\.nii: unreadable"):
        slices(tmp_path / "a.nii")


def test_a_volume_bomb_is_refused(tmp_path, monkeypatch):
    path = volume(tmp_path / "a.nii.gz", noise((10, 10, 10), np.uint8))
    assert gzip.decompress(path.read_bytes())
    monkeypatch.setattr(nifti, "MAX_VOXELS", 999)
    with pytest.raises(DataError, match=r"a\.nii\.gz: 1000 voxels announced, at most 999"):
        slices(path)


def test_without_nibabel_the_remedy_is_named(tmp_path, monkeypatch):
    path = volume(tmp_path / "a.nii", noise((4, 4, 4), np.uint8))
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(DataError, match=r"nibabel is not installed .* pip install 'gascnn\[medical\]'"):
        slices(path)
