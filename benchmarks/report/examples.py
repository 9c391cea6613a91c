"""A few images with their spikes: what the network saw, when its neurons fired, what it answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator import Simulator
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.lowering.network import NetxNetwork, layer_label

NEURONS_SHOWN = 40
"""Of a layer, the busiest; a read-out is shown whole up to this number."""


def choose(labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], count: int) -> list[int]:
    """Which images are shown: half of them wrong if there are so many, the first of each, in their order."""
    wrong, right = np.flatnonzero(labels != answers).tolist(), np.flatnonzero(labels == answers).tolist()
    right = right[: count - min(len(wrong), count // 2)]
    return sorted([*right, *wrong[: count - len(right)]])


def examples(
    network: NetxNetwork,
    simulator: Simulator,
    images: npt.NDArray[np.uint8],
    indices: list[int],
    *,
    steps: int,
    skip_steps: int,
    seed: int | None,
) -> list[dict[str, Any]]:
    """Run the chosen images and keep their spikes.

    Args:
        network: that runs, of spiking neurons or of sigma-delta ones, whose messages count as spikes.
        simulator: made ready for it.
        images: all images, (image, C, H, W) uint8.
        indices: which of them.
        steps: T.
        skip_steps: of the read-out.
        seed: of the coding; None is the file's.

    Returns:
        For each ``index``, ``pixels`` (H, W; of three channels their mean), ``answer``, ``spikes``: by layer its
        ``name``, ``neurons`` (how many it has), ``shown`` (the busiest), and ``steps`` and ``rows`` of each spike.
    """
    found = []
    for index in indices:
        fed = checked_spikes(
            network, encode_for(network, images[index : index + 1], steps=steps, seed=seed, first=index)
        )
        result = simulator.run(fed, record="spikes", skip_steps=skip_steps)
        kept = result.spikes if result.spikes is not None else result.messages
        assert kept is not None
        found.append(
            {
                "index": index,
                "pixels": np.rint(images[index].mean(axis=0)).astype(np.uint8).tolist(),
                "answer": int(result.predictions()[0]),
                "spikes": [_raster(network, k, kept[k][0]) for k in _layers_shown(network)],
            }
        )
    return found


def _layers_shown(network: NetxNetwork) -> list[int]:
    """The first layer, one in the middle, and the read-out."""
    return sorted({0, network.depth // 2, network.depth - 1})


def _raster(network: NetxNetwork, index: int, spikes: npt.NDArray[np.generic]) -> dict[str, Any]:
    flat = (spikes != 0).reshape(len(spikes), -1)
    busiest = np.argsort(-flat.sum(axis=0), kind="stable")[:NEURONS_SHOWN]
    rows = np.sort(busiest)
    times, places = np.nonzero(flat[:, rows])
    return {
        "name": layer_label(network, index),
        "neurons": int(flat.shape[1]),
        "shown": rows.tolist(),
        "steps": times.tolist(),
        "rows": places.tolist(),
    }
