"""NVIDIA GPUs by the driver's management library, through NVIDIA's own package ``nvidia-ml-py`` if it is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from gascnn.hardware.power.meter import MeterError, PowerMeter, Unavailable
from gascnn.hardware.power.recording import EnergyCounter, PowerSampler
from gascnn.toolkit.errors import first_line

NAME = "nvml"
_PERIOD_S = 0.1
_AVERAGE_S = 1.0
"""Over which drivers average the power of Ampere and newer GPUs; taken for all."""
_MILLI = 1e-3
_COVERS = "the whole board with its memory; the computer around it left out"


class NvmlCounter(EnergyCounter):
    """``nvmlDeviceGetTotalEnergyConsumption``: mJ since the driver was loaded, Volta and newer.

    Args:
        library: the module ``pynvml``, initialised.
        handle: of the device.
        device: what to call it.
    """

    def __init__(self, library: Any, handle: Any, device: str) -> None:
        self.name = NAME
        self.description = f"{device}, {_COVERS}"
        self.step_j = _MILLI
        self._library = library
        self._handle = handle

    def read_j(self) -> float:
        """Joules since the driver was loaded.

        Raises:
            MeterError: the driver reports an error.
        """
        return _asked(self._library, "nvmlDeviceGetTotalEnergyConsumption", self._handle)


class NvmlPower(PowerSampler):
    """``nvmlDeviceGetPowerUsage``: mW, for GPUs without the counter.

    Args:
        library: the module ``pynvml``, initialised.
        handle: of the device.
        device: what to call it.
    """

    def __init__(self, library: Any, handle: Any, device: str) -> None:
        self.name = NAME
        self.description = f"{device}, {_COVERS}"
        self.period_s = _PERIOD_S
        self.lag_s = _AVERAGE_S
        self._library = library
        self._handle = handle

    def read_w(self) -> float:
        """The power, as the driver averages it.

        Raises:
            MeterError: the driver reports an error.
        """
        return _asked(self._library, "nvmlDeviceGetPowerUsage", self._handle)

    def step_w(self) -> float:
        """1 mW, the unit of the reading."""
        return _MILLI


def _asked(library: Any, function: str, handle: Any) -> float:
    """What a function of the library gives in thousandths."""
    try:
        return float(getattr(library, function)(handle)) * _MILLI
    except library.NVMLError as error:
        raise MeterError(f"NVML says: {first_line(error)}") from error


def find(root: Path) -> tuple[list[PowerMeter], list[Unavailable]]:
    """One meter a GPU, or why not; ``root`` plays no part, for a driver is not files."""
    del root
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        why = "NVIDIA's package is not installed (pip install nvidia-ml-py); only needed if there is an NVIDIA GPU."
        return [], [Unavailable(NAME, why)]
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        return [], [Unavailable(NAME, f"NVIDIA's driver cannot be reached: {first_line(error)}.")]
    meters: list[PowerMeter] = []
    missing = [] if count else [Unavailable(NAME, "NVIDIA's driver knows no GPU.")]
    for index in range(count):
        found = _meter(pynvml, index)
        if isinstance(found, Unavailable):
            missing.append(found)
        else:
            meters.append(found)
    return meters, missing


def _meter(library: Any, index: int) -> PowerMeter | Unavailable:
    try:
        return _counter_or_power(library, index)
    except (MeterError, library.NVMLError) as error:
        return Unavailable(NAME, f"GPU {index} tells neither energy nor power: {first_line(error)}.")


def _counter_or_power(library: Any, index: int) -> PowerMeter:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    name = library.nvmlDeviceGetName(handle)
    device = f"GPU {index} {name.decode() if isinstance(name, bytes) else name}"
    try:
        counter = NvmlCounter(library, handle, device)
        counter.read_j()
    except MeterError:
        power = NvmlPower(library, handle, device)
        power.read_w()
        return power
    return counter
