"""Run a NetX file by the name of a backend, on images or on spikes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gascnn.exporters.netx import read_netx, recorded_digest
from gascnn.hardware.result import RunResult, concatenate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import BackendError, DataError, UsageError
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.lowering.network import NetxNetwork

Backend = Literal["sim", "lava", "lava-stock", "loihi"]
BACKENDS: tuple[str, ...] = get_args(Backend)
Record = Literal["spikes", "counts"]
Progress = Callable[[float], None]

_IMAGES_ENCODED_AT_ONCE = 64


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

    Raises:
        UsageError: an unknown backend, or one that cannot run this network.
        BackendError: the backend is not there or broke.
        DataError: input of another shape or kind.
    """
    if backend == "sim":
        from gascnn.hardware.simulator import simulate

        return simulate(file.network, spikes, steps=steps, record=record, progress=progress)
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
        from gascnn.hardware.loihi import require_loihi

        require_loihi()
        raise BackendError("Lava's Loihi extension is there, but running on the chip is not part of this version")
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
) -> RunResult:
    """Encode images as the file says and run them.

    Args:
        file: the network; a foreign one takes evenly spaced spikes and needs ``steps``.
        images: (image, C, H, W) uint8.
        backend: see :func:`run_spikes`.
        steps: T; default what the file was fitted for.
        seed: of the coding; default the file's.
        record: every spike, or counts only.
        batch_size: images encoded at once in the simulator; Lava takes all in one start.
        progress: called with the number of images done.

    Raises:
        DataError: images of another shape than the network takes.
        UsageError: no ``steps`` for a foreign file, or a bad ``batch_size``.
        BackendError: the backend is not there or broke.
    """
    if batch_size < 1:
        raise UsageError(f"batch size is {batch_size}; it must be at least 1")
    check_image_shape(file.network, images)
    size = len(images) if backend != "sim" else batch_size
    results = []
    for start in range(0, len(images), size):
        spikes = encode_for(file.network, images[start : start + size], steps=steps, seed=seed, first=start)
        told = None if progress is None else _shifted(progress, start)
        results.append(run_spikes(file, spikes, backend=backend, record=record, progress=told))
    return concatenate(results)


def _shifted(progress: Progress, start: int) -> Progress:
    return lambda done: progress(start + done)


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
