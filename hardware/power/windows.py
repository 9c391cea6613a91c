"""When the machine worked and when it was idle: the plan of a measurement, and its times without any meter."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gascnn.hardware.power.clock import Clock
from gascnn.hardware.power.meter import Marks
from gascnn.toolkit.errors import BackendError, FormatError, UsageError

Work = Callable[[], int]
Progress = Callable[[float], None]
Window = tuple[float, float]

SETTLE_S = 0.25
"""Left out after each change of load: worker threads stop spinning, the clock frequency follows."""

_IDLE_CHECKS_S = 0.25
_CLOCK_STEP_S = 0.1
_FORMAT = "gascnn-power-windows"
_VERSION = 1


@dataclass(frozen=True)
class RoundWindows:
    """One round: idle, work, idle.

    Attributes:
        before, busy, after: (start, end) in seconds.
        inferences: done in ``busy``.
    """

    before: Window
    busy: Window
    after: Window
    inferences: int


@dataclass(frozen=True)
class RecordedWindows:
    """The rounds of a run in seconds since 1970-01-01 UTC, to be laid over the log of another device."""

    rounds: tuple[RoundWindows, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for :meth:`from_dict`."""
        rounds = [
            {"before": list(r.before), "busy": list(r.busy), "after": list(r.after), "inferences": r.inferences}
            for r in self.rounds
        ]
        return {"format": _FORMAT, "version": _VERSION, "rounds": rounds}

    @classmethod
    def from_dict(cls, value: Any) -> RecordedWindows:
        """What :meth:`to_dict` gave.

        Raises:
            FormatError: anything else.
        """
        if not isinstance(value, dict) or (value.get("format"), value.get("version")) != (_FORMAT, _VERSION):
            raise FormatError(f"these are no recorded windows (format {_FORMAT}, version {_VERSION})")
        try:
            rounds = tuple(_round_from(entry) for entry in value["rounds"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"recorded windows are damaged: {error!r}; record them again") from error
        if not rounds:
            raise FormatError("recorded windows hold no round; record them again")
        return cls(rounds)


def _round_from(entry: Any) -> RoundWindows:
    edges = [float(edge) for name in ("before", "busy", "after") for edge in _pair(entry[name])]
    if not all(math.isfinite(edge) for edge in edges) or edges != sorted(edges):
        raise ValueError("times that do not ascend")
    if not all(edges[i] < edges[i + 1] for i in (0, 2, 4)):
        raise ValueError("a window without length")
    inferences = operator.index(entry["inferences"])
    if inferences < 1:
        raise ValueError(f"{inferences} inferences")
    return RoundWindows((edges[0], edges[1]), (edges[2], edges[3]), (edges[4], edges[5]), inferences)


def _pair(value: Any) -> Window:
    start, end = value
    return start, end


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        idle_s: idle time of a round, half of it before the work and half after.
        rounds: how often.
        seconds: of work in a round, at least.

    Raises:
        UsageError: a number that is not above zero.
    """

    idle_s: float
    rounds: int
    seconds: float

    def __post_init__(self) -> None:
        for name in ("idle_s", "rounds", "seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value}; it must be above 0")
        if self.rounds != int(self.rounds):
            raise UsageError(f"rounds is {self.rounds}; it must be a whole number")

    def run(self, recording: Marks, work: Work, clock: Clock, progress: Progress | None) -> list[RoundWindows]:
        """Idle, work, idle, as often as there are rounds, while ``recording`` records; it is stopped in any case.

        Raises:
            BackendError: the meter vanished.
            UsageError: ``work`` did not return a number of inferences.
        """
        settle_s, done, total = SETTLE_S, 0, 3 * int(self.rounds)

        def advance() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done / total)

        try:
            recording.start()
            settle_s = max(SETTLE_S, recording.settle_s)
            rounds = []
            for _ in range(int(self.rounds)):
                before = _idle(recording, clock, settle_s, self.idle_s / 2)
                advance()
                busy, inferences = _busy(recording, clock, settle_s, self.seconds, work)
                advance()
                after = _idle(recording, clock, settle_s, self.idle_s / 2)
                advance()
                rounds.append(RoundWindows(before, busy, after, inferences))
            return rounds
        finally:
            recording.stop()


def _idle(recording: Marks, clock: Clock, settle_s: float, seconds: float) -> Window:
    _sleep(recording, clock, settle_s)
    start = recording.mark()
    _sleep(recording, clock, seconds)
    return start, recording.mark()


def _sleep(recording: Marks, clock: Clock, seconds: float) -> None:
    end = clock.now_s() + seconds
    while (left := end - clock.now_s()) > 0:
        clock.sleep(min(left, _IDLE_CHECKS_S))
        recording.check()


def _busy(recording: Marks, clock: Clock, settle_s: float, seconds: float, work: Work) -> tuple[Window, int]:
    _work_for(recording, clock, settle_s, work)
    start = recording.mark()
    inferences = _work_for(recording, clock, seconds, work)
    return (start, recording.mark()), inferences


def _work_for(recording: Marks, clock: Clock, seconds: float, work: Work) -> int:
    end, total = clock.now_s() + seconds, 0
    while True:
        total += _inferences(work())
        recording.check()
        if clock.now_s() >= end:
            return total


def _inferences(returned: Any) -> int:
    try:
        count = operator.index(returned)
    except TypeError:
        count = 0
    if count < 1:
        raise UsageError(f"work() returned {returned!r}; it must return how many inferences it did, 1 or more")
    return count


class TimesOnly:
    """A recording that only notes times; the energy comes from elsewhere, by the time of day."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = (0.0, 0.0)
        self._ended: tuple[float, float] | None = None
        self.settle_s = 0.0

    def start(self) -> None:
        """Compare both clocks."""
        self._began = (self._clock.now_s(), self._clock.epoch_s())

    def mark(self) -> float:
        """The time."""
        return self._clock.now_s()

    def check(self) -> None:
        """Nothing can vanish."""

    def stop(self) -> None:
        """Compare both clocks again."""
        if self._ended is None:
            self._ended = (self._clock.now_s(), self._clock.epoch_s())

    def epoch_s(self, time_s: float) -> float:
        """A mark as seconds since 1970-01-01 UTC.

        Raises:
            BackendError: the time of day was set during the run.
        """
        ended = self._ended or (self._clock.now_s(), self._clock.epoch_s())
        drift = (ended[1] - self._began[1]) - (ended[0] - self._began[0])
        if abs(drift) > _CLOCK_STEP_S:
            raise BackendError(
                f"the time of day was set by {drift:+.2f} s during the run, so a log cannot be laid over it; "
                "wait until the clock is synchronised and measure again"
            )
        return self._began[1] + (time_s - self._began[0])

    def in_epoch(self, rounds: list[RoundWindows]) -> RecordedWindows:
        """All windows by the time of day."""

        def both(window: Window) -> Window:
            return self.epoch_s(window[0]), self.epoch_s(window[1])

        return RecordedWindows(
            tuple(RoundWindows(both(r.before), both(r.busy), both(r.after), r.inferences) for r in rounds)
        )
