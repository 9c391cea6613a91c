"""The ANN's work by torch's own counter, beside the stricter count that is billed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gascnn.benchmarks.ann_macs import ann_macs
from gascnn.benchmarks.counts import conv_fan_out
from gascnn.benchmarks.energy.work import AnnLayer, AnnWork
from gascnn.toolkit.conversion.ir import Op, OpGraph
from gascnn.toolkit.conversion.trace import trace


def ann_framework_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image as torch's ``FlopCounterMode`` counts them: half of its operations.

    It counts what convolutions and matrix products are asked for, the zeros of the padding included: at 8x8 a 3x3
    kernel with padding 1 has 9 taps at each of 64 places by this count, and 484 of these 576 inside the image, which
    :func:`gascnn.benchmarks.ann_macs.ann_macs` counts. Products of poolings, batch norms and skips are in neither.

    Args:
        model: any classifier; it runs once, in evaluation mode, and stays as it was.
        image_shape: (C, H, W).
    """
    modes = {name: module.training for name, module in model.named_modules()}
    like = next(model.parameters(), torch.zeros(()))
    image = torch.zeros((1, *image_shape), dtype=like.dtype, device=like.device)
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        with torch.no_grad(), counter:
            model(image)
    finally:
        for name, module in model.named_modules():
            module.training = modes[name]
    return int(counter.get_total_flops()) // 2


def ann_work(model: nn.Module, image_shape: tuple[int, int, int]) -> AnnWork:
    """What cost tables ask of an ANN: both counts, and its layers.

    Args:
        model: as for :func:`gascnn.toolkit.conversion.convert`.
        image_shape: (C, H, W).

    Raises:
        ConversionError: operations that tracing does not know.
    """
    graph = trace(model, image_shape)
    layers = tuple(_layer(graph, op) for op in graph if op.weight is not None and op.kind in ("conv", "linear"))
    return AnnWork(ann_macs(model, image_shape), ann_framework_macs(model, image_shape), layers)


def _layer(graph: OpGraph, op: Op) -> AnnLayer:
    assert op.weight is not None
    before = graph.ops[op.inputs[0]].shape
    macs = op.weight.numel()
    if op.kind == "conv":
        taps = np.ones(tuple(op.weight.shape), dtype=bool)
        macs = int(conv_fan_out(taps, before, op.shape, op.stride, op.padding, op.dilation, op.groups).sum())
    # A batch norm behind it folds into weights and biases.
    biased = op.bias is not None or any(user.kind == "affine" for user in graph.users(op.name))
    return AnnLayer(
        kind="conv" if op.kind == "conv" else "dense",
        macs=macs,
        inputs=math.prod(before),
        outputs=math.prod(op.shape),
        weights=op.weight.numel(),
        biases=op.shape[0] if biased else 0,
    )
