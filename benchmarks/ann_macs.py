"""The multiply-accumulates of the ANN that a spiking network is compared with."""

from __future__ import annotations

import numpy as np
from torch import nn

from gascnn.benchmarks.counts import conv_fan_out
from gascnn.toolkit.conversion.trace import trace


def ann_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Products with weights that a classifier needs for one image, zeros of the padding left out.

    Convolutions and linear layers count; batch norms fold into them, and what only adds (poolings, skips) is not
    counted. Leaving out the padding, which most counters include, is the stricter measure: a spiking network's
    synapses end at the border too.

    Args:
        model: as for :func:`gascnn.toolkit.conversion.convert`.
        image_shape: (C, H, W).

    Raises:
        ConversionError: operations that tracing does not know.
    """
    graph = trace(model, image_shape)
    total = 0
    for op in graph:
        if op.weight is None or op.kind not in ("conv", "linear"):
            continue
        if op.kind == "linear":
            total += op.weight.numel()
            continue
        taps = np.ones(tuple(op.weight.shape), dtype=bool)
        before = graph.ops[op.inputs[0]].shape
        total += int(conv_fan_out(taps, before, op.shape, op.stride, op.padding, op.dilation, op.groups).sum())
    return total
