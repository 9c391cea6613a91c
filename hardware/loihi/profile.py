"""What the chip's own profiler measured: time, power and energy, work of its cores, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gascnn.toolkit.errors import BackendError

PROBES = ("time", "power", "activity", "memory")
"""What can be measured, each by one probe of ``lava.utils.loihi2_profiler``."""

_CHIPS = {"kp": 8, "kp_stack": 8, "kp_build": 8}
"""Chips that share one power supply, by SLURM's partition, as the benchmark tutorial counts them; elsewhere one."""

Numbers = dict[str, list[float]]


@dataclass(frozen=True)
class CoreActivity:
    """Work of one core over the whole profiled run.

    Attributes:
        core: its number.
        synaptic_operations, neuron_updates, spikes_sent, spikes_received: counted by the chip.
    """

    core: int
    synaptic_operations: int
    neuron_updates: int
    spikes_sent: int
    spikes_received: int


@dataclass(frozen=True)
class ChipProfile:
    """Figures of a run of its own in which the images follow each other without a pause.

    Time and power hold what it takes to feed each step's spikes from the host and to fetch the answer. What was not
    asked for is None.

    Attributes:
        steps: time steps profiled.
        steps_per_image: T + K.
        chips: chips that share the power supply; the idle power of all but one is taken off every power below.
        mean_time_per_step_us: as the probe averages it.
        time_per_step_us: of each step.
        time_per_image_s: the mean time of a step times ``steps_per_image``.
        total_power_w: mean over the probe's samples.
        static_power_w: of one chip that does nothing.
        dynamic_power_w: the difference of the two.
        vdd_power_w, vddm_power_w, vddio_power_w: of the cores, of their memory, of input and output.
        power_samples: how many measurements there were.
        energy_per_image_j, dynamic_energy_per_image_j: power times ``time_per_image_s``; None unless both
            were measured.
        cores: work of each core.
        memory_used_share: used memory of each core, 0..1, in the order of ``memory_core``.
        memory_core: numbers of the cores.
        notes: what to know before using a figure.
    """

    steps: int
    steps_per_image: int
    chips: int
    mean_time_per_step_us: float | None = None
    time_per_step_us: tuple[float, ...] | None = None
    time_per_image_s: float | None = None
    total_power_w: float | None = None
    static_power_w: float | None = None
    dynamic_power_w: float | None = None
    vdd_power_w: float | None = None
    vddm_power_w: float | None = None
    vddio_power_w: float | None = None
    power_samples: int | None = None
    energy_per_image_j: float | None = None
    dynamic_energy_per_image_j: float | None = None
    cores: tuple[CoreActivity, ...] | None = None
    memory_used_share: tuple[float, ...] | None = None
    memory_core: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()


def chip_profile(measured: dict[str, Any], steps_per_image: int) -> ChipProfile:
    """Derive the figures as the benchmark tutorial does.

    Args:
        measured: ``steps``, ``partition`` and lists of numbers by name, as the worker tells them.
        steps_per_image: T + K.

    Raises:
        BackendError: the profiler gave no number where there must be one.
    """
    numbers = {name: value for name, value in measured.items() if isinstance(value, list)}
    for name, values in numbers.items():
        if not values or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
            raise BackendError(f"the chip's profiler gave no numbers for {name}; profile without that probe")
    chips = _CHIPS.get(measured["partition"] or "", 1)
    found: dict[str, Any] = {"steps": measured["steps"], "steps_per_image": steps_per_image, "chips": chips}
    notes = []
    if "time_per_step_us" in numbers:
        found |= _time(numbers, steps_per_image)
    if "total_power_w" in numbers:
        found |= _power(numbers, chips)
        if found["dynamic_power_w"] < 0:
            notes.append("the run takes less power than the idle chip: too short to measure, give more profile_steps")
    if "time_per_image_s" in found and "total_power_w" in found:
        found["energy_per_image_j"] = found["total_power_w"] * found["time_per_image_s"]
        found["dynamic_energy_per_image_j"] = found["dynamic_power_w"] * found["time_per_image_s"]
    if "activity_core" in numbers:
        found["cores"] = _cores(numbers)
    if "memory_core" in numbers:
        found["memory_core"] = tuple(int(core) for core in numbers["memory_core"])
        found["memory_used_share"] = tuple(numbers["memory_used_share"])
    return ChipProfile(**found, notes=tuple(notes))


def _time(numbers: Numbers, steps_per_image: int) -> dict[str, Any]:
    mean = numbers["mean_time_per_step_us"][0]
    return {
        "mean_time_per_step_us": mean,
        "time_per_step_us": tuple(numbers["time_per_step_us"]),
        "time_per_image_s": mean * 1e-6 * steps_per_image,
    }


def _power(numbers: Numbers, chips: int) -> dict[str, Any]:
    """Means, less what the other chips of the board take while they do nothing."""
    idle = {rail: _mean(numbers[f"static_{rail}_power_w"]) / chips for rail in ("total", "vdd", "vddm", "vddio")}
    found = {f"{rail}_power_w": _mean(numbers[f"{rail}_power_w"]) - (chips - 1) * idle[rail] for rail in idle}
    return {
        **found,
        "static_power_w": idle["total"],
        "dynamic_power_w": found["total_power_w"] - idle["total"],
        "power_samples": len(numbers["total_power_w"]),
    }


def _cores(numbers: Numbers) -> tuple[CoreActivity, ...]:
    columns = [numbers["activity_core"]]
    columns += [numbers[n] for n in ("synaptic_operations", "neuron_updates", "spikes_sent", "spikes_received")]
    if len({len(column) for column in columns}) > 1:
        raise BackendError("the chip's profiler counted different numbers of cores; profile without probe activity")
    return tuple(CoreActivity(*(int(v) for v in row)) for row in zip(*columns, strict=True))


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
