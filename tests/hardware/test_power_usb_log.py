"""Logs of USB power meters: formats, clocks, gaps, and windows recorded on another machine."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from gascnn.hardware.power import RecordedWindows, UsbLog, energy_from_log, measure_energy, record_windows
from gascnn.hardware.power.usb_log import PowerSeries
from gascnn.toolkit.errors import BackendError, FormatError, UsageError

_SPEC = importlib.util.spec_from_file_location("power_machine", Path(__file__).with_name("power_machine.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
Machine, EPOCH_S = _MODULE.Machine, _MODULE.EPOCH_S

SHORT = {"idle_s": 4.0, "rounds": 2, "seconds": 5.0}
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
START_S = 1_772_366_400.0


def log_of(machine, path, *, offset_s=0.0, period_s=0.0625, skip=lambda seconds: False):
    """What a meter with a clock ``offset_s`` behind would have logged of the run: means over a period."""
    lines = ["epoch,utc_time,voltage_V,current_A,power_W,dplus_V"]
    for index in range(1, int(machine.seconds / period_s) + 1):
        end = index * period_s
        if not skip(end):
            watts = (machine.joules_at(end) - machine.joules_at(end - period_s)) / period_s
            watts = round(watts + 0.01 * (index % 3 - 1), 3)  # a ripple, so that the log shows its steps
            lines.append(f"{EPOCH_S + end - offset_s},x,5.0,{watts / 5},{watts},2.7")
    path.write_text("\n".join(lines) + "\n")


def series(path, text, **options):
    """A log of this text, read."""
    path.write_text(text)
    return UsbLog(path, **options).read()


def test_a_window_of_a_log_by_hand():
    # 2, 4, 4, 8, 8 W each second; from 0.5 (3 W) to 3.5 s: 0.5 x 3.5 + 4 + 6 + 4 J.
    log = PowerSeries("log", np.arange(5.0), np.array([2.0, 4, 4, 8, 8]), step_w=2.0, clock_error_s=0.1, max_gap_s=1.0)
    window = log.window(0.5, 3.5)
    assert window.energy_j == pytest.approx(15.75)
    assert window.time_s == pytest.approx(3.0)
    # 0.5 x 1 / 2 + 4 / 2 between samples, 3 x 2 / 2 for the steps, 0.1 s x (8 - 3) W for the clock.
    assert window.error_j == pytest.approx(2.25 + 3.0 + 0.5)
    # Between two samples: 0.5 s at (4.8 + 6.8) / 2 W.
    assert log.window(2.2, 2.7).energy_j == pytest.approx(0.5 * 5.8)


def test_a_run_is_laid_over_the_log_afterwards(tmp_path):
    machine, path = Machine(), tmp_path / "run.csv"

    def save():
        machine.pass_by(1.0)
        log_of(machine, path, offset_s=3.5)

    log = UsbLog(path, clock_offset_s=3.5, before_reading=save)
    result = measure_energy(log, machine.work, **SHORT, clock=machine)
    assert result.energy_per_inference_j == pytest.approx(1.0, abs=result.sampling_error_j)
    assert result.energy_per_inference_j == pytest.approx(1.0, abs=0.01)
    assert (result.meter, result.kind) == ("usb-log", "power samples")
    assert "run.csv" in result.description
    assert result.sampling_rate_hz == pytest.approx(16, rel=0.1)


def test_windows_recorded_elsewhere_give_the_same(tmp_path):
    machine, path = Machine(), tmp_path / "run.csv"
    windows = record_windows(machine.work, **SHORT, clock=machine)
    machine.pass_by(1.0)
    log_of(machine, path)
    assert windows.rounds[0].busy == pytest.approx((EPOCH_S + 3.0, EPOCH_S + 8.0))
    assert windows.rounds[0].inferences == 40
    carried = RecordedWindows.from_dict(json.loads(json.dumps(windows.to_dict(), allow_nan=False)))
    assert carried == windows
    result = energy_from_log(carried, UsbLog(path))
    assert result.energy_per_inference_j == pytest.approx(1.0, abs=0.01)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


def test_an_uncertain_clock_is_left_out_and_counted(tmp_path):
    machine, path = Machine(), tmp_path / "run.csv"

    def save():
        machine.pass_by(1.0)
        log_of(machine, path, offset_s=0.4)  # nobody knows that it is late

    log = UsbLog(path, clock_error_s=0.5, before_reading=save)
    result = measure_energy(log, machine.work, **SHORT, clock=machine)
    assert result.energy_per_inference_j == pytest.approx(1.0, abs=result.sampling_error_j)
    assert result.sampling_error_j > 0.5 * 6 / 40


def test_a_gap_within_the_run_is_an_error(tmp_path):
    machine, path = Machine(), tmp_path / "run.csv"
    windows = record_windows(machine.work, **SHORT, clock=machine)
    machine.pass_by(1.0)
    log_of(machine, path, skip=lambda seconds: 4.0 < seconds < 5.5)
    with pytest.raises(FormatError, match=r"gap of 1\.50 s after .*\+00:00, within the run; at most 1 s is inter"):
        energy_from_log(windows, UsbLog(path))
    assert energy_from_log(windows, UsbLog(path, max_gap_s=2.0)).inferences == 80
    log_of(machine, path, skip=lambda seconds: 2.3 < seconds < 2.4)  # while it settles, in no window
    assert energy_from_log(windows, UsbLog(path, max_gap_s=0.1)).inferences == 80


@pytest.mark.parametrize("offset_s", [-3600.0, 3600.0, 5.0])
def test_a_log_of_another_time_is_an_error(tmp_path, offset_s):
    machine, path = Machine(), tmp_path / "run.csv"
    windows = record_windows(machine.work, **SHORT, clock=machine)
    machine.pass_by(1.0)
    log_of(machine, path)
    with pytest.raises(FormatError, match=r"covers 20.* to 20.*, but the run was .*set the clock offset"):
        energy_from_log(windows, UsbLog(path, clock_offset_s=offset_s))


def test_a_clock_that_is_set_during_the_run(tmp_path):
    machine = Machine()
    machine.events[5.0] = lambda: setattr(machine, "epoch_jump_s", -2.0)
    with pytest.raises(BackendError, match=r"time of day was set by -2\.00 s during the run"):
        record_windows(machine.work, **SHORT, clock=machine)


@pytest.mark.parametrize(
    "text",
    [
        "timestamp,power\n1772366400,3\n1772366401.5,4.5\n",
        "Timestamp;Power(mW)\n1772366400000;3000\n1772366401500;4500\n",
        "time\tpower_W\tnote\n2026-03-01T12:00:00Z\t3\ta\n2026-03-01T12:00:01.5000Z\t4.5\tb\n",
        "Date Time,Power [W]\n",
        "# a logger's own words\n\ntime,voltage,current\n2026-03-01 13:00:00+01:00,5,0.6\n2026-03-01 13:00:01,5+\n",
        "timestamp sample_in_packet voltage_V current_A\n1772366400.000 0 5.0 0.6\n1772366401.500 1 5.0 0.9\n",
        "epoch,utc_time,voltage_V,current_mA,dplus_V\n1772366400,a,5,600,2\n1772366401.5,b,5,900,2\n",
    ],
    ids=["plain", "milli", "iso", "spaced-names", "zone", "fnirsi", "two-clocks"],
)
def test_formats(tmp_path, text):
    if text.startswith("Date Time"):
        text += "2026-03-01 12:00:00Z,3\n2026-03-01 12:00:01.5Z,4.5\n"
    text = text.replace("2026-03-01 13:00:01,5+", "2026-03-01 13:00:01.500+0100,5,0.9")
    log = series(tmp_path / "log.csv", text)
    assert log.times_s == pytest.approx([START_S, START_S + 1.5])
    assert log.watts == pytest.approx([3.0, 4.5])


def test_columns_by_name_and_time_without_a_zone(tmp_path):
    local = [(START + timedelta(seconds=n)).astimezone().replace(tzinfo=None) for n in (0, 2)]
    text = f"when,out,in\n{local[0].isoformat()},1,7\n{local[1].isoformat()},2,9\n"
    log = series(tmp_path / "log.csv", text, columns={"time": "when", "power": "in"})
    assert log.times_s == pytest.approx([START_S, START_S + 2])
    assert log.watts == pytest.approx([7, 9])
    assert log.step_w == pytest.approx(2)


def test_the_step_of_voltage_times_current(tmp_path):
    log = series(tmp_path / "log.csv", "time,voltage,current\n1,5.0,0.60\n2,5.1,0.61\n3,5.2,0.65\n")
    assert log.step_w == pytest.approx(5.1 * 0.01 + 0.62 * 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("time,power\n1,2\n", "holds 1 samples; a log needs at least 2"),
        ("time,colour\n1,2\n", "no time and power, or time, voltage and current, among the columns time, colour"),
        ("time,voltage\n1,2\n", "no time and power, or time, voltage and current"),
        ("time,power_W,power_mW\n1,2,3\n", "several columns for power: power_W, power_mW; name one"),
        ("time,power\n1,2\n3\n", "line 3: 1 columns where the header has 2"),
        ("time,power\n1,2\n3,nan\n", "line 3: power is 'nan', which is no power"),
        ("time,power\n1,2\n3,\n", "line 3: power is '', which is no power"),
        ("time;power\n1;2\n3;4,5\n", "line 3: power is '4,5', which is no power"),
        ("time,power\nyesterday,2\n", "line 2: time is 'yesterday', which is no time"),
        ("time,power\n2026-02-30T00:00:00,2\n", "line 2: time is '2026-02-30T00:00:00'"),
        ("time,power\n1,2\n3,2\n2,2\n", "time goes back after sample 2"),
    ],
)
def test_logs_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        series(tmp_path / "log.csv", text)


def test_a_log_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(FormatError, match=r"absent\.csv cannot be read: No such file or directory"):
        UsbLog(tmp_path / "absent.csv").read()
    (tmp_path / "log.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(FormatError, match=r"log\.csv cannot be read: .*codec can't decode"):
        UsbLog(tmp_path / "log.csv").read()
    with pytest.raises(FormatError, match="has no column 'W'; it has time, power"):
        series(tmp_path / "log.csv", "time,power\n1,2\n2,2\n", columns={"power": "W"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_gap_s": 0.0}, "max_gap_s is 0.0; it must be above 0"),
        ({"clock_error_s": -1.0}, "clock_error_s is -1.0; it must be 0 or more"),
        ({"clock_offset_s": float("nan")}, "clock_offset_s is nan"),
        ({"columns": {"colour": "x"}}, "unknown column role 'colour'; known: time, power, voltage, current"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        UsbLog(tmp_path / "log.csv", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(version=2), "these are no recorded windows"),
        (lambda value: value.update(rounds=[]), "hold no round"),
        (lambda value: value["rounds"][0].pop("busy"), "damaged: KeyError"),
        (lambda value: value["rounds"][0].update(busy=[5.0, 4.0]), "times that do not ascend"),
        (lambda value: value["rounds"][0].update(after=[5.0, 5.0]), "a window without length"),
        (lambda value: value["rounds"][0].update(inferences=0), "0 inferences"),
        (lambda value: value["rounds"][0].update(before=[float("nan"), 2.0]), "times that do not ascend"),
    ],
)
def test_windows_that_were_damaged(change, message):
    value = {
        "format": "gascnn-power-windows",
        "version": 1,
        "rounds": [{"before": [1.0, 2.0], "busy": [3.0, 4.0], "after": [5.0, 6.0], "inferences": 3}],
    }
    assert RecordedWindows.from_dict(value).rounds[0].busy == (3.0, 4.0)
    change(value)
    with pytest.raises(FormatError, match=message):
        RecordedWindows.from_dict(value)
    with pytest.raises(FormatError, match="these are no recorded windows"):
        RecordedWindows.from_dict([value])
