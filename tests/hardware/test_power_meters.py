"""Meters on recorded-like trees and outputs: what is read, what is chosen, what is said where there is none."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gascnn.hardware.power import Unavailable, detect_meters, find_meter
from gascnn.hardware.power.detect import _FINDERS
from gascnn.hardware.power.meter import MeterError
from gascnn.hardware.power.pmic import parse
from gascnn.toolkit.errors import BackendError

_SPEC = importlib.util.spec_from_file_location("power_machine", Path(__file__).with_name("power_machine.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
rapl_zone, hwmon_monitor, iio_monitor, write = (
    _MODULE.rapl_zone,
    _MODULE.hwmon_monitor,
    _MODULE.iio_monitor,
    _MODULE.write,
)

# The lines `vcgencmd pmic_read_adc` prints on a Raspberry Pi 5.
PMIC_OUTPUT = """\
 3V7_WL_SW_A current(0)=0.00780744A
   3V3_SYS_A current(1)=0.12199130A
   1V8_SYS_A current(2)=0.24300660A
  DDR_VDD2_A current(3)=0.02147046A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.18640260A
    0V8_SW_A current(6)=0.26935670A
  VDD_CORE_A current(7)=0.75012000A
   3V3_DAC_A current(17)=0.00006105A
   3V3_ADC_A current(18)=0.00036630A
   0V8_AON_A current(16)=0.00305250A
      HDMI_A current(22)=0.02417580A
 3V7_WL_SW_V volt(8)=3.69977600V
   3V3_SYS_V volt(9)=3.31003300V
   1V8_SYS_V volt(10)=1.80512600V
  DDR_VDD2_V volt(11)=1.10476100V
  DDR_VDDQ_V volt(12)=0.60146460V
   1V1_SYS_V volt(13)=1.11025500V
    0V8_SW_V volt(14)=0.80146440V
  VDD_CORE_V volt(15)=0.72178200V
   3V3_DAC_V volt(20)=3.31318300V
   3V3_ADC_V volt(21)=3.30677300V
   0V8_AON_V volt(19)=0.80029220V
      HDMI_V volt(23)=5.08664000V
     EXT5V_V volt(24)=5.09066000V
      BATT_V volt(25)=0.00000000V
"""
# Multiplied out with a pocket calculator, mW: 28.886 + 403.795 + 438.657 + 23.720 + 0 + 206.954 + 215.880 + 541.423
# + 0.202 + 1.211 + 2.443 + 122.974.
PMIC_W = 1.986145


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    """No GPU library unless a test puts one there."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


def why(root, name):
    """The reason given for a meter of which there is none."""
    meters, missing = detect_meters(root)
    assert name not in [meter.name for meter in meters]
    return next(entry.why for entry in missing if entry.name == name)


def only(root, name):
    """The one meter of a name."""
    (meter,) = [meter for meter in detect_meters(root)[0] if meter.name == name]
    return meter


def vcgencmd(root, script):
    """A command in the tree's place."""
    path = root / "usr/bin/vcgencmd"
    write(path, f"#!/bin/sh\n{script}")
    path.chmod(0o755)


def test_an_empty_tree_has_no_meter_and_says_why_of_each(tmp_path):
    meters, missing = detect_meters(tmp_path)
    assert meters == []
    assert [entry.name for entry in missing] == ["ina3221", "pmic", "rapl", "nvml", "usb-log"]
    reasons = {entry.name: entry.why for entry in missing}
    assert "modprobe intel_rapl_msr" in reasons["rapl"]
    assert "no Jetson" in reasons["ina3221"]
    assert "no command vcgencmd" in reasons["pmic"]
    assert "pip install nvidia-ml-py" in reasons["nvml"]
    assert all("\n" not in text and text.endswith(".") for text in reasons.values())


def test_no_meter_is_one_error_with_all_reasons(tmp_path):
    with pytest.raises(BackendError, match=r"no power meter can be read here\. ina3221: .*pmic: .*rapl: .*nvml: "):
        find_meter(root=tmp_path)
    with pytest.raises(BackendError, match=r"no power meter rapl can be read here\. rapl: There is no package zone"):
        find_meter("rapl", tmp_path)
    with pytest.raises(BackendError, match=r"no power meter sun can be read here\. known: ina3221, pmic, rapl, nvml"):
        find_meter("sun", tmp_path)


