import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import train_round_robin
from gascnn.toolkit.pgsl.train import answers, make_client, make_server
from gascnn.toolkit.pgsl.wire.client import Key, WireClient
from gascnn.toolkit.pgsl.wire.messages import Message
from gascnn.toolkit.pgsl.wire.store import RunStore
from gascnn.toolkit.pgsl.wire.training import own_turns, train_over_wire
from gascnn.toolkit.training.batches import to_float

CLASSES, SIZE = 3, 12
OPTIONS = PgslOptions(
    width=8, hidden=10, grid=2, pixels=4, recovery="channels", recovery_iterations=5, decay=0.1, batch_size=6, epochs=2
)
TURN = 3


def split_client(seed=5):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_client(LocalClassifier(1, CLASSES, SIZE, width=3), OPTIONS)


def images_and_labels(count, seed=3):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return images, torch.randint(CLASSES, (count,), generator=generator)


def in_one_process(parts):
    """What the same clients and turns give without a wire."""
    clients, server = [split_client(5 + i) for i in range(len(parts))], make_server(CLASSES, SIZE, OPTIONS)
    turns = [own_turns(len(images), OPTIONS, TURN) for images, _ in parts]
    # A client that is done hands on what it took.
    batches = [
        [(to_float(images[chosen]), labels[chosen]) for _, chosen in (own[i] if i < len(own) else [])]
        for i in range(max(map(len, turns)))
        for (images, labels), own in zip(parts, turns, strict=True)
    ]
    replies = train_round_robin(clients, server, batches)
    return clients[-1], server, replies


def over_wire(running, parts, names=("anna", "ben"), **settings):
    clients = [split_client(5 + i) for i in range(len(parts))]
    reports, threads, errors = {}, [], []

    def train(name, client, part):
        try:
            with running.wire(name, **settings) as wire:
                reports[name] = train_over_wire(client, wire, *part, TURN)
        except Exception as error:
            errors.append(error)

    for name, client, part in zip(names, clients, parts, strict=False):
        threads.append(threading.Thread(target=train, args=(name, client, part)))
        threads[-1].start()
    for thread in threads:
        thread.join(60)
    assert not errors
    return clients, reports


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_two_clients_over_the_wire_give_the_numbers_of_one_process(pgsl_server):
    parts = [images_and_labels(25, 3), images_and_labels(25, 4)]
    last, server, replies = in_one_process(parts)
    running = pgsl_server()
    clients, reports = over_wire(running, parts)
    assert_same_bits(server.state()[0], running.coordinator.server.state()[0])
    for client in clients:
        assert_same_bits(last.state().tensors, client.state().tensors)
    assert running.coordinator.progress.steps == len(replies) == 16
    assert running.coordinator.progress.own_batches == {"anna": 8, "ben": 8}
    assert [r.batches for r in reports.values()] == [8, 8]
    own = [reports["anna"].losses, reports["ben"].losses]
    merged = own[0][:3] + own[1][:3] + own[0][3:6] + own[1][3:6] + own[0][6:] + own[1][6:]
    assert [reply.losses for reply in replies] == list(merged)


def test_a_client_with_fewer_images_is_done_early(pgsl_server):
    parts = [images_and_labels(25, 3), images_and_labels(13, 4)]
    last, server, replies = in_one_process(parts)
    running = pgsl_server()
    clients, reports = over_wire(running, parts)
    assert [len(own) for own in (own_turns(25, OPTIONS, TURN), own_turns(13, OPTIONS, TURN))] == [3, 2]
    assert running.coordinator.progress.own_batches == {"anna": 8, "ben": 4}
    assert running.coordinator.progress.steps == len(replies) == 12
    assert [reports[name].batches for name in ("anna", "ben")] == [8, 4]
    assert_same_bits(server.state()[0], running.coordinator.server.state()[0])
    for client in clients:
        assert_same_bits(last.state().tensors, client.state().tensors)


def test_answers_over_the_wire_are_those_of_one_process(pgsl_server):
    running, client = pgsl_server(), split_client()
    images, _ = images_and_labels(17)
    expected = answers(client, running.coordinator.server, images)
    with running.wire("cleo") as wire:
        found = wire.query(client.query(to_float(images)).activations.numpy(), OPTIONS.batch_size)
    for name in ("scores", "attacked", "fused", "recovered"):
        np.testing.assert_allclose(found[name], getattr(expected, name).numpy(), rtol=1e-5, atol=1e-6)
    assert running.coordinator.counts.images == 17


class StopError(Exception):
    """A client that ends."""


