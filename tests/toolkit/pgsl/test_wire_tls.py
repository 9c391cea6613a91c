import json
import ssl
import stat
import time

import httpx
import pytest

from gascnn.toolkit.errors import BackendError, FormatError, UsageError
from gascnn.toolkit.pgsl.wire.client import Key, WireClient
from gascnn.toolkit.pgsl.wire.limits import Callers, RateLimit
from gascnn.toolkit.pgsl.wire.messages import Message
from gascnn.toolkit.pgsl.wire.serve import Address
from gascnn.toolkit.pgsl.wire.tls import is_loopback, make_keys

CLIENTS = [("anna", "train"), ("cleo", "infer")]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "own"
    make_keys(folder, CLIENTS, ["127.0.0.1", "localhost"], certificates=True)
    return folder


def secured(keys, **changes):
    server = keys / "server"
    settings = {"certificate": server / "certificate.pem", "private_key": server / "key.pem", **changes}
    return Address("127.0.0.1", 0, **settings)


def with_token(key, **changes):
    return Key("token-of-anna", **{"authority": key.authority, **changes})


def test_https_with_certificates_of_ones_own(pgsl_server, keys):
    running = pgsl_server(address=secured(keys))
    assert running.url.startswith("https://")
    key = with_token(Key.read(keys / "clients/anna"))
    with WireClient(running.url, key) as wire:
        assert wire.terms()["classes"] == 3


def test_a_certificate_that_is_not_trusted_is_told_at_once(pgsl_server, keys, tmp_path):
    make_keys(tmp_path / "elsewhere", CLIENTS, ["192.0.2.1"], certificates=True)
    key = Key("token-of-anna")  # nobody vouches for that authority but the key's folder
    for folder, asked, said in (
        (keys, key, "unable to get local issuer certificate"),
        (tmp_path / "elsewhere", with_token(Key.read(tmp_path / "elsewhere/clients/anna")), "IP address mismatch"),
    ):
        running = pgsl_server(folder.name, address=secured(folder))
        started = time.monotonic()
        with (
            WireClient(running.url, asked, patience_s=100) as wire,
            pytest.raises(BackendError, match=rf"shows a certificate that is not trusted \(.*{said}"),
        ):
            wire.terms()
        assert time.monotonic() - started < 50


def test_a_client_without_a_certificate_is_not_let_in(pgsl_server, keys, tmp_path):
    running = pgsl_server(address=secured(keys, client_ca=keys / "server/authority.pem"))
    key = Key.read(keys / "clients/anna")
    own = with_token(key, certificate=key.certificate, private_key=key.private_key)
    with WireClient(running.url, own) as wire:
        assert wire.terms()["classes"] == 3
    with WireClient(running.url, with_token(key), patience_s=0.1) as wire, pytest.raises(BackendError, match="answer"):
        wire.terms()
    make_keys(tmp_path / "foreign", [("anna", "train")], ["127.0.0.1"], certificates=True)
    other = Key.read(tmp_path / "foreign/clients/anna")
    foreign = with_token(key, certificate=other.certificate, private_key=other.private_key)
    with WireClient(running.url, foreign, patience_s=0.1) as wire, pytest.raises(BackendError, match="answer"):
        wire.terms()
    assert running.coordinator.server.steps == 0


def test_old_tls_is_refused(pgsl_server, keys):
    running = pgsl_server(address=secured(keys))
    context = ssl.create_default_context(cafile=str(keys / "server/authority.pem"))
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/metrics", verify=context)


