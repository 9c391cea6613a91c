"""A sweep over networks whose answers are known: figures, the recommended T, points that fail, runs that go on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from gascnn.benchmarks.sweep import Reference, recommend, sweep
from gascnn.benchmarks.sweep_plot import draw_sweep
from gascnn.benchmarks.sweep_point import PointFolder
from gascnn.benchmarks.sweep_settings import Settings, Skip
from gascnn.benchmarks.threshold_factor import scale_network
from gascnn.toolkit.errors import FormatError, LimitError, UsageError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork

CLASSES = 4


@dataclass(frozen=True)
class Part:
    images: np.ndarray
    labels: np.ndarray


def part(seed, count=40):
    """One bright pixel of four names the class; one image in five is labelled wrong."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, CLASSES, count)
    images = np.full((count, 1, 2, 2), 20, dtype=np.uint8)
    images.reshape(count, 4)[np.arange(count), shown] = 250
    return Part(images, np.where(np.arange(count) % 5, shown, (shown + 1) % CLASSES))


PARTS = {"val": part(0), "test": part(1, 30)}


def network(steps, coding="regular"):
    """A hidden layer that passes pixels on, and a read-out of as many neurons; all weights 2, one each."""
    identity = np.eye(4, dtype=int) * 2
    layers = (
        DenseLayer((4,), identity, CubaNeuron(np.array(1)), flatten=False),
        DenseLayer((4,), identity, CubaNeuron(np.array(1))),
    )
    record = Deployment((1, 2, 2), tuple("abcd"), steps, coding=coding)
    return NetxNetwork(InputLayer((1, 2, 2)), layers, deployment=record)


class Source:
    """Counts how often it is asked; refuses T = 3."""

    def __init__(self):
        self.asked = []

    def network(self, steps, factor):
        self.asked.append((steps, factor))
        if steps == 3:
            raise LimitError("three is too many; use two")
        return scale_network(network(steps), factor)


def test_figures_of_networks_that_pass_pixels_on():
    found = sweep(Source(), PARTS, Settings(steps=(8, 4)))
    assert [(p["steps"], p["factor"]) for p in found["points"]] == [(4, 1.0), (8, 1.0)]
    for point in found["points"]:
        assert point["test"]["accuracy"]["value"] == pytest.approx(0.8)  # every fifth label is wrong
        low, high = point["test"]["accuracy"]["interval"]
        assert low < 0.8 < high
        assert point["total_steps"] == point["steps"] + 2
        assert point["latency_s"] > 0
        assert point["test"]["wraps"] == 0
        assert "predictions" not in point["test"]
    last = found["points"][-1]["test"]
    # A hidden neuron answers each spike of its pixel, the read-out's each of the hidden one's: two synapses a spike.
    spikes = last["counts"]["operations_by_source"]
    assert spikes["input"] == spikes["population"]
    assert 7 <= spikes["input"] <= 8 + 3 * 8 * 20 / 255 + 3
    assert found["ann"] is None
    assert last["paper_energy"]["ann_macs"] == 8
    assert found["recommended"]["steps"] == 4


def test_the_ann_is_compared_on_the_same_images():
    shown = {name: p.images.reshape(len(p.images), 4).argmax(axis=1) for name, p in PARTS.items()}
    worse = {name: np.where(np.arange(len(v)) < 4, (v + 2) % CLASSES, v) for name, v in shown.items()}
    found = sweep(Source(), PARTS, Settings(steps=(8,), against="ann"), reference=Reference(worse, 1000))
    point = found["points"][0]
    right = np.mean(worse["test"] == PARTS["test"].labels)
    assert found["ann"]["test"]["accuracy"]["value"] == pytest.approx(right)
    assert point["test"]["accuracy_below"]["value"] == pytest.approx(right - 0.8)
    assert point["test"]["paper_energy"]["ann_macs"] == 1000


def test_higher_thresholds_fire_less():
    found = sweep(Source(), PARTS, Settings(steps=(16,), factors=(4.0, 1.0)))
    assert [p["factor"] for p in found["points"]] == [1.0, 4.0]
    operations = [p["test"]["counts"]["operations_by_source"]["population"] for p in found["points"]]
    # Threshold 4 with weights of 2: every third spike fires. Bright pixels send 15 or 16, dark ones 1 or 2.
    assert operations[1] == 5
    assert 15 + 3 <= operations[0] <= 16 + 6


def test_a_point_that_cannot_be_is_told_and_the_sweep_goes_on():
    found = sweep(Source(), PARTS, Settings(steps=(2, 3, 4)))
    assert found["points"][1] == {"steps": 3, "factor": 1.0, "error": "three is too many; use two"}
    assert [("error" in p) for p in found["points"]] == [False, True, False]


# --- going on --------------------------------------------------------------------------------------------------------

DESCRIPTION = {"options": {"reset": "zero"}, "model": {"sha256": "a"}, "dataset": {"val": "b"}}


def test_points_are_kept_and_not_measured_again(tmp_path):
    source = Source()
    first = sweep(source, PARTS, Settings(steps=(2, 3)), folder=PointFolder(tmp_path / "run", DESCRIPTION, False))
    assert source.asked == [(2, 1.0), (3, 1.0)]
    again = sweep(source, PARTS, Settings(steps=(2, 3, 4)), folder=PointFolder(tmp_path / "run", DESCRIPTION, True))
    assert source.asked[2:] == [(3, 1.0), (4, 1.0)]  # what failed is tried again
    assert again["points"][0] == first["points"][0]


