"""Measure what inferences cost: idle and work in turn, idle subtracted."""

from __future__ import annotations

from gascnn.hardware.power.clock import Clock
from gascnn.hardware.power.meter import PowerMeter
from gascnn.hardware.power.result import EnergyMeasurement, evaluate
from gascnn.hardware.power.usb_log import UsbLog
from gascnn.hardware.power.windows import Plan, Progress, RecordedWindows, TimesOnly, Work


def measure_energy(
    meter: PowerMeter,
    work: Work,
    *,
    idle_s: float = 5.0,
    rounds: int = 5,
    seconds: float = 5.0,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> EnergyMeasurement:
    """Joules per inference above idle.

    Each round is idle for ``idle_s / 2``, works for ``seconds``, and is idle for ``idle_s / 2`` again; no idle time is
    shared between rounds, so that they are independent. After each change of load 0.25 s, or the time over which the
    meter averages if that is longer, are left out: the machine waits or works, but it does not count. The meter is
    read in the same way while idle, so what the reading costs is subtracted, too.

    Args:
        meter: from :func:`gascnn.hardware.power.detect_meters`, or a :class:`gascnn.hardware.power.UsbLog`.
        work: does some inferences and returns how many, again and again until ``seconds`` have passed; a first call
            that is not counted warms up. Shorter than a second is best: a meter is sampled by a thread of this process.
        idle_s: idle time of a round.
        rounds: at least 2 for an interval.
        seconds: of work in a round, at least.
        progress: called with the share that is done, 0 to 1.
        clock: the machine's; another one for tests.

    Raises:
        BackendError: the meter cannot be read or vanished; there is no figure then.
        FormatError: the log does not cover the run.
        UsageError: ``work`` returned no count, or a number that is not above 0.
    """
    clock = Clock() if clock is None else clock
    plan = Plan(idle_s, rounds, seconds)
    recording = meter.recording(clock)
    return evaluate(
        meter=meter.name,
        description=meter.description,
        kind=meter.kind,
        rounds=plan.run(recording, work, clock, progress),
        window=recording.window,
        notes=lambda: recording.notes,
    )


def record_windows(
    work: Work,
    *,
    idle_s: float = 5.0,
    rounds: int = 5,
    seconds: float = 5.0,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> RecordedWindows:
    """Do what :func:`measure_energy` does without a meter, and note the times: for a log that is elsewhere.

    Args:
        work, idle_s, rounds, seconds, progress, clock: see :func:`measure_energy`.

    Raises:
        BackendError: the time of day was set during the run.
        UsageError: as :func:`measure_energy`.
    """
    clock = Clock() if clock is None else clock
    recording = TimesOnly(clock)
    return recording.in_epoch(Plan(idle_s, rounds, seconds).run(recording, work, clock, progress))


def energy_from_log(windows: RecordedWindows, log: UsbLog) -> EnergyMeasurement:
    """Joules per inference from recorded windows and the log of a meter.

    Raises:
        FormatError: the log cannot be read, or does not cover the windows without gaps.
    """
    series = log.read()
    return evaluate(
        meter=log.name,
        description=log.description,
        kind=log.kind,
        rounds=windows.rounds,
        window=series.window,
    )
