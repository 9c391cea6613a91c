"""Operations that overwrite their input: whoever reads that memory later sees the result."""

from __future__ import annotations

from dataclasses import replace

from gascnn.toolkit.conversion.ir import Op, OpGraph
from gascnn.toolkit.errors import ConversionError


def order_in_place(graph: OpGraph) -> None:
    """Let later readers of overwritten memory read the operation that overwrote it.

    ``y = F.relu(x, inplace=True); return y + x`` adds the rectified tensor twice; a trace alone would not show it.
    What only looks at ``x`` (dropout in evaluation mode, identity, flatten) shares its memory.

    Raises:
        ConversionError: the memory is read later in another shape than it was overwritten in.
    """
    memory: dict[str, str] = {}
    for name in list(graph.ops):
        op = graph.ops[name]
        shares = op.alias or op.in_place
        memory[name] = memory[op.inputs[0]] if shares else name
        if op.in_place:
            stale = {other for other, place in memory.items() if place == memory[name]} - {name}
            _redirect_later(graph, op, stale)


def _redirect_later(graph: OpGraph, op: Op, stale: set[str]) -> None:
    names = list(graph.ops)
    for later in names[names.index(op.name) + 1 :]:
        reader = graph.ops[later]
        for source in stale.intersection(reader.inputs):
            if graph.ops[source].shape != op.shape:
                raise ConversionError(
                    f"{op.name} ({op.origin}) overwrites {source} in place, which {later} then reads in another shape; "
                    "leave out inplace=True there"
                )
        graph.ops[later] = replace(reader, inputs=tuple(op.name if i in stale else i for i in reader.inputs))
