"""A run on a Dask cluster: cut the images up, keep a window of pieces under way, put the answers in order."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.hardware.backends import NetxFile, checked_input
from gascnn.hardware.cluster.connection import connect, quiet_client
from gascnn.hardware.cluster.worker import Answer, Job, Packed, Piece, Refusal, Wanted, run_piece, software
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.result import RunResult, concatenate
from gascnn.hardware.summary import RunSummary, join
from gascnn.toolkit import errors
from gascnn.toolkit.errors import BackendError, DataError, FormatError, first_line

if TYPE_CHECKING:
    from distributed import Future

Progress = Callable[[float], None]

_RETRIES = 2
"""How often Dask runs a piece again that raised something unforeseen; of workers that die it counts for itself."""

_PIECES_A_THREAD = 4
"""Pieces a worker's thread gets of a small set: enough that all end at about the same time."""

_WAITING_A_THREAD = 2
"""Pieces a thread that are under way at any time, the one that it runs included."""

_PIECE_BYTES = 32 << 20
_LOOK_S = 2.0
"""How often a quiet cluster is asked whether it has workers left."""


class Cluster:
    """A connection to a Dask scheduler whose workers all have this software.

    Args:
        address: ``tcp://HOST:PORT`` or ``tls://HOST:PORT`` (certificates as Dask's own configuration names them).
        connect_timeout_s: for reaching the scheduler, and then for its first worker; and how long a run that is under
            way does without any.

    Attributes:
        address: of the scheduler.
        workers, threads: number of workers, and of their threads, when the connection was made.
        peak_memory_bytes: the most any worker process has held so far.

    Raises:
        UsageError: no such address, ``tls://`` without certificates, or Dask is not installed.
        BackendError: nothing answers there, it is no scheduler, it has no workers, or one of them has another gascnn.
    """

    def __init__(self, address: str, *, connect_timeout_s: float = 30.0) -> None:
        self.address = address
        self.peak_memory_bytes = 0
        self._timeout_s = connect_timeout_s
        self._client, self.workers = connect(address, connect_timeout_s)
        self.threads = max(1, sum(self._client.nthreads().values()))
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(quiet_client())
        self._stack.callback(self._leave)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; what still waits there is given up."""
        self._stack.close()

    def _leave(self) -> None:
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)

    def run(
        self,
        file: NetxFile,
        *,
        images: npt.NDArray[np.uint8] | None = None,
        spikes: npt.NDArray[np.generic] | None = None,
        record: Literal["spikes", "counts"] = "counts",
        **settings: Any,
    ) -> RunResult:
        """Run images or spikes and keep what every image did.

        Args:
            file: the network.
            images: (image, C, H, W) uint8; see :func:`gascnn.hardware.backends.run_images`.
            spikes: (image, step, ...) instead; see :func:`gascnn.hardware.backends.run_spikes`.
            record: every spike, or counts only.
            settings: as :meth:`summarise`.

        Raises:
            As :meth:`summarise`.
        """
        answers = self._answers(file, images, spikes, record, **settings)
        return concatenate([answer.run_result() for answer in answers])

    def summarise(
        self,
        file: NetxFile,
        *,
        images: npt.NDArray[np.uint8] | None = None,
        spikes: npt.NDArray[np.generic] | None = None,
        **settings: Any,
    ) -> RunSummary:
        """Run images or spikes and keep their read-out and the spikes of all together: little travels back.

        Args:
            file: the network.
            images: (image, C, H, W) uint8; or
            spikes: (image, step, ...).
            settings: ``steps``, ``seed``, ``batch_size`` (the most images of a piece), ``progress`` (called with the
                number of images done), ``method``, ``threads`` and ``memory_bytes`` of
                :func:`gascnn.hardware.simulator.simulate`, each for one worker; default the threads and most of the
                memory limit that it was started with.

        Raises:
            UsageError: both or neither of images and spikes, or bad ``steps`` or ``batch_size``.
            DataError: images or spikes of another shape or kind than the network takes.
            FormatError: the file changed since it was opened.
            LimitError: weights with which Lava's own result is undefined.
            BackendError: the scheduler is gone, no workers are left, or a piece failed on several of them.
        """
        answers = self._answers(file, images, spikes, "summary", **settings)
        return join(answer.result for answer in answers if isinstance(answer.result, RunSummary))

    def _answers(
        self,
        file: NetxFile,
        images: npt.NDArray[np.uint8] | None,
        spikes: npt.NDArray[np.generic] | None,
        wanted: Wanted,
        *,
        steps: int | None = None,
        seed: int | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Answer]:
        """The pieces' answers, in order."""
        given = checked_input(file.network, images, spikes, batch_size)
        if not len(given):
            raise DataError("no images to run; give at least one")
        job = Job(
            software=software(),
            file_sha256=file.sha256,
            network_digest=file.network.digest(),
            input_shape=file.network.input_shape,
            input_bits=file.network.input_bits,
            steps=steps,
            seed=seed,
            wanted=wanted,
            options={name: value for name, value in options.items() if value is not None},
        )
        size = max(1, min(batch_size, math.ceil(len(given) / (self.threads * _PIECES_A_THREAD)), _fitting(given)))
        pieces = _pieces(file, images, spikes, steps, size)
        answers: dict[int, Answer] = {}
        done = 0
        for piece, answer in self._computed(job, _bytes_of(file), pieces):
            answers[piece.first] = answer
            self.peak_memory_bytes = max(self.peak_memory_bytes, answer.peak_memory_bytes)
            done += _images_of(answer)
            if progress is not None:
                progress(done)
        return [answers[first] for first in sorted(answers)]

    def _computed(self, job: Job, data: bytes, pieces: Iterator[Piece]) -> Iterator[tuple[Piece, Answer]]:
        """Keep a window of pieces under way; give each with its answer as it comes, and tidy up whatever happens."""
        import dask

        label = f"gascnn-{job.file_sha256[:12]}-{uuid.uuid4().hex[:12]}"
        pending: dict[Future, Piece] = {}
        held: Future | None = None
        try:
            # Dask calls large what is a usual network, and advises what would not survive a dead worker.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
                # As a task, not scattered: the scheduler can have it computed again where the worker with it died.
                held = self._client.submit(bytes, data, key=f"{label}-network", retries=_RETRIES)
                for piece in _refilled(pieces, pending, self.threads * _WAITING_A_THREAD):
                    if piece is not None:
                        key = f"{label}-{piece.first}"
                        future = self._client.submit(run_piece, job, held, piece, key=key, retries=_RETRIES)
                        pending[future] = piece
                        continue
                    for future in self._finished(pending):
                        ended = pending.pop(future)
                        answer = self._answer(future, ended)
                        future.release()
                        yield ended, answer
        finally:
            with contextlib.suppress(Exception):
                self._client.cancel([*pending, *([] if held is None else [held])], force=True)

    def _finished(self, pending: dict[Future, Piece]) -> list[Future]:
        """Those that are done, at least one; the cluster may be without workers for a while, for they start anew."""
        from distributed import wait

        last_seen = time.monotonic()
        while True:
            try:
                with self._client.as_current():
                    return list(wait(list(pending), timeout=_LOOK_S, return_when="FIRST_COMPLETED").done)
            except asyncio.TimeoutError:  # the built-in one only from Python 3.11 on
                pass
            except CancelledError as error:
                raise BackendError(self._lost()) from error
            try:
                if self._client.nthreads():
                    last_seen = time.monotonic()
            except Exception as error:
                raise BackendError(self._lost()) from error
            if time.monotonic() - last_seen > self._timeout_s:
                raise BackendError(
                    f"no worker is left at {self.address} since {self._timeout_s:g} s; start some and run it again"
                )

    def _answer(self, future: Future, piece: Piece) -> Answer:
        from distributed import KilledWorker

        try:
            answer = future.result()
        except KilledWorker as error:
            raise BackendError(
                f"{error.allowed_failures + 1} workers died one after the other with the images from number "
                f"{piece.first} on, the last {error.last_worker.address}; most likely they lack memory: lower "
                "--batch-size or --memory"
            ) from error
        except Exception as error:
            if future.status != "error":  # the task went well or was called off: its answer is what could not be had
                raise BackendError(self._lost()) from error
            what = f"{type(error).__name__}: {first_line(error)}"
            raise BackendError(f"a worker failed on the images from number {piece.first} on ({what})") from error
        if isinstance(answer, Refusal):
            raise getattr(errors, answer.kind, BackendError)(answer.message)
        assert isinstance(answer, Answer)
        return answer

    def _lost(self) -> str:
        return f"lost the scheduler at {self.address} while it worked; see whether it runs, and run it again"


