"""A contender's process: what it may do wrong, and that it is gone afterwards."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gascnn.benchmarks.child import Child
from gascnn.benchmarks.contenders import CONTENDERS
from gascnn.toolkit.errors import BackendError

READY = """
import json, os, subprocess, sys, time
def say(**values):
    print(json.dumps(values), flush=True)
say(ok=True, versions={}, options=[])
"""


def serving(answer, before=""):
    """A script that answers every order with the same values."""
    return f"{READY}{before}\nfor line in sys.stdin: say(ok=True, **{answer})"


@pytest.fixture
def start(tmp_path):
    def begin(code, name="sinabs", python=sys.executable, **limits):
        script = tmp_path / "script.py"
        script.write_text(code)
        return Child(CONTENDERS[name], tmp_path / "plan.json", 2, Path(python), script=script, **limits)

    return begin


def gone(pid):
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_what_it_says_is_told_and_what_it_prints_is_not(start):
    with start(serving("{'back': json.loads(line)}", "sys.stderr.write('noise')")) as child:
        assert child.ask("time", images=3)["back"] == {"do": "time", "images": 3}
        assert child.threads == 2


def test_threads_and_isolation_reach_the_process(start, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    code = serving("{'arguments': sys.argv[1:], 'path': sys.path, 'variables': dict(os.environ)}")
    with start(code) as child:
        told = child.ask("check")
    assert told["arguments"][0] == "sinabs"
    assert told["arguments"][2] == "2"
    assert "/nowhere" not in told["path"]
    assert told["variables"]["OMP_NUM_THREADS"] == "2"
    assert "OMP_WAIT_POLICY" not in told["variables"]
    with start(code, name="ours-1-thread") as child:
        assert child.ask("check")["variables"]["OMP_NUM_THREADS"] == "1"


def test_it_and_its_children_end_with_the_block(start):
    before = "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with start(serving("{'pids': [os.getpid(), other.pid]}", before)) as child:
        pids = child.ask("check")["pids"]
    assert all(gone(pid) for pid in pids)


def test_one_that_is_busy_is_ended_at_once(start):
    code = READY + "sys.stdin.readline()\ntime.sleep(600)"
    child = start(code, time_limit_s=1.0)
    started = time.monotonic()
    with child, pytest.raises(BackendError, match="sinabs: no answer within 1 s"):
        child.ask("check")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('out of everything')", r"sinabs: its process ended with status 1 \(out of everything\)"),
        ("import os; os.kill(os.getpid(), 9)", "sinabs: its process ended, killed by SIGKILL"),
        ("print('hello', flush=True)", "sinabs: its process said b'hello', which is no answer"),
        ("print('[]', flush=True)", r"sinabs: its process said b'\[\]', which is no answer"),
        ('print(\'{"ok": false, "error": "ImportError: torch"}\', flush=True)', "sinabs: ImportError: torch"),
    ],
)
def test_how_it_can_fail(start, code, message):
    with pytest.raises(BackendError, match=message):
        start(code)


def test_an_interpreter_that_cannot_be_started(start, tmp_path):
    with pytest.raises(BackendError, match=r"sinabs: could not start .*none: No such file"):
        start(READY, python=tmp_path / "none")


def test_the_real_worker_says_which_framework_is_missing(tmp_path):
    """The worker's own file runs in any interpreter, here one that has torch but no snnTorch."""
    (tmp_path / "plan.json").write_text('{"steps": 1, "layers": [], "input": "input.npy"}')
    np.save(tmp_path / "input.npy", np.zeros((1, 1, 2)))
    with pytest.raises(BackendError, match=r"snntorch: PackageNotFoundError: .*snntorch"):
        Child(CONTENDERS["snntorch"], tmp_path / "plan.json", 1, Path(sys.executable))
