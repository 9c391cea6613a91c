"""Dropout, identity and what else does nothing in evaluation mode."""

from __future__ import annotations

from gascnn.toolkit.conversion.ir import OpGraph


def drop_identities(graph: OpGraph) -> None:
    """Take out operations that change nothing, and a ReLU of a ReLU."""
    for op in graph:
        if op.kind == "identity":
            graph.note(op, "dropped", "does nothing in evaluation mode (softmax does not change the order of classes)")
            graph.bypass(op)
        elif op.kind == "relu" and graph.ops[op.inputs[0]].kind == "relu":
            graph.note(op, "dropped", "a ReLU of a ReLU")
            graph.bypass(op)
