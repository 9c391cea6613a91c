"""What a power meter is, and what is said where there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from gascnn.hardware.power.clock import Clock

Kind = Literal["energy counter", "power samples"]


class MeterError(Exception):
    """A meter that cannot be read; the message says what is wrong with which file, command or device."""


@dataclass(frozen=True)
class Unavailable:
    """A meter that cannot be used here.

    Attributes:
        name: of the meter, as :class:`PowerMeter` names it.
        why: one sentence: not there, or which permission is missing and what to do.
    """

    name: str
    why: str


@dataclass(frozen=True)
class WindowEnergy:
    """What a meter says about a stretch of time.

    Attributes:
        time_s: its length.
        energy_j: what was used in it.
        error_j: bound on the error that sampling and quantisation make in ``energy_j``.
        samples: how many power samples lie in it; of an energy counter, how many times it is updated in that time.
        longest_gap_s: between two samples or updates.
    """

    time_s: float
    energy_j: float
    error_j: float
    samples: float
    longest_gap_s: float

    @property
    def power_w(self) -> float:
        """Mean power."""
        return self.energy_j / self.time_s


class Marks(Protocol):
    """Something that is told, from :meth:`start` to :meth:`stop`, when a window begins and ends."""

    @property
    def settle_s(self) -> float:
        """How long after a change of load the meter still shows something of before."""
        ...

    def start(self) -> None:
        """Begin to record."""

    def mark(self) -> float:
        """Take a reading now and give its time, to be used as the edge of a window."""
        ...

    def check(self) -> None:
        """Raise BackendError if the meter vanished."""

    def stop(self) -> None:
        """End any thread; may be called twice."""


class Recording(Marks, Protocol):
    """A meter at work; after :meth:`stop`, :meth:`window` gives the energy of each window."""

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures should know about this recording."""
        ...

    def window(self, start_s: float, end_s: float) -> WindowEnergy:
        """The energy between two marks."""
        ...


class PowerMeter(Protocol):
    """Anything that tells energy or power.

    Attributes:
        name: ``rapl``, ``ina3221``, ``pmic``, ``nvml`` or ``usb-log``.
        description: which rails or domains it covers, and what it leaves out.
        kind: ``energy counter`` (adds up by itself) or ``power samples`` (has to be asked again and again).
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - in the class docstring

    @property
    def description(self) -> str: ...  # noqa: D102

    @property
    def kind(self) -> Kind: ...  # noqa: D102

    def recording(self, clock: Clock) -> Recording:
        """A new recording with this meter."""
        ...


def read_text(path: Path) -> str:
    """The content of a small file of the kernel's, without white space around it.

    Raises:
        MeterError: it cannot be read.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        raise MeterError(f"{path} cannot be read ({error.strerror or error})") from error


def read_number(path: Path) -> float:
    """The number in a file of the kernel's.

    Raises:
        MeterError: the file cannot be read, or holds no finite number.
    """
    text = read_text(path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise MeterError(f"{path} holds {text[:40]!r} and no number")
    return number
