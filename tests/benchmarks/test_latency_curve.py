"""Stopping at step t against runs that are cut off there, and figures of the curve against loops."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import gascnn.benchmarks.latency.curve as _module
from gascnn.benchmarks.latency import decision_curve
from gascnn.benchmarks.latency.curve import _DRAWN_AT_ONCE, read_out
from gascnn.hardware.backends import NetxFile, run_images
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode
from gascnn.toolkit.errors import CheckFailed, DataError, UsageError
from gascnn.toolkit.lowering.deployment import Coding, Deployment
from gascnn.toolkit.lowering.limits import THRESHOLD_MAX
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    SigmaDeltaNeuron,
)
from gascnn.toolkit.wilson import wilson_interval

SHAPE, CLASSES, STEPS = (1, 4, 4), ("a", "b", "c"), 9


def neuron(threshold=60, **more):
    return CubaNeuron(np.array(threshold), **more)


def network(kind="zero", *, depth=3, coding="regular", skip=0, steps=STEPS, seed=0):
    """conv -> dense -> dense of random weights; ``kind`` says what is special."""
    rng = np.random.default_rng(seed)

    def own(size):
        return {"self_weight": np.full(size, 60), "bias": np.zeros(size, int)} if kind == "subtract" else {}

    def weights(*shape):
        drawn = rng.normal(0, 25, shape)
        return 2 * np.round(drawn - drawn.reshape(len(drawn), -1).mean(axis=1).reshape(-1, *(1,) * (drawn.ndim - 1)))

    graded = coding == "constant" and kind != "input-neurons"
    inner = neuron(60)
    if kind == "leaky":
        inner = neuron(60, current_decay=np.array(3072), voltage_decay=np.array(512))
    if kind == "subtract":
        inner = neuron(60, current_decay=np.array(0), voltage_decay=np.array(4096))
    conv = ConvLayer((3, 4, 4), weights(3, 1, 3, 3).astype(int), (1, 1), (1, 1), (1, 1), 1, inner, **own(3))
    middle = DenseLayer((8,), weights(8, 48).astype(int), inner, flatten=True, **own(8))
    more = {
        "bias": {"bias": np.array([3, -4, 9])},
        "delays": {"delay": rng.integers(0, 4, (3, 8))},
        "recurrent": {"weight_rec": weights(3, 3).astype(int)},
    }.get(kind, {})
    read = neuron(THRESHOLD_MAX + 1) if kind == "membrane" else inner
    layers = [conv, middle, DenseLayer((3,), weights(3, 8).astype(int), read, **own(3), **more)]
    if depth == 1:
        last = neuron(20000) if graded else inner
        layers = [DenseLayer((3,), weights(3, 16).astype(int), last, flatten=True, **own(3))]
    if kind == "conv-last":
        layers = [conv, ConvLayer((3, 1, 1), weights(3, 3, 4, 4).astype(int), (1, 1), (0, 0), (1, 1), 1, inner)]
    source = InputLayer(SHAPE, neuron(100) if kind == "input-neurons" else None)
    record = Deployment(SHAPE, CLASSES, steps, coding=coding, skip_steps=skip, seed=5)
    reset = "subtract" if kind == "subtract" else "zero"
    bits = 8 if graded else 0
    return NetxNetwork(source, tuple(layers), input_bits=bits, reset=reset, deployment=record)


def sigma_delta(read_out=True):
    rng = np.random.default_rng(3)
    layers = (
        DenseLayer((6,), rng.integers(-60, 61, (6, 16)) * 2, SigmaDeltaNeuron(np.array(2)), flatten=True),
        DenseLayer((3,), rng.integers(-60, 61, (3, 6)) * 2, SigmaDeltaNeuron(np.array(0), read_out=read_out)),
    )
    record = Deployment(SHAPE, CLASSES, 5, coding="constant")
    return NetxNetwork(InputLayer(SHAPE, SigmaDeltaNeuron(np.array(0))), layers, input_bits=8, deployment=record)


def file(net):
    return NetxFile(Path("model.net"), "", net, None)


def pictures(count=12, seed=1):
    """Some pixels of any brightness, the others dark."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, (count, *SHAPE)) * rng.integers(0, 2, (count, *SHAPE))).astype(np.uint8)


