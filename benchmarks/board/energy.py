"""Energy of each network by whatever meter the board has; without one the reasons, and never an estimate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gascnn.benchmarks.board.timing import Progress
from gascnn.toolkit.errors import BackendError, FormatError, UsageError

if TYPE_CHECKING:
    from gascnn.hardware.power import PowerMeter

NO_METER = "none"

_WORK_S = 0.05
"""Quick networks answer for so long before the meter is looked after again."""

Calls = Mapping[str, tuple[Callable[[int], Any], Sequence[int]]]


@dataclass(frozen=True)
class Meter:
    """What energy is measured with, if anything.

    Attributes:
        meter: a meter that can be read now, or None.
        log: the file of a meter's log, which may come to be after the run; or None.
        why: why neither is there.
        unavailable: ``name`` and ``why`` of each meter that cannot be used here.
    """

    meter: PowerMeter | None = None
    log: Path | None = None
    why: str = ""
    unavailable: tuple[dict[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """``used`` (a name, or None) and ``unavailable``."""
        used = None if self.meter is None else self.meter.name
        return {"used": "usb-log" if self.log is not None else used, "unavailable": list(self.unavailable)}


@dataclass(frozen=True)
class EnergyPlan:
    """How long energy is measured; see :func:`gascnn.hardware.power.measure_energy`.

    Attributes:
        idle_s, rounds, seconds: idle time and work of a round, and how many there are.
    """

    idle_s: float = 5.0
    rounds: int = 5
    seconds: float = 5.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < float("inf"):
                raise UsageError(f"{name} is {value}; it must be above 0")


def choose_meter(wanted: str | None) -> Meter:
    """The meter that was asked for: a name, the file of a log, ``none``, or None for the first that can be read.

    Raises:
        UsageError: a meter of that name cannot be read; says which can.
    """
    from gascnn.hardware.power import detect_meters

    if wanted == NO_METER:
        return Meter(why="no meter was wanted")
    if wanted is not None and _is_path(wanted):
        return Meter(log=Path(wanted))
    meters, missing = detect_meters()
    unavailable = tuple({"name": entry.name, "why": entry.why} for entry in missing)
    if wanted is None:
        if meters:
            return Meter(meter=meters[0], unavailable=unavailable)
        return Meter(why="no energy meter can be read here", unavailable=unavailable)
    for meter in meters:
        if meter.name == wanted:
            return Meter(meter=meter, unavailable=unavailable)
    reason = next((entry["why"] for entry in unavailable if entry["name"] == wanted), "there is none of that name")
    there = ", ".join(meter.name for meter in meters) or "none"
    raise UsageError(f"meter {wanted} cannot be read: {reason}; meters that can: {there}")


def _is_path(wanted: str) -> bool:
    return os.sep in wanted or "." in wanted or Path(wanted).is_file()


def measure_all(chosen: Meter, plan: EnergyPlan, calls: Calls, progress: Progress | None) -> dict[str, dict[str, Any]]:
    """Energy of each network, one after the other.

    Args:
        chosen: the meter.
        plan: how long.
        calls: by network, what answers an image, and the images it takes one after the other.
        progress: told the network, per cent, and 100.

    Returns:
        By network: ``measured`` true and :meth:`gascnn.hardware.power.EnergyMeasurement.to_dict`, or ``measured`` false
        and ``why``, and with a log that could not be read the ``windows`` to lay over it later
        (:func:`gascnn.benchmarks.board.merge.add_log`). A meter that vanishes costs that network's figure alone.
    """
    if chosen.meter is None and chosen.log is None:
        return {name: {"measured": False, "why": chosen.why} for name in calls}
    measured = {}
    for name, (call, images) in calls.items():
        told = None if progress is None else _percent(progress, f"{name}, energy")
        measured[name] = _measure(chosen, plan, _work(call, images), told)
    return measured if chosen.log is None else {n: from_log(value, chosen.log) for n, value in measured.items()}


def _measure(
    chosen: Meter, plan: EnergyPlan, work: Callable[[], int], told: Callable[[float], None] | None
) -> dict[str, Any]:
    from gascnn.hardware.power import measure_energy, record_windows

    try:
        if chosen.meter is None:
            return {"windows": record_windows(work, **asdict(plan), progress=told).to_dict()}
        return measured_energy(measure_energy(chosen.meter, work, **asdict(plan), progress=told))
    except (BackendError, FormatError) as error:
        return {"measured": False, "why": str(error)}


def measured_energy(measurement: Any) -> dict[str, Any]:
    """A measurement as it stands in a result."""
    return {"measured": True, **measurement.to_dict()}


def from_log(recorded: dict[str, Any], path: Path) -> dict[str, Any]:
    """Lay recorded ``windows`` over the log of a meter; where that cannot be, keep them and say why."""
    from gascnn.hardware.power import RecordedWindows, UsbLog, energy_from_log

    if "windows" not in recorded:
        return recorded
    try:
        return measured_energy(energy_from_log(RecordedWindows.from_dict(recorded["windows"]), UsbLog(path)))
    except (BackendError, FormatError) as error:
        return {"measured": False, "why": str(error), "windows": recorded["windows"]}


def _work(call: Callable[[int], Any], images: Sequence[int]) -> Callable[[], int]:
    """Answers one image, or quick ones for a moment, where it stopped the last time; gives how many."""
    place = 0

    def work() -> int:
        nonlocal place
        done, end = 0, time.monotonic() + _WORK_S
        while done == 0 or time.monotonic() < end:
            call(images[place])
            place, done = (place + 1) % len(images), done + 1
        return done

    return work


def _percent(progress: Progress, name: str) -> Callable[[float], None]:
    return lambda share: progress(name, round(100 * share), 100)
