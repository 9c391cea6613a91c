"""Bundles of trained split networks: client, local classifier and server in one folder, of kind ``pgsl``.

The folder, its files and its checks are those of :mod:`gascnn.toolkit.bundle`. Its tensors are ``client.*`` (the
layers ahead of the split), ``local.*`` (the classifier the attack goes by) and ``server.*``; ``architecture`` holds
the options they are built from, and nothing that is imported or run. Whoever holds a bundle holds both sides: what
goes to a board is the client that ``gascnn export --target onnx --part pgsl-client`` makes of it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.bundle import Bundle, load_bundle, save_bundle
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.split import SplitClient, SplitServer
from gascnn.toolkit.pgsl.train import make_client, make_server
from gascnn.toolkit.training.batches import PIXEL_MAX
from gascnn.toolkit.training.bundles import check_tensors, fill


@dataclass(frozen=True, eq=False)
class SplitNetwork:
    """Both sides of a split network.

    Attributes:
        client: with its local classifier and the attack.
        server: of the same options.
        local: how the local classifier was trained.
        class_names: in the order of the outputs.
        image_shape: (C, size, size).
        framing: what part of an image it was trained on; see :mod:`gascnn.toolkit.framing`.
        metrics: measured figures by split, each naming its data set.
        provenance: data set, options, seed, versions.
    """

    client: SplitClient
    server: SplitServer
    local: LocalOptions
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    framing: str = "whole"
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> PgslOptions:
        """How both sides were built and trained."""
        return self.server.options


def new_parts(
    image_shape: tuple[int, int, int], classes: int, options: PgslOptions, local: LocalOptions
) -> tuple[SplitClient, SplitServer]:
    """Client and server with fresh weights; the local classifier's are random too, from torch's global state.

    Raises:
        UsageError: images that are not square, or sizes, classes or a strength that do not fit together.
    """
    channels, height, width = image_shape
    if height != width:
        raise UsageError(f"images are {height}x{width}; split networks take square ones; give an image size")
    try:
        classifier = LocalClassifier(channels, classes, height, local.width)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return make_client(classifier, options), make_server(classes, height, options)


def to_bundle(network: SplitNetwork) -> Bundle:
    """A trained split network as a bundle; its tensors are copied, the optimisers' state is left out."""
    tensors = _modules(network.client, network.server).state_dict()
    return Bundle(
        kind="pgsl",
        architecture={"name": "pgsl", "options": network.options.to_dict(), "local": asdict(network.local)},
        image_shape=network.image_shape,
        classes=network.class_names,
        tensors={name: value.detach().cpu().contiguous().numpy().copy() for name, value in tensors.items()},
        pixel_max=PIXEL_MAX,
        framing=network.framing,
        metrics=network.metrics,
        provenance=network.provenance,
    )


def from_bundle(bundle: Bundle) -> SplitNetwork:
    """The split network of a bundle, in evaluation mode. Nothing is allocated before names and shapes are known to fit.

    Raises:
        FormatError: a bundle of another kind, options that build no network, tensors that are missing, left over or
            of another shape (the message names the first).
    """
    if bundle.kind != "pgsl":
        raise FormatError(f"the bundle is of kind {bundle.kind}; expected pgsl: one that 'gascnn pgsl train' wrote")
    if bundle.pixel_max != PIXEL_MAX:
        raise FormatError(f"the bundle's pixel_max is {bundle.pixel_max}; split networks take {PIXEL_MAX}; train again")
    options, local = _options(bundle)
    classes = len(bundle.classes)
    try:
        with torch.random.fork_rng(devices=[]):
            # Shapes alone: what a hostile description asks for could fill the memory.
            with torch.device("meta"):
                check_tensors(_modules(*new_parts(bundle.image_shape, classes, options, local)), bundle)
            client, server = new_parts(bundle.image_shape, classes, options, local)
    except (UsageError, RuntimeError, OverflowError) as error:
        raise FormatError(f"the bundle's options build no split network: {error}") from error
    fill(_modules(client, server), bundle)
    client.model.eval()
    server.model.eval()
    return SplitNetwork(
        client=client,
        server=server,
        local=local,
        class_names=bundle.classes,
        image_shape=bundle.image_shape,
        framing=bundle.framing,
        metrics=bundle.metrics,
        provenance=bundle.provenance,
    )


def save_network(network: SplitNetwork, path: str | os.PathLike[str]) -> None:
    """Write the folder ``path``, whole or not at all.

    Raises:
        DataError, UsageError: as :func:`gascnn.toolkit.bundle.save_bundle`.
    """
    save_bundle(to_bundle(network), path)


def load_network(path: str | os.PathLike[str]) -> SplitNetwork:
    """Read what :func:`save_network` wrote.

    Raises:
        FormatError: as :func:`gascnn.toolkit.bundle.load_bundle` and :func:`from_bundle`.
    """
    return from_bundle(load_bundle(path))


def _modules(client: SplitClient, server: SplitServer) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"client": client.model.layers, "local": client.model.attack.classifier, "server": server.model}
    )


def _options(bundle: Bundle) -> tuple[PgslOptions, LocalOptions]:
    options, local = bundle.architecture.get("options"), bundle.architecture.get("local")
    if bundle.architecture.get("name") != "pgsl" or not isinstance(options, dict) or not isinstance(local, dict):
        raise FormatError("the bundle's architecture needs the name pgsl and tables 'options' and 'local'; train again")
    try:
        return PgslOptions.from_dict(options), LocalOptions(**local)
    except (UsageError, TypeError) as error:
        raise FormatError(f"the bundle's options cannot be used: {error}") from error
