"""Cost curves on tiny networks, pictures, and the machine's description."""

import numpy as np
import pytest

from gascnn.benchmarks import machine, plots, scaling
from gascnn.benchmarks.scaling import Curve, curves, measure
from gascnn.toolkit.errors import UsageError

LINES = (("auto", "auto", 2), ("plain", "plain", 1))


def test_the_curves_of_the_command():
    found = {curve.name: curve for curve in curves(2)}
    assert found["steps"].values[0] == 8
    assert found["steps"].values[-1] == 256
    assert (found["rate"].values[0], found["rate"].values[-1]) == (0.005, 0.5)
    assert ("dense", "dense", 2) in found["rate"].lines
    assert {("auto", "auto", 2), ("auto, one thread", "auto", 1)} <= set(found["width"].lines)


@pytest.mark.parametrize(
    ("name", "values", "neurons"), [("steps", (4.0, 8.0), [128, 128]), ("width", (2.0, 4.0), [128, 256])]
)
def test_a_curve_has_a_median_for_each_value_and_line(name, values, neurons):
    sizes = {"size": 8, "depth": 1, "steps": 4, "width": 2}
    sizes.pop(name)
    found = measure(Curve(name, "title", values, LINES), rounds=3, images=2, at_least_s=0.001, **sizes)
    assert (found["name"], found["title"], found["images_at_once"]) == (name, "title", 2)
    assert [point["value"] for point in found["points"]] == list(values)
    assert [point["neurons"] for point in found["points"]] == neurons
    for point in found["points"]:
        assert [line["label"] for line in point["lines"]] == ["auto", "plain"]
        for line in point["lines"]:
            assert len(line["per_image_s_rounds"]) == 3
            assert line["per_image_s"] == sorted(line["per_image_s_rounds"])[1] > 0


def test_rates_are_measured_not_believed():
    curve = Curve("rate", "rate", (0.05, 0.5), LINES[1:])
    found = measure(curve, rounds=1, images=1, at_least_s=0.001, width=16, size=12, depth=1, steps=16)
    assert [point["firing_rate"] for point in found["points"]] == pytest.approx([0.05, 0.5], rel=0.1)


def test_longer_is_told_from_shorter(monkeypatch):
    """The mean of repeated runs, by a clock that moves on one second a look."""
    now = iter(np.arange(0.0, 100.0))
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: next(now))
    assert scaling._mean_s(lambda: None, 3.0) == 1.0


def test_no_rounds_are_refused():
    with pytest.raises(UsageError, match="rounds is 0; it must be at least 1"):
        measure(curves(1)[0], rounds=0)


def result():
    contender = {"title": "gascnn", "kind": "ours", "per_image_s": 0.01}
    peer = {"title": "sinabs", "kind": "peer", "per_image_s": 0.1}
    line = {"label": "auto", "per_image_s": 0.1, "per_image_s_rounds": [0.1]}
    network = {"name": "convs", "promised_firing_rate": 0.08, "steps": 32, "contenders": [contender, peer]}
    curve = {"title": "T", "points": [{"value": v, "lines": [line]} for v in (8, 16)]}
    return {
        "networks": [network], "scaling": [curve, curve], "machine": {"processor": "abacus"}, "threads": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("b.svg", b"<?xml")])
def test_pictures_are_drawn(tmp_path, name, start):
    path = tmp_path / name
    plots.draw(result(), path)
    content = path.read_bytes()
    assert content.startswith(start)
    assert len(content) > 5000


def test_pictures_that_cannot_be_drawn(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"a.pdf is not a picture this command writes; .* ends in .png or .svg"):
        plots.draw(result(), tmp_path / "a.pdf")
    with pytest.raises(UsageError, match="nothing to draw"):
        plots.draw({**result(), "networks": [], "scaling": []}, tmp_path / "a.png")
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs matplotlib; install it with: pip install 'gascnn\[bench\]'"):
        plots.check_picture(tmp_path / "a.png")


def test_the_machine_says_what_it_is(tmp_path):
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  2.50GHz\n")
    assert machine.processor(information) == "Intel(R) Xeon(R)  2.50GHz"
    information.write_text("processor : 0\nBogoMIPS : 108.00\nModel\t\t: Raspberry Pi 5 Model B\n")
    assert machine.processor(information) == "Raspberry Pi 5 Model B"
    assert machine.processor(tmp_path / "none") == machine.platform.machine()
    facts = machine.describe()
    assert 1 <= facts["cores_used"] <= facts["cores"]
    assert set(facts) == {"processor", "cores", "cores_used", "memory_bytes", "system", "python", "load"}
