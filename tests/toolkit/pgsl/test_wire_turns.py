"""Turns: each batch counts once, whatever is sent again, replayed, out of turn, too late or too much."""

import copy

import httpx
import numpy as np
import pytest

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.train import make_client
from gascnn.toolkit.pgsl.wire.messages import Message, Refused, decode, encode
from gascnn.toolkit.pgsl.wire.store import RunStore

TURN = 3


def granted(wire):
    reply = wire.send(Message("turn"))
    assert reply.kind == "granted"
    return reply.values["grant"]


def batch_message(grant, number=0, seed=3):
    generator = np.random.default_rng(seed)
    tensors = {
        "activations": generator.normal(size=(6, 8, 6, 6)).astype(np.float32), "labels": generator.integers(3, size=6),
    }  # fmt: skip
    return Message("batch", {"grant": grant, "number": number}, tensors)


def hand_over(grant, batches, done=False):
    client = make_client(LocalClassifier(1, classes=3, image_size=12, width=3), PgslOptions(width=8))
    state = {name: value.numpy() for name, value in client.state().tensors.items()}
    return Message("hand-over", {"grant": grant, "batches": batches, "done": done}, state)


@pytest.fixture
def lose_answers(monkeypatch):
    """Let answers to a client's next sendings get lost, after the server has given them; they are kept in a list."""

    def lose(wire, count=1):
        attempt, lost = wire._attempt, []

        def losing(*request):
            answer = attempt(*request)
            if len(lost) == count:
                return answer
            lost.append(answer)
            raise httpx.ReadError("the connection broke")

        monkeypatch.setattr(wire, "_attempt", losing)
        return lost

    return lose


def test_a_batch_whose_answers_are_lost_is_answered_again_and_counts_once(pgsl_server, lose_answers):
    running = pgsl_server()
    with running.wire() as wire:
        message = batch_message(granted(wire))
        lost = lose_answers(wire, 2)
        answer = wire.send(message)
        assert len(lost) == 2
        for other in lost:
            assert np.array_equal(answer.tensors["gradient"], other.tensors["gradient"])
            assert answer.values == other.values
        assert running.coordinator.server.steps == 1
        assert running.coordinator.counts.batches == 1
        assert running.coordinator.counts.repeated == 2


@pytest.mark.parametrize("kind", ["batch", "hand-over"])
def test_a_recorded_request_sent_again_is_refused(pgsl_server, lose_answers, kind):
    """Byte for byte with its headers, each attempt at it, also to a server that was started again in between."""
    running = pgsl_server()
    recorded = []
    with running.wire() as wire:
        wire._http.event_hooks["request"].append(recorded.append)
        grant = granted(wire)
        if kind == "hand-over":
            wire.send(batch_message(grant))
        recorded.clear()
        lose_answers(wire)
        wire.send(batch_message(grant) if kind == "batch" else hand_over(grant, 1))
        attempts = [request.headers["gascnn-attempt"] for request in recorded]
        assert attempts == ["1", "2"]

        def replayed(server, request):
            before = server.digest(), server.coordinator.progress
            headers = {**request.headers, "host": server.url.rpartition("/")[2]}
            response = httpx.post(f"{server.url}/v1/{kind}", content=request.content, headers=headers)
            assert (server.digest(), server.coordinator.progress) == before
            return response

        for request, attempt in zip(recorded, attempts, strict=True):
            response = replayed(running, request)
            assert (response.status_code, response.json()["reason"]) == (409, "replay")
            assert f"attempt {attempt} of" in response.json()["error"]
        assert running.coordinator.counts.repeated == 1
        assert running.coordinator.server.steps == 1
    restarted = pgsl_server.restart(running)
    assert [replayed(restarted, request).status_code for request in recorded] == [409, 409]
    assert restarted.coordinator.counts.repeated == 0


@pytest.mark.parametrize(
    ("number", "seed", "said"),
    [(0, 3, "batch 0 of this turn was sent, 2 is next"), (1, 9, "batch 1 .* 2 is next"), (3, 3, "batch 3 .* 2 is")],
)
def test_a_batch_out_of_turn_is_refused(pgsl_server, number, seed, said):
    running = pgsl_server()
    with running.wire() as wire:
        grant = granted(wire)
        for i in range(2):
            wire.send(batch_message(grant, i))
        before = running.digest()
        with pytest.raises(Refused, match=said) as refused:
            wire.send(batch_message(grant, number, seed=seed))
        assert (refused.value.status, refused.value.reason) == (409, "replay")
        assert running.digest() == before
        assert running.coordinator.server.steps == 2


def test_a_turn_has_an_end(pgsl_server):
    running = pgsl_server()
    with running.wire() as wire:
        grant = granted(wire)
        for i in range(TURN):
            wire.send(batch_message(grant, i))
        before = running.digest()
        with pytest.raises(Refused, match="a turn has 3 batches; hand your weights over"):
            wire.send(batch_message(grant, TURN))
        with pytest.raises(Refused, match="2 batches are handed over, 3 of this turn were counted"):
            wire.send(hand_over(grant, 2))
        assert running.digest() == before
        wire.send(hand_over(grant, TURN))
        with pytest.raises(Refused, match="ask for a turn"):
            wire.send(batch_message(grant, 0))


