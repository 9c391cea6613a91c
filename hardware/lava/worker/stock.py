"""Networks with reset to zero: the file as stock NetX loads it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gascnn.hardware.lava.worker.graph import Graph

if importlib.util.find_spec("lava") is not None:
    from lava.lib.dl.netx.hdf5 import Network


def stock_graph(
    path: Path, input_shape: tuple[int, ...], input_bits: int, input_neurons: bool, reset_interval: int | None
) -> Graph:
    """Load a file.

    Args:
        path: a file with a group ``layer``.
        input_shape: in Lava's order, for files that do not say it.
        input_bits: 0 for spikes.
        input_neurons: whether the file starts with a population that receives the input at its ``a_in``.
        reset_interval: steps after which all neurons start anew; None for a run of one image.
    """
    # With offset 1 every layer is cleared in the very step in which the next image's first input reaches it.
    network = Network(
        net_config=str(path),
        input_message_bits=input_bits,
        input_shape=input_shape,
        reset_interval=reset_interval,
        reset_offset=1,
    )
    network.net_config.f.close()
    neurons = [block.neuron for block in network.layers]
    if input_neurons:
        # NetX leaves the port `inp` of such a network unconnected.
        return Graph(neurons[0].a_in, neurons[1:], network)
    return Graph(network.inp, neurons, network)
