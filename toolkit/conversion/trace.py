"""Trace a PyTorch model with ``torch.fx`` into operations; what is not known is refused by name, never skipped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node, symbolic_trace

from gascnn.toolkit.conversion.ir import Entry, Op, OpGraph
from gascnn.toolkit.conversion.operators import FUNCTIONS, METHODS, MODULES, Context, Refused
from gascnn.toolkit.errors import ConversionError, first_line


def trace(model: nn.Module, image_shape: tuple[int, int, int]) -> OpGraph:
    """Trace ``model`` in evaluation mode.

    Args:
        model: a feed-forward network from (image, C, H, W) to (image, class).
        image_shape: (C, H, W).

    Returns:
        Its operations in topological order, unused ones included.

    Raises:
        ConversionError: the model cannot be traced (its flow depends on values), does not take such images, or holds
            operations that cannot be converted; all of those are named, each with a remedy.
    """
    model = model.eval()
    try:
        traced = symbolic_trace(model)
    except Exception as error:
        raise ConversionError(
            f"{type(model).__name__} cannot be traced ({first_line(error)}); its forward must not branch on values"
        ) from error
    inputs = sum(node.op == "placeholder" for node in traced.graph.nodes)
    if inputs != 1:
        raise ConversionError(f"{type(model).__name__} takes {inputs} inputs; exactly one (images) is supported")
    shapes = _Shapes(traced)
    try:
        with torch.no_grad():
            shapes.run(torch.zeros(2, *image_shape))
    except Exception as error:
        raise ConversionError(
            f"{type(model).__name__} does not take images of {image_shape}: {shapes.at}: {first_line(error)}"
        ) from error
    graph = _operations(traced, model)
    if len(graph.output.shape) != 1:
        raise ConversionError(
            f"{type(model).__name__} returns shape {graph.output.shape} an image; a classifier returns (class,)"
        )
    return graph


class _Shapes(Interpreter):
    """Runs the traced model once and notes the shape of every node's output.

    Attributes:
        at: name of the node that is running.
    """

    at = ""

    def run_node(self, n: Node) -> Any:
        self.at = n.name
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


def _operations(traced: GraphModule, model: nn.Module) -> OpGraph:
    graph = OpGraph({})
    context = Context(traced)
    refused: list[Entry] = []
    for node in traced.graph.nodes:
        if node.op == "output":
            source = node.args[0]
            if not isinstance(source, Node):
                raise ConversionError(
                    f"{type(model).__name__} returns {type(source).__name__}; it must return one tensor"
                )
            if source.name not in graph.ops:
                raise ConversionError(f"{type(model).__name__} returns a number; it must return one tensor")
            graph.ops[node.name] = Op(node.name, "output", (source.name,), graph.ops[source.name].shape, "output")
            continue
        try:
            op = _operation(node, context)
        except Refused as reason:
            refused.append(Entry(node.name, context.origin(node), "refused", str(reason)))
            op = Op(node.name, "identity", tuple(n.name for n in node.all_input_nodes[:1]), context.shape(node))
        if op is not None:
            graph.ops[op.name] = op
    if refused:
        graph.report.extend(refused)
        lines = "; ".join(f"{e.node} ({e.origin}): {e.detail}" for e in refused)
        error = ConversionError(f"{len(refused)} operation(s) cannot be converted: {lines}")
        error.report = graph.report  # type: ignore[attr-defined]
        raise error
    return graph


def _operation(node: Node, context: Context) -> Op | None:
    """The operation of one traced node, or None for bookkeeping of shapes."""
    if node.op == "placeholder":
        return Op(node.name, "input", (), context.shape(node), "input")
    if node.op == "call_module":
        handler = MODULES.get(type(context.module(node)))
    elif node.op == "call_function":
        handler = FUNCTIONS.get(node.target)
    elif node.op == "call_method":
        handler = METHODS.get(str(node.target))
    else:
        raise Refused("a tensor stored in the model enters the computation; make it a layer's weight or bias")
    if handler is None:
        raise Refused(
            "not supported; supported are conv2d, linear, batch norm, ReLU, add, (adaptive) average pooling, flatten, "
            "dropout, identity" + context.hint(node)
        )
    return handler(node, context)
