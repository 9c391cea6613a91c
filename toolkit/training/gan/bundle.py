"""Bundles of trained GANs: generator and discriminator in one folder, of kind ``gan``.

The folder, its files and its checks are those of :mod:`gascnn.toolkit.bundle`. Its tensors are ``generator.*`` (with
the ResNet's first stage, where the plane is made of its features) and ``critic.*``; ``architecture`` holds the options
they are built from, and nothing that is imported or run. The generator is the moving average, if there was one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gascnn.models.gan import Discriminator, FirstStage, SliceGenerator, check_sides
from gascnn.toolkit.bundle import Bundle, load_bundle, save_bundle
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.training.batches import PIXEL_MAX
from gascnn.toolkit.training.bundles import check_tensors, fill
from gascnn.toolkit.training.gan.options import GanOptions

NAME = "attention-gan"


@dataclass(frozen=True, eq=False)
class Gan:
    """A trained GAN with everything needed to make images with it.

    Attributes:
        generator: in evaluation mode.
        critic: likewise.
        options: how both were built and trained.
        class_names: in the order of the conditions, 0 to 1.
        image_shape: (C, H, W).
        framing: what part of an image it was trained on; see :mod:`gascnn.toolkit.framing`.
        metrics: figures of the end of the training, naming their data set.
        provenance: data set, ResNet, options, seed, versions.
    """

    generator: SliceGenerator
    critic: Discriminator
    options: GanOptions
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    framing: str = "whole"
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def new_parts(
    image_shape: tuple[int, int, int], first_stage: FirstStage, options: GanOptions
) -> tuple[SliceGenerator, Discriminator]:
    """Generator and discriminator with fresh weights, from torch's global state.

    Args:
        image_shape: (C, H, W).
        first_stage: of the ResNet; left out where the plane is the image itself.
        options: ``plane``, widths, blocks.

    Raises:
        UsageError: sides that are no multiples of 4.
    """
    channels, height, width = image_shape
    try:
        check_sides((height, width))
    except ValueError as error:
        raise UsageError(f"{error}; train the ResNet with another --image-size") from error
    stage = first_stage if options.plane == "features" else None
    generator = SliceGenerator(channels, stage, options.width, options.residual_blocks)
    return generator, Discriminator(channels, (height, width), options.critic_width, options.critic_hidden)


def to_bundle(gan: Gan) -> Bundle:
    """A trained GAN as a bundle; its tensors are copied, the optimisers' state is left out."""
    stage = gan.generator.first_stage
    tensors = _modules(gan.generator, gan.critic).state_dict()
    return Bundle(
        kind="gan",
        architecture={
            "name": NAME,
            "options": gan.options.to_dict(),
            "first_stage": None if stage is None else stage.arguments,
        },
        image_shape=gan.image_shape,
        classes=gan.class_names,
        tensors={name: value.detach().cpu().contiguous().numpy().copy() for name, value in tensors.items()},
        pixel_max=PIXEL_MAX,
        framing=gan.framing,
        metrics=gan.metrics,
        provenance=gan.provenance,
    )


def from_bundle(bundle: Bundle) -> Gan:
    """The GAN of a bundle, in evaluation mode. Nothing is allocated before names and shapes are known to fit.

    Raises:
        FormatError: a bundle of another kind, options that build no GAN, tensors that are missing, left over or of
            another shape (the message names the first).
    """
    if bundle.kind != "gan":
        raise FormatError(f"the bundle is of kind {bundle.kind}; expected gan: one that 'gascnn gan train' wrote")
    if bundle.pixel_max != PIXEL_MAX:
        raise FormatError(f"the bundle's pixel_max is {bundle.pixel_max}; a GAN takes {PIXEL_MAX}; train again")
    if len(bundle.classes) < 2:
        raise FormatError(f"the bundle lists {len(bundle.classes)} classes; a GAN has at least 2; train again")
    options, stage = _architecture(bundle)
    try:
        with torch.random.fork_rng(devices=[]):
            # Shapes alone: what a hostile description asks for could fill the memory.
            with torch.device("meta"):
                check_tensors(_modules(*_parts(bundle, stage, options)), bundle)
            generator, critic = _parts(bundle, stage, options)
    except (UsageError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"the bundle's options build no GAN: {error}") from error
    modules = _modules(generator, critic)
    fill(modules, bundle)
    modules.eval().requires_grad_(False)
    return Gan(
        generator=generator,
        critic=critic,
        options=options,
        class_names=bundle.classes,
        image_shape=bundle.image_shape,
        framing=bundle.framing,
        metrics=bundle.metrics,
        provenance=bundle.provenance,
    )


def save_gan(gan: Gan, path: str | os.PathLike[str]) -> None:
    """Write the folder ``path``, whole or not at all.

    Raises:
        DataError, UsageError: as :func:`gascnn.toolkit.bundle.save_bundle`.
    """
    save_bundle(to_bundle(gan), path)


def load_gan(path: str | os.PathLike[str]) -> Gan:
    """Read what :func:`save_gan` wrote.

    Raises:
        FormatError: as :func:`gascnn.toolkit.bundle.load_bundle` and :func:`from_bundle`.
    """
    return from_bundle(load_bundle(path))


def _parts(bundle: Bundle, stage: dict[str, Any], options: GanOptions) -> tuple[SliceGenerator, Discriminator]:
    if stage.get("channels") != bundle.image_shape[0]:
        found = stage.get("channels")
        raise ValueError(f"its first stage takes {found} channels, its images have {bundle.image_shape[0]}")
    return new_parts(bundle.image_shape, FirstStage.build(**stage), options)


def _modules(generator: SliceGenerator, critic: Discriminator) -> nn.ModuleDict:
    return nn.ModuleDict({"generator": generator, "critic": critic})


def _architecture(bundle: Bundle) -> tuple[GanOptions, dict[str, Any]]:
    found = bundle.architecture
    options, stage = found.get("options"), found.get("first_stage")
    if found.get("name") != NAME or not isinstance(options, dict):
        raise FormatError(f"the bundle's architecture needs the name {NAME} and a table 'options'; train again")
    try:
        chosen = GanOptions.from_dict(options)
    except UsageError as error:
        raise FormatError(f"the bundle's options cannot be used: {error}") from error
    if chosen.plane == "image" and stage is None:
        stage = {"channels": bundle.image_shape[0], "width": 1, "stem": "small"}  # built, and left out again
    if not isinstance(stage, dict):
        raise FormatError("the bundle's architecture needs a table 'first_stage' for a plane of features; train again")
    return chosen, stage
