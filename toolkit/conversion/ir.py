"""The traced network as a short list of operations: what conversion passes rewrite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

Kind = Literal[
    "input", "conv", "linear", "affine", "relu", "add", "avgpool", "flatten", "identity", "neurons", "output"
]
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    Attributes:
        name: unique; the traced node's.
        kind: ``affine`` is a batch norm (one factor and offset a channel); ``neurons`` is where spikes will be made:
            a ReLU, or the read-out.
        inputs: names of the operations it reads.
        shape: of its output, without the batch axis.
        origin: what the user wrote there: module path and type, or function.
        weight, bias: parameters in float64.
        kernel, stride, padding, dilation: (vertical, horizontal).
        groups: of a convolution.
        in_place: whether it overwrites its first input.
        alias: whether its output is its first input's memory, seen otherwise or not.
        readout: of neurons that stand behind a linear last layer, not in the place of a ReLU.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    origin: str = ""
    weight: Tensor | None = None
    bias: Tensor | None = None
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    in_place: bool = False
    alias: bool = False
    readout: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of the conversion report: what became of one node of the user's network."""

    node: str
    origin: str
    outcome: Literal["converted", "folded", "dropped", "added", "refused"]
    detail: str = ""


@dataclass
class OpGraph:
    """Operations in topological order, and the report so far."""

    ops: dict[str, Op]
    report: list[Entry] = field(default_factory=list)

    def __iter__(self) -> Iterator[Op]:
        """Operations as they are when their turn comes: a pass may change those it has not seen yet."""
        for name in list(self.ops):
            if name in self.ops:
                yield self.ops[name]

    @property
    def output(self) -> Op:
        """What the network returns; it has one input and does nothing."""
        return next(op for op in self.ops.values() if op.kind == "output")

    def free_name(self, wanted: str) -> str:
        """``wanted``, or the first of ``wanted_1``, ``wanted_2``, ... that no operation has."""
        names = (wanted if i == 0 else f"{wanted}_{i}" for i in itertools.count())
        return next(name for name in names if name not in self.ops)

    @property
    def multiply_accumulates(self) -> int:
        """Of one image: the products of all convolutions and linear layers."""
        return sum(
            op.weight.numel() * (math.prod(op.shape[1:]) if op.kind == "conv" else 1)
            for op in self
            if op.weight is not None and op.kind in ("conv", "linear")
        )

    def users(self, name: str) -> list[Op]:
        """Operations that read ``name``."""
        return [op for op in self.ops.values() if name in op.inputs]

    def note(self, op: Op, outcome: Literal["converted", "folded", "dropped", "added", "refused"], detail: str) -> None:
        """Add a line to the report."""
        self.report.append(Entry(op.name, op.origin, outcome, detail))

    def bypass(self, op: Op) -> None:
        """Take out an operation that changes nothing; its readers read its input."""
        self.redirect(op.name, op.inputs[0])
        del self.ops[op.name]

    def redirect(self, old: str, new: str) -> None:
        """Let every reader of ``old`` read ``new``."""
        for user in self.users(old):
            self.ops[user.name] = replace(user, inputs=tuple(new if i == old else i for i in user.inputs))

    def insert_after(self, op: Op, new: Op) -> None:
        """Put ``new``, which reads ``op``, between ``op`` and its readers."""
        self.redirect(op.name, new.name)
        ordered: dict[str, Op] = {}
        for name, value in self.ops.items():
            ordered[name] = value
            if name == op.name:
                ordered[new.name] = replace(new, inputs=(op.name,))
        self.ops = ordered


def apply(op: Op, inputs: list[Tensor]) -> Tensor:
    """The operation on tensors with a batch axis, in their own precision."""
    functional = torch.nn.functional
    x = inputs[0]
    weight = None if op.weight is None else op.weight.to(x.dtype)
    bias = None if op.bias is None else op.bias.to(x.dtype)
    if op.kind == "conv":
        assert weight is not None
        return functional.conv2d(x, weight, bias, op.stride, op.padding, op.dilation, op.groups)
    if op.kind == "linear":
        assert weight is not None
        return functional.linear(x, weight, bias)
    if op.kind == "affine":
        assert weight is not None
        assert bias is not None
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return x * weight.view(shape) + bias.view(shape)
    if op.kind == "avgpool":
        pooled = functional.avg_pool2d(x, op.kernel, op.stride, op.padding)
        return pooled.flatten(1) if len(op.shape) == 1 else pooled
    if op.kind == "flatten":
        return x.flatten(1)
    if op.kind == "add":
        return inputs[0] + inputs[1]
    if op.kind == "relu":
        return functional.relu(x)
    return x


def evaluate(graph: OpGraph, images: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    """Run the operations as the ANN they describe.

    Args:
        graph: the operations; ``neurons`` behave as the ReLU in whose place they stand.
        images: (image, C, H, W).
        wanted: names of operations whose outputs are returned.
    """
    values: dict[str, Tensor] = {}
    remaining = {op.name: len(graph.users(op.name)) for op in graph}
    found: dict[str, Tensor] = {}
    for op in graph:
        if op.kind == "input":
            values[op.name] = images
        else:
            values[op.name] = apply(op, [values[i] for i in op.inputs])
            if op.kind == "neurons" and not op.readout:
                values[op.name] = torch.relu(values[op.name])
        if op.name in wanted:
            found[op.name] = values[op.name]
        for name in set(op.inputs):  # x + x reads x once
            remaining[name] -= 1
            if remaining[name] == 0:
                del values[name]
    return found
