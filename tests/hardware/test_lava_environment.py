"""Finding Lava and a Python for it, with interpreters made for the purpose."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gascnn.hardware import lava, loihi
from gascnn.hardware.lava import environment, interpreters
from gascnn.toolkit.errors import BackendError

GOOD = {"python_version": "3.10.13", "lava_nc": "0.10.0", "lava_dl": "0.6.0", "loihi": False}


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def says(path, values):
    return script(path, f"echo '{json.dumps(values)}'")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("GASCNN_LAVA_PYTHON", raising=False)
    monkeypatch.setenv("GASCNN_LAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(environment, "_current", lambda: None)


def mark(home, **changes):
    script(environment.environment_python(home), "exit 0")
    values = {name: GOOD[name] for name in ("python_version", "lava_nc", "lava_dl")}
    (home / environment.MARKER).write_text(json.dumps({**values, **changes}))


def test_nowhere():
    assert lava.find_lava() is None

    with pytest.raises(BackendError, match=r"Lava is not installed \(looked in .*home.*run: gascnn lava install"):
        environment.require_lava()
    info = lava.lava_info()
    assert info["found"] is False
    assert "gascnn lava install" in info["problem"]


def test_the_chosen_interpreter_wins(monkeypatch, tmp_path):
    mark(tmp_path / "home")
    chosen = says(tmp_path / "chosen", GOOD)
    monkeypatch.setenv("GASCNN_LAVA_PYTHON", str(chosen))

    found = lava.find_lava()

    assert found == lava.LavaEnvironment(chosen, "3.10.13", "0.10.0", "0.6.0", "GASCNN_LAVA_PYTHON")
    assert lava.lava_info() == {
        "found": True,
        "home": str(tmp_path / "home"),
        "problem": None,
        "loihi": False,
        "python": str(chosen),
        "python_version": "3.10.13",
        "lava_nc": "0.10.0",
        "lava_dl": "0.6.0",
        "source": "GASCNN_LAVA_PYTHON",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"GASCNN_LAVA_PYTHON: .*chosen is not a Python that runs \(.*No such file.*correct it or unset it"),
        ("echo pyenv: command not found >&2; exit 127", r"not a Python that runs \(pyenv: command not found\)"),
        ("echo hello", r"not a Python that runs"),
        (
            f"echo '{json.dumps({**GOOD, 'lava_dl': None})}'",
            r"chosen has lava-nc 0.10.0 and lava-dl None; needed are 0.10.0 and 0.6.0",
        ),
        (f"echo '{json.dumps({**GOOD, 'lava_nc': '0.9.0'})}'", r"has lava-nc 0.9.0"),
    ],
)
def test_a_chosen_interpreter_without_lava_is_an_error_not_a_surprise(monkeypatch, tmp_path, text, message):
    mark(tmp_path / "home")
    if text is not None:
        script(tmp_path / "chosen", text)
    monkeypatch.setenv("GASCNN_LAVA_PYTHON", str(tmp_path / "chosen"))

    with pytest.raises(BackendError, match=message) as error:
        lava.find_lava()

    assert "\n" not in str(error.value)
    assert "GASCNN_LAVA_PYTHON" in lava.lava_info()["problem"]


def test_our_own_environment(tmp_path):
    home = tmp_path / "home"
    mark(home)

    assert lava.find_lava() == lava.LavaEnvironment(
        home / "env" / "bin" / "python", "3.10.13", "0.10.0", "0.6.0", "gascnn lava install"
    )


@pytest.mark.parametrize("spoil", ["no marker", "half a marker", "another version", "its Python was removed"])
def test_an_environment_that_is_not_whole_is_not_there(tmp_path, spoil):
    home = tmp_path / "home"
    mark(home, **({"lava_dl": "0.5.0"} if spoil == "another version" else {}))
    if spoil == "no marker":
        (home / environment.MARKER).unlink()
    elif spoil == "half a marker":
        (home / environment.MARKER).write_text('{"lava_nc": ')
    elif spoil == "its Python was removed":
        python = environment.environment_python(home)
        python.unlink()
        python.symlink_to(tmp_path / "removed")

    assert lava.find_lava() is None


def test_where_our_own_environment_is(monkeypatch, tmp_path):
    assert environment.lava_home() == tmp_path / "home"
    monkeypatch.delenv("GASCNN_LAVA_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert environment.lava_home() == Path("/data/gascnn/lava")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert environment.lava_home() == Path("/home/somebody/.local/share/gascnn/lava")


def test_this_interpreter_needs_both_packages(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    versions = dict(GOOD)
    monkeypatch.setattr(environment, "probe", {Path(sys.executable): versions}.__getitem__)
    assert environment._current() == lava.LavaEnvironment(
        Path(sys.executable), "3.10.13", "0.10.0", "0.6.0", "this interpreter"
    )

    versions["lava_dl"] = "0.5.0"
    assert environment._current() is None
    versions["lava_dl"] = "0.6.0"
    monkeypatch.setattr(sys, "version_info", (3, 11, 4))
    assert environment._current() is None


# --- Loihi -----------------------------------------------------------------------------------------------------------


def test_loihi_needs_lava():
    with pytest.raises(BackendError, match=r"Lava is not installed.*gascnn lava install"):
        loihi.require_loihi()


def test_loihi_needs_intels_extension(monkeypatch, tmp_path):
    monkeypatch.setenv("GASCNN_LAVA_PYTHON", str(says(tmp_path / "chosen", GOOD)))
    with pytest.raises(BackendError, match=r"no Loihi: .* has no lava-loihi extension.*use backend lava or sim"):
        loihi.require_loihi()

    monkeypatch.setenv("GASCNN_LAVA_PYTHON", str(says(tmp_path / "chosen", {**GOOD, "loihi": True})))
    assert loihi.require_loihi().python == tmp_path / "chosen"


@pytest.mark.lava
def test_the_extension_is_looked_for_as_lava_does(monkeypatch):
    monkeypatch.undo()
    found = lava.find_lava()
    assert found is not None, "Lava is missing: run make setup"
    code = "from lava.utils import loihi; print(loihi.is_installed())"
    asked = subprocess.run([found.python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout

    assert environment.probe(found.python)["loihi"] is (asked.strip() == "True")


# --- interpreters ----------------------------------------------------------------------------------------------------

WORKS = "echo 3 10"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which nothing is but what a test puts there."""
    for name in ("PYENV_ROOT", "CONDA_PREFIX", "CONDA_EXE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    everywhere = interpreters.candidates
    monkeypatch.setattr(interpreters, "candidates", lambda: (p for p in everywhere() if tmp_path in p.parents))
    return tmp_path


def test_a_shim_that_fails_is_passed_over(machine):
    script(machine / "bin" / "python3.10", "echo 'pyenv: python3.10: command not found' >&2; exit 127")
    assert interpreters.find_python() is None

    script(machine / ".pyenv" / "versions" / "3.10.2" / "bin" / "python3.10", "exit 1")
    good = script(machine / ".pyenv" / "versions" / "3.10.1" / "bin" / "python3.10", WORKS)
    assert interpreters.find_python() == good


@pytest.mark.parametrize(
    "text", ["echo 3 11", "echo 'ModuleNotFoundError: ensurepip' >&2; exit 1", "exec sleep 60", "kill -9 $$", "echo"]
)
def test_interpreters_that_will_not_do(machine, monkeypatch, text):
    monkeypatch.setattr(interpreters, "_TRY_LIMIT_S", 0.5)
    monkeypatch.setenv("PATH", f"{machine / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")

    assert not interpreters.works(script(machine / "bin" / "python3.10", text))


def test_what_is_tried_finds_this_interpreter_complete():
    result = subprocess.run([sys.executable, "-I", "-c", interpreters._TRY], capture_output=True, text=True, check=True)

    assert result.stdout.split() == [str(n) for n in sys.version_info[:2]]


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ("bin/python3.10", {}),
        ("elsewhere/versions/3.10.13/bin/python3.10", {"PYENV_ROOT": "elsewhere"}),
        (".pyenv/versions/3.10-dev/bin/python3.10", {}),
        ("miniforge3/envs/lava/bin/python3.10", {}),
        ("conda/bin/python3.10", {"CONDA_PREFIX": "conda"}),
        ("conda/envs/x/bin/python3.10", {"CONDA_EXE": "conda/bin/conda"}),
    ],
)
def test_where_pythons_are_looked_for(machine, monkeypatch, place, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(machine / value))
    python = script(machine / place, WORKS)
    monkeypatch.setenv("PATH", f"{machine / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")

    assert interpreters.find_python() == python


