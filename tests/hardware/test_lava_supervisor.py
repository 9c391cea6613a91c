"""The supervisor against workers that fail in every way; none of them needs Lava."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gascnn.hardware.lava import supervisor
from gascnn.hardware.lava.environment import LavaEnvironment
from gascnn.hardware.lava.worker import guard
from gascnn.toolkit.errors import BackendError

PREAMBLE = """
import json, os, signal, sys, time
from pathlib import Path
folder, events, lifeline = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def say(event, **values):
    os.write(events, (json.dumps({"event": event, **values}) + "\\n").encode())
"""
GUARDED = """
import runpy
runpy.run_path(%r)["provide_package"]()
from gascnn.hardware.lava.worker import guard
guardian = guard.start_guardian(lifeline, folder, closing=events)
guard.die_with_parent()
"""
PYTHON = LavaEnvironment(Path(sys.executable), "3", "0", "0", "this interpreter")


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Makes the supervisor start a script of ours; everything temporary goes to a folder that must end up empty."""
    temporary = tmp_path / f"gascnn-test-{secrets.token_hex(4)}"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(supervisor, "PREFIX", f"{temporary.name}-")

    def use(body, guarded=False):
        script = tmp_path / "worker.py"
        script.write_text(PREAMBLE + (GUARDED % str(supervisor.WORKER) if guarded else "") + body)
        monkeypatch.setattr(supervisor, "WORKER", script)
        return temporary

    return use


def supervise(total_s=30.0, inactivity_s=30.0, progress=None):
    with supervisor.job_folder() as folder:
        supervisor.supervise(PYTHON, folder, supervisor.TimeLimits(total_s, inactivity_s), progress)


