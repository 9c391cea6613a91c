"""What an earlier pass left: pictures of patients go, finished work stays, checkpoints are not lost by mistake."""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest

from gascnn.toolkit.chain.process import Ended
from gascnn.toolkit.chain.runner import StepFailed
from gascnn.toolkit.errors import UsageError


def stopped(runs, name, how="interrupted", **changes):
    """A pass that ends in a step, whose folder of checkpoints then has a picture of a patient."""
    runs.commands.interrupt, runs.commands.fail = "", {}
    if how == "failed":
        runs.commands.fail = {name: Ended(1, "the disk is full")}
    else:
        runs.commands.interrupt = name
    with pytest.raises((KeyboardInterrupt, StepFailed)):
        runs.make(**{"synthetic": "gan", **changes})
    assert runs.steps()[name]["status"] == how
    runs.commands.interrupt, runs.commands.fail = "", {}
    runs.commands.take()
    (runs.folder / "work" / name / "grid_0.png").write_text("of a patient")


@pytest.mark.parametrize("how", ["interrupted", "failed"])
@pytest.mark.parametrize("step", ["train", "gan", "sample", "learn"])
@pytest.mark.parametrize("going_on", ["the same", "given", "what reads it is given", "another kind", "skipped"])
def test_no_pictures_are_left_however_one_goes_on(going_on, step, how, runs, image_set, tmp_path):
    (tmp_path / "file").write_text("given")
    changes = {"synthetic": "gan"}
    if going_on == "given":
        changes["use"] = {step: image_set if step == "sample" else tmp_path / "file"}
    elif going_on == "what reads it is given":
        changes["use"] = {"sample": image_set, "train": tmp_path / "file", "learn": tmp_path / "file"}
    elif going_on == "another kind":
        changes = {"synthetic": "dirichlet"}
    elif going_on == "skipped":
        changes["skip"] = ["learn"]
    stopped(runs, step, how)
    if going_on == "another kind" and step == "learn":
        with pytest.raises(UsageError, match="begun with synthetic gan, now it is dirichlet"):
            runs.make(**changes)
        runs.make(None, "convert", **changes)
    else:
        runs.make(**changes)
    assert not (runs.folder / "work").exists()
    assert not any(record["status"] in ("interrupted", "failed", "running") for record in runs.steps().values())
    runs.make(**changes)
    assert not (runs.folder / "work").exists()


def test_checkpoints_that_are_waited_for_stay(runs):
    stopped(runs, "gan")
    assert runs.make("train", synthetic="gan") == []
    assert (runs.folder / "work" / "gan" / "checkpoint").exists()
    runs.make(synthetic="gan")
    assert runs.commands.found["gan"] == ["checkpoint", "grid_0.png"]
    assert not (runs.folder / "work").exists()


def test_pictures_of_a_step_that_is_given_go_at_once(runs, tmp_path):
    stopped(runs, "gan")
    (tmp_path / "gan").write_text("another")
    runs.commands.fail = {"sample": Ended(1, "broken")}
    with suppress(StepFailed):
        runs.make(synthetic="gan", use={"gan": tmp_path / "gan"})
    assert [path.name for path in (runs.folder / "work").iterdir()] == ["sample"]


def test_work_done_is_not_forgotten_by_a_skip(runs):
    runs.make()
    learnt = runs.steps()["learn"]
    assert runs.make(skip=["learn"]) == ["verify", "report"]
    assert runs.steps()["learn"] == learnt
    assert "learn: left out; what it made is kept" in runs.said
    assert runs.make() == ["verify", "report"]
    assert runs.steps()["learn"] == learnt
    (runs.folder / "learnt.net").write_text("something else")
    runs.make(skip=["learn"])
    assert runs.steps()["learn"] == {"status": "skipped"}
    assert runs.make() == ["learn", "verify", "report"]


def test_work_done_is_not_forgotten_where_it_is_not_needed(runs, image_set):
    runs.make(synthetic="gan")
    made = runs.steps()["gan"]
    runs.make(synthetic="gan", use={"sample": image_set})
    assert runs.steps()["gan"] == made
    assert runs.make(None, "sample", synthetic="gan")[0] == "sample"
    shutil.rmtree(runs.folder / "gan")
    runs.make(synthetic="gan", use={"sample": image_set})
    assert runs.steps()["gan"] == {"status": "not needed"}


@pytest.mark.parametrize("how", ["interrupted", "failed", "running"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [({"seed": 0}, "seed 1, now it is 0"), ({"seed": 1, "preset": "small"}, "preset smoke, now it is small")],
)
def test_checkpoints_are_not_lost_by_a_forgotten_option(changes, said, how, runs):
    stopped(runs, "train", "failed" if how == "failed" else "interrupted", seed=1)
    manifest = runs.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"interrupted"', f'"{how}"'))
    with pytest.raises(UsageError, match=rf"was begun with {said}; .* --from train"):
        runs.make(synthetic="gan", **changes)
    assert (runs.folder / "work" / "train" / "checkpoint").exists()
    assert runs.make(synthetic="gan", seed=1)[0] == "train"
    assert runs.commands.found["train"] == ["checkpoint", "grid_0.png"]


def test_a_step_that_failed_without_checkpoints_may_be_begun_otherwise(runs):
    stopped(runs, "train", "failed", seed=1)
    shutil.rmtree(runs.folder / "work" / "train")
    (runs.folder / "work" / "train").mkdir()
    assert runs.make("train", seed=0) == ["train"]


def test_checkpoints_are_given_up_on_request(runs):
    stopped(runs, "train", seed=1)
    assert runs.make("train", "train", synthetic="gan", seed=0) == ["train"]
    assert runs.commands.found["train"] == []
