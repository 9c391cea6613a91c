"""The client's end of the wire: httpx and numpy, no torch.

Every request may be tried again: it says which attempt it is, and by that the server tells it from a replayed one (see
:mod:`gascnn.toolkit.pgsl.wire.coordinator`). So whatever is lost on its way, or while the server is started again, is
asked for anew until ``patience_s`` has passed without an answer.
"""

from __future__ import annotations

import json
import math
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import BackendError, FormatError, UsageError, first_line
from gascnn.toolkit.pgsl.wire.messages import ATTEMPT_HEADER, CONTENT_TYPE, Message, Refused, decode, encode
from gascnn.toolkit.pgsl.wire.tls import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, TOKEN_FILE, check_plain

PATIENCE_S = 120.0
LONGEST_PAUSE_S = 5.0
LARGEST_REPLY = 1 << 30
"""Bytes: beyond any batch's gradient."""

_REPLIES = {
    "terms": ("terms-reply",),
    "turn": ("granted", "wait", "finished"),
    "batch": ("gradient",),
    "hand-over": ("handed-over",),
    "query": ("answer",),
}
_AGAIN = (408, 429, 502, 503, 504, 507)


@dataclass(frozen=True)
class Key:
    """What opens a server.

    Attributes:
        token: secret; never shown.
        authority: PEM file of the authority that signed the server's certificate; None: those the system trusts.
        certificate: PEM file of the client's certificate, if it has one.
        private_key: PEM file of its key.
    """

    token: str
    authority: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    def __repr__(self) -> str:
        return "Key(token=<secret>)"

    @classmethod
    def read(cls, folder: Path) -> Key:
        """From a folder of ``gascnn pgsl keys``; all but the token may be missing.

        Raises:
            FormatError: no readable token.
        """
        try:
            token = (folder / TOKEN_FILE).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise FormatError(f"{folder}: holds no readable file {TOKEN_FILE}; ask for keys") from error
        if not token or not token.isprintable() or " " in token:
            raise FormatError(f"{folder / TOKEN_FILE}: not a token; ask for keys")
        files = [folder / name for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE)]
        authority, certificate, private_key = (path if path.is_file() else None for path in files)
        return cls(token, authority, certificate, private_key)


class WireClient:
    """Sends messages and returns their answers.

    Args:
        url: such as ``https://host:8443``.
        key: token and certificates.
        patience_s: how long to ask again while there is no answer.
        plain_anywhere: whether plain HTTP may leave this machine.
        timeout_s: for one answer.

    Raises:
        FormatError: certificates that cannot be read.
        UsageError: an address or times that are none, or plain HTTP beyond this machine.
    """

    def __init__(
        self,
        url: str,
        key: Key,
        *,
        patience_s: float = PATIENCE_S,
        plain_anywhere: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise UsageError(f"{url!r} is no address; give one such as https://host:8443") from error
        if parsed.scheme not in ("http", "https") or not _is_host(parsed) or parsed.userinfo:
            raise UsageError(f"{parsed.host or url!r} is no address of a server; give one such as https://host:8443")
        if not (0 <= patience_s < math.inf and 0 < timeout_s < math.inf):
            raise UsageError(f"patience is {patience_s} s, the timeout {timeout_s} s; allowed: from 0 s, and above 0 s")
        if parsed.scheme == "http":
            check_plain(parsed.host, plain_anywhere)
        self.patience_s = patience_s
        self._http = httpx.Client(
            base_url=parsed,
            headers={
                "Authorization": f"Bearer {key.token}",
                "Content-Type": CONTENT_TYPE,
                "Accept-Encoding": "identity",
            },
            verify=_context(key) if parsed.scheme == "https" else True,
            timeout=timeout_s,
            follow_redirects=False,
            # Of proxies named by the environment, none sees the token.
            trust_env=False,
        )

    def __enter__(self) -> WireClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def send(self, message: Message) -> Message:
        """Send until there is an answer.

        Raises:
            BackendError: none for ``patience_s``, an untrusted certificate, or the other end is no server of ours.
            Refused: what the server says.
        """
        body, kinds = encode(message), _REPLIES[message.kind]
        until, pause, attempt = time.monotonic() + self.patience_s, 0.05, 0
        while True:
            attempt += 1
            try:
                return self._attempt(message.kind, body, kinds, attempt)
            except httpx.TransportError as error:
                if (why := _untrusted(error)) is not None:
                    raise BackendError(
                        f"{self._http.base_url.host} shows a certificate that is not trusted ({why}); "
                        "use the key that was made with the server's, and the name it was made for"
                    ) from error
                said = f"no answer from {self._http.base_url.host} ({first_line(error)})"
            except Refused as error:
                if error.status not in _AGAIN:
                    raise
                said, pause = str(error), max(pause, float(error.retry_s))
            if time.monotonic() + pause > until:
                raise BackendError(f"{said}; tried for {self.patience_s:g} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _attempt(self, kind: str, body: bytes, kinds: tuple[str, ...], attempt: int) -> Message:
        headers = {ATTEMPT_HEADER: str(attempt)}
        with self._http.stream("POST", f"/v1/{kind}", content=body, headers=headers) as response:
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) > LARGEST_REPLY:
                    raise BackendError(f"the server's answer exceeds {LARGEST_REPLY} bytes; is it a server of ours?")
        if response.status_code != 200:
            raise _refusal(response, bytes(received))
        try:
            return decode(bytes(received), kinds)
        except Refused as error:
            raise BackendError(f"the server's answer cannot be read: {error}") from error

    def terms(self) -> dict[str, Any]:
        """What the server agrees on: ``options``, ``classes``, ``image_shape``, ``turn_batches``, ``images`` at once.

        Further ``layers_sha256`` of the client that its network continues, which changes while it is in ``training``.
        """
        return self.send(Message("terms")).values

    def query(self, activations: npt.NDArray[np.float32], at_once: int) -> dict[str, npt.NDArray[np.float32]]:
        """Scores (n, classes) of the decision (``scores``) and of each stream.

        Args:
            activations: float32 (n, width, size/2, size/2), n at least 1.
            at_once: images a request.
        """
        starts = range(0, len(activations), at_once)
        parts = [self.send(Message("query", {}, {"activations": activations[i : i + at_once]})) for i in starts]
        return {name: np.concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors}


def _is_host(url: httpx.URL) -> bool:
    """Whether there is a host that can be looked up, and a port, if one is given, that can be."""
    try:
        url.host.encode("idna")
    except UnicodeError:
        return False
    return bool(url.host) and (url.port is None or 0 < url.port < 65536)


def _untrusted(error: BaseException | None) -> str | None:
    """Why a certificate was not taken, if that is what ended a connection: asking again does not mend it."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _context(key: Key) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if key.authority is None else str(key.authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if key.certificate is not None:
            context.load_cert_chain(key.certificate, key.private_key)
    except (OSError, ssl.SSLError) as error:
        raise FormatError(f"the key's certificates cannot be read ({first_line(error)}); ask for new ones") from error
    return context


def _refusal(response: httpx.Response, body: bytes) -> Refused:
    status = response.status_code
    try:
        found = json.loads(body)
        reason, said = str(found["reason"])[:40], str(found["error"])[:400]
    except (ValueError, KeyError, TypeError, RecursionError):
        reason, said = "unknown", "the server gave no reason"
    after = response.headers.get("retry-after", "")
    said = " ".join(said.split())
    return Refused(status, reason, said, min(int(after), 60) if after.isdecimal() and len(after) < 6 else 1)
