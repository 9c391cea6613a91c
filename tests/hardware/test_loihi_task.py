"""What goes to the chip and what comes back, without Lava: a worker that writes what the simulator answers."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest

from gascnn.exporters.netx import write_netx
from gascnn.hardware import loihi
from gascnn.hardware.backends import open_netx, run_batches, run_spikes
from gascnn.hardware.loihi.profile import chip_profile
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import BackendError, DataError, LimitError, UsageError
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork, SigmaDeltaNeuron

SAYS = {"python_version": "3.10.13", "lava_nc": "0.10.0", "lava_dl": "0.6.0"}
SPIKES = (np.random.default_rng(1).random((3, 8, 3)) < 0.5).astype(np.uint8)


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """An interpreter that says it has Lava and the extension."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps({**SAYS, 'loihi': True})}'\n")
    python.chmod(0o755)
    monkeypatch.setenv("GASCNN_LAVA_PYTHON", str(python))


class Worker:
    """Stands in for the supervised worker.

    Args:
        network: what is run.
        late: steps by which the output comes late.
    """

    def __init__(self, network, late=0, profile=None, flip=None):
        self.network, self.late, self.profile, self.flip, self.job, self.limits = (
            network,
            late,
            profile,
            flip,
            None,
            None,
        )

    def __call__(self, environment, folder, limits, progress):
        self.job, self.limits = json.loads((folder / "job.json").read_text())["runs"][0], limits
        self.bytes = (folder / self.job["network"]).read_bytes()
        values = np.load(folder / self.job["input"])
        self.input = np.unpackbits(values, axis=-1, count=3) if self.job["packed"] else values
        answer = simulate(self.network, self.input, record="spikes")
        for index in self.job["loihi"]["read"]:
            sent, layer = answer.spikes[index].copy(), self.job["layers"][index]
            if index == self.network.depth - 1:
                sent = np.concatenate([np.zeros_like(sent[:, : self.late]), sent], axis=1)[:, : sent.shape[1]]
                if self.flip is not None:
                    sent[self.flip] ^= True
            flat = sent.reshape(*sent.shape[:2], -1)
            data = flat.sum(axis=1, dtype=np.int32) if layer["counts"] else np.packbits(flat, axis=-1)
            (folder / layer["output"]).write_bytes(data.tobytes())
            progress()
        np.save(folder / self.job["membrane"], answer.output_membrane)
        report = {"start_s": 1.0, "image_s": [0.5] * len(values), "host": "here", "profile": self.profile}
        (folder / self.job["report"]).write_text(json.dumps(report))
        if self.job["loihi"]["profile"] is not None:
            self.profile_input = np.load(folder / self.job["loihi"]["profile"]["input"])
            before = progress()
            (folder / self.job["loihi"]["profile"]["output"]).write_bytes(bytes(5))
            self.profile_steps_seen = progress() - before


@pytest.fixture
def works(monkeypatch):
    """Puts a worker in the place of Lava's."""

    def put(network, **options):
        worker = Worker(network, **options)
        monkeypatch.setattr(importlib.import_module("gascnn.hardware.loihi.run"), "supervise", worker)
        return worker

    return put


def dense(**changes):
    neuron = CubaNeuron(np.array(6), voltage_decay=np.array(100))
    weight = np.array([[4, 2, 0], [-2, 6, 2], [0, 4, 8]])
    return DenseLayer((3,), weight, neuron, **changes)


def network(**changes):
    return NetxNetwork(InputLayer((3,)), (dense(), dense()), **changes)


def test_backend_loihi_is_the_chip(works, tmp_path):
    write_netx(network(), tmp_path / "a.net")
    worker = works(network())

    found = run_spikes(open_netx(tmp_path / "a.net"), SPIKES, backend="loihi", record="spikes")

    expected = simulate(network(), SPIKES, record="spikes")
    assert expected.output_counts.any()
    for ours, theirs in zip(found.spikes + found.counts, expected.spikes + expected.counts, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found.output_counts, expected.output_counts)
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)
    np.testing.assert_array_equal(found.predictions(), expected.predictions())
    assert worker.bytes == (tmp_path / "a.net").read_bytes()
    assert (worker.job["models"], worker.job["loader"], worker.job["continuous"]) == ("loihi", "stock", True)
    assert worker.job["loihi"] == {"conv_input": False, "read": [0, 1], "profile": None}
    assert (found.host, found.start_s, found.image_s) == ("here", 1.0, (0.5, 0.5, 0.5))
    assert worker.limits.inactivity_s == 1800


