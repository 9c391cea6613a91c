"""Who takes part in the race, and who cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Classes = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Timed:
    """What a contender with a clock of its own measured in one start.

    Attributes:
        classes: (image,) answers.
        image_s: seconds of each image once everything was started; empty where only the whole is known.
        wall_s: from the call to the last answer, start included.
        note: what a reader must know of this run, if anything.
    """

    classes: Classes
    image_s: tuple[float, ...]
    wall_s: float
    note: str | None = None


@dataclass(frozen=True, eq=False)
class Contender:
    """A network in one program, ready to answer.

    Attributes:
        name: short and unique, such as ``onnxruntime-fp32``.
        title: for a table.
        run: images uint8 (n, C, H, W) to classes (n,); what its time is of.
        kind: ``ann`` or ``snn``.
        includes: what is in its time, in words.
        threads: it may use; None where it does not say.
        classes: names in the order of the answers; None where it does not say.
        steps: T of a spiking network.
        own_clock: for those whose every call starts a program anew: one call for some images, which are timed inside.
            ``run`` is then not called.
        most_images: that ``own_clock`` is given.
        versions: of the programs that compute.
    """

    name: str
    title: str
    run: Callable[[Images], Classes]
    kind: Literal["ann", "snn"] = "ann"
    includes: str = "images to classes"
    threads: int | None = None
    classes: tuple[str, ...] | None = None
    steps: int | None = None
    own_clock: Callable[[Images], Timed] | None = None
    most_images: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unavailable:
    """A contender that cannot run here.

    Attributes:
        name, title: as of :class:`Contender`.
        reason: what is missing and what to do, in a line.
    """

    name: str
    title: str
    reason: str
