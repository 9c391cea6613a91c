"""What NetX and Lava's ``Dense`` make of a stored weight matrix, followed step by step.

NetX re-encodes the matrix (``optimize_weight_bits`` in ``lava/lib/dl/netx/utils.py``): it shifts the weights left so
that they use 8 bits and lets the synapse shift its sums right again. ``Dense`` then clips and truncates to the bits
it was told (``lava/utils/weightutils.py``), deciding the sign mode anew, for a recurrent matrix on its own. For legal
weights the net effect is nothing; for some one-signed matrices the weights come out smaller, or zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import LimitError
from gascnn.toolkit.lowering.network import DenseLayer

IntMatrix = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EffectiveDense:
    """The numbers that act in Lava: ``a = (weight @ s) >> shift``, and so for the recurrent matrix.

    Attributes:
        weight: (N, M).
        recurrent: (N, N), or None where the layer has none.
        shift: bits the sums are shifted right by; 0 where every weight is a multiple of it, the usual case.
    """

    weight: IntMatrix
    recurrent: IntMatrix | None
    shift: int


def effective_dense(layer: DenseLayer, label: str) -> EffectiveDense:
    """What acts in Lava in the place of a layer's stored matrices.

    Args:
        layer: as NetX reads it.
        label: its name, for messages.

    Raises:
        LimitError: a matrix that crashes NetX (all zero), one that it turns into zeros without a word, or recurrent
            synapses with delays, for which NetX forgets to shift the sums back.
    """
    parts = [layer.weight.astype(np.int64)]
    if layer.weight_rec is not None:
        parts.append(layer.weight_rec.astype(np.int64))
        if layer.delay is not None:
            raise LimitError(f"{label}: recurrent synapses with delays come out scaled in NetX; remove the delays")
    stored = np.hstack(parts)
    if stored.min() < 0 < stored.max():
        parts = [np.clip(part, -256, 254) for part in parts]
        stored = np.hstack(parts)
    shift, signed = _netx_shift(stored, label)
    used_bits = 8 - shift - (_trailing_zeros(stored) - signed)
    encoded = [_dense_encoding(part, shift, used_bits, label) for part in parts]
    if not any(np.any(part & (1 << shift) - 1) for part in encoded):
        encoded, shift = [part >> shift for part in encoded], 0
    return EffectiveDense(encoded[0], encoded[1] if len(encoded) > 1 else None, shift)


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
    low_bits = int(np.bitwise_or.reduce(weight, axis=None)) & 0xFF | 0x100
    return (low_bits & -low_bits).bit_length() - 1


def _dense_encoding(weight: IntMatrix, shift: int, used_bits: int, label: str) -> IntMatrix:
    """``clip_weights`` and ``truncate_weights`` of ``Dense`` with the sign mode it decides itself."""
    shifted = weight << shift
    mixed = int(shifted.min() < 0 < shifted.max())
    drop = 8 - used_bits + mixed
    if drop < 0 and np.any(shifted):
        # NetX counted a bit for a sign that Dense does not see; its shift by -1 bits then clears every weight.
        raise LimitError(
            f"{label}: weights {weight.min()}..{weight.max()} of one sign come out as zeros in Lava without a word, "
            "since NetX stores them with a sign bit and they are odd; make them even"
        )
    sign = -1 if not mixed and shifted.min() < 0 else 1
    clipped = np.clip(sign * shifted, -256 * mixed, 255)
    encoded: IntMatrix = sign * ((clipped >> drop) << drop) if drop > 0 else sign * clipped
    return encoded
