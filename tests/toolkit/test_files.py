"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import textwrap

import pytest

from gascnn.toolkit import files
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.files import atomic_folder, atomic_path, sha256_file, write_json


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def half_written(manager, error):
    """What fails in the middle."""
    with manager as temporary:
        (temporary / "marker" if temporary.is_dir() else temporary).write_text("half")
        raise error


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "deep" / "model.net"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        assert temporary.parent.parent == target.parent
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert everything(tmp_path) == ["new", "new/deep", "new/deep/model.net"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o600 == 0o600


def test_an_older_file_is_replaced(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert everything(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception(tmp_path, error):
    old = tmp_path / "old"
    old.write_text("old")
    for target in (old, tmp_path / "new", tmp_path / "made" / "for" / "it"):
        with pytest.raises(error):
            half_written(atomic_path(target), error)
    assert old.read_text() == "old"
    assert everything(tmp_path) == ["old"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="could not write"), atomic_path(tmp_path / "a"):
        pass
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "match"),
    [
        (errno.ENOSPC, "the disk is full; free some space or write elsewhere with -o; nothing was left behind"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "that file system is read-only"),
        (errno.EACCES, "no permission to write there; choose another place"),
        (errno.EFBIG, "the file would exceed the size limit of this process"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_went_wrong_is_said(tmp_path, number, match):
    with pytest.raises(DataError, match=match):
        half_written(atomic_path(tmp_path / "a"), OSError(number, os.strerror(number)))
    assert everything(tmp_path) == []


def test_a_file_size_limit_leaves_nothing(tmp_path):
    """A real one, in a process of its own: what a full disk does, without filling one."""
    script = """
        import resource, signal, sys
        from gascnn.toolkit.errors import DataError
        from gascnn.toolkit.files import atomic_folder, atomic_path
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        target = sys.argv[1]
        for manager in (lambda: atomic_path(target + "/sub/file"), lambda: atomic_folder(target + "/folder", "m")):
            try:
                with manager() as temporary:
                    path = temporary / "m" if temporary.is_dir() else temporary
                    path.write_bytes(bytes(5000))
            except DataError as error:
                sys.stdout.write(str(error) + chr(10))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.count("the file would exceed the size limit of this process (ulimit -f); nothing was left") == 2
    assert done.stderr == ""
    assert everything(tmp_path) == []


def test_what_is_not_a_file_is_left_alone(tmp_path):
    with pytest.raises(UsageError, match="is a folder; give the name of a file"), atomic_path(tmp_path):
        pass
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for device in (pipe, os.devnull):
        with pytest.raises(UsageError, match="is not a regular file"), atomic_path(device):
            pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(DataError, match="could not write"), atomic_path(tmp_path / "a" / "b") as temporary:
        temporary.write_text("x")
    assert everything(tmp_path) == ["a"]


# --- folders ---------------------------------------------------------------------------------------------------------


def fill(path, text):
    with atomic_folder(path, "marker") as folder:
        (folder / "marker").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "data").write_text(text)


def test_a_folder_appears_whole_and_is_replaced_whole(tmp_path):
    target = tmp_path / "a" / "bundle"
    fill(target, "one")
    (target / "left-over").write_text("")
    fill(target, "two")
    assert everything(tmp_path) == ["a", "a/bundle", "a/bundle/marker", "a/bundle/sub", "a/bundle/sub/data"]
    assert (target / "sub" / "data").read_text() == "two"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "b").mkdir()
    fill(tmp_path / "b", "x")
    assert (tmp_path / "b" / "marker").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_older_folder_survives_an_exception(tmp_path, error):
    target = tmp_path / "bundle"
    fill(target, "old")
    before = everything(tmp_path)
    for path in (target, tmp_path / "x" / "y"):
        with pytest.raises(error):
            half_written(atomic_folder(path, "marker"), error)
    assert everything(tmp_path) == before
    assert (target / "marker").read_text() == "old"


def test_an_older_folder_comes_back_if_the_new_one_cannot_be_put_there(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    fill(target, "old")
    before = everything(tmp_path)
    replace = os.replace

    def failing(source, destination):
        if str(source).endswith("new"):
            raise OSError(errno.EIO, "no")
        replace(source, destination)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(DataError, match="could not write"):
        fill(target, "new")
    assert everything(tmp_path) == before
    assert (target / "marker").read_text() == "old"


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"own holds other files \(no marker in it\); give the name of a new folder"):
        fill(tmp_path / "own", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file; give the name of a folder"):
        fill(tmp_path / "file", "x")
    assert everything(tmp_path) == ["file", "own", "own/thesis.tex"]


# --- JSON and hashes -------------------------------------------------------------------------------------------------


def test_json_is_plain_and_readable(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Äpfel", "n": [1, 2.5, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n  "name": "Äpfel",\n  "n": [\n    1,\n    2.5,\n    null\n  ]\n}\n'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_cannot_hold_leaves_nothing(tmp_path, value):
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", value)
    assert everything(tmp_path) == []


def test_sha256(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    (tmp_path / "b").write_bytes(b"")
    assert sha256_file(tmp_path / "b") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
