"""What this process may use and what it has used."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def processors() -> int:
    """Processors this process may run on: its affinity mask."""
    return len(os.sched_getaffinity(0))


def peak_memory_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most resident memory this process ever held, interpreter and libraries included.

    Where the kernel does not tell it of this program alone, what started it is in it: ``ru_maxrss`` outlives ``exec``.
    """
    try:
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kibibytes


def held_memory_bytes() -> int:
    """Resident memory this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
