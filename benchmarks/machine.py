"""The machine a measurement was made on, told with every result."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """What a reader needs to compare figures with those of another machine.

    Returns:
        ``processor`` (its model), ``cores`` (in the machine) and ``cores_used`` (this process may run on),
        ``memory_bytes``, ``system``, ``python`` and ``load`` (1 minute average at this moment: work of others too).
    """
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def processor(information: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model as the kernel names it, or else its architecture."""
    try:
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware") and value.strip():
            return value.strip()
    return platform.machine()
