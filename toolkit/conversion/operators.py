"""Every spelling of every supported operation, as handlers from a traced node to an :class:`Op`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from gascnn.toolkit.conversion.ir import Op, Pair


class Refused(Exception):  # noqa: N818 - collected into one ConversionError
    """An operation that cannot be converted; the message gives reason and remedy."""


class Context:
    """What handlers may ask about a node."""

    def __init__(self, traced: GraphModule) -> None:
        self._modules = dict(traced.named_modules())

    def module(self, node: Node) -> nn.Module:
        """The module a node calls."""
        return cast(nn.Module, self._modules[str(node.target)])

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of the node's output without the batch axis; () for what is not a tensor."""
        return tuple(int(n) for n in node.meta.get("shape", ())[1:])

    def origin(self, node: Node) -> str:
        """What the user wrote."""
        if node.op == "call_module":
            return f"{node.target}: {type(self.module(node)).__name__}"
        if node.op == "call_function":
            return getattr(node.target, "__name__", str(node.target))
        return f"Tensor.{node.target}" if node.op == "call_method" else str(node.target)

    def hint(self, node: Node) -> str:
        """A remedy for well-known operations that have no spiking form."""
        called = type(self.module(node)).__name__ if node.op == "call_module" else self.origin(node)
        name = called.lower()
        for key, remedy in _REMEDIES.items():
            if key in name:
                return f"; {remedy}"
        return ""


_REMEDIES = {
    "maxpool": "replace max pooling by average pooling (before the ReLU it costs no layer) and train again",
    "max_pool": "replace max pooling by average pooling (before the ReLU it costs no layer) and train again",
    "sigmoid": "replace it by ReLU and train again; at the output leave it out",
    "silu": "replace it by ReLU and train again",
    "gelu": "replace it by ReLU and train again",
    "tanh": "replace it by ReLU and train again",
    "relu6": "replace it by ReLU and train again",
    "leaky": "replace it by ReLU and train again",
    "cat": "concatenation has no NetX form; add instead",
    "mul": "spikes cannot be multiplied; attention and gating have no NetX form",
    "layernorm": "use batch norm, which folds into the weights",
    "groupnorm": "use batch norm, which folds into the weights",
}

Handler = Callable[[Node, Context], Op | None]


