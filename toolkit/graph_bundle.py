"""A spiking network in floating point as a bundle: the NIR graph as JSON and named arrays, no HDF5, no pickles."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from gascnn.toolkit.bundle import Bundle
from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.lowering.annotations import KEY, graph_notes

_NODES: dict[str, type[nir.NIRNode]] = {
    node.__name__: node
    for node in (
        nir.Input,
        nir.Output,
        nir.Conv2d,
        nir.Linear,
        nir.Affine,
        nir.Scale,
        nir.AvgPool2d,
        nir.SumPool2d,
        nir.Flatten,
        nir.IF,
        nir.LIF,
        nir.CubaLIF,
    )
}


def graph_to_bundle(graph: nir.NIRGraph, metrics: dict[str, Any] | None = None) -> Bundle:
    """The graph as a bundle of kind ``snn``; its notes give classes, image shape and provenance.

    Args:
        graph: as converted, with notes.
        metrics: figures to keep with it.

    Raises:
        FormatError: a node that bundles do not hold, or notes without an image shape.
    """
    notes = graph_notes(graph)
    if notes.image_shape is None:
        raise FormatError("the graph's notes lack the image shape; convert it again")
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    nodes = {name: _describe(name, node, tensors) for name, node in graph.nodes.items()}
    return Bundle(
        kind="snn",
        architecture={"nodes": nodes, "edges": [list(edge) for edge in graph.edges], "notes": graph.metadata[KEY]},
        image_shape=notes.image_shape,
        classes=notes.classes,
        tensors=tensors,
        pixel_max=notes.pixel_max,
        framing=notes.framing,
        metrics=metrics or {},
        provenance=notes.provenance,
    )


def graph_from_bundle(bundle: Bundle) -> nir.NIRGraph:
    """The NIR graph of a bundle of kind ``snn``.

    Raises:
        FormatError: a bundle of another kind, or a description that does not fit its arrays.
    """
    if bundle.kind != "snn":
        raise FormatError("this bundle holds an ANN; convert it to spikes first ('gascnn convert')")
    try:
        description = bundle.architecture
        nodes = {name: _restore(name, d, bundle.tensors) for name, d in description["nodes"].items()}
        edges = [(str(a), str(b)) for a, b in description["edges"]]
        return nir.NIRGraph(nodes=nodes, edges=edges, metadata={KEY: description["notes"]}, type_check=False)
    except (KeyError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise FormatError(f"the bundle's graph does not fit its arrays ({error}); convert it again") from error


def _describe(name: str, node: nir.NIRNode, tensors: dict[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
    kind = type(node).__name__
    if kind not in _NODES:
        raise FormatError(f"{name}: a bundle cannot hold NIR node {kind}")
    values: dict[str, Any] = {}
    for field in fields(node):
        if not field.init or field.name == "metadata":
            continue
        value = getattr(node, field.name)
        if field.name in ("input_type", "output_type"):
            values[field.name] = [int(n) for n in np.asarray(next(iter(value.values()))).ravel()]
        else:
            values[field.name] = _pack(f"{name}.{field.name}", value, tensors)
    metadata = {k: _pack(f"{name}.metadata.{k}", v, tensors) for k, v in (node.metadata or {}).items()}
    return {"type": kind, "values": values, "metadata": metadata}


def _pack(key: str, value: Any, tensors: dict[str, npt.NDArray[np.generic]]) -> Any:
    if isinstance(value, np.ndarray) and value.size > 16:
        first = value.ravel()[0]
        if np.all(value == first):  # thresholds of 1 for every neuron need not fill a file
            return {"constant": first.item(), "shape": list(value.shape), "dtype": str(value.dtype)}
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def _restore(name: str, description: dict[str, Any], tensors: dict[str, npt.NDArray[np.generic]]) -> nir.NIRNode:
    kind = _NODES.get(description["type"])
    if kind is None:
        raise FormatError(f"{name}: unknown NIR node {description['type']!r}")
    values = {key: _unpack(value, tensors) for key, value in description["values"].items()}
    for key in ("input_type", "output_type"):
        if key in values:
            values[key] = {key.split("_")[0]: np.array(values[key])}
    node = kind(**values)
    node.metadata = {key: _unpack(value, tensors) for key, value in description["metadata"].items()}
    return node


def _unpack(value: Any, tensors: dict[str, npt.NDArray[np.generic]]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        array = np.array(value["constant" if "constant" in value else "array"], dtype=value["dtype"])
        if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)):
            raise ValueError(f"an array of type {array.dtype} that is not finite numbers")
        return np.broadcast_to(array, value["shape"]) if "constant" in value else array
    return tuple(value) if isinstance(value, list) else value
