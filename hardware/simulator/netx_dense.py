"""What NetX and Lava's ``Dense`` make of a stored weight matrix, followed step by step.

NetX re-encodes the matrix (``optimize_weight_bits`` in ``lava/lib/dl/netx/utils.py``): it shifts the weights left so
that they use 8 bits and lets the synapse shift its sums right again. ``Dense`` then clips and truncates to the bits
it was told (``lava/utils/weightutils.py``), deciding the sign mode anew. For legal weights the net effect is nothing;
for some one-signed matrices the weights come out smaller.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import LimitError

IntMatrix = npt.NDArray[np.int64]


def effective_dense(stored: IntMatrix, label: str) -> tuple[IntMatrix, int]:
    """Weights and right shift that act in Lava: ``a = (weights @ s) >> shift``.

    Args:
        stored: (N, M) integers as NetX reads them.
        label: name of the layer, for messages.

    Returns:
        The weights ``Dense`` multiplies and the number of bits its sums are shifted right by (0 where every weight is
        a multiple of the shift, the usual case).

    Raises:
        LimitError: a matrix that crashes NetX (all zero) or that it turns into zeros without a word.
    """
    weight = stored
    if weight.max() > 254 and weight.min() < 0:
        weight = np.clip(weight, -256, 254)
    if weight.min() < -256 and weight.max() > 0:
        weight = np.clip(weight, -256, 254)
    shift, signed = _netx_shift(weight, label)
    used_bits = 8 - shift - (_trailing_zeros(weight) - signed)
    shifted = weight << shift
    encoded = _dense_encoding(shifted, used_bits)
    if not np.any(encoded % (1 << shift)):
        return encoded >> shift, 0
    return encoded, shift


def _netx_shift(weight: IntMatrix, label: str) -> tuple[int, int]:
    """(left shift, 1 if NetX calls the matrix mixed) of ``optimize_weight_bits``."""
    low, high = int(weight.min()), int(weight.max())
    if low == high == 0:
        raise LimitError(f"{label}: all weights are zero; NetX cannot load such a dense layer; remove it")
    if high < 0:
        scale, signed = -256 / low, 0
    elif low >= 0:
        scale, signed = 255 / high, 0
    else:
        scale, signed = min(127 / high if high > 0 else math.inf, -128 / low), 1
    shift = math.floor(math.log2(scale)) + signed
    if shift < 0:
        raise LimitError(
            f"{label}: weights {low}..{high} exceed 8 bits; NetX drops all of them without a word; scale them down"
        )
    return shift, signed


def _trailing_zeros(weight: IntMatrix) -> int:
    """Largest n <= 8 with every weight a multiple of 2^n (0 if even n = 1 leaves a rest)."""
    for n in range(8, 0, -1):
        if not np.any(weight % (1 << n)):
            return n
    return 0


def _dense_encoding(shifted: IntMatrix, used_bits: int) -> IntMatrix:
    """``clip_weights`` and ``truncate_weights`` of ``Dense`` with the sign mode it decides itself."""
    mixed = int(shifted.min() < 0 < shifted.max())
    sign = -1 if not mixed and shifted.min() < 0 else 1
    clipped = np.clip(sign * shifted, -256 * mixed, 255)
    drop = 8 - used_bits + mixed
    return sign * ((clipped >> drop) << drop) if drop > 0 else sign * clipped
