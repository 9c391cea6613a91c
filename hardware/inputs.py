"""Checks of what is fed to a network, shared by all backends."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.network import NetxNetwork


def checked_spikes(
    network: NetxNetwork, spikes: npt.NDArray[np.generic], steps: int | None = None
) -> npt.NDArray[np.uint8]:
    """Spikes as every backend takes them: (image, T, ...) uint8 with the network's full input shape.

    Args:
        network: gives the shape, the constant channels and whether integers are allowed.
        spikes: (image, step, ...); the constant channels may be left out and are then added, always on.
        steps: T; fewer steps than given are cut off, missing ones are silent.

    Raises:
        UsageError: ``steps`` is below 1.
        DataError: no images, another shape or kind, NaN, or values out of range.
    """
    if steps is not None and steps < 1:
        raise UsageError(f"steps is {steps}; it must be at least 1")
    values = np.asarray(spikes)
    shape, constant = network.input_shape, network.constant_channels
    bare = (shape[0] - constant, *shape[1:])
    if values.ndim < 3 or values.shape[0] < 1 or values.shape[1] < 1:
        raise DataError(f"spikes have shape {values.shape}; expected (image, step, {', '.join(map(str, bare))})")
    if values.shape[2:] not in (shape, bare):
        if len(shape) == 1 and values[0, 0].size == shape[0]:
            values = values.reshape(*values.shape[:2], *shape)
        else:
            raise DataError(f"spikes of one step have shape {values.shape[2:]}; this network takes {bare}")
    values = _integers(values, network)
    wanted = steps if steps is not None else values.shape[1]
    result = np.zeros((values.shape[0], wanted, *shape), dtype=np.uint8)
    filled = min(wanted, values.shape[1])
    if values.shape[2:] == shape:
        result[:, :filled] = values[:, :filled]
    else:
        result[:, :filled, : bare[0]] = values[:, :filled]
        result[:, :, bare[0] :] = 2**network.input_bits - 1 if network.input_bits else 1
    return result


def _integers(values: npt.NDArray[np.generic], network: NetxNetwork) -> npt.NDArray[np.uint8]:
    largest = 255 if network.input_bits or network.input.neuron is not None else 1
    if network.input_bits:
        largest = min(largest, 2**network.input_bits - 1)
    if values.dtype.kind not in "biuf":
        raise DataError(f"spikes have type {values.dtype}; expected integers 0..{largest}")
    if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
        raise DataError(f"spikes hold NaN or infinity; expected integers 0..{largest}")
    if values.dtype.kind != "b" and (values.min() < 0 or values.max() > largest or np.any(values != np.trunc(values))):
        kind = "graded input" if largest > 1 else "spikes"
        raise DataError(f"{kind} must be integers 0..{largest}; found {values.min()}..{values.max()}")
    return values.astype(np.uint8)
