"""The images that DLG, iDLG and DCGAN make of a trained client's activations, for Table II to classify."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from gascnn.benchmarks.pgsl.recognition import Reconstruct, Reconstructions
from gascnn.benchmarks.pgsl.reconstruction_settings import ReconstructionSettings
from gascnn.benchmarks.pgsl.reconstructors import reconstructors
from gascnn.benchmarks.pgsl.seed_networks import SeedNetworks
from gascnn.toolkit.errors import UsageError

METHODS = ("DLG", "iDLG", "DCGAN")
"""Of Table II."""


def reconstructions(settings: ReconstructionSettings, images: int) -> Reconstructions:
    """The methods as Table I has them; the adversary's own images are validation images.

    Args:
        settings: of Table I: how the methods work, and how many images the adversary has.
        images: of the test images, how many are reconstructed.

    Raises:
        UsageError: fewer images than one.
    """
    if images < 1:
        raise UsageError(f"images to reconstruct are {images}; at least 1")

    @lru_cache(maxsize=1)
    def of(networks: SeedNetworks) -> dict[str, Reconstruct]:
        split, own = networks.split.model, networks.partition.val.images[: settings.auxiliary_images]
        found = reconstructors(split.client.model, split.server.model, own, settings.methods, networks.tell)
        return {name: found[name] for name in METHODS}

    def method(name: str) -> Callable[[SeedNetworks], Reconstruct]:
        return lambda networks: of(networks)[name]

    described = {**settings.methods.to_dict(), "auxiliary_images": settings.auxiliary_images}
    return Reconstructions({name: method(name) for name in METHODS}, images, described)
