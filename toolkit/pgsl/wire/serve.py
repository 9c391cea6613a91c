"""Start the server in this process."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from gascnn.toolkit.errors import BackendError, FormatError, UsageError, first_line
from gascnn.toolkit.pgsl.wire.connections import PromptProtocol
from gascnn.toolkit.pgsl.wire.tls import check_plain

KEEP_ALIVE_S = 30
MOST_CONNECTIONS = 512


@dataclass(frozen=True)
class Address:
    """Where and how the server is reached.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        certificate: PEM file of the server's certificate and those between it and the authority; None: plain HTTP.
        private_key: PEM file.
        client_ca: PEM file of the authority whose client certificates are asked for; None asks for none.
        plain_anywhere: whether plain HTTP may leave this machine.
    """

    host: str
    port: int
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca: Path | None = None
    plain_anywhere: bool = False

    def __post_init__(self) -> None:
        """Check what cannot be.

        Raises:
            FormatError: a file that is not there.
            UsageError: plain HTTP beyond this machine, a certificate without key, or a port that does not exist.
        """
        if not 0 <= self.port <= 65535:
            raise UsageError(f"the port is {self.port}; allowed: 0 to 65535")
        if (self.certificate is None) != (self.private_key is None):
            raise UsageError("a certificate and its private key go together; give both or neither")
        if self.certificate is None:
            if self.client_ca is not None:
                raise UsageError("client certificates need TLS; give the server a certificate")
            check_plain(self.host, self.plain_anywhere)
        for path in (self.certificate, self.private_key, self.client_ca):
            if path is not None and not path.is_file():
                raise FormatError(f"{path}: no such file; make keys with 'gascnn pgsl keys'")


def make_server(app: FastAPI, address: Address) -> uvicorn.Server:
    """A server that listens once it is run.

    Raises:
        FormatError: certificates that cannot be read.
    """
    asked = ssl.CERT_NONE if address.client_ca is None else ssl.CERT_REQUIRED
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        host=address.host,
        port=address.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        limit_concurrency=MOST_CONNECTIONS,
        ssl_certfile=_text(address.certificate),
        ssl_keyfile=_text(address.private_key),
        ssl_ca_certs=_text(address.client_ca),
        ssl_cert_reqs=asked,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise FormatError(f"{address.certificate}: not a certificate with its key ({first_line(error)})") from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return uvicorn.Server(config)


def run(server: uvicorn.Server) -> None:
    """Serve until a signal ends it.

    Raises:
        BackendError: the address is taken or does not exist.
    """
    config = server.config
    try:
        server.run()
    except SystemExit as error:
        raise BackendError(
            f"could not listen on {config.host} port {config.port}; is it taken? Choose another --port"
        ) from error


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
