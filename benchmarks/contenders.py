"""Who takes part in the race, which interpreter runs each, and what is missing where one cannot."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gascnn.toolkit.errors import BackendError, UsageError

Kind = Literal["ours", "lava", "peer", "ann"]

VARIABLE = "GASCNN_PEERS_PYTHON"
FOLDER = Path(".venv-peers")
_PROBE_LIMIT_S = 60
_PROBE = (
    "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if not importlib.util.find_spec(n)]))"
)


@dataclass(frozen=True)
class Contender:
    """One column of the table.

    Attributes:
        name: as on the command line and in JSON.
        title: as in the table.
        kind: what it is compared as.
        packages: what its interpreter must have; none for ours.
        one_thread: whether it gets a single thread, whatever the others get.
        batches: whether it may run several images at once.
    """

    name: str
    title: str
    kind: Kind
    packages: tuple[str, ...] = ()
    one_thread: bool = False
    batches: bool = True


CONTENDERS = {
    one.name: one
    for one in (
        Contender("ours", "gascnn", "ours"),
        Contender("ours-1-thread", "gascnn, one thread", "ours", one_thread=True),
        Contender("ours-plain", "gascnn, plain version", "ours"),
        Contender("lava", "Lava, stock models", "lava", batches=False),
        Contender("spikingjelly", "SpikingJelly", "peer", ("torch", "spikingjelly")),
        Contender("snntorch", "snnTorch", "peer", ("torch", "snntorch")),
        Contender("sinabs", "sinabs", "peer", ("torch", "sinabs")),
        Contender("onnxruntime", "ANN, T times, onnxruntime", "ann", ("onnx", "onnxruntime")),
    )
}


@dataclass(frozen=True)
class LeftOut:
    """A contender that does not take part, and what to do about it."""

    name: str
    why: str


def chosen(names: Sequence[str]) -> list[Contender]:
    """Contenders by name, ``ours`` always first; all of them where none is named.

    Raises:
        UsageError: an unknown name.
    """
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise UsageError(f"unknown contender {unknown[0]!r}; known: {', '.join(CONTENDERS)}")
    wanted = {"ours", *names} if names else set(CONTENDERS)
    return [one for name, one in CONTENDERS.items() if name in wanted]


def peers_python(given: Path | None = None) -> Path | None:
    """The peers' interpreter: the one given, ``$GASCNN_PEERS_PYTHON``, or that of ``make peers`` in this folder.

    Raises:
        UsageError: the one that was named is not there.
    """
    named = given or (Path(value) if (value := os.environ.get(VARIABLE)) else None)
    if named is not None:
        # Not resolved: an environment's interpreter is a link, and its place tells Python where the packages are.
        path = Path(os.path.abspath(named))
        if not os.access(path, os.X_OK) or path.is_dir():
            raise UsageError(f"{path} is not an interpreter; give the path of the peers' python (made by 'make peers')")
        return path
    path = Path(os.path.abspath(FOLDER)) / "bin" / "python"
    return path if os.access(path, os.X_OK) else None


def able(contenders: Sequence[Contender], python: Path | None) -> tuple[list[Contender], list[LeftOut]]:
    """Split into those that can run and those that cannot, with the reason.

    Args:
        contenders: who was asked for.
        python: the peers' interpreter, or None.

    Raises:
        UsageError: the interpreter does not run.
    """
    needed = sorted({name for one in contenders for name in one.packages})
    missing = set(needed) if python is None else _missing(python, needed) if needed else set()
    there, out = [], []
    for one in contenders:
        if python is None and one.packages:
            out.append(
                LeftOut(one.name, "no environment for the peers; run 'make peers', or name its python (--peers)")
            )
        elif lacking := [name for name in one.packages if name in missing]:
            out.append(LeftOut(one.name, f"{python} has no {' and no '.join(lacking)}; run 'make peers'"))
        elif one.kind == "lava" and (problem := _lava_problem()):
            out.append(LeftOut(one.name, problem))
        else:
            there.append(one)
    return there, out


def _missing(python: Path, packages: list[str]) -> set[str]:
    try:
        result = subprocess.run(
            [str(python), "-I", "-c", _PROBE, *packages],
            capture_output=True,
            text=True,
            timeout=_PROBE_LIMIT_S,
            check=True,
        )
        return set(json.loads(result.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UsageError(f"{python} is not a Python that runs; give the peers' (made by 'make peers')") from error


def _lava_problem() -> str | None:
    from gascnn.hardware.lava.environment import require_lava

    try:
        require_lava()
    except BackendError as error:
        return str(error)
    return None
