"""Both networks under cost tables: energy, ratio, and the firing rate at which they would cost the same.

Of one image, for a table of arithmetic::

    E_ANN = MACs * mac + memory
    E_SNN = graded input's operations * mac + additions * ac + neuron updates * update + memory

and for a neuromorphic chip, which has no price for an ANN, so that the ANN's is the 45 nm table's::

    E_SNN = synaptic operations * event + neuron updates * update

The break-even rate scales everything that spikes cause and leaves the rest as it is: with ``s`` spikes a source now,
``s * (E_ANN - E_fixed) / (E_SNN - E_fixed)``. Where the fixed part alone costs more than the ANN there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gascnn.benchmarks.counts import Counts
from gascnn.benchmarks.energy.memory import NOTHING, MemoryTraffic, ann_memory, is_pixels, snn_memory
from gascnn.benchmarks.energy.tables import FP32, INT8, INT8_MEMORY, TABLES, CostTable
from gascnn.benchmarks.energy.work import AnnWork
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import NetxNetwork

_CLOSE = 0.05
"""Ratios this near to 1 are called equal: no table is that exact."""

_WHOLE = 9.95


@dataclass(frozen=True)
class SnnEnergy:
    """The spiking network's energy for one image, in pJ.

    Attributes:
        input_macs: graded input's operations in the first layer, multiplied at every step.
        additions: of spikes over synapses, of every kind of source.
        messages: graded messages of sigma-delta neurons over synapses.
        neuron_updates: every neuron at every step; 0 where the table leaves neurons out.
        memory: traffic; nothing where the table leaves it out.
    """

    input_macs: float
    additions: float
    messages: float
    neuron_updates: float
    memory: MemoryTraffic

    @property
    def total(self) -> float:
        """All of it."""
        return self.input_macs + self.additions + self.messages + self.neuron_updates + self.memory.total

    @property
    def fixed(self) -> float:
        """What would be there without a single spike."""
        return self.input_macs + self.neuron_updates + self.memory.fixed

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "input_macs_pj": self.input_macs,
            "additions_pj": self.additions,
            "messages_pj": self.messages,
            "neuron_updates_pj": self.neuron_updates,
            "memory_pj": self.memory.total,
            "memory": self.memory.to_dict(),
            "fixed_pj": self.fixed,
        }


@dataclass(frozen=True)
class Bill:
    """Both networks under one table.

    Attributes:
        table: that is meant.
        ann_table, int8_ann_table: names of those the two ANNs are billed by.
        ann_pj, int8_ann_pj: energy of the ANN, and of the same ANN in 8-bit integers.
        ann_memory_pj: how much of ``ann_pj`` is memory.
        snn: energy of the spiking network.
        spikes_per_source: of this run, each source weighted by its fan-out; messages in a sigma-delta network.
    """

    table: CostTable
    ann_table: str
    int8_ann_table: str
    ann_pj: float
    int8_ann_pj: float
    ann_memory_pj: float
    snn: SnnEnergy
    spikes_per_source: float | None

    @property
    def snn_pj(self) -> float:
        """Energy of the spiking network."""
        return self.snn.total

    @property
    def ratio(self) -> float | None:
        """ANN over SNN: above 1 the SNN needs less; None if it does nothing at all."""
        return self._ratio(self.ann_pj)

    @property
    def int8_ratio(self) -> float | None:
        """The same with the 8-bit ANN."""
        return self._ratio(self.int8_ann_pj)

    @property
    def break_even(self) -> float | None:
        """Spikes a source below which the SNN needs less than the ANN; None where no rate would do."""
        return self._break_even(self.ann_pj)

    @property
    def int8_break_even(self) -> float | None:
        """The same with the 8-bit ANN."""
        return self._break_even(self.int8_ann_pj)

    @property
    def mixes_technologies(self) -> bool:
        """Whether the ANN is billed by the figures of another technology than the SNN."""
        return self.table.kind == "device"

    @property
    def sentence(self) -> str:
        """Who wins, by how much, and where that would turn."""
        return self._sentence("ANN", self.ann_pj, self.ann_table)

    @property
    def int8_sentence(self) -> str:
        """The same with the 8-bit ANN."""
        return self._sentence("8-bit ANN", self.int8_ann_pj, self.int8_ann_table)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; energies of one image in pJ."""
        return {
            "table": self.table.name,
            "title": self.table.title,
            "kind": self.table.kind,
            "source": self.table.source,
            "note": self.table.note,
            "mixes_technologies": self.mixes_technologies,
            "ann_table": self.ann_table,
            "ann_pj": self.ann_pj,
            "ann_memory_pj": self.ann_memory_pj,
            "snn_pj": self.snn_pj,
            "snn": self.snn.to_dict(),
            "ratio": self.ratio,
            "spikes_per_source": self.spikes_per_source,
            "break_even_spikes_per_source": self.break_even,
            "int8_ann_table": self.int8_ann_table,
            "int8_ann_pj": self.int8_ann_pj,
            "int8_ratio": self.int8_ratio,
            "int8_break_even_spikes_per_source": self.int8_break_even,
            "sentence": self.sentence,
            "int8_sentence": self.int8_sentence,
        }

    def _ratio(self, ann_pj: float) -> float | None:
        return ann_pj / self.snn_pj if self.snn_pj else None

    def _break_even(self, ann_pj: float) -> float | None:
        driven = self.snn_pj - self.snn.fixed
        if not self.spikes_per_source or driven <= 0 or ann_pj <= self.snn.fixed:
            return None
        return self.spikes_per_source * (ann_pj - self.snn.fixed) / driven

    def _sentence(self, ann: str, ann_pj: float, ann_table: str) -> str:
        clause = f" The {ann} is billed as {ann_table}: this mixes technologies." if self.mixes_technologies else ""
        if not self.snn_pj:
            return f"The SNN sends no spike and needs no energy under this table, so there is no comparison.{clause}"
        ratio, turn = ann_pj / self.snn_pj, self._break_even(ann_pj)
        if abs(ratio - 1) <= _CLOSE:
            return f"The SNN needs as much energy as the {ann} under this table, within {_CLOSE:.0%}.{clause}"
        if ratio > 1:
            end = "the SNN wins"
            end += f"; it would lose above {_number(turn)} spikes a source" if turn is not None else ""
            return f"The {ann} needs {_number(ratio)} times the SNN's energy under this table: {end}.{clause}"
        end = "it loses"
        if turn is not None:
            end += f"; it would win below {_number(turn)} spikes a source"
        elif (fixed := self.snn.fixed / ann_pj) >= 1:
            end += f" at any firing rate, as what does not depend on spikes needs {_number(fixed)} times the {ann}'s"
        return f"The SNN needs {_number(1 / ratio)} times the {ann}'s energy under this table: {end}.{clause}"


