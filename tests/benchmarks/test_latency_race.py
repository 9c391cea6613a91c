"""The race with contenders whose times are known, on a clock that only they move."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest

from gascnn.benchmarks.latency import Contender, Timed, Unavailable, race
from gascnn.benchmarks.latency.racer import Racer
from gascnn.benchmarks.latency.result import load_notes
from gascnn.toolkit.errors import BackendError, DataError, UsageError

RACE_MODULE = sys.modules["gascnn.benchmarks.latency.race"]  # the function hides the module of its name
IMAGES = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
LABELS = np.arange(40) % 4


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(RACE_MODULE, "_PAUSE_S", 0.0)


class Clock:
    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def contender(self, name, seconds, *, answer=lambda pixels: pixels % 4, kind="snn", **more):
        """``seconds``: of a call, by the number of images and of the call."""
        number = 0

        def run(images):
            nonlocal number
            number += 1
            self.now += seconds(len(images), number) if callable(seconds) else seconds
            self.calls.append((name, len(images)))
            return answer(images.reshape(len(images)).astype(np.int64))

        return Contender(name, name.upper(), run, kind=kind, **more)


@pytest.fixture
def clock():
    return Clock()


def by_name(found):
    return {one["name"]: one for one in found["contenders"]}


def test_a_slow_contender_comes_out_slower(clock):
    fast, slow = clock.contender("fast", 0.001, kind="ann", classes=tuple("abcd")), clock.contender("slow", 0.003)
    found = race([slow, fast], IMAGES, labels=LABELS, rounds=10, calls=10, limit_s=10.0, clock=clock)
    assert found["baseline"] == "fast"
    one = by_name(found)
    assert one["fast"]["p50_s"] == {"value": pytest.approx(0.001), "interval": pytest.approx([0.001, 0.001])}
    assert one["slow"]["p99_s"]["value"] == pytest.approx(0.003)
    ratio = one["slow"]["p50_ratio"]
    assert ratio["value"] == pytest.approx(3.0)
    assert (ratio["rounds"], ratio["within_rounds"]) == (10, True)
    assert one["fast"]["p50_ratio"] is None
    assert [one[name]["samples"] for name in ("fast", "slow")] == [100, 100]
    assert one["slow"]["throughput_per_s"][0]["value"] == pytest.approx(1 / 0.003)
    assert found["rounds"] == 10
    json.dumps(found, allow_nan=False)


def test_the_wall_clock_sees_what_sleeps():
    def sleeper(name, seconds, kind):
        def run(images):
            time.sleep(seconds)
            return np.zeros(len(images), np.int64)

        return Contender(name, name, run, kind=kind)

    found = by_name(race([sleeper("ann", 0.001, "ann"), sleeper("snn", 0.01, "snn")], IMAGES, rounds=5, calls=3))
    assert 0.01 <= found["snn"]["p50_s"]["value"] < 0.1
    assert found["snn"]["p50_ratio"]["interval"][0] > 1.5


def test_turns_move_on_and_images_are_shared(clock):
    seen = {}

    def remember(name):
        return lambda pixels: seen.setdefault(name, []).append(pixels.tolist()) or pixels

    three = [clock.contender(name, 0.001, answer=remember(name)) for name in "abc"]
    race(three, IMAGES, rounds=4, calls=2, warmup=1, limit_s=100.0, clock=clock)
    singles = [name for name, images in clock.calls if images == 1]
    # One call to warm up each; in a round one untimed and two timed.
    assert singles[:3] == list("abc")
    turns = [singles[3 + 3 * i] for i in range(12)]
    assert turns == [*"abc", *"bca", *"cab", *"abc"]
    assert seen["a"] == seen["b"] == seen["c"]
    assert seen["a"][2:8] == [[0], [0], [1], [2], [2], [3]]  # behind the warm-up and the answers to all


def test_percentiles_of_a_mixture(clock):
    """Nine calls of ten take 1 ms, the tenth 50 ms."""
    mixed = clock.contender("mixed", lambda images, call: 0.05 if call % 10 == 0 else 0.001)
    one = by_name(race([mixed], IMAGES, rounds=20, calls=10, limit_s=1e3, clock=clock))["mixed"]
    samples = np.array([second for calls in one["single_s_rounds"] for second in calls])
    assert len(samples) == one["samples"] == 200
    for name, percent in (("p50_s", 50), ("p95_s", 95), ("p99_s", 99)):
        assert one[name]["value"] == pytest.approx(np.percentile(samples, percent))
    assert one["p50_s"]["value"] == pytest.approx(0.001)
    assert one["p99_s"]["value"] == pytest.approx(0.05)


def test_too_few_samples_are_noted(clock):
    one = by_name(race([clock.contender("a", 0.001)], IMAGES, rounds=3, calls=6, clock=clock))["a"]
    assert (one["p95_s"], one["p99_s"]) == (None, None)
    assert one["notes"] == [
        "no p95 below 20 samples",
        "no p99 below 100 samples",
        "no intervals of times below 5 rounds",
    ]


# --- the limit -------------------------------------------------------------------------------------------------------


def test_the_limit_is_shared_and_a_slow_one_gives_fewer_samples(clock):
    quick, slow = clock.contender("quick", 0.001, kind="ann"), clock.contender("slow", 0.2)
    found = race([quick, slow], IMAGES, rounds=20, calls=10, limit_s=4.0, clock=clock)
    one = by_name(found)
    assert one["quick"]["samples"] == 200
    # A turn is 0.1 s, an untimed and a timed call 0.4: every fourth round.
    assert one["slow"]["rounds"] == one["slow"]["samples"] == 5
    assert one["slow"]["p50_ratio"]["rounds"] == 5
    assert one["slow"]["p50_ratio"]["value"] == pytest.approx(200)
    assert (found["rounds"], found["seconds"] <= 4.5) == (20, True)


def test_rounds_end_at_the_limit(clock):
    found = race([clock.contender("a", 3.0)], IMAGES, rounds=20, limit_s=5.0, clock=clock)
    assert found["rounds"] == 1
    assert "stopped after 1 of 20 rounds, at the limit of 5 s" in found["notes"]
    assert found["contenders"][0]["samples"] == 1


def test_a_long_warm_up_is_cut(clock):
    race([clock.contender("a", 3.0)], IMAGES, rounds=1, calls=1, warmup=50, limit_s=60.0, clock=clock)
    assert [images for _, images in clock.calls] == [1, 1, 40, 1, 1]


def test_the_first_call_is_told_apart(clock):
    slow_start = clock.contender("a", lambda images, call: 7.0 if call == 1 else 0.001)
    one = by_name(race([slow_start], IMAGES, rounds=5, limit_s=100.0, clock=clock))["a"]
    assert one["first_call_s"] == pytest.approx(7.0)
    assert one["p50_s"]["value"] == pytest.approx(0.001)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_throughput_of_batches(clock):
    one = clock.contender("a", lambda images, call: 0.001 + 0.0001 * images)
    found = by_name(race([one], IMAGES, rounds=6, calls=5, batch_sizes=(32, 1, 8, 64), clock=clock))["a"]
    assert [entry["batch_size"] for entry in found["throughput_per_s"]] == [1, 8, 32]
    for entry, samples in zip(found["throughput_per_s"], (30, 6, 6), strict=True):
        size = entry["batch_size"]
        assert entry["value"] == pytest.approx(size / (0.001 + 0.0001 * size))
        assert entry["samples"] == samples
    assert "batches of 64 were left out: there are 40 images" in found["notes"]


def test_a_batch_that_would_take_too_long_is_left_out(clock):
    found = by_name(race([clock.contender("a", 1.0)], IMAGES, rounds=2, calls=1, batch_sizes=(1, 32), limit_s=20.0,
                         clock=clock))["a"]  # fmt: skip
    assert [entry["batch_size"] for entry in found["throughput_per_s"]] == [1]
    assert "batches of 32 were left out: one may take 32 s" in found["notes"]
    assert ("a", 32) not in clock.calls


def test_slow_batches_sit_rounds_out(clock):
    batches = clock.contender("a", lambda images, call: 0.5 if images == 8 else 0.0001)
    found = by_name(race([batches], IMAGES, rounds=10, calls=1, batch_sizes=(8,), limit_s=2.0, clock=clock))["a"]
    assert found["throughput_per_s"][1]["samples"] == 2  # a share is 0.1 s: rounds 1 and 6


# --- answers ---------------------------------------------------------------------------------------------------------


def test_accuracy_and_agreement(clock):
    ann = clock.contender("ann", 0.001, answer=lambda p: np.where(p < 4, (p + 1) % 4, p % 4), kind="ann")
    snn = clock.contender("snn", 0.001, answer=lambda p: np.where(p < 10, (p + 1) % 4, p % 4))
    one = by_name(race([ann, snn], IMAGES, labels=LABELS, rounds=1, clock=clock))
    assert one["ann"]["accuracy"]["value"] == pytest.approx(36 / 40)
    assert one["snn"]["accuracy"]["value"] == pytest.approx(30 / 40)
    assert one["snn"]["agreement"]["value"] == pytest.approx(34 / 40)
    low, high = one["snn"]["agreement"]["interval"]
    assert 0.7 < low < 0.85 < high < 0.95
    assert one["ann"]["agreement"] is None


def test_without_labels_there_is_no_accuracy(clock):
    found = race([clock.contender("a", 0.001)], IMAGES, rounds=1, clock=clock)
    assert (found["labelled"], found["contenders"][0]["accuracy"]) == (False, None)
    assert "no ratios to the ANN: no ANN can run" in found["notes"]


# --- those with a clock of their own, and those that cannot run -------------------------------------------------------


def clocked(timed, **more):
    return Contender("lava", "Lava", lambda images: timed(images).classes, kind="snn", own_clock=timed, **more)


def test_a_start_is_told_apart_from_the_images(clock):
    given = []

    def timed(images):
        given.append(len(images))
        return Timed(np.array([0, 1, 3]), (0.5, 0.25, 0.75), 21.5, "process models: fast")

    found = race([clock.contender("ann", 0.05, kind="ann"), clocked(timed, most_images=3)], IMAGES, labels=LABELS,
                 rounds=5, clock=clock)  # fmt: skip
    lava = by_name(found)["lava"]
    assert given == [3]
    assert lava["cold"] == {"wall_s": 21.5, "start_s": 20.0, "images": 3}
    assert lava["p50_s"] == {"value": 0.5, "interval": None}
    assert lava["p50_ratio"] == {"value": pytest.approx(10), "interval": None, "rounds": 0, "within_rounds": False}
    assert (lava["accuracy"]["value"], lava["accuracy"]["images"]) == (pytest.approx(2 / 3), 3)
    assert (lava["agreement"]["value"], lava["agreement"]["images"]) == (pytest.approx(2 / 3), 3)
    assert lava["notes"][0] == "process models: fast"
    json.dumps(found, allow_nan=False)


def test_a_backend_that_tells_only_the_whole(clock):
    found = race([clocked(lambda images: Timed(np.zeros(2, int), (), 9.0), most_images=2)], IMAGES, clock=clock)
    (lava,) = found["contenders"]
    assert lava["cold"] == {"wall_s": 9.0, "start_s": None, "images": 2}
    assert (lava["p50_s"], lava["samples"], lava["throughput_per_s"]) == (None, 0, [])
    assert lava["notes"] == ["no time of single images: this backend tells only the whole"]
    assert found["rounds"] == 0


def test_who_cannot_run_is_named(clock):
    absent = Unavailable("loihi", "Loihi 2", "no extension; ask Intel")
    found = race([clock.contender("a", 0.001, kind="ann"), absent], IMAGES, rounds=1, clock=clock)
    assert found["left_out"] == [{"name": "loihi", "title": "Loihi 2", "reason": "no extension; ask Intel"}]
    with pytest.raises(BackendError, match=r"no contender can run \(loihi: no extension; ask Intel\)"):
        race([absent], IMAGES)
    with pytest.raises(BackendError, match="none was given"):
        race([], IMAGES)


def test_a_baseline_that_cannot_run_leaves_no_ratios(clock):
    absent = Unavailable("torch", "ANN", "not installed")
    found = race([clock.contender("a", 0.001), absent], IMAGES, rounds=1, baseline="torch", clock=clock)
    assert found["baseline"] is None
    assert "no ratios to the ANN: torch cannot run" in found["notes"]


def test_what_is_told_of_the_load():
    one = [Racer(Contender("a", "A", len, threads=2), time.perf_counter)]
    assert load_notes(0.1, 2.2, one) == []
    assert "load average 3.0 before the race" in load_notes(3.0, 2.2, one)[0]
    assert "load average 4.0 after the race, 2 of it ours" in load_notes(0.1, 4.0, one)[0]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def breaks(at, error):
    def seconds(images, call):
        if call == at:
            raise error
        return 0.001

    return seconds


@pytest.mark.parametrize(
    ("at", "error", "kind", "message"),
    [
        (1, ValueError("broke\nin many lines"), BackendError, r"^bad failed in its warm-up \(ValueError: broke\); "),
        (4, RuntimeError(), BackendError, r"^bad failed on all images \(RuntimeError: RuntimeError\); "),
        (18, MemoryError("too much"), BackendError, r"^bad failed in round 2 \(MemoryError: too much\); leave it out"),
        (18, DataError("a pixel is 7"), DataError, "^bad failed in round 2: a pixel is 7$"),
    ],
)
def test_a_contender_that_raises_ends_the_race_with_its_name(clock, at, error, kind, message):
    with pytest.raises(kind, match=message) as raised:
        race([clock.contender("good", 0.001), clock.contender("bad", breaks(at, error))], IMAGES, rounds=4, calls=10,
             warmup=3, clock=clock)  # fmt: skip
    assert "\n" not in str(raised.value)


def test_a_start_that_fails_ends_the_race_ahead_of_the_rounds(clock):
    def fails(images):
        raise BackendError("its worker died")

    with pytest.raises(BackendError, match=r"^lava failed in its one start: its worker died$"):
        race([clock.contender("a", 0.001), clocked(fails)], IMAGES, rounds=3, calls=1, warmup=1, clock=clock)
    assert clock.calls == [("a", 1), ("a", 40)]


@pytest.mark.parametrize("answer", [lambda p: p[:, None], lambda p: p / 2, lambda p: np.int64(3)])
def test_answers_that_are_no_classes_are_refused(clock, answer):
    with pytest.raises(BackendError, match=r"^a gave .* for 1 images; one class each is needed"):
        race([clock.contender("a", 0.001, answer=answer)], IMAGES, clock=clock)


def test_an_interruption_is_not_held_up(clock):
    with pytest.raises(KeyboardInterrupt):
        race([clock.contender("a", breaks(6, KeyboardInterrupt()))], IMAGES, clock=clock)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:0], None, "there are no images to measure with"),
        (IMAGES[:0], LABELS[:0], "there are no images to measure with"),
        (IMAGES.astype(float), None, "images are float64 of shape"),
        (IMAGES[0], None, r"uint8 \(image, C, H, W\) is needed"),
        (IMAGES, LABELS[:7], r"labels are int64 of shape \(7,\); one whole number for each of 40 images"),
        (IMAGES, LABELS / 2, "labels are float64"),
        (IMAGES, LABELS + 1, "labels are 1 to 4; these networks answer 0 to 3"),
        (IMAGES, LABELS - 1, "labels are -1 to 2"),
    ],
)
def test_images_and_labels_nothing_can_be_measured_on(clock, images, labels, message):
    with pytest.raises(DataError, match=message):
        race([clock.contender("a", 0.001, classes=tuple("abcd"))], images, labels=labels, clock=clock)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds is 0; it must be at least 1"),
        ({"calls": 0}, "calls is 0"),
        ({"warmup": 0}, "warmup is 0"),
        ({"batch_sizes": ()}, r"batch sizes are \(\)"),
        ({"batch_sizes": (0, 4)}, r"batch sizes are \(0, 4\)"),
        ({"limit_s": 0.0}, "the limit is 0.0 seconds"),
        ({"baseline": "c"}, "the baseline 'c' is not among the contenders; give one of a, b"),
    ],
)
def test_settings_that_make_no_race(clock, settings, message):
    with pytest.raises(UsageError, match=message):
        race([clock.contender("a", 0.001), clock.contender("b", 0.001)], IMAGES, clock=clock, **settings)


def test_contenders_that_cannot_be_compared(clock):
    with pytest.raises(UsageError, match="two contenders are called a"):
        race([clock.contender("a", 0.001), Unavailable("a", "A", "gone")], IMAGES, clock=clock)
    with pytest.raises(UsageError, match=r"^b answers y, x, but a x, y; compare networks of the same classes"):
        race([clock.contender("a", 0.001, classes=("x", "y")), clock.contender("c", 0.001),
              clock.contender("b", 0.001, classes=("y", "x"))], IMAGES, clock=clock)  # fmt: skip
