"""What a server serves: a new network, or that of a bundle, which its run begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.bundle import MODEL_FILE
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.pgsl.bundle import load_network
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import SplitServer
from gascnn.toolkit.pgsl.train import make_server
from gascnn.toolkit.pgsl.wire.store import Checkpoint, Progress, RunStore


@dataclass(frozen=True, eq=False)
class Served:
    """A network to serve.

    Attributes:
        server: its larger part.
        channels: of the images.
        described: classes and image shape, and the bundle's SHA-256: a run's folder is of one network.
        client: state that the first client to train begins with; empty for a new network.
    """

    server: SplitServer
    channels: int
    described: dict[str, Any]
    client: dict[str, Tensor] = field(default_factory=dict)

    def begin(self, store: RunStore) -> None:
        """Let a run that has no checkpoint yet begin with these weights.

        Raises:
            FormatError: the run's checkpoint is damaged.
            DataError: the folder cannot be written.
        """
        if self.client and store.load() is None:
            store.save(Checkpoint(self.server.state()[0], self.client, Progress()))


def new_network(classes: int, image_shape: tuple[int, int, int], options: PgslOptions) -> Served:
    """A network with fresh weights.

    Raises:
        UsageError: sizes that do not fit together.
    """
    channels, side, _ = image_shape
    try:
        # The smallest that a client can have: what is no size for it is refused before anything large is made.
        LocalClassifier(channels, classes, side, 1)
    except ValueError as error:
        raise UsageError(str(error)) from error
    described = {"classes": classes, "image_shape": list(image_shape)}
    return Served(make_server(classes, side, options), channels, described)


def of_bundle(path: Path) -> Served:
    """The network of a bundle that ``gascnn pgsl train`` wrote.

    Raises:
        FormatError: no such bundle, or a damaged one.
    """
    network = load_network(path)
    described = {
        "classes": len(network.class_names),
        "image_shape": list(network.image_shape),
        "bundle_sha256": sha256_file(path / MODEL_FILE),
    }
    return Served(network.server, network.image_shape[0], described, network.client.state().tensors)
