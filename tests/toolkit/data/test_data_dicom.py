import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from gascnn.toolkit.data import dicom
from gascnn.toolkit.data.decoding import read_image
from gascnn.toolkit.errors import DataError

RAMP = np.arange(0, 4096, 273, dtype=np.uint16).reshape(4, 4)


def gray(path):
    (frame,) = read_image(path).frames
    return frame.gray


def window(values, centre, width):
    """DICOM PS3.3 C.11.2.1.2.1 (LINEAR), onto 0..255."""
    scaled = ((values.astype(float) - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(scaled, 0, 255))


def test_eight_bits_stay_as_they_are(tmp_path, dicom_file):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(gray(dicom_file(tmp_path / "a.dcm", pixels, bits=8)), pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_window_is_applied(tmp_path, dicom_file, syntax):
    path = dicom_file(tmp_path / "a.dcm", RAMP, syntax=syntax, WindowCenter=2000, WindowWidth=1000)
    np.testing.assert_array_equal(gray(path), window(RAMP, 2000, 1000))


def test_the_first_of_several_windows_counts(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", RAMP, WindowCenter=[2000, 40], WindowWidth=[1000, 400])
    np.testing.assert_array_equal(gray(path), window(RAMP, 2000, 1000))


def test_rescaling_comes_before_the_window(tmp_path, dicom_file):
    path = dicom_file(
        tmp_path / "a.dcm", RAMP, RescaleSlope="2", RescaleIntercept="-1024", WindowCenter=40, WindowWidth=400
    )
    np.testing.assert_array_equal(gray(path), window(2 * RAMP.astype(int) - 1024, 40, 400))


def test_a_falling_slope_with_a_window_is_not_turned_round(tmp_path, dicom_file):
    path = dicom_file(
        tmp_path / "a.dcm", RAMP, RescaleSlope="-1", RescaleIntercept="4095", WindowCenter=2048, WindowWidth=4096
    )
    np.testing.assert_array_equal(gray(path), window(4095 - RAMP.astype(int), 2048, 4096))


def test_signed_pixels_are_windowed(tmp_path, dicom_file):
    pixels = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    path = dicom_file(tmp_path / "a.dcm", pixels, WindowCenter=0, WindowWidth=2000)
    np.testing.assert_array_equal(gray(path), window(pixels, 0, 2000))


def test_the_sigmoid_window(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", RAMP, WindowCenter=2000, WindowWidth=800, VOILUTFunction="SIGMOID")
    expected = np.rint(255 / (1 + np.exp(-4 * (RAMP.astype(float) - 2000) / 800)))
    np.testing.assert_array_equal(gray(path), expected)


def test_monochrome1_is_inverted(tmp_path, dicom_file):
    plain = dicom_file(tmp_path / "a.dcm", RAMP, WindowCenter=2000, WindowWidth=1000)
    turned = dicom_file(
        tmp_path / "b.dcm", RAMP, WindowCenter=2000, WindowWidth=1000, PhotometricInterpretation="MONOCHROME1"
    )
    np.testing.assert_array_equal(gray(turned), 255 - gray(plain))
    eight = np.array([[0, 10, 255]], np.uint8)
    path = dicom_file(tmp_path / "c.dcm", eight, bits=8, PhotometricInterpretation="MONOCHROME1")
    assert gray(path).tolist() == [[255, 245, 0]]


def test_without_a_window_deep_images_are_equalised(tmp_path, dicom_file):
    pixels = np.array([[0, 100], [100, 4095]], np.uint16)
    expected = [[0, 170], [170, 255]]
    assert gray(dicom_file(tmp_path / "a.dcm", pixels)).tolist() == expected
    rescaled = dicom_file(tmp_path / "b.dcm", pixels, RescaleSlope="0.5", RescaleIntercept="-7.25")
    assert gray(rescaled).tolist() == expected
    falling = dicom_file(tmp_path / "c.dcm", pixels, RescaleSlope="-1", RescaleIntercept="0")
    # darkest is now 4095: cdf 1, 3, 4 from that end
    assert gray(falling).tolist() == [[255, 170], [170, 0]]


def test_a_falling_slope_turns_eight_bits(tmp_path, dicom_file):
    path = dicom_file(
        tmp_path / "a.dcm", np.array([[0, 10, 255]], np.uint8), bits=8, RescaleSlope="-1", RescaleIntercept="255"
    )
    assert gray(path).tolist() == [[255, 245, 0]]


def look_up_table(values, first, bits):
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = list(values)
    return Sequence([item])


def set_vr(path, vr):
    ds = pydicom.dcmread(path)
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        for item in ds.get(name) or []:
            if vr == "OW" and not isinstance(item.LUTData, bytes):
                item.add_new("LUTData", "OW", np.array(item.LUTData, "<u2").tobytes())
    ds.save_as(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("vr", ["US", "OW"])
def test_the_voi_table_comes_before_the_window_and_agrees_with_pydicom(tmp_path, dicom_file, vr, syntax):
    table = (np.arange(4096) ** 2 // 4096).astype(int)
    path = tmp_path / "a.dcm"
    item = look_up_table(table, 0, 12)
    item[0]["LUTDescriptor"].VR = item[0]["LUTData"].VR = "US"
    dicom_file(path, RAMP, syntax=syntax, VOILUTSequence=item, WindowCenter=1, WindowWidth=2)
    set_vr(path, vr)
    expected = np.rint(apply_voi_lut(RAMP, pydicom.dcmread(path)) * (255 / 4095))
    np.testing.assert_array_equal(gray(path), expected)
    np.testing.assert_array_equal(expected, np.rint(table[RAMP] * (255 / 4095)))


def test_an_8_bit_table_of_4096_entries_does_not_wrap(tmp_path, dicom_file):
    table = np.arange(4096) // 16
    item = look_up_table(table, 0, 8)
    item[0]["LUTDescriptor"].VR = item[0]["LUTData"].VR = "US"
    path = dicom_file(tmp_path / "a.dcm", RAMP, VOILUTSequence=item)
    np.testing.assert_array_equal(gray(path), RAMP // 16)


def test_the_modality_table_is_applied(tmp_path, dicom_file):
    item = look_up_table([5, 100, 200, 250], 10, 8)
    item[0]["LUTDescriptor"].VR = item[0]["LUTData"].VR = "US"
    item[0].ModalityLUTType = "US"
    path = dicom_file(tmp_path / "a.dcm", np.array([[9, 10, 11, 12, 13, 14]], np.uint16), ModalityLUTSequence=item)
    assert gray(path).tolist() == [[5, 5, 100, 200, 250, 250]]


def test_every_frame_is_an_image(tmp_path, dicom_file):
    pixels = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]])
    frames = read_image(dicom_file(tmp_path / "a.dcm", pixels, WindowCenter=2048, WindowWidth=4096)).frames
    assert len(frames) == 3
    for frame, stored in zip(frames, pixels, strict=True):
        np.testing.assert_array_equal(frame.gray, window(stored, 2048, 4096))


def test_frames_have_their_own_window_in_functional_groups(tmp_path, dicom_file):
    def group(keyword, **elements):
        inner, outer = Dataset(), Dataset()
        for name, value in elements.items():
            setattr(inner, name, value)
        setattr(outer, keyword, Sequence([inner]))
        return outer

    shared = group("PixelValueTransformationSequence", RescaleSlope="2", RescaleIntercept="-100", RescaleType="US")
    each = [group("FrameVOILUTSequence", WindowCenter=c, WindowWidth=w) for c, w in ((1000, 500), (4000, 2000))]
    path = dicom_file(
        tmp_path / "a.dcm",
        np.stack([RAMP, RAMP]),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(each),
    )
    first, second = read_image(path).frames
    values = 2 * RAMP.astype(int) - 100
    np.testing.assert_array_equal(first.gray, window(values, 1000, 500))
    np.testing.assert_array_equal(second.gray, window(values, 4000, 2000))


def test_colour(tmp_path, dicom_file):
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    (frame,) = read_image(dicom_file(tmp_path / "a.dcm", rgb, bits=8)).frames
    np.testing.assert_array_equal(frame.color, rgb)


def test_palette_colour(tmp_path, dicom_file):
    palette = {
        f"{name}PaletteColorLookupTable{part}": value
        for name, levels in (("Red", (0, 65535)), ("Green", (256, 0)), ("Blue", (0, 32768)))
        for part, value in (("Descriptor", [2, 0, 16]), ("Data", np.array(levels, "<u2").tobytes()))
    }
    path = dicom_file(
        tmp_path / "a.dcm",
        np.array([[0, 1]], np.uint8),
        bits=8,
        PhotometricInterpretation="PALETTE COLOR",
        **palette,
    )
    (frame,) = read_image(path).frames
    assert frame.color.tolist() == [[[0, 1, 0], [255, 0, 128]]]


def test_rle_compression_is_undone(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", RAMP, WindowCenter=2000, WindowWidth=1000)
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)
    np.testing.assert_array_equal(gray(path), window(RAMP, 2000, 1000))


def test_jpeg_compression_is_undone(tmp_path, dicom_file):
    pixels = np.add.outer(np.arange(0, 128, 8), np.arange(0, 128, 8)).astype(np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
    path = dicom_file(tmp_path / "a.dcm", pixels, bits=8)
    ds = pydicom.dcmread(path)
    ds.PixelData = pydicom.encaps.encapsulate([jpeg.getvalue()])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.save_as(path)
    np.testing.assert_array_equal(gray(path), np.asarray(Image.open(jpeg)))


def test_a_compression_without_decoder_is_named(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", RAMP)
    ds = pydicom.dcmread(path)
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    ds.save_as(path)
    with pytest.raises(DataError, match=r"a\.dcm: DICOM compressed as JPEG Lossless.*store it uncompressed"):
        read_image(path)


def test_the_magic_is_enough(tmp_path, dicom_file):
    dicom_file(tmp_path / "IM0001", RAMP, WindowCenter=2000, WindowWidth=1000)
    np.testing.assert_array_equal(gray(tmp_path / "IM0001"), window(RAMP, 2000, 1000))


def test_no_pixels(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "report.dcm", RAMP)
    ds = pydicom.dcmread(path)
    del ds.PixelData
    ds.save_as(path)
    with pytest.raises(DataError, match=r"report\.dcm: no pixel data in this DICOM file"):
        read_image(path)
    (tmp_path / "noise.dcm").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(DataError, match=r"noise\.dcm: "):
        read_image(tmp_path / "noise.dcm")


def test_cut_short(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "cut.dcm", np.zeros((64, 64), np.uint16))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"cut\.dcm: unreadable as an image, damaged or cut short"):
        read_image(path)


def test_an_absurd_size_is_refused(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", RAMP, Rows=60000, Columns=60000)
    with pytest.raises(DataError, match=rf"a\.dcm: 3600000000 pixels announced, at most {dicom.MAX_PIXELS}"):
        read_image(path)


def test_a_window_without_width_is_refused(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", RAMP, WindowCenter=10, WindowWidth=0)
    with pytest.raises(DataError, match=r"a\.dcm: unreadable as an image"):
        read_image(path)


def test_patients_are_told_apart_without_being_named(tmp_path, dicom_file):
    def patient(**elements):
        return read_image(dicom_file(tmp_path / "a.dcm", RAMP, **elements)).patient

    one = patient(PatientID="4711", StudyInstanceUID="1.2.3")
    assert one == patient(PatientID="4711 ", StudyInstanceUID="1.2.4")
    assert one != patient(PatientID="4712", StudyInstanceUID="1.2.3")
    assert "4711" not in one
    assert patient(StudyInstanceUID="1.2.3") == patient(PatientID="", StudyInstanceUID="1.2.3")
    assert patient() is None


def test_without_pydicom_the_remedy_is_named(tmp_path, dicom_file, monkeypatch):
    path = dicom_file(tmp_path / "a.dcm", RAMP)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pydicom is not installed .* pip install 'gascnn\[medical\]'"):
        read_image(path)
