"""Contenders made from files: the right answers, and a reason where one cannot run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gascnn.benchmarks.latency import (
    Contender,
    Unavailable,
    ann_in_onnxruntime,
    ann_in_torch,
    race,
    snn_in_lava,
    snn_in_simulator,
    snn_on_loihi,
)
from gascnn.exporters.netx import write_netx
from gascnn.exporters.onnx.export import export_resnet
from gascnn.hardware import lava, loihi
from gascnn.hardware.backends import open_netx, run_images
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import load_bundle, save_bundle
from gascnn.toolkit.errors import BackendError, DataError, FormatError, UsageError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.training.bundles import build_model, to_bundle

SHAPE, NAMES = (1, 4, 4), ("benign", "malignant", "normal")
HEAVY = ("torch", "numba", "rich", "scipy", "sklearn", "nir", "onnx", "safetensors", "PIL")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, both its ONNX files and a spiking network of the same classes."""
    path = tmp_path_factory.mktemp("latency")
    torch.manual_seed(0)
    model = resnet(classes=3, blocks=(1,), width=4, stem="small")
    model.train()(torch.rand(32, *SHAPE))
    with torch.no_grad():  # no class is ahead of the others on average
        average = model.eval()(torch.from_numpy(noise()).float() / 255).mean(0)
        [part for part in model.modules() if isinstance(part, torch.nn.Linear)][-1].bias -= average
    save_bundle(to_bundle(model, NAMES, SHAPE), path / "ann")
    export_resnet(path / "ann", path / "fp32.onnx")
    export_resnet(path / "ann", path / "int8.onnx", calibration=noise(40, seed=1), calibrated_on="noise")
    write_netx(spiking(), path / "model.net")
    return path


def spiking(**changed):
    rng = np.random.default_rng(0)
    layers = (
        DenseLayer((12,), rng.integers(-40, 60, (12, 16)) * 2, CubaNeuron(np.array(90)), flatten=True),
        DenseLayer((3,), rng.integers(-40, 50, (3, 12)) * 2, CubaNeuron(np.array(90))),
    )
    record = Deployment(SHAPE, NAMES, steps=6, coding="bernoulli", seed=3)
    return NetxNetwork(InputLayer(SHAPE), layers, deployment=replace(record, **changed))


