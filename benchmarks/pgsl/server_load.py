"""Many clients of split learning at once: what the server answers, how fast, and that it counts each batch once.

A real ``gascnn pgsl serve`` on loopback, and clients that are threads of this process: what a client does for a query
is small beside what the server does for it, so one interpreter sends more than the server answers; the report says
which share of a core each took. Each client sends its next request when it has the answer to the last (a closed loop),
so the latency at N clients is N times that of the server's work on one request. Parts:

- **queries** over TLS and over plain HTTP: all clients query, one image a request, for some seconds. No request is sent
  again, each answer is compared with that of the same network in this process.
- **training** over TLS: some clients train, in turns as the protocol has it, the others query all the while.
- **killed**: the same, and the server is ended by SIGKILL amid a turn in the middle of the epoch, and started again.

After each, what the clients counted is compared with the server's metrics and its checkpoint; after training, every
loss, the weights of server and client, and Adam's moments with those of the same turns in one process, bit by bit.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial as bound
from pathlib import Path
from typing import Any

from gascnn.benchmarks import machine
from gascnn.benchmarks.pgsl.load_clients import (
    Kill,
    Load,
    LoadClient,
    Reference,
    Trainer,
    in_one_process,
    make_queries,
    make_trainers,
    one_thread,
    running,
)
from gascnn.benchmarks.pgsl.load_report import Trained, Watch, markdown, query_report, training_report
from gascnn.benchmarks.pgsl.partial import versions
from gascnn.benchmarks.pgsl.server_process import CountingWire, ServerProcess, Site, Transport
from gascnn.toolkit.errors import BackendError, FormatError, UsageError
from gascnn.toolkit.files import write_json
from gascnn.toolkit.pgsl.split import Gradient
from gascnn.toolkit.pgsl.wire.store import Checkpoint, RunStore
from gascnn.toolkit.pgsl.wire.training import Report, train_over_wire

__all__ = ["Load", "markdown", "measure_load", "query_part", "training_part"]

FORMAT = 1
"""Of the JSON; counts up when a key changes its meaning."""

Say = Callable[[str], None]


def measure_load(
    load: Load | None = None, *, partial: Path | None = None, progress: Say | None = None
) -> dict[str, Any]:
    """Run all parts. Torch computes on one thread meanwhile.

    Args:
        load: what is asked.
        partial: JSON file in which each part is kept when it is done; parts in it are not run again.
        progress: told in a line what is being done.

    Returns:
        ``machine``, ``load``, and ``parts``, each with ``sent``, ``answered``, ``errors``, ``checks`` (what was found,
        what was expected, whether ``equal``) and ``good``; ``latency`` and ``throughput_per_s`` of queries;
        ``processor_shares`` of the server and of the clients, and what ``limited`` them. ``good`` of all.

    Raises:
        BackendError: the server did not start, or training came to no end.
        FormatError: ``partial`` is there and no such file.
        UsageError: numbers the networks do not take, or ``partial`` is of another load, processor or build.
    """
    load = load or Load()
    tell = progress or (lambda line: None)
    report: dict[str, Any] = {
        "format": FORMAT,
        "machine": machine.describe(),
        "versions": versions(),
        "load": load.to_dict(),
        "parts": {},
    }
    if partial is not None and partial.exists():
        report["parts"] = _kept(partial, report)
    with one_thread(), tempfile.TemporaryDirectory(prefix="gascnn-load-") as name:
        site = Site(
            Path(name),
            load.classes,
            (load.channels, load.image_size, load.image_size),
            load.options,
            load.turn_batches,
            load.requests_per_s,
        )
        site.prepare(*load.names())
        for title, run in _parts(load, site):
            if title not in report["parts"]:
                tell(title)
                report["parts"][title] = run()
                if partial is not None:
                    write_json(partial, report)
    report["good"] = all(part["good"] for part in report["parts"].values())
    return report


def _parts(load: Load, site: Site) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for transport in load.transports:
        yield f"queries, {transport}", bound(query_part, load, site, transport)
    reference: list[Reference] = []

    def training(kill: bool) -> dict[str, Any]:
        if not reference:
            reference.append(in_one_process(load))
        return training_part(load, site, reference[0], kill=kill)

    yield "training", lambda: training(False)
    yield "killed", lambda: training(True)


def _kept(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        theirs, parts = _agreed(found), dict(found["parts"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: not partial results of a server's load; remove it or name another file") from error
    for name, value in _agreed(json.loads(json.dumps(report))).items():
        if theirs[name] != value:
            raise UsageError(f"{path}: its {name} is not this run's; name another file to begin anew")
    return parts


def _agreed(report: dict[str, Any]) -> dict[str, Any]:
    """What two runs must have in common for one table."""
    return {name: report[name] for name in ("format", "versions", "load")} | {
        "processor": report["machine"]["processor"]
    }


def query_part(load: Load, site: Site, transport: Transport) -> dict[str, Any]:
    """All clients query for ``load.seconds``.

    Raises:
        BackendError: the server did not start, or a client could not connect.
    """
    queries = make_queries(load, load.clients, compare=True)
    names = [name for group in load.names() for name in group]
    stop, gate = threading.Event(), threading.Barrier(load.clients + 1, timeout=120.0)
    with ServerProcess(site, f"queries-{transport}", transport) as server:
        clients = []
        for name, own in zip(names, queries, strict=True):
            wire = CountingWire(server, name, patience_s=0.0)  # nothing is sent again, so that no error is hidden
            clients.append(LoadClient(name, wire, lambda client, own=own: own.ask(client, gate, stop)))  # type: ignore[misc]
        with running(clients, stop, server):
            _pass(gate, clients)
            watch = Watch(server)
            stop.wait(load.seconds)
        shares = watch.shares()
        seen = server.metrics()
    return query_report(load, clients, queries, watch.started, shares, seen)


def _pass(gate: threading.Barrier, clients: Sequence[LoadClient]) -> None:
    try:
        gate.wait()
    except threading.BrokenBarrierError:
        errors = [error for client in clients for error in client.errors]
        raise BackendError(f"not all clients could connect: {errors[0] if errors else 'no answer'}") from None


def training_part(load: Load, site: Site, reference: Reference, *, kill: bool) -> dict[str, Any]:
    """Trainers take turns while the others query, until training is done.

    Args:
        load: what is asked.
        site: of the server.
        reference: what must come out.
        kill: whether to kill the server once and start it again.

    Raises:
        BackendError: a trainer failed, or no end within the limit.
    """
    names, others = load.names()
    trainers, queries = make_trainers(load), make_queries(load, len(others), compare=False)
    reports: dict[str, Report] = {}
    stop, killing = threading.Event(), Kill(load.kill_at if kill else None)
    patience_s = load.patience_s if kill else 0.0
    run = "killed" if kill else "training"
    outage: dict[str, Any] = {}
    with ServerProcess(site, run, load.transports[0]) as server:
        clients = []
        for name, one in zip(names, trainers, strict=True):

            def train(client: LoadClient, one: Trainer = one) -> None:
                reports[client.name] = train_over_wire(
                    one.client, client.wire, one.images, one.labels, load.turn_batches, _stop_if(stop)
                )

            clients.append(LoadClient(name, CountingWire(server, name, patience_s=patience_s, before=killing), train))
        asking = []
        for name, own in zip(others, queries, strict=True):
            wire = CountingWire(server, name, patience_s=patience_s)
            asking.append(LoadClient(name, wire, lambda client, own=own: own.ask(client, None, stop)))  # type: ignore[misc]
        with running([*clients, *asking], stop, server):
            watch = Watch(server)
            deadline = time.monotonic() + load.time_limit_s
            while any(client.is_alive() for client in clients):
                if killing.due.is_set() and not killing.done.is_set():
                    outage = _restart(server, clients, killing)
                _check_training(clients, deadline)
                time.sleep(0.02)
            _check_training(clients, deadline)
            shares = watch.shares()
        seen = server.metrics()
    found = _checkpoint(load, site, server)
    return training_report(
        load, Trained(clients, asking, trainers, queries, reports, found), reference, shares, seen, outage
    )


def _stop_if(stop: threading.Event) -> Callable[[int, Gradient], None]:
    def check(epoch: int, step: Gradient) -> None:
        if stop.is_set():
            raise BackendError("stopped")

    return check


def _restart(server: ServerProcess, clients: Sequence[LoadClient], killing: Kill) -> dict[str, Any]:
    answered = sum(client.wire.answered["batch"] for client in clients)
    gone = time.perf_counter()
    server.kill()
    killing.done.set()
    server.start()
    return {"batches_before": answered, "outage_s": time.perf_counter() - gone}


def _check_training(clients: Sequence[LoadClient], deadline: float) -> None:
    errors = [error for client in clients for error in client.errors]
    if errors:
        raise BackendError(f"a client could not train: {errors[0]}")
    if time.monotonic() > deadline:
        raise BackendError("training came to no end within the time limit; give more, or fewer batches")


def _checkpoint(load: Load, site: Site, server: ServerProcess) -> Checkpoint:
    model = {"classes": load.classes, "image_shape": list(site.image_shape)}
    agreed = {"order": load.names()[0], "turn_batches": load.turn_batches}
    store = RunStore(server.run_folder, load.options.to_dict(), model, agreed)
    try:
        found = store.load()
    finally:
        store.close()
    if found is None:
        raise BackendError("the server left no checkpoint")
    return found
