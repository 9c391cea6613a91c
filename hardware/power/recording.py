"""Recording with a meter that is asked while the work runs: an energy counter or a power sampler."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gascnn.hardware.power.clock import Clock
from gascnn.hardware.power.meter import Kind, MeterError, WindowEnergy
from gascnn.toolkit.errors import BackendError, first_line

_COUNTER_PERIOD_S = 1.0
"""How often a counter is read in between, far below the time in which one runs over."""

_PROBE_S = 1.0
_PROBE_PAUSE_S = 0.0002
_PROBE_CHANGES = 16
_IMPLAUSIBLE_W = 20_000.0
_HELD_UP = 5
"""Sampling periods without a sample that are worth a note."""

Floats = npt.NDArray[np.float64]


class _Polled(ABC):
    """Readings ``(time, value)`` taken at every mark and, in a thread, at every period in between."""

    def __init__(self, name: str, clock: Clock, period_s: float) -> None:
        self._name = name
        self._clock = clock
        self._period_s = period_s
        self._lock = threading.Lock()
        self._times: list[float] = []
        self._values: list[float] = []
        self._began_s = 0.0
        self._failure: str | None = None
        self._end: Callable[[], None] | None = None

    @abstractmethod
    def _read(self) -> float: ...

    def start(self) -> None:
        """Begin to record; the thread runs until :meth:`stop`.

        Raises:
            BackendError: the meter cannot be read.
        """
        self._began_s = self._clock.now_s()
        self.mark()
        self._end = self._clock.every(self._period_s, self._sample)

    def stop(self) -> None:
        """End the thread; may be called twice."""
        if self._end is not None:
            self._end()
            self._end = None

    def mark(self) -> float:
        """Take a reading and give its time.

        Raises:
            BackendError: the meter vanished, now or since the last mark.
        """
        self._sample()
        self.check()
        return self._times[-1]

    def check(self) -> None:
        """See whether the meter is still there.

        Raises:
            BackendError: what vanished, and when.
        """
        if self._failure is not None:
            raise BackendError(self._failure)

    def _sample(self) -> bool:
        with self._lock:
            if self._failure is None:
                before = self._clock.now_s()
                try:
                    value = self._read()
                    if not math.isfinite(value):
                        raise MeterError(f"it reads {value}")
                    after = self._clock.now_s()
                    self._accept((before + after) / 2, value)
                except Exception as error:  # in a thread: whatever it is must reach the caller, not stderr
                    self._fail(first_line(error))
            return self._failure is None

    def _accept(self, time_s: float, value: float) -> None:
        self._times.append(time_s)
        self._values.append(value)

    def _fail(self, why: str) -> None:
        seconds = self._clock.now_s() - self._began_s
        self._failure = (
            f"the {self._name} meter vanished {seconds:.1f} s after the measurement began: {why}; "
            "no energy figure is given"
        )

    def _between(self, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        times, values = np.array(self._times), np.array(self._values)
        inside = (times >= start_s) & (times <= end_s)
        return times[inside], values[inside]


class EnergyCounter(ABC):
    """A meter that adds up energy by itself.

    Attributes:
        name, description: see :class:`gascnn.hardware.power.meter.PowerMeter`.
        step_j: the smallest amount it counts.
    """

    kind: Kind = "energy counter"
    name: str
    description: str
    step_j: float

    @abstractmethod
    def read_j(self) -> float:
        """Joules since the first reading; running over at the counter's end is made good.

        Raises:
            MeterError: it cannot be read.
        """

    def recording(self, clock: Clock) -> CounterRecording:
        """A new recording with this meter."""
        return CounterRecording(self, clock)


class CounterRecording(_Polled):
    """Energy as the difference of a counter's readings at both edges of a window.

    A reading is up to one update old, so the difference may be wrong by ``error_j = update_s * power + step_j``, with
    the mean power of the window: both edges are wrong in the same direction, and the larger of the two counts.
    """

    def __init__(self, meter: EnergyCounter, clock: Clock) -> None:
        super().__init__(meter.name, clock, _COUNTER_PERIOD_S)
        self._meter = meter
        self._update_s = 0.0
        self.notes: list[str] = []

    @property
    def settle_s(self) -> float:
        """One update."""
        return self._update_s

    def start(self) -> None:
        """See how often the counter is updated, then begin.

        Raises:
            BackendError: the meter cannot be read.
        """
        self._began_s = self._clock.now_s()
        self._update_s = self._probe()
        super().start()

    def window(self, start_s: float, end_s: float) -> WindowEnergy:
        """The energy between two marks.

        Raises:
            BackendError: the counter stood still all the time.
        """
        times, joules = self._between(start_s, end_s)
        time_s, energy = float(times[-1] - times[0]), float(joules[-1] - joules[0])
        if self._values[-1] == self._values[0]:
            raise BackendError(
                f"the {self._name} counter stood still during the whole measurement, as in many virtual machines; "
                "no energy figure is given"
            )
        power = energy / time_s
        return WindowEnergy(
            time_s=time_s,
            energy_j=energy,
            error_j=self._update_s * power + self._meter.step_j,
            samples=time_s / self._update_s,
            longest_gap_s=self._update_s,
        )

    def _read(self) -> float:
        return self._meter.read_j()

    def _accept(self, time_s: float, value: float) -> None:
        if self._times:
            grown, passed = value - self._values[-1], time_s - self._times[-1]
            if not 0 <= grown <= _IMPLAUSIBLE_W * passed + _IMPLAUSIBLE_W * self._update_s:
                raise MeterError(f"its counter jumped by {grown:.0f} J in {passed:.1f} s")
        super()._accept(time_s, value)

    def _probe(self) -> float:
        """The longest time between two changes of the counter, seen by reading it over and over for a moment."""
        changes: list[float] = []
        end = self._clock.now_s() + _PROBE_S
        try:
            last = self._meter.read_j()
            while len(changes) <= _PROBE_CHANGES and self._clock.now_s() < end:
                self._clock.sleep(_PROBE_PAUSE_S)
                value = self._meter.read_j()
                if value != last:
                    changes.append(self._clock.now_s())
                    last = value
        except MeterError as error:
            self._fail(str(error))
            self.check()
        if len(changes) < 2:
            self.notes.append(f"the counter changed {len(changes)} times in {_PROBE_S:g} s; it is taken as that slow")
            return _PROBE_S
        return float(np.diff(changes).max())


class PowerSampler(ABC):
    """A meter that tells the power of this moment.

    Attributes:
        name, description: see :class:`gascnn.hardware.power.meter.PowerMeter`.
        period_s: how often it is asked.
        lag_s: the time over which one reading is an average.
    """

    kind: Kind = "power samples"
    name: str
    description: str
    period_s: float
    lag_s: float = 0.0

    @abstractmethod
    def read_w(self) -> float:
        """The power now.

        Raises:
            MeterError: it cannot be read.
        """

    @abstractmethod
    def step_w(self) -> float:
        """The smallest difference in power it can show, at the present load."""

    def recording(self, clock: Clock) -> SampleRecording:
        """A new recording with this meter."""
        return SampleRecording(self, clock)


class SampleRecording(_Polled):
    """Energy as the integral of power samples, linear in between; see :func:`integrate`."""

    def __init__(self, meter: PowerSampler, clock: Clock) -> None:
        super().__init__(meter.name, clock, meter.period_s)
        self._meter = meter
        self._step_w = 0.0
        self.notes: list[str] = []

    @property
    def settle_s(self) -> float:
        """The time over which a reading is an average."""
        return self._meter.lag_s

    def window(self, start_s: float, end_s: float) -> WindowEnergy:
        """The energy between two marks.

        Raises:
            BackendError: there is no sample in between, so that nothing is known about the time between the marks.
        """
        times, watts = self._between(start_s, end_s)
        if len(np.unique(times)) < 3:
            raise BackendError(
                f"the {self._name} meter gave no sample within {end_s - start_s:.1f} s (asked every "
                f"{self._period_s:g} s): the work holds Python's interpreter lock, let it return more often; "
                "no energy figure is given"
            )
        result = integrate(times, watts, step_w=self._step_w, lag_s=self._meter.lag_s)
        if result.longest_gap_s > _HELD_UP * self._period_s and not self.notes:
            self.notes.append(
                f"sampling was held up for {result.longest_gap_s:.2f} s where {self._period_s:g} s was asked for"
            )
        return result

    def _read(self) -> float:
        watts = self._meter.read_w()
        self._step_w = max(self._step_w, self._meter.step_w())
        return watts


def integrate(times_s: Floats, watts: Floats, *, step_w: float, lag_s: float) -> WindowEnergy:
    """Energy from the first to the last sample: the trapezoidal sum of ``h_i (P_i + P_i+1) / 2``.

    Its error is bounded by ``sum of h_i |P_i+1 - P_i| / 2`` (power that goes steadily from one sample to the next),
    plus ``T step_w / 2`` (rounding), plus ``lag_s (P_max - P_min)`` (a reading that is an average over the past).

    Args:
        times_s: (n,) ascending, at least two.
        watts: (n,) power.
        step_w: smallest difference the meter shows.
        lag_s: time over which a reading is an average, or by which its time may be wrong.
    """
    gaps = np.diff(times_s)
    time_s = float(times_s[-1] - times_s[0])
    between = float((gaps * np.abs(np.diff(watts))).sum() / 2)
    return WindowEnergy(
        time_s=time_s,
        energy_j=float((gaps * (watts[1:] + watts[:-1])).sum() / 2),
        error_j=between + time_s * step_w / 2 + lag_s * float(np.ptp(watts)),
        samples=float(np.count_nonzero(gaps)),
        longest_gap_s=float(gaps.max()),
    )
