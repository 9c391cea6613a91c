"""What is made, what is kept and why, with stand-ins for the commands."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from gascnn.toolkit.chain.process import Ended
from gascnn.toolkit.chain.runner import StepFailed
from gascnn.toolkit.errors import DataError, UsageError

ALL = ["train", "synthesise", "convert", "export", "learn", "verify", "report"]
WITH_GAN = ["train", "gan", "sample", "convert", "export", "learn", "verify", "report"]


def sha256(path):
    """Independent of the project: of a folder, of sha256sum's lines."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(f"{sha256(path / name)}  {name}\n" for name in files).encode()).hexdigest()


def test_everything_is_made_once(runs):
    assert runs.make() == ALL
    first = runs.manifest()
    assert runs.make() == []
    assert runs.manifest() == first
    assert not (runs.folder / "work").exists()
    assert runs.said[-1] == "[7/7] report: up to date"


def test_the_manifest_has_the_hash_of_everything(runs):
    runs.make(synthetic="gan", seed=3)
    manifest, folder = runs.manifest(), runs.folder
    assert manifest["settings"] == {"data": "scans.npz", "preset": "smoke", "seed": 3, "synthetic": "gan"}
    real = hashlib.sha256(b"real images").hexdigest()
    source = hashlib.sha256('{"a":"ü","b":1}'.encode()).hexdigest()
    assert manifest["data"] == {"sha256": real, "provenance_sha256": source}
    steps = manifest["steps"]
    assert [name for name in steps if steps[name]["status"] == "done"] == WITH_GAN
    assert steps["synthesise"] == {"status": "skipped"}
    for name in WITH_GAN:
        assert steps[name]["command"].startswith("gascnn ")
        for path, output in steps[name]["outputs"].items():
            assert output["sha256"] == sha256(folder / path)
            files = output.get("files", {})
            assert files == {f.name: sha256(f) for f in (folder / path).iterdir()} if files else True
    assert steps["learn"]["inputs"] == {
        "train": sha256(folder / "ann"),
        "sample": sha256(folder / "synthetic-gan"),
        "export": sha256(folder / "converted.net"),
    }
    assert [name for name in WITH_GAN if real in steps[name]["inputs"].values()] == ["train", "gan", "sample", "report"]
    assert steps["train"]["figures"] == {"metrics.test.accuracy": 0.5}
    assert {"python", "gascnn", "torch", "numpy"} == set(steps["train"]["versions"])


@pytest.mark.parametrize(
    ("path", "again"),
    [
        ("ann/model.json", ALL),
        ("synthetic-dirichlet/model.json", ["synthesise", "convert", "export", "learn", "verify", "report"]),
        ("snn/report.json", ["convert", "export", "learn", "verify", "report"]),
        ("learnt.net", ["learn", "verify", "report"]),
        ("results/verify.json", ["verify"]),
        ("report/report.json", ["report"]),
    ],
)
def test_what_was_changed_is_made_again_with_all_that_depends_on_it(path, again, runs):
    runs.make()
    file = runs.folder / path
    before = {name: record["outputs"] for name, record in runs.steps().items() if "outputs" in record}
    file.write_text("something else")
    assert runs.make() == again
    assert {name: record["outputs"] for name, record in runs.steps().items() if "outputs" in record} == before


@pytest.mark.parametrize(
    ("deleted", "again"),
    [
        (["gan"], []),
        (["gan", "synthetic-gan", "snn", "converted.net"], []),
        (["results/verify.json"], ["verify"]),
        (["report"], ["report"]),
        (["learnt.net"], ["learn", "verify", "report"]),
        (["learnt.net", "converted.net"], ["export", "learn", "verify", "report"]),
        (["learnt.net", "synthetic-gan", "gan"], WITH_GAN[1:]),
        (["ann"], WITH_GAN),
    ],
)
def test_what_was_deleted_is_made_again_only_where_it_is_needed(deleted, again, runs):
    runs.make(synthetic="gan")
    for name in deleted:
        path = runs.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert runs.make(synthetic="gan") == again
    assert runs.make(synthetic="gan") == []