@pytest.mark.parametrize("host", ["10.0.0.1", "::", "192.168.1.4", "example.org", "127.0.0.1.example.org", ""])
def test_plain_http_stays_on_this_machine(host):
    assert not is_loopback(host)
    with pytest.raises(UsageError, match=r"plain HTTP to .* use TLS, or say --plain-http-anywhere"):
        Address(host, 8443)
    Address(host, 8443, plain_anywhere=True)
    if host not in ("", "::"):
        with pytest.raises(UsageError, match="would show tokens"):
            WireClient(f"http://{host}:8443", Key("x"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1", "LOCALHOST"])
def test_loopback(host):
    assert is_loopback(host)
    Address(host, 8443)


def test_what_an_address_cannot_be(tmp_path, keys):
    with pytest.raises(UsageError, match="go together"):
        Address("localhost", 1, certificate=keys / "server/certificate.pem")
    with pytest.raises(UsageError, match="client certificates need TLS"):
        Address("localhost", 1, client_ca=keys / "server/authority.pem")
    with pytest.raises(UsageError, match="the port is 65536"):
        Address("localhost", 65536)
    with pytest.raises(FormatError, match="no such file"):
        secured(keys, certificate=tmp_path / "none.pem")
    for url in ("", "host:8443", "ftp://host", "https://", "https://me:secret@host"):
        with pytest.raises(UsageError, match="is no address") as error:
            WireClient(url, Key("x"))
        assert "secret" not in str(error.value)


def test_a_certificate_that_is_none(pgsl_server, keys, tmp_path):
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(FormatError, match="not a certificate with its key"):
        pgsl_server(address=secured(keys, certificate=tmp_path / "bad.pem"))


def test_keys_are_for_their_owners(keys):
    token = Key.read(keys / "clients/anna").token
    tokens = (keys / "server/tokens.json").read_text()
    assert token not in tokens
    assert json.loads(tokens)["clients"].keys() == {"anna", "cleo"}
    callers = Callers.read(keys / "server/tokens.json")
    assert callers.trainers == ("anna",)
    assert callers.find(token).name == "anna"
    assert callers.find(token + "x") is None
    for path in keys.rglob("*"):
        if path.name in ("key.pem", "token"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len({path.read_bytes() for path in keys.rglob("key.pem")}) == 3
    assert token not in repr(Key.read(keys / "clients/anna"))


@pytest.mark.parametrize(
    ("clients", "hosts", "said"),
    [
        ([], ["h"], "clients need names"),
        ([("a", "train"), ("a", "infer")], ["h"], "each once"),
        ([("../a", "train")], ["h"], "letters, digits"),
        ([("a", "boss")], ["h"], "role of a is 'boss'; allowed: train, infer, metrics"),
        ([("a", "train")], [], "hosts are missing"),
    ],
)
def test_keys_that_cannot_be(tmp_path, clients, hosts, said):
    with pytest.raises(UsageError, match=said):
        make_keys(tmp_path / "keys", clients, hosts, certificates=False)
    assert not (tmp_path / "keys").exists()


def test_keys_are_never_replaced(tmp_path):
    make_keys(tmp_path / "keys", CLIENTS, ["h"], certificates=False)
    with pytest.raises(UsageError, match="keys are never replaced"):
        make_keys(tmp_path / "keys", CLIENTS, ["h"], certificates=False)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"clients": {}}', '{"clients": {"a": {"role": "train", "sha256": "00"}}}',
             '{"clients": {"a": {"role": "boss", "sha256": "' + 64 * "0" + '"}}}'],
)  # fmt: skip
def test_a_list_of_tokens_must_be_one(tmp_path, text):
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(FormatError, match="make one with 'gascnn pgsl keys'"):
        Callers.read(tmp_path / "tokens.json")


def test_a_key_needs_a_token(tmp_path):
    with pytest.raises(FormatError, match="no readable file token"):
        Key.read(tmp_path)
    (tmp_path / "token").write_text("two words")
    with pytest.raises(FormatError, match="not a token"):
        Key.read(tmp_path)


def test_a_server_that_is_not_there():
    wire = WireClient("http://127.0.0.1:9", Key("x"), patience_s=0.2)
    with wire, pytest.raises(BackendError, match=r"no answer from 127.0.0.1 .*; tried for 0.2 s"):
        wire.send(Message("terms"))


def test_a_token_bucket_by_hand():
    now = [0.0]
    limit = RateLimit(2.0, 3, clock=lambda: now[0])
    for _ in range(3):
        assert limit.wait_s("a") == 0
        limit.take("a")
    assert limit.wait_s("a") == 0.5
    assert limit.wait_s("b") == 0
    now[0] = 0.25
    assert limit.wait_s("a") == 0.25
    now[0] = 0.5
    assert limit.wait_s("a") == 0
    now[0] = 100.0
    for _ in range(3):
        limit.take("a")
    assert limit.wait_s("a") == 0.5
