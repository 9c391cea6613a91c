"""Split networks by the command line: trained, exported and evaluated, all in one process."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gascnn.hardware.edge import EdgeModel
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import MODEL_FILE, WEIGHTS_FILE, load_bundle, save_bundle
from gascnn.toolkit.cli import main
from gascnn.toolkit.data import ImageSet, load_dataset
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.pgsl.bundle import load_network
from gascnn.toolkit.pgsl.split import Upload
from gascnn.toolkit.pgsl.train import answers
from gascnn.toolkit.training.bundles import to_bundle
from gascnn.toolkit.training.progress import Silent

STREAMS = ("fusion", "recovered", "fused", "attacked")
SETTINGS = ("--data", "digits", "--preset", "smoke", "--set", "pixels=4", "--set", "recovery_iterations=4", "--set",
            "learning_rate=0.01", "--limit", 640, "--threads", 1, "--seed", 2)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A bundle and its client in both precisions."""

    bundle: Path
    fp32: Path
    int8: Path
    report: dict


def make(folder: Path) -> Made:
    made = Made(folder / "split", folder / "c.onnx", folder / "i.onnx", {})
    export = ("export", made.bundle, "--target", "onnx", "--part", "pgsl-client", "--data", "digits", "--limit", 20)
    for arguments in (
        ("pgsl", "train", *SETTINGS, "-o", made.bundle, "--json", folder / "t.json"),
        (*export, "-o", made.fp32),
        (*export, "--int8", "--calibration-images", 64, "-o", made.int8),
    ):
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        assert left.value.code == 0
    made.report.update(json.loads((folder / "t.json").read_text()))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("split"))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_what_training_writes(made):
    bundle = load_bundle(made.bundle)
    assert made.report["sha256"] == sha256_file(made.bundle / MODEL_FILE)
    assert made.report["metrics"] == bundle.metrics
    assert bundle.architecture["options"]["seed"] == 2
    assert bundle.architecture["local"] == {
        "width": 4, "epochs": 2, "batch_size": 64, "learning_rate": 0.003, "seed": 2,
    }  # fmt: skip
    assert (bundle.classes, bundle.image_shape) == (tuple("0123456789"), (1, 8, 8))
    found = bundle.metrics["test"]
    assert found["fusion"]["accuracy"] > 0.5
    for stream in STREAMS:
        low, high = found[stream]["interval"]
        assert 0 <= low < found[stream]["accuracy"] < high <= 1
    assert len(bundle.provenance["history"]) == 2


@pytest.mark.parametrize(("name", "least"), [("fp32", 0.99), ("int8", 0.9)])
def test_exported_client_and_server_decide_as_torch(made, digits, name, least):
    network, edge = load_network(made.bundle), EdgeModel(getattr(made, name))
    assert edge.metadata.precision == name
    sent = torch.from_numpy(edge.activations(digits.test.images))
    found = network.server.answer(Upload(sent)).scores.argmax(1)
    expected = answers(network.client, network.server, torch.from_numpy(digits.test.images)).scores.argmax(1)
    assert float((found == expected).double().mean()) >= least
    # With another image's activations hardly any would be.
    assert float((found.roll(1) == expected).double().mean()) < 0.3


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_evaluate_reports_what_the_file_changes(gascnn, made, digits, tmp_path, name):
    outcome = gascnn("pgsl", "evaluate", made.bundle, "--data", "digits", "--client", getattr(made, name), "--json",
                     tmp_path / "e.json")  # fmt: skip
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "e.json").read_text())
    assert (result["images"], result["split"], result["client"]["precision"]) == (269, "test", name)
    network = load_network(made.bundle)
    sent = torch.from_numpy(EdgeModel(getattr(made, name)).activations(digits.test.images))
    labels = torch.from_numpy(digits.test.labels)
    own = answers(network.client, network.server, torch.from_numpy(digits.test.images)).scores.argmax(1)
    other = network.server.answer(Upload(sent)).scores.argmax(1)
    figures = result["client"]["fusion"]
    assert result["torch"]["fusion"]["accuracy"] == pytest.approx(float((own == labels).double().mean()))
    assert figures["accuracy"] == pytest.approx(float((other == labels).double().mean()))
    assert figures["equal_answers"] == pytest.approx(float((own == other).double().mean()))
    difference = figures["accuracy"] - result["torch"]["fusion"]["accuracy"]
    assert figures["gained"] - figures["lost"] == round(269 * difference)
    for stream in STREAMS:
        assert result["torch"][stream] == made.report["metrics"]["test"][stream]
        assert f"{100 * result['client'][stream]['accuracy']:.2f} %" in outcome.out
    assert f"right by {name} alone" in outcome.out


