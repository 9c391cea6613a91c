"""DICOM: rescale, window or look-up table, MONOCHROME1, palette and colour, one image a frame.

Only pixels, the patient's number as a hash (to keep a patient's images in one split) and whether annotations are
burned in leave this module.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.optional import require
from gascnn.toolkit.data.pixels import Frame, equalise, frame_from_rgb, percentile_window, require_finite, stretch
from gascnn.toolkit.data.privacy import hidden
from gascnn.toolkit.errors import DataError

SUFFIXES = (".dcm", ".dicom")
MAX_PIXELS = 1 << 29
"""Pixels of all frames and channels of a file; more is taken for a damaged header."""

_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
_INTENSITY_KEYWORDS = (
    "BitsStored",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
)
_FRAME_SEQUENCES = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def has_magic(head: bytes) -> bool:
    """Whether a file that begins with ``head`` says it is DICOM."""
    return head[_MAGIC_OFFSET : _MAGIC_OFFSET + len(_MAGIC)] == _MAGIC


def read_dicom(content: bytes) -> tuple[list[Frame], str | None, bool]:
    """Decode every frame of a file.

    Args:
        content: the file's bytes.

    Returns:
        The frames; the patient as a hash, or None where the file names neither patient nor study; and whether the
        file declares burned-in annotations.

    Raises:
        DataError: no pixel data, NaN pixels, too many pixels, or a compression that cannot be decoded here.
        Exception: whatever pydicom raises for a damaged file.
    """
    pydicom = require("pydicom", "pydicom", "medical")
    pixels = require("pydicom.pixels", "pydicom", "medical")
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    _check_pixel_data(dataset)
    _check_decoder(pixels, dataset)
    frames = [_frame(dataset, index, stored) for index, stored in enumerate(pixels.iter_pixels(dataset))]
    return frames, _patient(dataset), str(dataset.get("BurnedInAnnotation", "")).upper() == "YES"


def _check_pixel_data(dataset: Any) -> None:
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError("no pixel data in this DICOM file (no image, or damaged); replace or remove it")
    factors = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")
    size = np.prod([int(dataset.get(factor) or 1) for factor in factors], dtype=object)
    if size > MAX_PIXELS:
        raise DataError(f"{size} pixels announced, at most {MAX_PIXELS} are read; split the file")


def _check_decoder(pixels: Any, dataset: Any) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        available = bool(pixels.get_decoder(syntax).is_available)
    except NotImplementedError:
        available = False
    if not available:
        name = "in a private way" if syntax.is_private else f"as {syntax.name}"
        raise DataError(f"DICOM compressed {name}; store it uncompressed or as JPEG, JPEG 2000 or RLE")


def _patient(dataset: Any) -> str | None:
    for keyword in ("PatientID", "StudyInstanceUID"):
        value = str(dataset.get(keyword) or "").strip()
        if value:
            return hidden(f"{keyword} {value}")
    return None


def _frame(dataset: Any, index: int, stored: npt.NDArray[Any]) -> Frame:
    interpretation = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    bits = int(dataset.get("BitsStored", 8))
    if interpretation == "PALETTE COLOR":
        colours = require("pydicom.pixels", "pydicom", "medical").apply_color_lut(stored, dataset)
        return frame_from_rgb(_upper_byte(colours, colours.dtype.itemsize * 8))
    if stored.ndim == 3:
        return frame_from_rgb(_upper_byte(stored, bits))
    gray = _intensity(_settings(dataset, index), stored)
    return Frame(255 - gray if interpretation == "MONOCHROME1" else gray)


def _upper_byte(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray((values >> max(bits - 8, 0)).astype(np.uint8)[..., :3])


def _settings(dataset: Any, index: int) -> Any:
    """What turns stored values of a frame into gray levels, from the file or from its functional groups."""
    sources = [dataset]
    per_frame, shared = dataset.get("PerFrameFunctionalGroupsSequence"), dataset.get("SharedFunctionalGroupsSequence")
    groups = ([per_frame[index]] if per_frame and index < len(per_frame) else []) + list(shared or [])[:1]
    for group in groups:
        sources += [group.get(name)[0] for name in _FRAME_SEQUENCES if group.get(name)]
    settings = require("pydicom", "pydicom", "medical").Dataset()
    for source in reversed(sources):
        for keyword in _INTENSITY_KEYWORDS:
            if source.get(keyword) is not None:
                settings.add(source[keyword])
    settings.set_original_encoding(*dataset.original_encoding, dataset.original_character_set)
    return settings


def _intensity(settings: Any, stored: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Stored values to 8 bits: modality transformation, then window or table, else by depth."""
    values, bits = _modality(settings, stored)
    if values.dtype.kind == "f":
        require_finite(values)
    if settings.get("VOILUTSequence"):
        return stretch(*_look_up(settings, settings.VOILUTSequence[0], np.rint(values).astype(np.int64)))
    if settings.get("WindowCenter") is not None and settings.get("WindowWidth") is not None:
        return _window(settings, values)
    if stored.dtype.kind == "f":
        return percentile_window(values)
    if bits > 8 or settings.get("PixelRepresentation", 0):
        return equalise(values if values.dtype.kind in "iu" else _ranks(values))
    gray = stretch(stored if not settings.get("ModalityLUTSequence") else values, 0, (1 << bits) - 1)
    return 255 - gray if float(settings.get("RescaleSlope", 1)) < 0 else gray


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rescaled values as the positions of their levels, which equalise alike."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int64)


def _modality(settings: Any, stored: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    if settings.get("ModalityLUTSequence"):
        item = settings.ModalityLUTSequence[0]
        values, _, high = _look_up(settings, item, stored.astype(np.int64))
        return values, int(high).bit_length()
    values = require("pydicom.pixels", "pydicom", "medical").apply_modality_lut(stored, settings)
    return values, int(settings.get("BitsStored", 16))


def _look_up(settings: Any, item: Any, values: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int, int]:
    """DICOM PS3.3 C.11.1.1 and C.11.2.1.1: the table's answers, and the range they can have.

    pydicom's ``apply_voi`` counts positions in the type of the answers and wraps in tables of more than 256 entries
    of 8 bits; hence this one.
    """
    entries, first, depth = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        wide = "<u2" if settings.original_encoding[1] else ">u2"
        table = np.frombuffer(data, "u1" if len(data) == entries else wide).astype(np.int64)
    else:
        table = np.asarray(data, np.int64).reshape(-1)
    table = table[: entries or 1 << 16]
    return table[np.clip(values - first, 0, len(table) - 1)], 0, (1 << depth) - 1


def _window(settings: Any, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    window = require("pydicom.pixels", "pydicom", "medical").apply_windowing
    with np.errstate(over="ignore"):
        # The answers below and above every window: the ends of the output range, whatever the function and slope.
        low, high = window(np.array([-1e300, 1e300]), settings)
        return stretch(window(values, settings), float(low), float(high))
