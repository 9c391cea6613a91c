"""Who takes part, and what is said of those who cannot."""

import sys
from pathlib import Path

import pytest

from gascnn.benchmarks.contenders import CONTENDERS, able, chosen, peers_python
from gascnn.toolkit.errors import UsageError


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("GASCNN_PEERS_PYTHON", raising=False)
    monkeypatch.delenv("GASCNN_LAVA_PYTHON", raising=False)
    monkeypatch.setenv("GASCNN_LAVA_HOME", str(tmp_path / "lava"))
    monkeypatch.chdir(tmp_path)


def test_ours_is_always_among_them_and_first():
    assert [one.name for one in chosen(["sinabs", "lava"])] == ["ours", "lava", "sinabs"]
    assert [one.name for one in chosen([])] == list(CONTENDERS)
    with pytest.raises(UsageError, match=r"unknown contender 'brian'; known: ours, ours-1-thread, .*onnxruntime"):
        chosen(["brian"])


def test_without_their_environment_the_peers_are_left_out_by_name():
    assert peers_python() is None
    there, out = able(chosen([]), None)
    assert [one.kind for one in there if one.kind != "lava"] == ["ours"] * 3
    left = {one.name: one.why for one in out}
    assert {"spikingjelly", "snntorch", "sinabs", "onnxruntime"} <= set(left)
    assert "make peers" in left["sinabs"]


def test_an_interpreter_that_lacks_some_is_named():
    there, out = able(chosen(["snntorch", "sinabs"]), Path(sys.executable))
    assert [one.name for one in there] == ["ours"]
    assert out[0].why == f"{sys.executable} has no snntorch; run 'make peers'"


def test_without_lava_the_reason_is_the_one_every_command_gives(monkeypatch):
    monkeypatch.setattr("gascnn.hardware.lava.environment.find_lava", lambda: None)
    there, out = able(chosen(["lava"]), None)
    assert [one.name for one in there] == ["ours"]
    assert "gascnn lava install" in out[0].why


def test_where_the_peers_interpreter_is_looked_for(tmp_path, monkeypatch):
    made = tmp_path / ".venv-peers" / "bin" / "python"
    made.parent.mkdir(parents=True)
    made.symlink_to(sys.executable)
    assert peers_python() == made  # the link itself: it tells Python which packages are its own
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    monkeypatch.setenv("GASCNN_PEERS_PYTHON", str(other))
    assert peers_python() == other
    assert peers_python(Path(".venv-peers/bin/python")) == made


@pytest.mark.parametrize("what", ["none", "."])
def test_an_interpreter_that_is_not_there_is_refused(tmp_path, what):
    with pytest.raises(UsageError, match="is not an interpreter; give the path of the peers' python"):
        peers_python(tmp_path / what)


def test_an_interpreter_that_does_not_run_is_refused():
    with pytest.raises(UsageError, match="/bin/false is not a Python that runs"):
        able(chosen(["sinabs"]), Path("/bin/false"))
