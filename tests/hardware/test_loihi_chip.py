"""The chip's path in the real Lava, with a stand-in for the extension that drives the chip (``loihi_extension``).

Lava loads and compiles the network, chooses models by ``Loihi2HwCfg`` and runs; the models it takes for the chip's are
its own bit-accurate ones. What compiles for neuro-cores and talks to a board is not here.
"""

import json
import os
import secrets
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from gascnn.exporters.netx import write_netx
from gascnn.hardware import lava, loihi
from gascnn.hardware.lava import supervisor
from gascnn.hardware.lava.worker import guard
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

pytestmark = pytest.mark.lava

EXTENSION = Path(__file__).with_name("loihi_extension")
WORKER = supervisor.WORKER
WHERE = "import json, sys, sysconfig; print(json.dumps([sys._base_executable, sysconfig.get_path('purelib')]))"


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def with_extension(tmp_path_factory):
    """Lava's environment and the stand-in beside it."""
    found = lava.find_lava()
    assert found is not None, "Lava is missing: run make setup"
    asked = subprocess.run([found.python, "-c", WHERE], capture_output=True, text=True, check=True)
    interpreter, packages = json.loads(asked.stdout)
    home = tmp_path_factory.mktemp("with-extension")
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to(interpreter)
    (home / "pyvenv.cfg").write_text(f"home = {Path(interpreter).parent}\ninclude-system-site-packages = false\n")
    site = home / "lib" / "python3.10" / "site-packages"
    site.mkdir(parents=True)
    (site / "paths.pth").write_text(f"{packages}\n{EXTENSION}\n")
    return home / "bin" / "python"