def bill(
    network: NetxNetwork, counts: Counts, ann: AnnWork, tables: Iterable[CostTable] = tuple(TABLES.values())
) -> list[Bill]:
    """Bill a run and its ANN by each table.

    Args:
        network: that ran.
        counts: of the run; :meth:`gascnn.benchmarks.activity.Activity.counts` gives them too.
        ann: its work for one image; with layers where a table bills memory.
        tables: cost tables.

    Raises:
        UsageError: a table that bills memory, and an ANN without layers; a table that does not say what it must.
    """
    return [_bill(network, counts, ann, table) for table in tables]


def ratio_range(bills: Sequence[Bill]) -> dict[str, Any]:
    """Lowest and highest ratio over tables, for the ANN (``ann``) and the 8-bit ANN (``int8_ann``).

    Returns:
        Each with ``lowest`` and ``highest`` (``ratio`` and ``table``), ``wins`` and ``of``; lowest and highest are None
        where no table has a ratio.
    """
    return {
        "ann": _range([(one.ratio, one.table.name) for one in bills]),
        "int8_ann": _range([(one.int8_ratio, one.table.name) for one in bills]),
    }


def _range(found: list[tuple[float | None, str]]) -> dict[str, Any]:
    known = sorted((ratio, table) for ratio, table in found if ratio is not None)
    ends = {"lowest": known[0], "highest": known[-1]} if known else {}
    return {
        **{
            end: dict(zip(("ratio", "table"), ends[end], strict=True)) if ends else None
            for end in ("lowest", "highest")
        },
        "wins": sum(ratio > 1 for ratio, _ in known),
        "of": len(known),
    }


def _bill(network: NetxNetwork, counts: Counts, ann: AnnWork, table: CostTable) -> Bill:
    own, small = (FP32, INT8) if table.kind == "device" else (table, INT8_MEMORY if table.memory else INT8)
    ann_pj, memory_pj = _ann_energy(ann, own)
    rate = counts.spikes_per_source()
    return Bill(
        table=table,
        ann_table=own.name,
        int8_ann_table=small.name,
        ann_pj=ann_pj,
        int8_ann_pj=_ann_energy(ann, small)[0],
        ann_memory_pj=memory_pj,
        snn=_snn_energy(network, counts, table),
        spikes_per_source=_messages_per_source(counts) if rate is None else rate,
    )


def _ann_energy(ann: AnnWork, table: CostTable) -> tuple[float, float]:
    """Energy of one image, and how much of it is memory; biases are additions where memory is billed (1.2, 2.2)."""
    mac_pj, ac_pj = _given(table, "mac_pj"), _given(table, "ac_pj")
    if table.memory is None:
        return ann.macs * mac_pj, 0.0
    memory_pj = ann_memory(ann, table.memory, int(_given(table, "word_bytes"))).total
    biases = sum(layer.outputs for layer in ann.layers if layer.biases)
    return ann.macs * mac_pj + biases * ac_pj + memory_pj, memory_pj


def _snn_energy(network: NetxNetwork, counts: Counts, table: CostTable) -> SnnEnergy:
    pixels = sum(way.operations for way in counts.ways if is_pixels(way, counts)) / counts.images
    messages = counts.multiply_accumulates() - pixels
    if table.kind == "device":
        graded_pj = spike_pj = _given(table, "synaptic_event_pj")
    else:
        graded_pj, spike_pj = _given(table, "mac_pj"), _given(table, "ac_pj")
    memory = NOTHING
    if table.memory is not None:
        memory = snn_memory(network, counts, table.memory, int(_given(table, "word_bytes")))
    return SnnEnergy(
        input_macs=pixels * graded_pj,
        additions=counts.additions() * spike_pj,
        messages=messages * graded_pj,
        neuron_updates=counts.neuron_updates * (table.neuron_update_pj or 0.0),
        memory=memory,
    )


def _messages_per_source(counts: Counts) -> float | None:
    """Messages a source and image of a sigma-delta network, weighted by fan-out."""
    graded = [way for way in counts.ways if way.graded and not is_pixels(way, counts)]
    synapses = sum(way.synapses for way in graded)
    return sum(way.operations for way in graded) / (synapses * counts.images) if synapses else None


def _given(table: CostTable, name: str) -> float:
    value = getattr(table, name)
    if value is None:
        raise UsageError(f"cost table {table.name!r} is of kind {table.kind} and has no {name}; give it one")
    return float(value)


def _number(value: float) -> str:
    """Two digits, whole numbers from 10 on."""
    return f"{value:.0f}" if value >= _WHOLE else f"{value:.{1 - math.floor(math.log10(value))}f}"
