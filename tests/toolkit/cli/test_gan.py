"""``gascnn gan train`` and ``gan sample`` as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import MODEL_FILE, save_bundle
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.data.image_set import read_extra
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.training.bundles import to_bundle
from gascnn.toolkit.training.gan.bundle import load_gan
from gascnn.toolkit.training.gan.presets import PRESETS
from gascnn.toolkit.training.gan.sample import sample

DIGITS = tuple("0123456789")
FEW = ("--preset", "smoke", "--set", "iterations=6", "--set", "report_every=3")


def network_at(path, classes=DIGITS, size=8):
    """A ResNet as it begins: what it is trained to is no matter here."""
    torch.manual_seed(0)
    save_bundle(
        to_bundle(resnet(classes=len(classes), blocks=(1,), width=4, image_size=size), classes, (1, size, size)), path
    )
    return path


def quietly(*arguments):
    from gascnn.toolkit.cli import main

    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert left.value.code == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A GAN, images made with it, and what ``--json`` said of both."""
    folder = tmp_path_factory.mktemp("gan")
    data = ("--data", "digits")
    network = network_at(folder / "resnet")
    quietly("gan", "train", network, *data, *FEW, "-o", folder / "gan", "--json", folder / "train.json")
    few = ("--images", 3, "--seed", 7)
    quietly("gan", "sample", folder / "gan", *data, *few, "-o", folder / "set", "--json", folder / "sample.json")
    return folder


def saved(path):
    return json.loads(path.read_text())


def test_training_writes_a_gan_and_pictures(made):
    result, gan = saved(made / "train.json"), load_gan(made / "gan")
    assert result["sha256"] == sha256_file(made / "gan" / MODEL_FILE)
    assert result["preset"] == "smoke"
    assert gan.options.iterations == 6
    assert gan.options.alpha_aaid == PRESETS["smoke"].options.alpha_aaid == 7
    assert gan.class_names == DIGITS
    assert gan.provenance["resnet"]["bundle_sha256"] == sha256_file(made / "resnet" / MODEL_FILE)
    assert result["metrics"]["train"]["iteration"] == 6
    assert (made / "gan.run" / "grid_0000006.png").is_file()


def test_the_set_reads_as_any_data_set(made):
    result, data = saved(made / "sample.json"), load_dataset(str(made / "set"))
    assert data.class_names == DIGITS
    assert data.image_shape == (1, 8, 8)
    assert len(data.train) + len(data.val) + len(data.test) == 30 == result["images"]
    assert result["sha256"] == data.provenance["sha256"]["images.npz"]
    # The same again, in Python.
    digits = load_dataset("digits")
    again = sample(load_gan(made / "gan"), digits, 3, seed=7, threads=1)
    np.testing.assert_array_equal(read_extra(made / "set", "images"), again.images)
    for name, array in again.arrays().items():
        np.testing.assert_array_equal(read_extra(made / "set", name), array)
    assert np.bincount(again.labels).tolist() == [3] * 10


def test_provenance_travels_and_names_no_path(made):
    provenance = load_dataset(str(made / "set")).provenance["made"]
    assert provenance["gan"]["sha256"] == sha256_file(made / "gan" / MODEL_FILE)
    assert provenance["gan"]["training"]["options"]["iterations"] == 6
    assert provenance["sampling"]["options"] == {"seed": 7, "sources": "any"}
    assert provenance["sources"]["name"] == "digits"
    assert provenance["sources"]["provenance"]["licence"] == load_dataset("digits").provenance["licence"]
    assert str(made) not in json.dumps(provenance)


def test_an_interrupted_training_goes_on_to_the_same_bits(gascnn, made, tmp_path, monkeypatch):
    command = ("gan", "train", made / "resnet", "--data", "digits", *FEW, "-o", tmp_path / "gan")
    with monkeypatch.context() as patch:
        patch.setattr("gascnn.toolkit.training.gan.progress.Lines.step", interrupted_at(4), raising=False)
        assert gascnn(*command).status == 130
    assert not (tmp_path / "gan").exists()
    assert "holds a run; resume it (--resume)" in gascnn(*command).error
    assert gascnn(*command, "--resume").status == 0
    one, other = (load_gan(path / "gan").generator.state_dict() for path in (made, tmp_path))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def interrupted_at(wanted):
    def step(self, iteration):
        if iteration == wanted:
            raise KeyboardInterrupt

    return step


def test_copies_are_named_as_such(gascnn, made, tmp_path):
    from gascnn.toolkit.training.gan.bundle import save_gan

    quietly("gan", "train", made / "resnet", "--data", "digits", *FEW, "--set", "plane=image", "-o", tmp_path / "gan")
    gan = load_gan(tmp_path / "gan")
    with torch.no_grad():
        gan.generator.attention.mask.bias.fill_(200.0)  # the mask is 1 everywhere: slices are their sources
    save_gan(gan, tmp_path / "gan")
    outcome = gascnn("gan", "sample", tmp_path / "gan", "--data", "digits", "--images", 2, "-o", tmp_path / "set")
    assert outcome.status == 0
    assert "nearly copies of real images" in outcome.err
    assert "differ from their sources by 0.00 %" in outcome.out


