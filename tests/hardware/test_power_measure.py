"""Joules per inference against sums done by hand, on a machine whose time and power are known exactly."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gascnn.hardware.power import detect_meters, measure_energy
from gascnn.hardware.power.meter import MeterError
from gascnn.hardware.power.recording import EnergyCounter, PowerSampler, integrate
from gascnn.hardware.power.student import student_interval, student_t
from gascnn.toolkit.errors import BackendError, UsageError

_SPEC = importlib.util.spec_from_file_location("power_machine", Path(__file__).with_name("power_machine.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
Machine, rapl_zone, write = _MODULE.Machine, _MODULE.rapl_zone, _MODULE.write

KEYS = [
    "meter",
    "description",
    "kind",
    "idle_power_w",
    "power_w",
    "inferences",
    "energy_per_inference_j",
    "interval_j",
    "total_energy_per_inference_j",
    "sampling_rate_hz",
    "sampling_error_j",
    "rounds",
    "warnings",
]
SHORT = {"idle_s": 4.0, "rounds": 2, "seconds": 5.0}


class Counter(EnergyCounter):
    """Counts the machine's joules, told anew every ``update_s``; 0 means at once."""

    def __init__(self, machine, update_s=0.0):
        self.name, self.description, self.step_j = "rapl", "all of it", 0.001
        self.machine, self.update_s = machine, update_s

    def read_j(self):
        if not self.update_s:
            return self.machine.joules
        return self.machine.joules_at(self.machine.seconds // self.update_s * self.update_s)


class Sampler(PowerSampler):
    """Tells the machine's power 16 times a second."""

    def __init__(self, machine, lag_s=0.0):
        self.name, self.description, self.period_s, self.lag_s = "pmic", "all of it", 0.0625, lag_s
        self.machine = machine
        self.readings = 0

    def read_w(self):
        self.readings += 1
        return self.machine.watts

    def step_w(self):
        return 0.5


def test_a_counter_by_hand():
    # A round: 5 s at 10 W are 50 J for 10 calls of 4 inferences; idle takes 2 W: (50 - 10) / 40 = 1 J.
    machine = Machine()
    shares = []
    result = measure_energy(Counter(machine), machine.work, **SHORT, progress=shares.append, clock=machine)
    assert result.energy_per_inference_j == pytest.approx(1.0)
    assert result.total_energy_per_inference_j == pytest.approx(1.25)
    assert result.interval_j == pytest.approx((1.0, 1.0))
    assert (result.idle_power_w, result.power_w) == pytest.approx((2.0, 10.0))
    assert result.inferences == 80
    # Seen to change every 0.2 ms. Work: 0.0002 x 10 + 0.001 J. Idle: 2 x (0.0002 x 2 + 0.001) J in 4 s, for 5 s.
    assert result.sampling_rate_hz == pytest.approx(5000, rel=1e-6)
    assert result.sampling_error_j == pytest.approx((0.003 + 0.0028 / 4 * 5) / 40, rel=1e-6)
    assert shares == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert machine.calls == 2 * (1 + 10)  # the first call of a round only warms up
    assert machine.stopped == 1


def test_power_samples_by_hand():
    # As above, but the mark that opens a round still sees 2 W: 8 W x 0.0625 s / 2 are missed, 49.75 J are found.
    machine = Machine()
    result = measure_energy(Sampler(machine), machine.work, **SHORT, clock=machine)
    assert result.energy_per_inference_j == pytest.approx((49.75 - 10) / 40)
    assert result.power_w == pytest.approx(9.95)
    assert result.sampling_rate_hz == pytest.approx(16)
    # Work: 0.25 J between samples and 5 s x 0.5 W / 2; idle: 2 x 2 s x 0.5 W / 2 in 4 s, for 5 s.
    assert result.sampling_error_j == pytest.approx((0.25 + 1.25 + 1.0 / 4 * 5) / 40)
    assert abs(result.energy_per_inference_j - 1.0) <= result.sampling_error_j
    assert result.kind == "power samples"


def test_the_json_is_plain():
    machine = Machine()
    value = measure_energy(Counter(machine), machine.work, **SHORT, clock=machine).to_dict()
    assert list(value) == KEYS
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["rounds"][0] == pytest.approx(
        {"time_s": 5.0, "energy_j": 50.0, "inferences": 40, "idle_power_w": 2.0}, rel=1e-9
    )
    assert value["interval_j"] == pytest.approx([1.0, 1.0])
    assert (value["meter"], value["kind"], value["warnings"]) == ("rapl", "energy counter", [])


def test_the_interval_is_students_over_the_rounds():
    # 10, 11.6 and 13.2 W give 1.0, 1.2 and 1.4 J: mean 1.2, s 0.2, t(2) 4.302653, half width 0.2 t / sqrt(3).
    machine = Machine()

    def work():
        machine.busy_w = (10.0, 11.6, 13.2)[machine.calls // 11]
        return machine.work()

    result = measure_energy(Counter(machine), work, idle_s=4.0, rounds=3, seconds=5.0, clock=machine)
    assert result.energy_per_inference_j == pytest.approx(1.2)
    assert result.interval_j == pytest.approx((1.2 - 0.4968275, 1.2 + 0.4968275), abs=1e-6)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_students_t_as_in_printed_tables(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, abs=5e-5)


def test_one_value_has_no_interval():
    assert student_interval([1.0]) is None


def test_a_slow_counter_stays_within_its_bound():
    machine = Machine(work_s=0.47)
    result = measure_energy(Counter(machine, update_s=0.125), machine.work, **SHORT, clock=machine)
    assert result.sampling_rate_hz == pytest.approx(8, rel=0.01)
    true_j = 8.0 * 0.47 / 4
    assert 0 < abs(result.energy_per_inference_j - true_j) <= result.sampling_error_j


def test_a_meter_that_averages_is_given_time_to_settle():
    machine = Machine()
    measure_energy(Sampler(machine, lag_s=1.0), machine.work, **SHORT, clock=machine)
    assert machine.calls == 2 * (2 + 10)  # 1 s of work before each round that counts


def test_work_that_costs_nothing_gives_no_figure():
    machine = Machine(busy_w=2.0)
    result = measure_energy(Counter(machine), machine.work, **SHORT, clock=machine)
    assert result.energy_per_inference_j is None
    assert result.interval_j is None
    assert result.total_energy_per_inference_j == pytest.approx(0.25)
    (warning,) = result.warnings
    assert "cannot be told apart from idle" in warning


def test_an_interval_that_holds_zero_gives_no_figure():
    # Net -0.1, 0.5 and 0.2 W: mean 0.2 above the meter's error, but the interval reaches below 0.
    machine = Machine()

    def work():
        machine.busy_w = (1.9, 2.5, 2.2)[machine.calls // 11]
        return machine.work()

    result = measure_energy(Counter(machine), work, idle_s=4.0, rounds=3, seconds=5.0, clock=machine)
    assert result.energy_per_inference_j is None
    assert "which holds 0" in result.warnings[0]


def test_a_figure_below_the_meters_error_is_not_given():
    # 0.4 W above idle, in every round the same, by a meter that shows steps of 0.5 W.
    machine = Machine(busy_w=2.4)
    result = measure_energy(Sampler(machine), machine.work, **SHORT, clock=machine)
    assert result.energy_per_inference_j is None
    assert "sampling error is up to" in result.warnings[0]


def test_one_round_is_compared_with_how_idle_changed():
    machine = Machine(busy_w=3.0)

    def work():
        count = machine.work()
        machine.watts = machine.idle_w = 4.0  # idle after it all takes more than before
        return count

    result = measure_energy(Counter(machine), work, idle_s=4.0, rounds=1, seconds=5.0, clock=machine)
    assert result.energy_per_inference_j is None
    assert result.idle_power_w == result.rounds[0].idle_power_w == pytest.approx(3.0)  # 2 s each at 2 and at 4 W
    assert any("is something else running?" in text for text in result.warnings)
    machine = Machine()
    result = measure_energy(Counter(machine), machine.work, idle_s=4.0, rounds=1, seconds=5.0, clock=machine)
    assert result.energy_per_inference_j == pytest.approx(1.0)
    assert result.interval_j is None
    assert result.warnings == ("one round has no interval; measure 3 or more",)


def test_too_few_samples_are_mentioned():
    machine = Machine()
    result = measure_energy(Sampler(machine), machine.work, idle_s=4.0, rounds=2, seconds=0.5, clock=machine)
    assert any("only 8 samples or counter updates in a round" in text for text in result.warnings)


def test_sampling_that_is_held_up_is_mentioned():
    class HeldUp(Machine):
        def every(self, period_s, call):
            return super().every(8 * period_s, call)

    machine = HeldUp()
    result = measure_energy(Sampler(machine), machine.work, **SHORT, clock=machine)
    assert any("held up for 0.50 s where 0.0625 s was asked for" in text for text in result.warnings)


def test_work_that_lets_no_sample_through_gives_no_figure():
    class Starved(Machine):
        def every(self, period_s, call):
            return super().every(1000.0, call)

    machine = Starved()
    with pytest.raises(BackendError, match=r"gave no sample within 2.0 s .*; no energy figure is given"):
        measure_energy(Sampler(machine), machine.work, **SHORT, clock=machine)


class Rapl(Machine):
    """Writes its joules into a powercap tree as they are used."""

    def __init__(self, root, offset_uj=0, range_uj=262_143_328_850):
        super().__init__()
        self.zone = rapl_zone(root, "intel-rapl:0", "package-0", offset_uj, range_uj)
        self.offset_uj, self.range_uj = offset_uj, range_uj

    def _forward(self, to):
        super()._forward(to)
        if self.zone.exists():
            write(self.zone / "energy_uj", (self.offset_uj + round(self.joules * 1e6)) % self.range_uj)


def the_rapl_meter(root):
    """The first one found in a tree."""
    return next(meter for meter in detect_meters(root)[0] if meter.name == "rapl")


def test_a_powercap_tree_whose_counter_runs_over_all_the_time(tmp_path):
    # The counter holds 30 J and starts 1 J before its end: it runs over more than once in every round.
    machine = Rapl(tmp_path, offset_uj=29_000_000, range_uj=30_000_000)
    result = measure_energy(the_rapl_meter(tmp_path), machine.work, **SHORT, clock=machine)
    assert result.energy_per_inference_j == pytest.approx(1.0, abs=1e-6)
    assert result.to_dict()["rounds"][1]["energy_j"] == pytest.approx(50.0, abs=1e-4)


def test_a_tree_that_goes_away_in_mid_run(tmp_path):
    machine = Rapl(tmp_path)
    machine.events[4.5] = lambda: shutil.rmtree(machine.zone)
    with pytest.raises(BackendError) as caught:
        measure_energy(the_rapl_meter(tmp_path), machine.work, **SHORT, clock=machine)
    text = str(caught.value)
    assert text.startswith("the rapl meter vanished ")
    assert 4.4 < float(text.split()[4]) < 5.6
    assert f"{machine.zone}/energy_uj cannot be read (No such file or directory); no energy figure is given" in text
    assert machine.stopped == 1
    assert machine.calls <= 7  # 2.25 s idle, warm-up, and what fits in until it was noticed


def test_a_counter_that_stands_still_is_no_meter(tmp_path):
    rapl_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    machine = Machine()
    with pytest.raises(BackendError, match="stood still during the whole measurement, as in many virtual machines"):
        measure_energy(the_rapl_meter(tmp_path), machine.work, **SHORT, clock=machine)


def test_a_counter_that_is_reset_is_not_taken_for_one_that_ran_over(tmp_path):
    machine = Rapl(tmp_path)
    machine.offset_uj = 50_000_000
    machine.pass_by(0.1)

    def reset():
        machine.offset_uj = -round(machine.joules * 1e6)

    machine.events[6.0] = reset
    with pytest.raises(BackendError, match=r"vanished .* its counter jumped by 2\d{5} J in .*no energy figure"):
        measure_energy(the_rapl_meter(tmp_path), machine.work, **SHORT, clock=machine)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (lambda: math.nan, "it reads nan"),
        (lambda: (_ for _ in ()).throw(MeterError("/sys/x cannot be read")), "/sys/x cannot be read"),
        (lambda: (_ for _ in ()).throw(RuntimeError("bus error\nmore")), "bus error"),
    ],
)
def test_power_samples_that_stop(reading, message):
    machine = Machine()
    meter = Sampler(machine)
    meter.read_w = lambda: reading() if machine.seconds > 3 else machine.watts
    with pytest.raises(BackendError) as caught:
        measure_energy(meter, machine.work, **SHORT, clock=machine)
    assert str(caught.value) == (
        f"the pmic meter vanished 3.1 s after the measurement began: {message}; no energy figure is given"
    )
    assert machine.stopped == 1


@pytest.mark.parametrize("returned", [0, -1, None, 2.0, "4"])
def test_work_must_say_how_much_it_did(returned):
    machine = Machine()
    with pytest.raises(UsageError, match=r"work\(\) returned .*; it must return how many inferences it did"):
        measure_energy(Counter(machine), lambda: returned, **SHORT, clock=machine)
    assert machine.stopped == 1


@pytest.mark.parametrize(
    ("name", "value"), [("idle_s", 0.0), ("seconds", -1.0), ("rounds", 0), ("rounds", 1.5), ("seconds", math.nan)]
)
def test_a_plan_that_cannot_be(name, value):
    machine = Machine()
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        measure_energy(Counter(machine), machine.work, **{**SHORT, name: value}, clock=machine)
    assert machine.calls == 0


def test_energy_between_samples_by_hand():
    # 1 s from 2 to 4 W, 0.5 s at 4 W, 1 s from 4 to 3 W: 3 + 2 + 3.5 J; differences 2 x 1 / 2 + 1 x 1 / 2 J.
    result = integrate(np.array([0.0, 1.0, 1.5, 2.5]), np.array([2.0, 4.0, 4.0, 3.0]), step_w=0.2, lag_s=0.1)
    assert result.energy_j == pytest.approx(8.5)
    assert result.error_j == pytest.approx(1.5 + 2.5 * 0.1 + 0.1 * 2)
    assert result.longest_gap_s == pytest.approx(1.0)


class RealTime(PowerSampler):
    """2 W, and 10 W while ``busy``; gone at a given reading."""

    def __init__(self, last=None):
        self.name, self.description, self.period_s = "ina3221", "all of it", 0.01
        self.busy, self.readings, self.last = False, 0, last

    def read_w(self):
        self.readings += 1
        if self.last is not None and self.readings > self.last:
            raise MeterError("/sys/in1_input cannot be read (No such file or directory)")
        return 10.0 if self.busy else 2.0

    def step_w(self):
        return 0.001

    def work(self):
        self.busy = True
        time.sleep(0.05)
        self.busy = False
        return 1


def samplers():
    """Sampling threads that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "gascnn-power-sampler"]


def test_the_thread_samples_in_real_time_and_ends():
    meter = RealTime()
    result = measure_energy(meter, meter.work, idle_s=0.4, rounds=1, seconds=0.5)
    assert 1.9 < result.idle_power_w < 2.1
    assert 6 < result.power_w < 10.01
    assert 0 < result.sampling_rate_hz < 150
    assert samplers() == []


def test_a_meter_that_vanishes_in_real_time_ends_the_thread():
    meter = RealTime(last=40)
    with pytest.raises(BackendError, match=r"the ina3221 meter vanished \d\.\d s .*in1_input cannot be read"):
        measure_energy(meter, meter.work, idle_s=2.0, rounds=2, seconds=2.0)
    assert samplers() == []
    with pytest.raises(KeyboardInterrupt):
        measure_energy(RealTime(), lambda: (_ for _ in ()).throw(KeyboardInterrupt()), idle_s=0.2, rounds=1)
    assert samplers() == []