def test_until_and_from(runs):
    assert runs.make("synthesise") == ["train", "synthesise"]
    assert runs.make() == ALL[2:]
    assert runs.make(None, "learn") == ["learn", "verify", "report"]
    assert runs.make("convert", "synthesise") == ["synthesise", "convert"]
    assert runs.make() == []  # the same came out
    with pytest.raises(UsageError, match="--from learn lies behind --until convert"):
        runs.make("convert", "learn")
    with pytest.raises(UsageError, match="--until gan: not a step of this chain"):
        runs.make("gan")


def test_steps_that_are_left_out(runs):
    assert runs.make(skip=["learn", "verify", "report"]) == ALL[:4]
    assert runs.steps()["learn"] == {"status": "skipped"}
    assert runs.make(skip=["verify"]) == ["learn", "report"]
    assert runs.make() == ["verify"]


def test_files_that_stand_for_a_step(runs, image_set, tmp_path):
    use = {"sample": image_set}
    assert runs.make(synthetic="gan", use=use) == [name for name in WITH_GAN if name not in ("gan", "sample")]
    steps = runs.steps()
    assert steps["sample"] == {"status": "given", "outputs": {"mine": {"sha256": sha256(image_set)}}}
    assert steps["gan"] == {"status": "not needed"}
    assert steps["convert"]["inputs"]["sample"] == sha256(image_set)
    assert runs.make(synthetic="gan", use=use) == []
    (image_set / "images.npz").write_text("other")
    assert runs.make(synthetic="gan", use=use) == ["convert", "export", "learn", "verify", "report"]
    with pytest.raises(UsageError, match=r"step sample of .*run was given with --use; give it again, or --from sample"):
        runs.make(synthetic="gan")
    assert runs.make(None, "sample", synthetic="gan") == ["gan", *WITH_GAN[2:]]
    with pytest.raises(UsageError, match=r"--use train=.*nowhere: nothing there"):
        runs.make(use={"train": tmp_path / "nowhere"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "begun with seed 0, now it is 1; .* --from train"),
        ({"preset": "small"}, "begun with preset smoke, now it is small; .* --from train"),
        ({"synthetic": "both"}, "begun with synthetic dirichlet, now it is both; .* --from convert"),
    ],
)
def test_no_work_is_thrown_away_for_a_forgotten_option(changes, said, runs):
    runs.make()
    before = runs.manifest()
    with pytest.raises(UsageError, match=said):
        runs.make(**changes)
    assert (runs.commands.take(), runs.manifest()) == ([], before)
    assert "learn" in runs.make(None, said.rpartition(" ")[2], **changes)
    assert runs.make(**changes) == []


def test_another_data_set_is_asked_about(runs):
    runs.make()
    runs.data.write_bytes(b"other images")
    with pytest.raises(UsageError, match=r"begun with other files of scans.npz, now it is those there now; .*train"):
        runs.make()
    assert runs.make(None, "train") == ALL
    assert runs.manifest()["data"]["sha256"] == hashlib.sha256(b"other images").hexdigest()


def test_the_real_images_may_go_once_there_are_samples(runs):
    runs.make("sample", synthetic="gan")
    runs.data.unlink()
    assert runs.make(synthetic="gan") == WITH_GAN[3:]
    steps, real = runs.steps(), hashlib.sha256(b"real images").hexdigest()
    assert [name for name in WITH_GAN if real in steps[name]["inputs"].values()] == ["train", "gan", "sample"]
    assert "--data synthetic-gan" in steps["report"]["command"]
    assert runs.make(synthetic="gan") == []
    runs.data.write_bytes(b"real images")
    assert runs.make(synthetic="gan") == ["report"]
    runs.data.unlink()
    assert runs.make(synthetic="gan") == []  # the report on real images is kept
    assert "--data scans.npz" in runs.steps()["report"]["command"]


