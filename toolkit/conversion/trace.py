"""Trace a PyTorch model with ``torch.fx`` into operations; what is not known is refused by name, never skipped."""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.fx.passes.shape_prop import ShapeProp

from gascnn.toolkit.conversion.ir import Entry, Op, OpGraph
from gascnn.toolkit.conversion.operators import FUNCTIONS, METHODS, MODULES, Context, Refused
from gascnn.toolkit.errors import ConversionError


def trace(model: nn.Module, image_shape: tuple[int, int, int]) -> OpGraph:
    """Trace ``model`` in evaluation mode.

    Args:
        model: a feed-forward network from (image, C, H, W) to (image, class).
        image_shape: (C, H, W).

    Returns:
        Its operations in topological order.

    Raises:
        ConversionError: the model cannot be traced (its flow depends on values), does not take such images, or holds
            operations that cannot be converted; all of those are named, each with a remedy.
    """
    model = model.eval()
    try:
        traced = symbolic_trace(model)
    except Exception as error:
        raise ConversionError(
            f"{type(model).__name__} cannot be traced ({_first_line(error)}); its forward must not branch on values"
        ) from error
    example = torch.zeros(2, *image_shape)
    try:
        with torch.no_grad():
            ShapeProp(traced).propagate(example)
    except Exception as error:
        raise ConversionError(
            f"{type(model).__name__} does not take images of {image_shape}: {_first_line(error)}"
        ) from error
    graph = _operations(traced, model)
    _check_single_flow(graph, model)
    return graph


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


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
            graph.ops["output"] = Op("output", "output", (source.name,), graph.ops[source.name].shape, "output")
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


def _check_single_flow(graph: OpGraph, model: nn.Module) -> None:
    inputs = [op for op in graph if op.kind == "input"]
    if len(inputs) != 1:
        raise ConversionError(f"{type(model).__name__} takes {len(inputs)} inputs; exactly one (images) is supported")
    output = graph.ops["output"]
    if len(output.shape) != 1:
        raise ConversionError(
            f"{type(model).__name__} returns shape {output.shape} an image; a classifier returns (class,)"
        )
    alive = {"output"}
    for op in reversed(list(graph)):
        if op.name in alive:
            alive.update(op.inputs)
    for op in list(graph):
        if op.name not in alive:
            graph.note(op, "dropped", "its result is not used")
            del graph.ops[op.name]
