"""How many images and steps are run at once so that the simulator stays within a given memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gascnn.hardware.simulator.budget import too_little
from gascnn.hardware.simulator.layout import FRAMES_BYTES, LayerLayout

DEFAULT_BYTES = 1 << 30
"""What arrays may take where no limit is given."""

_STEPS_AT_ONCE = 128
"""More steps in one window bring no speed: their sums leave the first-level cache."""

_SHORTEST_WINDOW = 8
_NEURON_STEPS = 1 << 22
"""Work of a group of images that makes its Python overhead small."""


@dataclass(frozen=True)
class Plan:
    """How a run is cut.

    Attributes:
        images: at once, in each thread.
        window: steps at once.
        threads: that are worth their while.
        together: whether the threads share the rows of one group, rather than having groups of their own.
    """

    images: int
    window: int
    threads: int
    together: bool


def plan(layouts: Sequence[LayerLayout], images: int, steps: int, threads: int, room: int, whole: bool) -> Plan:
    """Cut a run into groups of images and windows of steps.

    Args:
        layouts: of all layers.
        images: in all.
        steps: T + K.
        threads: that run at the same time.
        room: bytes for the simulator's arrays, all threads together.
        whole: whether all steps must lie in one window.

    Raises:
        LimitError: not even one image and the shortest window fit.
    """
    windows = [steps] if whole else _windows(steps)
    if _work(layouts, steps) * images < _NEURON_STEPS:
        threads = 1
    for together in (False, True) if threads > 1 else (False,):
        share = room if together else room // threads
        for window in windows:
            fit = max(0, share // bytes_an_image(layouts, window, steps))
            if fit and (together or images >= threads):
                return Plan(_group(layouts, images, window, threads, fit, together), window, threads, together)
            if fit:
                break  # fewer images than threads: their rows are shared
    raise too_little(bytes_an_image(layouts, windows[-1], steps), windows[-1], room)


def bytes_an_image(layouts: Sequence[LayerLayout], window: int, steps: int) -> int:
    """Memory one image takes at most, were every neuron to fire at every step."""
    sizes = [math.prod(layouts[0].before), *(layout.cells for layout in layouts)]
    longest = min(steps, window + len(layouts))  # the first window of the last layer
    # Events before a layer, and as flags; sums, where they are those of whole frames; events behind it, while they move
    # to a larger array; and the operands of a dense product.
    moving = max(4 * (2 * before + 4 * after) * longest for before, after in pairwise(sizes))
    moving += max(FRAMES_BYTES, *(4 * layout.frame_elements for layout in layouts))
    kept = sizes[1:] if window < steps else [max(sizes[1:])]
    return moving + 16 * sum(kept)


def _windows(steps: int) -> list[int]:
    lengths = [steps] if steps <= _STEPS_AT_ONCE else []
    length = _STEPS_AT_ONCE
    while length >= _SHORTEST_WINDOW:
        if length < steps:
            lengths.append(length)
        length //= 2
    return lengths


def _group(layouts: Sequence[LayerLayout], images: int, window: int, threads: int, fit: int, together: bool) -> int:
    if together:
        return min(fit, images)
    work = _work(layouts, window)
    wanted = max(1, min(math.ceil(_NEURON_STEPS / work), math.ceil(images / threads)))
    return int(min(fit, wanted))


def _work(layouts: Sequence[LayerLayout], steps: int) -> int:
    """Updates of neurons for one image."""
    return steps * sum(layout.cells for layout in layouts)
