"""How fast the processor was let run, and how warm it was: what makes figures of one board differ by the hour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gascnn.benchmarks.machine import processor

_SYSTEM = Path("/sys")
_LONGEST = 100


def describe_conditions(system: Path = _SYSTEM) -> dict[str, Any]:
    """What the kernel tells at this moment.

    Args:
        system: where sysfs is.

    Returns:
        ``governors`` (name: how many processors have it), ``frequencies_khz`` (of each processor), ``temperatures_c``
        (by the zone's type) and ``unreadable``, a sentence for each that is not there or cannot be read.
    """
    processors = sorted((system / "devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    names = [_read(path / "scaling_governor") for path in processors]
    governors = [name for name in names if name]
    frequencies = [n for n in (_integer(path / "scaling_cur_freq") for path in processors) if n is not None]
    temperatures = _temperatures(system / "class/thermal")
    missing = {
        "scaling_governor: the processor's governor": governors,
        "scaling_cur_freq: its frequency": frequencies,
        "thermal zones: its temperature": temperatures,
    }
    return {
        "governors": {name: governors.count(name) for name in sorted(set(governors))},
        "frequencies_khz": frequencies,
        "temperatures_c": temperatures,
        "unreadable": [f"{what} is not told by this system" for what, found in missing.items() if not found],
    }


def _temperatures(folder: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted(folder.glob("thermal_zone*")):
        value = _integer(zone / "temp")
        if value is not None:
            found[f"{zone.name.removeprefix('thermal_')} {_read(zone / 'type') or ''}".strip()] = value / 1000
    return found


def _integer(path: Path) -> int | None:
    try:
        return int(_read(path) or "")
    except ValueError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:_LONGEST]
    except OSError:
        return None


def board_name(device_tree: Path = Path("/proc/device-tree/model")) -> str:
    """The board as its device tree names it, or else its processor."""
    return (_read(device_tree) or "").replace("\0", "").strip() or processor()
