"""Where images to convert and to learn with come from: a network alone, a data set, or a generator, all alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from gascnn.toolkit.conversion.synthesis.options import SynthesisOptions
from gascnn.toolkit.conversion.synthesis.synthesise import synthesise
from gascnn.toolkit.data import Dataset
from gascnn.toolkit.errors import DataError, UsageError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Generate = Callable[[Labels, int], Any]
"""From (n,) class numbers and a seed to (n, C, H, W) images: uint8, or real numbers from 0 to 1; a tensor or array."""


class ImageSource(Protocol):
    """Gives labelled images, however it comes by them."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        ...

    def sample(self, count: int, seed: int) -> tuple[Images, Labels]:
        """Images and their classes; the same count and seed give the same.

        Args:
            count: how many, at least 1.
            seed: of everything random.

        Returns:
            (count, C, H, W) uint8 and (count,) int64.

        Raises:
            UsageError: a count that cannot be had.
        """
        ...


class SynthesisSource:
    """Images optimised for a network: :func:`gascnn.toolkit.conversion.synthesis.synthesise`.

    Args:
        model: the network.
        image_shape: (C, H, W) it takes.
        options: how; number of images and seed are those asked for.
        pixel_max: the pixel value of intensity 1.
        progress: told of the images done.
    """

    def __init__(
        self,
        model: nn.Module,
        image_shape: tuple[int, int, int],
        options: SynthesisOptions | None = None,
        *,
        pixel_max: int = 255,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.image_shape = image_shape
        self._model, self._options = model, options or SynthesisOptions()
        self._pixel_max, self._progress = pixel_max, progress

    def sample(self, count: int, seed: int) -> tuple[Images, Labels]:
        """See :class:`ImageSource`."""
        _check_count(count)
        found = synthesise(
            self._model,
            self.image_shape,
            self._options,
            images=count,
            seed=seed,
            pixel_max=self._pixel_max,
            progress=self._progress,
        )
        return found.images, found.labels


class DatasetSource:
    """Images of a data set, a folder or a file: whatever :func:`gascnn.toolkit.data.load_dataset` reads.

    Args:
        dataset: as loaded.
        split: which of its images.
    """

    def __init__(self, dataset: Dataset, split: str = "train") -> None:
        self._part, self._name = dataset.split(split), f"{dataset.name}, {split} split"
        self.image_shape = dataset.image_shape

    def sample(self, count: int, seed: int) -> tuple[Images, Labels]:
        """See :class:`ImageSource`; none comes twice."""
        _check_count(count)
        if count > len(self._part):
            raise UsageError(f"{count} images of {self._name}, which has {len(self._part)}; ask for fewer")
        order = np.random.default_rng(seed).permutation(len(self._part))[:count]
        return self._part.images[order], self._part.labels[order]


class GeneratorSource:
    """Images of a conditional generator, such as a GAN; classes take turns.

    Args:
        generate: see :data:`Generate`.
        classes: how many it knows.
        image_shape: (C, H, W) of its images.
        batch_size: asked for at once; each batch gets a seed of its own.
    """

    def __init__(
        self, generate: Generate, classes: int, image_shape: tuple[int, int, int], *, batch_size: int = 64
    ) -> None:
        if classes < 2 or batch_size < 1:
            raise UsageError(f"{classes} classes in batches of {batch_size}; at least 2 and 1 are needed")
        self.image_shape = image_shape
        self._generate, self._classes, self._batch_size = generate, classes, batch_size

    def sample(self, count: int, seed: int) -> tuple[Images, Labels]:
        """See :class:`ImageSource`.

        Raises:
            DataError: what the generator gives is of another shape, kind or range, or NaN.
        """
        _check_count(count)
        labels = np.arange(count, dtype=np.int64) % self._classes
        starts = range(0, count, self._batch_size)
        seeds = np.random.default_rng(seed).integers(2**62, size=len(starts)).tolist()
        parts = [
            self._checked(self._generate(part, own), len(part))
            for own, part in ((s, labels[i : i + self._batch_size]) for s, i in zip(seeds, starts, strict=True))
        ]
        return np.concatenate(parts), labels

    def _checked(self, given: Any, count: int) -> Images:
        values = np.asarray(given.detach().cpu().numpy() if hasattr(given, "detach") else given)
        expected = (count, *self.image_shape)
        if values.shape != expected or not (values.dtype == np.uint8 or values.dtype.kind == "f"):
            raise DataError(
                f"the generator gave {values.dtype} {values.shape}; {expected} of uint8 or reals from 0 to 1 is needed"
            )
        if values.dtype == np.uint8:
            return values
        if not np.all(np.isfinite(values)) or values.min() < 0 or values.max() > 1:
            raise DataError("the generator gave pixels outside 0..1 or NaN; scale its output to intensities 0..1")
        return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def _check_count(count: int) -> None:
    if count < 1:
        raise UsageError(f"{count} images; at least one is needed")
