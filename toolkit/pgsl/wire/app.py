"""The server: FastAPI in front of a :class:`Coordinator`.

Every request is a POST of one message to ``/v1/<kind>`` with ``Authorization: Bearer <token>``. In this order it is
checked who asks, how often, whether its kind is known and allowed, how large it is (before and while it arrives, so
that a body beyond the limit is refused without being held), and what is in it. A refusal is one sentence in JSON:
``{"reason": "...", "error": "..."}``. Tokens are in no message and no log.

All work on the network is done by one thread, in the order of arrival, beside the one that reads requests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gascnn.toolkit.pgsl.wire.coordinator import Coordinator, digest_of
from gascnn.toolkit.pgsl.wire.limits import Caller, Callers, Limits, RateLimit
from gascnn.toolkit.pgsl.wire.messages import ATTEMPT_HEADER, CONTENT_TYPE, REQUESTS, Refused, decode, encode
from gascnn.toolkit.pgsl.wire.metrics import Metrics

PATH = "/v1/"
_HEADER_ROOM = 64 * 1024
_MOST_ATTEMPTS = 10**6
_LONGEST_ERROR = 280
_TRAINING = ("turn", "batch", "hand-over")
_log = logging.getLogger(__name__)


def body_limit(coordinator: Coordinator) -> int:
    """Bytes of the largest message of use: a full batch of activations, or a client's state."""
    model, options = coordinator.server.model, coordinator.server.options
    batch = options.batch_size * (4 * model.width * (model.image_size // 2) ** 2 + 8)
    # Two convolutions, their batch norms, and two moments of each of Adam.
    weights = 9 * model.width * (4 * coordinator.channels + 1 + model.width) + 10 * model.width
    return max(batch, 3 * 4 * weights) + _HEADER_ROOM


def default_limits(coordinator: Coordinator) -> Limits:
    """A body as large as the network's own, and sixteen of them (or 64 MiB) under way together."""
    size = body_limit(coordinator)
    return Limits(body_bytes=size, pending_bytes=max(16 * size, 64 << 20))


class _Gate:
    """What a request passes before its body is looked into."""

    def __init__(self, callers: Callers, limits: Limits, metrics: Metrics) -> None:
        self.callers, self.limits, self.metrics = callers, limits, metrics
        self.pending = 0
        self._rates = RateLimit(limits.requests_per_s, limits.burst)
        self._failures = RateLimit(limits.failures_per_s, limits.failures_burst)

    def admit(self, request: Request) -> Caller:
        """Who asks, unless too often."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        caller = self.callers.find(token.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            # A right token is never slowed down by somebody's wrong ones from behind the same address.
            address = request.client.host if request.client else ""
            _wait(self._failures.wait_s(address), "too many wrong tokens came from this address")
            self._failures.take(address)
            raise Refused(401, "token", "the token is missing or wrong; send 'Authorization: Bearer' and your token")
        _wait(self._rates.wait_s(caller.name), "too many requests came from this client")
        self._rates.take(caller.name)
        return caller

    def check_size(self, request: Request) -> None:
        """Refuse by what the headers say."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise Refused(415, "content-type", f"the body is of another type; send {CONTENT_TYPE}")
        if "content-encoding" in request.headers:
            raise Refused(415, "content-encoding", "the body is compressed; send it as it is")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.limits.body_bytes:
            raise self._too_large()

    async def read(self, request: Request) -> bytes:
        """The body, of no more than the limit. The caller gives back its bytes to :attr:`pending`."""
        body = bytearray()
        try:
            await asyncio.wait_for(self._fill(request, body), self.limits.body_s)
        except BaseException as error:
            self.release(len(body))
            if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
                raise Refused(
                    408, "slow", f"the body took longer than {self.limits.body_s:g} s; send it faster"
                ) from None
            if isinstance(error, ClientDisconnect):
                raise Refused(400, "malformed", "the body is cut short; send the whole message") from None
            raise
        return bytes(body)

    async def _fill(self, request: Request, body: bytearray) -> None:
        async for chunk in request.stream():
            self.metrics.received.inc(len(chunk))
            if len(body) + len(chunk) > self.limits.body_bytes:
                raise self._too_large()
            if self.pending + len(chunk) > self.limits.pending_bytes:
                raise Refused(503, "busy", "the server has too many requests under way; send this again later")
            body += chunk
            self.pending += len(chunk)
            self.metrics.pending.set(self.pending)

    def release(self, count: int) -> None:
        """Bytes that are no longer held."""
        self.pending -= count
        self.metrics.pending.set(self.pending)

    def _too_large(self) -> Refused:
        return Refused(413, "too-large", f"the body is too large; allowed: {self.limits.body_bytes} bytes")


def make_app(coordinator: Coordinator, callers: Callers, limits: Limits | None = None) -> FastAPI:
    """The application.

    Args:
        coordinator: what answers.
        callers: whose tokens are good.
        limits: see :func:`default_limits`.
    """
    metrics = Metrics(coordinator)
    gate = _Gate(callers, limits or default_limits(coordinator), metrics)
    # One thread, made anew for each start, owns the network.
    worker = ThreadPoolExecutor(1, thread_name_prefix="pgsl")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        yield
        await asyncio.get_running_loop().run_in_executor(None, worker.shutdown)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    def work(caller: str, kind: str, body: bytes, attempt: int) -> bytes:
        return encode(coordinator.handle(caller, decode(body, (kind,)), digest_of(body), attempt))

    async def message(request: Request, kind: str) -> Response:
        caller = gate.admit(request)
        if kind not in REQUESTS:
            raise Refused(404, "address", f"there is no such address; known: {', '.join(PATH + k for k in REQUESTS)}")
        if not caller.may("train" if kind in _TRAINING else "infer"):
            raise Refused(403, "role", f"the role of {caller.name} is {caller.role}; {kind} needs another")
        gate.check_size(request)
        attempt = _attempt(request)
        body = await gate.read(request)
        try:
            reply = await asyncio.get_running_loop().run_in_executor(worker, work, caller.name, kind, body, attempt)
        finally:
            gate.release(len(body))
        return Response(reply, media_type=CONTENT_TYPE)

    @app.post(PATH + "{kind}")
    async def post(request: Request, kind: str) -> Response:
        known = kind if kind in REQUESTS else "other"
        started = time.perf_counter()
        response = await _answered(lambda: message(request, kind))
        metrics.latency.labels(known).observe(time.perf_counter() - started)
        metrics.requests.labels(known, str(response.status_code)).inc()
        return response

    @app.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        async def shown() -> Response:
            gate.admit(request)
            return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

        return await _answered(shown)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        del request
        return _refusal(Refused(error.status_code, "address", "there is no such address or method"))

    return app


async def _answered(answer: Callable[[], Awaitable[Response]]) -> Response:
    """An answer, or the sentence that says why there is none."""
    try:
        return await answer()
    except Refused as error:
        return _refusal(error)
    except Exception:
        # The traceback is for whoever runs the server; it holds neither headers nor bodies.
        _log.exception("a request could not be answered")
        return _refusal(Refused(500, "internal", "the server could not answer this; its log says why"))


def _attempt(request: Request) -> int:
    given = request.headers.get(ATTEMPT_HEADER, "1")
    # Digits of other scripts are decimal too, and int() would take them.
    if not (given.isascii() and given.isdecimal() and len(given) < 8 and 1 <= int(given) <= _MOST_ATTEMPTS):
        raise Refused(400, "attempt", f"{ATTEMPT_HEADER} is no number from 1 to {_MOST_ATTEMPTS}; count the sendings")
    return int(given)


def _refusal(error: Refused) -> Response:
    # Whatever of the body is still on its way is not read: the connection ends with the answer.
    headers = {"Connection": "close"} if error.status in (401, 408, 413, 415, 429, 503) else {}
    if error.status in (429, 503, 507):
        headers["Retry-After"] = str(error.retry_s)
    return JSONResponse({"reason": error.reason, "error": _cut(str(error))}, error.status, headers)


def _cut(text: str) -> str:
    # What was found may be as long as whoever sent it likes.
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 3] + "..."


def _wait(seconds: float, found: str) -> None:
    if seconds > 0:
        raise Refused(429, "rate", f"{found}; wait {math.ceil(seconds)} s", math.ceil(seconds))
