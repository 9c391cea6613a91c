"""Making a labelled image set with a trained GAN, from real training images and seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from gascnn.models.gan import condition_of
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.training.gan.bundle import Gan
from gascnn.toolkit.training.gan.health import CHUNK
from gascnn.toolkit.training.gan.sources import fitting_images, to_pixels, to_plane
from gascnn.toolkit.training.inputs import DatasetLike
from gascnn.toolkit.training.loop import own_torch_state

Sources = Literal["any", "same", "other"]
SOURCES: tuple[str, ...] = get_args(Sources)
"""From which training images a class is made: any, those of the same class, those of all others."""


@dataclass(frozen=True, eq=False)
class GanSample:
    """Images a GAN made. Image i is of class i mod K, so that the first ones already hold every class.

    Attributes:
        images: (n, C, H, W) uint8.
        labels: (n,) int64, the class asked for.
        source: (n,) int64, index of the training image each was made from.
        source_label: (n,) int64, its class.
        condition: (n,) float32, SC: the class asked for as a number of [0, 1].
        condition_read: (n,) float32, P_sc of the 8-bit image.
        realism: (n,) float32, P_a of the 8-bit image.
        report: options and figures; plain values.
    """

    images: npt.NDArray[np.uint8] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    source: npt.NDArray[np.int64] = field(repr=False)
    source_label: npt.NDArray[np.int64] = field(repr=False)
    condition: npt.NDArray[np.float32] = field(repr=False)
    condition_read: npt.NDArray[np.float32] = field(repr=False)
    realism: npt.NDArray[np.float32] = field(repr=False)
    report: dict[str, Any]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is kept beside images and labels, by name; ``drawn_for`` is the class asked for."""
        names = ("source", "source_label", "condition", "condition_read", "realism")
        return {"drawn_for": self.labels, **{name: getattr(self, name) for name in names}}


def sample(
    gan: Gan,
    dataset: DatasetLike,
    images: int,
    *,
    seed: int = 0,
    sources: Sources = "any",
    fewer: bool = False,
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> GanSample:
    """Make images of every class.

    The generator adds no noise: what an image looks like is decided by its source and its class, so a source gives
    one image of a class and no more. Sources are drawn without repetition.

    Args:
        gan: trained.
        dataset: real images of the GAN's shape and classes; its training split is drawn from.
        images: how many a class, at most as many as each class has sources.
        seed: of the draw of sources; the same seed gives the same images, to the bit, on the same machine and versions.
        sources: ``any`` training image, as in training; ``same``: of the class that is made; ``other``: of all others.
        fewer: make as many as there are sources where ``images`` is more.
        threads: of torch; 0 takes its default.
        progress: called with the number of images done.

    Raises:
        UsageError: an unknown word for ``sources``, fewer than one image a class, or more than there are sources.
        DataError: images or classes that do not fit the GAN, a class without images, slices that are not finite.
    """
    if sources not in SOURCES:
        raise UsageError(f"sources is {sources!r}; allowed: {', '.join(SOURCES)}")
    if images < 1:
        raise UsageError(f"images is {images}; at least one image a class is needed")
    real, labels_of = fitting_images(dataset, gan.image_shape, gan.class_names, gan.framing)
    started = time.perf_counter()
    classes = len(gan.class_names)
    allowed = _allowed(labels_of.numpy(), gan.class_names, sources)
    if fewer:
        images = min(images, *(len(indices) for indices in allowed))
    _check_count(allowed, gan.class_names, images, sources)
    drawn = [np.random.default_rng([seed, k]).permutation(allowed[k])[:images] for k in range(classes)]
    source = np.stack(drawn, axis=1).ravel()
    labels = np.tile(np.arange(classes, dtype=np.int64), images)
    condition = condition_of(torch.from_numpy(labels), classes)
    made, read, realism, difference = [], [], [], 0
    with own_torch_state(seed, threads or torch.get_num_threads()), torch.no_grad():
        for start in range(0, len(source), CHUNK):
            part = slice(start, start + CHUNK)
            originals = real[source[part]]
            slices = gan.generator(to_plane(originals), condition[part]).slices
            if not bool(torch.isfinite(slices).all()):
                raise DataError(f"the GAN gave NaN or infinity for image {start} and on; train it again")
            pixels = to_pixels(slices)
            found = gan.critic(to_plane(pixels))
            made.append(pixels)
            realism.append(found[0])
            read.append(found[1])
            difference += int((pixels.int() - originals.int()).abs().sum())
            if progress is not None:
                progress(float(start + len(pixels)))
    pixels, conditions = torch.cat(made), torch.cat(read)
    report = {
        "images": len(labels),
        "images_a_class": images,
        "options": {"seed": seed, "sources": sources},
        "condition_error": float((conditions - condition).abs().mean()),
        "read_as_asked": float(((conditions * (classes - 1)).round() == torch.from_numpy(labels)).double().mean()),
        "difference_from_source": difference / (255 * pixels.numel()),
        "time_s": round(time.perf_counter() - started, 3),
    }
    return GanSample(
        images=pixels.numpy(),
        labels=labels,
        source=source,
        source_label=labels_of.numpy()[source],
        condition=condition.numpy(),
        condition_read=conditions.numpy(),
        realism=torch.cat(realism).numpy(),
        report=report,
    )


def _allowed(
    labels: npt.NDArray[np.int64], class_names: Sequence[str], sources: Sources
) -> list[npt.NDArray[np.int64]]:
    """Indices of the training images that each class may be made from."""
    found = []
    for wanted in range(len(class_names)):
        allowed = {"any": labels >= 0, "same": labels == wanted, "other": labels != wanted}[sources]
        found.append(np.flatnonzero(allowed).astype(np.int64))
    return found


def _check_count(
    allowed: Sequence[npt.NDArray[np.int64]], class_names: Sequence[str], images: int, sources: Sources
) -> None:
    """Refuse more images than some class has sources.

    Raises:
        UsageError: names the class and the number.
    """
    counts = [len(indices) for indices in allowed]
    most = min(counts)
    if images > most:
        raise UsageError(
            f"images is {images}; with sources {sources} there are {most} training images to make class "
            f"{class_names[counts.index(most)]} from, and a second image of the same source would be the same again; "
            f"allowed: 1 to {most}"
        )
