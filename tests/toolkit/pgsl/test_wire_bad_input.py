import json
import pickle
import re
import socket
import struct
import threading
import tracemalloc
from dataclasses import replace

import httpx
import numpy as np
import pytest

from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.wire.messages import Message, decode, encode

TOKENS = {name: f"token-of-{name}" for name in ("anna", "ben", "cleo", "meter")}
CONTENT_TYPE = "application/vnd.safetensors"


def batch(grant, **changes):
    generator = np.random.default_rng(1)
    tensors = {
        "activations": generator.normal(size=(6, 8, 6, 6)).astype(np.float32),
        "labels": np.arange(6, dtype=np.int64) % 3,
    }
    tensors.update(changes)
    return Message("batch", {"grant": grant, "number": 0}, {n: v for n, v in tensors.items() if v is not None})


def with_nan():
    values = np.zeros((6, 8, 6, 6), np.float32)
    values[5, 7, 5, 5] = np.nan
    return values


def rewritten(body, change):
    """The same message with another envelope."""
    (length,) = struct.unpack_from("<Q", body)
    header = json.loads(body[8 : 8 + length])
    envelope = json.loads(header["__metadata__"]["gascnn"])
    change(envelope, header)
    header["__metadata__"]["gascnn"] = json.dumps(envelope)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body[8 + length :]


def old(envelope, header):
    envelope["version"] = 0


