"""Stand-ins for the steps' commands, and the real images of a chain: a file whose bytes nobody decodes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from gascnn.toolkit.chain.digests import find_data
from gascnn.toolkit.chain.presets import get_chain_preset
from gascnn.toolkit.chain.process import Ended
from gascnn.toolkit.chain.runner import Chain
from gascnn.toolkit.chain.steps import Setup

STEP_OF = {"spike-learn": "learn", "bench": "report", "data": "join"}


@dataclass
class Commands:
    """Writes what a command would: text made from its words and the contents of every path among them.

    Attributes:
        ran: steps, in the order in which they were run.
        fail: by step, how it ends instead.
        interrupt: a step that Ctrl-C hits.
        silent: a step that ends well without writing anything.
        found: by step, what was in its folder of checkpoints when it began.
    """

    ran: list[str] = field(default_factory=list)
    fail: dict[str, Ended] = field(default_factory=dict)
    interrupt: str = ""
    silent: str = ""
    found: dict[str, list[str]] = field(default_factory=dict)

    def __call__(self, words, folder, work, lock):
        name = STEP_OF.get(words[0], words[1] if words[0] == "gan" else words[0])
        name = "gan" if words[:2] == ["gan", "train"] else name
        self.ran.append(name)
        self.found[name] = sorted(path.name for path in work.iterdir())
        (work / "checkpoint").write_text("half")
        if name == self.interrupt:
            raise KeyboardInterrupt
        if name in self.fail:
            return self.fail[name]
        if name == self.silent:
            return Ended(0, "")
        made = hashlib.sha256(json.dumps(words).encode())
        for word in words:
            made.update(_content(folder / word))
        self._write(words, folder, made.hexdigest())
        return Ended(0, "a remark")

    @staticmethod
    def _write(words, folder, text):
        named = dict(pairwise(words))
        output = folder / named["-o"] if "-o" in named else None
        if output is not None and output.suffix == ".net":
            output.write_text(text)
        elif output is not None:
            output.mkdir()
            (output / "model.json").write_text(json.dumps({"provenance": {"dataset": {"source": {"b": 1, "a": "ü"}}}}))
            (output / "report.json").write_text(text)
        if "--json" in named:
            result = {"metrics": {"test": {"accuracy": 0.5}}, "text": text, "models": [{"path": w} for w in words]}
            (folder / named["--json"]).write_text(json.dumps(result))

    def take(self):
        """Steps that were run since the last call."""
        ran, self.ran = self.ran, []
        return ran


def _content(path):
    if path.is_file():
        return path.read_bytes()
    return b"".join(_content(entry) for entry in sorted(path.iterdir())) if path.is_dir() else b""


@pytest.fixture
def commands():
    return Commands()


@pytest.fixture
def image_set(tmp_path):
    """A folder that says of itself that it holds synthetic images."""
    path = tmp_path / "mine"
    path.mkdir()
    (path / "images.json").write_text('{"synthetic": true}')
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "private" / "scans.npz"
    path.parent.mkdir()
    path.write_bytes(b"real images")
    return path


@dataclass
class Runs:
    """Chains in one folder with the stand-ins."""

    data: Path
    folder: Path
    commands: Commands
    said: list[str] = field(default_factory=list)

    def chain(self, until=None, from_step=None, **changes):
        values = {"synthetic": "dirichlet", **changes}
        preset = get_chain_preset(values.pop("preset", "smoke"), "scans.npz")
        values["skip"] = frozenset(values.pop("skip", ()))
        setup = Setup(find_data(str(self.data), None), preset, values.pop("seed", 0), **values)
        return Chain(setup, self.folder, until, from_step, tell=self.said.append, run=self.commands)

    def make(self, *arguments, **changes):
        """Run it; returns the steps that were made."""
        self.chain(*arguments, **changes).make()
        return self.commands.take()

    def manifest(self):
        return json.loads((self.folder / "manifest.json").read_text())

    def steps(self):
        return self.manifest()["steps"]

    def in_folder(self, name):
        return replace(self, folder=self.folder.with_name(name))


@pytest.fixture
def runs(data, tmp_path, commands):
    return Runs(data, tmp_path / "run", commands)
