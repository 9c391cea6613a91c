"""The race with contenders whose times are known: what is tuned, paired, compared and left out."""

import functools
import json
import shutil
import sys
from pathlib import Path

import pytest

from gascnn.benchmarks import simulator_speed
from gascnn.benchmarks.child import Child
from gascnn.benchmarks.contenders import CONTENDERS
from gascnn.benchmarks.networks import convs
from gascnn.benchmarks.simulator_speed import Race, race
from gascnn.toolkit.errors import BackendError, UsageError

LAYERS = [{"spikes": 7, "sha256": "aa"}, {"spikes": 9, "sha256": "bb"}]


@pytest.fixture(scope="module")
def bench():
    return convs(0.08, width=4, size=8, depth=2, steps=6, images=4)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Write the contenders' times and have every process answer from them."""
    script = tmp_path / "fake_worker.py"
    shutil.copy(Path(__file__).with_name("fake_worker.py"), script)
    monkeypatch.setattr(simulator_speed, "Child", functools.partial(Child, script=script))
    monkeypatch.setattr(simulator_speed, "_PAUSE_S", 0.0)

    def write(**contenders):
        (tmp_path / "times.json").write_text(json.dumps(contenders))
        return [CONTENDERS[name.replace("_", "-")] for name in contenders]

    return write


SETTINGS = Race(rounds=3, images_at_once=(1, 4, 16), python=Path(sys.executable))


def test_each_contender_is_timed_at_its_best_and_ratios_are_paired(bench, fake):
    there = fake(
        ours={"layers": LAYERS, "seconds": {"plain x 1": [0.02, 0.04, 0.02], "plain x 4": 0.5}},
        lava={"layers": LAYERS, "seconds": {"plain x 1": 12.0}},
        sinabs={
            "layers": LAYERS,
            "options": ["a", "b"],
            "seconds": {"a x 1": 0.3, "b x 1": 0.4, "a x 4": 0.25, "b x 4": 0.1},
        },
        onnxruntime={"layers": [], "seconds": {"plain x 1": 0.08, "plain x 4": 0.09}},
    )
    said = []
    result = race(bench, there, SETTINGS, said.append)
    ours, lava, sinabs, ann = result["contenders"]
    # 16 images are more than there are, and are never asked for.
    assert (sinabs["option"], sinabs["images_at_once"], sinabs["per_image_s"]) == ("b", 4, 0.1)
    assert (sinabs["option_one_image"], sinabs["per_image_s_one_image"]) == ("a", 0.3)
    assert (ours["images_at_once"], ours["per_image_s_rounds"]) == (1, [0.02, 0.04, 0.02])
    assert ours["per_image_s"] == 0.02
    assert lava["per_image_s_rounds"] == [12.0, None, None]
    assert (ours["threads"], ours["peak_bytes"]) == (2, 2 << 20)
    assert [c["equal_spikes"] for c in result["contenders"]] == [True, True, True, None]
    found = {g["what"]: (g["found"], g["reached"]) for g in result["goals"]}
    assert found["times as fast as Lava"] == (pytest.approx(600), True)
    assert found["times as fast as the fastest peer"] == (pytest.approx(5), True)
    assert found["of the ANN's time"] == (pytest.approx(0.25), True)
    assert found["times as fast as one thread"] == (None, None)
    assert said[-1] == "convs: round 3 of 3"
    assert ann["versions"] == {"onnxruntime": "1.2"}
    json.dumps(result, allow_nan=False)


def test_the_network_is_described_with_measured_rates(bench, fake):
    result = race(bench, fake(ours={"layers": LAYERS, "seconds": {"plain x 1": 1.0, "plain x 4": 2.0}}), SETTINGS)
    assert set(result) == {
        "name", "promised_firing_rate", "input_shape", "steps", "images", "layers", "neurons",
        "multiply_accumulates_a_step", "digest", "contenders", "goals", "left_out",
    }  # fmt: skip
    assert (result["neurons"], result["steps"], result["input_shape"]) == (512, 6, [3, 8, 8])
    # 3 x 9 x 4 and 4 x 9 x 4 weights at each of 64 places.
    assert result["multiply_accumulates_a_step"] == (108 + 144) * 64
    assert [layer["firing_rate"] for layer in result["layers"]] == pytest.approx([0.08, 0.08], rel=0.3)


def test_one_spike_more_is_seen(bench, fake):
    other = [LAYERS[0], {"spikes": 10, "sha256": "cc"}]
    seconds = {"plain x 1": 1.0, "plain x 4": 2.0}
    there = fake(ours={"layers": LAYERS, "seconds": seconds}, sinabs={"layers": other, "seconds": seconds})
    assert [c["equal_spikes"] for c in race(bench, there, SETTINGS)["contenders"]] == [True, False]


def test_one_thread_means_one(bench, fake):
    seconds = {"plain x 1": 1.0, "plain x 4": 2.0}
    there = fake(
        ours={"layers": LAYERS, "seconds": {"plain x 1": 0.5, "plain x 4": 2.0}},
        **{"ours-1-thread": {"layers": LAYERS, "seconds": seconds}},
    )
    result = race(bench, there, SETTINGS)
    assert [c["threads"] for c in result["contenders"]] == [2, 1]
    assert result["goals"][-1]["found"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        ("start", "sinabs: ImportError: no such module"),
        ("time", "sinabs: its process ended with status 3 (MemoryError: too much)"),
    ],
)
def test_a_peer_that_fails_is_left_out_with_the_reason(bench, fake, fails, why):
    seconds = {"plain x 1": 1.0, "plain x 4": 2.0}
    there = fake(
        ours={"layers": LAYERS, "seconds": seconds},
        sinabs={"layers": LAYERS, "seconds": seconds, "fails": fails},
    )
    result = race(bench, there, SETTINGS)
    assert [c["name"] for c in result["contenders"]] == ["ours"]
    assert result["left_out"] == [{"name": "sinabs", "why": why}]


def test_no_race_without_ours(bench, fake):
    there = fake(ours={"layers": LAYERS, "seconds": {}, "fails": "time"})
    with pytest.raises(BackendError, match="ours: its process ended with status 3"):
        race(bench, there, SETTINGS)
    with pytest.raises(UsageError, match="every race needs 'ours'"):
        race(bench, [CONTENDERS["sinabs"]], SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Race(rounds=0), "rounds is 0; it must be at least 1"),
        (Race(threads=0), "threads is 0"),
        (Race(lava_rounds=0), "lava_rounds is 0"),
        (Race(at_least_s=0.0), "at_least_s is 0.0; it must be above 0"),
        (Race(images_at_once=(4, 0)), r"images at once are \(4, 0\); each must be at least 1"),
    ],
)
def test_settings_that_make_no_race(bench, settings, message):
    with pytest.raises(UsageError, match=message):
        race(bench, [CONTENDERS["ours"]], settings)
