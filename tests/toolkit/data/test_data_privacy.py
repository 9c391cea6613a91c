"""No name, number or date from inside a file reaches a result, a message, a warning or a log."""

import contextlib
import json
import logging
import traceback
import warnings

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image, PngImagePlugin

from gascnn.toolkit.data import load_dataset, load_folder_images
from gascnn.toolkit.data.decoding import read_image
from gascnn.toolkit.data.privacy import quiet_decoders, shown
from gascnn.toolkit.errors import DataError

SECRETS = ("Doe", "Jane", "4711", "19700131", "Rosenheim", "1.2.826.99")


def person(number, **more):
    return {
        "PatientName": f"Doe^Jane{number}",
        "PatientID": f"4711-{number}",
        "PatientBirthDate": "19700131",
        "StudyInstanceUID": f"1.2.826.99.{number}",
        "InstitutionName": "Rosenheim",
        **more,
    }


def assert_silent(text):
    assert not [secret for secret in SECRETS if secret in text]


@pytest.fixture
def patients(tmp_path, dicom_file):
    """Two classes of eight patients with four slices each; pixel (0, 0) tells the patient."""
    for number in range(16):
        for index in range(4):
            pixels = np.full((4, 4), index, np.uint8)
            pixels[0, 0] = 10 * number
            dicom_file(tmp_path / "p" / "ab"[number % 2] / f"{number}-{index}.dcm", pixels, bits=8, **person(number))
    return tmp_path / "p"


def test_all_slices_of_a_patient_are_on_one_side(patients):
    data = load_dataset(str(patients))
    seen = [set(data.split(split).images[:, 0, 0, 0].tolist()) for split in ("train", "val", "test")]
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [32, 16, 16]
    assert [len(found) for found in seen] == [8, 4, 4]
    assert len(seen[0] | seen[1] | seen[2]) == 16
    assert "by patient: all images of a patient are on one side" in data.provenance["split"]


