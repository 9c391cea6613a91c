"""``gascnn doctor``."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import save_json, say, table

PACKAGES = (
    "gascnn", "numpy", "h5py", "click", "torch", "nir", "safetensors", "scikit-learn", "pillow", "rich", "httpx",
    "onnx", "onnxruntime", "pydicom", "nibabel", "numba", "distributed", "matplotlib", "jinja2", "jsonschema",
)  # fmt: skip


@click.command("doctor")
@options.json_file
def command(json_path: Path | None) -> None:
    """Show versions, interpreters, backends, power meters, data sets: the first thing to put in a bug report."""
    facts = gather()
    table(("package", "version"), [(name, found or "not installed") for name, found in facts["packages"].items()])
    say()
    table(("", ""), [(name, str(value)) for name, value in facts["machine"].items()])
    say()
    table(("backend", "state"), list(facts["backends"].items()))
    say()
    table(("power meter", "state"), [(one["name"], one["state"]) for one in facts["meters"]])
    save_json(json_path, facts)


def gather() -> dict[str, Any]:
    """Everything the command shows."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {
            "python": f"{platform.python_version()} ({sys.executable})",
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "data": os.environ.get("GASCNN_DATA", "$GASCNN_DATA is not set"),
        },
        "backends": _backends(),
        "meters": _meters(),
    }


def _meters() -> list[dict[str, str]]:
    """Meters that can be read, and of the others why not."""
    from gascnn.hardware.power import detect_meters

    meters, missing = detect_meters()
    found = [{"name": one.name, "state": f"can be read: {one.description}"} for one in meters]
    return found + [{"name": one.name, "state": one.why} for one in missing]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _backends() -> dict[str, str]:
    from gascnn.hardware.lava import find_lava
    from gascnn.toolkit.errors import BackendError

    found = {"sim": "ready" + ("" if _version("numba") else " (without numba: slower; install gascnn[fast])")}
    try:
        environment = find_lava()
    except BackendError as error:
        return {**found, "lava": str(error), "loihi": "needs Lava"}
    if environment is None:
        return {**found, "lava": "not installed; run: gascnn lava install", "loihi": "needs Lava"}
    state = f"lava-nc {environment.lava_nc}, lava-dl {environment.lava_dl}, Python {environment.python_version}"
    return {**found, "lava": f"{state} ({environment.source})", "loihi": _loihi()}


def _loihi() -> str:
    from gascnn.hardware.loihi import require_loihi
    from gascnn.toolkit.errors import BackendError

    try:
        require_loihi()
    except BackendError as error:
        return str(error)
    return "the extension is there"
