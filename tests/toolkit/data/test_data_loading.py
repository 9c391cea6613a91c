import subprocess
import sys

import numpy as np
import pytest

from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import DataError, UsageError


def test_an_unknown_name_lists_the_names_and_says_that_a_path_will_do():
    with pytest.raises(
        DataError, match=r"mnits: neither a data set's name \(digits, mnist, brain-mri, mias\) nor the path"
    ):
        load_dataset("mnits")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a\.tar: neither a folder of class folders nor an \.npz file"):
        load_dataset(str(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"image_size": 0}, "image size 0; 1 to 4096"),
        ({"image_size": 5000}, "image size 5000"),
        ({"channels": 2}, "2 channels; 1"),
        ({"seed": -1}, "seed -1; 0 or more"),
    ],
)
def test_options_out_of_range(options, match):
    with pytest.raises(UsageError, match=match):
        load_dataset("digits", **options)


def test_a_named_set_is_scaled_and_recoloured():
    data = load_dataset("digits", image_size=16, channels=3)
    assert data.image_shape == (3, 16, 16)
    np.testing.assert_array_equal(data.val.images[:, 0], data.val.images[:, 2])


def test_a_home_folder_may_be_written_short(class_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(class_folder.parent))
    assert load_dataset("~/twoclass").name == "twoclass"


def test_the_folder_one_stands_in_has_a_name(class_folder, monkeypatch):
    monkeypatch.chdir(class_folder)
    data = load_dataset(".")
    assert data.name == "twoclass"
    assert str(class_folder.parent) not in str(data.provenance)


def test_importing_is_light():
    code = (
        "import sys, gascnn.toolkit.data\n"
        "heavy = {'torch', 'PIL', 'pydicom', 'nibabel', 'sklearn', 'httpx', 'rich'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True).stderr.strip() == ""
    )