def processes_of(temporary):
    """Processes that were started with this folder in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(temporary).encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def shared_memory_of(temporary):
    return list(guard.SHARED_MEMORY.glob(f"*{temporary.name}-*"))


def assert_nothing_left(temporary, logs=0):
    assert processes_of(temporary) == []
    left = sorted(temporary.iterdir())
    assert len(left) == logs, left
    assert all(path.suffix == ".log" for path in left)
    assert shared_memory_of(temporary) == []


def test_a_worker_that_finishes(worker):
    temporary = worker('say("imported"); say("network", number=1, networks=1); say("image", number=1); say("finished")')

    supervise()

    assert_nothing_left(temporary)


def test_the_worker_gets_a_clean_environment(worker, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    temporary = worker(
        'names = [n for n in os.environ if n.startswith("PYTHON")]\n'
        'ok = not names and os.environ["TMPDIR"] == str(folder) == os.getcwd() and os.getsid(0) == os.getpid()\n'
        'say("finished") if ok else say("error", cause=str((names, dict(os.environ))))'
    )

    supervise()

    assert_nothing_left(temporary)


def test_its_error_is_told_in_one_line_and_its_log_kept(worker):
    temporary = worker(
        'say("network", number=2, networks=3); say("image", number=4); print("a trace")\n'
        'say("error", cause="ValueError: it broke")'
    )

    with pytest.raises(BackendError, match=r"^Lava failed at image 4 of network 2 of 3: ValueError: it broke; ") as e:
        supervise()

    log = Path(re.search(r"is in (\S+)$", str(e.value)).group(1))
    assert log.parent == temporary
    assert log.read_text() == "a trace\n"
    assert_nothing_left(temporary, logs=1)


def test_a_worker_that_ends_early(worker):
    temporary = worker('sys.exit("no module named lava")')

    with pytest.raises(BackendError, match=r"ended with status 1 \(no module named lava\)"):
        supervise()

    assert_nothing_left(temporary, logs=1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed(worker, number):
    temporary = worker(f"os.kill(os.getpid(), {int(number)})")

    with pytest.raises(BackendError, match=f"its process was killed by {number.name}$"):
        supervise()

    assert_nothing_left(temporary)


def test_a_worker_that_never_ends_meets_the_total_limit(worker):
    temporary = worker("while True:\n    say('imported'); time.sleep(0.05)")

    with pytest.raises(BackendError, match=r"no result within the time limit of 0.5 s"):
        supervise(total_s=0.5)

    assert_nothing_left(temporary)


def test_a_worker_without_a_sign_of_life_meets_the_other_limit(worker):
    temporary = worker("time.sleep(60)")
    started = time.monotonic()

    with pytest.raises(BackendError, match=r"no sign of life for 0.5 s"):
        supervise(inactivity_s=0.5)

    assert time.monotonic() - started < 20
    assert_nothing_left(temporary)


def test_progress_is_a_sign_of_life(worker):
    temporary = worker("time.sleep(1.5); say('finished')")
    steps = iter(range(10_000))

    supervise(inactivity_s=1.0, progress=lambda: next(steps))

    assert_nothing_left(temporary)


def test_a_worker_that_hangs_after_finishing_is_ended(worker, monkeypatch):
    monkeypatch.setattr(supervisor, "_END_LIMIT_S", 0.3)
    temporary = worker("say('finished'); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")

    supervise()

    assert_nothing_left(temporary)


def test_a_worker_that_talks_nonsense(worker):
    temporary = worker("os.write(events, b'hello\\n'); time.sleep(60)")

    with pytest.raises(BackendError, match=r"its worker said b'hello', which is no event"):
        supervise()

    assert_nothing_left(temporary)


CHILDREN = """
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
Path("/dev/shm/" + folder.name + ".abc").write_bytes(b"left over")
Path("/dev/shm/sem." + folder.name + ".abc").write_bytes(b"left over")
"""


def test_children_and_shared_memory_go_with_the_worker(worker):
    temporary = worker(CHILDREN + "os.kill(os.getpid(), signal.SIGKILL)")

    with pytest.raises(BackendError, match="SIGKILL"):
        supervise()

    assert_nothing_left(temporary)


def test_an_interrupt_cleans_up(worker):
    temporary = worker(CHILDREN + "time.sleep(60)", guarded=True)

    def interrupt():
        if shared_memory_of(temporary):
            raise KeyboardInterrupt
        return 0

    with pytest.raises(KeyboardInterrupt):
        supervise(progress=interrupt)

    assert_nothing_left(temporary)


def test_nothing_is_left_when_the_guardian_is_killed(worker):
    temporary = worker("os.kill(guardian, signal.SIGKILL); say('finished'); os.waitpid(guardian, 0)", guarded=True)

    supervise()

    assert_nothing_left(temporary)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_everything_ends_with_the_parent(worker, number):
    temporary = worker(CHILDREN + "say('imported'); time.sleep(60)", guarded=True)
    code = (
        "import sys; from pathlib import Path\n"
        "from gascnn.hardware.lava import supervisor\n"
        "from gascnn.hardware.lava.environment import LavaEnvironment\n"
        f"supervisor.WORKER, supervisor.PREFIX = Path({str(supervisor.WORKER)!r}), {supervisor.PREFIX!r}\n"
        "environment = LavaEnvironment(Path(sys.executable), '3', '0', '0', 'this interpreter')\n"
        "with supervisor.job_folder() as folder:\n"
        "    supervisor.supervise(environment, folder, supervisor.TimeLimits())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(temporary)})
    _wait_for(lambda: len(shared_memory_of(temporary)) == 2)
    assert len(processes_of(temporary)) == 4  # parent, worker, guardian, the worker's child

    parent.send_signal(number)
    parent.wait()

    _wait_for(lambda: not processes_of(temporary))
    assert_nothing_left(temporary)


def _wait_for(condition, limit_s=20.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_an_interpreter_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = LavaEnvironment(tmp_path / "gone", "3", "0", "0", "this interpreter")

    with (
        supervisor.job_folder() as folder,
        pytest.raises(BackendError, match=r"could not start .*gone: No such file"),
    ):
        supervisor.supervise(gone, folder, supervisor.TimeLimits())

    assert_nothing_left(tmp_path)


def test_a_temporary_folder_that_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    with pytest.raises(BackendError, match=r"no temporary folder for Lava .*set TMPDIR"), supervisor.job_folder():
        pass


def test_group_members_leaves_out_the_dead():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    assert list(guard.group_members(process.pid)) == [process.pid]

    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert list(guard.group_members(process.pid)) == []
    process.wait()


def test_events_survive_being_cut_anywhere(worker):
    line = json.dumps({"event": "image", "number": 12}) + "\n" + json.dumps({"event": "finished"}) + "\n"
    temporary = worker(
        f"for byte in {line.encode()!r}:\n    os.write(events, bytes([byte])); time.sleep(0.002)\ntime.sleep(0.2)"
    )

    supervise()

    assert_nothing_left(temporary)
