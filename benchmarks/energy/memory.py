"""Memory traffic of an ANN and of a spiking network, after E. Lemaire et al. 2022 (arXiv 2210.13107).

Every operand is one access to an SRAM of its own for each layer and purpose: inputs, weights, biases, potentials,
outputs. Accesses of one layer l of an image, with the paper's equation numbers; theta is the number of spikes (or
messages) that came in or went out, N the number of neurons or activations::

    ANN   read inputs       (3) conv: C_in H_k W_k * N_out, one for each product     (4) dense: N_in
          read weights      (6.1, 6.2) one for each product
          read biases       (6.1, 6.2) N_out
          write outputs     (11, 12) N_out
    SNN   read inputs       (5) theta_in
          read weights      (7) conv: theta_in * C_out H_k W_k                       (8) dense: theta_in * N_out
          read potentials   as many as are written for spikes
          write potentials  (14) conv: theta_in * C_out H_k W_k + N_out              (15) dense: (theta_in + 1) * N_out
          write outputs     (13) theta_out

Equation numbers are those that the metric's implementation by the authors' laboratory (Qualia's plug-in for spiking
networks) gives; the paper's own text was not at hand. How they are read here:

* ``theta_in * C_out H_k W_k`` and the number of products are the synaptic operations with their real fan-out: borders,
  strides and zero weights as in :mod:`gascnn.benchmarks.counts`, for both networks.
* Reads of potentials (equations 9 and 10 by the gap in the numbering) are taken to be one for each addition: whoever
  adds to a potential reads it first. The N_out writes that no spike causes set the potentials before an image.
* Biases of a spiking network are read at each of T + K steps, in which its neurons add them.
* Graded input multiplies at every step: inputs and weights are read as the ANN's, T times, and each potential of the
  layer is read and written once a step. Graded messages are billed as spikes.
* Spikes wait in queues of the smallest memory there is a figure for. Writing the input is left out on both sides, and
  so are addressing (equations 16 and 17), DRAM and communication.

An access costs 10, 20 or 100 pJ in an SRAM of 8 KiB, 32 KiB or 1 MiB (M. Horowitz, ISSCC 2014), linear between.
Below and above there is no figure: the nearest one holds, which is too little above 1 MiB. Horowitz's accesses are 64
bits wide; here a word of any width is one access, as in the authors' code.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gascnn.benchmarks.counts import Counts, Way
from gascnn.benchmarks.energy.work import AnnWork
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import DenseLayer, NetxNetwork, SynapticLayer


@dataclass(frozen=True)
class SramCosts:
    """What one access costs.

    Attributes:
        points: (bytes, pJ) in ascending order; linear between, the nearest one outside.
        potential_bytes: of a membrane potential, whatever the weights are: Loihi's have 24 bits.
    """

    points: tuple[tuple[int, float], ...] = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
    potential_bytes: int = 4

    def access_pj(self, size_bytes: int) -> float:
        """One read or write in a memory of this size."""
        sizes, costs = zip(*self.points, strict=True)
        return float(np.interp(size_bytes, sizes, costs))


@dataclass(frozen=True)
class MemoryTraffic:
    """Energy of the accesses for one image, in pJ.

    Attributes:
        inputs, weights, potentials, outputs: what is read or written; biases are among the weights.
        fixed: the part of all four that does not depend on how much spikes.
    """

    inputs: float
    weights: float
    potentials: float
    outputs: float
    fixed: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.inputs + self.weights + self.potentials + self.outputs

    def __add__(self, other: MemoryTraffic) -> MemoryTraffic:
        return MemoryTraffic(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {f"{name}_pj": value for name, value in asdict(self).items()}


NOTHING = MemoryTraffic(0.0, 0.0, 0.0, 0.0, 0.0)


def ann_memory(work: AnnWork, sram: SramCosts, word_bytes: int) -> MemoryTraffic:
    """Traffic of the ANN for one image.

    Args:
        work: with its layers.
        sram: cost of an access.
        word_bytes: of weights and activations.

    Raises:
        UsageError: its layers are not told.
    """
    if not work.layers:
        raise UsageError("memory is billed layer by layer, and the ANN's layers are not told; give AnnWork its layers")
    sum_ = NOTHING
    for layer in work.layers:
        read = layer.macs if layer.kind == "conv" else layer.inputs
        inputs = read * sram.access_pj(layer.inputs * word_bytes)
        weights = layer.macs * sram.access_pj(layer.weights * word_bytes)
        biases = (layer.outputs if layer.biases else 0) * sram.access_pj(layer.biases * word_bytes)
        outputs = layer.outputs * sram.access_pj(layer.outputs * word_bytes)
        sum_ += MemoryTraffic(inputs, weights + biases, 0.0, outputs, inputs + weights + biases + outputs)
    return sum_


def snn_memory(network: NetxNetwork, counts: Counts, sram: SramCosts, word_bytes: int) -> MemoryTraffic:
    """Traffic of the spiking network for one image.

    Args:
        network: that ran.
        counts: of the run.
        sram: cost of an access.
        word_bytes: of weights and graded input; potentials have ``sram.potential_bytes``.
    """
    outputs = sum(counts.spikes.values()) / counts.images * sram.access_pj(0)
    sum_ = MemoryTraffic(0.0, 0.0, 0.0, outputs, 0.0)
    for k in range(network.depth):
        ways = [way for way in counts.ways if way.layer == k]
        sum_ += _layer_memory(network, k, [way for way in ways if not is_pixels(way, counts)], counts, sram, word_bytes)
        products = sum(way.operations for way in ways if is_pixels(way, counts)) / counts.images
        if products:
            sum_ += _pixel_memory(network, products, counts.steps, sram, word_bytes)
    return sum_


def is_pixels(way: Way, counts: Counts) -> bool:
    """Whether it is graded input that multiplies at every step, and not messages."""
    every = way.synapses * counts.images * counts.steps
    return (
        way.graded and way.layer == 0 and way.operations == every and not any(w.graded and w.layer for w in counts.ways)
    )


def _layer_memory(
    network: NetxNetwork, k: int, ways: list[Way], counts: Counts, sram: SramCosts, word_bytes: int
) -> MemoryTraffic:
    """What spikes and biases cause, and the potentials' first values."""
    layer = network.layers[k]
    neurons = math.prod(layer.shape)
    operations = sum(way.operations for way in ways) / counts.images
    arrived = sum({way.source: way.spikes for way in ways if way.source != "own"}.values()) / counts.images
    potential = sram.access_pj(neurons * sram.potential_bytes)
    biases = 0.0
    if layer.bias is not None and np.any(layer.bias):
        biases = neurons * (counts.steps + network.depth) * sram.access_pj(layer.bias.size * word_bytes)
    return MemoryTraffic(
        inputs=arrived * sram.access_pj(0),
        weights=operations * sram.access_pj(_stored_weights(layer) * word_bytes) + biases,
        potentials=(2 * operations + neurons) * potential,
        outputs=0.0,
        fixed=biases + neurons * potential,
    )


def _pixel_memory(network: NetxNetwork, products: float, steps: int, sram: SramCosts, word_bytes: int) -> MemoryTraffic:
    """What graded input causes."""
    layer, elements = network.layers[0], math.prod(network.input_shape)
    read = elements * steps if isinstance(layer, DenseLayer) else products
    inputs = read * sram.access_pj(elements * word_bytes)
    weights = products * sram.access_pj(_stored_weights(layer) * word_bytes)
    neurons = math.prod(layer.shape)
    potentials = 2 * neurons * steps * sram.access_pj(neurons * sram.potential_bytes)
    return MemoryTraffic(inputs, weights, potentials, 0.0, inputs + weights + potentials)


def _stored_weights(layer: SynapticLayer) -> int:
    stored = [layer.weight, layer.self_weight, layer.weight_rec if isinstance(layer, DenseLayer) else None]
    return sum(array.size for array in stored if array is not None)
