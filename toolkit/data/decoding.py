"""One image file to 8-bit frames, whatever its kind; errors name the file and nothing from inside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gascnn.toolkit.data import dicom, nifti, raster
from gascnn.toolkit.data.pixels import Frame
from gascnn.toolkit.data.privacy import quiet_decoders, shown
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.files import sha256_file

KINDS = "PNG, JPEG, TIFF, BMP, DICOM (.dcm) and NIfTI (.nii, .nii.gz)"
COMPANION_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".html", ".pdf", ".db", ".ini", ".log")
"""Files that commonly lie beside images and are passed over; any other unknown file is an error."""
COMPANION_NAMES = ("DICOMDIR", "README", "LICENSE", "LICENCE")

_HEAD_BYTES = 132
_MAX_WORKERS = 8


@dataclass(frozen=True, eq=False)
class DecodedFile:
    """What one file gave.

    Attributes:
        frames: one or more images.
        sha256: of the file's bytes.
        patient: hash of the patient a DICOM file names, kept in memory only; None where nothing is known.
        burned_in: the file declares that annotations are part of its pixels.
    """

    frames: list[Frame]
    sha256: str
    patient: str | None = None
    burned_in: bool = False


def image_kind(path: Path) -> str | None:
    """``raster``, ``dicom`` or ``nifti`` for a file that is to be read, None for one to pass over.

    Raises:
        DataError: the file is neither an image nor a usual companion of images, or cannot be opened.
    """
    name = path.name.lower()
    if name.endswith(nifti.SUFFIXES):
        return "nifti"
    if name.endswith(raster.SUFFIXES):
        return "raster"
    if path.name.upper() in COMPANION_NAMES or name.endswith(COMPANION_SUFFIXES):
        return None
    if name.endswith(dicom.SUFFIXES) or dicom.has_magic(_head(path)):
        return "dicom"
    raise DataError(f"{shown(path)}: not an image of a kind that is read ({KINDS}); convert or remove it")


def read_image(path: Path) -> DecodedFile:
    """Decode one file.

    Raises:
        DataError: it cannot be read; names the file and the reason, and nothing from inside it.
    """
    kind = image_kind(path)
    if kind is None:
        raise DataError(f"{shown(path)}: not an image of a kind that is read ({KINDS})")
    with quiet_decoders():
        return _decode(path, kind)


def read_images(
    paths: Iterable[Path], size: tuple[int, int] | None = None, framing: str = "whole"
) -> list[DecodedFile]:
    """Decode files on a few threads, in order, each image framed and scaled to ``size`` (height, width) if given.

    Raises:
        DataError: as :func:`read_image`, for the first file that cannot be read.
    """
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    with quiet_decoders(), ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(partial(_decode_sized, size=size, framing=framing), paths))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_sized(path: Path, size: tuple[int, int] | None, framing: str) -> DecodedFile:
    decoded = _decode(path, image_kind(path) or "")
    if size is None and framing == "whole":
        return decoded
    frames = []
    for frame in decoded.frames:
        height, width = size or frame.gray.shape
        frames.append(frame.resized(height, width, framing))
    return DecodedFile(frames, decoded.sha256, decoded.patient, decoded.burned_in)


def _decode(path: Path, kind: str) -> DecodedFile:
    decoders: dict[str, Callable[[Path], DecodedFile]] = {
        "raster": _decode_raster,
        "dicom": _decode_dicom,
        "nifti": _decode_nifti,
    }
    try:
        return decoders[kind](path)
    except DataError as error:
        reason = str(error)
    except FileNotFoundError:
        reason = "not there"
    except PermissionError:
        reason = "no permission to read it"
    except MemoryError:
        reason = "too large for this machine's memory"
    except Exception as error:
        # Decoders raise nearly anything for a damaged file, with text that may come from inside it.
        reason = _reason(error)
    raise DataError(f"{shown(path)}: {reason}")


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    if "DecompressionBomb" in kind:
        return "more pixels than Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS); scale the image down"
    return f"unreadable as an image, damaged or cut short ({kind}); replace or remove it"


def _decode_raster(path: Path) -> DecodedFile:
    content = path.read_bytes()
    return DecodedFile(raster.read_raster(content), hashlib.sha256(content).hexdigest())


def _decode_dicom(path: Path) -> DecodedFile:
    content = path.read_bytes()
    frames, patient, burned_in = dicom.read_dicom(content)
    if not frames:
        raise DataError("a DICOM file without frames; replace or remove it")
    return DecodedFile(frames, hashlib.sha256(content).hexdigest(), patient, burned_in)


def _decode_nifti(path: Path) -> DecodedFile:
    return DecodedFile(nifti.read_nifti(path), sha256_file(path))


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(_HEAD_BYTES)
    except OSError as error:
        reason = type(error).__name__
    raise DataError(f"{shown(path)}: could not be opened ({reason}); check its permissions")
