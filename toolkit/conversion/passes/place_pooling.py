"""Average pooling is linear: leave it to be folded where that is exact, else give it neurons of its own.

Neurons behind a pooling of values that are not negative compute a ReLU that changes nothing, so the network stays the
same function; it only gets one layer deeper. What cannot be done in either way is refused when the graph is planned.
"""

from __future__ import annotations

import numpy as np

from gascnn.toolkit.conversion.ir import Op, OpGraph
from gascnn.toolkit.lowering.linear import ConvMap, NotExact, compose, pool_map


def place_pooling(graph: OpGraph) -> None:
    """Insert neurons behind poolings that no neighbour can take in exactly."""
    for op in graph:
        if op.kind != "avgpool" or not _not_negative(graph, graph.ops[op.inputs[0]]):
            continue
        reason = _why_not_folded(graph, op)
        if reason:
            neurons = Op(graph.free_name(f"{op.name}_neurons"), "neurons", (op.name,), op.shape, op.origin)
            graph.insert_after(op, neurons)
            graph.note(neurons, "added", f"a layer of its own for the pooling: {reason}")


def _not_negative(graph: OpGraph, op: Op) -> bool:
    if op.kind in ("avgpool", "flatten", "add"):
        return all(_not_negative(graph, graph.ops[i]) for i in op.inputs)
    return op.kind in ("neurons", "input")


def _why_not_folded(graph: OpGraph, pool: Op) -> str:
    for user in graph.users(pool.name):
        if user.kind == "add":
            return f"{user.name} needs the pooled value in a skip"
        if user.kind == "conv":
            reason = _why_not_composed(graph, pool, user)
            if reason:
                return reason
            if any(u.kind == "add" for u in graph.users(user.name)) and pool.stride != (1, 1):
                return f"{user.name} carries the pooled value in a skip"
    return ""


def _why_not_composed(graph: OpGraph, pool: Op, conv: Op) -> str:
    """Compose one channel of both; exactness depends on the geometry alone."""
    before = (1, *graph.ops[pool.inputs[0]].shape[1:])
    first = pool_map(before, pool.kernel, pool.stride, pool.padding, average=True)
    second = ConvMap(
        np.ones((1, 1, *conv.kernel)),
        np.zeros(1),
        conv.stride,
        conv.padding,
        conv.dilation,
        1,
        (1, *pool.shape[1:]),
        (1, *conv.shape[1:]),
    )
    try:
        compose(second, first)
    except NotExact as reason:
        return f"{conv.name}: {reason}"
    return ""
