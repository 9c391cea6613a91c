"""The power management chip of the Raspberry Pi 5, read by the firmware's command ``vcgencmd pmic_read_adc``.

It prints a line for each voltage and each current, numbered by converter channel, so that only the names tell which
belong together::

     VDD_CORE_A current(7)=0.75012000A
     VDD_CORE_V volt(15)=0.72178200V
        EXT5V_V volt(24)=5.09066000V

Power is the sum of V x I over the rails that have both. ``EXT5V``, the input, has a voltage only.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from pathlib import Path

from gascnn.hardware.power.meter import MeterError, PowerMeter, Unavailable
from gascnn.hardware.power.recording import PowerSampler

NAME = "pmic"
_PERIOD_S = 0.1
_TIME_LIMIT_S = 2.0
_LINE = re.compile(r"\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([-+.\w]+?)\2\s*")
_STEP_A = {"VDD_CORE": 0.00893}
_OTHER_STEP_A = 0.000976
"""Currents in outputs that were published are multiples of these."""


class Pmic(PowerSampler):
    """The sum over the rails behind the chip.

    Args:
        command: ``vcgencmd``, with its path.

    Raises:
        MeterError: it cannot be run, or tells no rail.
    """

    def __init__(self, command: Path) -> None:
        self.name = NAME
        self.period_s = _PERIOD_S
        self._command = command
        self._rails = frozenset[str]()
        self._rails = frozenset(self._read())
        self.description = (
            f"{len(self._rails)} rails behind the Raspberry Pi's power chip; its losses and what USB ports, fan, HATs "
            "and the 5 V pins take are left out"
        )
        self._step_w = 0.0

    def read_w(self) -> float:
        """The power now.

        Raises:
            MeterError: the command failed, or a rail is missing.
        """
        rails = self._read()
        self._step_w = sum(volts * _STEP_A.get(rail, _OTHER_STEP_A) for rail, (volts, _) in rails.items())
        return sum(volts * amperes for volts, amperes in rails.values())

    def step_w(self) -> float:
        """One count of every current at the last reading."""
        return self._step_w

    def _read(self) -> dict[str, tuple[float, float]]:
        rails = parse(run(self._command))
        if missing := self._rails - set(rails):
            raise MeterError(f"{self._command} pmic_read_adc no longer tells rail {min(missing)}")
        return rails


def run(command: Path) -> str:
    """What ``vcgencmd pmic_read_adc`` prints, within 2 s.

    Raises:
        MeterError: it cannot be started, takes too long, or fails.
    """
    arguments = [os.fspath(command), "pmic_read_adc"]
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise MeterError(f"{command} pmic_read_adc did not answer within {_TIME_LIMIT_S:g} s") from error
    except OSError as error:
        raise MeterError(f"{command} cannot be run ({error.strerror or error})") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[0][:120]
        raise MeterError(f"{command} pmic_read_adc ended with status {done.returncode} and said: {said}")
    return done.stdout


def parse(output: str) -> dict[str, tuple[float, float]]:
    """Voltage and current of each rail that has both, V and A.

    Raises:
        MeterError: there is none, or one of its values is no number.
    """
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in output.splitlines():
        if match := _LINE.fullmatch(line):
            rail, unit, text = match.groups()
            values[unit][rail] = _number(text)
    rails = {rail: (volts, values["A"][rail]) for rail, volts in values["V"].items() if rail in values["A"]}
    if not rails:
        said = (output.strip() or "nothing").splitlines()[0][:120]
        raise MeterError(f"pmic_read_adc tells no rail with voltage and current, but: {said}")
    for rail, pair in rails.items():
        if not all(map(math.isfinite, pair)):
            raise MeterError(f"pmic_read_adc tells no number for rail {rail}")
    return rails


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def find(root: Path) -> tuple[list[PowerMeter], list[Unavailable]]:
    """The meter, or why not."""
    here = root == Path("/")
    found = shutil.which("vcgencmd", path=None if here else os.fspath(root / "usr/bin"))
    if found is None:
        return [], [Unavailable(NAME, "There is no command vcgencmd: no Raspberry Pi, or its utilities are missing.")]
    try:
        return [Pmic(Path(found))], []
    except MeterError as error:
        hint = "only a Raspberry Pi 5 has them, and /dev/vcio needs the group video (sudo usermod -aG video $USER)"
        return [], [Unavailable(NAME, f"{error}; {hint}.")]
