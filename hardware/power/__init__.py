"""Measured energy: the power meters of a machine behind one interface, joules per inference with their error."""

from gascnn.hardware.power.detect import detect_meters, find_meter
from gascnn.hardware.power.measure import energy_from_log, measure_energy, record_windows
from gascnn.hardware.power.meter import PowerMeter, Unavailable
from gascnn.hardware.power.result import EnergyMeasurement, RoundEnergy
from gascnn.hardware.power.usb_log import UsbLog
from gascnn.hardware.power.windows import RecordedWindows, RoundWindows

__all__ = [
    "EnergyMeasurement",
    "PowerMeter",
    "RecordedWindows",
    "RoundEnergy",
    "RoundWindows",
    "Unavailable",
    "UsbLog",
    "detect_meters",
    "energy_from_log",
    "find_meter",
    "measure_energy",
    "record_windows",
]