@pytest.mark.parametrize("until", ["train", "gan"])
def test_the_real_images_may_not_go_before(until, runs):
    runs.make(until, synthetic="gan")
    runs.data.unlink()
    step = {"train": "gan", "gan": "sample"}[until]
    with pytest.raises(
        DataError, match=rf"scans.npz is not there, and step {step} reads it \(not made yet\); put it b"
    ):
        runs.make(synthetic="gan")
    assert runs.commands.take() == []


@pytest.mark.parametrize(("status", "left"), [(2, 2), (1, 1), (-9, 1), (77, 1)])
def test_a_step_that_fails(status, left, runs):
    runs.commands.fail = {"export": Ended(status, "the disk is full")}
    with pytest.raises(StepFailed, match=r"step export failed, .*: the disk is full; what was made is kept") as raised:
        runs.make()
    assert raised.value.exit_status == left
    how = f"exit status {status}" if status > 0 else "killed by signal 9"
    record = runs.steps()["export"]
    assert (record["status"], record["error"]) == ("failed", f"{how}: the disk is full")
    assert "outputs" not in record
    runs.commands.fail, _ = {}, runs.commands.take()
    assert runs.make() == ALL[3:]
    assert runs.commands.found["export"] == ["checkpoint"]


@pytest.mark.parametrize(
    ("status", "said", "kept"),
    [
        (2, "bob.png: not a picture", "exit status 2; what it said names files of the data set and is not kept"),
        (1, "{data}/bob.png broke", "exit status 1; what it said names files of the data set and is not kept"),
        (1, "the loss is not a number", "exit status 1: the loss is not a number"),
    ],
)
def test_the_manifest_keeps_no_words_that_may_name_the_users_files(status, said, kept, runs):
    said = said.replace("{data}", str(runs.data))
    runs.commands.fail = {"train": Ended(status, said)}
    with pytest.raises(StepFailed, match="step train failed, ") as raised:
        runs.make()
    assert said in str(raised.value)
    assert runs.steps()["train"]["error"] == kept
    runs.commands.fail = {"learn": Ended(2, "no such preset")}
    with pytest.raises(StepFailed, match="step learn failed, "):
        runs.make()
    assert runs.steps()["learn"]["error"] == "exit status 2: no such preset"


def test_a_step_that_writes_nothing_has_failed(runs):
    runs.commands.silent = "learn"
    with pytest.raises(StepFailed, match=r"step learn failed, it did not write learnt.net; what"):
        runs.make()
    assert runs.steps()["learn"]["status"] == "failed"


@pytest.mark.parametrize(
    ("synthetic", "name"), [*(("dirichlet", name) for name in ALL), *(("gan", name) for name in WITH_GAN)]
)
def test_interrupted_at_any_step(synthetic, name, runs):
    steps = {"dirichlet": ALL, "gan": WITH_GAN}[synthetic]
    whole = runs.in_folder("whole")
    whole.make(synthetic=synthetic)
    runs.commands.interrupt = name
    with pytest.raises(KeyboardInterrupt):
        runs.make(synthetic=synthetic)
    assert runs.steps()[name]["status"] == "interrupted"
    begun = steps[: steps.index(name) + 1]
    assert runs.commands.take() == begun
    assert [path.name for path in (runs.folder / "work").iterdir()] == [name]
    runs.commands.interrupt = ""
    assert runs.make(synthetic=synthetic) == steps[len(begun) - 1 :]
    assert runs.commands.found[name] == ["checkpoint"]
    assert not (runs.folder / "work").exists()
    made = [{step: record.get("outputs") for step, record in one.steps().items()} for one in (runs, whole)]
    assert made[0] == made[1]


