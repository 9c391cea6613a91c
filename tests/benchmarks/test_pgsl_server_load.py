"""The server under load, at smoke size: its counts beside the clients', a kill, what is found if something is wrong."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gascnn.benchmarks.pgsl import server_load, server_process
from gascnn.benchmarks.pgsl.load_clients import (
    MOST_ERRORS,
    Kill,
    Load,
    LoadClient,
    Queries,
    in_one_process,
    make_queries,
)
from gascnn.benchmarks.pgsl.load_report import latency, limited_by
from gascnn.benchmarks.pgsl.server_load import markdown, measure_load, query_part, training_part
from gascnn.benchmarks.pgsl.server_process import Scrape, ServerProcess, Site
from gascnn.toolkit.errors import BackendError, FormatError, UsageError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.train import make_server
from gascnn.toolkit.pgsl.wire import serve
from gascnn.toolkit.pgsl.wire.app import default_limits, make_app
from gascnn.toolkit.pgsl.wire.coordinator import Coordinator
from gascnn.toolkit.pgsl.wire.limits import Callers
from gascnn.toolkit.pgsl.wire.store import RunStore

OPTIONS = PgslOptions(
    width=8, hidden=10, grid=2, pixels=4, recovery="channels", recovery_iterations=5, batch_size=6, epochs=1
)
LOAD = Load(
    clients=4, seconds=0.5, trainers=2, epoch_batches=4, turn_batches=2, classes=3, image_size=12, options=OPTIONS
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    found = Site(tmp_path_factory.mktemp("load"), LOAD.classes, (1, 12, 12), OPTIONS, LOAD.turn_batches, 10_000)
    found.prepare(*LOAD.names())
    return found


@pytest.fixture(scope="module")
def reference():
    return in_one_process(LOAD)


class InThread(ServerProcess):
    """The same server without the seconds that a process takes to import torch."""

    def start(self):
        site, keys = self.site, self.site.folder / "keys" / "server"
        callers = Callers.read(keys / "tokens.json")
        agreed = {"order": list(callers.trainers), "turn_batches": site.turn_batches}
        model = {"classes": site.classes, "image_shape": list(site.image_shape)}
        self.store = RunStore(self.run_folder, site.options.to_dict(), model, agreed)
        server = make_server(site.classes, site.image_shape[1], site.options)
        coordinator = Coordinator(server, 1, callers.trainers, self.store, turn_batches=site.turn_batches)
        limits = replace(default_limits(coordinator), requests_per_s=10_000, burst=10_000)
        address = serve.Address("127.0.0.1", self.port, keys / "certificate.pem", keys / "key.pem")
        self.server = serve.make_server(make_app(coordinator, callers, limits), address)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def kill(self):
        self.server.should_exit = True
        self.thread.join(20)
        self.store.close()


def failed(part):
    assert part["good"] == all(check["equal"] for check in part["checks"])
    return [check["what"] for check in part["checks"] if not check["equal"]]


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def started(monkeypatch):
    """Process ids of the servers that a test starts; all must be gone at its end, and so must the clients."""
    ids = []
    popen = server_process.subprocess.Popen

    def remember(*arguments, **settings):
        ids.append(popen(*arguments, **settings))
        return ids[-1]

    monkeypatch.setattr(server_process.subprocess, "Popen", remember)
    yield ids
    assert ids
    assert not any(alive(process.pid) for process in ids)
    assert not [thread.name for thread in threading.enumerate() if thread.name[1:].isdigit()]


def test_queries_are_answered_and_counted_over_tls_and_a_wrong_answer_is_found(site, monkeypatch):
    """One client of the four is told to expect other scores, as if the server had mixed up two clients."""

    def spoiled(load, count, *, compare):
        found = make_queries(load, count, compare=compare)
        found[2].expected[1] = found[2].expected[1] + 1e-4
        return found

    monkeypatch.setattr(server_load, "make_queries", spoiled)
    monkeypatch.setattr(server_load, "ServerProcess", InThread)
    part = query_part(LOAD, site, "tls")
    json.dumps(part, allow_nan=False)
    assert failed(part) == ["wrong answers"]
    assert 0 < part["wrong"] <= part["sent"]["query"] / 4
    assert part["sent"]["query"] == part["answered"]["query"] == part["latency"]["requests"] > 8
    assert part["errors"] == []
    assert 0 < part["latency"]["p50_s"] <= part["latency"]["p95_s"] <= part["latency"]["p99_s"]
    low, high = part["latency"]["p99_interval_s"]
    assert low <= part["latency"]["p99_s"] <= high <= part["latency"]["max_s"]
    assert 0 < part["server_mean_s"] < part["latency"]["max_s"]
    assert part["processor_shares"]["clients"] > 0


def test_training_beside_queries_counts_each_batch_once_and_another_loss_is_found(site, reference, monkeypatch):
    monkeypatch.setattr(server_load, "ServerProcess", InThread)
    other = replace(reference, losses=[reference.losses[0], reference.losses[1][:-1]])
    part = training_part(LOAD, site, other, kill=False)
    json.dumps(part, allow_nan=False)
    assert failed(part) == ["losses as in one process"]
    assert (part["batches"], part["turns"], part["lost_turns"], part["sent_again"]) == (8, 4, 0, 0)
    assert part["sent"]["batch"] == 8
    assert part["sent"]["query"] > 0


def test_killed_amid_a_turn_the_counts_and_weights_are_those_of_an_undisturbed_run(site, started, reference):
    part = training_part(LOAD, site, reference, kill=True)
    assert failed(part) == []
    assert part["batches_before"] == LOAD.kill_at == 5
    assert (part["batches"], part["turns"], part["lost_turns"]) == (8, 4, 1)
    assert part["answered"]["batch"] == 9  # that of the lost turn twice
    assert part["processor_shares"]["server"] > 0
    assert len(started) == 2
    assert started[0].returncode == -9


SILENT = """
import socket, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
with socket.create_server(("127.0.0.1", port), backlog=50):
    time.sleep(60)
