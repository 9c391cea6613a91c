"""Split training as a run: stopped and resumed it ends in the same bits, and held-out labels change nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gascnn.toolkit.data import Dataset, ImageSet
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.pgsl.bundle import to_bundle
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.presets import PRESETS, get_split_preset
from gascnn.toolkit.pgsl.run import train_network
from gascnn.toolkit.pgsl.train import accuracies, answers
from gascnn.toolkit.training.checkpoint import LAST_FILE, load_checkpoint, save_checkpoint
from gascnn.toolkit.training.progress import Silent
from gascnn.toolkit.wilson import wilson_interval

OPTIONS = PgslOptions(width=8, hidden=10, grid=2, pixels=3, recovery_iterations=4, epochs=3, batch_size=16, seed=5)
LOCAL = LocalOptions(width=4, epochs=2, batch_size=16, seed=5)


def part(count, seed):
    """Noise with a bright row (class 0) or column (1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    images = rng.integers(0, 60, (count, 1, 8, 8)).astype(np.uint8)
    for i, at in enumerate(rng.integers(0, 8, count)):
        images[i, 0, at if labels[i] == 0 else slice(None), slice(None) if labels[i] == 0 else at] = 240
    return ImageSet(images, labels)


DATA = Dataset("stripes", ("row", "column"), part(80, 1), part(31, 2), part(41, 3), framing="foreground")


class Recorder(Silent):
    """Stops where it is told to, as Ctrl-C would."""

    def __init__(self, *place):
        self.place, self.lines, self.begun = place, [], None

    def begin(self, epochs, steps, done):
        self.begun = (epochs, steps, done)

    def step(self, epoch, step, loss):
        if (epoch, step) == self.place:
            raise KeyboardInterrupt

    def epoch(self, record):
        self.lines.append(record.line())


def run(folder, data=DATA, options=OPTIONS, **settings):
    return train_network(data, options, folder, **{"local": LOCAL, "threads": 1, **settings})


def tensors_of(network):
    return to_bundle(network).tensors


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    assert [name for name, value in first.items() if not np.array_equal(value, second[name])] == []


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder, progress = tmp_path_factory.mktemp("straight"), Recorder()
    return run(folder, progress=progress), folder, progress


def test_it_learns_and_says_how(straight):
    network, folder, progress = straight
    assert progress.begun == (3, 5, 0)
    assert len(progress.lines) == 3
    history = network.provenance["history"]
    assert sum(history[-1]["losses"].values()) == pytest.approx(history[-1]["loss"])
    assert history[-1]["loss"] < history[0]["loss"]
    assert progress.lines[-1].endswith(", ".join(f"{n} {v:.4f}" for n, v in history[-1]["val"].items()))
    assert json.loads((folder / "history.json").read_text()) == history
    found = network.metrics["test"]
    expected = accuracies(
        answers(network.client, network.server, torch.from_numpy(DATA.test.images)), torch.from_numpy(DATA.test.labels)
    )
    assert {name: found[name]["accuracy"] for name in expected} == pytest.approx(expected)
    assert found["fusion"]["interval"] == list(wilson_interval(round(41 * expected["fusion"]), 41))
    assert (found["dataset"], found["split"], found["images"]) == ("stripes", "test", 41)
    assert found["commonest_class"] == {"class": "row", "accuracy": 21 / 41}
    assert network.metrics["val"]["fusion"]["accuracy"] == pytest.approx(history[-1]["val"]["fusion"])
    assert network.provenance["local_accuracy"].keys() == {"train", "val"}
    assert network.provenance["fitted_images"] == 80
    assert network.framing == "foreground"


def test_stopping_in_every_epoch_changes_nothing(straight, tmp_path):
    for epoch in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, resume=True, progress=Recorder(epoch, 3))
    progress = Recorder()
    resumed = run(tmp_path, resume=True, progress=progress)
    assert progress.begun == (3, 5, 2)
    assert_same_bits(tensors_of(resumed), tensors_of(straight[0]))
    assert resumed.metrics == straight[0].metrics
    first, second = (load_checkpoint(folder / LAST_FILE)[0] for folder in (straight[1], tmp_path))
    assert_same_bits(first, second)  # Adam's moments too
    # A run that is done only measures again.
    assert_same_bits(tensors_of(run(tmp_path, resume=True)), tensors_of(resumed))


def test_a_resumed_run_without_its_moments_would_differ(straight, tmp_path):
    """The comparison above can fail."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=Recorder(3, 1))
    tensors, values = load_checkpoint(tmp_path / LAST_FILE)
    changed = {name: value * 0 if name.endswith("exp_avg") else value for name, value in tensors.items()}
    save_checkpoint(tmp_path / LAST_FILE, changed, values)
    other = tensors_of(run(tmp_path, resume=True))["client.0.weight"]
    assert not np.array_equal(other, tensors_of(straight[0])["client.0.weight"])


def test_labels_that_are_held_out_change_no_weight(straight, tmp_path):
    shuffled = replace(
        DATA,
        val=ImageSet(DATA.val.images, DATA.val.labels[::-1].copy()),
        test=ImageSet(DATA.test.images, 1 - DATA.test.labels),
    )
    other = run(tmp_path, shuffled)
    assert_same_bits(tensors_of(other), tensors_of(straight[0]))
    right = straight[0].metrics["test"]["fusion"]["accuracy"]
    assert other.metrics["test"]["fusion"]["accuracy"] == pytest.approx(1 - right)


def test_a_set_without_validation_or_test(tmp_path):
    empty = ImageSet(DATA.val.images[:0], DATA.val.labels[:0])
    network = run(tmp_path, replace(DATA, val=empty, test=empty), replace(OPTIONS, epochs=1), limit=20)
    assert network.metrics == {}
    assert network.provenance["history"][0]["val"] is None
    assert network.provenance["fitted_images"] == 20


def test_only_the_same_run_goes_on(straight, tmp_path):
    folder = straight[1]
    with pytest.raises(UsageError, match=r"holds a run; resume it \(--resume\)"):
        run(folder)
    for settings, message in (
        ({"options": replace(OPTIONS, mu=0.5)}, "begun with mu 0.55, now it is 0.5"),
        ({"local": replace(LOCAL, width=5)}, "begun with model local_width 4, now it is 5"),
        ({"limit": 40}, "begun with dataset fit_sha256"),
    ):
        with pytest.raises(UsageError, match=message):
            run(folder, resume=True, **settings)
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    (tmp_path / LAST_FILE).write_bytes((folder / LAST_FILE).read_bytes()[:-9])
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        run(tmp_path, resume=True)


def test_bad_input_leaves_nothing(tmp_path):
    for settings, message in (
        ({"limit": 1}, "limit is 1; a batch needs 2"),
        ({"options": replace(OPTIONS, pixels=65)}, "pixels is 65"),
        ({"data": replace(DATA, train=ImageSet(DATA.train.images[:0], DATA.train.labels[:0]))}, "no training images"),
    ):
        with pytest.raises(UsageError, match=message):
            run(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_presets():
    assert get_split_preset("small").options == PgslOptions()
    assert get_split_preset("paper").options.strides == (1, 1, 1, 1, 1)
    assert all(preset.name == name for name, preset in PRESETS.items())
    with pytest.raises(UsageError, match="no preset 'large'; known: smoke, small, paper"):
        get_split_preset("large")