UV = """
[ "$1 $2 $3" = "python install 3.10" ] || exit 9
mkdir -p "$UV_PYTHON_INSTALL_DIR/cpython-3.10.9-linux/bin"
printf '#!/bin/sh\\necho 3 10\\n' > "$UV_PYTHON_INSTALL_DIR/cpython-3.10.9-linux/bin/python3.10"
chmod +x "$UV_PYTHON_INSTALL_DIR/cpython-3.10.9-linux/bin/python3.10"
"""


def test_uv_on_path_fetches_a_python(machine, monkeypatch):
    monkeypatch.setenv("PATH", f"{machine / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    script(machine / "bin" / "uv", UV)
    told = []

    found = interpreters.fetch_python(machine / "python", told.append)

    assert found == machine / "python" / "cpython-3.10.9-linux" / "bin" / "python3.10"
    assert told == ["downloading Python 3.10"]


def test_uv_is_installed_where_there_is_none(machine, monkeypatch):
    monkeypatch.setenv("PATH", f"/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(interpreters.shutil, "which", lambda name: None)
    # A Python whose environments hold a Python whose pip "installs" uv.
    pip = f'cat > "$(dirname "$0")/uv" <<\'E\'\n#!/bin/sh\n{UV}\nE\nchmod +x "$(dirname "$0")/uv"'
    inner = script(machine / "inner", f'[ "$3 $6" = "install uv" ] || exit 8\n{pip}')
    outer = script(machine / "outer", f'[ "$2" = venv ] && mkdir -p "$3/bin" && cp {inner} "$3/bin/python"')
    monkeypatch.setattr(sys, "executable", str(outer))
    told = []

    found = interpreters.fetch_python(machine / "python", told.append)

    assert interpreters.works(found)
    assert told == ["installing uv, to download Python with", "downloading Python 3.10"]


@pytest.mark.parametrize(
    ("uv", "message"),
    [
        (
            "echo 'error: no route' >&2; exit 2",
            r"uv could not download Python 3.10 \(error: no route\)",
        ),
        ("exit 0", r"the Python 3.10 that uv downloaded to .* does not run; install Python 3.10"),
    ],
)
def test_a_python_that_cannot_be_fetched(machine, monkeypatch, uv, message):
    monkeypatch.setenv("PATH", f"{machine / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    script(machine / "bin" / "uv", uv)

    with pytest.raises(BackendError, match=message):
        interpreters.fetch_python(machine / "python", lambda line: None)


def test_uv_that_cannot_be_installed(machine, monkeypatch):
    monkeypatch.setattr(interpreters.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(script(machine / "outer", "echo 'no ensurepip' >&2; exit 1")))

    with pytest.raises(BackendError, match=r"there is no uv on PATH and it could not be installed \(no ensurepip\)"):
        interpreters.fetch_python(machine / "python", lambda line: None)
