"""How much a neuromorphic chip holds: cores, neurons, synapses. Ranges of single numbers are in ``limits``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """What one chip holds, as far as it is published; None where it is not.

    Attributes:
        name: of the chip.
        cores: neuromorphic cores.
        neurons_per_core: at most (compartments, on Loihi 1).
        synapse_bits_per_core: of the memory for synapses.
        synapses: of the whole chip, at most.
        source: of these numbers.
    """

    name: str
    cores: int
    neurons_per_core: int
    synapse_bits_per_core: int | None
    synapses: int | None
    source: str

    @property
    def neurons(self) -> int:
        """Of the whole chip."""
        return self.cores * self.neurons_per_core


CHIPS = (
    Chip(
        "Loihi 2",
        cores=128,
        neurons_per_core=8192,
        synapse_bits_per_core=None,
        synapses=120_000_000,
        source="1 million neurons (2^20, 8192 a core), 120 million synapses, 128 cores: Intel Labs, technology brief "
        "'Taking Neuromorphic Computing to the Next Level with Loihi 2', 2021",
    ),
    Chip(
        "Loihi 1",
        cores=128,
        neurons_per_core=1024,
        synapse_bits_per_core=16384 * 64,
        synapses=None,
        source="M. Davies et al., 'Loihi: A Neuromorphic Manycore Processor with On-Chip Learning', IEEE Micro 2018; "
        "nengo-loihi 1.1, nengo_loihi/builder/validate.py and block.py",
    ),
)
"""The chips that resources are told for."""