def test_bad_input_is_one_line(gascnn, made, tmp_path, monkeypatch):
    def refused(message, *arguments):
        outcome = gascnn("gan", *arguments)
        assert outcome.status == 2
        assert message in outcome.error
        assert len(outcome.err.strip().splitlines()) == 1

    data, out = ("--data", "digits"), ("-o", tmp_path / "x")
    train, make = ("train", made / "resnet", *data), ("sample", made / "gan", *data)
    refused("no preset 'large'; known: smoke, small, paper", *train, "--preset", "large", *out)
    refused("unknown GAN option 'epochs'", *train, "--set", "epochs=3", *out)
    refused("--set 'plane' has no value", *train, "--set", "plane", *out)
    refused("plane is 'both'; allowed: features, image", *train, "--set", "plane=both", *out)
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "abc")
        refused("WORLD_SIZE is 'abc'; allowed: whole numbers from 1", *train, *out)
    refused("threads is -1", *train, "--threads", -1, *out)
    refused("kind", "train", made / "gan", *data, *out)
    (tmp_path / "file").write_text("mine")
    refused("is there and is no bundle", *train, "-o", tmp_path / "file")
    refused("--images is 0; it must be at least 1", *make, "--images", 0, *out)
    refused("--threads is -1", *make, "--images", 3, "--threads", -1, *out)
    refused("images is 1260; with sources any there are 1259 training", *make, "--images", 1260, *out)
    refused("of kind ann; expected gan", "sample", made / "resnet", *data, "--images", 3, *out)
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 10, 10), dtype=np.uint8)
    np.savez(tmp_path / "ten.npz", images=images, labels=np.arange(40) % 2)
    ten, other = network_at(tmp_path / "ten", ("0", "1"), 10), ("--data", tmp_path / "ten.npz")
    refused("images are 10x10; allowed: sides that are multiples of 4", "train", ten, *other, *out)
    refused("has classes 0, 1; wanted are 0, 1, 2", "sample", made / "gan", *other, "--images", 3, *out)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.run").exists()


def two_processes(made, folder, *options):
    """What is typed to train in ``folder`` with two processes of torchrun."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
    gascnn = (sys.executable, "-c", "from gascnn.toolkit.cli import main; main()")
    words = (*torchrun, *gascnn, "gan", "train", made / "resnet", "--data", "digits", *options, "-o", folder / "gan",
             "--json", folder / "train.json")  # fmt: skip
    return [str(word) for word in words]


def below(pid):
    """Processes that a process started, and those that they started: torchrun gives each a session of its own."""
    own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*own, *(further for child in own for further in below(child))]


@pytest.mark.slow
def test_two_processes_train_as_one_does(made, tmp_path):
    """torchrun with gloo: the same batches, so the same GAN but for rounding; the first process alone writes."""
    done = subprocess.run(two_processes(made, tmp_path, *FEW), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("GAN in ") == 1
    assert done.stderr.count("6/6  distance") == 1
    two, one = saved(tmp_path / "train.json"), saved(made / "train.json")
    assert (two["provenance"]["processes"], one["provenance"]["processes"]) == (2, 1)
    for side in ("critic", "generator"):
        assert two["metrics"]["train"][side] == pytest.approx(one["metrics"]["train"][side], rel=1e-3, abs=1e-4)
    digits = load_dataset("digits")
    images = [sample(load_gan(path / "gan"), digits, 20, threads=1).images.astype(int) for path in (made, tmp_path)]
    assert np.abs(images[0] - images[1]).mean() < 0.1  # of 255
    fresh = sample(load_gan(made / "gan"), digits, 20, seed=1, threads=1).images.astype(int)
    assert np.abs(images[0] - fresh).mean() > 1


@pytest.mark.slow
def test_two_killed_processes_go_on_to_the_same_bits(made, tmp_path):
    """And where the first process refuses, the others do not wait for it."""
    more = (*FEW, "--set", "iterations=40")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
    subprocess.run(two_processes(made, straight, *more), check=True, capture_output=True, timeout=300)
    with (killed / "said").open("w") as said:
        started = subprocess.Popen(two_processes(made, killed, *more), stdout=said, stderr=said)
    history, deadline = killed / "gan.run" / "history.json", time.monotonic() + 300
    while not history.exists():
        assert started.poll() is None, (killed / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for pid in (started.pid, *below(started.pid)):
        os.kill(pid, signal.SIGKILL)
    started.wait()
    assert saved(history)[-1]["iteration"] < 40
    refused = subprocess.run(two_processes(made, killed, *more), capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0
    assert "holds a run; resume it (--resume), or name a new folder" in refused.stderr
    subprocess.run(two_processes(made, killed, *more, "--resume"), check=True, capture_output=True, timeout=300)
    one, other = (load_file(folder / "gan" / "weights.safetensors") for folder in (straight, killed))
    assert [name for name, tensor in one.items() if not np.array_equal(tensor, other[name])] == []
    assert saved(straight / "train.json")["metrics"] == saved(killed / "train.json")["metrics"]
