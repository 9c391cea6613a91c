"""What ``--use`` gives: no real images behind the samples, and no place or file name of the user's in the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gascnn.toolkit.chain.given import without_places
from gascnn.toolkit.chain.process import Ended
from gascnn.toolkit.chain.runner import StepFailed
from gascnn.toolkit.errors import UsageError


@pytest.mark.parametrize(
    "record", [None, "", "[]", "{}", '{"synthetic": false}', '{"synthetic": "true"}', '{"synthetic": 1}', "[" * 9999]
)
@pytest.mark.parametrize("step", ["sample", "synthesise", "join"])
def test_real_images_do_not_get_behind_the_samples(step, record, runs, tmp_path):
    images = tmp_path / "scans"
    (images / "ill").mkdir(parents=True)
    (images / "ill" / "bob.png").write_text("a picture")
    if record is not None:
        (images / "images.json").write_text(record)
    with pytest.raises(UsageError, match=rf"^--use {step}=.*scans: not an image set marked as synthetic in its ") as no:
        runs.make(synthetic="both", use={step: images})
    assert len(str(no.value).splitlines()) == 1
    assert runs.commands.take() == []
    assert not runs.folder.exists()


@pytest.mark.parametrize("step", ["sample", "synthesise", "join"])
def test_the_data_set_itself_does_not(step, runs):
    with pytest.raises(UsageError, match="not an image set marked as synthetic"):
        runs.make(synthetic="both", use={step: runs.data})


def test_a_folder_without_files_is_not_there(runs, tmp_path):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / ".DS_Store").write_text("view")
    with pytest.raises(UsageError, match=r"--use train=.*ann: nothing there"):
        runs.make(use={"train": tmp_path / "ann"})


def test_no_path_and_no_file_name_of_what_is_given_is_kept(runs, image_set, tmp_path):
    (image_set / "bob.png").write_text("a picture")
    ann = tmp_path / "jane" / "ann"
    ann.mkdir(parents=True)
    (ann / "of-jane.json").write_text("{}")
    use = {"train": ann, "sample": image_set}
    runs.commands.fail = {"report": Ended(1, f"{ann}/model.json: damaged")}
    with pytest.raises(StepFailed):
        runs.make(synthetic="both", use=use)
    assert runs.steps()["report"]["error"] == "exit status 1: ann/model.json: damaged"
    runs.commands.fail = {}
    runs.make(synthetic="both", use=use)
    result = json.loads((runs.folder / "results" / "learn.json").read_text())
    assert {"path": "ann"} in result["models"]
    files = [path for path in runs.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        content = file.read_text()
        for word in ("jane", "bob", str(tmp_path / "mine")):
            assert word not in content, file


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/me/ann", "ann"),
        ("/home/me/ann/model.json: damaged", "ann/model.json: damaged"),
        ("/home/me/ann-2 /home/me/ann2 /home/me/ann.", "/home/me/ann-2 /home/me/ann2 ann."),
        ("/home/me/ann/old of /home/me/ann", "old of ann"),
        ("ann", "ann"),
    ],
)
def test_places_become_names(text, left):
    assert without_places(text, [Path("/home/me/ann"), Path("/home/me/ann/old")]) == left
