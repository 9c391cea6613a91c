"""What a worker of a Dask cluster does: check the software and the file, run some images, send little back.

Dask runs as many tasks at a time as a worker has threads. Here they take turns, and each uses all of these threads: so
one memory limit holds for the whole process, and the network's weights are laid out once.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gascnn.hardware.process import peak_memory_bytes
from gascnn.hardware.result import RunResult
from gascnn.hardware.summary import RunSummary, summarise
from gascnn.toolkit.coding import encode, encode_for
from gascnn.toolkit.errors import BackendError, FormatError, GascnnError
from gascnn.toolkit.lowering.deployment import Coding
from gascnn.toolkit.lowering.network import NetxNetwork

if TYPE_CHECKING:
    from gascnn.hardware.simulator import Simulator

Wanted = Literal["spikes", "counts", "summary"]

_DECIDING = (
    "gascnn.hardware.simulator",
    "gascnn.hardware.inputs",
    "gascnn.hardware.result",
    "gascnn.hardware.summary",
    "gascnn.hardware.cluster.worker",
    "gascnn.exporters.netx",
    "gascnn.toolkit.coding",
    "gascnn.toolkit.lowering",
)
"""Modules and packages whose sources decide the bits, or how they travel."""

_NETWORKS_KEPT = 2

_MEMORY_SHARE = 0.6
"""What a run may hold of a worker's memory limit: from there on Dask itself begins to write things to disk."""


@dataclass(frozen=True)
class Software:
    """What must be the same at both ends.

    Attributes:
        version: of gascnn.
        digest: SHA-256 over the sources that decide the bits and over what the input coding gives for a few pixels
            (numpy may change its random streams between versions).
    """

    version: str
    digest: str

    def __str__(self) -> str:
        """In words."""
        return f"gascnn {self.version}, simulator {self.digest[:12]}"


@cache
def software() -> Software:
    """The software of this process."""
    digest = hashlib.sha256()
    for name in _DECIDING:
        file = Path(str(import_module(name).__file__))
        sources = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
        for source in sources:
            digest.update(f"{name} {source.relative_to(file.parent).as_posix()}\n".encode())
            digest.update(source.read_bytes())
    pixels = np.arange(0, 256, 5, dtype=np.uint8).reshape(1, 1, 4, 13)
    for coding in get_args(Coding):
        digest.update(encode(pixels, coding, 7, seed=3, first=5).tobytes())
    try:
        found = version("gascnn")
    except PackageNotFoundError:
        found = "unknown (not installed)"
    return Software(found, digest.hexdigest())


