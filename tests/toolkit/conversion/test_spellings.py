"""Every spelling of every supported operation, traced and equal to what torch computes; the others, by name."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gascnn.toolkit.conversion.ir import evaluate
from gascnn.toolkit.errors import ConversionError

SHAPE = (2, 8, 8)


def conv(inputs=2, outputs=4, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": "same", **options})


def head(features=256):
    return nn.Linear(features, 3)


# --- one operation between a convolution and a classifier ------------------------------------------------------------

RELUS = {
    "module": lambda s, x: s.relu(x),
    "module in place": lambda s, x: s.relu_in_place(x),
    "F.relu": lambda s, x: F.relu(x),
    "F.relu in place": lambda s, x: F.relu(x, inplace=True),
    "F.relu in place by position": lambda s, x: F.relu(x, True),
    "F.relu_": lambda s, x: F.relu_(x),
    "torch.relu": lambda s, x: torch.relu(x),
    "torch.relu_": lambda s, x: torch.relu_(x),
    "method": lambda s, x: x.relu(),
    "method in place": lambda s, x: x.relu_(),
    "by keyword": lambda s, x: F.relu(input=x),
    "nested module": lambda s, x: s.nested(x),
}


@pytest.mark.parametrize("spelling", RELUS.values(), ids=RELUS)
def test_relu(spelling, net, assert_same):
    nested = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(inplace=True)))
    model = net(
        lambda s, x: s.head(spelling(s, s.conv(x)).flatten(1)),
        conv=conv(), head=head(), relu=nn.ReLU(), relu_in_place=nn.ReLU(inplace=True), nested=nested,
    )  # fmt: skip
    assert [op.kind for op in assert_same(model)].count("neurons") == 2


def in_place_sum(x, y):
    x += y
    return x


ADDS = {
    "+": lambda x, y: x + y,
    "+=": in_place_sum,
    "torch.add": lambda x, y: torch.add(x, y),
    "torch.add by keyword": lambda x, y: torch.add(input=x, other=y, alpha=1),
    "method": lambda x, y: x.add(y),
    "method in place": lambda x, y: x.add_(y),
    "operator.iadd": operator.iadd,
    "three": lambda x, y: x + y + x,
    "itself": lambda x, y: (y + y) + y,
}


@pytest.mark.parametrize("spelling", ADDS.values(), ids=ADDS)
def test_add(spelling, net, assert_same):
    assert_same(
        net(
            lambda s, x: s.head(F.relu(spelling(s.one(x), s.two(x))).flatten(1)),
            one=conv(),
            two=conv(kernel=1),
            head=head(),
        )
    )


POOLS = {
    "module": (lambda s, x: s.pool(x), (4, 4)),
    "module of a stride": (lambda s, x: s.strided(x), (3, 6)),
    "function": (lambda s, x: F.avg_pool2d(x, 2), (4, 4)),
    "function of pairs": (lambda s, x: F.avg_pool2d(x, (2, 4), (2, 4), padding=(0, 0)), (4, 2)),
    "padded, zeros count": (lambda s, x: F.avg_pool2d(x, 3, 2, 1), (4, 4)),
    "adaptive module": (lambda s, x: s.adaptive(x), (2, 8)),
    "adaptive function": (lambda s, x: F.adaptive_avg_pool2d(x, (4, 2)), (4, 2)),
    "global": (lambda s, x: F.adaptive_avg_pool2d(x, 1), (1, 1)),
    "mean": (lambda s, x: x.mean((2, 3), keepdim=True), (1, 1)),
    "mean counted from behind": (lambda s, x: torch.mean(x, dim=[-1, -2], keepdim=True), (1, 1)),
}


@pytest.mark.parametrize(("spelling", "size"), POOLS.values(), ids=POOLS)
def test_pooling(spelling, size, net, assert_same):
    assert_same(
        net(
            lambda s, x: s.head(spelling(s, F.relu(s.conv(x))).flatten(1)),
            conv=conv(),
            head=head(4 * size[0] * size[1]),
            pool=nn.AvgPool2d(2),
            strided=nn.AvgPool2d((3, 3), stride=(2, 1)),
            adaptive=nn.AdaptiveAvgPool2d((2, None)),
        )
    )


def test_mean_without_keeping_axes_is_flat(net, assert_same):
    graph = assert_same(net(lambda s, x: s.head(F.relu(s.conv(x)).mean(dim=(2, 3))), conv=conv(), head=head(4)))
    assert next(op for op in graph if op.kind == "avgpool").shape == (4,)


FLATS = {
    "method": lambda s, x: x.flatten(1),
    "method by keyword": lambda s, x: x.flatten(start_dim=1, end_dim=-1),
    "torch.flatten": lambda s, x: torch.flatten(x, 1),
    "module": lambda s, x: s.flatten(x),
    "view": lambda s, x: x.view(x.size(0), -1),
    "view of shape": lambda s, x: x.view(x.shape[0], 256),
    "view from behind": lambda s, x: x.view(-1, 256),
    "view by arithmetic": lambda s, x: x.view(x.size()[0], x.size(1) * x.shape[2] * x.shape[3]),
    "reshape": lambda s, x: x.reshape(len_of(x), -1),
    "torch.reshape": lambda s, x: torch.reshape(x, (x.shape[0], -1)),
    "contiguous": lambda s, x: x.contiguous().view(x.size(0), -1),
    "twice": lambda s, x: x.flatten(1).flatten(1),
}


def len_of(x):
    return x.size(0)


@pytest.mark.parametrize("spelling", FLATS.values(), ids=FLATS)
def test_flatten(spelling, net, assert_same):
    assert_same(
        net(lambda s, x: s.head(spelling(s, F.relu(s.conv(x)))), conv=conv(), head=head(), flatten=nn.Flatten())
    )


NOTHING = {
    "dropout": lambda s, x: s.dropout(x),
    "dropout of channels": lambda s, x: s.dropout2d(x),
    "F.dropout": lambda s, x: F.dropout(x, 0.5, training=s.training),
    "F.dropout by position": lambda s, x: F.dropout(x, 0.5, s.training),
    "torch.dropout": lambda s, x: torch.dropout(x, 0.5, s.training),
    "F.dropout2d": lambda s, x: F.dropout2d(x, 0.5, s.training),
    "identity": lambda s, x: s.identity(x),
    "clone": lambda s, x: x.clone(),
}


@pytest.mark.parametrize("spelling", NOTHING.values(), ids=NOTHING)
def test_what_does_nothing_in_evaluation(spelling, net, assert_same):
    graph = assert_same(
        net(
            lambda s, x: s.head(spelling(s, F.relu(s.conv(x))).flatten(1)),
            conv=conv(),
            head=head(),
            dropout=nn.Dropout(),
            dropout2d=nn.Dropout2d(),
            identity=nn.Identity(),
        )
    )
    assert [entry.outcome for entry in graph.report].count("dropped") == 1


OUTPUTS = {
    "softmax module": lambda s, x: s.softmax(x),
    "F.softmax": lambda s, x: F.softmax(x, dim=1),
    "torch.softmax": lambda s, x: torch.softmax(x, 1),
    "method": lambda s, x: x.softmax(-1),
    "log softmax": lambda s, x: F.log_softmax(x, dim=-1),
}


@pytest.mark.parametrize("spelling", OUTPUTS.values(), ids=OUTPUTS)
def test_softmax_at_the_output_is_left_out(spelling, net, rewrite):
    model = net(
        lambda s, x: spelling(s, s.head(F.relu(s.conv(x)).flatten(1))),
        conv=conv(), head=head(), softmax=nn.Softmax(dim=1),
    )  # fmt: skip
    graph = rewrite(model)
    given = torch.rand(6, *SHAPE)
    logits = evaluate(graph, given, {graph.output.name})[graph.output.name]
    with torch.no_grad():
        expected = model(given)
    expected = expected if bool((expected < 0).any()) else expected.log()
    torch.testing.assert_close(F.log_softmax(logits, 1), expected)


# --- whole networks --------------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """Loops over a ModuleList, nested modules, a module used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList([nn.Sequential(conv(4), nn.BatchNorm2d(4)) for _ in range(3)])
        self.act = nn.ReLU()
        self.twice = conv(4)
        self.output = nn.Linear(64, 5)

    def forward(self, input):  # noqa: A002 - users call it that
        x = self.stem(input)
        for block in self.blocks:
            x = self.act(block(x) + x)
        x = self.act(self.twice(self.act(self.twice(x))))
        return self.output(F.avg_pool2d(x, 2).flatten(1))


