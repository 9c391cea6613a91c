"""Run a NetX file by the name of a backend, on images or on spikes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gascnn.exporters.netx import read_netx, recorded_digest
from gascnn.hardware.result import RunResult, concatenate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.lowering.network import NetxNetwork

Backend = Literal["sim", "lava", "lava-stock", "loihi"]
BACKENDS: tuple[str, ...] = get_args(Backend)
Record = Literal["spikes", "counts"]
Progress = Callable[[float], None]
Run = Callable[[npt.NDArray[np.generic], int | None, Progress | None], RunResult]

_IMAGES_ENCODED_AT_ONCE = 64
_BATCH_SHARE = 4
"""What input and counts of a batch may take of a memory limit: one part in so many."""


@dataclass(frozen=True, eq=False)
class NetxFile:
    """A NetX file that was read: the network and the very bytes it came from.

    Attributes:
        path: where it is.
        sha256: of the bytes.
        network: its integers.
        unchanged: whether the integers are those it was exported with; None for a foreign file, which does not say.
    """

    path: Path
    sha256: str
    network: NetxNetwork
    unchanged: bool | None


def open_netx(
    path: str | os.PathLike[str], *, input_shape: tuple[int, ...] | None = None, input_bits: int | None = None
) -> NetxFile:
    """Read a NetX file and hash it.

    Args:
        path: the file.
        input_shape, input_bits: for files that do not say; see :func:`gascnn.exporters.netx.read_netx`.

    Raises:
        FormatError: not a NetX file Lava could run.
    """
    network = read_netx(path, input_shape=input_shape, input_bits=input_bits)
    digest = recorded_digest(path)
    return NetxFile(
        path=Path(path),
        sha256=sha256_file(path),
        network=network,
        unchanged=None if digest is None else digest == network.digest(),
    )


def run_spikes(
    file: NetxFile,
    spikes: npt.NDArray[np.generic],
    *,
    backend: str = "sim",
    steps: int | None = None,
    record: Record = "counts",
    progress: Progress | None = None,
    method: str | None = None,
    threads: int | None = None,
    memory_bytes: int | None = None,
) -> RunResult:
    """Run spikes (or graded input) on a backend.

    Args:
        file: the network.
        spikes: (image, step, ...); see :func:`gascnn.hardware.inputs.checked_spikes`.
        backend: ``sim`` (bit-exact simulator), ``lava``, ``lava-stock`` (what stock NetX loads, nothing else) or
            ``loihi``.
        steps: T; default all of ``spikes``.
        record: every spike, or counts only.
        progress: called with the number of images done.
        method, threads, memory_bytes: of the simulator, and of no other backend; see
            :func:`gascnn.hardware.simulator.simulate`.

    Raises:
        UsageError: an unknown backend, one that cannot run this network, or the simulator's settings for another.
        BackendError: the backend is not there or broke.
        DataError: input of another shape or kind.
    """
    options = simulator_options(backend, method=method, threads=threads, memory_bytes=memory_bytes)
    if backend == "sim":
        from gascnn.hardware.simulator import simulate

        return simulate(file.network, spikes, steps=steps, record=record, progress=progress, **options)
    if backend in ("lava", "lava-stock"):
        from gascnn.hardware import lava

        return lava.run(
            file.path,
            spikes,
            steps=steps,
            record=record,
            stock=backend == "lava-stock",
            progress=progress,
            input_shape=file.network.input_shape,
            input_bits=file.network.input_bits,
        )
    if backend == "loihi":
        from gascnn.hardware import loihi

        return loihi.run(
            file.path,
            spikes,
            steps=steps,
            record=record,
            read="layers",
            progress=progress,
            input_shape=file.network.input_shape,
            input_bits=file.network.input_bits,
        )
    raise UsageError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")


def run_images(
    file: NetxFile,
    images: npt.NDArray[np.uint8],
    *,
    backend: str = "sim",
    steps: int | None = None,
    seed: int | None = None,
    record: Record = "counts",
    batch_size: int = _IMAGES_ENCODED_AT_ONCE,
    progress: Progress | None = None,
    method: str | None = None,
    threads: int | None = None,
    memory_bytes: int | None = None,
) -> RunResult:
    """Encode images as the file says and run them.

    Args:
        file: the network; a foreign one takes evenly spaced spikes and needs ``steps``.
        images: (image, C, H, W) uint8.
        backend: see :func:`run_spikes`.
        steps: T; default what the file was fitted for.
        seed: of the coding; default the file's.
        record: every spike, or counts only.
        batch_size: images encoded at once in the simulator, fewer where ``memory_bytes`` asks for it; Lava takes all in
            one start.
        progress: called with the number of images done.
        method, threads, memory_bytes: see :func:`run_spikes`.

    Raises:
        DataError: images of another shape than the network takes.
        UsageError: no ``steps`` for a foreign file, a bad ``batch_size``, or the simulator's settings for another
            backend.
        BackendError: the backend is not there or broke.
    """
    batches = run_batches(
        file,
        images=images,
        backend=backend,
        steps=steps,
        seed=seed,
        record=record,
        batch_size=batch_size,
        progress=progress,
        method=method,
        threads=threads,
        memory_bytes=memory_bytes,
    )
    return joined(list(batches))


def run_batches(
    file: NetxFile,
    *,
    images: npt.NDArray[np.uint8] | None = None,
    spikes: npt.NDArray[np.generic] | None = None,
    backend: str = "sim",
    steps: int | None = None,
    seed: int | None = None,
    record: Record = "counts",
    batch_size: int = _IMAGES_ENCODED_AT_ONCE,
    progress: Progress | None = None,
    method: str | None = None,
    threads: int | None = None,
    memory_bytes: int | None = None,
) -> Iterator[RunResult]:
    """Run images or spikes batch by batch, for whole test sets: results need not be kept together.

    Args:
        file, backend, steps, seed, record, batch_size, progress, method, threads, memory_bytes: see :func:`run_images`.
        images: (image, C, H, W) uint8; or
        spikes: (image, step, ...).

    Yields:
        The results of at most ``batch_size`` images, in order; of all at once from any backend but the simulator.

    Raises:
        As :func:`run_images`; UsageError also if both or neither of images and spikes are given.
    """
    given = checked_input(file.network, images, spikes, batch_size)
    run = _runner(file, backend, record, method=method, threads=threads, memory_bytes=memory_bytes)
    size = len(given) if backend != "sim" else batch_size
    if memory_bytes is not None:
        total = steps or (given.shape[1] if images is None else _fitted_steps(file.network))
        size = min(size, _images_within(memory_bytes, file.network, total))
    for start in range(0, max(len(given), 1), max(size, 1)):
        told = None if progress is None else _shifted(progress, start)
        if images is None:
            yield run(given[start : start + size], steps, told)
        else:
            part = encode_for(file.network, images[start : start + size], steps=steps, seed=seed, first=start)
            yield run(part, None, told)


def _runner(file: NetxFile, backend: str, record: Record, **options: Any) -> Run:
    """A function that runs spikes; the simulator's is made ready once for all batches."""
    if backend != "sim":
        return lambda spikes, steps, progress: run_spikes(
            file, spikes, backend=backend, steps=steps, record=record, progress=progress, **options
        )
    from gascnn.hardware.simulator import Simulator

    simulator = Simulator(file.network, **simulator_options(backend, **options))
    return lambda spikes, steps, progress: simulator.run(spikes, steps=steps, record=record, progress=progress)


