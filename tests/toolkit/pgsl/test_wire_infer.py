import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gascnn.exporters.onnx.pgsl import export_pgsl_client
from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.cli.pgsl_infer import classify
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.pgsl.split import train_step
from gascnn.toolkit.pgsl.train import answers, make_client
from gascnn.toolkit.pgsl.wire.messages import Message

INFER = """
from gascnn.toolkit.cli import main
try:
    main(sys.argv[1:])
finally:
    assert not {"torch", "rich", "numba", "fastapi"} & set(sys.modules)
"""
MISSING = ("torch", "numba", "rich", "onnx", "sklearn", "fastapi", "uvicorn", "cryptography")


def test_infer_needs_no_torch_and_gives_the_answers_of_torch(pgsl_server, tmp_path, without):
    running = pgsl_server()
    server = running.coordinator.server
    torch.manual_seed(1)
    client = make_client(LocalClassifier(1, 3, 12, width=3), server.options)
    generator = np.random.default_rng(7)
    images = generator.integers(0, 256, (17, 1, 12, 12), dtype=np.uint8)
    labels = np.arange(17) % 3
    for _ in range(30):  # learnt a little, so that scores differ between images
        for rows in (slice(0, 6), slice(6, 12), slice(11, 17)):
            train_step(client, server, torch.from_numpy(images[rows]) / 255, torch.from_numpy(labels[rows]))
    running.coordinator._keeper.take(client.state())  # as if it had handed over
    export_pgsl_client(client.model, tmp_path / "c.onnx", classes=["a", "b", "c"])
    np.savez(tmp_path / "d.npz", images=images, labels=labels)
    (tmp_path / "token").write_text(running.tokens["cleo"])
    arguments = ["pgsl", "client", "infer", "--server", running.url, "--key", tmp_path, "--model", tmp_path / "c.onnx",
                 tmp_path / "d.npz", "-o", tmp_path / "out.csv", "--json", tmp_path / "out.json"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", without(*MISSING) + INFER, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "fusion" in done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    scores = answers(client, server, torch.from_numpy(images)).scores
    expected = scores.argmax(1)
    assert found["predictions"] == expected.tolist()
    assert found["accuracy"]["fusion"] == float((expected.numpy() == labels).mean())
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "file,class,score a,score b,score c"
    assert [row.split(",")[1] for row in rows[1:]] == ["abc"[i] for i in expected]
    written = np.array([[float(cell) for cell in row.split(",")[2:]] for row in rows[1:]])
    np.testing.assert_allclose(written, scores.numpy(), atol=1e-4)
    assert scores.std(0).max() > 1e-3  # else equal scores would mean little
    assert running.coordinator.counts.images == 17


def test_a_client_of_another_network_is_refused_and_one_of_another_moment_is_told(pgsl_server, tmp_path, capsys):
    """Activations of other layers would be answered with scores that mean nothing."""
    running = pgsl_server()
    chosen = running.coordinator.server.options
    own, other = (make_client(LocalClassifier(1, 3, 12, width=3), replace(chosen, seed=seed)) for seed in (1, 2))
    running.coordinator._keeper.take(own.state())
    np.savez(tmp_path / "d.npz", images=np.zeros((2, 1, 12, 12), np.uint8))
    (tmp_path / "token").write_text(running.tokens["cleo"])

    def infer(client):
        export_pgsl_client(client.model, tmp_path / "client.onnx", classes=["a", "b", "c"])
        return classify(
            images=tmp_path / "d.npz", server=running.url, key=tmp_path, model=tmp_path / "client.onnx", data=None,
            data_dir=None, split="test", limit=None, threads=1, output=tmp_path / "out.csv", patience=5, timeout=5,
            plain_http_anywhere=False,
        )  # fmt: skip

    with pytest.raises(DataError, match=r"client.onnx is no client of the server's network; use the model"):
        infer(other)
    assert not (tmp_path / "out.csv").exists()
    assert running.coordinator.counts.images == 0
    assert infer(own)["images"] == 2
    assert "in training" not in capsys.readouterr().err
    with running.wire() as wire:
        wire.send(Message("turn"))
    assert infer(other)["images"] == 2
    assert "has not the weights that it goes with now" in capsys.readouterr().err
