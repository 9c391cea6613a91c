"""Connections that ask for nothing are ended, and those that do are kept."""

import http.client
import socket
import time

import pytest

from gascnn.toolkit.pgsl.wire import connections
from gascnn.toolkit.pgsl.wire.messages import Message, encode

BODY = encode(Message("terms"))
HEAD = (
    b"POST /v1/terms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-anna\r\n"
    b"Content-Type: application/vnd.safetensors\r\nContent-Length: " + str(len(BODY)).encode() + b"\r\n\r\n"
)


@pytest.fixture
def connect(pgsl_server, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 1.0)
    port = int(pgsl_server().url.rpartition(":")[2])
    opened = []

    def open_one():
        opened.append(socket.create_connection(("127.0.0.1", port), timeout=20))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def status(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


@pytest.mark.parametrize("sent", [b"", b"POST /v1/te", HEAD[:-2]])
def test_a_connection_without_a_whole_head_is_ended(connect, sent):
    connection = connect()
    connection.sendall(sent)
    started = time.monotonic()
    with pytest.raises(ConnectionResetError):
        status(connection)
    assert time.monotonic() - started > 0.5


def test_a_letter_now_and_then_does_not_keep_it(connect):
    connection = connect()

    def write_slowly():
        for letter in HEAD:
            connection.sendall(bytes([letter]))
            time.sleep(0.1)

    with pytest.raises(ConnectionError):
        write_slowly()


def test_a_connection_that_asks_is_kept_between_its_requests(connect):
    connection = connect()
    for _ in range(2):
        connection.sendall(HEAD + BODY)
        assert status(connection) == 200
        time.sleep(1.5)
    connection.sendall(HEAD[:30])
    with pytest.raises(ConnectionResetError):
        status(connection)


def test_a_slow_body_is_not_a_slow_head(connect):
    connection = connect()
    connection.sendall(HEAD + BODY[:10])
    time.sleep(1.5)
    connection.sendall(BODY[10:])
    assert status(connection) == 200