def test_evaluate_without_a_file(gascnn, made, tmp_path):
    outcome = gascnn("pgsl", "evaluate", made.bundle, "--data", "digits", "--split", "val", "--limit", 50, "--json",
                     tmp_path / "e.json")  # fmt: skip
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["images"] == 50
    assert "client" not in result
    assert "equal answers" not in outcome.out


def test_shuffled_test_labels_change_no_output_of_the_client(made, tmp_path, monkeypatch):
    """Through training, bundle, both exports and their calibration: what leaves the client knows no test label."""

    def shuffled(*arguments, **settings):
        found = load_dataset(*arguments, **settings)
        parts = {
            name: ImageSet(part.images, np.random.default_rng(1).permutation(part.labels))
            for name, part in (("val", found.val), ("test", found.test))
        }
        return replace(found, **parts)

    monkeypatch.setattr("gascnn.toolkit.data.load_dataset", shuffled)
    other = make(tmp_path)
    assert other.report["metrics"]["test"] != made.report["metrics"]["test"]
    assert (other.bundle / WEIGHTS_FILE).read_bytes() == (made.bundle / WEIGHTS_FILE).read_bytes()
    images = load_dataset("digits").test.images
    for first, second in ((made.fp32, other.fp32), (made.int8, other.int8)):
        assert EdgeModel(first).activations(images).tobytes() == EdgeModel(second).activations(images).tobytes()


class Interrupt(Silent):
    def step(self, epoch, step, loss):
        if (epoch, step) == (2, 3):
            raise KeyboardInterrupt


def test_interrupted_and_resumed(gascnn, made, tmp_path, monkeypatch):
    output = tmp_path / "split"
    arguments = ("pgsl", "train", *SETTINGS, "-o", output)
    with monkeypatch.context() as patch:
        patch.setattr("gascnn.toolkit.training.progress.rich_progress", Interrupt)
        outcome = gascnn(*arguments)
    assert (outcome.status, outcome.error) == (130, "interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["split.run"]
    assert "holds a run; resume it (--resume)" in gascnn(*arguments).error
    outcome = gascnn(*arguments, "--resume")
    assert outcome.status == 0, outcome.err
    assert "epoch 1/2" not in outcome.err
    assert "epoch 2/2" in outcome.err
    assert (output / WEIGHTS_FILE).read_bytes() == (made.bundle / WEIGHTS_FILE).read_bytes()
    assert load_bundle(output).metrics == made.report["metrics"]


def test_evaluate_refuses_in_one_line(gascnn, made, tmp_path):
    ann, exported = tmp_path / "ann", tmp_path / "r.onnx"
    model = resnet(classes=10, blocks=(1,), width=4, image_size=8)
    save_bundle(to_bundle(model, tuple("0123456789"), (1, 8, 8)), ann)
    assert gascnn("export", ann, "--target", "onnx", "-o", exported).status == 0
    other = tmp_path / "other"
    other.mkdir()
    for name in (MODEL_FILE, WEIGHTS_FILE):
        (other / name).write_bytes((made.bundle / name).read_bytes())
    (other / MODEL_FILE).write_text((other / MODEL_FILE).read_text().replace('"seed": 2', '"seed": 3'))
    for arguments, message in (
        ((ann,), "a bundle of kind ann; give one that 'gascnn pgsl train' wrote"),
        ((tmp_path / "nowhere",), "no bundle there"),
        ((made.bundle, "--client", exported), "holds part resnet; --client takes part pgsl-client"),
        ((made.bundle, "--client", tmp_path / "no.onnx"), "no such file"),
        ((other, "--client", made.fp32), "was exported from another bundle"),
        ((made.bundle, "--limit", 0), "--limit is 0"),
        ((made.bundle, "--threads", 0), "--threads is 0"),
    ):
        outcome = gascnn("pgsl", "evaluate", *arguments, "--data", "digits")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert message in outcome.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "mu"), "--set 'mu' has no value"),
        (("--set", "my=1"), "unknown split-learning option 'my'"),
        (("--local-width", 0), "width is 0; allowed: whole numbers from 1"),
        (("--preset", "huge"), "no preset 'huge'"),
        (("--image-size", 9), "image_size is 9; reversible down-sampling takes even sizes"),
        (("--limit", 0), "--limit is 0"),
        (("--threads", -1), "--threads is -1"),
    ],
)
def test_train_refuses_in_one_line(gascnn, tmp_path, arguments, message):
    outcome = gascnn("pgsl", "train", "--data", "digits", *arguments, "-o", tmp_path / "split")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.error
    assert list(tmp_path.iterdir()) == []


def test_train_does_not_replace_what_is_no_bundle(gascnn, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    outcome = gascnn("pgsl", "train", "--data", "digits", "-o", tmp_path / "notes")
    assert outcome.status == 2
    assert "is there and is no bundle" in outcome.error
    assert not (tmp_path / "notes.run").exists()