def test_a_repeated_hand_over_counts_once(pgsl_server, lose_answers):
    running = pgsl_server()
    with running.wire() as wire:
        grant = granted(wire)
        wire.send(batch_message(grant))
        message = hand_over(grant, 1)
        lose_answers(wire)
        assert wire.send(message).values == {"turns": 1, "step": 1}
        again = pgsl_server.restart(running)
    # The second answer was lost too, with the server that gave it: a further attempt, to the one that is there now.
    for attempt, status in (("2", 409), ("3", 200), ("3", 409)):
        answer = again.post("hand-over", encode(message), **{"Gascnn-Attempt": attempt})
        assert answer.status_code == status
        if status == 200:
            assert decode(answer.content, ("handed-over",)).values == {"turns": 1, "step": 1}
    assert again.coordinator.progress.own_batches == {"anna": 1}


def test_a_hand_over_is_answered_again_when_the_next_client_has_had_its_turn(pgsl_server):
    running = pgsl_server()
    with running.wire("anna") as anna, running.wire("ben") as ben:
        grant = granted(anna)
        anna.send(batch_message(grant))
        message = encode(hand_over(grant, 1))
        assert running.post("hand-over", message).status_code == 200
        grant = granted(ben)
        ben.send(batch_message(grant))
        ben.send(hand_over(grant, 1))
    answer = running.post("hand-over", message, **{"Gascnn-Attempt": "2"})
    assert decode(answer.content, ("handed-over",)).values == {"turns": 1, "step": 1}
    assert running.coordinator.progress.own_batches == {"anna": 1, "ben": 1}
    assert running.coordinator.progress.steps == 2


def test_time_that_the_server_takes_is_no_silence_of_the_client(pgsl_server, monkeypatch):
    now = [0.0]
    running = pgsl_server(clock=lambda: now[0], lease_s=5.0)

    def slow(upload, train=running.coordinator.server.train):
        now[0] += 70
        return train(upload)

    monkeypatch.setattr(running.coordinator.server, "train", slow)
    with running.wire("anna") as anna, running.wire("ben") as ben:
        grant = granted(anna)
        anna.send(batch_message(grant))
        assert ben.send(Message("turn")).kind == "wait"
        anna.send(batch_message(grant, 1))
        now[0] += 6
        granted(ben)
    assert running.coordinator.counts.skipped == 1


def test_turns_are_granted_in_order_and_to_trainers(pgsl_server):
    running = pgsl_server()
    with running.wire("ben") as ben, running.wire("cleo") as cleo, running.wire("anna") as anna:
        assert ben.send(Message("turn")).kind == "wait"
        with pytest.raises(Refused, match="the role of cleo is infer") as refused:
            cleo.send(Message("turn"))
        assert refused.value.status == 403
        grant = granted(anna)
        with pytest.raises(Refused, match="ask for a turn"):
            ben.send(batch_message(grant))
        anna.send(batch_message(grant))
        anna.send(hand_over(grant, 1))
        assert anna.send(Message("turn")).kind == "wait"
        granted(ben)


def test_a_silent_client_loses_its_turn_and_what_it_began(pgsl_server):
    now = [0.0]
    running = pgsl_server(lease_s=10.0, clock=lambda: now[0])
    before = running.digest()
    with running.wire("ben") as ben, running.wire("anna") as anna:
        grant = granted(anna)
        anna.send(batch_message(grant))
        assert running.digest() != before
        now[0] = 9.0
        assert ben.send(Message("turn")).kind == "wait"
        now[0] = 10.5
        granted(ben)
        assert running.digest() == before
        assert running.coordinator.server.steps == 0
        with pytest.raises(Refused, match="ask for a turn"):
            anna.send(batch_message(grant, 1))
        assert running.coordinator.counts.skipped == 1


def test_a_handed_over_state_must_be_one(pgsl_server):
    running = pgsl_server()
    with running.wire() as wire:
        grant = granted(wire)
        wire.send(batch_message(grant))
        good = hand_over(grant, 1)
        for change, said in (
            (lambda t: t.pop("layers.0.weight"), "layers.0.weight of the state is missing"),
            (lambda t: t.update({"layers.0.bias": np.full(8, np.nan, np.float32)}), "not finite"),
            (lambda t: t.update({"layers.0.bias": np.zeros(9, np.float32)}), r"shape \(9,\)"),
        ):
            tensors = copy.deepcopy(good.tensors)
            change(tensors)
            with pytest.raises(Refused, match=said) as refused:
                wire.send(Message("hand-over", good.values, tensors))
            assert refused.value.status == 422
        assert running.coordinator.progress.turns == 0
        wire.send(good)


def test_a_full_disk_ends_no_turn(pgsl_server, monkeypatch):
    from gascnn.toolkit.errors import DataError

    running = pgsl_server()
    with running.wire(patience_s=0.1) as wire:
        grant = granted(wire)
        wire.send(batch_message(grant))

        def full(self, checkpoint):
            raise DataError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(RunStore, "save", full)
            with pytest.raises(BackendError, match="could not write its checkpoint"):
                wire.send(hand_over(grant, 1))
        assert wire.send(hand_over(grant, 1)).values["turns"] == 1
