"""Bundles of trained networks, and networks from bundles."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gascnn.models.resnet import ResNet, resnet
from gascnn.toolkit.bundle import Bundle
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.training.batches import PIXEL_MAX
from gascnn.toolkit.training.train import TrainingResult


def to_bundle(
    model: nn.Module,
    class_names: Sequence[str],
    image_shape: Sequence[int],
    *,
    framing: str = "whole",
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    architecture: Mapping[str, Any] | None = None,
) -> Bundle:
    """A trained network as a bundle.

    Args:
        model: its parameters and buffers are copied.
        class_names: in the order of the outputs.
        image_shape: (C, H, W).
        framing: what part of an image it was trained on.
        metrics: measured figures by split, each naming its data set.
        provenance: data set, options, seed, versions.
        architecture: ``{"name": "package:function", "arguments": {...}}`` for networks that are not ours; that of a
            :class:`gascnn.models.resnet.ResNet` is known.

    Raises:
        UsageError: a network that is not ours without ``architecture``.
    """
    if architecture is None:
        if not isinstance(model, ResNet):
            raise UsageError(
                f"a {type(model).__name__} is not one of our networks; give architecture={{'name': 'package:function'}}"
            )
        architecture = {"name": "resnet", "arguments": model.arguments}
    channels, height, width = (int(n) for n in image_shape)
    return Bundle(
        kind="ann",
        architecture=dict(architecture),
        image_shape=(channels, height, width),
        classes=tuple(str(name) for name in class_names),
        tensors={name: value.detach().cpu().contiguous().numpy().copy() for name, value in model.state_dict().items()},
        pixel_max=PIXEL_MAX,
        framing=framing,
        metrics=dict(metrics or {}),
        provenance=dict(provenance or {}),
    )


def result_bundle(result: TrainingResult, *, architecture: Mapping[str, Any] | None = None) -> Bundle:
    """The bundle of a finished training run; ``architecture`` as for :func:`to_bundle`."""
    return to_bundle(
        result.model,
        result.class_names,
        result.image_shape,
        framing=result.framing,
        metrics=result.metrics,
        provenance=result.provenance,
        architecture=architecture,
    )


def build_model(bundle: Bundle, *, allow_import: bool = False) -> nn.Module:
    """The network of a bundle, with its weights, in evaluation mode.

    Args:
        bundle: of kind ``ann``.
        allow_import: import and call the function that the bundle names, where the architecture is not one of ours.
            That runs code chosen by whoever wrote the bundle.

    Raises:
        FormatError: a spiking bundle, an unknown architecture or arguments, tensors that are missing, left over or of
            another shape (the message names the first).
        UsageError: the architecture would have to be imported and ``allow_import`` is false.
    """
    if bundle.kind != "ann":
        raise FormatError(f"the bundle is of kind {bundle.kind}; expected ann: a network as it was trained")
    model = _construct(bundle, allow_import)
    check_tensors(model, bundle)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in bundle.tensors.items()})
    return model.eval()


def _construct(bundle: Bundle, allow_import: bool) -> nn.Module:
    name, arguments = bundle.architecture.get("name"), bundle.architecture.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise FormatError("the bundle's architecture needs a 'name' and, if any, a table of 'arguments'; train again")
    function: Callable[..., object] = resnet if name == "resnet" else _imported(name, allow_import)
    try:
        model = function(**arguments)
    except (TypeError, ValueError) as error:
        raise FormatError(f"the bundle's arguments do not build architecture {name}: {error}") from error
    if not isinstance(model, nn.Module):
        raise FormatError(f"architecture {name} gave a {type(model).__name__}; expected a torch.nn.Module")
    if isinstance(model, ResNet):
        found = (model.arguments["classes"], model.arguments["channels"])
        expected = (len(bundle.classes), bundle.image_shape[0])
        if found != expected:
            raise FormatError(
                f"the bundle's architecture has (classes, channels) {found}, but it lists {expected[0]} classes and "
                f"images of {expected[1]} channels; train again"
            )
    return model


def _imported(name: str, allow_import: bool) -> Callable[..., object]:
    package, _, function = name.partition(":")
    if not package or not function:
        raise FormatError(f"unknown architecture {name!r}; known: resnet, or 'package:function'")
    if not allow_import:
        raise UsageError(
            f"the bundle wants to import and run {name}; "
            "if you trust its source, allow it (build_model(bundle, allow_import=True)) or give it with --model"
        )
    try:
        found = getattr(importlib.import_module(package), function)
    except (ImportError, AttributeError) as error:
        raise FormatError(f"architecture {name} cannot be imported ({error}); install its package") from error
    if not callable(found):
        raise FormatError(f"architecture {name} is not a function; name one that returns a torch.nn.Module")
    return found  # type: ignore[no-any-return]  # whatever the user's package holds


def check_tensors(model: nn.Module, bundle: Bundle) -> None:
    """Check that a bundle holds the tensors of a network, no more and no less.

    Raises:
        FormatError: a tensor that is missing, left over, of another shape or kind; names the first.
    """
    own = model.state_dict()
    for name, value in own.items():
        if name not in bundle.tensors:
            raise FormatError(f"tensor {name} is missing in the bundle; expected shape {tuple(value.shape)}")
        found = bundle.tensors[name]
        if found.shape != tuple(value.shape):
            raise FormatError(f"tensor {name} has shape {found.shape}; the architecture expects {tuple(value.shape)}")
        if np.issubdtype(found.dtype, np.floating) != value.dtype.is_floating_point:
            raise FormatError(f"tensor {name} is {found.dtype}; the architecture expects {value.dtype}")
    extra = [name for name in bundle.tensors if name not in own]
    if extra:
        raise FormatError(f"tensor {extra[0]} of the bundle belongs to nothing in the architecture; train again")


def fill(model: nn.Module, bundle: Bundle) -> None:
    """Copy a bundle's tensors, known to fit by :func:`check_tensors`, into a network of exactly their types.

    Raises:
        FormatError: a tensor of another type: a number that is finite in one need not be in the other.
    """
    tensors = {name: torch.from_numpy(value.copy()) for name, value in bundle.tensors.items()}
    for name, own in model.state_dict().items():
        if tensors[name].dtype != own.dtype:
            raise FormatError(f"tensor {name} is {tensors[name].dtype}; expected {own.dtype}; train again")
    model.load_state_dict(tensors)