def test_a_search_that_breaks_does_not_hide_the_others(tmp_path, monkeypatch):
    def broken(root):
        raise RuntimeError("cannot be\nmore lines")

    monkeypatch.setitem(_FINDERS, "ina3221", broken)
    rapl_zone(tmp_path, "intel-rapl:0", "package-0")
    meters, missing = detect_meters(tmp_path)
    assert [meter.name for meter in meters] == ["rapl"]
    assert Unavailable("ina3221", "Looking for it failed: cannot be.") in missing


def test_rapl_adds_packages_and_keeps_dram_apart(tmp_path):
    first, second = (rapl_zone(tmp_path, f"intel-rapl:{n}", f"package-{n}", 1000) for n in (0, 1))
    core, dram = rapl_zone(tmp_path, "intel-rapl:0:0", "core"), rapl_zone(tmp_path, "intel-rapl:0:1", "dram", 5)
    platform = rapl_zone(tmp_path, "intel-rapl:2", "psys")
    again = rapl_zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    meters, _ = detect_meters(tmp_path)
    packages, memory = meters
    assert packages.kind == "energy counter"
    assert "package-0 (intel-rapl:0), package-1 (intel-rapl:1)" in packages.description
    assert "DRAM left out" in packages.description
    assert memory.description == "DRAM alone, processor packages left out: dram (intel-rapl:0:1)"
    for folder, microjoules in ((first, 3_001_000), (second, 501_000), (core, 9e9), (platform, 9e9), (again, 9e9)):
        write(folder / "energy_uj", int(microjoules))
    write(dram / "energy_uj", 250_005)
    assert packages.read_j() == pytest.approx(3.5)
    assert memory.read_j() == pytest.approx(0.25)


def test_rapl_makes_good_a_counter_that_ran_over(tmp_path):
    zone = rapl_zone(tmp_path, "intel-rapl:0", "package-0", 64_900_000, range_uj=65_000_000)
    meter = only(tmp_path, "rapl")
    write(zone / "energy_uj", 200_000)  # 100 000 to the end and 200 000 on
    assert meter.read_j() == pytest.approx(0.3)
    write(zone / "energy_uj", 300_000)
    assert meter.read_j() == pytest.approx(0.4)
    write(zone / "energy_uj", 299_999)  # nearly once around
    assert meter.read_j() == pytest.approx(0.4 + 64.999999)


def test_rapl_denied_says_which_file_and_how_to_allow_it(tmp_path, monkeypatch):
    rapl_zone(tmp_path, "intel-rapl:0", "package-0")

    def denied(path, *arguments, **options):
        if os.fspath(path).endswith("energy_uj"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr("gascnn.hardware.power.meter.open", denied, raising=False)
    text = why(tmp_path, "rapl")
    powercap = tmp_path / "sys/class/powercap"
    assert text.startswith(f"{powercap}/intel-rapl:0/energy_uj cannot be read (Permission denied)")
    assert f"CVE-2020-8694; run as root, or allow reading until the next start with: sudo chmod a+r {powercap}" in text


def test_rapl_zone_that_holds_no_number(tmp_path):
    rapl_zone(tmp_path, "intel-rapl:0", "package-0", "garbage")
    assert "energy_uj holds 'garbage' and no number" in why(tmp_path, "rapl")


def test_a_jetson_input_rail_is_not_added_to_its_parts(tmp_path):
    # Orin NX: 5.064 V x 1.432 A = 7.251648 W; the parts are in it.
    rails = [("VDD_IN", 5064, 1432), ("VDD_CPU_GPU_CV", 5056, 352), ("VDD_SOC", 5056, 488)]
    folder = hwmon_monitor(tmp_path, "1-0040", 4, rails)
    meter = only(tmp_path, "ina3221")
    assert meter.kind == "power samples"
    assert "rail VDD_IN" in meter.description
    assert meter.read_w() == pytest.approx(7.251648)
    # One count: 40 uV over 5 mOhm = 8 mA at 5.064 V, and 8 mV at 1.432 A.
    assert meter.step_w() == pytest.approx(0.008 * 5.064 + 0.008 * 1.432)
    assert meter.lag_s == 0
    write(folder / "update_interval", 140)
    assert only(tmp_path, "ina3221").lag_s == pytest.approx(0.14)


def test_modules_without_an_input_rail_are_added_up_without_parts_of_parts(tmp_path):
    # AGX Orin: VDDQ_VDD2_1V8AO is part of VIN_SYS_5V0. 4.9 x 0.65 + 4.9 x 0.2 + 4.968 x 0.953 W.
    hwmon_monitor(
        tmp_path, "1-0040", 3, [("VDD_GPU_SOC", 4900, 650), ("VDD_CPU_CV", 4900, 200), ("VIN_SYS_5V0", 4968, 953)]
    )
    hwmon_monitor(tmp_path, "1-0041", 4, [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 4968, 80), ("NC", 0, 0)])
    meter = only(tmp_path, "ina3221")
    assert meter.read_w() == pytest.approx(3.185 + 0.98 + 4.734504)
    assert "AGX Orin" in meter.description