def test_loops_nesting_and_modules_used_twice(assert_same):
    torch.manual_seed(0)
    graph = assert_same(Blocks())
    assert [op.kind for op in graph].count("neurons") == 7
    assert [op.kind for op in graph].count("conv") == 6


@pytest.mark.parametrize("name", ["output", "input", "readout", "x", "relu", "neurons"])
def test_names_that_mean_something_elsewhere(name, net, assert_same):
    """A module may be called as the trace, or the read-out, calls its own nodes."""
    model = net(lambda s, x: getattr(s, name)(F.relu(s.conv(x)).flatten(1)), conv=conv(), **{name: head()})
    graph = assert_same(model)
    assert len({op.name for op in graph}) == len(list(graph))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": (3, 1), "padding": (1, 0)},
        {"padding": 2, "dilation": 2},
        {"stride": (2, 1), "padding": 1},
        {"padding": "same", "dilation": (1, 2)},
        {"padding": "valid"},
        {"groups": 2},
        {"bias": False},
        {"padding": 0, "padding_mode": "reflect"},
    ],
)
def test_convolutions(options, net, assert_same):
    one = conv(**options)
    features = one(torch.zeros(1, *SHAPE)).numel()
    assert_same(net(lambda s, x: s.head(F.relu(s.conv(x)).flatten(1)), conv=one, head=head(features)))


