"""Decide where spikes are made: at every ReLU, and at the read-out."""

from __future__ import annotations

from dataclasses import replace

from gascnn.toolkit.conversion.ir import Op, OpGraph


def mark_neurons(graph: OpGraph) -> None:
    """Turn every ReLU into neurons, and put neurons behind the last layer if it is linear."""
    for op in graph:
        if op.kind == "relu":
            graph.ops[op.name] = replace(op, kind="neurons")
            graph.note(op, "converted", "integrate-and-fire neurons")
        elif op.kind in ("conv", "linear", "add", "avgpool", "flatten"):
            graph.note(op, "converted", _DETAIL[op.kind])
    last = graph.ops[graph.output.inputs[0]]
    if last.kind != "neurons":
        readout = Op(graph.free_name("readout"), "neurons", (last.name,), last.shape, "read-out", readout=True)
        graph.insert_after(last, readout)
        graph.note(readout, "added", "neurons behind the last layer; the class is the one that spikes most")


_DETAIL = {
    "conv": "synapses",
    "linear": "synapses",
    "add": "two synaptic inputs of one population",
    "avgpool": "linear; folded into the neighbouring synapses where that is exact",
    "flatten": "order of channels, rows, columns kept",
}
