"""The command line in this process, and one small trained network exported for both resets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gascnn.toolkit.cli import main


@dataclass(frozen=True)
class Outcome:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line on standard error, without its prefix."""
        lines = self.err.strip().splitlines()
        assert lines, "nothing was said on standard error"
        assert lines[-1].startswith("error: ")
        return lines[-1].removeprefix("error: ")


Command = Callable[..., Outcome]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return Outcome(int(left.value.code or 0), captured.out, captured.err)


@pytest.fixture
def gascnn(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command; no traceback is ever seen unless asked for."""

    def run(*arguments: object) -> Outcome:
        outcome = call(capsys, *arguments)
        if "--debug" not in arguments:
            assert "Traceback" not in outcome.err
            assert "Traceback" not in outcome.out
        return outcome

    return run


@dataclass(frozen=True)
class Models:
    """Paths of the same network at every stage."""

    ann: Path
    snn: Path
    zero: Path
    subtract: Path
    nir: Path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A ResNet with an identity and a projection shortcut, trained for seconds on digits, at every stage."""
    folder = tmp_path_factory.mktemp("models")
    found = Models(*(folder / name for name in ("ann", "snn", "zero.net", "subtract.net", "snn.nir")))
    data = ("--data", "digits")
    _quietly("train", *data, "--epochs", 10, "-o", found.ann)
    _quietly("convert", found.ann, *data, "--reset", "subtract", "--steps", 16, "--fit-images", 32, "-o", found.snn)
    _quietly("export", found.snn, "--target", "lava", *data, "--limit", 40, "-o", found.subtract)
    _quietly("export", found.snn, "--target", "nir", "-o", found.nir)
    few = ("--steps", 16, "--fit-images", 32, "--limit", 40)
    _quietly("export", found.ann, "--target", "lava", *data, *few, "-o", found.zero)
    return found


def _quietly(*arguments: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert left.value.code == 0