def joined(results: list[RunResult]) -> RunResult:
    """The results of several batches as one; one alone is not copied."""
    return results[0] if len(results) == 1 else concatenate(results)


def simulator_options(backend: str, **options: Any) -> dict[str, Any]:
    """The keywords of the simulator that were given.

    Raises:
        UsageError: one of them for another backend.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if given and backend != "sim":
        named = ", ".join(name.removesuffix("_bytes") for name in given)
        raise UsageError(f"{named} can be set for backend sim only, not for {backend}; leave it out")
    return given


def _fitted_steps(network: NetxNetwork) -> int:
    return network.deployment.steps if network.deployment is not None else 1


def _images_within(memory_bytes: int, network: NetxNetwork, steps: int) -> int:
    """Images whose spikes, one byte a pixel and step and once more as a checked copy, and counts fit their share."""
    neurons = sum(math.prod(layer.shape) for layer in network.layers)
    an_image = 2 * steps * math.prod(network.input_shape) + np.dtype(np.int32).itemsize * neurons
    return max(1, memory_bytes // _BATCH_SHARE // an_image)


def _shifted(progress: Progress, start: int) -> Progress:
    return lambda done: progress(start + done)


def checked_input(
    network: NetxNetwork,
    images: npt.NDArray[np.uint8] | None,
    spikes: npt.NDArray[np.generic] | None,
    batch_size: int,
) -> npt.NDArray[np.generic]:
    """Whichever of images and spikes was given.

    Raises:
        UsageError: both or neither are given, or a batch size below 1.
        DataError: images the network does not take.
    """
    if batch_size < 1:
        raise UsageError(f"batch size is {batch_size}; it must be at least 1")
    if images is not None and spikes is None:
        check_image_shape(network, images)
        return images
    if spikes is None or images is not None:
        raise UsageError("give either images or spikes")
    return spikes


def check_image_shape(network: NetxNetwork, images: npt.NDArray[np.uint8]) -> None:
    """Refuse images the network does not take.

    Raises:
        DataError: names both shapes.
    """
    shape = network.input_shape
    bare = (shape[0] - network.constant_channels, *shape[1:])
    wanted = network.deployment.image_shape if network.deployment is not None else bare
    if images.shape[1:] != tuple(wanted) and int(np.prod(images.shape[1:])) != int(np.prod(bare)):
        raise DataError(f"images have shape {images.shape[1:]}; this network takes {tuple(wanted)}")
    if len(bare) == 3 and images.shape[1:] != bare:
        raise DataError(f"images have shape {images.shape[1:]}; this network takes {bare}")
