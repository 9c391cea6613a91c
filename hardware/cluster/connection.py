"""Reach a Dask scheduler and see, before any work is sent, that it and its workers are what they must be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gascnn.hardware.cluster.worker import software
from gascnn.toolkit.errors import BackendError, UsageError, first_line

if TYPE_CHECKING:
    from distributed import Client

_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):\d{1,5}")
_TALKATIVE = ("distributed.client", "distributed.batched")


def connect(address: str, timeout_s: float) -> tuple[Client, int]:
    """Connect to a scheduler whose workers all have this software.

    Args:
        address: ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
        timeout_s: for reaching the scheduler, and again for its first worker.

    Returns:
        The client, to be closed by the caller, and the number of workers.

    Raises:
        UsageError: no such address, ``tls://`` without certificates, or Dask is not installed.
        BackendError: nothing answers there, it is no scheduler, it has no workers, or one of them has another gascnn.
    """
    if not _ADDRESS.fullmatch(address):
        raise UsageError(f"scheduler is {address!r}; give tcp://HOST:PORT or tls://HOST:PORT as 'dask scheduler' says")
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("running on a cluster needs Dask; install it with: pip install 'gascnn[cluster]'") from error
    _probe(address, timeout_s)
    try:
        client = Client(address, timeout=timeout_s, set_as_default=False)
    except Exception as error:
        raise BackendError(_unreachable(address, error)) from error
    try:
        return client, _checked_workers(client, address, timeout_s)
    except BaseException:
        with contextlib.suppress(Exception):
            client.close(timeout=5)
        raise


@contextlib.contextmanager
def quiet_client() -> Iterator[None]:
    """Dask's client logs whole tracebacks of what comes back as an error of ours anyway."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _probe(address: str, timeout_s: float) -> None:
    """See that a scheduler answers there: Dask's client leaves threads behind where it cannot connect."""
    from distributed.core import rpc
    from distributed.security import Security

    arguments = Security().get_connection_args("client")
    if address.startswith("tls://") and arguments.get("ssl_context") is None:
        raise UsageError(
            f"{address} needs certificates; name them in Dask's configuration "
            "(DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..._TLS__CLIENT__CERT and ..._TLS__CLIENT__KEY)"
        )

    async def identity() -> dict[str, Any]:
        async with rpc(address, connection_args=arguments, timeout=timeout_s) as remote:
            found: dict[str, Any] = await asyncio.wait_for(remote.identity(), timeout_s)
            return found

    try:
        with ThreadPoolExecutor(1) as pool:  # the caller may have an event loop of its own
            kind = pool.submit(asyncio.run, identity()).result().get("type")
    except Exception as error:
        raise BackendError(_unreachable(address, error)) from error
    if kind != "Scheduler":
        raise BackendError(f"{address} is a Dask {str(kind).lower()}, not a scheduler; give the scheduler's address")


def _unreachable(address: str, error: BaseException) -> str:
    return f"no scheduler answers at {address} ({first_line(error)}); start one: dask scheduler"


def _checked_workers(client: Client, address: str, timeout_s: float) -> int:
    """Wait for workers and compare their software with ours.

    A task that a worker cannot import ends that worker; a call by :meth:`distributed.Client.run` does not.
    """
    try:
        client.wait_for_workers(1, timeout=timeout_s)
    except asyncio.TimeoutError as error:  # the built-in one only from Python 3.11 on
        raise BackendError(
            f"the scheduler at {address} has no workers after {timeout_s:g} s; start some: dask worker {address}"
        ) from error
    found = client.run(software, on_error="return")
    for worker, answer in found.items():
        if isinstance(answer, BaseException):
            raise BackendError(
                f"worker {worker} cannot run gascnn ({first_line(answer)}); install gascnn[cluster] there"
            )
        if answer != software():
            raise BackendError(f"worker {worker} has {answer}, this side {software()}; install the same gascnn on all")
    return len(found)
