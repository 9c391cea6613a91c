"""A step's process: its last words, and that it ends with the chain however that ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from gascnn.toolkit.chain.process import run_command

# Runs one command as the chain does; the command notes its process id and that of a process of its own, and waits.
PARENT = """
import os, signal, sys
from pathlib import Path
from gascnn.toolkit.chain import process
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored, as under nohup
folder, wish = Path(sys.argv[1]), sys.argv[2]
process._INTERRUPT_LIMIT_S = 0.5
process._START = '''
import os, signal, subprocess, sys, time
from gascnn.toolkit.chain.child import die_with
die_with(int(sys.argv[1]))
if sys.argv[4] == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
own = subprocess.Popen(["sleep", "600"])
with open(sys.argv[2] + "/ids.part", "w") as file:
    file.write(f"{os.getpid()} {own.pid}")
os.rename(sys.argv[2] + "/ids.part", sys.argv[2] + "/ids")
time.sleep(600)
'''
lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
import fcntl
fcntl.flock(lock, fcntl.LOCK_EX)
process.run_command([wish], folder, folder, lock)
"""


def start(folder, wish):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder), wish], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (folder / "ids").exists():
        assert time.monotonic() < deadline
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.02)
    return parent, [int(word) for word in (folder / "ids").read_text().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pid):
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("wish", ["obedient", "stubborn"])
def test_ctrl_c_leaves_no_process(wish, tmp_path):
    parent, ids = start(tmp_path, wish)
    assert all(alive(pid) for pid in ids)
    parent.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in parent.communicate(timeout=120)[1]
    assert not any(alive(pid) for pid in ids)


def test_a_killed_chain_takes_its_step_along(tmp_path):
    parent, (step, own) = start(tmp_path, "obedient")
    try:
        parent.kill()
        parent.wait()
        wait_until_gone(step)
        assert not alive(step)
        lock = os.open(tmp_path / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more
        os.close(lock)
    finally:
        parent.stderr.close()
        os.kill(own, signal.SIGKILL)


def test_status_and_last_words(tmp_path, capfd):
    with open(tmp_path / "lock", "w") as lock:
        good = run_command(["--version"], tmp_path, tmp_path, lock.fileno())
        bad = run_command(["data", "fly"], tmp_path, tmp_path, lock.fileno())
    said = capfd.readouterr()
    assert (good.status, good.last_line) == (0, "")
    assert said.out.startswith("gascnn, version ")
    assert bad.status == 2
    assert said.err.strip().splitlines()[-1] == f"error: {bad.last_line}"
    assert "No such command 'fly'" in bad.last_line


def test_a_step_runs_in_the_runs_folder_and_imports_nothing_from_there(tmp_path, capfd, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "click.py").write_text("raise SystemExit('taken from the folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GASCNN_DATA", "sets")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "mnist.npz").write_bytes(b"no zip file")
    with open(tmp_path / "lock", "w") as lock:
        ended = run_command(["data", "list", "--json", "list.json"], folder, tmp_path, lock.fileno())
    assert ended.status == 0, capfd.readouterr().err
    assert str(tmp_path / "sets") in (folder / "list.json").read_text()
