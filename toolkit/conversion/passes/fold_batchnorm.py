"""Batch norm in evaluation mode is one factor and offset a channel: fold it into the layer before it."""

from __future__ import annotations

from dataclasses import replace

import torch

from gascnn.toolkit.conversion.ir import Op, OpGraph


def fold_batchnorm(graph: OpGraph) -> None:
    """Fold each batch norm into a convolution or linear layer that nobody else reads.

    ``gamma (W x + b - mu) / sqrt(var + eps) + beta = (f W) x + (f b + offset)`` with ``f = gamma / sqrt(var + eps)``,
    ``offset = beta - mu f``. Elsewhere it stays a layer of its own: one factor and offset a channel.
    """
    for op in graph:
        if op.kind != "affine":
            continue
        before = graph.ops[op.inputs[0]]
        if before.kind in ("conv", "linear", "affine") and len(graph.users(before.name)) == 1:
            graph.ops[before.name] = folded(before, op)
            graph.note(op, "folded", f"into {before.name}")
            graph.bypass(op)
        else:
            graph.note(op, "converted", "one factor and offset a channel, composed with the layers beside it")


def folded(layer: Op, norm: Op) -> Op:
    """``norm`` after ``layer`` as one layer."""
    assert layer.weight is not None
    assert norm.weight is not None
    assert norm.bias is not None
    factor = norm.weight.view(-1, *(1,) * (layer.weight.ndim - 1))
    bias = torch.zeros_like(norm.bias) if layer.bias is None else layer.bias
    return replace(layer, weight=layer.weight * factor, bias=norm.weight * bias + norm.bias)
