"""A manifest that is damaged or of another kind is refused, by name."""

from __future__ import annotations

import json

import pytest

from gascnn.toolkit.chain.manifest import load_manifest
from gascnn.toolkit.errors import FormatError

GOOD = {
    "format": "gascnn-chain",
    "schema": 1,
    "settings": {"seed": 0},
    "data": {},
    "steps": {
        "train": {
            "status": "done",
            "outputs": {"ann": {"sha256": "00"}, "results/train.json": {"sha256": "22"}},
            "inputs": {"data": "11"},
        },
        "learn": {"status": "given", "outputs": {"mine.net": {"sha256": "33"}}},
        "verify": {"status": "done", "outputs": {"results/verify.json": {"sha256": "44"}}},
        "report": {"status": "failed"},
    },
}


def test_what_is_not_there_is_none(tmp_path):
    assert load_manifest(tmp_path) is None


def test_a_good_one_is_written_as_it_was_read(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    assert load_manifest(tmp_path).to_dict() == GOOD


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "not the manifest of a chain; name a new folder with -o"),
        ({"schema": 2}, "schema 2; this version reads schema 1"),
        ({"settings": []}, "field 'settings' is missing or of the wrong kind"),
        ({"steps": {"train": {"status": "fine"}}}, "step 'train' is not known or not a record"),
        ({"steps": {"fly": {"status": "done"}}}, "step 'fly' is not known or not a record"),
        ({"steps": {"train": {"status": "done", "seconds": "long"}}}, "has a field 'seconds' that does not belong"),
        ({"steps": {"train": {"status": "done", "colour": 1}}}, "has a field 'colour' that does not belong"),
        ({"steps": {"train": {"status": "done", "outputs": {"ann": {}}}}}, "an input or output without a SHA-256"),
        ({"steps": {"train": {"status": "done", "outputs": {"ann": 1}}}}, "an input or output without a SHA-256"),
        ({"steps": {"train": {"status": "done", "inputs": {"data": None}}}}, "an input or output without a SHA-256"),
    ],
)
def test_what_does_not_belong_is_named(change, said, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(FormatError) as raised:
        load_manifest(tmp_path)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("status", "paths"),
    [
        ("done", []),
        ("done", ["ann"]),
        ("done", ["ann", "results/train.json", "/etc/hostname"]),
        ("done", ["ann", "../results/train.json"]),
        ("failed", ["ann", "results/train.json"]),
        ("given", []),
        ("given", ["ann", "results/train.json"]),
    ],
)
def test_outputs_are_exactly_those_of_the_step(status, paths, tmp_path):
    record = {"status": status, "outputs": {path: {"sha256": "00"} for path in paths}}
    (tmp_path / "manifest.json").write_text(json.dumps({**GOOD, "steps": {"train": record}}))
    with pytest.raises(FormatError) as raised:
        load_manifest(tmp_path)
    assert f"step 'train', {status}, has other outputs than that step's; name a new" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 100_000])
def test_what_is_no_manifest_at_all(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=r"manifest.json: not"):
        load_manifest(tmp_path)