BODIES = {
    "wrong shape": (lambda g: encode(batch(g, activations=np.zeros((6, 8, 5, 6), np.float32))), 422, r"\(6, 8, 5, 6\)"),
    "wrong axes": (lambda g: encode(batch(g, activations=np.zeros((6, 8, 36), np.float32))), 400, "with 4 axes"),
    "wrong type": (lambda g: encode(batch(g, activations=np.zeros((6, 8, 6, 6), np.float64))), 400, "expected F32"),
    "half type": (lambda g: encode(batch(g, labels=np.zeros(6, np.int32))), 400, "'I32'.*expected I64"),
    "NaN": (lambda g: encode(batch(g, activations=with_nan())), 422, "hold NaN"),
    "too far": (lambda g: encode(batch(g, activations=np.full((6, 8, 6, 6), 1e7, np.float32))), 422, "exceed 1e"),
    "other labels": (lambda g: encode(batch(g, labels=np.full(6, 3))), 422, "labels reach from 3 to 3"),
    "negative labels": (lambda g: encode(batch(g, labels=np.full(6, -1))), 422, "labels reach from -1"),
    "fewer labels": (lambda g: encode(batch(g, labels=np.zeros(5, np.int64))), 422, r"expected int64 \(6,\)"),
    "no labels": (lambda g: encode(batch(g, labels=None)), 400, "are activations, labels"),
    "one more tensor": (lambda g: encode(batch(g, more=np.zeros(1, np.float32))), 400, "others were sent"),
    "no images": (
        lambda g: encode(batch(g, activations=np.zeros((0, 8, 6, 6), np.float32), labels=np.zeros(0, np.int64))),
        422,
        "0 images were sent at once; allowed: 2 to 6",
    ),
    "too many images": (
        lambda g: encode(batch(g, activations=np.zeros((7, 8, 6, 6), np.float32), labels=np.zeros(7, np.int64))),
        422,
        "7 images were sent at once; allowed: 2 to 6",
    ),
    "truncated body": (lambda g: encode(batch(g))[:-1], 400, "cut short"),
    "truncated header": (lambda g: encode(batch(g))[:40], 400, "cut short"),
    "more behind": (lambda g: encode(batch(g)) + b"\0", 400, "cut short or not safetensors"),
    "no body": (lambda g: b"", 400, "the body has 0 bytes"),
    "zeros": (lambda g: bytes(4000), 400, "not JSON"),
    "huge header": (lambda g: struct.pack("<Q", 2**63) + bytes(100), 400, "cut short"),
    "deep header": (lambda g: struct.pack("<Q", 9000) + b"[" * 9000, 400, "not JSON"),
    "pickle": (lambda g: pickle.dumps(batch(g)), 400, "not safetensors|not JSON|cut short"),
    "old version": (lambda g: rewritten(encode(batch(g)), old), 400, "protocol version 0; this end speaks 2"),
    "no version": (lambda g: rewritten(encode(batch(g)), lambda e, h: e.pop("version")), 400, "no version and kind"),
    "text version": (lambda g: rewritten(encode(batch(g)), lambda e, h: e.update(version="1")), 400, "version '1'"),
    "other kind": (lambda g: encode(Message("turn")), 400, "kind 'turn'; expected batch"),
    "other value": (lambda g: rewritten(encode(batch(g)), lambda e, h: e["values"].update(number="0")), 400, "number"),
    "true number": (lambda g: rewritten(encode(batch(g)), lambda e, h: e["values"].update(number=True)), 400, "number"),
    "more values": (lambda g: rewritten(encode(batch(g)), lambda e, h: e["values"].update(x=1)), 400, "others were"),
    "overlap": (
        lambda g: rewritten(encode(batch(g)), lambda e, h: h["activations"].update(data_offsets=[0, 6912])),
        400,
        "not safetensors",
    ),
    "wrong turn": (lambda g: encode(batch("another")), 409, "ask for a turn"),
    "half a letter": (lambda g: encode(batch("\ud800")), 409, "ask for a turn"),
    "endless number": (
        lambda g: encode(Message("batch", {"grant": g, "number": 10**4000}, batch(g).tensors)),
        409,
        r"batch 1000+\.\.\.$",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_gets_one_sentence_and_changes_nothing(pgsl_server, name):
    make, status, said = BODIES[name]
    running = pgsl_server()
    with running.wire() as wire:
        grant = wire.send(Message("turn")).values["grant"]
        before = running.digest()
        response = running.post("batch", make(grant))
        refused(response, status, said)
        assert running.digest() == before
        assert running.coordinator.server.steps == 0
        # The server stays up and the turn goes on.
        wire.send(batch(grant))
        assert running.digest() != before


def query(activations):
    return encode(Message("query", {}, {"activations": activations}))


QUERIES = {
    "NaN": (lambda: query(with_nan()), 422, "hold NaN"),
    "wrong shape": (lambda: query(np.zeros((6, 8, 5, 6), np.float32)), 422, r"\(6, 8, 5, 6\)"),
    "wrong type": (lambda: query(np.zeros((6, 8, 6, 6), np.float64)), 400, "expected F32"),
    "truncated": (lambda: query(np.zeros((6, 8, 6, 6), np.float32))[:-1], 400, "cut short"),
    "old version": (lambda: rewritten(query(np.zeros((6, 8, 6, 6), np.float32)), old), 400, "protocol version 0"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_bad_query_gets_one_sentence(pgsl_server, name):
    make, status, said = QUERIES[name]
    running = pgsl_server()
    before = running.digest()
    refused(running.post("query", make(), token=TOKENS["cleo"]), status, said)
    assert running.digest() == before
    assert running.post("query", query(np.zeros((6, 8, 6, 6), np.float32)), token=TOKENS["cleo"]).status_code == 200


@pytest.mark.parametrize("name", ["truncated", "old version", "NaN"])
def test_a_bad_hand_over_ends_no_turn(pgsl_server, name):
    running = pgsl_server()
    with running.wire() as wire:
        turn = wire.send(Message("turn"))
        wire.send(batch(turn.values["grant"]))
        before = running.digest()
        state = {key: value.copy() for key, value in turn.tensors.items()}
        if name == "NaN":
            next(value for value in state.values() if value.dtype == np.float32).flat[0] = np.nan
        values = {"grant": turn.values["grant"], "batches": 1, "done": True}
        body = encode(Message("hand-over", values, state))
        body = {"truncated": body[:-1], "old version": rewritten(body, old), "NaN": body}[name]
        refused(running.post("hand-over", body), 422 if name == "NaN" else 400, "cut short|version 0|finite|NaN")
        assert running.digest() == before
        assert running.coordinator.progress.turns == 0


def refused(response, status, said):
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer.keys() == {"reason", "error"}
    assert "\n" not in answer["error"]
    assert len(answer["error"]) < 300
    assert re.search(said, answer["error"]), answer["error"]


@pytest.mark.parametrize("token", [None, "x", "token-of-anne", "token-of-anna2", "TOKEN-OF-ANNA", "tøken".encode()])
def test_a_wrong_token_is_told_nothing(pgsl_server, token):
    running = pgsl_server()
    before = running.digest()
    headers = {"Content-Type": CONTENT_TYPE}
    if token is not None:
        headers["Authorization"] = b"Bearer " + token if isinstance(token, bytes) else f"Bearer {token}"
    response = httpx.post(f"{running.url}/v1/turn", content=encode(Message("turn")), headers=headers)
    refused(response, 401, "the token is missing or wrong")
    assert running.digest() == before
    assert running.coordinator._grant is None
    assert httpx.get(f"{running.url}/metrics").status_code == 401


def test_wrong_tokens_may_not_be_tried_fast(pgsl_server):
    running = pgsl_server(limits=lambda limits: replace(limits, failures_per_s=0.001, failures_burst=3))
    body = encode(Message("terms"))
    statuses = [running.post("terms", body, token=f"guess {i}").status_code for i in range(5)]
    assert statuses == [401, 401, 401, 429, 429]


def test_too_many_requests_of_one_client(pgsl_server):
    running = pgsl_server(limits=lambda limits: replace(limits, requests_per_s=0.01, burst=3))
    body = encode(Message("terms"))
    responses = [running.post("terms", body) for _ in range(4)]
    assert [r.status_code for r in responses] == [200, 200, 200, 429]
    refused(responses[3], 429, "too many requests came from this client; wait 100 s")
    assert responses[3].headers["retry-after"] == "100"
    assert running.post("terms", body, token=TOKENS["ben"]).status_code == 200


def test_roles(pgsl_server):
    running = pgsl_server()
    before = running.digest()
    refused(running.post("terms", encode(Message("terms")), token=TOKENS["meter"]), 403, "role of meter is metrics")
    refused(running.post("turn", encode(Message("turn")), token=TOKENS["cleo"]), 403, "role of cleo is infer")
    assert running.post("terms", encode(Message("terms")), token=TOKENS["cleo"]).status_code == 200
    assert running.post("turn", encode(Message("turn")), token=TOKENS["anna"]).status_code == 200
    assert running.digest() == before


def test_addresses_methods_and_types(pgsl_server):
    running = pgsl_server()
    body = encode(Message("terms"))
    refused(running.post("nothing", body), 404, "known: /v1/terms")
    refused(running.post("terms", body, **{"Content-Type": "application/json"}), 415, f"send {CONTENT_TYPE}")
    refused(running.post("terms", body, **{"Content-Encoding": "gzip"}), 415, "compressed")
    for response in (
        httpx.get(f"{running.url}/v1/terms"),
        httpx.get(f"{running.url}/"),
        httpx.get(f"{running.url}/docs"),
    ):
        assert response.status_code in (404, 405)
        assert response.json()["error"] == "there is no such address or method"


@pytest.mark.parametrize("attempt", ["0", "-1", "1.0", "", "one", "1000001", "9" * 50, "٣".encode()])
def test_an_attempt_is_a_small_number(pgsl_server, attempt):
    running = pgsl_server()
    response = running.post("turn", encode(Message("turn")), **{"Gascnn-Attempt": attempt})
    refused(response, 400, "Gascnn-Attempt is no number from 1 to 1000000")
    assert running.coordinator._grant is None
    assert running.post("turn", encode(Message("turn")), **{"Gascnn-Attempt": "1000000"}).status_code == 200


def gigabyte(sent):
    block = bytes(1 << 20)
    for _ in range(1 << 10):
        sent.append(len(block))
        yield block


def test_a_gigabyte_is_refused_without_being_held(pgsl_server):
    running = pgsl_server()
    before = running.digest()
    tracemalloc.start()
    try:
        sent = []
        # Of unknown length: it can only be counted while it arrives.
        try:
            response = running.post("batch", gigabyte(sent))
            refused(response, 413, "too large; allowed")
        except httpx.TransportError:
            # The server may close the connection before this end has read why.
            sent.append(0)
        assert sum(sent) < 64 << 20
        # Of a stated length: refused before a byte of it is sent.
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(
                b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-anna\r\n"
                b"Content-Type: application/vnd.safetensors\r\nContent-Length: 1073741824\r\n\r\n"
            )
            answer = raw.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert running.coordinator.server.steps == 0
    assert running.digest() == before
    shown = httpx.get(f"{running.url}/metrics", headers={"Authorization": "Bearer token-of-meter"})
    assert 'gascnn_pgsl_requests_total{kind="batch",status="413"} 2.0' in shown.text.splitlines()


def test_a_body_that_ends_early_or_never(pgsl_server):
    running = pgsl_server(limits=lambda limits: replace(limits, body_s=0.5))
    host, port = running.url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/terms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-anna\r\n"
        b"Content-Type: application/vnd.safetensors\r\nContent-Length: 100\r\n\r\nabc"
    )
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(head)
        assert raw.recv(65536).startswith(b"HTTP/1.1 408")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(head)
    with running.wire() as wire:
        wire.send(Message("terms"))


def test_what_is_under_way_is_bounded(pgsl_server):
    running = pgsl_server(limits=lambda limits: replace(limits, pending_bytes=10_000))
    with running.wire() as wire:
        grant = wire.send(Message("turn")).values["grant"]
    response = running.post("batch", encode(Message("batch", {"grant": grant, "number": 0}, {
        "activations": np.zeros((6, 8, 6, 10), np.float32), "labels": np.zeros(6, np.int64)})))  # fmt: skip
    refused(response, 503, "too many requests under way")
    assert running.post("terms", encode(Message("terms"))).status_code == 200


def test_metrics(pgsl_server):
    running = pgsl_server()
    with running.wire() as wire:
        grant = wire.send(Message("turn")).values["grant"]
        wire.send(batch(grant))
    running.post("batch", b"")
    shown = httpx.get(f"{running.url}/metrics", headers={"Authorization": "Bearer token-of-meter"})
    assert shown.headers["content-type"].startswith("text/plain")
    lines = shown.text.splitlines()
    for line in (
        "gascnn_pgsl_batches_total 1.0",
        'gascnn_pgsl_requests_total{kind="batch",status="200"} 1.0',
        'gascnn_pgsl_requests_total{kind="batch",status="400"} 1.0',
        'gascnn_pgsl_request_seconds_count{kind="turn"} 1.0',
        "gascnn_pgsl_saved_steps 0.0",
        'gascnn_pgsl_client_batches_total{client="anna"} 0.0',
        "gascnn_pgsl_pending_bytes 0.0",
    ):
        assert line in lines
    assert "token-of" not in shown.text


def test_an_error_of_ours_is_one_sentence_too(pgsl_server, monkeypatch, caplog):
    running = pgsl_server()

    def broken(*arguments):
        raise RuntimeError("some detail")

    monkeypatch.setattr(running.coordinator, "handle", broken)
    response = running.post("terms", encode(Message("terms")))
    refused(response, 500, "the server could not answer this; its log says why")
    assert "some detail" not in response.text
    assert "some detail" in caplog.text
    assert "token-of" not in caplog.text


def test_many_at_once(pgsl_server):
    running, statuses = pgsl_server(), []
    activations = np.random.default_rng(2).normal(size=(6, 8, 6, 6)).astype(np.float32)

    def ask():
        with running.wire("cleo") as wire:
            statuses.extend(len(wire.query(activations, 6)["scores"]) for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [6] * 60
    assert running.coordinator.counts.images == 360


@pytest.mark.parametrize("length", [0, 7, 8, 100, 5000])
def test_a_message_comes_back_bit_for_bit(length):
    generator = np.random.default_rng(length)
    tensors = {
        "layers.0": generator.normal(size=length).astype(np.float32),
        "counts": np.arange(length),
        "step": np.array(3.0, np.float32),
        "turned": generator.normal(size=(4, 3)).astype(np.float32).T,
    }
    message = Message("hand-over", {"grant": "ä", "batches": 2, "done": False}, tensors)
    body = encode(message)
    found = decode(body, ("hand-over",))
    assert found.values == message.values
    assert found.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert found.tensors[name].shape == value.shape
        assert np.array_equal(found.tensors[name], value)
    assert encode(message) == body


def test_options_travel_as_they_are(pgsl_server):
    running = pgsl_server()
    with running.wire("cleo") as wire:
        terms = wire.terms()
    assert PgslOptions.from_dict(terms["options"]) == running.coordinator.server.options
    assert terms["image_shape"] == [1, 12, 12]
    assert (terms["classes"], terms["turn_batches"], terms["images"]) == (3, 3, 6)
