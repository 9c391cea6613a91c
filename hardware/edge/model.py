"""An exported ONNX network on a board: images in, classes or activations out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gascnn.exporters.onnx.session import OnnxSession
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.exporters.onnx.metadata import OnnxMetadata

_METHODS = {"resnet": "logits or predict", "pgsl-client": "activations"}


class EdgeModel:
    """A file of ``gascnn export --target onnx``.

    Images are uint8 (n, C, H, W) of the metadata's ``image_shape``, 0 to ``pixel_max``, framed and resized as its
    ``framing`` says; any number at once. Nothing but numpy and onnxruntime is imported.

    Args:
        path: the file.
        threads: that one call may use; of a board with several cores, one is usually best for one image.

    Attributes:
        metadata: classes, image shape and scaling, part, precision, the bundle's SHA-256, version.

    Raises:
        FormatError: not there, not ONNX, written by another program, cut short or changed.
        UsageError: fewer threads than one, or more than a machine has.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self._session = OnnxSession(path, threads=threads)
        self._name = os.fspath(path)
        self.metadata: OnnxMetadata = self._session.metadata

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the outputs."""
        return self.metadata.classes

    @property
    def batch_size(self) -> int:
        """Images that are computed at once unless told otherwise: fewer, the larger they are, to keep memory small."""
        return self._session.batch_size

    def logits(self, images: npt.NDArray[np.uint8], *, batch_size: int | None = None) -> npt.NDArray[np.float32]:
        """Scores (n, classes) before the softmax; ``batch_size`` images are computed at once.

        None takes :attr:`batch_size`, also in the other methods.

        Raises:
            DataError: images of another type or shape.
            UsageError: a file of another part than ``resnet``.
        """
        self._expect("resnet", "logits")
        return self._session.run(images, batch_size)

    def predict(self, images: npt.NDArray[np.uint8], *, batch_size: int | None = None) -> npt.NDArray[np.int64]:
        """The class (n,) of each image, an index into ``metadata.classes``; of equal scores the first.

        Raises:
            DataError: images of another type or shape.
            UsageError: a file of another part than ``resnet``.
        """
        self._expect("resnet", "predict")
        answers: npt.NDArray[np.int64] = self._session.run(images, batch_size).argmax(axis=1).astype(np.int64)
        return answers

    def activations(self, images: npt.NDArray[np.uint8], *, batch_size: int | None = None) -> npt.NDArray[np.float32]:
        """What a split network's client sends to its server, (n, channels, height, width).

        Raises:
            DataError: images of another type or shape.
            UsageError: a file of another part than ``pgsl-client``.
        """
        self._expect("pgsl-client", "activations")
        return self._session.run(images, batch_size)

    def _expect(self, part: str, method: str) -> None:
        found = self.metadata.part
        if found != part:
            raise UsageError(f"{self._name} holds part {found}; {method} needs {part}, use {_METHODS[found]}")
