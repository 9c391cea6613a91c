"""Operations that overwrite their input: whoever reads that input later sees the result."""

from __future__ import annotations

from dataclasses import replace

from gascnn.toolkit.conversion.ir import OpGraph


def order_in_place(graph: OpGraph) -> None:
    """Let later readers of an overwritten tensor read the operation that overwrote it.

    ``y = F.relu(x, inplace=True); return y + x`` adds the rectified tensor twice; a trace alone would not show it.
    """
    names = list(graph.ops)
    for position, name in enumerate(names):
        op = graph.ops[name]
        if not op.in_place:
            continue
        for later in names[position + 1 :]:
            reader = graph.ops[later]
            if op.inputs[0] in reader.inputs:
                inputs = tuple(name if i == op.inputs[0] else i for i in reader.inputs)
                graph.ops[later] = replace(reader, inputs=inputs)