def test_an_interrupted_sweep_keeps_what_it_has(tmp_path):
    def stop(point):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(Source(), PARTS, Settings(steps=(2, 4)), folder=PointFolder(tmp_path, DESCRIPTION, False), done=stop)
    source = Source()
    sweep(source, PARTS, Settings(steps=(2, 4)), folder=PointFolder(tmp_path, DESCRIPTION, True))
    assert source.asked == [(4, 1.0)]


def test_another_runs_folder_is_refused(tmp_path):
    PointFolder(tmp_path, DESCRIPTION, False)
    with pytest.raises(UsageError, match="holds a run; resume it"):
        PointFolder(tmp_path, DESCRIPTION, False)
    with pytest.raises(UsageError, match=r'begun with reset "zero", now it is "subtract"'):
        PointFolder(tmp_path, {**DESCRIPTION, "options": {"reset": "subtract"}}, True)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "point": {}, "val": {}, "test": {}}'])
def test_damaged_points(tmp_path, text):
    folder = PointFolder(tmp_path, DESCRIPTION, False)
    sweep(Source(), PARTS, Settings(steps=(2,)), folder=folder)
    (tmp_path / "point-t2-f1.0.json").write_text(text)
    with pytest.raises(FormatError, match=r"point-t2-f1\.0\.json: not a point of this version .*; delete it"):
        folder.load(2, 1.0)


# --- the rule --------------------------------------------------------------------------------------------------------


def made_up(steps, val_f1, operations=100.0, factor=1.0, test_f1=0.0):
    figures = {"counts": {"synaptic_operations": operations}}
    return {
        "steps": steps,
        "factor": factor,
        "network_digest": "",
        "val": {"macro_f1": {"value": val_f1}, **figures},
        "test": {"macro_f1": {"value": test_f1}, **figures},
    }


POINTS = [made_up(4, 0.90), made_up(8, 0.955, test_f1=0.1), made_up(16, 0.96, test_f1=0.99), made_up(32, 0.95)]


@pytest.mark.parametrize(("tolerance", "steps"), [(0.0, 16), (0.005, 8), (0.01, 8), (0.06, 4)])
def test_the_smallest_t_within_the_tolerance_of_the_best_on_validation_images(tolerance, steps):
    assert recommend(POINTS, Settings(steps=(1,), tolerance=tolerance), None)["steps"] == steps


def test_against_the_ann_and_when_nothing_reaches_it():
    settings = Settings(steps=(1,), tolerance=0.01, against="ann")
    ann = {"val": {"macro_f1": {"value": 0.968}}}
    assert recommend(POINTS, settings, ann)["steps"] == 16
    ann = {"val": {"macro_f1": {"value": 0.99}}}
    found = recommend(POINTS, settings, ann)
    assert found["steps"] is None
    assert found["why"] == (
        "no point reaches macro-F1 0.9800 on the validation images; the best has 0.9600; try a larger T"
    )
    assert recommend([{"steps": 1, "error": "x"}], settings, ann)["why"] == "no point could be measured"


def test_of_equal_t_the_fewest_operations():
    points = [made_up(8, 0.95, 300), made_up(8, 0.945, 200, factor=1.2), made_up(8, 0.90, 100, factor=1.5)]
    assert recommend(points, Settings(steps=(8,)), None)["factor"] == 1.2


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "at_10"), [("0", 0), ("4", 4), ("25%", 2), ("0%", 0), ("99.9%", 9)])
def test_skipped_steps(text, at_10):
    assert Skip.parse(text).of(10) == at_10


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "100%", "-5%", "%", "nan%"])
def test_skips_that_are_none(text):
    with pytest.raises(UsageError, match="--skip-steps is"):
        Skip.parse(text)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"steps": ()}, r"--steps are \(\); each must be 1..1000"),
        ({"steps": (0, 4)}, "each must be 1..1000"),
        ({"steps": (1_001,)}, "each must be 1..1000"),
        ({"factors": ()}, "--factors names none"),
        ({"factors": (0.0,)}, "threshold factor is 0"),
        ({"tolerance": -0.1}, "--tolerance is -0.1; it is a macro-F1"),
        ({"tolerance": float("nan")}, "--tolerance is nan"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"skip": Skip(4)}, "--skip-steps 4 leaves nothing of T = 4"),
    ],
)
def test_settings_out_of_range(changes, match):
    with pytest.raises(UsageError, match=match):
        replace(Settings(steps=(4,)), **changes).checked()


def test_a_target_that_is_not_there():
    with pytest.raises(UsageError, match="but there is no ANN; name its bundle"):
        sweep(Source(), PARTS, Settings(steps=(4,), against="ann"))


# --- the picture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_picture(tmp_path, suffix):
    shown = {name: p.labels for name, p in PARTS.items()}
    found = sweep(Source(), PARTS, Settings(steps=(2, 4), factors=(1.0, 2.0)), reference=Reference(shown, 8))
    draw_sweep(json.loads(json.dumps(found)), tmp_path / f"a.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


def test_nothing_to_draw(tmp_path):
    with pytest.raises(UsageError, match="no point could be measured"):
        draw_sweep({"points": [{"steps": 3, "error": "x"}]}, tmp_path / "a.svg")
