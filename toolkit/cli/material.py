"""What a conversion is fitted with: training images, or a network's own statistics and images made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.cli.output import bar, note
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.conversion import ConversionOptions
    from gascnn.toolkit.conversion.calibrate import Activations
    from gascnn.toolkit.data import Dataset

SYNTHESISED_IMAGES = 256
"""Made on the way where the bundle has no statistics; where it has, only as many as are run as spikes."""


@dataclass(frozen=True, eq=False)
class Material:
    """Images and what goes with them.

    Attributes:
        images: (image, C, H, W) uint8.
        activations: stored with the bundle, or None: to be measured on the images.
        classes: names, in the order of the outputs.
        framing: what part of an image these are.
        origin: of images and activations, for provenance.
    """

    images: npt.NDArray[np.uint8]
    activations: Mapping[str, Activations] | None
    classes: tuple[str, ...]
    framing: str
    origin: dict[str, Any]


def gather(
    model: nn.Module, opened: Model | None, dataset: Dataset | None, chosen: ConversionOptions, data_free: bool
) -> Material:
    """Decide what a conversion is fitted with.

    Args:
        model: the ANN.
        opened: the bundle it is from, if it is.
        dataset: given by the user.
        chosen: the conversion's options.
        data_free: whether real images are to be refused.

    Raises:
        UsageError: real images with ``data_free``, or nothing to make images for.
    """
    if dataset is not None and not is_synthetic(dataset):
        if data_free:
            refuse_real(dataset)
        return _from(dataset, chosen, None)
    activations = _stored(opened, chosen)
    measured_on = "saved with the bundle" if activations is not None else "of synthetic images"
    if dataset is not None:
        note(f"data-free: scales from activations {measured_on}; fitted on synthetic images of {dataset.name}")
        return _from(dataset, chosen, activations)
    if opened is None or opened.bundle is None:
        raise UsageError("a network given with --model needs --data; make images with 'gascnn synthesise --model'")
    count = chosen.fit_images if activations is not None else chosen.calibration_images
    made, report = _synthesised(model, opened, count or (_run_images() if activations else SYNTHESISED_IMAGES), chosen)
    note(f"data-free: scales from activations {measured_on}; fitted on {len(made)} synthetic images made on the way")
    origin = {"name": "synthesised", "synthetic": True, "activations": measured_on, "made": report}
    return Material(made, activations, opened.classes, opened.framing, origin)


def is_synthetic(dataset: Dataset) -> bool:
    """Whether its images were made, not taken."""
    return bool(dataset.provenance.get("synthetic"))


def refuse_real(dataset: Dataset) -> None:
    """What ``--data-free`` promises.

    Raises:
        UsageError: images that were taken, not made.
    """
    if not is_synthetic(dataset):
        raise UsageError(
            f"--data-free, but {dataset.name} holds real images; leave --data out, or give images made with "
            "'gascnn synthesise'"
        )


CALIBRATION_IMAGES = 256
"""Training images for an 8-bit ANN, where nobody says how many."""


def training_sample(dataset: Dataset, seed: int, count: int | None) -> npt.NDArray[np.uint8]:
    """A seeded sample of the training images, in an order that mixes the classes; None takes what calibration may."""
    from gascnn.toolkit.conversion.convert import MOST_CALIBRATION_IMAGES

    order = np.random.default_rng(seed).permutation(len(dataset.train))
    return dataset.train.images[order[: count or MOST_CALIBRATION_IMAGES]]


def _from(dataset: Dataset, chosen: ConversionOptions, activations: Mapping[str, Activations] | None) -> Material:
    origin: dict[str, Any] = {"name": dataset.name, "split": "train", "provenance": dataset.provenance}
    if activations is not None:
        origin["activations"] = "saved with the bundle"
    images = training_sample(dataset, chosen.seed, chosen.calibration_images)
    return Material(images, activations, tuple(dataset.class_names), dataset.framing, origin)


def _stored(opened: Model | None, chosen: ConversionOptions) -> Mapping[str, Activations] | None:
    from gascnn.toolkit.conversion.statistics import stored_activations

    if opened is None or opened.bundle is None or opened.bundle.statistics is None:
        return None
    if chosen.coding.startswith("rate"):  # what these feed is not the intensity the statistics were measured with
        return None
    return stored_activations(opened.bundle.statistics, chosen.percentile)


def _run_images() -> int:
    from gascnn.toolkit.conversion.convert import MOST_FIT_IMAGES

    return MOST_FIT_IMAGES


def _synthesised(
    model: nn.Module, opened: Model, count: int, chosen: ConversionOptions
) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    from gascnn.toolkit.conversion.synthesis import synthesise

    assert opened.bundle is not None
    with bar("synthesising", count) as progress:
        made = synthesise(
            model,
            opened.bundle.image_shape,
            images=count,
            seed=chosen.seed,
            pixel_max=opened.bundle.pixel_max,
            progress=progress,
        )
    return made.images, made.report
