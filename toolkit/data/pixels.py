"""Pixel arithmetic: any depth to 8 bits, colour to gray and back, resizing. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.optional import require
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.framing import foreground

WINDOW_PERCENTILES = (1.0, 99.0)
"""Floating-point intensities between these percentiles are spread over 0..255, those outside are clipped."""

_BINCOUNT_RANGE = 1 << 20
"""Up to this range of values a histogram is counted directly, beyond it by sorting."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded 8-bit image.

    Attributes:
        gray: (H, W) uint8.
        color: (H, W, 3) uint8 RGB, or None where the three channels are equal everywhere.
    """

    gray: npt.NDArray[np.uint8]
    color: npt.NDArray[np.uint8] | None = None

    def channels(self, count: int) -> npt.NDArray[np.uint8]:
        """The image as (``count``, H, W), with 1 or 3 channels."""
        if count == 1:
            return self.gray[None]
        if self.color is None:
            return np.broadcast_to(self.gray, (3, *self.gray.shape))
        return np.ascontiguousarray(self.color.transpose(2, 0, 1))

    def resized(self, height: int, width: int, framing: str = "whole") -> Frame:
        """The image, or its foreground, scaled to (``height``, ``width``); the aspect ratio is not kept."""
        gray, color = self.gray, self.color
        if framing == "foreground":
            gray, color = foreground(gray, gray), None if color is None else foreground(color, gray)
        return Frame(resize(gray, height, width), None if color is None else resize(color, height, width))


def frame_from_rgb(rgb: npt.NDArray[np.uint8]) -> Frame:
    """A frame of an (H, W, 3) uint8 image; gray where its channels are equal everywhere."""
    if np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2]):
        return Frame(np.ascontiguousarray(rgb[..., 0]))
    return Frame(luma(rgb), rgb)


def luma(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """ITU-R 601-2 luma, L = 0.299 R + 0.587 G + 0.114 B, as Pillow rounds it; (H, W, 3) to (H, W) uint8."""
    image = require("PIL.Image", "Pillow", "pictures")
    return np.array(image.fromarray(rgb).convert("L"))


def equalise(values: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """Histogram equalisation of integers of any depth to 8 bits.

    out(v) = round(255 (cdf(v) - cdf_min) / (N - cdf_min)), with cdf(v) the number of pixels up to v and cdf_min that
    of the darkest value. The GASCNN paper (section V-A) turns its 16-bit images to 8 bits and then equalises them;
    done in one step here, so that no level is lost in between.

    Args:
        values: any shape; a constant image becomes black.

    Returns:
        uint8 of the same shape, non-decreasing in the value.
    """
    low, high = int(values.min()), int(values.max())
    if low == high:
        return np.zeros(values.shape, np.uint8)
    if high - low < _BINCOUNT_RANGE:
        levels = (values.astype(np.int64) - low).ravel()
        counts = np.bincount(levels)
    else:
        _, levels, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    cumulative = np.cumsum(counts)
    floor = counts[0]
    table = np.rint(255 * (cumulative - floor) / (cumulative[-1] - floor)).astype(np.uint8)
    out: npt.NDArray[np.uint8] = table[levels].reshape(values.shape)
    return out


def stretch(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Map ``low``..``high`` linearly to 0..255, clipped and rounded; ``low`` = ``high`` gives black."""
    if high == low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def percentile_window(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Map the 1st to 99th percentile of finite values linearly to 0..255; what lies outside is clipped."""
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    return stretch(values, float(low), float(high))


def to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """8-bit images stay as they are, deeper integers are equalised, floating point gets a percentile window.

    Raises:
        DataError: NaN or infinite pixels, or a kind of number that is no intensity.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu":
        return equalise(values)
    if values.dtype.kind != "f":
        raise DataError(f"pixels of kind {values.dtype}; integers or real numbers are needed")
    require_finite(values)
    return percentile_window(values)


def require_finite(values: npt.NDArray[Any]) -> None:
    """Refuse NaN and infinity.

    Raises:
        DataError: how many pixels are not finite.
    """
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise DataError(f"{bad} of {values.size} pixels are NaN or infinite; replace them by numbers")


def resize(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Scale a whole image, by Pillow's box filter along an axis that shrinks and bilinearly along one that grows.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        height: rows wanted.
        width: columns wanted.
    """
    if image.shape[:2] == (height, width):
        return image
    pillow = require("PIL.Image", "Pillow", "pictures")
    box, bilinear = pillow.Resampling.BOX, pillow.Resampling.BILINEAR
    across = box if width <= image.shape[1] else bilinear
    down = box if height <= image.shape[0] else bilinear
    picture = pillow.fromarray(np.ascontiguousarray(image))
    if across != down:
        return np.array(picture.resize((width, image.shape[0]), across).resize((width, height), down))
    return np.array(picture.resize((width, height), across))


def convert_stack(
    images: npt.NDArray[np.uint8], image_size: int | None, channels: int | None, framing: str = "whole"
) -> npt.NDArray[np.uint8]:
    """Frame, resize and recolour (n, C, H, W) images; None leaves a property as it is."""
    if framing != "whole":
        images = _framed_stack(images, (image_size, image_size) if image_size is not None else None, framing)
    wanted = images.shape[1] if channels is None else channels
    if images.shape[1] == 3 and wanted == 1:
        images = np.stack([luma(np.ascontiguousarray(rgb.transpose(1, 2, 0))) for rgb in images])[:, None]
    if image_size is not None and images.shape[2:] != (image_size, image_size):
        planes = images.reshape(-1, *images.shape[2:])
        shrunk = np.empty((len(planes), image_size, image_size), np.uint8)
        for index, plane in enumerate(planes):
            shrunk[index] = resize(plane, image_size, image_size)
        images = shrunk.reshape(*images.shape[:2], image_size, image_size)
    return np.repeat(images, 3, axis=1) if wanted > images.shape[1] else np.ascontiguousarray(images)


def _framed_stack(images: npt.NDArray[np.uint8], size: tuple[int, int] | None, framing: str) -> npt.NDArray[np.uint8]:
    height, width = size or images.shape[2:]
    result = np.empty((*images.shape[:2], height, width), np.uint8)
    for index, planes in enumerate(images):
        rgb = np.ascontiguousarray(planes.transpose(1, 2, 0))
        frame = Frame(planes[0]) if len(planes) == 1 else Frame(luma(rgb), rgb)
        result[index] = frame.resized(height, width, framing).channels(len(planes))
    return result


def describe_scaling(image_size: int | None, channels: int | None, framing: str = "whole") -> str:
    """What was asked of :func:`convert_stack`, to go behind a description of the preprocessing."""
    cut = "" if framing == "whole" else "; cut to the square around the foreground, brightness stretched"
    size = "" if image_size is None else f"; scaled to {image_size}x{image_size} (box filter down, bilinear up)"
    return cut + size + ("" if channels is None else f"; {channels} channel{'s' if channels > 1 else ''}")
