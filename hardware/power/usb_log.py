"""The log of a USB power meter, or of any other that writes timestamps and power to a text file."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gascnn.hardware.power.clock import Clock
from gascnn.hardware.power.meter import Kind, WindowEnergy
from gascnn.hardware.power.recording import integrate
from gascnn.hardware.power.windows import TimesOnly
from gascnn.toolkit.errors import FormatError, UsageError, first_line

ROLES = ("time", "power", "voltage", "current")

_KNOWN = {
    "time": {"time", "timestamp", "epoch", "datetime", "date_time", "utc_time", "unix_time", "time_s"},
    "power": {"power", "p", "w", "watt", "watts", "power_w", "power_mw", "power_watts", "mw"},
    "voltage": {"voltage", "volt", "volts", "u", "v", "vbus", "voltage_v", "voltage_mv", "vbus_v", "mv"},
    "current": {"current", "i", "a", "amp", "amps", "ampere", "ibus", "current_a", "current_ma", "ibus_a", "ma"},
}
_MILLI = ("mw", "mv", "ma")
_EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""Numbers above the first are epoch times in units of the second, in seconds."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UsbLog:
    """A power meter whose log is read after the run.

    The file is text with a header line: comma, semicolon, tab or spaces between columns, ``#`` before comments. One
    column is the time, ISO 8601 or a number (seconds since 1970, or milli-, micro-, nanoseconds, told apart by size);
    one is the power, or two are voltage and current. Columns are recognised by their names, as ``power``,
    ``power_W``, ``Power(mW)``, or named in ``columns``.

    Args:
        path: the file; it need not exist before the run is over.
        columns: names of the columns for ``time``, ``power``, ``voltage``, ``current``.
        clock_offset_s: is added to the log's times: how far its clock is behind that of the machine that works.
        clock_error_s: how wrong the offset may be; goes into the sampling error and is left out at changes of load.
        max_gap_s: samples further apart than this are a gap, and a gap within a window is an error.
        before_reading: called once between the run and the reading, e.g. to have the log saved.

    Raises:
        UsageError: a number or a column's role that cannot be.
    """

    path: Path
    columns: Mapping[str, str] | None = None
    clock_offset_s: float = 0.0
    clock_error_s: float = 0.0
    max_gap_s: float = 1.0
    before_reading: Callable[[], None] | None = None

    name: ClassVar[str] = "usb-log"
    kind: ClassVar[Kind] = "power samples"

    def __post_init__(self) -> None:
        if not math.isfinite(self.clock_offset_s):
            raise UsageError(f"clock_offset_s is {self.clock_offset_s}; it must be a number of seconds")
        if not (math.isfinite(self.clock_error_s) and self.clock_error_s >= 0):
            raise UsageError(f"clock_error_s is {self.clock_error_s}; it must be 0 or more")
        if not (math.isfinite(self.max_gap_s) and self.max_gap_s > 0):
            raise UsageError(f"max_gap_s is {self.max_gap_s}; it must be above 0")
        if unknown := set(self.columns or {}) - set(ROLES):
            raise UsageError(f"unknown column role {min(unknown)!r}; known: {', '.join(ROLES)}")

    @property
    def description(self) -> str:
        """What it covers."""
        return f"log {Path(self.path).name}: everything behind the meter, power supply losses before it left out"

    def recording(self, clock: Clock) -> LogRecording:
        """A new recording with this meter."""
        return LogRecording(self, clock)

    def read(self) -> PowerSeries:
        """The log as it is now.

        Raises:
            FormatError: not there, columns not recognised, a cell that is no number, times that go back.
        """
        if self.before_reading is not None:
            self.before_reading()
        header, rows = _table(self.path)
        roles = _roles(self.path, header, self.columns)
        cells: dict[str, list[float]] = {role: [] for role in roles}
        for line, row in rows:
            if len(row) != len(header):
                raise FormatError(f"{self.path}, line {line}: {len(row)} columns where the header has {len(header)}")
            for role, index in roles.items():
                cells[role].append(_cell(self.path, line, header[index], row[index], role))
        table = {role: np.array(values) * _scale(header[roles[role]], role) for role, values in cells.items()}
        times = table["time"] + self.clock_offset_s
        if len(times) < 2:
            raise FormatError(f"{self.path} holds {len(times)} samples; a log needs at least 2")
        if (back := np.flatnonzero(np.diff(times) < 0)).size:
            raise FormatError(f"{self.path}: time goes back after sample {back[0] + 1}; the log must be in order")
        watts, step = _power(table)
        return PowerSeries(os.fspath(self.path), times, watts, step, self.clock_error_s, self.max_gap_s)


@dataclass(frozen=True, eq=False)
class PowerSeries:
    """A log that was read.

    Attributes:
        path: where from.
        times_s: (n,) ascending, seconds since 1970-01-01 UTC by the clock of the machine that worked.
        watts: (n,) power.
        step_w: smallest difference the log shows.
        clock_error_s, max_gap_s: see :class:`UsbLog`.
    """

    path: str
    times_s: Floats
    watts: Floats
    step_w: float
    clock_error_s: float
    max_gap_s: float

    def window(self, start_s: float, end_s: float) -> WindowEnergy:
        """The energy of a window, linear between samples, at its edges too.

        Raises:
            FormatError: the log does not cover the window, or has a gap there.
        """
        times, watts = self.times_s, self.watts
        first = int(np.searchsorted(times, start_s, side="right")) - 1
        last = int(np.searchsorted(times, end_s, side="left"))
        if first < 0 or last >= len(times):
            raise FormatError(
                f"{self.path} covers {_day(times[0])} to {_day(times[-1])}, but the run was {_day(start_s)} to "
                f"{_day(end_s)}; log the whole run, or set the clock offset"
            )
        gaps = np.diff(times[first : last + 1])
        if gaps.max() > self.max_gap_s:
            where = times[first + int(gaps.argmax())]
            raise FormatError(
                f"{self.path} has a gap of {gaps.max():.2f} s after {_day(where)}, within the run; at most "
                f"{self.max_gap_s:g} s is interpolated: log faster, or allow a longer gap"
            )
        inner = slice(first + 1, last)
        edges = np.interp([start_s, end_s], times[first : last + 1], watts[first : last + 1])
        return integrate(
            np.concatenate([[start_s], times[inner], [end_s]]),
            np.concatenate([edges[:1], watts[inner], edges[1:]]),
            step_w=self.step_w,
            lag_s=self.clock_error_s,
        )


class LogRecording(TimesOnly):
    """Notes times during the run and reads the log when the first window is asked for."""

    def __init__(self, log: UsbLog, clock: Clock) -> None:
        super().__init__(clock)
        self._log = log
        self._series: PowerSeries | None = None
        self.settle_s = log.clock_error_s
        self.notes: list[str] = []

    def window(self, start_s: float, end_s: float) -> WindowEnergy:
        """The energy between two marks.

        Raises:
            BackendError: the time of day was set during the run.
            FormatError: the log cannot be read or does not cover the window.
        """
        edges = self.epoch_s(start_s), self.epoch_s(end_s)
        if self._series is None:
            self._series = self._log.read()
        return self._series.window(*edges)


def _table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header and numbered rows, split."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise FormatError(f"power log {path} cannot be read: {reason}") from error
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    if not numbered:
        raise FormatError(f"power log {path} is empty")
    separator = next((mark for mark in ("\t", ";", ",") if mark in numbered[0][1]), None)

    def split(line: str) -> list[str]:
        if separator is None:
            return line.split()
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]

    return split(numbered[0][1]), ((n, split(line)) for n, line in numbered[1:])


def _plain(name: str) -> str:
    """A column's name in lower case with underscores: ``Power(mW)`` becomes ``power_mw``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _roles(path: Path, header: list[str], named: Mapping[str, str] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for role in ROLES:
        if named is not None and role in named:
            matches = [i for i, column in enumerate(header) if column == named[role]]
            if not matches:
                raise FormatError(f"{path} has no column {named[role]!r}; it has {', '.join(header)}")
        else:
            matches = [i for i, column in enumerate(header) if _plain(column) in _KNOWN[role]]
        if len(matches) > 1 and role != "time":  # a second clock does no harm, a second power does
            several = ", ".join(header[i] for i in matches)
            raise FormatError(f"{path} has several columns for {role}: {several}; name one of them")
        if matches:
            found[role] = matches[0]
    wanted = ("time", "power") if "power" in found else ("time", "voltage", "current")
    if any(role not in found for role in wanted):
        raise FormatError(
            f"{path}: no time and power, or time, voltage and current, among the columns {', '.join(header)}; "
            "name the columns"
        )
    return {role: found[role] for role in wanted}


