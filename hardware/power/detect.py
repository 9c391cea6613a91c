"""Which meters this machine has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gascnn.hardware.power import ina3221, nvml, pmic, rapl
from gascnn.hardware.power.meter import PowerMeter, Unavailable
from gascnn.toolkit.errors import BackendError, first_line

Find = Callable[[Path], tuple[list[PowerMeter], list[Unavailable]]]

_FINDERS: dict[str, Find] = {
    # Whole modules first, then parts of a computer: the first one found is the one that covers most.
    ina3221.NAME: ina3221.find,
    pmic.NAME: pmic.find,
    rapl.NAME: rapl.find,
    nvml.NAME: nvml.find,
}
_NO_LOG = "No log was given; one is read with UsbLog(path) or, from another machine, with energy_from_log."


def detect_meters(root: Path = Path("/")) -> tuple[list[PowerMeter], list[Unavailable]]:
    """All meters that can be read, and for all others the reason why not; nothing is written anywhere.

    Args:
        root: of the file system; another one for tests.

    Returns:
        The meters, those that cover a whole board first, each read once; and what is not available.
    """
    meters: list[PowerMeter] = []
    missing: list[Unavailable] = []
    for name, find in _FINDERS.items():
        try:
            found, why = find(root)
        except Exception as error:  # a broken driver must not keep the other meters away
            found, why = [], [Unavailable(name, f"Looking for it failed: {first_line(error)}.")]
        meters += found
        missing += why
    return meters, [*missing, Unavailable("usb-log", _NO_LOG)]


def find_meter(name: str | None = None, root: Path = Path("/")) -> PowerMeter:
    """The first meter, or the first of a name.

    Args:
        name: ``rapl``, ``ina3221``, ``pmic`` or ``nvml``; any if None.
        root: see :func:`detect_meters`.

    Raises:
        BackendError: there is none; says of each why not.
    """
    meters, missing = detect_meters(root)
    chosen = [meter for meter in meters if name in (None, meter.name)]
    if chosen:
        return chosen[0]
    reasons = [f"{entry.name}: {entry.why}" for entry in missing if name in (None, entry.name)]
    known = f"known: {', '.join([*_FINDERS, 'usb-log'])}"
    raise BackendError(f"no power meter{f' {name}' if name else ''} can be read here. {' '.join(reasons) or known}")
