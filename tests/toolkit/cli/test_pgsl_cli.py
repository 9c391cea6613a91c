import json
import os
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from gascnn.hardware.edge.model import EdgeModel
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import Upload
from gascnn.toolkit.pgsl.train import make_server
from gascnn.toolkit.training.checkpoint import LAST_FILE, load_checkpoint

MAIN = "from gascnn.toolkit.cli import main; main()"
MISSING = ("torch", "numba", "rich", "onnx", "sklearn", "fastapi", "uvicorn", "cryptography")
OPTIONS = ("width=8", "hidden=16", "grid=2", "recovery=none", "epochs=2", "batch_size=32")


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(*arguments, code=MAIN):
    return [sys.executable, "-c", code, *map(str, arguments)]


def finished(*arguments, code=None):
    done = subprocess.run(
        command(*arguments, **({"code": code} if code else {})),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def in_torch(run, model, images):
    """The classes that the server's checkpoint gives the edge client's activations, without any wire."""
    tensors, values = load_checkpoint(run / LAST_FILE)
    chosen = {name: int(value) if value.isdecimal() else value for name, value in (o.split("=") for o in OPTIONS)}
    server = make_server(10, 8, PgslOptions.from_dict(chosen))
    weights = {name.removeprefix("server."): value for name, value in tensors.items() if name.startswith("server.")}
    server.restore(weights, {"steps": values["progress"]["steps"]})
    activations = torch.from_numpy(EdgeModel(model).activations(images))
    return server.answer(Upload(activations)).scores.argmax(1).tolist()


@pytest.mark.slow
def test_train_over_https_and_infer_without_torch(gascnn, tmp_path, port, without):
    assert gascnn("pgsl", "keys", tmp_path / "keys", "--train", "anna", "--infer", "cleo").status == 0
    keys = tmp_path / "keys"
    settings = [part for option in OPTIONS for part in ("--set", option)]
    serve = command("pgsl", "serve", "--keys", keys / "server", "--run", tmp_path / "run", "--port", port, "--classes",
                    10, "--image-shape", "1,8,8", "--client-certificates", "--threads", 1, *settings)  # fmt: skip
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(serve, stdout=log, stderr=log)
    try:
        where = ("--server", f"https://127.0.0.1:{port}", "--patience", 60)
        model = tmp_path / "client.onnx"
        outcome = gascnn("pgsl", "client", "train", *where, "--key", keys / "clients/anna", "--data", "digits",
                         "--limit", 640, "--local-epochs", 2, "-o", model, "--json", tmp_path / "t.json")  # fmt: skip
        assert outcome.status == 0, outcome.err
        assert "attack pixels 10 by 1" in outcome.out
        trained = json.loads((tmp_path / "t.json").read_text())
        assert trained["batches"] == trained["steps"] == 40
        assert trained["turns"] == 2
        assert trained["losses"][-1][1] < trained["losses"][0][1]
        # scikit-learn's digits need scikit-learn; an edge board has arrays.
        digits = load_dataset("digits")
        np.savez(tmp_path / "d.npz", images=digits.test.images, labels=digits.test.labels)
        infer = without(*MISSING) + MAIN
        finished("pgsl", "client", "infer", *where, "--key", keys / "clients/cleo", "--model", model,
                 tmp_path / "d.npz", "--limit", 100, "--json", tmp_path / "i.json", code=infer)  # fmt: skip
        found = json.loads((tmp_path / "i.json").read_text())
        assert len(found["predictions"]) == 100
        assert found["accuracy"].keys() == {"fusion", "recovered", "fused", "attacked"}
        # Forty batches under a strong attack: above chance (0.1, of 100 images 0.03 either way), not more.
        assert found["accuracy"]["fusion"] > 0.18
        assert found["predictions"] == in_torch(tmp_path / "run", model, digits.test.images[:100])
    finally:
        server.terminate()
        server.wait(20)
    said = (tmp_path / "log").read_text()
    for name in ("anna", "cleo"):
        assert (keys / "clients" / name / "token").read_text().strip() not in said
    assert "Traceback" not in said


def test_the_help_names_all_parts(gascnn):
    assert re.search(r"(?s)client.*keys.*serve", gascnn("pgsl", "--help").out)
    assert re.search(r"(?s)infer.*train", gascnn("pgsl", "client", "--help").out)


def test_importing_the_command_imports_neither_torch_nor_a_server():
    code = "import sys, gascnn.toolkit.cli.pgsl; print(sorted({'torch','fastapi','httpx','numpy'} & set(sys.modules)))"
    assert finished(code=code) == "[]\n"


@pytest.fixture
def keys(gascnn, tmp_path):
    assert gascnn("pgsl", "keys", tmp_path / "keys", "--train", "anna", "--no-certificates").status == 0
    return tmp_path / "keys"


def serve(gascnn, keys, *more, shape="1,8,8"):
    folder = keys.parent / "run"
    return gascnn(
        "pgsl", "serve", "--keys", keys / "server", "--run", folder, "--classes", 10, "--image-shape", shape, *more
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--host", "192.168.1.4"), "plain HTTP to 192.168.1.4 would show tokens"),
        (("--host", "192.168.1.4", "--plain-http"), "plain HTTP to 192.168.1.4 would show tokens"),
        (("--client-certificates",), "client certificates need TLS"),
        (("--plain-http", "--client-certificates"), "--plain-http excludes certificates"),
        (("--certificate", "none.pem"), "go together"),
        (("--port", -1), "the port is -1"),
        (("--turn-batches", 0), "--turn-batches is 0"),
        (("--lease", 0), "--lease is 0 and --rate 100; allowed: seconds above 0, up to 1e+06 a second"),
        (("--lease", "inf"), "--lease is inf"),
        (("--rate", "inf"), "--rate inf"),
        (("--rate", "nan"), "--rate nan"),
        (("--classes", 10**9), "classes is 1000000000; allowed: whole numbers from 2 to 100000"),
        (("--threads", 99999999999), "--threads is 99999999999; allowed: 0 to 1024"),
        (("--set", "epochs"), "has no value; give NAME=VALUE"),
        (("--set", "colour=3"), "unknown split-learning option 'colour'"),
        (("--set", "width=6"), "width is 6; allowed: multiples of 4"),
        (("--set", "width=" + "[" * 9000), "width is '[[["),
        (("--options", "none.json"), "none.json: not readable JSON"),
        (("--options", "deep.json"), "deep.json: not readable JSON"),
    ],
)
def test_a_server_that_cannot_be(gascnn, keys, more, said, monkeypatch):
    monkeypatch.chdir(keys.parent)
    (keys.parent / "deep.json").write_text("[" * 9000)
    outcome = serve(gascnn, keys, *more)
    assert outcome.status == 2
    assert said in outcome.error
    assert not (keys.parent / "run").exists()