def test_checkpoints_of_other_inputs_are_not_gone_on_with(runs):
    runs.commands.interrupt = "learn"
    with pytest.raises(KeyboardInterrupt):
        runs.make()
    runs.commands.interrupt = ""
    (runs.folder / "converted.net").write_text("another network")
    runs.make()  # makes the same network again, so that the checkpoints fit
    assert runs.commands.found["learn"] == ["checkpoint"]
    runs.commands.interrupt = "learn"
    with pytest.raises(KeyboardInterrupt):
        runs.make(None, "learn")
    assert runs.commands.found["learn"] == []
    runs.commands.interrupt = ""
    runs.make(None, "train", seed=1)
    assert runs.commands.found["learn"] == []


def test_checkpoints_of_a_chain_killed_at_the_last_moment_are_deleted(runs):
    runs.make()
    (runs.folder / "work" / "train").mkdir(parents=True)
    (runs.folder / "work" / "train" / "picture.png").write_text("of a patient")
    assert runs.make() == []
    assert not (runs.folder / "work").exists()


def test_half_made_outputs_never_count(runs):
    runs.commands.interrupt = "learn"
    with pytest.raises(KeyboardInterrupt):
        runs.make()
    runs.commands.interrupt = ""
    assert runs.commands.take() == ALL[:5]
    (runs.folder / "learnt.net").write_text("half")
    (runs.folder / ".learnt.net.abc123").mkdir()
    (runs.folder / "report").mkdir()
    (runs.folder / "report" / "old").write_text("of nobody")
    assert runs.make() == ALL[4:]
    left = {path.name for path in runs.folder.iterdir()}
    assert ".learnt.net.abc123" not in left
    assert not (runs.folder / "report" / "old").exists()


def test_nobody_elses_folder_is_touched(runs, tmp_path):
    runs.folder.mkdir()
    (runs.folder / "ann").write_text("mine")
    with pytest.raises(UsageError, match=r"run holds other files \(no manifest.json in it\); give the name of a new"):
        runs.make()
    assert [path.name for path in runs.folder.iterdir()] == ["ann"]
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UsageError, match="file is a file; -o names a folder"):
        runs.in_folder("file").make()
    assert runs.commands.take() == []


def test_what_is_refused_leaves_no_folder(runs):
    runs.data.unlink()
    with pytest.raises(DataError, match=r"scans.npz is not there, and step train reads it"):
        runs.make()
    assert not runs.folder.exists()


def test_two_chains_in_one_folder(runs, monkeypatch):
    monkeypatch.setattr("gascnn.toolkit.chain.runner._LOCK_WAIT_S", 0.0)
    runs.make("train")
    inner = runs.chain()

    def run(words, folder, work, lock):
        with pytest.raises(UsageError, match=r"another chain is at work in .*run; wait for it, or name another"):
            inner.make()
        return runs.commands(words, folder, work, lock)

    outer = runs.chain()
    object.__setattr__(outer, "run", run)
    outer.make()
    assert runs.commands.take() == ALL[1:]


def test_a_moved_folder_is_up_to_date(runs):
    runs.make()
    shutil.move(runs.folder, runs.folder.with_name("moved"))
    shutil.move(runs.data.parent, runs.data.parent.with_name("elsewhere"))
    moved = runs.in_folder("moved")
    moved.data = runs.data.parent.with_name("elsewhere") / runs.data.name
    assert moved.make() == []


def test_the_plan_makes_nothing(runs):
    _, planned = runs.chain().planned()
    assert [(one.step.name, one.action, one.reason) for one in planned] == [(n, "make", "not made yet") for n in ALL]
    assert not runs.folder.exists()


def test_the_manifest_is_written_before_and_after_each_step(runs):
    seen = []
    stand_in = runs.commands

    def run(words, folder, work, lock):
        steps = json.loads((folder / "manifest.json").read_text())["steps"]
        seen.append([record["status"] for record in steps.values() if record["status"] != "skipped"])
        return stand_in(words, folder, work, lock)

    chain = runs.chain("convert")
    object.__setattr__(chain, "run", run)
    chain.make()
    assert seen == [["running"], ["done", "running"], ["done", "done", "running"]]
