"""Keys: tokens, and certificates of one's own for development; when plain HTTP is allowed.

Certificates are made by the package *cryptography*: a certificate authority that signs the server's and each client's
and is then thrown away, so that nobody can sign with it later. They are for trying things out and for closed networks;
elsewhere use those of a real authority (``--certificate``, ``--private-key``, ``--client-ca``).
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.files import atomic_folder, write_json
from gascnn.toolkit.pgsl.wire.limits import ROLES, good_name, token_sha256

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

TOKENS_FILE = "tokens.json"
CERTIFICATE_FILE, KEY_FILE, AUTHORITY_FILE, TOKEN_FILE = "certificate.pem", "key.pem", "authority.pem", "token"
SERVER_FOLDER, CLIENTS_FOLDER = "server", "clients"

TOKEN_BYTES = 32
VALID_DAYS = 365


def is_loopback(host: str) -> bool:
    """Whether an address never leaves this machine: ``localhost``, 127.0.0.0/8, ::1."""
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def check_plain(host: str, allowed: bool) -> None:
    """Refuse plain HTTP beyond this machine unless somebody said that it may be.

    Raises:
        UsageError: says why.
    """
    if not allowed and not is_loopback(host):
        raise UsageError(
            f"plain HTTP to {host} would show tokens and activations to the network; use TLS, or say "
            "--plain-http-anywhere"
        )


def make_keys(folder: Path, clients: Sequence[tuple[str, str]], hosts: Sequence[str], *, certificates: bool) -> None:
    """Write a folder of keys: ``server`` for the server, ``clients/<name>`` to be given to each client.

    Args:
        folder: to make; it must not be there, or be empty.
        clients: name and role of each, in the order of their turns.
        hosts: names and addresses under which the server is reached.
        certificates: whether to make certificates too.

    Raises:
        DataError: the folder cannot be written; nothing of it is there then.
        UsageError: names, roles or hosts that cannot be; or something is there already.
    """
    _check_clients(clients)
    if not hosts or any(not host or not host.isascii() for host in hosts):
        raise UsageError("hosts are missing or empty; name the addresses under which the server is reached")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; keys are never replaced, name a new folder")
    with atomic_folder(folder, SERVER_FOLDER) as fresh:
        entries = {}
        for name, role in clients:
            token = secrets.token_urlsafe(TOKEN_BYTES)
            entries[name] = {"role": role, "sha256": token_sha256(token)}
            _write(fresh / CLIENTS_FOLDER / name / TOKEN_FILE, token.encode() + b"\n")
        (fresh / SERVER_FOLDER).mkdir()
        write_json(fresh / SERVER_FOLDER / TOKENS_FILE, {"clients": entries})
        if certificates:
            _write_certificates(fresh, [name for name, _ in clients], hosts)


def _check_clients(clients: Sequence[tuple[str, str]]) -> None:
    names = [name for name, _ in clients]
    if not names or len(set(names)) < len(names) or not all(map(good_name, names)):
        raise UsageError("clients need names of letters, digits, - and _, up to 64, each once")
    for name, role in clients:
        if role not in ROLES:
            raise UsageError(f"the role of {name} is {role!r}; allowed: {', '.join(ROLES)}")


def _write_certificates(folder: Path, clients: Sequence[str], hosts: Sequence[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gascnn development authority")])
    constraints: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca=True, path_length=0), True)]
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "crl_sign", "encipher_only", "decipher_only"), False)  # fmt: skip
    constraints += [(x509.KeyUsage(key_cert_sign=True, **usage), True)]
    root = _pem(_sign(issuer, authority, issuer, authority, constraints))

    def holder(where: Path, name: str, extensions: list[tuple[x509.ExtensionType, bool]]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ends = [(x509.BasicConstraints(ca=False, path_length=None), True), *extensions]
        _write(where / CERTIFICATE_FILE, _pem(_sign(subject, key, issuer, authority, ends)))
        _write(where / KEY_FILE, _private(key))
        _write(where / AUTHORITY_FILE, root)

    reached = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    serving = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    holder(folder / SERVER_FOLDER, "gascnn server", [(reached, False), (serving, False)])
    for name in clients:
        asking = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        holder(folder / CLIENTS_FOLDER / name, name, [(asking, False)])


def _sign(
    subject: x509.Name,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
    authority: EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of boards differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(authority, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _private(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """For the owner's eyes alone, from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
