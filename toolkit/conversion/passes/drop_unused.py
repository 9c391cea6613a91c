"""What the output does not depend on."""

from __future__ import annotations

from gascnn.toolkit.conversion.ir import OpGraph
from gascnn.toolkit.errors import ConversionError


def drop_unused(graph: OpGraph) -> None:
    """Take out operations whose result nobody reads.

    Raises:
        ConversionError: the output does not depend on the images.
    """
    alive = {graph.output.name}
    for op in reversed(list(graph)):
        if op.name in alive:
            alive.update(op.inputs)
    for op in graph:
        if op.name not in alive and op.kind == "input":
            raise ConversionError(f"the network's output does not depend on its images ({op.name} is not used)")
        if op.name not in alive:
            graph.note(op, "dropped", "its result is not used")
            del graph.ops[op.name]
