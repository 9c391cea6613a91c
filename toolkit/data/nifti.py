"""NIfTI volumes as slices along the last axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.optional import require
from gascnn.toolkit.data.pixels import Frame, equalise, percentile_window, require_finite
from gascnn.toolkit.errors import DataError

SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 1 << 29
"""Voxels of a volume; more is taken for a damaged header."""


def read_nifti(path: Path) -> list[Frame]:
    """The slices of the middle half of a volume, in order, without those that are blank (of one value).

    Slice k is ``volume[:, :, k]`` as stored, rows along the first axis, for k from n // 4 up to (not including)
    ceil(3 n / 4); the ends of a head or chest scan show little of it. Unscaled 8-bit volumes stay as they are,
    unscaled 16-bit ones are equalised slice by slice, all others have the 1st to 99th percentile of the slices taken
    spread over 0..255.

    Raises:
        DataError: NaN, more than three axes, colour or complex numbers, nothing but blank slices.
        Exception: whatever nibabel raises for a damaged file.
    """
    image = require("nibabel", "nibabel", "medical").load(path)
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or 0 in shape:
        raise DataError(f"a NIfTI image of shape {shape}; two or three axes are read: store each volume in a file")
    if np.prod(shape, dtype=object) > MAX_VOXELS:
        raise DataError(f"{np.prod(shape, dtype=object)} voxels announced, at most {MAX_VOXELS} are read")
    stored = image.get_data_dtype()
    if stored.kind not in "iuf":
        raise DataError(f"NIfTI voxels of kind {stored}; integers or real numbers are needed")
    volume = _middle(image, shape)
    if volume.dtype.kind == "f":
        require_finite(volume)
    return _frames(volume, stored, unscaled=_is_unscaled(image))


def _middle(image: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if len(shape) == 2:
        flat: npt.NDArray[Any] = np.asanyarray(image.dataobj)
        return flat.reshape(*shape, 1)
    first, last = shape[2] // 4, -(-3 * shape[2] // 4)
    rest = (0,) * (len(image.shape) - 3)
    # Not needed, but a file that was cut short is refused even where only slices that are left out are missing.
    np.asanyarray(image.dataobj[(slice(None), slice(None), -1, *rest)])
    volume: npt.NDArray[Any] = np.asanyarray(image.dataobj[(slice(None), slice(None), slice(first, last), *rest)])
    return volume


def _is_unscaled(image: Any) -> bool:
    return float(image.dataobj.slope) == 1 and float(image.dataobj.inter) == 0


def _frames(volume: npt.NDArray[Any], stored: np.dtype[Any], unscaled: bool) -> list[Frame]:
    slices = [index for index in range(volume.shape[2]) if np.ptp(volume[:, :, index]) > 0]
    if not slices:
        raise DataError("every slice of the middle half is blank; there is nothing to learn from")
    if unscaled and stored == np.uint8:
        return [Frame(np.ascontiguousarray(volume[:, :, index])) for index in slices]
    if unscaled and stored.kind in "iu" and stored.itemsize == 2:
        return [Frame(equalise(volume[:, :, index])) for index in slices]
    window = percentile_window(volume)
    return [Frame(np.ascontiguousarray(window[:, :, index])) for index in slices]
