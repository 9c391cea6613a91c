"""The installer, with a Python and a pip made for the purpose; the real one is what `make setup` runs."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest

from gascnn.hardware import lava
from gascnn.hardware.lava import environment, install, interpreters
from gascnn.toolkit.errors import BackendError

# A Python that makes environments holding itself, and whose pip does what the file `pip` beside it says.
FAKE = """#!/bin/sh
base=@BASE@
case "$*" in
    *"-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo venv >> "$base/calls" ;;
    *"-m pip"*) echo "pip start $*" >> "$base/calls"; . "$base/pip"; echo "pip end" >> "$base/calls" ;;
    *"importlib.metadata"*) cat "$base/versions" ;;
    *"ensurepip"*) echo 3 10 ;;
    *) exit 9 ;;
esac
"""
VERSIONS = {"python_version": "3.10.99", "lava_nc": "0.10.0", "lava_dl": "0.6.0", "loihi": False}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with the fake Python, its pip and what was called; trying the result is left out."""
    base = tmp_path / "fake"
    base.mkdir()
    python = base / "python3.10"
    python.write_text(FAKE.replace("@BASE@", str(base)))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    (base / "pip").write_text("echo 'Collecting lava-nc'\necho 'Downloading lava_nc-0.10.0.whl (9 MB)'\nsleep 0.3\n")
    (base / "versions").write_text(json.dumps(VERSIONS))
    (base / "calls").write_text("")
    monkeypatch.setattr(environment, "_current", lambda: None)
    monkeypatch.delenv("GASCNN_LAVA_PYTHON", raising=False)
    monkeypatch.setenv("GASCNN_LAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(interpreters, "find_python", lambda: python)
    monkeypatch.setattr(install, "_try", lambda found: None)
    return base


def calls(base):
    return [line.split()[0] if "pip" not in line else " ".join(line.split()[:2]) for line in _lines(base)]


def _lines(base):
    return (base / "calls").read_text().splitlines()


def test_it_installs_once(fake, tmp_path, monkeypatch):
    tried, told = [], []

    def attempt(found):
        tried.append((found.python, (tmp_path / "home" / environment.MARKER).exists()))

    monkeypatch.setattr(install, "_try", attempt)

    made = lava.install_lava(progress=told.append)

    assert made.python == tmp_path / "home" / "env" / "bin" / "python"
    assert made == lava.find_lava()
    assert tried == [(made.python, False)], "the marker must be written after the try"
    assert calls(fake) == ["venv", "pip start", "pip end"]
    pip = next(line for line in _lines(fake) if line.startswith("pip start"))
    assert "lava-nc==0.10.0 lava-dl==0.6.0" in pip
    assert "numpy==1.26.4" in (tmp_path / "home" / "constraints.txt").read_text().splitlines()
    assert "Downloading lava_nc-0.10.0.whl (9 MB)" in told
    assert not any("Collecting" in line for line in told)
    assert not (tmp_path / "home" / "tmp").exists()

    assert lava.install_lava() == made
    assert calls(fake) == ["venv", "pip start", "pip end"]


def test_without_a_listener_nothing_is_printed(fake, capfd):
    lava.install_lava()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("left", ["half an environment", "an environment without its Python", "another version"])
def test_what_is_not_whole_is_built_again(fake, tmp_path, left):
    home = tmp_path / "home"
    if left == "half an environment":
        (home / "env" / "lib").mkdir(parents=True)
    else:
        lava.install_lava()
        if left == "another version":
            marker = json.loads((home / environment.MARKER).read_text())
            (home / environment.MARKER).write_text(json.dumps({**marker, "lava_dl": "0.5.0"}))
        else:
            environment.environment_python(home).unlink()
    (home / "env" / "old").write_text("")
    (fake / "calls").write_text("")
    told = []

    lava.install_lava(progress=told.append)

    assert "removing what an interrupted installation left" in told
    assert calls(fake) == ["venv", "pip start", "pip end"]
    assert not (home / "env" / "old").exists()
    assert lava.find_lava() is not None


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        (
            "echo 'Collecting lava-nc'; echo 'ERROR: No matching distribution found for lava-nc==0.10.0'; exit 1",
            r"^Lava could not be installed: ERROR: No matching distribution found for lava-nc==0.10.0; everything pip ",
        ),
        (
            "echo 'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device'; exit 1",
            r"^the disk filled up while Lava was installed to .*home; free 10 GB and run it again$",
        ),
        ("exit 3", r"^Lava could not be installed: status 3; everything pip said is in .*install.log$"),
    ],
)
def test_pip_fails(fake, tmp_path, pip, message):
    (fake / "pip").write_text(pip)

    with pytest.raises(BackendError, match=message) as error:
        lava.install_lava()

    assert "\n" not in str(error.value)
    assert (tmp_path / "home" / "install.log").exists()
    assert not (tmp_path / "home" / "env").exists()
    assert lava.find_lava() is None


