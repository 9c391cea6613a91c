"""The interval of a share of images. No torch here: boards need it too."""

from __future__ import annotations

import math
from statistics import NormalDist

from gascnn.toolkit.errors import UsageError

LEVEL = 0.95
"""Of intervals, unless told otherwise."""


def wilson_interval(right: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share, from E. B. Wilson (J. American Statistical Association, 1927), no continuity correction.

    With p = right / count and z the normal quantile of (1 + level) / 2::

        (p + z²/2n -+ z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)

    Raises:
        UsageError: no images, more right than there are, or a level not within 0..1.
    """
    if count < 1 or not 0 <= right <= count or not 0 < level < 1:
        raise UsageError(f"{right} of {count} at level {level}; give 0 to count of at least 1, and a level within 0..1")
    share, z = right / count, NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    # All wrong and all right end at 0 and 1 but for rounding.
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