def run_on_cluster(
    file: NetxFile,
    *,
    scheduler: str,
    images: npt.NDArray[np.uint8] | None = None,
    spikes: npt.NDArray[np.generic] | None = None,
    record: Literal["spikes", "counts"] = "counts",
    connect_timeout_s: float = 30.0,
    **settings: Any,
) -> RunResult:
    """Connect to a Dask scheduler, run images or spikes there, and leave.

    Args:
        file: the network.
        scheduler: address; see :class:`Cluster`.
        images, spikes, record, settings: see :meth:`Cluster.run`.
        connect_timeout_s: see :class:`Cluster`.

    Returns:
        In every bit what :func:`gascnn.hardware.simulator.simulate` gives here.

    Raises:
        As :class:`Cluster` and :meth:`Cluster.summarise`.
    """
    with Cluster(scheduler, connect_timeout_s=connect_timeout_s) as cluster:
        return cluster.run(file, images=images, spikes=spikes, record=record, **settings)


def _bytes_of(file: NetxFile) -> bytes:
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise FormatError(f"{file.path}: cannot be read ({os.strerror(error.errno or 0)})") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise FormatError(f"{file.path}: changed since it was opened; run it again")
    return data


def _fitting(given: npt.NDArray[np.generic]) -> int:
    """Images whose bytes make a message of reasonable size."""
    return _PIECE_BYTES // max(1, given[:1].nbytes)


def _pieces(
    file: NetxFile,
    images: npt.NDArray[np.uint8] | None,
    spikes: npt.NDArray[np.generic] | None,
    steps: int | None,
    size: int,
) -> Iterator[Piece]:
    """Cut the input up, one piece at a time; spikes are checked here and travel as bits where they are 0 and 1."""
    if images is not None:
        for first in range(0, len(images), size):
            yield Piece(first, images=images[first : first + size])
        return
    assert spikes is not None
    graded = bool(file.network.input_bits) or file.network.input.neuron is not None
    for first in range(0, len(spikes), size):
        checked = checked_spikes(file.network, spikes[first : first + size], steps)
        yield Piece(first, spikes=checked if graded else Packed.of(checked))


def _refilled(pieces: Iterator[Piece], pending: dict[Future, Piece], window: int) -> Iterator[Piece | None]:
    """The next piece while there is room for it, None when it is time to wait, until all are done."""
    left = True
    while left or pending:
        piece = next(pieces, None) if left and len(pending) < window else None
        left = left and (piece is not None or len(pending) >= window)
        if piece is not None or pending:
            yield piece


def _images_of(answer: Answer) -> int:
    return answer.result.images