def test_pip_installs_something_else(fake, tmp_path):
    (fake / "versions").write_text(json.dumps({**VERSIONS, "lava_dl": "0.5.0"}))

    with pytest.raises(BackendError, match=r"pip installed lava-nc 0.10.0 and lava-dl 0.5.0; see .*install.log"):
        lava.install_lava()

    assert not (tmp_path / "home" / "env").exists()


def test_an_environment_in_which_lava_does_not_work(fake, tmp_path, monkeypatch):
    def broken(found):
        raise BackendError("Lava failed: it does not work")

    monkeypatch.setattr(install, "_try", broken)

    with pytest.raises(BackendError, match="it does not work"):
        lava.install_lava()

    assert lava.find_lava() is None
    assert not (tmp_path / "home" / "env").exists()


def test_too_little_space(fake, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage(20 << 30, 18 << 30, 2 << 30))

    with pytest.raises(BackendError, match=r"Lava needs 10 GB in .* 2.1 GB are free; free some space or set"):
        lava.install_lava()

    assert calls(fake) == []


def test_no_python(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(interpreters, "find_python", lambda: None)
    with pytest.raises(BackendError, match=r"no working Python 3.10 found, which Lava needs; install one"):
        lava.install_lava(fetch_python=False)

    fetched = []

    def fetch(folder, tell):
        fetched.append(folder)
        return fake / "python3.10"

    monkeypatch.setattr(interpreters, "fetch_python", fetch)
    assert lava.install_lava() == lava.find_lava()
    assert fetched == [tmp_path / "home" / "python"]


def test_a_place_that_cannot_be_written(fake, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GASCNN_LAVA_HOME", str(tmp_path / "file" / "home"))

    with pytest.raises(BackendError, match=r"cannot write to .*file/home \(Not a directory\); set GASCNN_LAVA_HOME"):
        lava.install_lava()


def test_two_at_once_install_once(fake):
    (fake / "pip").write_text("sleep 1.5")
    told, results = [], []
    threads = [
        threading.Thread(target=lambda: results.append(lava.install_lava(progress=told.append))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [lava.find_lava()] * 2
    assert calls(fake) == ["venv", "pip start", "pip end"]
    assert sum("another installation" in line for line in told) == 1


def test_an_interrupt_ends_pip_and_removes_the_half(fake, tmp_path):
    (fake / "pip").write_text("sleep 60")

    def interrupt(line):
        if "installing lava-nc" in line:
            signal.setitimer(signal.ITIMER_REAL, 0.5)

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            lava.install_lava(progress=interrupt)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert calls(fake) == ["venv", "pip start"]
    assert not (tmp_path / "home" / "env").exists()


KILLED = """
from pathlib import Path
from gascnn.hardware.lava import environment, install, interpreters
environment._current = lambda: None
interpreters.find_python = lambda: Path({python!r})
install.install_lava()
"""


def test_after_a_kill_the_next_one_waits_for_the_orphaned_pip(fake):
    (fake / "pip").write_text("sleep 3")
    code = KILLED.format(python=str(fake / "python3.10"))
    first = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    deadline = time.monotonic() + 30
    while "pip start" not in calls(fake):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    (fake / "pip").write_text("sleep 0.1")
    told = []

    lava.install_lava(progress=told.append)

    assert any("another installation" in line for line in told)
    assert "removing what an interrupted installation left" in told
    assert calls(fake) == ["venv", "pip start", "pip end", "venv", "pip start", "pip end"]


def test_the_trial_run_looks_at_the_spikes(fake, monkeypatch):
    monkeypatch.undo()
    found = lava.LavaEnvironment(fake / "python3.10", "3.10", "0.10.0", "0.6.0", "gascnn lava install")
    right = np.zeros((1, 4, 3), dtype=bool)
    right[0, [1, 2, 3], [0, 1, 2]] = True
    monkeypatch.setattr(install, "run", lambda *_, **__: SimpleNamespace(spikes=[right]))
    install._try(found)

    monkeypatch.setattr(install, "run", lambda *_, **__: SimpleNamespace(spikes=[~right]))
    with pytest.raises(BackendError, match="gives wrong spikes"):
        install._try(found)


@pytest.mark.lava
def test_the_trial_run_in_the_real_lava():
    found = lava.find_lava()
    assert found is not None, "Lava is missing: run make setup"

    install._try(found)
    assert lava.install_lava() == found