def noise(count=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def test_torch_answers_as_the_bundles_network(folder):
    one, images = ann_in_torch(folder / "ann"), noise(300)
    assert isinstance(one, Contender)
    with torch.no_grad():
        expected = build_model(load_bundle(folder / "ann"))(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    assert len(set(expected.tolist())) > 1
    np.testing.assert_array_equal(one.run(images), expected)  # more than one batch
    assert (one.name, one.kind, one.classes, one.threads) == ("torch", "ann", NAMES, 1)
    assert one.versions == {"torch": torch.__version__}
    with pytest.raises(DataError, match=r"images are uint8 \(2, 1, 4, 3\); the bundle takes"):
        one.run(images[:2, :, :, :3])


def test_torch_takes_the_threads_it_was_given(folder):
    before = torch.get_num_threads()
    try:
        two = ann_in_torch(load_bundle(folder / "ann"), threads=2)
        torch.set_num_threads(1)
        two.run(noise(1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime_answers(folder, precision):
    one, images = ann_in_onnxruntime(folder / f"{precision}.onnx", precision), noise(300)
    assert (one.name, one.classes) == (f"onnxruntime-{precision}", NAMES)
    equal = (one.run(images) == ann_in_torch(folder / "ann").run(images)).mean()
    assert equal == 1 if precision == "fp32" else equal > 0.8


def test_the_simulator_answers_as_a_run_of_the_file(folder):
    file, images = open_netx(folder / "model.net"), noise()
    one = snn_in_simulator(file)
    expected = run_images(file, images).predictions()
    assert len(set(expected.tolist())) > 1
    np.testing.assert_array_equal(one.run(images), expected)  # random spikes are those of each image's number
    assert (one.kind, one.steps, one.classes) == ("snn", 6, NAMES)
    assert "input coding on the host (bernoulli), T + K = 6 + 2 steps" in one.includes
    np.testing.assert_array_equal(snn_in_simulator(file, steps=1).run(images), run_images(file, images, steps=1)
                                  .predictions())  # fmt: skip
    with pytest.raises(DataError, match="images have shape"):
        one.run(images[..., :3])


def test_all_of_them_race(folder):
    there = [
        ann_in_torch(folder / "ann"),
        ann_in_onnxruntime(folder / "fp32.onnx"),
        ann_in_onnxruntime(folder / "int8.onnx", "int8"),
        snn_in_simulator(open_netx(folder / "model.net")),
        ann_in_onnxruntime(None),
    ]
    images = noise()
    labels = there[0].run(images)
    found = race([*there[:4]], images, labels=labels, rounds=5, calls=2, batch_sizes=(1, 16), limit_s=5.0)
    one = {entry["name"]: entry for entry in found["contenders"]}
    assert list(one) == ["torch", "onnxruntime-fp32", "onnxruntime-int8", "simulator"]
    assert one["torch"]["accuracy"]["value"] == one["onnxruntime-fp32"]["agreement"]["value"] == 1
    assert all(entry["p50_s"]["value"] > 0 for entry in one.values())
    assert all([t["batch_size"] for t in entry["throughput_per_s"]] == [1, 16] for entry in one.values())
    assert found["peak_memory_bytes"] > 1 << 20
    json.dumps(found, allow_nan=False)


# --- Lava and the chip, by what their interface says -----------------------------------------------------------------


@pytest.fixture
def environment():
    return SimpleNamespace(lava_nc="0.10.0", lava_dl="0.6.0", python_version="3.10.4", python=Path("python"))


def test_lava_is_given_a_few_images_in_one_start(folder, monkeypatch, environment):
    file, given = open_netx(folder / "model.net"), []

    def run(path, spikes, **options):
        given.append((path, spikes.shape, options["record"], options["environment"]))
        plain = run_images(file, noise(3))
        return SimpleNamespace(predictions=plain.predictions, image_s=(0.5, 0.25, 0.3), models="stock", why_stock="no")

    monkeypatch.setattr("gascnn.hardware.lava.environment.require_lava", lambda: environment)
    monkeypatch.setattr(lava, "run", run)
    one = snn_in_lava(file, images=3)
    found = race([one, ann_in_onnxruntime(folder / "fp32.onnx")], noise(), rounds=1, calls=1)
    entry = found["contenders"][0]
    assert given == [(file.path, (3, 6, *SHAPE), "counts", environment)]
    assert (entry["samples"], entry["p50_s"]["value"], entry["cold"]["images"]) == (3, 0.3, 3)
    assert entry["notes"][0] == "process models: stock (no)"
    assert entry["versions"] == {"lava-nc": "0.10.0", "lava-dl": "0.6.0", "python": "3.10.4"}
    with pytest.raises(UsageError, match="lava is given 0 images; it must be at least 1"):
        snn_in_lava(file, images=0)


def test_without_lava_it_says_how_to_install_it(folder, monkeypatch):
    def missing():
        raise BackendError("Lava is not installed; run: gascnn lava install")

    monkeypatch.setattr("gascnn.hardware.lava.environment.require_lava", missing)
    one = snn_in_lava(open_netx(folder / "model.net"))
    assert one == Unavailable(
        "lava", "SNN in Lava on the processor, T = 6", "Lava is not installed; run: gascnn lava install"
    )


def test_the_chip_by_its_stand_in(folder, monkeypatch, environment):
    file = open_netx(folder / "model.net")

    def run(path, spikes, **options):
        plain = run_images(file, noise(2))
        assert not options["check"]  # what differs is told beside the times
        return SimpleNamespace(predictions=plain.predictions, image_s=(0.01, 0.02), deviation="one spike more")

    monkeypatch.setattr(loihi, "require_loihi", lambda: environment)
    monkeypatch.setattr(loihi, "run", run)
    found = race([snn_on_loihi(file)], noise(), rounds=1)
    (entry,) = found["contenders"]
    assert (entry["name"], entry["p50_s"]["value"]) == ("loihi", pytest.approx(0.015))
    assert entry["notes"][0] == "the chip's answer is not the network's: one spike more"


def test_without_the_chip_it_says_why(folder, monkeypatch, environment):
    def missing():
        raise BackendError("no Loihi: Lava has no lava-loihi extension; use backend lava or sim")

    file = open_netx(folder / "model.net")
    monkeypatch.setattr(loihi, "require_loihi", missing)
    assert snn_on_loihi(file).reason == "no Loihi: Lava has no lava-loihi extension; use backend lava or sim"
    monkeypatch.setattr(loihi, "require_loihi", lambda: environment)
    subtract = replace(file, network=replace(file.network, reset="subtract"))
    assert "no reset by subtraction" in snn_on_loihi(subtract).reason


# --- what is missing or wrong ----------------------------------------------------------------------------------------


def test_files_that_are_not_there_leave_the_contender_out():
    assert "gascnn export BUNDLE --target onnx -o fp32.onnx" in ann_in_onnxruntime(None).reason
    assert "--int8 --data NAME" in ann_in_onnxruntime(None, "int8").reason
    assert "gascnn train" in ann_in_torch(None).reason


def test_files_that_are_others_are_errors(folder, tmp_path):
    with pytest.raises(UsageError, match=r"fp32\.onnx holds part resnet in fp32; needed is resnet in int8; write one"):
        ann_in_onnxruntime(folder / "fp32.onnx", "int8")
    with pytest.raises(UsageError, match="precision is 'int4'; it must be fp32 or int8"):
        ann_in_onnxruntime(folder / "fp32.onnx", "int4")
    with pytest.raises(FormatError, match="no bundle there"):
        ann_in_torch(tmp_path)
    with pytest.raises(UsageError, match="threads is 0"):
        ann_in_torch(folder / "ann", threads=0)


@pytest.mark.parametrize("make", [snn_in_simulator, snn_in_lava, snn_on_loihi])
def test_steps(folder, make):
    file = open_netx(folder / "model.net")
    with pytest.raises(UsageError, match=r"steps is 0; it must be at least 1 for .*model\.net"):
        make(file, steps=0)
    skipping = replace(file, network=spiking(skip_steps=4))
    with pytest.raises(UsageError, match="steps is 4; it must be at least 5"):
        make(skipping, steps=4)
    foreign = replace(file, network=file.network.with_deployment(None))
    with pytest.raises(UsageError, match="does not say how many steps an image takes; give --steps"):
        make(foreign)


def test_on_a_board_without_torch(folder):
    """Everything but torch's contender runs with numpy, onnxruntime, h5py and click."""
    code = f"""
import json, sys

for name in {HEAVY!r}:
    sys.modules[name] = None  # as if it were not installed

import numpy as np
from gascnn.benchmarks.latency import ann_in_onnxruntime, ann_in_torch, decision_curve, race, snn_in_simulator
from gascnn.hardware.backends import open_netx

file = open_netx("model.net")
images, labels = np.load("images.npy"), np.zeros(70, int)
there = [ann_in_torch("ann"), ann_in_onnxruntime("fp32.onnx"), snn_in_simulator(file)]
found = race(there, images, labels=labels, rounds=2, calls=1, limit_s=1.0)
curve = decision_curve(file, images, labels)
loaded = [name for name in {HEAVY!r} if sys.modules[name] is not None]
print(json.dumps([found["left_out"], [one["name"] for one in found["contenders"]], len(curve["points"]), loaded]))
"""
    np.save(folder / "images.npy", noise())
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    left_out, names, points, loaded = json.loads(done.stdout)
    assert (names, points, loaded) == (["onnxruntime-fp32", "simulator"], 6, [])
    assert [one["name"] for one in left_out] == ["torch"]
    assert left_out[0]["reason"] == (
        "torch is not installed here; run: pip install 'gascnn[train]', or leave this contender out"
    )