# --- the aliasing trap -----------------------------------------------------------------------------------------------


def overwritten(s, x):
    y = s.conv(x)
    z = F.relu(y, inplace=True)
    return s.head((s.two(z) + y).flatten(1))


def overwritten_twice(s, x):
    y = s.conv(x)
    y += s.other(x)
    z = y.relu_()
    return s.head((s.two(z) + y).flatten(1))


def through_an_identity(s, x):
    y = s.conv(x)
    kept = s.identity(y)
    z = F.relu(y, inplace=True)
    return s.head((s.two(z) + kept).flatten(1))


def through_the_identity(s, x):
    y = s.conv(x)
    z = F.relu(s.identity(y), inplace=True)
    return s.head((s.two(z) + y).flatten(1))


def through_a_dropout(s, x):
    y = s.conv(x)
    z = s.dropout(y)
    z.relu_()
    return s.head((s.two(y) + z).flatten(1))


def copied(s, x):
    y = s.conv(x)
    kept = y.clone()
    z = F.relu(y, inplace=True)
    return s.head((s.two(z) + kept).flatten(1))


def without_using_the_result(s, x):
    y = s.conv(x)
    s.relu(y)
    return s.head((s.two(y) + y).flatten(1))


def the_image_itself(s, x):
    x += s.same(x)
    return s.head((s.conv(x)).relu().flatten(1))


def before_it_is_overwritten(s, x):
    y = s.conv(x)
    z = s.two(y)
    F.relu(y, inplace=True)
    return s.head((z + y).flatten(1))


@pytest.mark.parametrize(
    "function",
    [
        overwritten, overwritten_twice, through_an_identity, through_the_identity, through_a_dropout, copied,
        without_using_the_result, the_image_itself, before_it_is_overwritten,
    ],
)  # fmt: skip
def test_what_is_overwritten_is_read_overwritten(function, net, assert_same):
    assert_same(
        net(
            function,
            conv=conv(),
            other=conv(),
            two=conv(4),
            same=conv(2, 2, bias=False),
            head=head(),
            identity=nn.Identity(),
            dropout=nn.Dropout(),
            relu=nn.ReLU(inplace=True),
        )
    )


def test_overwriting_through_another_shape_is_refused(net, rewrite):
    def function(s, x):
        y = s.conv(x)
        flat = y.flatten(1)
        flat.relu_()
        return s.head(F.relu(s.two(y)).flatten(1))

    with pytest.raises(ConversionError, match=r"relu_ \(Tensor.relu_\) overwrites conv in place, which two then reads"):
        rewrite(net(function, conv=conv(), two=conv(4), head=head()))
