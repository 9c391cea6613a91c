"""From a traced network's operations to ONNX nodes in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from torch import Tensor, nn

from gascnn.exporters.onnx.graph import GraphBuilder
from gascnn.toolkit.conversion.ir import Op, OpGraph
from gascnn.toolkit.conversion.passes.drop_identities import drop_identities
from gascnn.toolkit.conversion.passes.drop_unused import drop_unused
from gascnn.toolkit.conversion.passes.fold_batchnorm import fold_batchnorm
from gascnn.toolkit.conversion.passes.order_in_place import order_in_place
from gascnn.toolkit.conversion.trace import trace
from gascnn.toolkit.errors import ConversionError

IMAGES, INTENSITIES, LOGITS = "images", "intensities", "logits"
"""Names of a classifier's input, of what its first layer reads, and of its output."""


def operations(model: nn.Module, image_shape: tuple[int, int, int]) -> OpGraph:
    """What ``model`` computes, batch norms folded into the layers before them.

    Raises:
        ConversionError: the model cannot be traced, holds an operation that is not known, or ends in a softmax.
    """
    graph = trace(model, image_shape)
    # Conversion to spikes may drop a softmax, which keeps the order of classes; here the values count.
    softmax = [op for op in graph if op.kind == "identity" and "softmax" in op.origin.lower()]
    if softmax:
        raise ConversionError(f"the network ends in a softmax ({softmax[0].origin}); leave it out and export logits")
    for rewrite in (order_in_place, drop_unused, drop_identities, fold_batchnorm):
        rewrite(graph)
    return graph


def intensities(graph: GraphBuilder, images: str, pixel_max: int) -> str:
    """``pixel / pixel_max``: a division, as in training, not a multiplication by a rounded reciprocal."""
    pixels = graph.add("Cast", images, name="pixels", to=TensorProto.FLOAT)
    return graph.add("Div", pixels, graph.constant("pixel_max", np.float32(pixel_max)), name=INTENSITIES)


def parameters(graph: GraphBuilder, op: Op) -> tuple[str, ...]:
    """Names of an operation's weight and bias; none where it has none."""
    values = (("weight", op.weight), ("bias", op.bias))
    return tuple(graph.constant(f"{op.name}.{what}", float32(op, v)) for what, v in values if v is not None)


def float32(op: Op, value: Tensor) -> npt.NDArray[np.float32]:
    """A parameter rounded from float64; of a batch norm that stands alone, shaped to go with (n, C, H, W)."""
    values = value.numpy().astype(np.float32)
    return values.reshape(-1, *(1,) * (len(op.shape) - 1)) if op.kind == "affine" else values


def classifier(operations: OpGraph, pixel_max: int) -> GraphBuilder:
    """The graph from uint8 images (batch, C, H, W) to float32 logits (batch, classes).

    Args:
        operations: of :func:`operations`.
        pixel_max: the pixel value that means intensity 1.
    """
    graph = GraphBuilder("classifier")
    names: dict[str, str] = {}
    for op in operations:
        if op.kind == "input":
            names[op.name] = intensities(graph, graph.input(IMAGES, "uint8", op.shape), pixel_max)
        elif op.kind == "output":
            graph.output(names[op.inputs[0]], LOGITS, "float32", op.shape)
        else:
            names[op.name] = _compute(graph, op, [names[i] for i in op.inputs], parameters(graph, op))
    return graph


def _compute(graph: GraphBuilder, op: Op, inputs: list[str], parameters: tuple[str, ...]) -> str:
    name = op.name
    if op.kind == "conv":
        return graph.add(
            "Conv",
            *inputs,
            *parameters,
            name=name,
            kernel_shape=op.kernel,
            strides=op.stride,
            pads=op.padding * 2,
            dilations=op.dilation,
            group=op.groups,
        )
    if op.kind == "linear":
        return graph.add("Gemm", *inputs, *parameters, name=name, transB=1)
    if op.kind == "affine":
        return graph.add(
            "Add", graph.add("Mul", *inputs, parameters[0], name=f"{name}.scaled"), parameters[1], name=name
        )
    if op.kind == "avgpool":
        return _pool(graph, op, inputs[0])
    operators = {"relu": "Relu", "add": "Add", "flatten": "Flatten"}
    return graph.add(operators[op.kind], *inputs, name=name)


def _pool(graph: GraphBuilder, op: Op, source: str) -> str:
    flat = len(op.shape) == 1
    pooled = graph.add(
        "AveragePool",
        source,
        name=f"{op.name}.pooled" if flat else op.name,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.padding * 2,
        count_include_pad=1,
    )
    return graph.add("Flatten", pooled, name=op.name) if flat else pooled
