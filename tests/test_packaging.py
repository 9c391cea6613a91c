"""What users install: the wheel, in environments of its own, outside the checkout."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

from gascnn.benchmarks.board.pack import pack
from gascnn.benchmarks.pgsl.edge_footprint import MOST_INSTALLED_BYTES, installed_size
from gascnn.exporters.netx import write_netx
from gascnn.exporters.onnx.pgsl import export_pgsl_client
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import save_bundle
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.pgsl.bundle import SplitNetwork, new_parts, save_network
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.split import train_step
from gascnn.toolkit.pgsl.train import answers
from gascnn.toolkit.training.bundles import to_bundle

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where Python does not


def tracked_modules(repository: Path) -> list[str]:
    """Import names of every module git knows below the portions of the package."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    portions = ("models", "toolkit", "exporters", "hardware", "benchmarks")
    names = []
    for line in listed.stdout.splitlines():
        path = Path(line)
        if path.parts[0] in portions and (repository / path).exists():
            parts = path.with_suffix("").parts
            names.append(".".join(("gascnn", *(parts[:-1] if parts[-1] == "__init__" else parts))))
    return sorted(names)


def package_files(repository: Path) -> list[Path]:
    portions = ("models", "toolkit", "exporters", "hardware", "benchmarks")
    return [p for portion in portions for p in (repository / portion).rglob("__init__.py")]