def train_and_stop(running, images, labels, batches):
    """A client that is begun anew, and gone when it has sent so many batches."""
    with running.wire() as wire:
        left = batches

        def stopping(message, send=wire.send):
            nonlocal left
            left -= message.kind == "batch"
            if left < 0:
                raise StopError
            return send(message)

        wire.send = stopping
        with pytest.raises(StopError):
            train_over_wire(split_client(), wire, images, labels, TURN)


@pytest.mark.parametrize(("before", "after"), [(1, 0), (3, 0), (1, 2)])
def test_a_turn_begun_again_and_a_server_started_again_give_the_same_numbers(pgsl_server, before, after):
    parts = [images_and_labels(25, 3)]
    last, server, _ = in_one_process(parts)
    running = pgsl_server(trainers=("anna",))
    # A whole turn and two batches of the next, again and again, then the server is gone.
    train_and_stop(running, *parts[0], TURN + 2)
    for _ in range(before - 1):
        train_and_stop(running, *parts[0], 2)
    assert running.coordinator.server.steps == 5
    assert running.coordinator.progress.steps == 3
    again = pgsl_server.restart(running, trainers=("anna",))
    assert again.coordinator.server.steps == 3
    for _ in range(after):
        train_and_stop(again, *parts[0], 2)
    # A client begun anew too: it has nothing but its images and its local classifier.
    clients, _ = over_wire(again, parts)
    assert_same_bits(server.state()[0], again.coordinator.server.state()[0])
    assert_same_bits(last.state().tensors, clients[0].state().tensors)
    assert again.coordinator.progress.own_batches == {"anna": 8}


SERVE = """
import sys
from gascnn.toolkit.cli import main
main(["pgsl", "serve", "--keys", sys.argv[1], "--run", sys.argv[2], "--port", sys.argv[3], "--plain-http",
      "--classes", "3", "--image-shape", "1,12,12", "--turn-batches", "3", "--options", sys.argv[4], "--threads", "1"])
"""


@pytest.mark.slow
def test_killed_in_mid_turn_the_server_comes_back_and_no_batch_is_lost_or_doubled(tmp_path):
    import json
    import socket

    from gascnn.toolkit.pgsl.wire.tls import make_keys

    make_keys(tmp_path / "keys", [("anna", "train")], ["127.0.0.1"], certificates=False)
    (tmp_path / "options.json").write_text(json.dumps(OPTIONS.to_dict()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start():
        arguments = [tmp_path / "keys/server", tmp_path / "run", port, tmp_path / "options.json"]
        with open(tmp_path / "log", "a") as log:
            return subprocess.Popen(
                [sys.executable, "-c", SERVE, *map(str, arguments)], env=environment, stdout=log, stderr=log
            )

    images, labels = images_and_labels(25)
    last, server, replies = in_one_process([(images, labels)])
    processes = [start()]
    client, kills, batches = split_client(), [], 0
    wire = WireClient(f"http://127.0.0.1:{port}", Key.read(tmp_path / "keys/clients/anna"), patience_s=60)

    def killing(message, send=wire.send):
        nonlocal batches
        batches += message.kind == "batch"
        # Amid the second turn, and as the third is handed over.
        amid = batches == 5 and not kills
        if amid or (message.kind == "hand-over" and batches >= 8 and len(kills) == 1):
            os.kill(processes[-1].pid, signal.SIGKILL)
            processes[-1].wait()
            kills.append(time.monotonic())
            processes.append(start())
        return send(message)

    wire.send = killing
    try:
        report = train_over_wire(client, wire, images, labels, TURN)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        wire.close()
    assert len(kills) == 2
    assert report.lost_turns == 2
    assert report.batches == report.steps == len(replies)
    assert [reply.losses for reply in replies] == list(report.losses)
    assert_same_bits(last.state().tensors, client.state().tensors)
    store = RunStore(tmp_path / "elsewhere", {}, {}, {})
    store.path = tmp_path / "run/last.safetensors"
    found = store.load()
    store.close()
    assert_same_bits(server.state()[0], found.server)
    assert found.progress.own_batches == {"anna": len(replies)}
    said = (tmp_path / "log").read_text()
    assert Key.read(tmp_path / "keys/clients/anna").token not in said
    assert "Traceback" not in said


def test_two_clients_with_one_token_are_told(pgsl_server, monkeypatch):
    from gascnn.toolkit.errors import TrainingError
    from gascnn.toolkit.pgsl.wire import training

    monkeypatch.setattr(training, "MOST_LOST_TURNS", 2)
    running = pgsl_server()
    images, labels = images_and_labels(25)
    with running.wire() as wire, running.wire() as other:

        def disturbed(message, send=wire.send):
            if message.kind == "batch":
                other.send(Message("turn"))
            return send(message)

        wire.send = disturbed
        with pytest.raises(TrainingError, match="3 turns in a row were lost; is another client using the same token"):
            train_over_wire(split_client(), wire, images, labels, TURN)