def test_a_shape_that_cannot_be(gascnn, keys):
    assert "two equal sides" in serve(gascnn, keys, shape="1,8,9").error
    assert "image_size is 9" in serve(gascnn, keys, shape="1,9,9").error
    assert "in_channels is 2; allowed: 1 (gray) or 3" in serve(gascnn, keys, shape="2,8,8").error
    assert "image_size is 2048; allowed" in serve(gascnn, keys, shape="1,2048,2048").error
    # Nothing is left of them that a right shape would have to agree with.
    assert not (keys.parent / "run").exists()


def test_a_bundle_says_what_it_is(gascnn, keys, tmp_path):
    common = ("pgsl", "serve", "--keys", keys / "server", "--run", tmp_path / "run")
    assert "needs --classes and --image-shape" in gascnn(*common).error
    assert "needs --classes and --image-shape" in gascnn(*common, "--classes", 10).error
    for more in (("--classes", 10), ("--image-shape", "1,8,8"), ("--set", "width=8")):
        assert "leave --classes, --image-shape" in gascnn(*common, "--model", tmp_path, *more).error
    assert str(tmp_path / "none") in gascnn(*common, "--model", tmp_path / "none").error
    assert not (tmp_path / "run").exists()


def test_a_taken_port(gascnn, keys, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        outcome = serve(gascnn, keys, "--port", port, "--set", "width=8")
    assert outcome.status == 1
    assert f"could not listen on 127.0.0.1 port {port}" in outcome.error


def test_a_client_that_cannot_be(gascnn, keys, tmp_path):
    key = keys / "clients/anna"
    train = ("pgsl", "client", "train", "--key", key, "--data", "digits", "-o", tmp_path / "c.onnx")
    assert "would show tokens" in gascnn(*train, "--server", "http://example.org:1").error
    started = time.monotonic()
    outcome = gascnn(*train, "--server", "http://127.0.0.1:9", "--patience", 0.2)
    assert time.monotonic() - started < 20
    assert outcome.status == 1
    assert "no answer from 127.0.0.1" in outcome.error
    for shard in ("3/2", "0/2", "2", "a/b", "1/0"):
        assert (
            f"--shard is '{shard}'; give I/N"
            in gascnn(*train, "--server", "http://127.0.0.1:9", "--shard", shard).error
        )
    for server in ("https://x..y", "https://localhost:99999", "https://", "ftp://x", "https://u:p@x"):
        assert "is no address of a server" in gascnn(*train, "--server", server).error
    for times in (("--patience", "nan"), ("--patience", -1), ("--timeout", 0), ("--timeout", "inf")):
        assert "allowed: from 0 s, and above 0 s" in gascnn(*train, "--server", "http://127.0.0.1:9", *times).error
    assert "--amount goes with --pixels" in gascnn(*train, "--server", "http://127.0.0.1:9", "--amount", 1).error
    infer = ("pgsl", "client", "infer", "--server", "http://127.0.0.1:9", "--key", key, "--data", "digits")
    assert "no such file" in gascnn(*infer, "--model", tmp_path / "none.onnx").error
    assert "give IMAGES or --data" in gascnn(*infer, tmp_path, "--model", tmp_path / "none.onnx").error
    assert not (tmp_path / "c.onnx").exists()


def test_a_client_may_ask_for_a_stronger_attack():
    from gascnn.toolkit.cli.pgsl_client import _check_attack
    from gascnn.toolkit.pgsl.options import PgslOptions

    _check_attack(PgslOptions(pixels=10), (10, 1.0))
    _check_attack(PgslOptions(pixels=11, amount=0.5), (10, 0.5))
    _check_attack(PgslOptions(attack="literal"), None)
    with pytest.raises(UsageError, match="attack is pixels 9 by 1; --pixels and --amount ask for 10 by 1 or more"):
        _check_attack(PgslOptions(pixels=9), (10, 1.0))
    for amount, least in ((1e-6, 1.0), (0.5, 0.6), (0.5, float("nan"))):
        with pytest.raises(UsageError, match=r"attack is pixels 10 by .* ask for 10 by"):
            _check_attack(PgslOptions(pixels=10, amount=amount), (10, least))
    with pytest.raises(UsageError, match=r"attack is bound 0\.3"):
        _check_attack(PgslOptions(attack="bound"), (1, 0.0))
