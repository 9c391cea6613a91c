"""What a spiking network gave for one image, in one short text: equal on every machine, or the machine is wrong."""

from __future__ import annotations

import hashlib

import numpy as np

from gascnn.hardware.result import RunResult


def image_digests(result: RunResult) -> list[str]:
    """A SHA-256 for each image of a run: over every neuron's spike count of every layer, and over the read-out.

    Integers are hashed in little-endian order with their shapes, so that the same spikes give the same text on any
    processor.
    """
    parts = [*(count.astype("<i4") for count in result.counts), result.output_counts.astype("<i4"),
             result.output_membrane.astype("<i8")]  # fmt: skip
    digests = []
    for image in range(result.images):
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{part.shape[1:]}".encode())
            digest.update(np.ascontiguousarray(part[image]).tobytes())
        digests.append(digest.hexdigest())
    return digests
