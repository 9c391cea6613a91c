"""What a worker of a cluster checks before it runs a piece."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from gascnn.exporters.netx import write_netx
from gascnn.hardware.backends import open_netx
from gascnn.hardware.cluster.worker import Job, Piece, Refusal, Software, run_piece, software
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork


@pytest.fixture
def file(tmp_path):
    dense = DenseLayer((5,), np.full((5, 64), 20), CubaNeuron(np.array(900)), flatten=True)
    deployment = Deployment((1, 8, 8), tuple("abcde"), 12)
    write_netx(NetxNetwork(InputLayer((1, 8, 8)), (dense,), deployment=deployment), tmp_path / "small.net")
    return open_netx(tmp_path / "small.net")


@pytest.fixture
def images():
    return np.random.default_rng(5).integers(0, 256, (2, 1, 8, 8)).astype(np.uint8)


def job_for(file, **changes):
    job = Job(software(), file.sha256, file.network.digest(), (1, 8, 8), 0, None, None, "counts", {})
    return replace(job, **changes)


def test_a_worker_checks_what_it_is_sent(file, images):
    data, piece = file.path.read_bytes(), Piece(0, images=images[:2])
    assert run_piece(job_for(file), data, piece).result.images == 2
    for changes, sent, kind, message in (
        ({"software": Software("0", "0")}, data, "BackendError", "install the same gascnn on all"),
        ({"file_sha256": hashlib.sha256(b"x").hexdigest()}, b"y", "FormatError", "their SHA-256 differs"),
        ({"file_sha256": hashlib.sha256(b"x").hexdigest()}, b"x", "FormatError", "not a whole HDF5 file"),
        (
            {"network_digest": "0", "file_sha256": hashlib.sha256(data + b"0").hexdigest()},
            data + b"0",
            "FormatError",
            "a worker reads other integers",
        ),
    ):
        refusal = run_piece(job_for(file, **changes), sent, piece)
        assert isinstance(refusal, Refusal)
        assert refusal.kind == kind
        assert message in refusal.message