LABELS = np.arange(12) % 3
KINDS = {
    "zero": network("zero"),
    "subtract": network("subtract"),
    "leaky": network("leaky"),
    "bias": network("bias"),
    "membrane": network("membrane"),
    "delays": network("delays"),
    "recurrence": network("recurrent"),
    "a convolution at the end": network("conv-last"),
    "one layer": network(depth=1),
    "one layer of graded input": network(depth=1, coding="constant"),
    "input neurons": network("input-neurons", depth=1, coding="constant"),
    "skipped steps": network("zero", skip=3),
    "skipped steps, subtract": network("subtract", skip=2),
    "T = 1": network("zero", steps=1),
    "sigma-delta": sigma_delta(),
}


def cut_off(net, spikes, skip):
    """(image, t) answers of runs whose input ends after t steps, one run each."""
    return np.stack(
        [simulate(net, spikes[:, :t], skip_steps=skip).predictions() for t in range(skip + 1, spikes.shape[1] + 1)], 1
    )


@pytest.mark.parametrize("net", KINDS.values(), ids=KINDS)
def test_stopping_is_running_with_the_input_cut_off(net):
    record = net.deployment
    spikes = encode(pictures(), record.coding, record.steps, seed=record.seed)
    inputs = checked_spikes(net, spikes)
    result = simulate(net, inputs, record="spikes")
    found = read_out(net, inputs, result, record.skip_steps).answers
    np.testing.assert_array_equal(found, cut_off(net, spikes, record.skip_steps))
    np.testing.assert_array_equal(found[:, -1], result.predictions())
    assert len(np.unique(found)) > 1, "a network of one answer tells nothing"


@pytest.mark.parametrize("net", KINDS.values(), ids=KINDS)
def test_accuracy_at_the_end_is_that_of_the_run(net):
    found = decision_curve(file(net), pictures(), LABELS)
    right = int((run_images(file(net), pictures()).predictions() == LABELS).sum())
    last = found["points"][-1]
    assert last["accuracy"]["value"] == right / 12
    assert last["accuracy"]["interval"] == pytest.approx(wilson_interval(right, 12))
    assert last["agreement"]["value"] == 1
    assert [p["step"] for p in found["points"]] == list(range(net.deployment.skip_steps + 1, net.deployment.steps + 1))
    assert all(p["total_steps"] == p["step"] + net.depth for p in found["points"])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("skip", [0, 2])
def test_the_curve_against_loops(skip):
    """Counts step by step from every recorded spike, ties by runs that are cut off, rules image by image."""
    net, images = network("zero", skip=skip), pictures(30, seed=4)
    labels = np.random.default_rng(0).integers(0, 3, 30)
    spikes = encode(images, "regular", STEPS, seed=5)
    output = simulate(net, spikes, record="spikes").spikes[-1]
    answers = cut_off(net, spikes, skip)
    counts = np.array(
        [[output[i, 3 + skip : 3 + t].sum(axis=0) for t in range(skip + 1, STEPS + 1)] for i in range(30)]
    )
    found = decision_curve(file(net), images, labels, margins=(2, 1, 50, 1))
    for place, point in enumerate(found["points"]):
        assert point["accuracy"]["value"] == pytest.approx(np.mean(answers[:, place] == labels))
        assert point["agreement"]["value"] == pytest.approx(np.mean(answers[:, place] == answers[:, -1]))
        assert point["silent"] == pytest.approx(np.mean([c.max() == 0 for c in counts[:, place]]))
        assert point["tied"] == pytest.approx(np.mean([(c == c.max()).sum() > 1 for c in counts[:, place]]))
    assert [rule["margin"] for rule in found["stop_rules"]] == [1, 2, 50]
    for rule in found["stop_rules"]:
        steps, stopped, right, agreeing = [], 0, 0, 0
        for image in range(30):
            for place in range(STEPS - skip):
                first, second = sorted(counts[image, place])[::-1][:2]
                if first - second >= rule["margin"] or place == STEPS - skip - 1:
                    break
            steps.append(skip + 1 + place)
            stopped += place < STEPS - skip - 1
            right += answers[image, place] == labels[image]
            agreeing += answers[image, place] == answers[image, -1]
        assert rule["mean_steps"] == pytest.approx(np.mean(steps))
        assert rule["stopped"] == pytest.approx(stopped / 30)
        assert rule["accuracy"]["value"] == pytest.approx(right / 30)
        assert rule["agreement"]["value"] == pytest.approx(agreeing / 30)
    assert found["stop_rules"][0]["mean_steps"] < found["stop_rules"][1]["mean_steps"]
    assert found["stop_rules"][2] == {**found["stop_rules"][2], "mean_steps": STEPS, "stopped": 0.0}