def test_nothing_from_inside_reaches_the_results(patients, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    data = load_dataset(str(patients))
    names, _ = load_folder_images(patients, (1, 4, 4))
    assert_silent(json.dumps(data.provenance) + repr(data) + "".join(names))
    assert_silent("".join(capfd.readouterr()) + caplog.text + "".join(str(entry.message) for entry in recwarn))


def test_too_few_patients_are_refused_rather_than_divided(tmp_path, dicom_file):
    for name in ("a", "b"):
        for index in range(9):
            pixels = np.full((4, 4), index, np.uint8)
            dicom_file(tmp_path / "p" / name / f"{index}.dcm", pixels, bits=8, **person(0))
    with pytest.raises(DataError, match="p: too few patients for a val split that shares none with train"):
        load_dataset(str(tmp_path / "p"))


def test_a_patient_in_two_given_splits_is_counted_and_not_named(tmp_path, dicom_file):
    numbers = {"train": (1, 2), "val": (3, 4), "test": (1, 5)}
    for split, pair in numbers.items():
        for name, number in zip("ab", pair, strict=True):
            pixels = np.full((4, 4), number, np.uint8)
            dicom_file(tmp_path / "p" / split / name / f"{split}.dcm", pixels, bits=8, **person(number))
    data = load_dataset(str(tmp_path / "p"))
    assert data.provenance["warnings"][-2:] == [
        "1 patients have images in both train and test; the figures will be too good",
        "1 test images are also in train, pixel for pixel",
    ]
    assert_silent(json.dumps(data.provenance))


def test_burned_in_annotations_are_warned_of(tmp_path, dicom_file):
    for name in ("a", "b"):
        for index in range(4):
            pixels = np.full((4, 4), index, np.uint8)
            elements = person(index, BurnedInAnnotation="YES" if index == 0 else "NO")
            dicom_file(tmp_path / "p" / name / f"{index}.dcm", pixels, bits=8, **elements)
    warning = load_dataset(str(tmp_path / "p")).provenance["warnings"][0]
    assert warning == "2 DICOM files declare annotations burned into their pixels, which may identify patients"


def forget(caplog, capfd):
    """Drop what writing a file logged."""
    caplog.clear()
    capfd.readouterr()


def odd_dicom(path, dicom_file):
    """A file without a patient's number, and with a study's number that makes pydicom warn of it by its value."""
    dicom_file(path, np.zeros((64, 64), np.uint8), bits=8, **person(1))
    ds = pydicom.dcmread(path)
    del ds.PatientID
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.StudyInstanceUID = "Doe 4711"
        ds.save_as(path)
    return path


def test_decoders_do_not_warn_or_log_values(tmp_path, dicom_file, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    path = odd_dicom(tmp_path / "a.dcm", dicom_file)
    with pytest.warns(UserWarning, match="Doe 4711"):  # what pydicom does when it is let
        _ = pydicom.dcmread(path).StudyInstanceUID
    forget(caplog, capfd)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_image(path)
    assert not caught
    assert_silent("".join(capfd.readouterr()) + caplog.text)


@pytest.mark.parametrize("kind", ["dicom", "nifti", "png", "tiff"])
def test_errors_name_the_file_and_nothing_from_inside_it(tmp_path, dicom_file, kind, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    path = damaged(kind, tmp_path, dicom_file)
    forget(caplog, capfd)
    with pytest.raises(DataError) as caught:
        read_image(path)
    # what --debug would print, and what a log of the exception would hold
    logging.getLogger("test").exception("failed", exc_info=caught.value)
    printed = "".join(traceback.format_exception(caught.value))
    assert path.name in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert_silent(printed + str(caught.value) + caplog.text + "".join(capfd.readouterr()))


def damaged(kind, folder, dicom_file):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    if kind == "dicom":
        path = odd_dicom(folder / "x.dcm", dicom_file)
    elif kind == "nifti":
        path = folder / "x.nii"
        image = nib.Nifti1Image(np.repeat(pixels[..., None], 4, axis=2), np.eye(4))
        image.header["descrip"] = b"Doe^Jane 4711 19700131"
        nib.save(image, path)
    elif kind == "png":
        path = folder / "x.png"
        text = PngImagePlugin.PngInfo()
        text.add_text("Patient", "Doe^Jane 4711")
        Image.fromarray(pixels).save(path, pnginfo=text)
    else:
        path = folder / "x.tif"
        Image.fromarray(pixels).save(path, tiffinfo={270: "Doe^Jane 4711 19700131"})
    path.write_bytes(path.read_bytes()[:-1500])
    return path


def test_metadata_of_pictures_is_not_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", "Doe^Jane 4711")
    image = Image.fromarray(np.zeros((4, 4), np.uint8))
    image.save(tmp_path / "a.png", pnginfo=text)
    image.save(tmp_path / "a.tif", tiffinfo={270: "Doe^Jane 4711 19700131"})
    caplog.clear()
    Image.open(tmp_path / "a.tif").load()
    assert "Doe" in caplog.text  # Pillow logs it when it is let
    caplog.clear()
    read_image(tmp_path / "a.png")
    read_image(tmp_path / "a.tif")
    assert_silent(caplog.text)


def test_loggers_and_warnings_are_as_before_afterwards():
    loggers = [logging.getLogger(name) for name in ("PIL", "pydicom", "nibabel", "nibabel.global")]
    loggers[0].setLevel(logging.INFO)
    before, filters = [logger.level for logger in loggers], list(warnings.filters)
    with contextlib.suppress(KeyError), quiet_decoders():
        assert not loggers[1].isEnabledFor(logging.CRITICAL)
        raise KeyError
    assert [logger.level for logger in loggers] == before
    assert list(warnings.filters) == filters
    loggers[0].setLevel(logging.NOTSET)


def test_paths_are_shown_on_one_line(tmp_path):
    assert shown(tmp_path / "a\r\n\x1b[31mb\udcffc") == f"{tmp_path}/a???[31mb?c"