def test_a_jetson_nano_with_jetpack_4(tmp_path):
    rails = [("POM_5V_IN", 5104, 1750), ("POM_5V_GPU", 5104, 0), ("POM_5V_CPU", 5104, 366)]
    folder = iio_monitor(tmp_path, "6-0040", 0, rails)
    (folder.parent / "iio_device").symlink_to(folder)  # some versions show the same device under a second name
    meter = only(tmp_path, "ina3221")
    assert "rail POM_5V_IN" in meter.description
    assert meter.read_w() == pytest.approx(1.75)
    assert meter.step_w() == pytest.approx(0.008 * 5.104 + 0.008 * 1.75 / 5.104)


def test_rails_nobody_knows_are_not_added_up(tmp_path):
    hwmon_monitor(tmp_path, "1-0040", 4, [("LED_A", 5000, 10), ("LED_B", 5000, 10), ("NC", 0, 0)])
    assert why(tmp_path, "ina3221") == (
        "No input rail is known among the INA3221 rails LED_A, LED_B; known: VDD_IN, POM_5V_IN."
    )
    hwmon_monitor(tmp_path, "1-0041", 5, [("LED_A", 5000, 10)])
    assert "have the same name (LED_A, LED_B, LED_A)" in why(tmp_path, "ina3221")


def test_a_jetson_monitor_that_gives_no_reading(tmp_path):
    folder = hwmon_monitor(tmp_path, "1-0040", 4, [("VDD_IN", 5064, 1432)])
    (folder / "in1_input").unlink()
    assert "in1_input cannot be read (No such file or directory)" in why(tmp_path, "ina3221")


def test_the_pmic_adds_the_rails_that_have_both(tmp_path):
    vcgencmd(tmp_path, f'[ "$*" = pmic_read_adc ] || exit 3\ncat <<END\n{PMIC_OUTPUT}END')
    meter = only(tmp_path, "pmic")
    assert meter.read_w() == pytest.approx(PMIC_W, abs=2e-6)
    assert "12 rails" in meter.description
    assert "USB" in meter.description
    # 8.93 mA x 0.721782 V of the core, 0.976 mA x 24.939769 V (all other rails together).
    assert meter.step_w() == pytest.approx(0.0064455 + 0.0243412, abs=1e-6)


def test_the_pmic_reading_by_hand():
    rails = parse("  VDD_CORE_A current(7)=2.0A\n  VDD_CORE_V volt(15)=0.8V\n EXT5V_V volt(24)=5.1V\n")
    assert rails == {"VDD_CORE": (0.8, 2.0)}
    with pytest.raises(MeterError, match="no number for rail VDD_CORE"):
        parse("  VDD_CORE_A current(7)=nanA\n  VDD_CORE_V volt(15)=0.8V\n")
    with pytest.raises(MeterError, match='no rail with voltage and current, but: error=1 error_msg="Command not reg'):
        parse('error=1 error_msg="Command not registered"\n')


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'error=1 error_msg=\"Command not registered\"'", "Command not registered.*only a Raspberry Pi 5"),
        ("echo 'VCHI initialization failed' >&2; exit 255", "status 255 and said: VCHI initialization failed.*video"),
    ],
)
def test_a_raspberry_pi_without_the_converter_or_the_permission(tmp_path, script, message):
    vcgencmd(tmp_path, script)
    assert re.search(message, why(tmp_path, "pmic"))


