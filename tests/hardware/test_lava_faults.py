"""The real Lava, killed, broken and timed out in mid-run: one error, and nothing left behind."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from gascnn.exporters.netx import write_netx
from gascnn.hardware import lava
from gascnn.hardware.lava import supervisor
from gascnn.hardware.lava.worker import guard
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork

pytestmark = pytest.mark.lava

WORKER = supervisor.WORKER
LONG = np.ones((1, 200_000, 3), dtype=np.uint8)


@pytest.fixture
def model():
    assert lava.find_lava() is not None, "Lava is missing: run make setup"
    # By subtraction: for these Lava starts without PyTorch, in a quarter of the time.
    neuron = CubaNeuron(np.array(1), current_decay=np.array(0), voltage_decay=np.array(4096))
    layer = DenseLayer((3,), 2 * np.eye(3, dtype=np.int64), neuron, self_weight=np.array([2, 2, 2]))
    return NetxNetwork(InputLayer((3,)), (layer, layer), reset="subtract")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where everything temporary goes, and the prefix of its shared memory."""
    folder = tmp_path / f"gascnn-test-{secrets.token_hex(4)}"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(supervisor, "PREFIX", f"{folder.name}-")
    return folder


def processes_of(temporary):
    """Process ids and command lines of what was started with this folder in its environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(temporary).encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text()
    return found


def wait_for(condition, limit_s=90.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def assert_nothing_left(temporary):
    assert processes_of(temporary) == {}
    assert list(guard.SHARED_MEMORY.glob(f"*{temporary.name}-*")) == []
    assert [path for path in temporary.iterdir() if path.suffix != ".log"] == []


def lava_processes(temporary):
    """The worker, and the processes of Lava it forked, less the guardian, which has a process group of its own."""
    workers = [pid for pid, line in processes_of(temporary).items() if str(supervisor.WORKER) in line]
    worker = next(pid for pid in workers if _asked(os.getsid, pid) == pid)
    return worker, [pid for pid in workers if pid != worker and _asked(os.getpgid, pid) == worker]


def _asked(question, pid):
    """None if the process has ended since it was listed: those of an image's graph end at any time."""
    try:
        return question(pid)
    except ProcessLookupError:
        return None


def patched(tmp_path, code):
    """A worker that changes Lava before it starts."""
    script = tmp_path / "patched.py"
    script.write_text(f"import runpy\n{code}\nrunpy.run_path({str(WORKER)!r}, run_name='__main__')\n")
    return script


@pytest.mark.parametrize("victim", ["worker", "child"])
def test_kill_nine(model, temporary, victim):
    killed = []

    def kill(images):
        if images and not killed:
            worker, children = lava_processes(temporary)
            assert len(children) >= 8  # source, four synapses, two populations, runtime service
            killed.append(worker if victim == "worker" else children[secrets.randbelow(len(children))])
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(BackendError, match=r"^Lava failed at image 1: .*(SIGKILL|manager ended)"):
        lava.run(model, LONG, progress=kill, time_limit_s=60)

    assert killed
    assert_nothing_left(temporary)


def test_kill_nine_of_the_parent(model, temporary, tmp_path):
    write_netx(model, tmp_path / "a.net")
    code = (
        "import numpy as np; from gascnn.hardware import lava; from gascnn.hardware.lava import supervisor\n"
        f"supervisor.PREFIX = {supervisor.PREFIX!r}\n"
        f"lava.run({str(tmp_path / 'a.net')!r}, np.ones((1, 200_000, 3), dtype=np.uint8))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(temporary)})
    # The first bytes of a layer's output: Lava runs.
    wait_for(lambda: any(path.stat().st_size > 100 for path in temporary.glob("*/run_0_layer_01.bin")))
    assert list(guard.SHARED_MEMORY.glob(f"{temporary.name}-*"))
    assert len(processes_of(temporary)) > 8

    parent.kill()
    parent.wait()

    wait_for(lambda: not processes_of(temporary), 20)
    assert_nothing_left(temporary)


@pytest.mark.parametrize(
    ("code", "stock_models", "cause"),
    [
        pytest.param(
            "from lava.proc.lif.models import PyLifModelBitAcc as Model\n"
            "run = Model.run_spk\n"
            "def broken(self):\n"
            "    if self.time_step == 30: raise ValueError('broken on purpose')\n"
            "    run(self)\n"
            "Model.run_spk = broken",
            True,
            "ValueError: broken on purpose",
            id="in a step",
        ),
        pytest.param(
            "from lava.proc.lif.models import PyLifModelBitAcc as Model\n"
            "def broken(self): raise ValueError('broken on purpose')\n"
            "Model.scale_bias = broken",
            False,
            "ValueError: broken on purpose",
            id="in a step of a faster model",
        ),
        pytest.param(
            "from lava.proc.lif.models import PyLifModelBitAcc as Model\n"
            "def broken(self, parameters): raise ValueError('broken at birth')\n"
            "Model.__init__ = broken",
            False,
            "ValueError: broken at birth",
            id="in the making",
        ),
        pytest.param(
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))",
            False,
            r"OSError: \[Errno 27\] File too large",
            id="in writing",
        ),
    ],
)
def test_an_exception_in_a_process_of_lava(model, temporary, tmp_path, monkeypatch, code, stock_models, cause):
    monkeypatch.setattr(supervisor, "WORKER", patched(tmp_path, code))

    with pytest.raises(BackendError, match=f"^Lava failed at image 1: {cause}; what it printed") as error:
        lava.run(model, LONG, time_limit_s=60, stock_models=stock_models)

    assert "\n" not in str(error.value)
    log = Path(re.search(r"is in (\S+)$", str(error.value)).group(1)).read_text()
    assert "Traceback" in log
    assert_nothing_left(temporary)


def test_the_time_limit(model, temporary):
    with pytest.raises(BackendError, match="no result within the time limit of 6 s"):
        lava.run(model, LONG, time_limit_s=6)

    assert_nothing_left(temporary)


def test_a_good_run_leaves_nothing_and_a_long_temporary_path_does_not_matter(model, temporary, monkeypatch):
    deep = temporary / ("x" * 100) / ("y" * 60)  # longer than the path of a socket may be
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    result = lava.run(model, LONG[:, :5])

    np.testing.assert_array_equal(result.spikes[1][0, :, 0], [0, 0, 1, 1, 1, 1, 1])
    assert processes_of(temporary) == {}
    assert list(guard.SHARED_MEMORY.glob(f"*{temporary.name}-*")) == []
    assert list(deep.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(temporary):
    """In Lava's own models each image has a graph of its own, and Lava by itself would keep them: 29 MB each here."""
    neuron = CubaNeuron(np.array(100), current_decay=np.array(0), voltage_decay=np.array(4096))
    weight = np.random.default_rng(0).integers(-50, 60, (1500, 1000)) * 2
    layer = DenseLayer((1500,), weight, neuron, self_weight=np.full(1500, 200))
    model = NetxNetwork(InputLayer((1000,)), (layer,), reset="subtract")
    resident_mb = {}

    def look(images):
        worker, _ = lava_processes(temporary)
        status = Path(f"/proc/{worker}/status").read_text()
        resident_mb[int(images)] = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024

    spikes = np.ones((12, 3, 1000), dtype=np.uint8)
    lava.run(model, spikes, progress=lambda n: look(n) if n < 12 else None, stock_models=True)

    assert max(resident_mb) >= 10
    assert max(resident_mb.values()) - resident_mb[2] < 60