def _scale(column: str, role: str) -> float:
    return 1e-3 if role != "time" and _plain(column).rpartition("_")[2] in _MILLI else 1.0


def _cell(path: Path, line: int, column: str, text: str, role: str) -> float:
    try:
        value = _seconds(text) if role == "time" else float(text)
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise FormatError(f"{path}, line {line}: {column} is {text[:40]!r}, which is no {role}")
    return value


def _seconds(text: str) -> float:
    """Seconds since 1970-01-01 UTC; a time without a zone is in the local one."""
    try:
        number = float(text)
    except ValueError:
        return _iso(text)
    return next((number * unit for least, unit in _EPOCH_UNITS if number > least), number)


def _iso(text: str) -> float:
    # Python 3.10 knows neither Z nor fractions of other than 3 or 6 digits.
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)([.,]\d+)?\s*(Z|[+-]\d\d:?\d\d)?", text.strip())
    if match is None:
        raise ValueError(text)
    whole, fraction, zone = match.groups()
    moment = datetime.fromisoformat(whole)
    if zone is not None:
        digits = "+0000" if zone == "Z" else zone.replace(":", "")
        moment = datetime.strptime(f"{whole.replace('T', ' ')}{digits}", "%Y-%m-%d %H:%M:%S%z")
    return moment.timestamp() + (float(f"0.{fraction[1:]}") if fraction else 0.0)


def _power(table: Mapping[str, Floats]) -> tuple[Floats, float]:
    """Power and its smallest step."""
    if "power" in table:
        return table["power"], _step(table["power"])
    volts, amperes = table["voltage"], table["current"]
    step = float(np.abs(volts).mean()) * _step(amperes) + float(np.abs(amperes).mean()) * _step(volts)
    return volts * amperes, step


def _step(values: Floats) -> float:
    """The smallest difference between two values, 0 if all are equal."""
    levels = np.unique(values)
    return float(np.diff(levels).min()) if len(levels) > 1 else 0.0


def _day(epoch_s: float) -> str:
    return datetime.fromtimestamp(float(epoch_s), tz=timezone.utc).isoformat(timespec="milliseconds")