def test_a_pmic_command_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("gascnn.hardware.power.pmic._TIME_LIMIT_S", 0.2)
    vcgencmd(tmp_path, "exec sleep 60")
    assert "did not answer within 0.2 s" in why(tmp_path, "pmic")


def test_a_pmic_rail_that_goes_missing_does_not_make_the_sum_smaller(tmp_path):
    vcgencmd(tmp_path, f"cat <<END\n{PMIC_OUTPUT}END")
    meter = only(tmp_path, "pmic")
    fewer = "\n".join(line for line in PMIC_OUTPUT.splitlines() if "HDMI" not in line)
    vcgencmd(tmp_path, f"cat <<END\n{fewer}\nEND")
    with pytest.raises(MeterError, match="no longer tells rail HDMI"):
        meter.read_w()


class NvmlStandIn(types.ModuleType):
    """The functions of nvidia-ml-py used here; GPU 0 counts energy, GPU 1 tells power, GPU 2 neither."""

    class NVMLError(Exception):
        """As NVIDIA's."""

    def __init__(self, count=3, driver=True):
        super().__init__("pynvml")
        self.count, self.driver = count, driver
        self.millijoules, self.milliwatts = 5_000_000, 21_500

    def nvmlInit(self):  # noqa: N802
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return [b"Tesla V100", "Quadro P400", "GeForce GT 710"][handle]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        if handle != 0:
            raise self.NVMLError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        if handle != 1:
            raise self.NVMLError("Not Supported")
        return self.milliwatts


def test_nvml_counter_where_there_is_one_else_power(tmp_path, monkeypatch):
    library = NvmlStandIn()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    meters, missing = detect_meters(tmp_path)
    counter, power = meters
    assert (counter.name, counter.kind) == ("nvml", "energy counter")
    assert counter.description.startswith("GPU 0 Tesla V100, the whole board")
    assert (power.kind, power.lag_s) == ("power samples", 1.0)
    assert power.read_w() == pytest.approx(21.5)
    before = counter.read_j()
    library.millijoules += 1234
    assert counter.read_j() - before == pytest.approx(1.234)
    assert Unavailable("nvml", "GPU 2 tells neither energy nor power: NVML says: Not Supported.") in missing
    library.nvmlDeviceGetPowerUsage = lambda handle: (_ for _ in ()).throw(library.NVMLError("GPU is lost"))
    with pytest.raises(MeterError, match="NVML says: GPU is lost"):
        power.read_w()


def test_nvml_without_driver_or_gpu(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", NvmlStandIn(driver=False))
    assert why(tmp_path, "nvml") == "NVIDIA's driver cannot be reached: Driver Not Loaded."
    monkeypatch.setitem(sys.modules, "pynvml", NvmlStandIn(count=0))
    assert why(tmp_path, "nvml") == "NVIDIA's driver knows no GPU."


def test_whole_boards_come_before_parts(tmp_path):
    rapl_zone(tmp_path, "intel-rapl:0", "package-0")
    hwmon_monitor(tmp_path, "1-0040", 4, [("VDD_IN", 5064, 1432)])
    assert [meter.name for meter in detect_meters(tmp_path)[0]] == ["ina3221", "rapl"]
    assert find_meter(root=tmp_path).name == "ina3221"
    assert find_meter("rapl", tmp_path).name == "rapl"


def test_it_imports_on_a_board(without):
    code = without("torch", "onnx", "scipy", "pynvml", "rich", "PIL", "sklearn") + (
        "import gascnn.hardware.power as power\nmeters, missing = power.detect_meters()\nassert len(missing) >= 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
