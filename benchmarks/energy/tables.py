"""Cost tables: what one operation needs, in picojoules, each figure with where it was published.

No figure here is this project's own. There is none for Loihi 2: no cost of a single operation on it was published
where it could be found, so there is no such table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gascnn.benchmarks.energy.memory import SramCosts
from gascnn.toolkit.errors import UsageError

HOROWITZ = 'M. Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014'
LEMAIRE = (
    'E. Lemaire et al., "An Analytical Estimation of Spiking Neural Networks Energy Efficiency", ICONIP 2022, '
    "arXiv 2210.13107"
)


@dataclass(frozen=True)
class CostTable:
    """Costs of operations in one technology.

    Attributes:
        name: as on the command line and in JSON.
        title: as in tables.
        source: who published the figures.
        kind: ``arithmetic``: operations of a circuit that could be an ANN's too; ``device``: a neuromorphic chip, which
            has no price for an ANN.
        mac_pj: a multiplication and its addition.
        ac_pj: an addition.
        neuron_update_pj: of one neuron at one step; None where the source leaves neurons out.
        synaptic_event_pj: a spike over a synapse on a device.
        word_bytes: of weights and activations, where memory is billed.
        memory: what an access costs; None where memory is left out.
        note: what the figures leave out or favour, in one line.
    """

    name: str
    title: str
    source: str
    kind: Literal["arithmetic", "device"]
    mac_pj: float | None = None
    ac_pj: float | None = None
    neuron_update_pj: float | None = None
    synaptic_event_pj: float | None = None
    word_bytes: int | None = None
    memory: SramCosts | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


_BARE = "arithmetic alone: memory, neurons, communication and control are left out on both sides"

_ALL = (
    CostTable(
        "45nm-fp32",
        "45 nm, float32",
        f"MAC 4.6 pJ, addition 0.9 pJ: {HOROWITZ}; as in SpikingJelly's and syops-counter's energy counters",
        "arithmetic",
        mac_pj=4.6,
        ac_pj=0.9,
        note=_BARE,
    ),
    CostTable(
        "45nm-int32",
        "45 nm, int32 (the paper's 52 times)",
        f"multiplication 3.1 pJ, addition 0.1 pJ: {HOROWITZ}; tabulated in PMC8934428, Table 3",
        "arithmetic",
        mac_pj=3.2,
        ac_pj=0.1,
        note=f"{_BARE}; no ANN is deployed in int32 today, so it overcharges the ANN",
    ),
    CostTable(
        "45nm-fp16",
        "45 nm, float16",
        f"multiplication 1.1 pJ, addition 0.4 pJ: {HOROWITZ}; as in SpikingJelly's energy counter",
        "arithmetic",
        mac_pj=1.5,
        ac_pj=0.4,
        note=_BARE,
    ),
    CostTable(
        "45nm-int8",
        "45 nm, int8",
        f"multiplication 0.2 pJ, addition 0.03 pJ: {HOROWITZ}; as in SpikingJelly's energy counter",
        "arithmetic",
        mac_pj=0.23,
        ac_pj=0.03,
        note=f"{_BARE}; sums in 8 bits, which neither network has: it undercharges both",
    ),
    CostTable(
        "45nm-int32-memory",
        "45 nm, int32, with memory",
        f"{LEMAIRE}; operations and SRAM: {HOROWITZ}",
        "arithmetic",
        mac_pj=3.2,
        ac_pj=0.1,
        neuron_update_pj=0.1,
        word_bytes=4,
        memory=SramCosts(),
        note="every operand is an SRAM access of its own, nothing is kept in registers; DRAM and communication are out",
    ),
    CostTable(
        "45nm-int8-memory",
        "45 nm, int8, with memory",
        f"{LEMAIRE}, with 8-bit weights and activations and 32-bit potentials; operations and SRAM: {HOROWITZ}",
        "arithmetic",
        mac_pj=0.23,
        ac_pj=0.03,
        neuron_update_pj=0.03,
        word_bytes=1,
        memory=SramCosts(),
        note="every operand is an SRAM access of its own, at the price of a whole one; DRAM and communication are out",
    ),
    CostTable(
        "loihi",
        "Loihi (first generation)",
        "synaptic event 23.6 pJ + 3.5 pJ for a hop, neuron update 81 pJ: M. Davies et al., "
        '"Loihi: A Neuromorphic Manycore Processor with On-Chip Learning", IEEE Micro 38(1), 2018; as in KerasSpiking',
        "device",
        neuron_update_pj=81.0,
        synaptic_event_pj=27.1,
        note="23.6 pJ is the minimum, of a best case; idle power, host and input are left out",
    ),
    CostTable(
        "spinnaker2",
        "SpiNNaker 2",
        "synaptic event 450 pJ, neuron update 2.19 nJ: S. Höppner et al., "
        '"Dynamic Power Management for Neuromorphic Many-Core Systems", IEEE TCAS-I 66(8), 2019, arXiv 1903.08941; '
        "as in KerasSpiking",
        "device",
        neuron_update_pj=2190.0,
        synaptic_event_pj=450.0,
        note="from a 28 nm test chip with dynamic voltage; idle power, host and input are left out",
    ),
)

TABLES: dict[str, CostTable] = {table.name: table for table in _ALL}

FP32, INT8, INT8_MEMORY = TABLES["45nm-fp32"], TABLES["45nm-int8"], TABLES["45nm-int8-memory"]


def chosen_tables(names: Sequence[str] = ()) -> list[CostTable]:
    """Tables by name, in the order of :data:`TABLES`; all where none is named.

    Raises:
        UsageError: an unknown name.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise UsageError(f"unknown cost table {unknown[0]!r}; known: {', '.join(TABLES)}")
    return [table for name, table in TABLES.items() if not names or name in names]
