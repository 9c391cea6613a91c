"""The adversary's methods as functions from images to what it makes of what they send: uint8 in, uint8 out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from gascnn.benchmarks.pgsl.decoder import DecoderSettings, decode, train_decoder
from gascnn.benchmarks.pgsl.gradient_inversion import (
    InversionSettings,
    image_of,
    invert_activations,
    invert_gradients,
    returned_gradients,
    server_label,
    undo_map,
    weight_gradients,
)
from gascnn.benchmarks.pgsl.stand_in import NoAttack, with_attack
from gascnn.models.pgsl import PgslClient, PgslServer, downsample, shrink_map
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.training.batches import PIXEL_MAX, to_float

QUERY_BATCH = 128
Matched = Literal["DLG", "iDLG", "activations", "map undone"]


class Reconstruct(Protocol):
    """What every method is."""

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images uint8 (n, ch, size, size) -> what the adversary makes of what the client sends of them.

        Args:
            images: they go through the client; the method sees what leaves it.
            labels: int64 (n,), that the gradients were made with; the fused stream's own answers if None, so that it
                is a function of the images alone.
        """


@dataclass(frozen=True)
class ReconstructorSettings:
    """How the methods work.

    Attributes:
        inversion: of DLG, iDLG and the inversion of activations.
        decoder: of DCGAN; MIA's is the same without discriminator.
    """

    inversion: InversionSettings = field(default_factory=InversionSettings)
    decoder: DecoderSettings = field(default_factory=DecoderSettings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)


def reconstructors(
    client: PgslClient,
    server: PgslServer,
    auxiliary_images: Tensor,
    settings: ReconstructorSettings | None = None,
    told: Callable[[str], None] | None = None,
) -> dict[str, Reconstruct]:
    """Every method against a trained client.

    Args:
        client: with its attack; it and the server are copied, in evaluation mode.
        server: whose fused stream gives the gradients of DLG and iDLG.
        auxiliary_images: uint8 (n, ch, size, size), the adversary's own, none of them to be reconstructed. It sends
            them through the client (black box) and knows what it sent: decoders are taught the images **before** the
            attack, and so learn to take the attack away as well.
        settings: how.
        told: called with the method after each image of an inversion.

    Returns:
        By name. ``DLG``, ``iDLG``, ``DCGAN`` and ``MIA`` are PGSL's. ``activations`` inverts the activations,
        ``map undone`` also takes away the map that travels in them. ``DCGAN, untold`` and ``MIA, untold`` are taught on
        activations of images that were not attacked: the adversary has the client's weights but cannot query it.
        Decoders are trained when first used.

    Raises:
        DataError: auxiliary images of another kind, or fewer than two.
    """
    if auxiliary_images.ndim != 4 or auxiliary_images.dtype != torch.uint8 or len(auxiliary_images) < 2:
        raise DataError(
            f"auxiliary images are {auxiliary_images.dtype} of shape {tuple(auxiliary_images.shape)}; "
            "uint8 (n, ch, size, size), n 2 or more, is needed"
        )
    settings = ReconstructorSettings() if settings is None else settings
    client, server = copy.deepcopy(client).eval(), copy.deepcopy(server).eval()
    client.layers.requires_grad_(True)
    untold = with_attack(client, NoAttack(client.attack.classifier))
    methods: dict[str, Reconstruct] = {
        name: _Inverter(name, client, server, settings.inversion, told) for name in get_args(Matched)
    }
    for name, decoder in (("DCGAN", settings.decoder), ("MIA", settings.decoder.plain())):
        methods[name] = _Decoded(client, client, auxiliary_images, decoder)
        methods[f"{name}, untold"] = _Decoded(untold, client, auxiliary_images, decoder)
    return methods


@torch.no_grad()
def planes_of(client: PgslClient, images: Tensor) -> Tensor:
    """What enters the client's first convolution, for float images (n, ch, size, size): (n, 4 ch + 1, ...)."""
    attacked, added = client.attack(images)
    return downsample(attacked, shrink_map(added))


@torch.no_grad()
def sent(client: PgslClient, images: Tensor) -> Tensor:
    """Activations of uint8 images, in evaluation mode."""
    return torch.cat([client(to_float(part)) for part in images.split(QUERY_BATCH)])


def to_pixels(images: Tensor) -> Tensor:
    """Float images of 0..1 -> uint8, rounded."""
    return (images.clamp(0, 1) * PIXEL_MAX).round().to(torch.uint8)


class _Inverter:
    """A method that looks for each image's planes."""

    def __init__(
        self,
        name: Matched,
        client: PgslClient,
        server: PgslServer,
        settings: InversionSettings,
        told: Callable[[str], None] | None,
    ) -> None:
        self._name, self._client, self._server, self._settings = name, client, server, settings
        self._told = told

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        found = []
        for number, image in enumerate(images.split(1)):
            planes = planes_of(self._client, to_float(image))
            with torch.no_grad():
                activations = self._client.layers(planes)
            if self._name in ("DLG", "iDLG"):
                label = self._answer(activations) if labels is None else int(labels[number])
                found.append(image_of(self._leak(planes, activations, label)))
            else:
                recovered = invert_activations(self._client.layers, activations, planes.shape, self._settings).planes
                found.append(undo_map(recovered) if self._name == "map undone" else image_of(recovered))
            if self._told is not None:
                self._told(self._name)
        return to_pixels(torch.cat(found)) if found else images.clone()

    @torch.no_grad()
    def _answer(self, activations: Tensor) -> int:
        return int(self._server(activations).fused.argmax())

    def _leak(self, planes: Tensor, activations: Tensor, label: int) -> Tensor:
        """Planes from the gradients of a training step on one image; ``planes`` only makes those."""
        returned = returned_gradients(self._server, activations)
        gradients = weight_gradients(self._client.layers, planes, returned[label : label + 1])
        known = server_label(self._server, activations, label) if self._name == "iDLG" else None
        found = invert_gradients(self._client.layers, returned, gradients, planes.shape, known, self._settings)
        return found.planes


class _Decoded:
    """A decoder taught by one client and used on another's activations."""

    def __init__(
        self, teacher: PgslClient, client: PgslClient, auxiliary_images: Tensor, settings: DecoderSettings
    ) -> None:
        self._teacher, self._client = teacher, client
        self._images, self._settings = auxiliary_images, settings

    @cached_property
    def _decoder(self) -> Any:
        return train_decoder(sent(self._teacher, self._images), to_float(self._images), self._settings)

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return to_pixels(decode(self._decoder, sent(self._client, images)))
