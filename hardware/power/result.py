"""From the energy of windows to joules per inference, with what can be said about its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gascnn.hardware.power.meter import Kind, WindowEnergy
from gascnn.hardware.power.student import student_interval
from gascnn.hardware.power.windows import RoundWindows, Window

_FEW_SAMPLES = 10
_RESTLESS = 0.5
_QUIET = 0.01


@dataclass(frozen=True)
class RoundEnergy:
    """One round of work.

    Attributes:
        time_s: of work.
        energy_j: used in it, idle included.
        inferences: done in it.
        idle_power_w: mean of the idle times before and after.
    """

    time_s: float
    energy_j: float
    inferences: int
    idle_power_w: float


@dataclass(frozen=True)
class EnergyMeasurement:
    """Measured energy; no figure in it is modelled.

    With a round's energy ``E``, time ``T``, inferences ``n`` and idle power ``P``, ``e = (E - T P) / n``; figures per
    inference are means over the rounds.

    Attributes:
        meter, description, kind: of the :class:`gascnn.hardware.power.PowerMeter`.
        idle_power_w: mean of all idle windows.
        power_w: mean while working, idle included.
        inferences: of all rounds.
        energy_per_inference_j: mean of ``e``, idle subtracted; None if it cannot be told apart from idle.
        interval_j: 95 % interval of that mean, Student's t over the rounds; None with one round or no figure.
        total_energy_per_inference_j: mean of ``E / n``, idle included.
        sampling_rate_hz: power samples, or updates of the energy counter, a second, as observed.
        sampling_error_j: bound on the error of the meter's sampling and quantisation in the mean of ``e``: mean over
            the rounds of ``(d + T d_idle / T_idle) / n``, where ``d`` is the bound of a window:
            ``update_s * power + step_j`` for an energy counter (both edges up to one update old);
            ``sum of h_i |P_i+1 - P_i| / 2 + T step_w / 2 + lag_s (P_max - P_min)`` for power samples ``h_i`` apart.
            How far the meter's scale is off is not in it.
        rounds: each round.
        warnings: sentences for the reader.
    """

    meter: str
    description: str
    kind: Kind
    idle_power_w: float
    power_w: float
    inferences: int
    energy_per_inference_j: float | None
    interval_j: tuple[float, float] | None
    total_energy_per_inference_j: float
    sampling_rate_hz: float
    sampling_error_j: float
    rounds: tuple[RoundEnergy, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON with the attributes as keys."""
        value = asdict(self)
        return {
            **value,
            "interval_j": None if self.interval_j is None else list(self.interval_j),
            "rounds": list(value["rounds"]),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Round:
    """The three windows of a round with their energies."""

    before: WindowEnergy
    busy: WindowEnergy
    after: WindowEnergy
    inferences: int

    @property
    def idle_time_s(self) -> float:
        return self.before.time_s + self.after.time_s

    @property
    def idle_power_w(self) -> float:
        return (self.before.energy_j + self.after.energy_j) / self.idle_time_s

    @property
    def net_j(self) -> float:
        """Per inference, idle subtracted."""
        return (self.busy.energy_j - self.busy.time_s * self.idle_power_w) / self.inferences

    @property
    def error_j(self) -> float:
        """Bound per inference."""
        idle_w = (self.before.error_j + self.after.error_j) / self.idle_time_s
        return (self.busy.error_j + self.busy.time_s * idle_w) / self.inferences


def evaluate(
    *,
    meter: str,
    description: str,
    kind: Kind,
    rounds: Sequence[RoundWindows],
    window: Callable[[float, float], WindowEnergy],
    notes: Callable[[], list[str]] = list,
) -> EnergyMeasurement:
    """Work out the figures of :class:`EnergyMeasurement`.

    Args:
        meter, description, kind: of the meter.
        rounds: when it was idle and when it worked.
        window: gives the energy of a window.
        notes: what the recording has to say once all windows were asked for.
    """

    def energy(edges: Window) -> WindowEnergy:
        return window(edges[0], edges[1])

    parts = [_Round(energy(r.before), energy(r.busy), energy(r.after), r.inferences) for r in rounds]
    net = _mean([part.net_j for part in parts])
    interval = student_interval([part.net_j for part in parts])
    error = _mean([part.error_j for part in parts])
    doubt = _not_above_idle(parts, net, interval, error)
    windows = [w for part in parts for w in (part.before, part.busy, part.after)]
    idle = [w for part in parts for w in (part.before, part.after)]
    return EnergyMeasurement(
        meter=meter,
        description=description,
        kind=kind,
        idle_power_w=sum(w.energy_j for w in idle) / sum(w.time_s for w in idle),
        power_w=sum(p.busy.energy_j for p in parts) / sum(p.busy.time_s for p in parts),
        inferences=sum(part.inferences for part in parts),
        energy_per_inference_j=None if doubt else net,
        interval_j=None if doubt else interval,
        total_energy_per_inference_j=_mean([part.busy.energy_j / part.inferences for part in parts]),
        sampling_rate_hz=sum(w.samples for w in windows) / sum(w.time_s for w in windows),
        sampling_error_j=error,
        rounds=tuple(RoundEnergy(p.busy.time_s, p.busy.energy_j, p.inferences, p.idle_power_w) for p in parts),
        warnings=(*([doubt] if doubt else []), *_warnings(parts), *notes()),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _not_above_idle(
    parts: Sequence[_Round], net: float, interval: tuple[float, float] | None, error: float
) -> str | None:
    """Why the energy cannot be told apart from idle, or None if it can."""
    if interval is not None and interval[0] <= 0:
        seen = f"{net:.3g} J an inference, 95 % interval {interval[0]:.3g} to {interval[1]:.3g} J, which holds 0"
    elif net <= error:
        seen = f"{net:.3g} J an inference, and the meter's sampling error is up to {error:.3g} J"
    elif interval is None and _net_power(parts[0]) <= abs(parts[0].before.power_w - parts[0].after.power_w):
        seen = f"{net:.3g} J an inference, less than idle power changed from before to after the one round"
    else:
        return None
    return (
        f"energy above idle cannot be told apart from idle ({seen}), so no energy per inference is given; "
        "measure longer rounds, a heavier load, or with a faster meter"
    )


def _net_power(part: _Round) -> float:
    return part.busy.power_w - part.idle_power_w


def _warnings(parts: Sequence[_Round]) -> list[str]:
    found = []
    idle = [w.power_w for part in parts for w in (part.before, part.after)]
    net = _mean([_net_power(part) for part in parts])
    if max(idle) - min(idle) > max(_RESTLESS * abs(net), _QUIET * max(idle)):
        found.append(
            f"idle power went from {min(idle):.3g} to {max(idle):.3g} W while work added {net:.3g} W: "
            "is something else running?"
        )
    fewest = min(part.busy.samples for part in parts)
    if fewest < _FEW_SAMPLES:
        found.append(f"only {fewest:.0f} samples or counter updates in a round of work; take longer rounds")
    if len(parts) == 1:
        found.append("one round has no interval; measure 3 or more")
    return found
