"""The ANN in PyTorch; the one module of this package that needs torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from gascnn.benchmarks.latency.contender import Images
from gascnn.toolkit.bundle import Bundle
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.training.bundles import build_model

_IMAGES_AT_ONCE = 256


class TorchAnn:
    """A bundle's network, eager, in inference mode.

    Args:
        bundle: of kind ``ann``.
        threads: that torch may use for one operation.
        allow_import: see :func:`gascnn.toolkit.training.bundles.build_model`.

    Raises:
        FormatError: a bundle of another kind, or whose tensors do not fit.
        UsageError: fewer threads than one.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, *, allow_import: bool = False) -> None:
        if threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1")
        self._model = build_model(bundle, allow_import=allow_import)
        self._shape, self._pixel_max, self._threads = bundle.image_shape, bundle.pixel_max, threads

    def predict(self, images: Images) -> npt.NDArray[np.int64]:
        """The class (n,) of each image; of equal scores the first.

        Sets torch's number of threads, which is one for the whole process, if another had it changed.

        Raises:
            DataError: images of another type or shape.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            raise DataError(f"images are {images.dtype} {images.shape}; the bundle takes uint8 (n, {self._shape})")
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        answers = np.empty(len(images), np.int64)
        with torch.inference_mode():
            for start in range(0, len(images), _IMAGES_AT_ONCE):
                pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + _IMAGES_AT_ONCE]))
                scores = self._model(pixels.to(torch.float32) / self._pixel_max)
                answers[start : start + len(scores)] = scores.argmax(1).numpy()
        return answers
