"""What a deployed network takes of a chip, layer by layer, as used and limit.

An estimate without the chip and its compiler, which is not public. Synapses are counted one by one, as on a chip that
stores each (``synapses``); a convolution's kernel is shared by all its places, and a compiler that can share it stores
only that (``shared_weights``). So cores needed for synapse memory lie between two numbers, and both are given. Axons,
routing tables and the compiler's own needs are left out: a network may need more cores than said here, never fewer.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gascnn.benchmarks.counts import fan_out
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.chips import Chip
from gascnn.toolkit.lowering.network import DenseLayer, NetxNetwork, SynapticLayer, layer_label


@dataclass(frozen=True)
class LayerResources:
    """One layer.

    Attributes:
        name: of the layer.
        neurons: relays and always-on channels included.
        synapses: weights other than zero at every place they are used, self-inhibition included.
        shared_weights: weights other than zero as a kernel or matrix stores them.
        synapse_bits: of all synapses, 8 bits each.
        cores_for_neurons: at least.
        cores_for_synapses: with kernels shared, and with each synapse stored; None where the chip's memory is not
            published.
    """

    name: str
    neurons: int
    synapses: int
    shared_weights: int
    synapse_bits: int
    cores_for_neurons: int
    cores_for_synapses: tuple[int, int] | None

    @property
    def cores(self) -> tuple[int, int]:
        """Fewest and, with each synapse stored, most cores; layers do not share a core."""
        low, high = self.cores_for_synapses or (1, 1)
        return max(self.cores_for_neurons, low), max(self.cores_for_neurons, high)


@dataclass(frozen=True)
class Resources:
    """A network on a chip.

    Attributes:
        chip: which.
        layers: one a synaptic layer.
    """

    chip: Chip
    layers: tuple[LayerResources, ...]

    @property
    def cores(self) -> tuple[int, int]:
        """Of all layers."""
        return sum(layer.cores[0] for layer in self.layers), sum(layer.cores[1] for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: each resource of the whole network and of each layer, as ``used`` and ``limit``."""
        chip = self.chip
        layers = []
        for layer in self.layers:
            values = asdict(layer)
            values["cores"] = list(layer.cores)
            if layer.cores_for_synapses is not None:
                values["cores_for_synapses"] = list(layer.cores_for_synapses)
            layers.append(values)
        totals = {name: sum(values[name] for values in layers) for name in ("neurons", "synapses", "synapse_bits")}
        bits = None if chip.synapse_bits_per_core is None else chip.synapse_bits_per_core * chip.cores
        return {
            "chip": chip.name,
            "source": chip.source,
            "cores": {"used": list(self.cores), "limit": chip.cores},
            "neurons": {"used": totals["neurons"], "limit": chip.neurons},
            "synapses": {"used": totals["synapses"], "limit": chip.synapses},
            "synapse_bits": {"used": totals["synapse_bits"], "limit": bits},
            "per_core": {"neurons": chip.neurons_per_core, "synapse_bits": chip.synapse_bits_per_core},
            "layers": layers,
            "fits": self.fits(),
        }

    def fits(self) -> str:
        """In a sentence, as far as an estimate can say."""
        chip = self.chip
        fewest, most = self.cores
        synapses = sum(layer.synapses for layer in self.layers)
        if fewest > chip.cores:
            return f"It does not fit one {chip.name}: at least {fewest} of {chip.cores} cores are needed."
        if chip.synapses is not None and synapses > chip.synapses:
            return (
                f"Stored one by one its {synapses:,} synapses exceed the {chip.synapses:,} of one {chip.name}; it fits "
                "only if the compiler shares kernels."
            )
        if most > chip.cores:
            return (
                f"It fits one {chip.name} only if the compiler shares kernels: {fewest} cores with, {most} of "
                f"{chip.cores} without."
            )
        cores = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return f"It should fit one {chip.name}: {cores} of {chip.cores} cores."


def resources(network: NetxNetwork, chip: Chip) -> Resources:
    """What ``network`` takes of ``chip``."""
    return Resources(
        chip,
        tuple(
            _layer(layer, network.input_of(k), layer_label(network, k), chip) for k, layer in enumerate(network.layers)
        ),
    )


def _layer(layer: SynapticLayer, input_shape: tuple[int, ...], name: str, chip: Chip) -> LayerResources:
    neurons = math.prod(layer.shape)
    synapses = int(fan_out(layer, input_shape).sum())
    shared = int(np.count_nonzero(layer.weight))
    if layer.self_weight is not None:
        own = int(np.count_nonzero(layer.self_weight))
        synapses, shared = synapses + own * (neurons // len(layer.self_weight)), shared + own
    if isinstance(layer, DenseLayer) and layer.weight_rec is not None:
        recurrent = int(np.count_nonzero(layer.weight_rec))
        synapses, shared = synapses + recurrent, shared + recurrent
    memory = chip.synapse_bits_per_core
    return LayerResources(
        name=name,
        neurons=neurons,
        synapses=synapses,
        shared_weights=shared,
        synapse_bits=synapses * limits.WEIGHT_BITS,
        cores_for_neurons=math.ceil(neurons / chip.neurons_per_core),
        cores_for_synapses=None
        if memory is None
        else (
            max(1, math.ceil(shared * limits.WEIGHT_BITS / memory)),
            max(1, math.ceil(synapses * limits.WEIGHT_BITS / memory)),
        ),
    )
