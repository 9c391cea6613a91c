"""A server of split learning on loopback, in a thread of this process."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.train import make_server
from gascnn.toolkit.pgsl.wire import serve
from gascnn.toolkit.pgsl.wire.app import default_limits, make_app
from gascnn.toolkit.pgsl.wire.client import Key, WireClient
from gascnn.toolkit.pgsl.wire.coordinator import Coordinator
from gascnn.toolkit.pgsl.wire.limits import Caller, Callers, token_sha256
from gascnn.toolkit.pgsl.wire.store import RunStore

CLASSES, SIZE = 3, 12
OPTIONS = PgslOptions(
    width=8, hidden=10, grid=2, pixels=4, recovery="channels", recovery_iterations=5, decay=0.1, batch_size=6, epochs=2
)
TOKENS = {"anna": "token-of-anna", "ben": "token-of-ben", "cleo": "token-of-cleo", "meter": "token-of-meter"}
ROLES = {"anna": "train", "ben": "train", "cleo": "infer", "meter": "metrics"}


@dataclass
class Running:
    """One server and its address."""

    coordinator: Coordinator
    url: str
    server: Any
    thread: threading.Thread
    tokens: dict[str, str] = field(default_factory=lambda: dict(TOKENS))

    def wire(self, name: str = "anna", **settings: Any) -> WireClient:
        return WireClient(self.url, Key(TOKENS[name]), **{"patience_s": 20.0, **settings})

    def post(self, kind: str, body: Any, token: str | None = TOKENS["anna"], **headers: str) -> httpx.Response:
        sent = {"Content-Type": "application/vnd.safetensors", **headers}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return httpx.post(f"{self.url}/v1/{kind}", content=body, headers=sent, timeout=20)

    def digest(self) -> str:
        """Of weights, batch-norm statistics and Adam's moments."""
        found = hashlib.sha256()
        for name, value in sorted(self.coordinator.server.state()[0].items()):
            found.update(name.encode() + value.numpy().tobytes())
        return found.hexdigest()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def pgsl_server(tmp_path):
    """Start servers; all are stopped at the end."""
    running: list[Running] = []
    stores: list[RunStore] = []

    def start(
        folder: str = "run", *, trainers=("anna", "ben"), limits=None, address=None, turn_batches=3, **settings: Any
    ) -> Running:
        store = RunStore(
            tmp_path / folder,
            OPTIONS.to_dict(),
            {"classes": CLASSES, "image_shape": [1, SIZE, SIZE]},
            {"order": list(trainers), "turn_batches": turn_batches},
        )
        stores.append(store)
        coordinator = Coordinator(
            make_server(CLASSES, SIZE, OPTIONS), 1, trainers, store, turn_batches=turn_batches, **settings
        )
        entries = {n: Caller(n, ROLES[n], token_sha256(TOKENS[n])) for n in TOKENS}
        app = make_app(coordinator, Callers(entries), limits(default_limits(coordinator)) if limits else None)
        where = address or serve.Address("127.0.0.1", 0)
        server = serve.make_server(app, where)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        scheme = "http" if where.certificate is None else "https"
        running.append(Running(coordinator, f"{scheme}://127.0.0.1:{port}", server, thread))
        return running[-1]

    def restart(before: Running, **settings: Any) -> Running:
        before.stop()
        stores[-1].close()
        return start(**settings)

    start.restart = restart
    yield start
    for one in running:
        with contextlib.suppress(Exception):
            one.stop()
    for store in stores:
        store.close()
