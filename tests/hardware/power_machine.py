"""A machine whose time passes only when told, and whose power is known: for tests of power meters."""

from __future__ import annotations

import bisect
from pathlib import Path

from gascnn.hardware.power.clock import Clock

EPOCH_S = 1_763_800_000.0
"""The time of day at the machine's second 0."""


class Machine(Clock):
    """A clock with a load: ``idle_w`` while it sleeps, ``busy_w`` while it works.

    ``work`` takes ``work_s`` and does 4 inferences; ``joules`` is what was used, and ``history`` when; ``events`` are
    called at their second.
    """

    def __init__(self, idle_w=2.0, busy_w=10.0, work_s=0.5):
        self.idle_w, self.busy_w, self.work_s = idle_w, busy_w, work_s
        self.seconds, self.joules, self.watts = 0.0, 0.0, idle_w
        self.calls = self.stopped = 0
        self.epoch_jump_s = 0.0
        self.events = {}
        self.history = ([0.0], [0.0])
        self._every = None

    def now_s(self):
        return self.seconds

    def epoch_s(self):
        return EPOCH_S + self.seconds + self.epoch_jump_s

    def sleep(self, seconds):
        self.pass_by(seconds)

    def every(self, period_s, call):
        self._every = [self.seconds + period_s, period_s, call]

        def stop():
            self._every = None
            self.stopped += 1

        return stop

    def work(self):
        self.calls += 1
        self.watts = self.busy_w
        self.pass_by(self.work_s)
        self.watts = self.idle_w
        return 4

    def joules_at(self, seconds):
        """What had been used by then."""
        times, joules = self.history
        after = bisect.bisect_left(times, seconds)
        if times[after] == seconds:
            return joules[after]
        share = (seconds - times[after - 1]) / (times[after] - times[after - 1])
        return joules[after - 1] + share * (joules[after] - joules[after - 1])

    def pass_by(self, seconds):
        end = self.seconds + seconds
        while self._every is not None and self._every[0] <= end:
            due, period, call = self._every
            self._forward(due)
            self._every[0] = due + period
            if not call():
                self._every = None
        self._forward(end)

    def _forward(self, to):
        self.joules += self.watts * (to - self.seconds)
        self.seconds = to
        self.history[0].append(to)
        self.history[1].append(self.joules)
        for due in [due for due in self.events if due <= to]:
            self.events.pop(due)()


def write(path, text):
    """A file with its folders, ended by a line feed as the kernel's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def rapl_zone(root, zone, name, energy_uj=0, range_uj=262_143_328_850):
    """A powercap zone as an Intel server shows it; the folder."""
    folder = Path(root) / "sys/class/powercap" / zone
    for file, text in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj), ("enabled", 1)):
        write(folder / file, text)
    return folder


def hwmon_monitor(root, device, number, channels, driver="ina3221", shunt_uohm=5000):
    """An INA3221 as JetPack 5 shows it: (label, mV, mA) of channels 1, 2, 3; the folder."""
    folder = Path(root) / f"sys/bus/i2c/drivers/{driver}/{device}/hwmon/hwmon{number}"
    write(folder / "name", "ina3221")
    for channel, (label, millivolts, milliamperes) in enumerate(channels, 1):
        write(folder / f"in{channel}_label", label)
        write(folder / f"in{channel}_input", millivolts)
        write(folder / f"curr{channel}_input", milliamperes)
        write(folder / f"shunt{channel}_resistor", shunt_uohm)
    write(folder / "in7_label", "sum of shunt voltages")
    write(folder / "in7_input", 30)
    return folder


def iio_monitor(root, device, number, channels):
    """An INA3221 as JetPack 4 shows it: (rail name, mV, mW) of channels 0, 1, 2; the folder."""
    folder = Path(root) / f"sys/bus/i2c/drivers/ina3221x/{device}/iio:device{number}"
    write(folder / "name", "ina3221x")
    for channel, (label, millivolts, milliwatts) in enumerate(channels):
        write(folder / f"rail_name_{channel}", label)
        write(folder / f"in_voltage{channel}_input", millivolts)
        write(folder / f"in_power{channel}_input", milliwatts)
    return folder
