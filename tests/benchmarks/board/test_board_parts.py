"""Parts of a board's measurement: turns, percentiles, intervals, the processor's state, meters that vanish."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from scipy.stats import binomtest

from gascnn.benchmarks.board import energy, timing
from gascnn.benchmarks.board.conditions import board_name, describe_conditions
from gascnn.benchmarks.board.energy import EnergyPlan, Meter, choose_meter, measure_all
from gascnn.benchmarks.board.figures import accuracy, latency
from gascnn.benchmarks.board.timing import Task, take_turns, warm_up
from gascnn.hardware import power
from gascnn.hardware.power import EnergyMeasurement, Unavailable
from gascnn.hardware.process import peak_memory_bytes
from gascnn.toolkit.errors import BackendError, UsageError

# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (3, 7), (200, 200), (181, 269)])
def test_accuracies_have_wilsons_interval(right, count):
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert accuracy(right, count)["interval"] == pytest.approx([expected.low, expected.high], abs=1e-12)
    assert accuracy(right, count)["value"] == right / count


def test_percentiles_only_of_enough_samples():
    """Of 1..n hundredths the quantile q is 0.01 (1 + q (n - 1)), linear between samples."""
    for count in (1, 19, 20, 99, 100):
        found = latency([k / 100 for k in range(count, 0, -1)])
        for name, share, least in (("p50_s", 0.5, 1), ("p95_s", 0.95, 20), ("p99_s", 0.99, 100)):
            expected = 0.01 * (1 + share * (count - 1)) if count >= least else None
            assert found[name] == (None if expected is None else pytest.approx(expected))
        assert found["samples"] == count
        assert found["mean_s"] == pytest.approx(0.01 * (count + 1) / 2)
        assert found["images_per_s"] == pytest.approx(1 / found["mean_s"])


# --- turns ------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only the networks move."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.calls = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def network(self, name, seconds):
        def call(image):
            self.calls.append((name, image))
            self.now += seconds
            return f"{name}{image}"

        return call


def test_networks_take_turns_and_another_one_begins(monkeypatch):
    clock = Clock(monkeypatch)
    many = Task("many", clock.network("many", 0.25), str.upper, range(6), warm_s=0.25)
    few = Task("few", clock.network("few", 2.0), str.upper, [0, 3], warm_s=2.0)
    told = []
    assert take_turns([many, few], lambda *what: told.append(what)) == 2
    assert clock.calls == [
        ("many", 0), ("many", 1), ("many", 2), ("few", 0), ("few", 3), ("many", 3), ("many", 4), ("many", 5),
    ]  # fmt: skip
    assert many.answers == {i: f"MANY{i}" for i in range(6)}
    assert many.seconds == [0.25] * 6
    assert few.seconds == [2.0, 2.0]
    assert told == [("many", 3, 6), ("few", 1, 2), ("few", 2, 2), ("many", 6, 6)]


def test_quick_networks_answer_uncounted_first(monkeypatch):
    clock = Clock(monkeypatch)
    quick = Task("quick", clock.network("quick", 0.01), str, range(4), warm_s=0.01)
    slow = Task("slow", clock.network("slow", 1.0), str, range(2), warm_s=1.0)
    take_turns([quick, slow])
    assert clock.calls.count(("quick", 0)) == 2
    assert clock.calls.count(("quick", 2)) == 2
    assert len(clock.calls) == 6 + 2
    assert len(quick.seconds) == 4


def test_the_time_limit_ends_a_network_but_not_before_its_least(monkeypatch):
    clock = Clock(monkeypatch)
    slow = Task("slow", clock.network("slow", 3.0), str, range(10), limit_s=13.0, least=2, warm_s=3.0)
    other = Task("other", clock.network("other", 1.0), str, range(10), warm_s=1.0)
    take_turns([slow, other])
    assert len(slow.answers) == 4  # a fifth would end at 15 s
    assert len(other.answers) == 10
    hopeless = Task("hopeless", clock.network("hopeless", 50.0), str, range(10), limit_s=1.0, least=2, warm_s=50.0)
    take_turns([hopeless])
    assert len(hopeless.answers) == 2


def test_warming_up_is_the_second_call_unless_the_first_takes_long(monkeypatch):
    clock = Clock(monkeypatch)
    assert warm_up(clock.network("a", 0.5), 0) == 0.5
    assert len(clock.calls) == 2
    assert warm_up(clock.network("b", 40.0), 0) == 40.0
    assert len(clock.calls) == 3


# --- the processor ----------------------------------------------------------------------------------------------------


def test_governor_frequency_and_temperature_are_read(tmp_path):
    for number, khz in ((0, "1500000"), (1, "2400000")):
        folder = tmp_path / f"devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text("ondemand\n")
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    (tmp_path / "devices/system/cpu/cpufreq").mkdir()
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("51234\n")
    (zone / "type").write_text("cpu-thermal\n")
    broken = tmp_path / "class/thermal/thermal_zone1"
    broken.mkdir()
    (broken / "temp").write_text("hot\n")
    assert describe_conditions(tmp_path) == {
        "governors": {"ondemand": 2},
        "frequencies_khz": [1500000, 2400000],
        "temperatures_c": {"zone0 cpu-thermal": 51.234},
        "unreadable": [],
    }


def test_what_is_not_told_is_said(tmp_path):
    found = describe_conditions(tmp_path)
    assert found["governors"] == found["temperatures_c"] == {}
    assert [sentence.split(":")[0] for sentence in found["unreadable"]] == [
        "scaling_governor", "scaling_cur_freq", "thermal zones",
    ]  # fmt: skip


def test_a_board_is_called_what_its_device_tree_says(tmp_path):
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert board_name(tmp_path / "model") == "Raspberry Pi 5 Model B Rev 1.0"
    assert board_name(tmp_path / "none")


def test_peak_memory_is_this_process_own(tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2048 kB\n")
    assert peak_memory_bytes(tmp_path / "status") == 2048 * 1024
    assert peak_memory_bytes(tmp_path / "none") > 1e6


# --- energy -----------------------------------------------------------------------------------------------------------


@dataclass
class StandIn:
    """A meter without a machine."""

    name: str
    description: str = "all rails"


def detected(monkeypatch, *names):
    missing = [Unavailable("rapl", "no permission to read energy_uj; run as root")]
    monkeypatch.setattr(power, "detect_meters", lambda: ([StandIn(name) for name in names], missing))


def measurement(meter, joules):
    return EnergyMeasurement(
        meter=meter, description="all rails", kind="power samples", idle_power_w=2.0, power_w=3.0, inferences=10,
        energy_per_inference_j=joules, interval_j=(joules / 2, joules * 2), total_energy_per_inference_j=2 * joules,
        sampling_rate_hz=10.0, sampling_error_j=0.0, rounds=(), warnings=(),
    )  # fmt: skip


def test_the_first_meter_a_named_one_none_or_a_log(monkeypatch, tmp_path):
    detected(monkeypatch, "ina3221", "nvml")
    assert choose_meter(None).meter.name == "ina3221"
    assert choose_meter("nvml").meter.name == "nvml"
    assert choose_meter("none").to_dict() == {"used": None, "unavailable": []}
    assert choose_meter(str(tmp_path / "log")).log == tmp_path / "log"
    assert choose_meter("log.csv").to_dict() == {"used": "usb-log", "unavailable": []}
    with pytest.raises(
        UsageError, match=r"meter rapl cannot be read: no permission .*; meters that can: ina3221, nvml"
    ):
        choose_meter("rapl")
    detected(monkeypatch)
    nothing = choose_meter(None)
    assert nothing.to_dict() == {
        "used": None, "unavailable": [{"name": "rapl", "why": "no permission to read energy_uj; run as root"}],
    }  # fmt: skip
    found = measure_all(nothing, EnergyPlan(), {"snn": (int, [0])}, None)
    assert found == {"snn": {"measured": False, "why": "no energy meter can be read here"}}


def test_a_meter_that_vanishes_costs_one_figure_only(monkeypatch):
    asked = []

    def measure(meter, work, *, idle_s, rounds, seconds, progress):
        progress(0.5)
        asked.append((meter.name, work(), work(), idle_s, rounds, seconds))
        if len(asked) == 2:
            raise BackendError("the pmic meter vanished 3.0 s after the measurement began")
        return measurement(meter.name, 0.25)

    monkeypatch.setattr(power, "measure_energy", measure)
    monkeypatch.setattr(energy, "_WORK_S", 0.0)
    answered = []
    told = []
    calls = {name: (lambda image, name=name: answered.append((name, image)), [4, 7, 9]) for name in ("a", "b", "c")}
    found = measure_all(Meter(meter=StandIn("pmic")), EnergyPlan(1.0, 2, 3.0), calls, lambda *what: told.append(what))
    assert [value["measured"] for value in found.values()] == [True, False, True]
    assert found["a"]["energy_per_inference_j"] == 0.25
    assert found["a"]["interval_j"] == [0.125, 0.5]
    assert found["b"] == {"measured": False, "why": "the pmic meter vanished 3.0 s after the measurement began"}
    assert asked == [("pmic", 1, 1, 1.0, 2, 3.0)] * 3
    assert answered == [(name, image) for name in "abc" for image in (4, 7)]
    assert told[0] == ("a, energy", 50, 100)


def test_times_are_kept_for_a_log_that_is_elsewhere(tmp_path):
    plan = EnergyPlan(0.02, 1, 0.02)
    found = measure_all(Meter(log=tmp_path / "log.csv"), plan, {"snn": (int, [0])}, None)["snn"]
    assert found["measured"] is False
    assert "log.csv" in found["why"]
    (window,) = found["windows"]["rounds"]
    assert window["busy"][1] - window["busy"][0] >= 0.02
    assert window["inferences"] >= 1


@pytest.mark.parametrize(("name", "value"), [("idle_s", 0), ("rounds", -1), ("seconds", float("nan"))])
def test_plans_that_cannot_be_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} is .*; it must be above 0"):
        EnergyPlan(**{name: value})
