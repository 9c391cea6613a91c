"""Energy counters of Intel and AMD processors (RAPL), as the kernel's powercap class shows them.

Zones are ``/sys/class/powercap/intel-rapl:N`` (``package-N``; AMD uses the same names) with subzones
``intel-rapl:N:M`` (``core``, ``uncore``, ``dram``). Cores are part of their package and not added to it; DRAM is not
part of it. ``psys`` and the ``intel-rapl-mmio`` zones show again what the packages count, and are left out.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from gascnn.hardware.power.meter import MeterError, PowerMeter, Unavailable, read_number, read_text
from gascnn.hardware.power.recording import EnergyCounter

NAME = "rapl"
_CLASS = "sys/class/powercap"
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")
_UNIT_J = 2.0**-14
"""The default energy unit of the registers; some processors count finer."""


class Rapl(EnergyCounter):
    """The sum of some zones' counters, made good for running over.

    Args:
        zones: folders with ``name``, ``energy_uj`` and ``max_energy_range_uj``.
        description: what they cover.

    Raises:
        MeterError: a counter cannot be read.
    """

    def __init__(self, zones: list[Path], description: str) -> None:
        self.name = NAME
        self.description = description
        self.step_j = _UNIT_J * len(zones)
        self._zones = zones
        self._ranges_uj = [read_number(zone / "max_energy_range_uj") for zone in zones]
        self._last_uj = [read_number(zone / "energy_uj") for zone in zones]
        self._total_uj = 0.0

    def read_j(self) -> float:
        """Joules since this meter was made.

        Raises:
            MeterError: a counter cannot be read.
        """
        now_uj = [read_number(zone / "energy_uj") for zone in self._zones]
        for now, last, whole in zip(now_uj, self._last_uj, self._ranges_uj, strict=True):
            self._total_uj += now - last if now >= last else whole - last + now
        self._last_uj = now_uj
        return self._total_uj * 1e-6


def find(root: Path) -> tuple[list[PowerMeter], list[Unavailable]]:
    """A meter of all packages and one of all DRAM, or why not."""
    folder = root / _CLASS
    zones = sorted(path for path in folder.glob("intel-rapl:*") if _ZONE.fullmatch(path.name))
    try:
        names = {zone: read_text(zone / "name") for zone in zones}
    except MeterError as error:
        return [], [Unavailable(NAME, f"{error}.")]
    packages = [zone for zone, name in names.items() if name.startswith("package")]
    if not packages:
        why = (
            f"There is no package zone in {folder}: a virtual machine, a processor without RAPL, or the module is not "
            "loaded (sudo modprobe intel_rapl_msr)."
        )
        return [], [Unavailable(NAME, why)]
    memory = [zone for zone, name in names.items() if name == "dram"]
    everything = "processor packages (cores, caches, integrated graphics, memory controller), DRAM left out"
    found = [_meter(packages, everything, names)]
    if memory:
        found.append(_meter(memory, "DRAM alone, processor packages left out", names))
    meters: list[PowerMeter] = [meter for meter in found if isinstance(meter, Rapl)]
    return meters, [meter for meter in found if isinstance(meter, Unavailable)]


def _meter(zones: list[Path], covers: str, names: dict[Path, str]) -> Rapl | Unavailable:
    try:
        return Rapl(zones, f"{covers}: {', '.join(f'{names[zone]} ({zone.name})' for zone in zones)}")
    except MeterError as error:
        return Unavailable(NAME, _why(error, zones[0].parent))


def _why(error: MeterError, folder: Path) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{error}: the counters are root's since CVE-2020-8694; run as root, or allow reading until the next start "
            f"with: sudo chmod a+r {folder}/intel-rapl:*/energy_uj."
        )
    return f"{error}."
