"""Round weights so that their errors cancel: what one weight gained, the next ones lose (error diffusion).

Rounded to the nearest, the errors of a neuron's weights are independent, and inputs that go up and down together (the
pixels under a kernel, the channels of a bright region) add them up. Diffused, the errors of neighbouring weights sum to
less than one step, whatever their number: R. W. Floyd, L. Steinberg, "An adaptive algorithm for spatial greyscale",
Proc. SID 17 (1976), along one line.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.lowering import limits

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]


def diffused(weight: Floats, step: int, low: int = limits.WEIGHT_MIN, high: int = limits.WEIGHT_MAX) -> Integers:
    """Multiples of ``step`` whose running sums along every row stay within half a step of the weights'.

    Args:
        weight: (rows, columns) or (rows, columns, height, width); zeros stay zero.
        step: at least 1.
        low, high: range, multiples of ``step``; what it cuts off is handed on as well.

    Returns:
        Integers of the same shape. A row is followed column by column, through each kernel back and forth.
    """
    rows, columns = weight.shape[:2]
    flat = weight.reshape(rows, columns, -1)
    result = np.zeros(flat.shape, dtype=np.int64)
    carried = np.zeros(rows)
    path = _back_and_forth(*(weight.shape[2:] or (1, 1)))
    for column in range(columns):
        for tap in path if column % 2 == 0 else path[::-1]:
            wanted = flat[:, column, tap] + carried
            rounded = np.clip(step * np.rint(wanted / step), low, high)
            present = flat[:, column, tap] != 0
            result[:, column, tap] = np.where(present, rounded, 0)
            carried = np.where(present, wanted - rounded, carried)
    return result.reshape(weight.shape)


def _back_and_forth(height: int, width: int) -> list[int]:
    """Taps of a kernel, each beside the one before."""
    return [i * width + (j if i % 2 == 0 else width - 1 - j) for i in range(height) for j in range(width)]