"""


def test_interrupted_it_leaves_no_server_and_no_client(site, started, monkeypatch):
    """Clients that wait for a server which never answers must not be waited for."""

    def interrupted(gate, clients):
        time.sleep(0.3)
        assert all(client.is_alive() for client in clients)
        raise KeyboardInterrupt

    monkeypatch.setattr(server_process, "_LAUNCH", SILENT)
    monkeypatch.setattr(server_load, "_pass", interrupted)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        query_part(LOAD, site, "plain")
    assert time.monotonic() - before < 10


def test_a_server_that_does_not_start_is_told(site, started):
    bad = replace(site, image_shape=(1, 12, 11))
    with (
        pytest.raises(BackendError, match=r"the server ended at its start: error: --image-shape is '1,12,11'"),
        ServerProcess(bad, "bad", "plain"),
    ):
        pass


def part(title):
    shares = {"seconds": 2.0, "server": 0.9, "clients": 0.1}
    common = {"seconds": 2.0, "answered": {"query": 7}, "processor_shares": shares, "latency": None}
    errors = {"what": "errors", "found": 0, "expected": 0, "equal": True}
    if title.startswith("queries"):
        return {**common, "throughput_per_s": 3.5, "limited": "x", "checks": [errors], "good": True}
    wrong = {"what": "batches sent", "found": 7, "expected": 8, "equal": False}
    return {**common, "batches": 8, "checks": [errors, wrong], "good": False}


def test_parts_that_are_done_are_not_run_again(tmp_path, monkeypatch):
    ran = []

    def query(load, site, transport):
        ran.append(transport)
        return part("queries")

    def training(load, site, reference, *, kill):
        ran.append(kill)
        if kill and len(ran) == 4:
            raise BackendError("the machine went down")
        return part("training")

    monkeypatch.setattr(server_load, "query_part", query)
    monkeypatch.setattr(server_load, "training_part", training)
    monkeypatch.setattr(server_load, "in_one_process", lambda load: None)
    kept = tmp_path / "partial.json"
    with pytest.raises(BackendError, match="went down"):
        measure_load(LOAD, partial=kept)
    report = measure_load(LOAD, partial=kept)
    assert ran == ["tls", "plain", False, True, True]
    assert list(report["parts"]) == ["queries, tls", "queries, plain", "training", "killed"]
    assert report["good"] is False
    text = markdown(report)
    (row,) = [line for line in text.splitlines() if line.startswith("| queries, tls")]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "queries, tls", "2.0", "7", "0", "", "", "", "3.5", "", "0.90, 0.10", "yes"
    ]  # fmt: skip
    assert "- **killed: batches sent: 7, expected 8**" in text
    with pytest.raises(UsageError, match=r"partial.json: its load is not this run's; name another file"):
        measure_load(replace(LOAD, seed=1), partial=kept)
    monkeypatch.setattr(server_load.machine, "processor", lambda: "another")
    with pytest.raises(UsageError, match="its processor is not this run's"):
        measure_load(LOAD, partial=kept)
    kept.write_text("[]")
    with pytest.raises(FormatError, match="not partial results of a server's load"):
        measure_load(LOAD, partial=kept)
    assert (len(ran), kept.read_text()) == (5, "[]")


def test_the_kill_comes_amid_a_turn_in_the_middle():
    assert Load().kill_at == 42  # 20 turns of 4: two batches into the eleventh
    assert LOAD.kill_at == 5
    kill = Kill(2)
    kill("turn")
    threads = [threading.Thread(target=lambda: [kill("batch") for _ in range(4)], daemon=True)]
    threads[0].start()
    assert kill.due.wait(5)
    time.sleep(0.01)
    assert threads[0].is_alive()
    kill.done.set()
    threads[0].join(5)
    assert not threads[0].is_alive()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trainers": 5}, "4 clients, 5 trainers"),
        ({"trainers": 0}, "0 trainers"),
        ({"seconds": 0}, "a time above 0"),
        ({"turn_batches": 3}, "turns of 3 batches for a trainer's 4"),
        ({"turn_batches": 1}, "give 2 or more"),
        ({"transports": ("carrier pigeon",)}, "allowed: tls, plain"),
        ({"transports": ()}, "at least one"),
    ],
)
def test_loads_that_cannot_be(changed, message):
    with pytest.raises(UsageError, match=message):
        replace(LOAD, **changed)


def test_metrics_are_added_up_by_label():
    seen = Scrape(
        "# TYPE gascnn_pgsl_requests_total counter\n"
        'gascnn_pgsl_requests_total{kind="query",status="200"} 5\n'
        'gascnn_pgsl_requests_total{kind="query",status="429"} 2\n'
        'gascnn_pgsl_requests_total{kind="turn",status="200"} 3\n'
        "# TYPE gascnn_pgsl_request_seconds_sum gauge\n"
        'gascnn_pgsl_request_seconds_sum{kind="query"} 0.25\n'
    )
    assert seen.total("requests_total", kind="query") == 7
    assert seen.total("requests_total", status="200") == 8
    assert seen.total("request_seconds_sum") == 0.25
    assert seen.total("batches_total") == 0
    assert seen.refused() == 2


def test_quantiles_of_latency_by_hand():
    steady = Queries([], None, seconds=[0.1, 0.2, 0.3], ended=[1.0, 2.0, 3.0])
    found = latency([steady, Queries([], None, seconds=[0.4, 0.5], ended=[1.5, 2.5])])
    assert (found["requests"], found["p50_s"], found["max_s"]) == (5, pytest.approx(0.3), 0.5)
    assert found["p95_s"] == pytest.approx(np.quantile([0.1, 0.2, 0.3, 0.4, 0.5], 0.95))
    assert latency([]) is None


def test_what_limited_the_load():
    assert "the clients" in limited_by({"server": 0.9, "clients": 0.95}, 2)
    assert "one thread for the network" in limited_by({"server": 0.9, "clients": 0.1}, 2)
    assert "the cores" in limited_by({"server": 0.6, "clients": 0.3}, 1)
    assert "neither" in limited_by({"server": 0.4, "clients": 0.1}, 2)


def test_errors_of_a_client_are_counted_and_end_it():
    class Wire:
        def terms(self):
            return {}

        def send(self, message):
            raise BackendError("no answer\nat all")

        def close(self):
            pass

    queries = Queries([np.zeros((1, 8, 6, 6), np.float32)], None)
    client = LoadClient("q007", Wire(), lambda own: queries.ask(own, None, threading.Event()))
    client.start()
    client.join(20)
    assert not client.is_alive()
    assert client.errors == ["q007: no answer"] * MOST_ERRORS
    assert queries.seconds == []
