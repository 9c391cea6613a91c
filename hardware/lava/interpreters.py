"""Find a Python that works by running it: names on PATH may be shims that only print an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gascnn.hardware.lava.environment import PYTHON
from gascnn.toolkit.errors import BackendError

Tell = Callable[[str], None]

_NAME = f"python{PYTHON[0]}.{PYTHON[1]}"
_VERSION = f"{PYTHON[0]}.{PYTHON[1]}"
_TRY_LIMIT_S = 30
_FETCH_LIMIT_S = 1800
# What Lava and the packages it imports need of a Python; some builds lack the compiled ones.
_MODULES = "bz2, ctypes, ensurepip, lzma, multiprocessing.shared_memory, ssl, sys, venv"
_TRY = f"import {_MODULES}; print(*sys.version_info[:2])"
_CONDA_FOLDERS = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", ".conda")


def find_python() -> Path | None:
    """A working Python 3.10 with everything an environment for Lava needs, or None."""
    return next((path for path in candidates() if works(path)), None)


def candidates() -> Iterator[Path]:
    """Where a Python 3.10 may be, likeliest first, each file once: this one, PATH, pyenv, conda, the system, /opt."""
    seen: set[str] = set()
    for path in _places():
        if os.access(path, os.X_OK) and not path.is_dir() and str(path) not in seen:
            seen.add(str(path))
            yield path


def works(python: Path) -> bool:
    """Whether it runs, is a Python 3.10, and can make environments."""
    try:
        result = subprocess.run(
            [str(python), "-I", "-c", _TRY],
            capture_output=True,
            text=True,
            timeout=_TRY_LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return result.stdout.split() == [str(n) for n in PYTHON]


def fetch_python(folder: Path, tell: Tell) -> Path:
    """Download a Python 3.10 with uv, from PATH or else installed into a temporary environment.

    Args:
        folder: where the Python goes.
        tell: told what is done.

    Raises:
        BackendError: uv could not be had, or could not download it.
    """
    remedy = f"install Python {_VERSION} (as pyenv, conda or your distribution do) and run it again"
    with tempfile.TemporaryDirectory(prefix="gascnn-uv-") as temporary:
        uv = shutil.which("uv") or _install_uv(Path(temporary), tell, remedy)
        tell(f"downloading Python {_VERSION}")
        variables = {**os.environ, "UV_PYTHON_INSTALL_DIR": str(folder)}
        _run([str(uv), "python", "install", _VERSION], variables, f"uv could not download Python {_VERSION}", remedy)
    found = next((p for p in sorted(folder.glob(f"*/bin/{_NAME}")) if works(p)), None)
    if found is None:
        raise BackendError(f"the Python {_VERSION} that uv downloaded to {folder} does not run; {remedy}")
    return found


def _install_uv(folder: Path, tell: Tell, remedy: str) -> Path:
    tell("installing uv, to download Python with")
    failed = "there is no uv on PATH and it could not be installed"
    _run([sys.executable, "-m", "venv", str(folder / "env")], dict(os.environ), failed, remedy)
    python = folder / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"]
    _run(pip, dict(os.environ), failed, remedy)
    return folder / "env" / "bin" / "uv"


def _run(command: list[str], variables: dict[str, str], failed: str, remedy: str) -> None:
    try:
        subprocess.run(
            command,
            env=variables,
            capture_output=True,
            text=True,
            timeout=_FETCH_LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise BackendError(f"{failed} ({lines[-1].strip() if lines else error}); {remedy}") from error


def _places() -> Iterator[Path]:
    if sys.version_info[:2] == PYTHON:
        yield Path(sys.executable)
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield Path(entry or ".").absolute() / _NAME
    home = Path.home()
    for root in (os.environ.get("PYENV_ROOT"), home / ".pyenv"):
        if root:
            yield from sorted(Path(root).glob(f"versions/{_VERSION}*/bin/{_NAME}"), reverse=True)
    conda = [home / name for name in _CONDA_FOLDERS]
    if prefix := os.environ.get("CONDA_PREFIX"):
        conda.insert(0, Path(prefix))
    if executable := os.environ.get("CONDA_EXE"):
        conda.insert(0, Path(executable).parent.parent)
    for folder in conda:
        yield folder / "bin" / _NAME
        yield from sorted(folder.glob(f"envs/*/bin/{_NAME}"))
    for system in ("/usr/bin", "/usr/local/bin"):
        yield Path(system) / _NAME
    yield from sorted(Path("/opt").glob(f"*/bin/{_NAME}"))
    yield from sorted(Path("/opt").glob(f"*/*/bin/{_NAME}"))