def passing(steps=8):
    """Four pixels passed on to as many classes, by one layer."""
    layer = DenseLayer((4,), np.eye(4, dtype=int) * 2, neuron(1), flatten=True)
    return NetxNetwork(InputLayer((1, 2, 2)), (layer,), deployment=Deployment((1, 2, 2), tuple("abcd"), steps))


def test_within_a_point_by_hand(monkeypatch):
    """Of 200 images two may be lost: the accuracy falls below that again after it was first reached."""
    right = [100, 198, 197, 199, 198, 200, 200, 200]
    table = np.arange(200)[:, None] < np.array(right)  # (image, t)
    start = iter(itertools.accumulate([0, 1, 64, 64, 64]))

    def made_up(net, inputs, result, skip_steps):
        first = next(start)
        answers = np.where(table[first : first + len(inputs)], 1, 0)
        return _module.ReadOut(answers, np.ones_like(answers), np.ones_like(answers))

    monkeypatch.setattr(_module, "read_out", made_up)
    found = decision_curve(file(passing()), np.zeros((200, 1, 2, 2), np.uint8), np.ones(200, int))
    assert [round(200 * p["accuracy"]["value"]) for p in found["points"]] == right
    assert found["within_a_point"] == {"first": 2, "for_good": 4}


def test_batches_change_nothing(monkeypatch):
    net, images = network("zero", coding="bernoulli"), pictures(30)
    labels, told = np.arange(30) % 3, []
    whole = decision_curve(file(net), images, labels, progress=told.append)
    assert told == [1, 30]
    one_by_one = decision_curve(file(net), images, labels, memory_bytes=1, progress=told.append)
    assert told[2:] == list(range(1, 31))
    assert one_by_one == whole


def test_what_is_held_is_bounded():
    net = passing(steps=9)  # 10 steps of 4 inputs and 4 neurons
    assert _module._images_within(800, net, 9) == 10
    assert _module._images_within(79, net, 9) == 1
    assert _module._images_within(1 << 40, net, 9) == 64


@pytest.mark.parametrize("coding", get_args(Coding))
def test_which_codings_begin_alike_whatever_t_is(coding):
    images = pictures(5)
    alike = all(
        np.array_equal(encode(images, coding, 20, seed=3)[:, :t], encode(images, coding, t, seed=3)) for t in (1, 7, 19)
    )
    assert alike == (coding not in _DRAWN_AT_ONCE)


@pytest.mark.parametrize("coding", ["regular", "bernoulli"])
def test_stopping_is_a_shorter_run_where_it_says_so(coding):
    net, images = network("zero", coding=coding), pictures()
    found = decision_curve(file(net), images, LABELS)
    assert found["equals_shorter_run"]
    for point in found["points"]:
        shorter = run_images(file(net), images, steps=point["step"]).predictions()
        assert point["accuracy"]["value"] == np.mean(shorter == LABELS)


