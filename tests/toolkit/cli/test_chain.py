"""``gascnn chain``: the smoke preset with all of it real: commands, processes, Lava, a kill, deleted images."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

GASCNN = [sys.executable, "-c", "from gascnn.toolkit.cli import main; main()"]
STEPS = ["train", "gan", "sample", "convert", "export", "learn", "verify", "report"]
IMAGES = 300


def digits_as_pictures(folder):
    """300 of scikit-learn's digits, one folder a class."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:IMAGES], digits.target[:IMAGES], strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype("uint8")).save(place / f"patient-{number}.png")


def sha256(path):
    """Independent of the project: of a folder, of sha256sum's lines."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(f"{sha256(path / name)}  {name}\n" for name in files).encode()).hexdigest()


@dataclass
class Story:
    """What happened: until the samples, images deleted, killed in spike learning, run to its end, run once more."""

    root: Path
    arguments: list[str] = field(default_factory=list)
    real: set[str] = field(default_factory=set)
    manifests: dict[str, dict] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)

    @property
    def folder(self):
        return self.root / "run"

    def run(self, name, *more, folder="run"):
        arguments = [*GASCNN, *self.arguments, "-o", folder, *more]
        ended = subprocess.run(arguments, cwd=self.root, capture_output=True, text=True, timeout=800, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        self.outputs[name] = ended.stdout + ended.stderr
        self.manifests[name] = manifest(self.root / folder)


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def killed_in(story, step):
    """Start it, and kill it as soon as the step has a checkpoint; returns its child processes that are still there."""
    chain = subprocess.Popen(
        [*GASCNN, *story.arguments, "-o", "run"], cwd=story.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    work, deadline = story.folder / "work" / step, time.monotonic() + 800
    while not (work / "last.safetensors").exists():
        assert chain.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started = children(chain.pid)
    assert len(started) == 1
    os.kill(chain.pid, signal.SIGKILL)
    chain.wait()
    end = time.monotonic() + 60
    while any(running(pid) for pid in started) and time.monotonic() < end:
        time.sleep(0.02)
    return [pid for pid in started if running(pid)]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    told = Story(tmp_path_factory.mktemp("chain"))
    images = told.root / "private"
    digits_as_pictures(images)
    told.real = {sha256(images), *(sha256(file) for file in images.rglob("*.png"))}
    told.arguments = ["chain", "--data", "private", "--preset", "smoke", "--synthetic", "gan"]
    told.run("samples", "--until", "sample")
    mine = told.root / "models of mine" / "resnet"
    shutil.copytree(told.folder / "ann", mine)
    told.run("given", "--use", f"train={mine}", "--until", "sample", folder="given")
    shutil.rmtree(images)
    told.left = killed_in(told, "learn")
    told.manifests["killed"] = manifest(told.folder)
    shutil.copytree(told.folder, told.root / "whole")
    told.run("rest")
    told.run("again")
    told.run("whole", "--from", "learn", "--until", "learn", folder="whole")
    told.run("given", "--use", f"train={mine}", "--until", "learn", folder="given")
    return told


pytestmark = [pytest.mark.lava, pytest.mark.slow, pytest.mark.timeout(3000)]


def test_every_step_is_done_and_every_hash_is_right(story):
    found = story.manifests["rest"]
    assert found["steps"]["synthesise"] == {"status": "skipped"}
    assert [name for name, record in found["steps"].items() if record["status"] == "done"] == STEPS
    for name in STEPS:
        for path, output in found["steps"][name]["outputs"].items():
            assert output["sha256"] == sha256(story.folder / path)
            for file, digest in output.get("files", {}).items():
                assert digest == sha256(story.folder / path / file)


def test_every_simulated_spike_is_lavas(story):
    verified = json.loads((story.folder / "results" / "verify.json").read_text())
    assert (verified["passed"], verified["backend"], verified["stock_images"]) == (True, "lava", 1)
    assert verified["model"]["sha256"] == sha256(story.folder / "learnt.net")
    assert sum(layer["spikes"] for layer in verified["layers"]) > 0


def test_nothing_behind_the_samples_has_read_the_real_images(story):
    steps = story.manifests["rest"]["steps"]
    read = {name: story.real & set(steps[name]["inputs"].values()) for name in STEPS}
    assert [name for name in STEPS if read[name]] == ["train", "gan", "sample"]
    assert "private" not in " ".join(steps[name]["command"] for name in STEPS[3:])


@pytest.mark.parametrize("folder", ["run", "given"])
def test_no_path_of_the_users_is_in_the_folder(folder, story):
    """Neither of the data set's, nor of a ResNet that was given with ``--use``."""
    files = [file for file in (story.root / folder).rglob("*") if file.is_file()]
    assert {"sample.json", "learn.json"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert str(story.root).encode() not in content, file
        assert b"models of mine" not in content, file
        assert b"patient-" not in content, file


def test_the_report_says_that_its_images_are_synthetic(story):
    report = json.loads((story.folder / "report" / "report.json").read_text())
    assert report["data"]["name"] == "synthetic-gan"
    assert "synthetic-gan" in (story.folder / "report" / "report.html").read_text()
    assert "note: private is not there: the report is on synthetic images" in story.outputs["rest"]
    assert "report on SYNTHETIC images: run/report/report.json" in story.outputs["rest"]


def test_what_was_done_before_the_kill_is_not_done_again(story):
    killed, rest = story.manifests["killed"]["steps"], story.manifests["rest"]["steps"]
    assert (killed["learn"]["status"], "outputs" in killed["learn"]) == ("running", False)
    for name in ("train", "gan", "sample", "convert", "export"):
        assert rest[name] == killed[name]
        assert f"{name}: up to date" in story.outputs["rest"]
    for name in ("train", "gan", "sample"):
        assert rest[name] == story.manifests["samples"]["steps"][name]
    assert story.outputs["rest"].count(": up to date") == 5
    assert story.left == []


def test_a_killed_step_ends_as_one_that_was_not(story):
    """Of the network's integers; the file also says how long learning took."""
    killed, whole = (story.manifests[name]["steps"]["learn"] for name in ("rest", "whole"))
    assert killed["inputs"] == whole["inputs"]
    assert killed["figures"] == whole["figures"]
    export = story.manifests["rest"]["steps"]["export"]
    assert killed["figures"]["network_digest"] != export["figures"]["network_digest"]


def test_a_second_run_makes_nothing(story):
    assert story.manifests["again"] == story.manifests["rest"]
    assert story.outputs["again"].count(": up to date") == len(STEPS)
    assert not (story.folder / "work").exists()
