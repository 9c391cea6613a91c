"""The edge client's start, memory and size: of a real process here, of folders and commands made for the purpose."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from gascnn.benchmarks.pgsl import edge_footprint
from gascnn.benchmarks.pgsl.edge_client import EdgeNetwork, export_files
from gascnn.benchmarks.pgsl.edge_footprint import import_times, install_edge, installed_size, markdown
from gascnn.toolkit.errors import BackendError, UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    export_files(EdgeNetwork(12, classes=3, pixels=5, width=8, local_width=3), folder)
    return folder / "fp32.onnx"


def test_a_process_from_its_start_to_the_first_answer(model, tmp_path):
    held = bytearray(400_000_000)
    held[::4096] = b"x" * len(held[::4096])  # what this process holds is none of the other's
    wall = time.monotonic()
    found = edge_footprint.start(Path(sys.executable), model, 3, tmp_path)
    wall = time.monotonic() - wall
    assert found["start_s"] == pytest.approx(found["python_s"] + found["start_without_python_s"])
    parts = found["import_s"] + found["open_s"] + found["answer_s"]
    assert found["start_without_python_s"] == pytest.approx(parts)
    assert 0 < found["start_s"] < wall
    assert all(found[name] > 0 for name in ("python_s", "import_s", "open_s", "answer_s"))
    assert 20e6 < found["peak_bytes"] < 250e6 < len(held)


def test_the_report_and_its_table(model):
    said = []
    report = edge_footprint.measure_footprint({"tiny": model}, repeats=2, answers=1, progress=said.append)
    json.dumps(report, allow_nan=False)
    assert len(said) == 3
    row = report["here"]["models"]["tiny"]
    assert row["start_range_s"][0] <= row["start_s"] <= row["start_range_s"][1]
    assert {"numpy", "onnxruntime", "gascnn"} <= report["here"]["imports"].keys()
    assert {"torch", "onnx"}.isdisjoint(report["here"]["imports"])
    goals = {goal["what"]: goal for goal in report["goals"]}
    assert goals["tiny, this environment: peak memory, MB"]["found"] == row["peak_bytes"] / 1e6
    assert goals["installed size, MB"]["reached"] is None
    text = markdown(report)
    assert "| tiny |" in text
    assert "installed size, MB: nothing, at most 180: not measured" in text


def test_import_times_add_up_by_package(monkeypatch, tmp_path):
    lines = [
        "import time: self [us] | cumulative | imported package",
        "import time:       100 |        100 |   numpy.core",
        "import time:       250 |        350 | numpy",
        "import time:        40 |         40 | _io",
        "import time:        60 |         60 |     json.decoder",
        "something else",
    ]
    monkeypatch.setattr(edge_footprint, "_run", lambda *a, **k: "\n".join(lines))
    assert import_times(Path("python"), tmp_path) == {"numpy": 350e-6, "Python's own": 100e-6}


def fake_distribution(folder, name, files):
    information = folder / f"{name}-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    for path, size in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x" * size)
    record = [*files, f"{information.name}/METADATA", f"{information.name}/RECORD"]
    (information / "RECORD").write_text("".join(f"{path},,\n" for path in record))
    return sum((information / file).stat().st_size for file in ("METADATA", "RECORD"))


def test_bytes_of_each_package(tmp_path):
    own = {
        name: fake_distribution(tmp_path, name, files)
        for name, files in {
            "large": {"large/a.so": 5000, "large/__pycache__/b.pyc": 70},
            "pip": {"pip/main.py": 9999},
            "setuptools": {"setuptools/x.py": 9999},
        }.items()
    }
    (tmp_path / "stray.pth").write_bytes(b"x" * 30)
    (tmp_path / "link").symlink_to(tmp_path / "large/a.so")
    assert installed_size(tmp_path) == {
        "bytes": 5070 + own["large"] + 30,
        "packages": {"large": 5070 + own["large"], "other": 30},
    }


def test_installed_is_a_copy_of_the_root_within_its_constraints(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "models/a.py",
        ".git/config",
        "tests/t.py",
        "models/__pycache__/a.pyc",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    before = sorted(root.rglob("*"))
    commands = []

    def run(command, folder, limit_s, **settings):
        commands.append([str(part) for part in command])
        if "pip" in commands[-1]:
            source = Path(commands[-1][-1].partition("file://")[2])
            commands.append(sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()))
        return ""

    monkeypatch.setattr(edge_footprint, "_run", run)
    python = install_edge(tmp_path / "work" / "environment", root)
    assert python == tmp_path / "work" / "environment" / "bin" / "python"
    assert commands[0][1:] == ["-m", "venv", str(tmp_path / "work" / "environment")]
    assert commands[1][commands[1].index("--constraint") + 1] == str(root / "constraints.txt")
    assert commands[1][-1].startswith("gascnn[edge] @ file://")
    assert commands[2] == ["constraints.txt", "models/a.py", "pyproject.toml"]
    assert sorted(root.rglob("*")) == before
    wheel = tmp_path / "gascnn-1-py3-none-any.whl"
    wheel.write_bytes(b"x")
    commands.clear()
    install_edge(tmp_path / "other", wheel)
    assert commands[1][-1] == f"gascnn[edge] @ file://{wheel}"
    assert "--constraint" not in commands[1]


def test_what_fails_is_one_line_and_leaves_no_process(tmp_path, model):
    with pytest.raises(BackendError, match=r"failed: [^\n]*no such file"):
        edge_footprint.start(Path(sys.executable), tmp_path / "none.onnx", 1, tmp_path)
    script = "import subprocess as s; p = s.Popen(['sleep', '60']); open('pid', 'w').write(str(p.pid)); p.wait()"
    with pytest.raises(BackendError, match=r"no end within 1 s"):
        edge_footprint._run([sys.executable, "-c", script], tmp_path, 1)
    child = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_numbers_and_sources_that_cannot_be(tmp_path, model):
    with pytest.raises(UsageError, match="repeats are 0"):
        edge_footprint.measure_footprint({"tiny": model}, repeats=0)
    with pytest.raises(UsageError, match=r"neither a wheel nor a folder with pyproject\.toml"):
        edge_footprint.measure_footprint({"tiny": model}, install=True, source=tmp_path)
    with pytest.raises(UsageError, match="neither a wheel"):
        install_edge(tmp_path / "environment", tmp_path / "gone.whl")
    assert list(tmp_path.iterdir()) == []
