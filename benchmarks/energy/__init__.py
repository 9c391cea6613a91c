"""What the counts of a deployed network and of its ANN would cost under published cost tables. Needs no torch.

:mod:`gascnn.benchmarks.energy.tables` has the figures and where they are from, :mod:`gascnn.benchmarks.energy.memory`
the memory traffic, :mod:`gascnn.benchmarks.energy.bill` the comparison. All of it is estimates, never measurements.
"""

from gascnn.benchmarks.energy.bill import Bill, SnnEnergy, bill, ratio_range
from gascnn.benchmarks.energy.memory import MemoryTraffic, SramCosts, ann_memory, snn_memory
from gascnn.benchmarks.energy.tables import TABLES, CostTable, chosen_tables
from gascnn.benchmarks.energy.work import AnnLayer, AnnWork, work_of_network

__all__ = [
    "TABLES",
    "AnnLayer",
    "AnnWork",
    "Bill",
    "CostTable",
    "MemoryTraffic",
    "SnnEnergy",
    "SramCosts",
    "ann_memory",
    "bill",
    "chosen_tables",
    "ratio_range",
    "snn_memory",
    "work_of_network",
]
