"""The INA3221 power monitors of NVIDIA Jetson modules.

Two layouts: hwmon (JetPack 5 and 6, mainline) with ``inN_label``, ``inN_input`` (mV) and ``currN_input`` (mA), and iio
(JetPack 4) with ``rail_name_N`` and ``in_powerN_input`` (mW). Rails are one tree: an input rail already holds what its
sub-rails use, so either the input rail is taken, or, on modules without one, those rails that together are the module.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from gascnn.hardware.power.meter import MeterError, PowerMeter, Unavailable, read_number, read_text
from gascnn.hardware.power.recording import PowerSampler

NAME = "ina3221"
INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
"""Everything the module takes: Orin NX and Nano, Xavier NX, TX2 and TX1; Nano and TX1's carrier."""

MODULE_RAILS = (
    # NVIDIA's developer guide: VDDQ_VDD2_1V8AO is part of VIN_SYS_5V0.
    ("AGX Orin", ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
    ("AGX Xavier", ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")),
)
"""Modules without an input rail: what has to be added."""

_PERIOD_S = 0.05
_BUS_STEP_V = 0.008
_SHUNT_STEP_V = 40e-6
"""INA3221 data sheet: one count of the bus and of the shunt voltage."""
_USUAL_SHUNT_OHM = 0.005
_HIGHEST_INPUT_V = 20.0
_UNCONNECTED = ("", "NC")


@dataclass(frozen=True)
class Rail(ABC):
    """One rail of a monitor.

    Attributes:
        label: NVIDIA's name.
        folder: the monitor's.
        channel: its number in the file names.
        shunt_ohm: sense resistor.
    """

    label: str
    folder: Path
    channel: int
    shunt_ohm: float

    @abstractmethod
    def read(self) -> tuple[float, float]:
        """Power and its smallest step, W.

        Raises:
            MeterError: a file is gone or holds no number.
        """

    def _step(self, volts: float, amperes: float) -> float:
        return abs(volts) * _SHUNT_STEP_V / self.shunt_ohm + abs(amperes) * _BUS_STEP_V


class HwmonRail(Rail):
    """Voltage in mV and current in mA."""

    def read(self) -> tuple[float, float]:  # noqa: D102 - inherited
        volts = read_number(self.folder / f"in{self.channel}_input") * 1e-3
        amperes = read_number(self.folder / f"curr{self.channel}_input") * 1e-3
        return volts * amperes, self._step(volts, amperes)


class IioRail(Rail):
    """Power in mW."""

    def read(self) -> tuple[float, float]:  # noqa: D102 - inherited
        watts = read_number(self.folder / f"in_power{self.channel}_input") * 1e-3
        try:
            volts = read_number(self.folder / f"in_voltage{self.channel}_input") * 1e-3
        except MeterError:
            volts = _HIGHEST_INPUT_V
        return watts, self._step(volts, watts / volts if volts else 0.0)


class Ina3221(PowerSampler):
    """The sum of some rails.

    Args:
        rails: none a part of another.
        description: what they cover.
        lag_s: over which the monitors average.
    """

    def __init__(self, rails: list[Rail], description: str, lag_s: float) -> None:
        self.name = NAME
        self.description = description
        self.lag_s = lag_s
        self.period_s = _PERIOD_S
        self._rails = rails
        self._step_w = 0.0

    def read_w(self) -> float:
        """The power now.

        Raises:
            MeterError: a file is gone or holds no number.
        """
        readings = [rail.read() for rail in self._rails]
        self._step_w = sum(step for _, step in readings)
        return sum(watts for watts, _ in readings)

    def step_w(self) -> float:
        """One count of the monitors' converters at the last reading."""
        return self._step_w


def find(root: Path) -> tuple[list[PowerMeter], list[Unavailable]]:
    """A meter of the whole module, or why not."""
    try:
        rails = _rails(root)
        if not rails:
            why = (
                f"There is no INA3221 in {root / 'sys/bus/i2c/drivers'} or {root / 'sys/class/hwmon'}: no Jetson, or "
                "its driver is not loaded."
            )
            return [], [Unavailable(NAME, why)]
        chosen, text = _choose(rails)
        if not chosen:
            return [], [Unavailable(NAME, text)]
        meter = Ina3221(chosen, text, max(_lag(rail.folder) for rail in chosen))
        meter.read_w()
    except MeterError as error:
        cause = error.__cause__
        denied = isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM)
        return [], [Unavailable(NAME, f"{error}; run as root." if denied else f"{error}.")]
    return [meter], []


def _rails(root: Path) -> list[Rail]:
    drivers, rails, seen = root / "sys/bus/i2c/drivers", [], set()
    for folder in sorted([*drivers.glob("ina3221*/*/hwmon/hwmon*"), *_named(root / "sys/class/hwmon")]):
        if folder.resolve() not in seen:
            seen.add(folder.resolve())
            rails += _hwmon_rails(folder)
    for folder in sorted([*drivers.glob("ina3221*/*/iio:device*"), *drivers.glob("ina3221*/*/iio_device")]):
        if folder.resolve() not in seen:
            seen.add(folder.resolve())
            rails += _iio_rails(folder)
    return rails


def _named(hwmon: Path) -> list[Path]:
    names = [path for path in hwmon.glob("hwmon*/name") if read_text(path) == "ina3221"]
    return [path.parent for path in names]


def _hwmon_rails(folder: Path) -> list[Rail]:
    rails: list[Rail] = []
    for channel in (1, 2, 3):
        label, current = folder / f"in{channel}_label", folder / f"curr{channel}_input"
        if label.exists() and current.exists() and read_text(label) not in _UNCONNECTED:
            shunt = folder / f"shunt{channel}_resistor"
            ohm = read_number(shunt) * 1e-6 if shunt.exists() else _USUAL_SHUNT_OHM
            rails.append(HwmonRail(read_text(label), folder, channel, ohm or _USUAL_SHUNT_OHM))
    return rails


def _iio_rails(folder: Path) -> list[Rail]:
    rails: list[Rail] = []
    for channel in (0, 1, 2):
        label = folder / f"rail_name_{channel}"
        if label.exists() and read_text(label) not in _UNCONNECTED:
            rails.append(IioRail(read_text(label), folder, channel, _USUAL_SHUNT_OHM))
    return rails


def _choose(rails: list[Rail]) -> tuple[list[Rail], str]:
    """Rails of which none is a part of another, and what they cover; or none, and why."""
    by_label = {rail.label: rail for rail in rails}
    listed = ", ".join(rail.label for rail in rails)
    if len(by_label) < len(rails):
        return [], f"Several INA3221 rails have the same name ({listed}), so that none can be chosen."
    for label in INPUT_RAILS:
        if label in by_label:
            return [by_label[label]], f"rail {label}: everything the module takes, sub-rails included"
    for module, labels in MODULE_RAILS:
        if all(label in by_label for label in labels):
            text = f"rails {' + '.join(labels)}: what the Jetson {module} module takes, the carrier board left out"
            return [by_label[label] for label in labels], text
    return [], f"No input rail is known among the INA3221 rails {listed}; known: {', '.join(INPUT_RAILS)}."


def _lag(folder: Path) -> float:
    """The time one conversion of all channels takes, averaging included; 0 where the driver does not tell."""
    path = folder / "update_interval"
    return read_number(path) * 1e-3 if path.exists() else 0.0
