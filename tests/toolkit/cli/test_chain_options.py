"""``gascnn chain``: what it would do, and what it refuses; one step that fails for real."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gascnn.toolkit.cli.models import Model


def test_a_dry_run_types_every_command_and_makes_nothing(gascnn, tmp_path):
    found = gascnn(
        "chain", "--data", "digits", "--preset", "paper", "--synthetic", "both", "--seed", 5, "--dry-run",
        "-o", tmp_path / "run", "--json", tmp_path / "plan.json",
    )  # fmt: skip
    assert found.status == 0, found.err
    assert not (tmp_path / "run").exists()
    first, *lines = found.out.splitlines()
    assert first == f"$ cd {tmp_path / 'run'}"
    typed = [shlex.split(line)[1:] for line in lines if line.startswith("$ ")]
    assert [words[1] for words in typed] == [
        "train", "gan", "gan", "synthesise", "data", "convert", "export", "spike-learn", "verify", "bench",
    ]  # fmt: skip
    assert [words[2] for words in typed[1:3]] == ["train", "sample"]
    assert typed[5][(at := typed[5].index("--seed")) : at + 2] == ["--seed", "5"]
    assert {"subtract", "rate", "100"} <= set(typed[5])
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [step["name"] for step in plan["steps"]][:3] == ["train", "gan", "sample"]
    assert [step["action"] for step in plan["steps"]] == ["make"] * 10


def test_a_dry_run_says_what_stands_for_a_step(gascnn, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images.json").write_text('{"synthetic": true}')
    use = f"sample={tmp_path / 'set'}"
    found = gascnn("chain", "--data", "digits", "--use", use, "--until", "convert", "--dry-run", "-o", tmp_path / "run")
    said = [line for line in found.out.splitlines() if line.startswith("# ")]
    assert said == [
        "# train: make, not made yet",
        "# gan: not needed",
        "# sample: given",
        "# convert: make, not made yet",
    ]
    assert f"--data {tmp_path / 'set'} --data-free" in found.out


@pytest.mark.parametrize(("given", "kept"), [("/home/me/ann", "ann"), ("ann", "ann"), ("out/ann", "out/ann")])
def test_a_models_summary_holds_no_absolute_path(given, kept):
    """What is converted, learnt or verified says so of its model, also within bundles, whose hash is written too."""
    summary = Model("ann", Path(given), "00", (1, 8, 8), ("a", "b")).summary()
    assert summary == {"path": kept, "kind": "ann", "sha256": "00"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--use", "ann=x"], "--use 'ann=x'; give STEP=PATH with a step of train, gan,"),
        (["--use", "train"], "--use 'train'; give STEP=PATH with a step of"),
        (["--use", "train=a", "--use", "train=b"], "--use train is given twice; give one path"),
        (["--use", "train=nowhere-to-be-found"], "nowhere-to-be-found: nothing there"),
        (["--use", "sample=."], "not an image set marked as synthetic in its images.json; real images must not get"),
        (["--use", "report=x"], "--use report: no step reads what it makes; leave it out with --skip report"),
        (["--skip", "export"], "--skip export: later steps read what it makes; skip learn, verify, report, or give"),
        (["--skip", "gan"], "--synthetic dirichlet does without a GAN"),
        (["--until", "synthesise"], "--until synthesise: not a step of this chain; it is left out"),
        (["--from", "learn", "--until", "train"], "--from learn lies behind --until train"),
        (["--skip", "fly"], "'fly' is not one of 'train', 'gan', 'sample'"),
        (["--preset", "large"], "'large' is not one of 'smoke', 'small', 'paper'"),
    ],
)
def test_wrong_use(arguments, said, gascnn, tmp_path):
    found = gascnn("chain", "--data", "digits", *arguments, "-o", tmp_path / "run")
    assert (found.status, said in found.error) == (2, True), found.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("mnist", "data set mnist is not there, and step train reads it (not made yet); run: gascnn data fetch mnist"),
        ("nowhere", "data set nowhere is not there, and step train reads it (not made yet); put it back, or give --us"),
    ],
)
def test_images_that_are_not_there(data, said, gascnn, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = gascnn("chain", "--data", data, "-o", tmp_path / "run")
    assert (found.status, said in found.error) == (2, True), found.err
    assert not list(tmp_path.iterdir())


def test_images_of_one_class_alone(gascnn, tmp_path):
    """The step's own words on the screen; the manifest keeps none that name the user's files."""
    images = tmp_path / "scans" / "healthy"
    images.mkdir(parents=True)
    for number in range(20):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(images / f"{number}.png")
    found = gascnn("chain", "--data", tmp_path / "scans", "--preset", "smoke", "-o", tmp_path / "run")
    assert found.status == 2
    said = (
        f"step train failed, exit status 2: {tmp_path / 'scans'}: 1 class; at least two class folders are needed; what"
    )
    assert found.error.startswith(said)
    record = json.loads((tmp_path / "run" / "manifest.json").read_text())["steps"]["train"]
    assert record["status"] == "failed"
    assert record["error"] == "exit status 2; what it said names files of the data set and is not kept"
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(b"scans/" in path.read_bytes() or b"/scans" in path.read_bytes() for path in written)
    assert not (tmp_path / "run" / "ann").exists()