def test_counts_and_batches(works, tmp_path):
    write_netx(network(), tmp_path / "a.net")
    works(network())
    batches = list(run_batches(open_netx(tmp_path / "a.net"), spikes=SPIKES, backend="loihi", batch_size=1))

    expected = simulate(network(), SPIKES)
    assert len(batches) == 1
    assert batches[0].spikes is None
    for ours, theirs in zip(batches[0].counts, expected.counts, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_output_alone(works):
    told = []
    worker = works(network())
    found = loihi.run(network(), SPIKES, steps=5, skip_steps=1, progress=told.append)

    expected = simulate(network(), SPIKES, steps=5, skip_steps=1, record="spikes")
    assert worker.job["loihi"]["read"] == [1]
    assert len(found.counts) == len(found.spikes) == 1
    np.testing.assert_array_equal(found.spikes[0], expected.spikes[1])
    np.testing.assert_array_equal(found.output_counts, expected.output_counts)
    assert told[-1] == 3.0


def test_an_answer_that_comes_late(works):
    works(network(), late=2)
    with pytest.raises(
        BackendError, match=r"the output spikes of image 0 come 2 steps later than the simulator's; run"
    ):
        loihi.run(network(), SPIKES)

    found = loihi.run(network(), SPIKES, check=False)
    assert found.deviation == "the output spikes of image 0 come 2 steps later than the simulator's"


def test_an_answer_that_differs(works):
    works(network(), flip=(0, 4, 2))
    expected = "1 output spikes of image 0 differ from the simulator's, the first in step 4 at neuron 2"
    with pytest.raises(BackendError, match=f"the chip's answer is not the network's: {expected}; run with check=False"):
        loihi.run(network(), SPIKES)
    assert loihi.run(network(), SPIKES, check=False).deviation == expected


MEASURED = {
    "steps": 40,
    "partition": None,
    "time_per_step_us": [40.0, 60.0],
    "mean_time_per_step_us": [50.0],
    "total_power_w": [1.0, 2.0],
    "vdd_power_w": [0.5],
    "vddm_power_w": [0.75],
    "vddio_power_w": [0.25],
    "static_total_power_w": [1.25],
    "static_vdd_power_w": [0.5],
    "static_vddm_power_w": [0.5],
    "static_vddio_power_w": [0.25],
}


def test_the_profile_takes_whole_images_over_and_over(works):
    worker = works(network(), profile=MEASURED)

    profile = loihi.run(network(), SPIKES, profile_steps=31, probes=("time", "power")).profile

    # Ten steps an image: four images hold 31.
    wanted = worker.job["loihi"]["profile"]
    assert (wanted["steps"], wanted["probes"]) == (40, ["time", "power"])
    packed = np.packbits(SPIKES, axis=-1)
    np.testing.assert_array_equal(worker.profile_input, packed[[0, 1, 2, 0]])
    assert worker.profile_steps_seen == 5
    assert (profile.steps, profile.steps_per_image, profile.chips) == (40, 10, 1)
    assert profile.time_per_image_s == pytest.approx(500e-6)
    assert (profile.total_power_w, profile.static_power_w, profile.dynamic_power_w) == (1.5, 1.25, 0.25)
    assert (profile.vdd_power_w, profile.vddm_power_w, profile.vddio_power_w) == (0.5, 0.75, 0.25)
    assert profile.power_samples == 2
    assert profile.energy_per_image_j == pytest.approx(750e-6)
    assert profile.dynamic_energy_per_image_j == pytest.approx(125e-6)
    assert profile.cores is None
    assert profile.notes == ()


def test_a_profile_too_short_for_power_says_so():
    profile = chip_profile({**MEASURED, "total_power_w": [1.0]}, 10)
    assert profile.dynamic_power_w == -0.25
    assert profile.notes == (
        "the run takes less power than the idle chip: too short to measure, give more profile_steps",
    )


def test_energy_needs_time_and_power():
    only_time = {k: v for k, v in MEASURED.items() if "power" not in k}
    profile = chip_profile(only_time, 10)
    assert profile.time_per_image_s == pytest.approx(500e-6)
    assert (profile.total_power_w, profile.energy_per_image_j) == (None, None)


@pytest.mark.parametrize("values", [[], [float("nan")], [None]])
def test_a_probe_without_numbers(values):
    with pytest.raises(BackendError, match="profiler gave no numbers for total_power_w; profile without that probe"):
        chip_profile({**MEASURED, "total_power_w": values}, 10)


def test_cores_that_do_not_match():
    names = ("synaptic_operations", "neuron_updates", "spikes_sent", "spikes_received")
    counted = {"activity_core": [0.0, 1.0], **{name: [1.0] for name in names}}
    with pytest.raises(BackendError, match="counted different numbers of cores"):
        chip_profile({"steps": 1, "partition": None, **counted}, 1)


def conv(neuron):
    return ConvLayer((1, 2, 2), np.full((1, 1, 1, 1), 2), (1, 1), (0, 0), (1, 1), 1, neuron)


REFUSED = {
    "no reset by subtraction; export the network with reset zero": NetxNetwork(
        InputLayer((3,)), (dense(self_weight=np.array([6, 6, 6])),), reset="subtract"
    ),
    "runs no input neurons; export with --neuron cuba": NetxNetwork(
        InputLayer((3,), neuron=CubaNeuron(np.array(3))), (dense(),)
    ),
    "runs no sigma-delta neurons; export with --neuron cuba": NetxNetwork(
        InputLayer((1, 2, 2), neuron=SigmaDeltaNeuron()), (conv(SigmaDeltaNeuron()),), input_bits=0
    ),
    "runs no delays; leave them out": NetxNetwork(InputLayer((3,)), (dense(delay=np.ones((3, 3), dtype=int)),)),
    "runs no recurrent synapses; leave them out": NetxNetwork(
        InputLayer((3,)), (dense(weight_rec=np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2]])),)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_networks_the_tutorials_do_not_show(message):
    refused = REFUSED[message]
    with pytest.raises(UsageError, match=message):
        loihi.run(refused, np.zeros((1, 4, *refused.input_shape), dtype=np.uint8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.array([[3, 2, 0], [-2, 6, 2], [0, 4, 8]])}, "odd ones; even integers -256..254"),
        ({"bias": np.array([5000, 0, 0])}, "bias 5000; -4095..4095"),
        ({"neuron": CubaNeuron(np.array([6, 7, 8]))}, "one value a layer on the chip"),
    ],
)
def test_numbers_the_chip_does_not_hold(changes, message):
    layer = replace(dense(), **changes)
    with pytest.raises(LimitError, match=f"^layer_00.*{message}.*; export with --grade hardware$"):
        loihi.run(NetxNetwork(InputLayer((3,)), (layer,)), SPIKES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"step_limit": 29},
            "3 images and 0 for the profile of 10 steps each are 30 time steps; the limit of a job is 29",
        ),
        ({"step_limit": 59, "profile_steps": 30}, "3 images and 3 for the profile .* are 60 time steps"),
        ({"profile_steps": 0}, "profile_steps is 0; it must be at least 1"),
        ({"probes": ("time", "heat")}, "probes are time, heat; they must be some of time, power, activity, memory"),
        ({"probes": ()}, "probes are none"),
        ({"read": "all"}, "read is 'all'; it must be 'output' or 'layers'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(UsageError, match=message):
        loihi.run(network(), SPIKES, **options)


def test_spikes_of_another_shape():
    with pytest.raises(DataError):
        loihi.run(network(), SPIKES[..., :2])


def test_a_file_that_is_missing(monkeypatch):
    module = importlib.import_module("gascnn.hardware.loihi.run")
    monkeypatch.setattr(module, "supervise", lambda *_: None)
    with pytest.raises(BackendError, match=r"Lava's report on its run is incomplete .*; run it again"):
        loihi.run(network(), SPIKES)
