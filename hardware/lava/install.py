"""Build Lava's own environment: found or fetched Python, exact versions, tried by running a network."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gascnn.hardware.lava import interpreters
from gascnn.hardware.lava.environment import (
    LAVA_DL,
    LAVA_NC,
    MARKER,
    LavaEnvironment,
    environment_python,
    find_lava,
    installed,
    lava_home,
    probe,
)
from gascnn.hardware.lava.run import run
from gascnn.hardware.lava.worker import guard
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.files import write_json
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork

REQUIREMENTS = (f"lava-nc=={LAVA_NC}", f"lava-dl=={LAVA_DL}")

CONSTRAINTS = (
    "asteval==0.9.33",
    "h5py==3.16.0",
    "joblib==1.6.0",
    "matplotlib==3.10.9",
    "networkx==2.8.7",
    "ninja==1.13.2",
    "numpy==1.26.4",
    "opencv-python-headless==4.11.0.86",
    "pillow==10.4.0",
    "scikit-learn==1.7.2",
    "scipy==1.15.3",
    "torch==2.3.1",
    "torchvision==0.18.1",
)
"""What the comparisons with the simulator ran with."""

DISK_BYTES = 9 << 30
"""What the environment (5.7 GB) and the downloaded packages (2.7 GB, until they are unpacked) take together."""

_TELL_INTERVAL_S = 0.2
_LOCK_INTERVAL_S = 0.5

Tell = Callable[[str], None]


def install_lava(progress: Tell | None = None, *, fetch_python: bool = True) -> LavaEnvironment:
    """Make Lava available; does nothing, and quickly, where it is.

    Finds a Python 3.10, or downloads one; makes an environment under :func:`lava_home`; installs lava-nc and lava-dl
    with pinned dependencies (about 4 minutes, 5.7 GB); runs a network of three neurons in it; and only then marks it
    as finished. An interrupted installation is started over; two at once wait for each other.

    Args:
        progress: called with one line for each thing done.
        fetch_python: whether a Python 3.10 may be downloaded where there is none.

    Returns:
        The environment.

    Raises:
        BackendError: no Python 3.10, too little space on the disk, packages that could not be installed, or an
            environment in which Lava does not work; nothing half-made is left behind.
    """
    environment = find_lava()
    if environment is not None:
        return environment
    tell = progress or _tell_nobody
    home = lava_home()
    with _lock(home, tell) as lock:
        # Somebody else may have installed it while this process waited.
        return installed(home) or _build(home, tell, fetch_python, lock)


def _tell_nobody(line: str) -> None:
    del line


@contextlib.contextmanager
def _lock(home: Path, tell: Tell) -> Iterator[int]:
    """Hold the installation's lock; processes that inherit the descriptor hold it with this one."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackendError(f"cannot write to {home} ({error.strerror}); set GASCNN_LAVA_HOME") from error
    try:
        waiting = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    tell(f"another installation to {home} is under way; waiting for it")
                waiting = True
                time.sleep(_LOCK_INTERVAL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _build(home: Path, tell: Tell, fetch: bool, lock: int) -> LavaEnvironment:
    (home / MARKER).unlink(missing_ok=True)
    if (home / "env").exists():
        tell("removing what an interrupted installation left")
        shutil.rmtree(home / "env", ignore_errors=True)
    _check_disk(home)
    python = interpreters.find_python()
    if python is None:
        if not fetch:
            raise BackendError("no working Python 3.10 found, which Lava needs; install one and run it again")
        python = interpreters.fetch_python(home / "python", tell)
    tell(f"Python 3.10: {python}")
    try:
        environment = _fill(home, python, tell, lock)
        tell("running a network of three neurons in it")
        _try(environment)
        values = {name: value for name, value in asdict(environment).items() if name not in ("python", "source")}
        write_json(home / MARKER, {**values, "base_python": str(python)})
    except BaseException:
        shutil.rmtree(home / "env", ignore_errors=True)
        raise
    finally:
        shutil.rmtree(home / "tmp", ignore_errors=True)
    tell(f"Lava is installed in {home}")
    return environment


def _check_disk(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < DISK_BYTES:
        raise BackendError(
            f"Lava needs {DISK_BYTES / 1e9:.0f} GB in {home} while it is installed, and {free / 1e9:.1f} GB are free; "
            "free some space or set GASCNN_LAVA_HOME"
        )


def _fill(home: Path, base: Path, tell: Tell, lock: int) -> LavaEnvironment:
    """Make the environment and install the packages; what the tools print goes to ``install.log``."""
    log = home / "install.log"
    log.unlink(missing_ok=True)
    (home / "tmp").mkdir(exist_ok=True)
    constraints = home / "constraints.txt"
    constraints.write_text("\n".join(CONSTRAINTS) + "\n", encoding="utf-8")
    tell(f"making an environment in {home / 'env'}")
    _run([str(base), "-I", "-m", "venv", str(home / "env")], home, log, _tell_nobody, lock)
    python = environment_python(home)
    tell(f"installing {' and '.join(REQUIREMENTS)} (some minutes; details in {log})")
    pip = [str(python), "-I", "-m", "pip", "install", "--no-input", "--no-cache-dir", "--progress-bar", "off"]
    _run([*pip, "--constraint", str(constraints), *REQUIREMENTS], home, log, tell, lock)
    found = probe(python)
    if (found["lava_nc"], found["lava_dl"]) != (LAVA_NC, LAVA_DL):
        raise BackendError(f"pip installed lava-nc {found['lava_nc']} and lava-dl {found['lava_dl']}; see {log}")
    return LavaEnvironment(python, found["python_version"], LAVA_NC, LAVA_DL, "gascnn lava install")


def _run(command: list[str], home: Path, log: Path, tell: Tell, lock: int) -> None:
    """Run one tool, telling what it starts to download, and end it with this function.

    The tool inherits the lock: if this process is killed, the next installation waits until the tool has ended too.
    """
    start = log.stat().st_size if log.exists() else 0
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": str(home / "tmp"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
                pass_fds=(lock,),
                start_new_session=True,
            )
    except OSError as error:
        raise BackendError(f"could not run {command[0]}: {error.strerror}") from error
    try:
        told = start
        while process.poll() is None:
            time.sleep(_TELL_INTERVAL_S)
            told = _tell_news(log, told, tell)
    finally:
        if process.returncode is None:
            guard.end_group(process.pid)
        process.wait()
    if process.returncode:
        raise BackendError(_reason(log, start, process.returncode, home))


def _tell_news(log: Path, told: int, tell: Tell) -> int:
    """Tell what pip began since byte ``told`` of the log; gives how far was read."""
    with log.open("rb") as file:
        file.seek(told)
        *lines, _ = file.read().split(b"\n")
    for line in lines:
        text = line.decode(errors="replace").strip()
        if text.startswith(("Downloading", "Building", "Installing")):
            tell(text if len(text) <= 100 else text[:99] + "…")
    return told + sum(len(line) + 1 for line in lines)


def _reason(log: Path, start: int, status: int, home: Path) -> str:
    """One line on why a tool failed, from what it printed."""
    text = log.read_bytes()[start:].decode(errors="replace")
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return f"the disk filled up while Lava was installed to {home}; free {DISK_BYTES / 1e9:.0f} GB and run it again"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    said = (errors or lines or [f"status {status}"])[-1]
    return f"Lava could not be installed: {said}; everything pip said is in {log}"


def _try(environment: LavaEnvironment) -> None:
    """Run three neurons that repeat their input one step later.

    Raises:
        BackendError: Lava does not run, or gives other spikes.
    """
    repeat = DenseLayer((3,), 2 * np.eye(3, dtype=np.int64), CubaNeuron(threshold=np.array(1)))
    spikes = np.eye(3, dtype=np.uint8)[None]
    result = run(NetxNetwork(InputLayer((3,)), (repeat,)), spikes, environment=environment)
    expected = np.concatenate([np.zeros((1, 1, 3), dtype=bool), spikes.astype(bool)], axis=1)
    if result.spikes is None or not np.array_equal(result.spikes[0], expected):
        raise BackendError(f"Lava in {environment.python} gives wrong spikes; remove that environment and try again")