@dataclass(frozen=True, eq=False)
class Packed:
    """A Boolean array as bits: an eighth of the bytes on the wire."""

    bits: npt.NDArray[np.uint8]
    shape: tuple[int, ...]

    @staticmethod
    def of(values: npt.NDArray[np.generic]) -> Packed:
        """Pack an array of 0 and 1."""
        return Packed(np.packbits(values.astype(bool, copy=False).ravel()), values.shape)

    def unpacked(self) -> npt.NDArray[np.bool_]:
        """The array again."""
        size = int(np.prod(self.shape))
        return np.unpackbits(self.bits, count=size).astype(bool).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Job:
    """What all tasks of a run have in common.

    Attributes:
        software: the client's.
        file_sha256, network_digest: of the file's bytes, and of the integers the client read from them.
        input_shape, input_bits: for foreign files, which do not say.
        steps, seed: T and the seed of the coding; None for what the file says.
        wanted: every spike, counts of every neuron and image, or counts summed over the images.
        options: keywords of :class:`gascnn.hardware.simulator.Simulator` that were given.
    """

    software: Software
    file_sha256: str
    network_digest: str
    input_shape: tuple[int, ...]
    input_bits: int
    steps: int | None
    seed: int | None
    wanted: Wanted
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Piece:
    """Some images, or their spikes.

    Attributes:
        first: number of the first one in the whole set: random codings depend on it.
        images: (image, C, H, W) uint8, or None.
        spikes: (image, step, ...), or None.
    """

    first: int
    images: npt.NDArray[np.uint8] | None = None
    spikes: Packed | npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What comes back for a piece: counts in their narrowest type, spikes as bits.

    Attributes:
        result: of the piece's images.
        spikes: one array a synaptic layer if they were wanted.
        peak_memory_bytes: the most this worker process ever held.
    """

    result: RunResult | RunSummary
    spikes: list[Packed] | None
    peak_memory_bytes: int

    def run_result(self) -> RunResult:
        """As a local run gives it."""
        assert isinstance(self.result, RunResult)
        return replace(
            self.result,
            counts=[count.astype(np.int32) for count in self.result.counts],
            spikes=None if self.spikes is None else [layer.unpacked() for layer in self.spikes],
        )


@dataclass(frozen=True)
class Refusal:
    """An error that trying again cannot mend, as a value: Dask would run a task that raises once more.

    Attributes:
        kind: name of a class in :mod:`gascnn.toolkit.errors`.
        message: its text.
    """

    kind: str
    message: str


def run_piece(job: Job, file: bytes, piece: Piece) -> Answer | Refusal:
    """Run some images: the task of the cluster.

    Args:
        job: what to run, and with which software.
        file: the NetX file's bytes.
        piece: the images.

    Returns:
        What was asked for, or what was wrong. Anything unforeseen is raised, and tried again elsewhere.
    """
    try:
        with _turn:
            return _run(job, *_prepared(job, file), piece)
    except GascnnError as error:
        return Refusal(type(error).__name__, str(error))


def _run(job: Job, network: NetxNetwork, simulator: Simulator, piece: Piece) -> Answer:
    if piece.images is not None:
        spikes: npt.NDArray[np.generic] = encode_for(
            network, piece.images, steps=job.steps, seed=job.seed, first=piece.first
        )
        steps = None
    else:
        assert piece.spikes is not None
        spikes = piece.spikes.unpacked() if isinstance(piece.spikes, Packed) else piece.spikes
        steps = job.steps
    result = simulator.run(spikes, steps=steps, record="spikes" if job.wanted == "spikes" else "counts")
    if job.wanted == "summary":
        return Answer(summarise(result), None, peak_memory_bytes())
    narrow = np.min_scalar_type(result.steps + network.depth)
    small = replace(result, counts=[count.astype(narrow) for count in result.counts], spikes=None)
    packed = None if result.spikes is None else [Packed.of(layer) for layer in result.spikes]
    return Answer(small, packed, peak_memory_bytes())


_turn = threading.Lock()
_kept: dict[tuple[object, ...], tuple[NetxNetwork, Simulator]] = {}


def _prepared(job: Job, file: bytes) -> tuple[NetxNetwork, Simulator]:
    """The network of a file and its simulator, made once a worker."""
    from gascnn.hardware.simulator import Simulator

    if job.software != software():
        raise BackendError(f"a worker has {software()}, this side {job.software}; install the same gascnn on all")
    options = {**_limits(), **job.options}
    key = (job.file_sha256, job.input_shape, job.input_bits, *sorted(options.items()))
    if key not in _kept:
        while len(_kept) >= _NETWORKS_KEPT:
            del _kept[next(iter(_kept))]
        network = _read(job, file)
        _kept[key] = network, Simulator(network, **options)
    return _kept[key]


def _limits() -> dict[str, int]:
    """Threads and memory that this worker was started with."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # no task of Dask's
        return {}
    memory = worker.memory_manager.memory_limit
    return {"threads": worker.state.nthreads} | ({"memory_bytes": int(_MEMORY_SHARE * memory)} if memory else {})


def _read(job: Job, file: bytes) -> NetxNetwork:
    from gascnn.exporters.netx import read_netx

    if hashlib.sha256(file).hexdigest() != job.file_sha256:
        raise FormatError("the network's bytes changed on their way to a worker (their SHA-256 differs); run it again")
    with tempfile.TemporaryDirectory(prefix="gascnn-") as folder:
        path = Path(folder) / "network.net"
        path.write_bytes(file)
        network = read_netx(path, input_shape=job.input_shape, input_bits=job.input_bits)
    if network.digest() != job.network_digest:
        raise FormatError("a worker reads other integers from the same file; install the same h5py and numpy on all")
    return network