def test_where_it_is_not_it_says_so():
    found = decision_curve(file(network("zero", coding="rate-normal")), pictures(), LABELS)
    assert not found["equals_shorter_run"]
    assert found["notes"] == [
        "coding rate-normal draws other spikes for another T: a run of t steps is not this one stopped at t"
    ]


def test_other_settings_than_the_files():
    net, images = network("zero"), pictures()
    found = decision_curve(file(net), images, LABELS, steps=6, skip_steps=4, seed=9)
    expected = run_images(file(net.with_deployment(replace(net.deployment, skip_steps=4))), images, steps=6, seed=9)
    assert [p["step"] for p in found["points"]] == [5, 6]
    assert found["points"][-1]["accuracy"]["value"] == np.mean(expected.predictions() == LABELS)
    assert (found["steps"], found["skip_steps"]) == (6, 4)
    assert found["notes"] == ["run with T = 6; the network was fitted for T = 9"]


def test_one_step_is_noted():
    found = decision_curve(file(network("zero", steps=1)), pictures(), LABELS)
    assert len(found["points"]) == 1
    assert found["within_a_point"] == {"first": 1, "for_good": 1}
    assert found["stop_rules"][0]["stopped"] == 0
    assert found["notes"] == ["one read-out step: the curve is a single point"]


@pytest.mark.parametrize(("net", "kind"), [(KINDS["membrane"], "membrane"), (KINDS["sigma-delta"], "sigma-delta")])
def test_read_outs_without_counts(net, kind):
    found = decision_curve(file(net), pictures(), LABELS)
    assert (found["readout"], found["stop_rules"]) == (kind, None)
    assert all(p["silent"] == p["tied"] == 1 for p in found["points"])
    assert found["notes"][-1].startswith("the read-out does not count spikes")


def test_a_foreign_file_needs_steps():
    foreign = file(network("zero").with_deployment(None))
    with pytest.raises(UsageError, match="does not say how many steps"):
        decision_curve(foreign, pictures(), LABELS)
    assert decision_curve(foreign, pictures(), LABELS, steps=4)["coding"] == "regular"


def test_a_sigma_delta_network_without_a_read_out():
    with pytest.raises(UsageError, match="ends without a read-out"):
        decision_curve(file(sigma_delta(read_out=False)), pictures(), LABELS)


def test_answers_that_are_not_the_runs_are_refused(monkeypatch):
    right = _module.potentials
    monkeypatch.setattr(_module, "potentials", lambda *given: -right(*given))
    with pytest.raises(CheckFailed, match="the answers read at the last step are not the run's"):
        decision_curve(file(KINDS["membrane"]), pictures(), LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "options", "kind", "message"),
    [
        (pictures(0), LABELS[:0], {}, DataError, "there are no images"),
        (pictures(), LABELS[:5], {}, DataError, r"labels are int64 of shape \(5,\)"),
        (pictures(), LABELS + 1, {}, DataError, "labels are 1 to 3; these networks answer 0 to 2"),
        (pictures()[..., :3], LABELS, {}, DataError, r"images have shape \(1, 4, 3\); this network takes"),
        (pictures(), LABELS, {"steps": 0}, UsageError, "steps is 0"),
        (pictures(), LABELS, {"skip_steps": 9}, UsageError, r"skip_steps is 9; it must be 0\.\.8 for 9 steps"),
        (pictures(), LABELS, {"skip_steps": -1}, UsageError, "skip_steps is -1"),
        (pictures(), LABELS, {"margins": (0, 1)}, UsageError, r"margins are \(0, 1\); each must be at least 1"),
        (pictures(), LABELS, {"memory_bytes": 0}, UsageError, "memory_bytes is 0"),
    ],
)
def test_what_is_refused(images, labels, options, kind, message):
    with pytest.raises(kind, match=message):
        decision_curve(file(network("zero")), images, labels, **options)