@pytest.fixture
def chip(with_extension, tmp_path, monkeypatch):
    """A machine with the extension and SLURM, whose partition is ``kp``."""
    for name in ("NXSDKHOST", "HOST_BINARY", "PARTITION", "BOARD", "LOIHI_GEN", "SLURM", "NOSLURM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GASCNN_LAVA_PYTHON", str(with_extension))
    monkeypatch.setenv("PARTITION", "kp")
    program(
        tmp_path / "bin" / "sinfo", "echo 'PARTITION AVAIL TIMELIMIT NODES STATE NODELIST'; echo 'kp up 1 1 idle b1'"
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where everything temporary goes, and the prefix of its shared memory."""
    folder = tmp_path / f"gascnn-test-{secrets.token_hex(4)}"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(supervisor, "PREFIX", f"{folder.name}-")
    return folder


def conv_network(**changes):
    """A convolution and a dense layer of random even weights that fire now and then."""
    generator = np.random.default_rng(3)
    kernel = 2 * generator.integers(-20, 40, (4, 2, 3, 3))
    matrix = 2 * generator.integers(-20, 30, (5, 4 * 3 * 3))
    slow = CubaNeuron(np.array(150), current_decay=np.array(3000), voltage_decay=np.array(200))
    conv = ConvLayer((4, 3, 3), kernel, (2, 2), (1, 1), (1, 1), 1, slow)
    dense = DenseLayer((5,), matrix, CubaNeuron(np.array(120), voltage_decay=np.array(100)), flatten=True)
    return NetxNetwork(InputLayer((2, 6, 6)), (conv, dense), **changes)


def random_spikes(shape, images=2, steps=6):
    return (np.random.default_rng(1).random((images, steps, *shape)) < 0.3).astype(np.uint8)


def assert_nothing_left(temporary):
    assert list(guard.SHARED_MEMORY.glob(f"*{temporary.name}-*")) == []
    assert [path for path in temporary.iterdir() if path.suffix != ".log"] == []


def test_images_and_profile(chip, temporary):
    network, seen = conv_network(), []
    spikes = random_spikes((2, 6, 6))

    found = loihi.run(network, spikes, read="layers", profile_steps=20, progress=seen.append, time_limit_s=300)

    expected = simulate(network, spikes, record="spikes")
    assert expected.output_counts.any()
    for ours, theirs in zip(found.spikes, expected.spikes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(found.counts, expected.counts, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found.output_counts, expected.output_counts)
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)
    assert found.deviation is None
    assert found.host == "SLURM, kp (N3B3)"
    assert len(found.image_s) == 2
    assert seen[-1] == 2.0
    profile = found.profile
    # Six input steps and two layers: three images are the fewest with 20 steps.
    assert (profile.steps, profile.steps_per_image, profile.chips) == (24, 8, 8)
    assert profile.mean_time_per_step_us == 12.0
    assert profile.time_per_step_us == (10.0, 12.0, 14.0)
    assert profile.time_per_image_s == pytest.approx(96e-6)
    # Of eight chips, seven idle at 0.1 W each.
    assert profile.total_power_w == pytest.approx(1.25 - 0.7)
    assert profile.static_power_w == pytest.approx(0.1)
    assert profile.dynamic_power_w == pytest.approx(0.45)
    assert profile.energy_per_image_j == pytest.approx(0.55 * 96e-6)
    assert profile.cores[1] == loihi.CoreActivity(1, 200, 40, 6, 8)
    assert profile.memory_used_share == (0.5, 0.25)
    assert_nothing_left(temporary)


def test_graded_input_and_a_bias_at_work_before_the_image(chip, temporary, tmp_path):
    matrix = 2 * np.array([[1, 2, 0], [3, -1, 1], [0, 5, -2]])
    first = DenseLayer((3,), matrix, CubaNeuron(np.array(40)), bias=np.array([9, 30, 0]))
    second = DenseLayer((3,), 10 * matrix, CubaNeuron(np.array(40)))
    network = NetxNetwork(InputLayer((3,)), (first, second), input_bits=8)
    write_netx(network, tmp_path / "a.net")
    pixels = np.random.default_rng(2).integers(0, 20, (2, 8, 3)).astype(np.uint8)

    found = loihi.run(tmp_path / "a.net", pixels, record="counts", input_bits=8, time_limit_s=300)

    expected = simulate(network, pixels)
    assert expected.output_counts.any()
    assert len(found.counts) == 1
    np.testing.assert_array_equal(found.counts[0], expected.counts[1])
    np.testing.assert_array_equal(found.output_counts, expected.output_counts)
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)
    assert found.spikes is None
    assert found.profile is None
    assert_nothing_left(temporary)


HOSTS = f"""
import json, os, runpy
runpy.run_path({str(WORKER)!r})["provide_package"]()
from gascnn.hardware.lava.worker.loihi import use_host
told = []
for variables in json.loads(os.environ["ASKED"]):
    for name in ("NXSDKHOST", "HOST_BINARY", "PARTITION", "BOARD", "LOIHI_GEN", "PATH"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        told.append([use_host(), {{n: os.environ.get(n) for n in ("SLURM", "NXSDKHOST", "BOARD", "PARTITION")}}])
    except RuntimeError as error:
        told.append([str(error), None])
print(json.dumps(told))
"""


def test_the_host(chip, with_extension, tmp_path):
    program(tmp_path / "bin" / "ping", 'test "$1" = there && echo PING')
    path = os.environ["PATH"]
    asked = [
        {"PATH": path},
        {"PATH": path, "NXSDKHOST": "there", "HOST_BINARY": "bin/server", "LOIHI_GEN": "N3C1"},
        {"PATH": path, "NXSDKHOST": "gone"},
        {"PATH": str(tmp_path)},
        {"PATH": path, "PARTITION": "kp", "BOARD": "b1"},
        {"PATH": path, "LOIHI_GEN": "N4"},
    ]
    environment = {**os.environ, "ASKED": json.dumps(asked)}

    done = subprocess.run([with_extension, "-I", "-c", HOSTS], capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    slurm, ethernet, gone, nowhere, board, generation = json.loads(done.stdout.splitlines()[-1])
    assert slurm[0] == "SLURM, any board (N3B3)"
    assert slurm[1] == {"SLURM": "1", "NXSDKHOST": None, "BOARD": None, "PARTITION": None}
    assert ethernet[0] == "there (N3C1)"
    assert ethernet[1] == {"SLURM": None, "NXSDKHOST": "there", "BOARD": None, "PARTITION": None}
    assert board[0] == "SLURM, b1 kp (N3B3)"
    assert board[1] == {"SLURM": "1", "NXSDKHOST": None, "BOARD": "b1", "PARTITION": "kp"}
    for refused, reason in ((gone, "ping gone"), (nowhere, "sinfo")):
        assert refused[0].startswith("no host with a Loihi 2 (")
        assert reason in refused[0]
        assert refused[0].endswith("set NXSDKHOST to the address of a board, or run where SLURM has one")
    assert generation[0] == "LOIHI_GEN is 'N4'; it must be one of N2A2, N3B2, N3B3, N3C1, N3D1"


def test_without_the_extension():
    with pytest.raises(BackendError, match=r"no Loihi: .* has no lava-loihi extension"):
        loihi.run(conv_network(), random_spikes((2, 6, 6)))


def test_the_time_limit(chip, temporary):
    with pytest.raises(BackendError, match=r"^Lava failed.*: no result within the time limit of 0.5 s"):
        loihi.run(conv_network(), random_spikes((2, 6, 6)), time_limit_s=0.5)
    assert_nothing_left(temporary)
