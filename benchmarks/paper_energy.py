"""The paper's energy figure: additions of 0.1 pJ against the ANN's multiply-accumulates of 3.2 pJ, 32-bit integers.

GASCNN claims 52 times less energy than the ResNet by the model of its reference [40], which counts nothing but
arithmetic::

    E_ANN = MACs * 3.2 pJ
    E_SNN = sum over layers of MACs_layer * (spikes a synaptic source and image) * 0.1 pJ

With fan-outs as they are, the second sum is the number of synaptic operations. 52 times then means at most
32 / 52 = 0.615 spikes a synaptic source and image. Memory, neurons and communication are left out on both sides; no
chip reaches such figures, and none is claimed to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gascnn.benchmarks.counts import Counts
from gascnn.toolkit.errors import UsageError

ADD_PJ = 0.1
MULTIPLY_PJ = 3.1
"""32-bit integers in a 45 nm process at 0.9 V: M. Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9."""

MAC_PJ = MULTIPLY_PJ + ADD_PJ

PAPER_RATIO = 52.0
"""GASCNN, V-B."""


@dataclass(frozen=True)
class PaperEnergy:
    """Energy of one image, arithmetic alone.

    Attributes:
        ann_macs: multiply-accumulates of the ANN.
        ann_pj: their energy.
        additions: of the spiking network, from inputs, populations, relays, always-on channels and self-inhibition.
        multiply_accumulates: of its first layer where the input is graded, at every step.
        snn_pj: energy of both.
        ratio: ``ann_pj / snn_pj``; None if the network does nothing at all.
        spikes_per_source: additions over the synapses that spikes go over, all kinds: fan-out is the weight.
        additions_per_ann_mac: (additions + 32 multiply-accumulates) over the ANN's; 0.615 of it is the paper's ratio.
    """

    ann_macs: int
    ann_pj: float
    additions: float
    multiply_accumulates: float
    snn_pj: float
    ratio: float | None
    spikes_per_source: float | None
    additions_per_ann_mac: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the constants they rest on."""
        return {**asdict(self), "add_pj": ADD_PJ, "mac_pj": MAC_PJ, "paper_ratio": PAPER_RATIO}


def paper_energy(counts: Counts, ann_macs: int) -> PaperEnergy:
    """Energy of the spiking network and of the ANN by the paper's formula.

    Args:
        counts: of a run.
        ann_macs: of one image; see :func:`gascnn.benchmarks.ann_macs.ann_macs`.

    Raises:
        UsageError: ``ann_macs`` below 1.
    """
    if ann_macs < 1:
        raise UsageError(f"ann_macs is {ann_macs}; an ANN has at least one multiply-accumulate")
    additions, products = counts.additions(), counts.multiply_accumulates()
    snn_pj, ann_pj = additions * ADD_PJ + products * MAC_PJ, ann_macs * MAC_PJ
    return PaperEnergy(
        ann_macs=ann_macs,
        ann_pj=ann_pj,
        additions=additions,
        multiply_accumulates=products,
        snn_pj=snn_pj,
        ratio=ann_pj / snn_pj if snn_pj else None,
        spikes_per_source=counts.spikes_per_source(),
        additions_per_ann_mac=snn_pj / ADD_PJ / ann_macs,
    )
