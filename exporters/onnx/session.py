"""Open an ONNX file in onnxruntime: on the processor, quietly, with what goes wrong said in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from gascnn.exporters.onnx.metadata import check_seal, read_properties
from gascnn.toolkit.errors import BackendError, DataError, FormatError, UsageError, first_line

LARGEST_FILE = 2**31 - 1
"""Bytes: what protocol buffers can hold."""

MOST_THREADS = 1024
"""Beyond what a machine can start, onnxruntime never comes back."""

MOST_AT_ONCE = 64
PIXELS_AT_ONCE = 2 * 256 * 256
"""Images of more pixels than a sixty-fourth of it are computed fewer at a time: two of 256x256 of PGSL's client keep
the process at about 110 MB, where sixty-four would take 1.4 GB."""

_FATAL = 4  # onnxruntime's own log says on standard error what our exception says anyway


class OnnxSession:
    """A network of ``gascnn export --target onnx`` ready to run.

    Args:
        path: the file.
        threads: that one call may use.

    Attributes:
        metadata: what the file says of itself.
        output_shape: of one image's output.

    Raises:
        FormatError: not there, not ONNX, written by another program, cut short, changed, or with inputs and outputs
            that are not those its metadata promises.
        UsageError: fewer threads than one, or more than :data:`MOST_THREADS`.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        if threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1")
        if threads > MOST_THREADS:
            raise UsageError(f"threads is {threads}; it must be at most {MOST_THREADS}")
        self._path = Path(path)
        data = _read(self._path)
        seal = check_seal(data)
        if seal is False:
            raise FormatError(
                f"{self._path}: changed or cut short since it was exported (its SHA-256 differs); copy it again"
            )
        self._session = _open(self._path, data, threads)
        try:
            self.metadata = read_properties(self._session.get_modelmeta().custom_metadata_map)
        except FormatError as error:
            raise FormatError(f"{self._path}: {error}") from error
        if seal is None:
            raise FormatError(f"{self._path}: its metadata gascnn.sha256 is missing or not at its end; export it again")
        self.output_shape = self._checked_output()

    def _checked_output(self) -> tuple[int, ...]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = tuple(outputs[0].shape[1:]) if outputs else ()
        if (
            [(i.type, list(i.shape[1:])) for i in inputs] != [("tensor(uint8)", list(self.metadata.image_shape))]
            or [o.type for o in outputs] != ["tensor(float)"]
            or not all(isinstance(size, int) for size in shape)
        ):
            raise FormatError(f"{self._path}: inputs or outputs are not those of its metadata; export it again")
        self._input = inputs[0].name
        if self.metadata.part == "resnet" and shape != (len(self.metadata.classes),):
            raise FormatError(f"{self._path}: gives {shape} for {len(self.metadata.classes)} classes; export it again")
        return shape

    @property
    def batch_size(self) -> int:
        """Images at once unless told otherwise: 1 to :data:`MOST_AT_ONCE`, by their pixels."""
        _, height, width = self.metadata.image_shape
        return min(max(PIXELS_AT_ONCE // (height * width), 1), MOST_AT_ONCE)

    def run(self, images: npt.NDArray[np.uint8], batch_size: int | None = None) -> npt.NDArray[np.float32]:
        """The network's output for each image.

        Args:
            images: (n, C, H, W) uint8, n may be 0.
            batch_size: images at once, which bounds the memory; None takes :attr:`batch_size`.

        Returns:
            (n, ...) float32, each of ``output_shape``.

        Raises:
            BackendError: onnxruntime broke.
            DataError: images of another type or shape.
            UsageError: a batch of no images.
        """
        if batch_size is None:
            batch_size = self.batch_size
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        images = self._checked(images)
        results = np.empty((len(images), *self.output_shape), np.float32)
        for start in range(0, len(images), batch_size):
            batch = np.ascontiguousarray(images[start : start + batch_size])
            try:
                (results[start : start + batch_size],) = self._session.run(None, {self._input: batch})
            except Exception as error:
                raise BackendError(f"{self._path}: onnxruntime stopped ({first_line(error)})") from error
        return results

    def _checked(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        shape = self.metadata.image_shape
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape:
            what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise DataError(f"images are {what}; {self._path} takes uint8 (n, {', '.join(map(str, shape))})")
        return images


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FormatError(f"{path}: no such file; give a file of 'gascnn export --target onnx'")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FormatError(f"{path}: {path.stat().st_size} bytes; an ONNX file has {LARGEST_FILE} at most")
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error


def _open(path: Path, data: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    # Threads that wait by spinning starve whatever else runs on a small board.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FormatError(f"{path}: not an ONNX file that onnxruntime runs ({first_line(error)})") from error