def settings(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def test_every_package_is_declared_once(repository: Path) -> None:
    declared = settings(repository)["tool"]["setuptools"]["packages"]
    found = {".".join(("gascnn", *p.parent.relative_to(repository).parts)) for p in package_files(repository)}
    assert len(declared) == len(set(declared))
    assert set(declared) == found


def test_edge_extra_is_light(repository: Path) -> None:
    project = settings(repository)["project"]
    needed = " ".join(project["dependencies"] + project["optional-dependencies"]["edge"])
    for heavy in ("torch", "numba", "rich", "scikit", "scipy", "nir", "pandas"):
        assert heavy not in needed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = Path(__file__).resolve().parents[1]
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, so that building leaves nothing in the checkout.
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository, capture_output=True, text=True, check=True,
    )  # fmt: skip
    source = folder / "source"
    for name in files.stdout.splitlines():
        if (repository / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((repository / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def fresh_environment(folder: Path, requirement: str, repository: Path) -> Path:
    """A virtual environment with nothing but ``requirement`` in it; returns its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--constraint", repository / "constraints.txt", requirement]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
def test_wheel_imports_every_module_and_runs_the_demo(
    wheel: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = fresh_environment(tmp_path / "env", f"gascnn[all] @ file://{wheel}", repository)
    modules = tracked_modules(repository)
    assert len(modules) > 50
    script = """
import importlib, sys
for name in sys.argv[1:]:
    print(importlib.import_module(name).__file__)
"""
    imported = subprocess.run([python, "-c", script, *modules], cwd=tmp_path, capture_output=True, text=True)
    assert imported.returncode == 0, imported.stderr
    assert str(repository) not in imported.stdout
    stray = subprocess.run([python, "-c", "import models"], cwd=tmp_path, capture_output=True, text=True)
    assert "ModuleNotFoundError" in stray.stderr
    demo = subprocess.run(
        [python.parent / "gascnn", "demo", "--no-lava", "--preset", "smoke", "--steps", "16", "-o", "out",
         "--json", "demo.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stderr
    result = json.loads((tmp_path / "demo.json").read_text())
    assert (tmp_path / "out" / "zero.net").is_file()
    assert result["subtract"]["export"]["expected"]["images"] == 269


@pytest.fixture(scope="module")
def edge(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a board: the wheel with the edge extra and nothing else."""
    repository = Path(__file__).resolve().parents[1]
    return fresh_environment(tmp_path_factory.mktemp("edge") / "env", f"gascnn[edge] @ file://{wheel}", repository)


@pytest.mark.slow
def test_edge_extra_runs_a_network_without_torch_or_rich(edge: Path, tmp_path: Path) -> None:
    python = edge
    make = """
import numpy as np
from gascnn.exporters.netx import write_netx
from gascnn.toolkit.lowering.network import *
neuron = CubaNeuron(threshold=np.array(9))
layer = DenseLayer(shape=(2,), weight=np.array([[10, 0, 0], [4, 4, 4]]), neuron=neuron)
write_netx(NetxNetwork(InputLayer((3,)), (layer,)), "tiny.net")
np.savez("in.npz", spikes=np.array([[[1, 0, 0], [1, 1, 1], [0, 1, 1]]], dtype=np.uint8), labels=[0])
"""
    made = subprocess.run([python, "-c", make], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    run = subprocess.run(
        [python.parent / "gascnn", "run", "tiny.net", "--input", "in.npz", "--json", "r.json"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    # Figures need scikit-learn, which the edge does not have: it says so and names the extra.
    assert run.returncode == 2
    assert "gascnn[train]" in run.stderr
    plain = "import numpy as np; np.savez('in.npz', spikes=np.load('in.npz')['spikes'])"
    subprocess.run([python, "-c", plain], cwd=tmp_path, check=True)
    run = subprocess.run(
        [python.parent / "gascnn", "run", "tiny.net", "--input", "in.npz", "--save-spikes", "out.npz",
         "--json", "r.json"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    # By hand: neuron 0 gets 10 > 9 at steps 1 and 2; neuron 1 gets 4, then 12 in all 16 > 9 at step 2, then 8.
    assert json.loads((tmp_path / "r.json").read_text())["predictions"] == [0]
    show = "import numpy as np; print(np.load('out.npz')['layer_00'].astype(int).tolist())"
    spikes = subprocess.run([python, "-c", show], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(spikes.stdout) == [[[0, 0], [1, 0], [1, 1], [0, 0]]]
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    names = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert not names & {"torch", "rich", "numba", "scipy", "scikit-learn", "nir"}
    asked = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert installed_size(Path(asked.stdout.strip()))["bytes"] <= MOST_INSTALLED_BYTES


HEAVY = {"torch", "numba", "rich", "sklearn", "scipy", "onnx", "pandas"}


@pytest.mark.slow
def test_edge_extra_classifies_with_a_split_network(edge: Path, tmp_path: Path) -> None:
    """A board's client and a server: the board imports no torch, and gets the answers of PyTorch."""
    options = PgslOptions(width=8, hidden=8, grid=2, attack="bound", recovery="none", learning_rate=0.02)
    torch.manual_seed(0)
    client, server = new_parts((1, 8, 8), 10, options, LocalOptions(width=4))
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    for _ in range(80):  # learnt by heart, so that answers differ
        train_step(client, server, torch.from_numpy(images) / 255, torch.arange(40) % 10)
    export_pgsl_client(client.model, tmp_path / "client.onnx", classes="0123456789", check=images)
    np.savez(tmp_path / "images.npz", images=images)
    save_network(
        SplitNetwork(client, server, LocalOptions(width=4), tuple("0123456789"), (1, 8, 8)), tmp_path / "split"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gascnn = [sys.executable, "-c", "from gascnn.toolkit.cli import main; main()", "pgsl"]
    subprocess.run(
        [*gascnn, "keys", "keys", "--train", "anna", "--infer", "cleo", "--no-certificates"], cwd=tmp_path, check=True
    )
    serve = [*gascnn, "serve", "--keys", "keys/server", "--run", "run", "--model", "split", "--port", str(port)]
    serving = subprocess.Popen(serve, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        infer = [edge, "-X", "importtime", edge.parent / "gascnn", "pgsl", "client", "infer", "images.npz",
                 "--server", f"http://127.0.0.1:{port}", "--key", "keys/clients/cleo", "--model", "client.onnx",
                 "--patience", "60", "-o", "answers.csv"]  # fmt: skip
        done = subprocess.run(infer, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    finally:
        serving.terminate()
        serving.wait(20)
    assert done.returncode == 0, done.stderr
    found = np.loadtxt(tmp_path / "answers.csv", delimiter=",", skiprows=1)[:, 2:]
    expected = answers(client, server, torch.from_numpy(images)).scores.numpy()
    near = np.abs(found - expected).max(axis=1) < 1e-4
    assert near.mean() >= 0.95  # by rounding alone the attack may now and then take another pixel
    assert expected.std(axis=0).max() > 0.05
    imported = {name.split(".")[0] for name in re.findall(r"(?m)^import time: .*\| +(\S+)$", done.stderr)}
    assert {"gascnn", "numpy", "onnxruntime", "httpx"} <= imported
    assert not imported & HEAVY


@pytest.mark.slow
def test_edge_extra_measures_a_folder_for_boards(edge: Path, tmp_path: Path) -> None:
    """What was packed here with torch answers the same there, spike for spike, in onnxruntime and plain numpy."""
    torch.manual_seed(0)
    ann = resnet(classes=3, blocks=(1,), width=4, image_size=8).eval()
    save_bundle(to_bundle(ann, "abc", (1, 8, 8)), tmp_path / "ann")
    random = np.random.default_rng(0)
    layer = DenseLayer((3,), 2 * random.integers(-60, 60, (3, 64)), CubaNeuron(np.array(90)))
    record = Deployment((1, 8, 8), ("a", "b", "c"), 6)
    write_netx(NetxNetwork(InputLayer((1, 8, 8)), (layer,), deployment=record), tmp_path / "model.net")
    images = random.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    pack(tmp_path / "model.net", tmp_path / "ann", images[:20], np.arange(20) % 3, "abc", tmp_path / "pack",
         calibration=images[20:])  # fmt: skip
    done = subprocess.run(
        [edge, "-X", "importtime", tmp_path / "pack" / "run.py", "-o", "result.json", "--meter", "none"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    found = {row["name"]: row["comparison"] for row in result["contenders"]}
    assert {name: row["images"] for name, row in found.items()} == {"ann-fp32": 20, "ann-int8": 20, "snn": 20}
    assert found["snn"]["bit_equal"]
    assert result["agrees"]
    assert result["settings"]["simulator_method"] == "plain"
    imported = {name.split(".")[0] for name in re.findall(r"(?m)^import time: .*\| +(\S+)$", done.stderr)}
    assert {"gascnn", "numpy", "onnxruntime", "h5py"} <= imported
    assert not imported & HEAVY
