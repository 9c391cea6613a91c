"""PNG, JPEG, TIFF and BMP through Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from gascnn.toolkit.data.optional import require
from gascnn.toolkit.data.pixels import Frame, frame_from_rgb, to_uint8
from gascnn.toolkit.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def read_raster(content: bytes) -> list[Frame]:
    """Decode one file; every page of a TIFF, the first picture of the others.

    EXIF rotation is applied, transparency is laid over black. Pillow gives 16-bit colour as its upper 8 bits.

    Args:
        content: the file's bytes.

    Raises:
        DataError: NaN pixels, or more pixels than Pillow's limit.
        Exception: whatever Pillow raises for a damaged or truncated file.
    """
    pillow = require("PIL.Image", "Pillow", "pictures")
    with pillow.open(io.BytesIO(content), formats=FORMATS) as image:
        _check_size(image, pillow.MAX_IMAGE_PIXELS)
        pages = image.n_frames if image.format == "TIFF" else 1
        frames = []
        for page in range(pages):
            image.seek(page)
            _check_size(image, pillow.MAX_IMAGE_PIXELS)
            frames.append(_frame(image))
    return frames


def _check_size(image: Any, limit: int | None) -> None:
    # Pillow itself only warns up to twice this number, and does not look at the later pages of a TIFF.
    if limit is not None and image.width * image.height > limit:
        raise DataError(f"{image.width}x{image.height} pixels, {limit} at most are read; scale the image down")


def _frame(image: Any) -> Frame:
    image = require("PIL.ImageOps", "Pillow", "pictures").exif_transpose(image)
    if image.mode in _DEEP_MODES:
        return Frame(to_uint8(np.array(image)))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = _over_black(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return Frame(np.array(image.convert("L")))
    return frame_from_rgb(np.array(image.convert("RGB")))


def _over_black(image: Any) -> Any:
    pillow = require("PIL.Image", "Pillow", "pictures")
    return pillow.alpha_composite(pillow.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
