"""Clients that load the server: those that query, those that train, and what training gives in one process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.benchmarks.pgsl.server_process import CountingWire, ServerProcess, Transport
from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.errors import BackendError, UsageError, first_line
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import SplitClient, Upload, train_round_robin
from gascnn.toolkit.pgsl.train import make_client, make_server
from gascnn.toolkit.pgsl.wire.messages import Message
from gascnn.toolkit.pgsl.wire.training import own_turns
from gascnn.toolkit.training.batches import to_float

TOLERANCE = 1e-6
"""Of a score, 0 to 1, computed twice by the same operations in float32."""

MOST_ERRORS = 20
"""Of one client, which then gives up."""

_IMAGES = 4  # of one client that queries
_STOP_LIMIT_S = 15.0


@dataclass(frozen=True)
class Load:
    """What is asked of the server.

    Attributes:
        clients: at once.
        seconds: of each part that only queries.
        trainers: of the clients, in the parts with training; the others query.
        epoch_batches: of one trainer in an epoch.
        turn_batches: of a turn, 2 or more.
        classes, channels, image_size: of the images, which are noise: time and counts do not depend on them.
        options: of split learning, the server's and the clients'.
        transports: of the parts that only query; training goes over the first.
        requests_per_s: the server's limit for one client, above what one can send.
        patience_s: of clients beside a server that is killed.
        seed: of images and labels.
        time_limit_s: of one part with training.
    """

    clients: int = 20
    seconds: float = 60.0
    trainers: int = 10
    epoch_batches: int = 8
    turn_batches: int = 4
    classes: int = 10
    channels: int = 1
    image_size: int = 28
    options: PgslOptions = field(default_factory=lambda: PgslOptions(epochs=1))
    transports: tuple[Transport, ...] = ("tls", "plain")
    requests_per_s: float = 10_000.0
    patience_s: float = 300.0
    seed: int = 0
    time_limit_s: float = 3600.0

    def __post_init__(self) -> None:
        """Check what cannot be.

        Raises:
            UsageError: names the number.
        """
        if not 1 <= self.trainers <= self.clients or not self.seconds > 0:
            raise UsageError(
                f"{self.clients} clients, {self.trainers} trainers, {self.seconds} s; give 1 trainer or more, no more "
                "than clients, and a time above 0"
            )
        if self.turn_batches < 2 or self.batches % self.turn_batches or self.epoch_batches < 1:
            raise UsageError(
                f"turns of {self.turn_batches} batches for a trainer's {self.batches}; give 2 or more that divide them"
            )
        if not self.transports or not {*self.transports} <= {"tls", "plain"}:
            raise UsageError(f"transports are {self.transports}; allowed: tls, plain, at least one")

    @property
    def batches(self) -> int:
        """Of one trainer."""
        return self.epoch_batches * self.options.epochs

    @property
    def kill_at(self) -> int:
        """Batches sent by all trainers before the server is killed: amid a turn, in the middle of the epoch."""
        return self.trainers * self.batches // self.turn_batches // 2 * self.turn_batches + self.turn_batches // 2

    def names(self) -> tuple[list[str], list[str]]:
        """Of those with the role to train, and of the others."""
        return [f"t{i:03}" for i in range(self.trainers)], [f"q{i:03}" for i in range(self.clients - self.trainers)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "options": self.options.to_dict(), "transports": list(self.transports)}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Bits depend on the number of threads, and one leaves the other core to the server."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class LoadClient(threading.Thread):
    """One client; a failure of it ends up in ``errors``."""

    def __init__(self, name: str, wire: CountingWire, work: Callable[[LoadClient], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.wire, self.errors, self.failed = wire, list[str](), False
        self._work = work

    def run(self) -> None:
        """Work, and close the connection."""
        try:
            self._work(self)
        except Exception as error:
            self.failed = True
            self.errors.append(f"{self.name}: {type(error).__name__}: {first_line(error)}")
        finally:
            self.wire.close()


@contextlib.contextmanager
def running(clients: Sequence[LoadClient], stop: threading.Event, server: ServerProcess) -> Iterator[None]:
    """Clients that are stopped at the end; if it is no good one, the server is killed, so that none waits for it."""
    try:
        for client in clients:
            client.start()
        yield
    except BaseException:
        stop.set()
        server.kill()
        for client in clients:
            client.wire.close()
        raise
    finally:
        stop.set()
        deadline = time.monotonic() + _STOP_LIMIT_S
        for client in clients:
            if client.ident is not None:
                client.join(max(0.0, deadline - time.monotonic()))


@dataclass
class Queries:
    """What a client asks, what it should hear, and what it heard.

    Attributes:
        activations: (1, width, size/2, size/2) of each image.
        expected: scores (1, classes) of each; None while the weights change.
        seconds, ended: of each request: how long it took, and when it was answered.
        wrong: answers that are not as expected.
        first_s: from the connection's beginning to the answer of the first request, which asks for the terms.
    """

    activations: list[npt.NDArray[np.float32]]
    expected: list[npt.NDArray[np.float32]] | None
    seconds: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    wrong: int = 0
    first_s: float = 0.0

    def ask(self, client: LoadClient, gate: threading.Barrier | None, stop: threading.Event) -> None:
        """Until ``stop``; requests that fail are counted, and so are wrong answers."""
        started = time.perf_counter()
        try:
            client.wire.terms()
        except BaseException:
            if gate is not None:
                gate.abort()
            raise
        self.first_s = time.perf_counter() - started
        if gate is not None:
            gate.wait()
        number = 0
        while not stop.is_set() and len(client.errors) < MOST_ERRORS:
            place = number % len(self.activations)
            number += 1
            started = time.perf_counter()
            try:
                reply = client.wire.send(Message("query", {}, {"activations": self.activations[place]}))
            except Exception as error:
                client.errors.append(f"{client.name}: {first_line(error)}")
                continue
            self.ended.append(time.perf_counter())
            self.seconds.append(self.ended[-1] - started)
            scores = reply.tensors["scores"]
            if self.expected is None:
                good = bool(np.isfinite(scores).all()) and abs(float(scores.sum()) - 1) < 1e-4
            else:
                good = np.allclose(scores, self.expected[place], rtol=0, atol=TOLERANCE)
            self.wrong += not good


def make_queries(load: Load, count: int, *, compare: bool) -> list[Queries]:
    """Of ``count`` clients, each its own images.

    Args:
        load: what is asked.
        count: of clients.
        compare: whether to work out what the untrained server answers.
    """
    client = make_client(LocalClassifier(load.channels, load.classes, load.image_size), load.options)
    server = make_server(load.classes, load.image_size, load.options)
    found = []
    for number in range(count):
        images, _ = _noise(load, _IMAGES, 1_000_000 + number)
        activations = [client.query(to_float(image[None])).activations for image in images]
        expected = [server.answer(Upload(one)).scores.numpy() for one in activations] if compare else None
        found.append(Queries([one.numpy() for one in activations], expected))
    return found


class Kill:
    """Makes the trainer that sends batch number ``at`` wait until the server is killed."""

    def __init__(self, at: int | None) -> None:
        self.at, self.due, self.done = at, threading.Event(), threading.Event()
        self._count, self._lock = 0, threading.Lock()

    def __call__(self, kind: str) -> None:
        """Called ahead of each message, from the trainers' threads."""
        if kind != "batch":
            return
        with self._lock:
            here = self._count == self.at
            self._count += 1
        if here:
            self.due.set()
            if not self.done.wait(120.0):
                raise BackendError("the server was not killed")


