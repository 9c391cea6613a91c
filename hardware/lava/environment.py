"""Where Lava is: its own Python 3.10 environment, or this interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gascnn.toolkit.errors import BackendError

LAVA_NC, LAVA_DL = "0.10.0", "0.6.0"
"""The releases whose arithmetic was compared with the simulator, and whose internals the worker knows."""

PYTHON = (3, 10)
"""The only Python those releases run on."""

MARKER = "installed.json"
"""Written last by the installer: without it an installation was interrupted."""

Source = Literal["GASCNN_LAVA_PYTHON", "gascnn lava install", "this interpreter"]

_PROBE_LIMIT_S = 60
_VERSIONS = """
import importlib.metadata, importlib.util, json, platform
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
print(json.dumps({
    "python_version": platform.python_version(), "lava_nc": version("lava-nc"), "lava_dl": version("lava-dl"),
    "loihi": there("lava.utils.loihi2_profiler"),
}))
"""


@dataclass(frozen=True)
class LavaEnvironment:
    """An interpreter that has Lava.

    Attributes:
        python: the interpreter.
        python_version: such as ``3.10.13``.
        lava_nc, lava_dl: versions of the two packages.
        source: how it was found.
    """

    python: Path
    python_version: str
    lava_nc: str
    lava_dl: str
    source: Source


def lava_home() -> Path:
    """Folder of our own Lava environment: ``$GASCNN_LAVA_HOME``, else ``gascnn/lava`` in the user's data folder."""
    if home := os.environ.get("GASCNN_LAVA_HOME"):
        return Path(os.path.abspath(home))
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "gascnn" / "lava"


def environment_python(home: Path) -> Path:
    """The interpreter of the environment in ``home``."""
    return home / "env" / "bin" / "python"


def find_lava() -> LavaEnvironment | None:
    """Find Lava without importing it: ``$GASCNN_LAVA_PYTHON``, then our own environment, then this interpreter.

    Returns:
        The environment, or None where there is none.

    Raises:
        BackendError: ``$GASCNN_LAVA_PYTHON`` is set to something that does not have Lava.
    """
    return _chosen() or installed(lava_home()) or _current()


def require_lava() -> LavaEnvironment:
    """Like :func:`find_lava`.

    Raises:
        BackendError: there is none; says how to install it.
    """
    environment = find_lava()
    if environment is None:
        raise BackendError(
            f"Lava is not installed (looked in {lava_home()} and this Python {sys.version_info[0]}."
            f"{sys.version_info[1]}); run: gascnn lava install"
        )
    return environment


def installed(home: Path) -> LavaEnvironment | None:
    """The environment that :func:`gascnn.hardware.lava.install.install_lava` finished in ``home``, if any."""
    python = environment_python(home)
    try:
        values = json.loads((home / MARKER).read_text(encoding="utf-8"))
        environment = LavaEnvironment(
            python, values["python_version"], values["lava_nc"], values["lava_dl"], "gascnn lava install"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # The environment's interpreter is a link to a Python that may have been removed since.
    usable = (environment.lava_nc, environment.lava_dl) == (LAVA_NC, LAVA_DL) and os.access(python, os.X_OK)
    return environment if usable else None


def probe(python: Path) -> dict[str, Any]:
    """Versions an interpreter reports, without importing Lava.

    Returns:
        ``python_version``, ``lava_nc``, ``lava_dl`` (None where missing) and ``loihi``, whether Intel's extension for
        the chip is there (what ``lava.utils.loihi.is_installed()`` looks for).

    Raises:
        BackendError: it does not run.
    """
    try:
        result = subprocess.run(
            [str(python), "-I", "-c", _VERSIONS], capture_output=True, text=True, timeout=_PROBE_LIMIT_S, check=True
        )
        values: dict[str, Any] = json.loads(result.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise BackendError(f"{python} is not a Python that runs ({_first_line(error)})") from error
    return values


def lava_info() -> dict[str, Any]:
    """What ``gascnn lava info`` and ``gascnn doctor`` tell.

    Returns:
        ``found``, ``home`` (where our own environment is or would be), ``problem`` (None, or one line that says why
        there is no Lava) and, where found: ``python``, ``python_version``, ``lava_nc``, ``lava_dl``, ``source`` and
        ``loihi``, whether the extension for the chip is there.
    """
    info: dict[str, Any] = {"found": False, "home": str(lava_home()), "problem": None}
    try:
        environment = require_lava()
        info |= {"loihi": probe(environment.python)["loihi"]}
    except BackendError as error:
        return {**info, "problem": str(error)}
    return {**info, **asdict(environment), "python": str(environment.python), "found": True}


def _chosen() -> LavaEnvironment | None:
    value = os.environ.get("GASCNN_LAVA_PYTHON")
    if not value:
        return None
    python = Path(os.path.abspath(value))
    try:
        found = probe(python)
    except BackendError as error:
        raise BackendError(f"GASCNN_LAVA_PYTHON: {error}; correct it or unset it") from error
    if (found["lava_nc"], found["lava_dl"]) != (LAVA_NC, LAVA_DL):
        raise BackendError(
            f"GASCNN_LAVA_PYTHON: {python} has lava-nc {found['lava_nc']} and lava-dl {found['lava_dl']}; "
            f"needed are {LAVA_NC} and {LAVA_DL}; correct it or unset it"
        )
    return LavaEnvironment(python, found["python_version"], LAVA_NC, LAVA_DL, "GASCNN_LAVA_PYTHON")


def _current() -> LavaEnvironment | None:
    if sys.version_info[:2] != PYTHON:
        return None
    try:
        found = probe(Path(sys.executable))
    except BackendError:  # no executable, as in a program that embeds Python
        return None
    if (found["lava_nc"], found["lava_dl"]) != (LAVA_NC, LAVA_DL):
        return None
    return LavaEnvironment(Path(sys.executable), found["python_version"], LAVA_NC, LAVA_DL, "this interpreter")


def _first_line(error: BaseException) -> str:
    stderr = getattr(error, "stderr", None)
    lines = str(stderr or error).strip().splitlines()
    return lines[-1 if stderr else 0] if lines else type(error).__name__
