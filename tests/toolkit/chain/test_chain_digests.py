"""SHA-256 of folders and data sets, against sha256sum's own format and hashlib."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import sklearn

from gascnn.toolkit.chain.digests import digest_of, find_data
from gascnn.toolkit.errors import DataError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    (root / "b" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "b" / "deep" / "one").write_bytes(b"1")
    (root / "b" / "two").write_bytes(b"2")
    (root / "a").write_bytes(b"")
    return root


def test_a_folder_is_what_sha256sum_says_of_its_files(folder):
    listed = subprocess.run(
        ["sha256sum", "a", "b/deep/one", "b/two"], cwd=folder, capture_output=True, check=True
    ).stdout
    assert digest_of(folder) == hashlib.sha256(listed).hexdigest()


@pytest.mark.parametrize("change", ["content", "name", "place", "more"])
def test_every_change_of_a_folder_changes_it(change, folder):
    before = digest_of(folder)
    if change == "content":
        (folder / "a").write_bytes(b"x")
    elif change == "name":
        (folder / "a").rename(folder / "c")
    elif change == "place":
        (folder / "b" / "two").rename(folder / "b" / "deep" / "two")
    else:
        (folder / "empty" / "file").write_bytes(b"")
    assert digest_of(folder) != before


def test_a_copy_elsewhere_is_the_same(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert digest_of(folder) == digest_of(tmp_path / "copy")


def test_what_is_not_there_has_none(tmp_path):
    assert digest_of(tmp_path / "nothing") is None
    assert find_data(str(tmp_path / "nothing"), None).sha256 is None
    assert find_data("mnist", tmp_path).sha256 is None


def test_digits_are_the_file_that_scikit_learn_ships():
    file = Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"
    line = f"{hashlib.sha256(file.read_bytes()).hexdigest()}  digits.csv.gz\n"
    found = find_data("digits", None)
    assert (found.name, found.given) == ("digits", "digits")
    assert found.sha256 == hashlib.sha256(line.encode()).hexdigest()


def test_a_named_set_is_its_files(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"numbers")
    line = f"{hashlib.sha256(b'numbers').hexdigest()}  mnist.npz\n"
    assert find_data("mnist", tmp_path).sha256 == hashlib.sha256(line.encode()).hexdigest()


def test_a_path_is_given_absolute_and_called_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "scans.npz").write_bytes(b"real")
    monkeypatch.chdir(tmp_path)
    found = find_data("scans.npz", None)
    assert (found.given, found.name) == (str(tmp_path / "scans.npz"), "scans.npz")
    assert found.sha256 == hashlib.sha256(b"real").hexdigest()


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    for name in ("ill", "well"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(name.encode())
    return root


def listed(**contents):
    lines = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}/1.png\n" for name, text in contents.items())
    return hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("left", ["ill/.DS_Store", ".hidden/1.png", "__MACOSX/1.png", "ill/notes.txt", "README"])
def test_only_what_is_read_of_a_data_set_counts(left, images):
    (images / left).parent.mkdir(exist_ok=True)
    (images / left).write_text("not read")
    assert find_data(str(images), None).sha256 == listed(ill="ill", well="well")
    for name in ("ill", "well"):
        (images / name / "1.png").unlink()
    assert find_data(str(images), None).sha256 is None


def test_what_the_loader_would_refuse_counts(images):
    (images / "ill" / "what").write_text("?")
    assert find_data(str(images), None).sha256 not in (None, listed(ill="ill", well="well"))


def test_hidden_files_of_an_output_do_not_count(folder):
    before = digest_of(folder)
    (folder / ".DS_Store").write_text("view")
    assert digest_of(folder) == before


def test_class_folders_that_are_links_are_hashed(images, tmp_path):
    (images / "well").rename(tmp_path / "elsewhere")
    (images / "well").symlink_to(tmp_path / "elsewhere")
    assert find_data(str(images), None).sha256 == listed(ill="ill", well="well")
    (tmp_path / "elsewhere" / "1.png").write_text("other")
    assert find_data(str(images), None).sha256 == listed(ill="ill", well="other")


def test_a_link_back_is_refused(images):
    (images / "ill" / "round").symlink_to(images)
    with pytest.raises(DataError, match="round: links back to a folder above itself; remove the link"):
        find_data(str(images), None)
