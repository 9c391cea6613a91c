"""A real ``gascnn pgsl serve`` on loopback for measurements: started, killed, started again, and certainly ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gascnn.hardware.lava.worker import guard
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.wire.client import Key, WireClient
from gascnn.toolkit.pgsl.wire.messages import Message
from gascnn.toolkit.pgsl.wire.tls import CLIENTS_FOLDER, SERVER_FOLDER, make_keys

Transport = Literal["tls", "plain"]

HOST = "127.0.0.1"
METER = "meter"
"""Name of the client that reads metrics."""

START_LIMIT_S = 300.0
_LAUNCH = (
    "from gascnn.hardware.lava.worker.guard import die_with_parent; die_with_parent(); "
    "from gascnn.toolkit.cli import main; main()"
)


class Scrape:
    """What ``/metrics`` said.

    Args:
        text: in Prometheus' format.
    """

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> int | float:
        """Sum of the samples ``gascnn_pgsl_<name>`` with these labels; 0 where there is none."""
        values = [
            sample.value
            for sample in self._samples
            if sample.name == f"gascnn_pgsl_{name}" and labels.items() <= sample.labels.items()
        ]
        found = sum(values)
        return int(found) if found == int(found) else found

    def refused(self) -> int:
        """Requests that were answered otherwise than by 200."""
        return int(self.total("requests_total") - self.total("requests_total", status="200"))


@dataclass(frozen=True)
class Site:
    """What a server is started with.

    Attributes:
        folder: of keys, runs and the log.
        classes, image_shape: of the images; (C, H, W).
        options: of split learning.
        turn_batches: of a turn.
        requests_per_s: of one client; above what one can send, for it is the server that is measured.
    """

    folder: Path
    classes: int
    image_shape: tuple[int, int, int]
    options: PgslOptions
    turn_batches: int
    requests_per_s: float

    def prepare(self, trainers: list[str], queriers: list[str]) -> None:
        """Write keys and options, once for all servers."""
        roles = [*((name, "train") for name in trainers), *((name, "infer") for name in queriers), (METER, "metrics")]
        make_keys(self.folder / "keys", roles, [HOST], certificates=True)
        (self.folder / "options.json").write_text(json.dumps(self.options.to_dict()), encoding="utf-8")

    def key(self, name: str) -> Key:
        """Of a client."""
        return Key.read(self.folder / "keys" / CLIENTS_FOLDER / name)


class ServerProcess:
    """A server, alive until the block ends or it is killed. To be used by one thread, which must not end before it.

    Args:
        site: what it serves.
        run: name of its run's folder.
        transport: ``tls``, as by default where there is a certificate, or ``plain``.

    Raises:
        BackendError: it did not start; says the last line of its log.
    """

    def __init__(self, site: Site, run: str, transport: Transport) -> None:
        self.site, self.run_folder, self.transport = site, site.folder / run, transport
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._log = site.folder / f"{run}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._spent_s = 0.0

    def __enter__(self) -> ServerProcess:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """To reach it by."""
        return f"{'https' if self.transport == 'tls' else 'http'}://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, from its checkpoint if there is one, and wait until it listens."""
        site = self.site
        arguments: list[object] = ["pgsl", "serve", "--keys", site.folder / "keys" / SERVER_FOLDER]
        arguments += ["--run", self.run_folder, "--classes", site.classes, "--options", site.folder / "options.json"]
        arguments += ["--image-shape", ",".join(map(str, site.image_shape)), "--port", self.port, "--threads", 1]
        arguments += ["--turn-batches", site.turn_batches, "--rate", site.requests_per_s]
        arguments += ["--plain-http"] if self.transport == "plain" else []
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not self._listens():
            if self._process.poll() is not None:
                raise BackendError(f"the server ended at its start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise BackendError(f"the server does not listen after {START_LIMIT_S:g} s: {self._last_words()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        self._spent_s += _processor_s(process.pid)
        process.send_signal(signal.SIGKILL)
        # Reaped last, so that the group's number still is its own.
        guard.end_group(process.pid)
        process.wait()

    def close(self) -> None:
        """End it, however it fares."""
        self.kill()

    def processor_s(self) -> float:
        """Seconds of processor time, of all its processes so far."""
        return self._spent_s + (0.0 if self._process is None else _processor_s(self._process.pid))

    def metrics(self) -> Scrape:
        """Its own counts.

        Raises:
            BackendError: no answer.
        """
        key = self.site.key(METER)
        verify = ssl.create_default_context(cafile=str(key.authority)) if self.transport == "tls" else True
        try:
            with httpx.Client(verify=verify, trust_env=False, timeout=60) as http:
                answer = http.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {key.token}"})
                answer.raise_for_status()
        except httpx.HTTPError as error:
            raise BackendError(f"the server shows no metrics: {error}") from error
        return Scrape(answer.text)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            # While nobody listens, a socket can be given this very port and reach itself.
            return probe.connect_ex((HOST, self.port)) == 0 and probe.getsockname() != probe.getpeername()

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "without a word"


class CountingWire(WireClient):
    """A client that counts what it sends.

    Args:
        server: to whom.
        name: whose key is used.
        patience_s: how long it asks again; 0 makes an error of the first failure.
        before: called with each message's kind before it is sent.

    Attributes:
        sent, answered: messages by kind.
        attempts: requests by kind; above ``sent`` where some were sent again.
    """

    def __init__(
        self, server: ServerProcess, name: str, *, patience_s: float, before: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(server.url, server.site.key(name), patience_s=patience_s)
        self.sent, self.answered, self.attempts = (Counter[str]() for _ in range(3))
        self._before = before

    def send(self, message: Message) -> Message:
        """As :meth:`gascnn.toolkit.pgsl.wire.client.WireClient.send`."""
        if self._before is not None:
            self._before(message.kind)
        self.sent[message.kind] += 1
        reply = super().send(message)
        self.answered[message.kind] += 1
        return reply

    def _attempt(self, kind: str, body: bytes, kinds: tuple[str, ...], attempt: int) -> Message:
        self.attempts[kind] += 1
        return super()._attempt(kind, body, kinds, attempt)


def _processor_s(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