@dataclass(frozen=True)
class Trainer:
    """A client that trains, and its images and labels."""

    client: SplitClient
    images: Tensor
    labels: Tensor


def make_trainers(load: Load) -> list[Trainer]:
    """Fresh ones, each with images, labels and a local classifier of its own."""
    found = []
    for number in range(load.trainers):
        images, labels = _noise(load, load.epoch_batches * load.options.batch_size, number)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(load.seed + number)
            local = LocalClassifier(load.channels, load.classes, load.image_size)
        found.append(Trainer(make_client(local, load.options), images, labels))
    return found


@dataclass(frozen=True)
class Reference:
    """What training gives in one process.

    Attributes:
        server, client: state of the server, and the one that the last client hands on.
        losses: of each batch of each client, in its own order.
        seconds: it took.
    """

    server: dict[str, Tensor]
    client: dict[str, Tensor]
    losses: list[tuple[tuple[float, float, float], ...]]
    seconds: float


def in_one_process(load: Load) -> Reference:
    """The same turns without a wire."""
    started = time.perf_counter()
    trainers = make_trainers(load)
    server = make_server(load.classes, load.image_size, load.options)
    turns = [own_turns(len(one.images), load.options, load.turn_batches) for one in trainers]
    batches = [
        [(to_float(one.images[chosen]), one.labels[chosen]) for _, chosen in own[number]]
        for number in range(len(turns[0]))
        for one, own in zip(trainers, turns, strict=True)
    ]
    replies = iter(train_round_robin([one.client for one in trainers], server, batches))
    losses: list[list[tuple[float, float, float]]] = [[] for _ in trainers]
    for place, turn in enumerate(batches):
        losses[place % len(trainers)] += [next(replies).losses for _ in turn]
    return Reference(
        server.state()[0],
        trainers[-1].client.state().tensors,
        [tuple(own) for own in losses],
        time.perf_counter() - started,
    )


def _noise(load: Load, count: int, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1_000_003 * load.seed + number)
    shape = (count, load.channels, load.image_size, load.image_size)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return images, torch.randint(load.classes, (count,), generator=generator)
