"""NIR files: the float interchange with other spiking frameworks. Written, read back and compared."""

from __future__ import annotations

import io
import os
from pathlib import Path

import nir
import numpy as np

from gascnn.toolkit.errors import FormatError, first_line
from gascnn.toolkit.files import atomic_path
from gascnn.toolkit.lowering.graph import topological_order


def write_nir(graph: nir.NIRGraph, path: str | os.PathLike[str]) -> None:
    """Write ``graph`` to ``path``, atomically, and check that reading it gives the same graph.

    Raises:
        DataError: the disk is full or the place cannot be written.
        FormatError: the ``nir`` package cannot write the graph, or did not preserve it.
    """
    buffer = io.BytesIO()
    try:
        nir.write(buffer, graph)
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: the nir package cannot write this graph ({first_line(error)})") from error
    difference = first_difference(graph, nir.read(io.BytesIO(buffer.getvalue()), type_check=False))
    if difference:
        raise FormatError(f"{path}: NIR did not keep the graph: {difference}; nothing was written")
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_nir(path: str | os.PathLike[str]) -> nir.NIRGraph:
    """Read a NIR file.

    Raises:
        FormatError: not there, not a NIR file, or a graph that is not consistent.
    """
    source = Path(path)
    if not source.is_file():
        raise FormatError(f"{source}: no such file; give the path of a NIR file (.nir)")
    try:
        # Shapes are inferred anew by the reader of the graph: nir's own check fails on grouped convolutions.
        graph = nir.read(source, type_check=False)
    except Exception as error:
        if "type_check" in str(error):  # what nir passes on, only graphs take
            raise FormatError(f"{source}: holds a single node, not a graph") from error
        raise FormatError(f"{source}: not a readable NIR file ({first_line(error)})") from error
    if not isinstance(graph, nir.NIRGraph):
        raise FormatError(f"{source}: holds a single {type(graph).__name__} node, not a graph")
    topological_order(graph)
    for name, node in graph.nodes.items():
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.all(np.isfinite(value)):
                raise FormatError(f"{source}: {name}.{field} holds NaN or infinity")
    return graph


def first_difference(left: nir.NIRGraph, right: nir.NIRGraph) -> str:
    """What differs between two graphs, in words; empty if nothing does."""
    if set(left.nodes) != set(right.nodes):
        return f"nodes {sorted(set(left.nodes) ^ set(right.nodes))[0]}"
    if sorted(map(tuple, left.edges)) != sorted(map(tuple, right.edges)):
        return "edges"
    for name, node in left.nodes.items():
        other = right.nodes[name]
        if type(node) is not type(other):
            return f"{name} is {type(other).__name__}, was {type(node).__name__}"
        for field, value in vars(node).items():
            if field in ("input_type", "output_type"):
                continue
            if not _same(value, getattr(other, field)):
                return f"{name}.{field}"
    return "" if _same(left.metadata, right.metadata) else "metadata"


def _same(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, str) or isinstance(right, str):
        return str(left) == str(right)
    return np.array_equal(np.asarray(left), np.asarray(right))
