"""What a board needs for PGSL's client: seconds to the first answer, memory at its peak, bytes to install.

Each figure is of a fresh process that imports :mod:`gascnn.hardware.edge`, opens a file and computes images one by one,
on one thread. MB are 10^6 bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from gascnn.benchmarks import machine
from gascnn.benchmarks.ratios import Goal
from gascnn.hardware.lava.worker import guard
from gascnn.toolkit.errors import BackendError, UsageError

FORMAT = 1
"""Of the JSON; counts up when a key changes its meaning."""

MOST_START_S, MOST_INSTALLED_BYTES, MOST_PEAK_BYTES = 1.0, 180_000_000, 200_000_000
NOT_OURS = ("pip", "setuptools", "wheel")
"""Of a fresh environment; a board needs none of them to run."""

_LIMIT_S = 120.0
_INSTALL_LIMIT_S = 1800.0
_LEFT_OUT = ("build", "dist", "docs", "tests", "examples", "*.egg-info", "__pycache__", ".*")
_IMPORTS_SHOWN = 8

# What is imported to tell the result comes after it. The kernel's VmHWM counts from the exec on; ru_maxrss would begin
# with the size of the process that started this one.
_PROBE = """
import time
begun = time.monotonic()
from gascnn.hardware.edge import EdgeModel
imported = time.monotonic()
import sys
import numpy as np
model = EdgeModel(sys.argv[1])
opened = time.monotonic()
shape = (1, *model.metadata.image_shape)
image = (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
model.activations(image)
answered = time.monotonic()
for _ in range(int(sys.argv[2])):
    model.activations(image)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
import json
print(json.dumps([begun, imported, opened, answered, 1024 * peak]))
"""
_VERSIONS = """
import json, platform, sysconfig
import numpy, onnxruntime
from gascnn.exporters.onnx.metadata import own_version
found = {"python": platform.python_version(), "gascnn": own_version(), "numpy": numpy.__version__,
         "onnxruntime": onnxruntime.__version__}
print(json.dumps([found, sysconfig.get_paths()["purelib"]]))
"""

Say = Callable[[str], None]


def measure_footprint(
    models: Mapping[str, Path] | None = None,
    *,
    repeats: int = 15,
    answers: int = 10,
    install: bool = False,
    source: Path | None = None,
    constraints: Path | None = None,
    progress: Say | None = None,
) -> dict[str, Any]:
    """Measure in this environment and, if asked, in one made for it.

    Args:
        models: files of PGSL clients by name; None makes random ones, float32 and int8, of 28x28 and 256x256 (torch).
        repeats: processes that count, for each file; one ahead of them fills the disk's cache.
        answers: images after the first, before memory is looked at.
        install: whether to make a fresh environment with ``gascnn[edge]`` and measure its size and the same in it.
        source: what to install: the repository's root (default: the current folder), of which a copy is built, or a
            wheel.
        constraints: pip's; default: ``constraints.txt`` in ``source``, if it is there.
        progress: told in a line what is being done.

    Returns:
        ``machine``, ``here`` and, with ``install``, ``installed``: each has ``versions``, ``imports`` (the packages
        that take longest) and ``models``: for each file medians of ``start_s`` (from before Python starts to the first
        answer), ``python_s``, ``import_s``, ``open_s``, ``answer_s`` and ``start_without_python_s``, the range of
        ``start_s``, and ``peak_bytes`` (the largest). ``installed`` also has ``bytes`` and ``packages``. ``goals``.

    Raises:
        BackendError: a process failed, or pip could not install.
        UsageError: numbers below 1, a source that is none.
    """
    if repeats < 1 or answers < 0:
        raise UsageError(f"repeats are {repeats} and answers {answers}; at least 1 and 0")
    source = Path.cwd() if source is None else source
    if install:
        _check_source(source)
    tell = progress or _silent
    report: dict[str, Any] = {"format": FORMAT, "machine": machine.describe(), "repeats": repeats, "answers": answers}
    with tempfile.TemporaryDirectory(prefix="gascnn-footprint-") as name:
        folder = Path(name)
        if models is None:
            tell("exporting")
            models = random_models(folder)
        absolute = {name: path.resolve() for name, path in models.items()}
        report["here"] = _environment(Path(sys.executable), absolute, repeats, answers, folder, tell)
        if install:
            python = install_edge(folder / "environment", source, constraints, tell)
            installed = _environment(python, absolute, repeats, answers, folder, tell)
            report["installed"] = {**installed, **installed_size(Path(installed.pop("site_packages")))}
        report["here"].pop("site_packages")
    report["goals"] = [{**vars(goal), "reached": goal.reached} for goal in _goals(report)]
    return report


def random_models(folder: Path) -> dict[str, Path]:
    """Files of clients with random weights, float32 and int8, of the sizes of :mod:`.edge_client`."""
    from gascnn.benchmarks.pgsl.edge_client import NETWORKS, export_files

    found = {}
    for network in NETWORKS:
        own = folder / network.name
        own.mkdir()
        for precision in export_files(network, own)[1]:
            found[f"{network.name} {precision}"] = own / f"{precision}.onnx"
    return found


def start(python: Path, model: Path, answers: int, folder: Path) -> dict[str, float]:
    """One process from its start to its first answer and ``answers`` more; seconds of each part, and its peak memory.

    Raises:
        BackendError: it failed.
    """
    asked = time.monotonic()
    out = _run([python, "-I", "-c", _PROBE, model, answers], folder, _LIMIT_S)
    begun, imported, opened, answered, peak = json.loads(out)
    return {
        "start_s": answered - asked,
        "python_s": begun - asked,
        "import_s": imported - begun,
        "open_s": opened - imported,
        "answer_s": answered - opened,
        "start_without_python_s": answered - begun,
        "peak_bytes": peak,
    }


def import_times(python: Path, folder: Path) -> dict[str, float]:
    """Seconds that each top-level package takes by itself when ``gascnn.hardware.edge`` is imported, longest first.

    From ``python -X importtime``, which takes some time of its own.
    """
    command = [python, "-I", "-X", "importtime", "-c", "import gascnn.hardware.edge"]
    seconds: Counter[str] = Counter()
    for line in _run(command, folder, _LIMIT_S, errors=True).splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if own.strip().isdecimal():
            name = rest.rpartition("|")[2].strip().partition(".")[0]
            seconds["Python's own" if name.lstrip("_") in _own_modules() else name] += int(own)
    return {name: spent / 1e6 for name, spent in seconds.most_common(_IMPORTS_SHOWN)}


def install_edge(folder: Path, source: Path, constraints: Path | None = None, progress: Say | None = None) -> Path:
    """Make an environment with ``gascnn[edge]`` and nothing else; its interpreter.

    Args:
        folder: of the environment, to be made.
        source: the repository's root, of which a copy is built, or a wheel.
        constraints: pip's; default: those of the root.
        progress: told what is being done.

    Raises:
        BackendError: pip failed; says its last line.
        UsageError: a source that is none.
    """
    _check_source(source)
    tell = progress or _silent
    tell("making an environment")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", folder], folder.parent, _INSTALL_LIMIT_S)
    python = folder / "bin" / "python"
    if constraints is None and source.is_dir() and (source / "constraints.txt").is_file():
        constraints = source / "constraints.txt"
    with tempfile.TemporaryDirectory(prefix="source-", dir=folder.parent) as name:
        built = source.resolve()
        if built.is_dir():
            # Building leaves folders where it is done.
            built = Path(name) / "gascnn"
            shutil.copytree(source, built, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        tell("installing")
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        limits = [] if constraints is None else ["--constraint", constraints.resolve()]
        _run([*command, *limits, f"gascnn[edge] @ file://{built}"], folder.parent, _INSTALL_LIMIT_S)
    return python


def installed_size(site_packages: Path) -> dict[str, Any]:
    """Bytes of all files in an environment's folder of packages, but for those of :data:`NOT_OURS`.

    Returns:
        ``bytes``, and ``packages``: by distribution, largest first; files that belong to none are under ``other``.
    """
    owner = {}
    for distribution in distributions(path=[str(site_packages)]):
        for entry in distribution.files or ():
            owner[os.path.normpath(site_packages / entry)] = distribution.metadata["Name"]
    sizes: Counter[str] = Counter()
    for path in site_packages.rglob("*"):
        if path.is_file() and not path.is_symlink():
            sizes[owner.get(str(path), "other")] += path.stat().st_size
    packages = {name: size for name, size in sizes.most_common() if name not in NOT_OURS}
    return {"bytes": sum(packages.values()), "packages": packages}


def _environment(
    python: Path, models: Mapping[str, Path], repeats: int, answers: int, folder: Path, tell: Say
) -> dict[str, Any]:
    versions, site_packages = json.loads(_run([python, "-I", "-c", _VERSIONS], folder, _LIMIT_S))
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for number in range(repeats + 1):
        for name, path in models.items():
            tell(f"{python}: {name}, start {number + 1} of {repeats + 1}")
            rows[name].append(start(python, path, answers, folder))
    return {
        "versions": versions,
        "site_packages": site_packages,
        "imports": import_times(python, folder),
        "models": {name: _summary(found[1:]) for name, found in rows.items()},
    }


def _summary(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in rows[0] if name != "peak_bytes"]
    starts = [row["start_s"] for row in rows]
    return {
        **{name: statistics.median(row[name] for row in rows) for name in names},
        "start_range_s": [min(starts), max(starts)],
        "peak_bytes": max(row["peak_bytes"] for row in rows),
    }


def _goals(report: Mapping[str, Any]) -> list[Goal]:
    found = []
    for key, where in (("here", "this environment"), ("installed", "fresh environment")):
        for name, row in report.get(key, {}).get("models", {}).items():
            what = f"{name}, {where}"
            found.append(Goal(f"{what}: first answer with Python's start, s", row["start_s"], MOST_START_S, "at most"))
            found.append(Goal(f"{what}: peak memory, MB", row["peak_bytes"] / 1e6, MOST_PEAK_BYTES / 1e6, "at most"))
    size = report["installed"]["bytes"] / 1e6 if "installed" in report else None
    return [*found, Goal("installed size, MB", size, MOST_INSTALLED_BYTES / 1e6, "at most")]


def _check_source(source: Path) -> None:
    if source.suffix == ".whl" and source.is_file():
        return
    if not (source / "pyproject.toml").is_file():
        raise UsageError(f"{source} is neither a wheel nor a folder with pyproject.toml; name the repository's root")


def _run(command: Sequence[object], folder: Path, limit_s: float, *, errors: bool = False) -> str:
    """Standard output of a command (or its standard error), which leaves no process behind however this ends."""
    # A caller's paths and pip's wishes for another environment are not for this one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{command[0]}: no end within {limit_s:g} s") from error
    finally:
        if process.poll() is None:
            guard.end_group(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_LIMIT_S)
    if process.returncode:
        lines = said.strip().splitlines() or [f"status {process.returncode}"]
        raise BackendError(f"{command[0]} failed: {lines[-1].strip()}")
    return said if errors else out


def _own_modules() -> frozenset[str]:
    return frozenset(name.lstrip("_") for name in sys.stdlib_module_names) | {"site", "sitecustomize", "zipimport"}


def markdown(report: Mapping[str, Any]) -> str:
    """The report of :func:`measure_footprint` as Markdown."""
    from gascnn.benchmarks.pgsl.edge_client import goal_line

    where = report["machine"]
    lines = [
        f"Medians of {report['repeats']} fresh processes a file, memory the largest of them; one thread. "
        f"{where['processor']}, {where['cores_used']} cores, load {where['load']}; MB are 10^6 bytes."
    ]
    for key, title in (("here", "This environment"), ("installed", "Fresh environment with gascnn[edge]")):
        if key not in report:
            continue
        found = report[key]
        versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
        lines += [
            "",
            f"**{title}** ({versions})",
            "",
            "| file | first answer s (range) | without Python's start s | import s | open s | answer s | peak MB |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, row in found["models"].items():
            low, high = row["start_range_s"]
            lines.append(
                f"| {name} | {row['start_s']:.3f} ({low:.3f} to {high:.3f}) | {row['start_without_python_s']:.3f} "
                f"| {row['import_s']:.3f} | {row['open_s']:.3f} | {row['answer_s']:.3f} "
                f"| {row['peak_bytes'] / 1e6:.1f} |"
            )
        slow = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in found["imports"].items())
        lines += ["", f"Imports: {slow}."]
    if "installed" in report:
        packages = report["installed"]["packages"]
        lines += ["", "| package | MB |", "| --- | --- |"]
        lines += [f"| {name} | {size / 1e6:.1f} |" for name, size in packages.items()]
        lines += [f"| **together** | **{report['installed']['bytes'] / 1e6:.1f}** |"]
    lines += ["", *(f"- {goal_line(goal)}" for goal in report["goals"])]
    return "\n".join(lines) + "\n"


def _silent(line: str) -> None:
    del line