def _argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def _source(node: Node, index: int = 0, name: str = "input") -> str:
    value = _argument(node, index, name)
    if not isinstance(value, Node):
        raise Refused(f"its argument {name} is {value!r}, not a tensor of the network")
    return value.name


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _f64(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().to(torch.float64)


def _conv(node: Node, context: Context) -> Op:
    conv = context.module(node)
    assert isinstance(conv, nn.Conv2d)
    if conv.padding_mode != "zeros" and conv.padding not in (0, (0, 0)):
        raise Refused(f"padding_mode {conv.padding_mode!r}; NetX pads with zeros; train with padding_mode='zeros'")
    dilation, kernel = _pair(conv.dilation), _pair(conv.kernel_size)
    if isinstance(conv.padding, str):
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if conv.padding == "same" and any(s % 2 for s in spans):
            raise Refused("padding 'same' with an even kernel is not symmetric; use an odd kernel")
        padding = (spans[0] // 2, spans[1] // 2) if conv.padding == "same" else (0, 0)
    else:
        padding = _pair(conv.padding)
    return Op(
        node.name,
        "conv",
        (_source(node),),
        context.shape(node),
        context.origin(node),
        weight=_f64(conv.weight),
        bias=_f64(conv.bias),
        kernel=kernel,
        stride=_pair(conv.stride),
        padding=padding,
        dilation=dilation,
        groups=conv.groups,
    )


def _linear(node: Node, context: Context) -> Op:
    linear = context.module(node)
    assert isinstance(linear, nn.Linear)
    if len(context.shape(node)) != 1:
        raise Refused(f"a linear layer on the last axis of {context.shape(node)}; flatten to (image, features) first")
    weight, bias = _f64(linear.weight), _f64(linear.bias)
    return Op(
        node.name, "linear", (_source(node),), context.shape(node), context.origin(node), weight=weight, bias=bias
    )


def _batch_norm(node: Node, context: Context) -> Op:
    norm = context.module(node)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    if norm.training:
        raise Refused("it stays in training mode and depends on the batch; let model.eval() reach it")
    if norm.running_mean is None or norm.running_var is None:
        raise Refused("batch norm without running statistics depends on the batch; train with track_running_stats")
    mean, variance = norm.running_mean.to(torch.float64), norm.running_var.to(torch.float64)
    factor = 1.0 / torch.sqrt(variance + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight.detach().to(torch.float64)
    offset = -mean * factor
    if norm.bias is not None:
        offset = offset + norm.bias.detach().to(torch.float64)
    return Op(
        node.name, "affine", (_source(node),), context.shape(node), context.origin(node), weight=factor, bias=offset
    )


def _relu_module(node: Node, context: Context) -> Op:
    module = context.module(node)
    return _relu(node, context, bool(getattr(module, "inplace", False)))


def _relu(node: Node, context: Context, in_place: bool) -> Op:
    return Op(node.name, "relu", (_source(node),), context.shape(node), context.origin(node), in_place=in_place)


def _relu_function(node: Node, context: Context) -> Op:
    return _relu(node, context, bool(_argument(node, 1, "inplace", False)))


def _relu_in_place(node: Node, context: Context) -> Op:
    return _relu(node, context, True)


def _relu_method(node: Node, context: Context) -> Op:
    return _relu(node, context, False)


def _add(node: Node, context: Context) -> Op:
    return _sum(node, context, in_place=False)


def _add_in_place(node: Node, context: Context) -> Op:
    return _sum(node, context, in_place=True)


def _sum(node: Node, context: Context, *, in_place: bool) -> Op:
    if float(_argument(node, 2, "alpha", node.kwargs.get("alpha", 1))) != 1.0:
        raise Refused("an addition with alpha other than 1; scale the weights of one side instead")
    left, right = _source(node), _source(node, 1, "other")
    shapes = [context.shape(n) for n in node.all_input_nodes]
    if any(s != context.shape(node) for s in shapes):
        raise Refused(f"an addition that broadcasts {shapes}; both sides must have one shape")
    return Op(node.name, "add", (left, right), context.shape(node), context.origin(node), in_place=in_place)


def _identity(node: Node, context: Context) -> Op:
    return Op(node.name, "identity", (_source(node),), context.shape(node), context.origin(node), alias=True)


def _copy(node: Node, context: Context) -> Op:
    return replace(_identity(node, context), alias=False)


def _dropout_module(node: Node, context: Context) -> Op:
    if context.module(node).training:
        raise Refused("it stays in training mode; let model.eval() reach it")
    return _identity(node, context)


def _dropout(node: Node, context: Context) -> Op:
    """``torch.dropout`` must be told; ``F.dropout`` drops unless it is told not to."""
    if _argument(node, 2, "train" if node.target is torch.dropout else "training", True):
        raise Refused("dropout that is always on; give it training=self.training")
    return _identity(node, context)


def _pool(
    node: Node,
    context: Context,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: Any,
    count: Any,
    divisor: Any,
) -> Op:
    kernel = _pair(kernel)
    padding = _pair(padding)
    if ceil:
        raise Refused("average pooling with ceil_mode; its border windows are uneven; use ceil_mode=False")
    if divisor is not None:
        raise Refused("average pooling with divisor_override; leave it out")
    if not count and padding != (0, 0):
        raise Refused("average pooling that does not count its padding is uneven at the border; use padding=0")
    stride = kernel if stride is None or stride == [] else _pair(stride)
    return Op(
        node.name,
        "avgpool",
        (_source(node),),
        context.shape(node),
        context.origin(node),
        kernel=kernel,
        stride=stride,
        padding=padding,
    )


def _pool_module(node: Node, context: Context) -> Op:
    p = context.module(node)
    assert isinstance(p, nn.AvgPool2d)
    return _pool(
        node, context, p.kernel_size, p.stride, p.padding, p.ceil_mode, p.count_include_pad, p.divisor_override
    )


def _pool_function(node: Node, context: Context) -> Op:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    defaults = (None, None, 0, False, True, None)
    values = [_argument(node, 1 + i, n, d) for i, (n, d) in enumerate(zip(names, defaults, strict=True))]
    return _pool(node, context, *values)


def _adaptive_module(node: Node, context: Context) -> Op:
    return _adaptive(node, context)


def _adaptive(node: Node, context: Context) -> Op:
    source = node.all_input_nodes[0]
    before, after = context.shape(source), context.shape(node)
    sizes = list(zip(before[1:], after[1:], strict=True))
    if any(b % a for b, a in sizes):
        raise Refused(f"adaptive pooling of {before[1:]} to {after[1:]} has uneven windows; use sizes that divide")
    kernel = (sizes[0][0] // sizes[0][1], sizes[1][0] // sizes[1][1])
    return Op(
        node.name, "avgpool", (source.name,), after, context.origin(node), kernel=kernel, stride=kernel, padding=(0, 0)
    )


def _flatten_module(node: Node, context: Context) -> Op:
    return _flatten(node, context)


def _flatten(node: Node, context: Context) -> Op:
    """``torch.flatten``, ``view`` and ``reshape``: accepted where they give (image, everything else)."""
    source = node.all_input_nodes[0]
    size = 1
    for n in context.shape(source):
        size *= n
    if context.shape(node) == context.shape(source):
        return Op(node.name, "identity", (source.name,), context.shape(node), context.origin(node), alias=True)
    if context.shape(node) != (size,):
        raise Refused(
            f"reshaping {context.shape(source)} to {context.shape(node)}; only flattening to (image, {size}) is known"
        )
    return Op(node.name, "flatten", (source.name,), (size,), context.origin(node), alias=True)


def _mean(node: Node, context: Context) -> Op:
    """The mean over both image axes is global average pooling."""
    source = node.all_input_nodes[0]
    before = context.shape(source)
    axes = _argument(node, 1, "dim")
    axes = tuple(sorted(a % 4 for a in ([axes] if isinstance(axes, int) else list(axes or ()))))
    if len(before) != 3 or axes != (2, 3):
        raise Refused("a mean over other axes than the image's; use global average pooling")
    kernel = (before[1], before[2])
    # Without keepdim the result is already flat; (C, 1, 1) and (C,) hold the same numbers in the same order.
    return Op(
        node.name, "avgpool", (source.name,), context.shape(node), context.origin(node), kernel=kernel, stride=kernel
    )


def _bookkeeping(node: Node, context: Context) -> None:
    """``x.size(0)``, ``x.shape`` and arithmetic on them: their effect shows in the traced shapes."""
    if context.shape(node):
        raise Refused("arithmetic on a tensor; only additions of two tensors are supported" + context.hint(node))


def _softmax(node: Node, context: Context) -> Op:
    users = list(node.users)
    if len(users) != 1 or users[0].op != "output":
        raise Refused("softmax inside the network; it has no spiking form; keep it at the output only")
    return _identity(node, context)


MODULES: dict[type, Handler] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _relu_module,
    nn.AvgPool2d: _pool_module,
    nn.AdaptiveAvgPool2d: _adaptive_module,
    nn.Flatten: _flatten_module,
    nn.Dropout: _dropout_module,
    nn.Dropout1d: _dropout_module,
    nn.Dropout2d: _dropout_module,
    nn.AlphaDropout: _dropout_module,
    nn.FeatureAlphaDropout: _dropout_module,
    nn.Identity: _identity,
    nn.Softmax: _softmax,
    nn.LogSoftmax: _softmax,
}

FUNCTIONS: dict[Any, Handler] = {
    F.relu: _relu_function,
    torch.relu: _relu_method,
    torch.relu_: _relu_in_place,
    F.relu_: _relu_in_place,
    operator.add: _add,
    operator.iadd: _add_in_place,
    torch.add: _add,
    F.avg_pool2d: _pool_function,
    torch._C._nn.avg_pool2d: _pool_function,
    F.adaptive_avg_pool2d: _adaptive,
    torch.flatten: _flatten,
    torch.reshape: _flatten,
    torch.mean: _mean,
    F.dropout: _dropout,
    F.dropout2d: _dropout,
    torch.dropout: _dropout,
    F.softmax: _softmax,
    F.log_softmax: _softmax,
    torch.softmax: _softmax,
    torch.log_softmax: _softmax,
    operator.getitem: _bookkeeping,
    operator.mul: _bookkeeping,
    operator.floordiv: _bookkeeping,
    getattr: _bookkeeping,
}

METHODS: dict[str, Handler] = {
    "relu": _relu_method,
    "relu_": _relu_in_place,
    "add": _add,
    "add_": _add_in_place,
    "flatten": _flatten,
    "view": _flatten,
    "reshape": _flatten,
    "mean": _mean,
    "contiguous": _identity,
    "clone": _copy,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "size": _bookkeeping,
    "numel": _bookkeeping,
}
