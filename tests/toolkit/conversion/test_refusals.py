"""What cannot be converted, by name, with reason and remedy; what tracing leaves alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gascnn.toolkit.conversion.trace import trace
from gascnn.toolkit.errors import ConversionError

SHAPE = (2, 8, 8)


def conv(inputs=2, outputs=4, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": "same", **options})


def head(features=256):
    return nn.Linear(features, 3)


REFUSED = {
    "max pooling": (
        lambda s, x: s.maxpool(x),
        r"maxpool \(maxpool: MaxPool2d\): not supported.*replace max pooling by av",
    ),
    "F.max_pool2d": (lambda s, x: F.max_pool2d(x, 2), r"max_pool2d \(.*\): not supported.*replace max pooling"),
    "sigmoid": (
        lambda s, x: torch.sigmoid(x),
        r"sigmoid \(sigmoid\): .*replace it by ReLU and train again; at the output",
    ),
    "sigmoid method": (lambda s, x: x.sigmoid(), r"sigmoid \(Tensor.sigmoid\)"),
    "tanh": (lambda s, x: torch.tanh(x), r"tanh \(tanh\): .*replace it by ReLU"),
    "gelu": (lambda s, x: F.gelu(x), r"gelu .*replace it by ReLU"),
    "silu": (lambda s, x: F.silu(x), r"silu .*replace it by ReLU"),
    "relu6": (lambda s, x: F.relu6(x), r"relu6 .*replace it by ReLU"),
    "leaky": (lambda s, x: s.leaky(x), r"leaky \(leaky: LeakyReLU\): .*replace it by ReLU"),
    "cat": (lambda s, x: torch.cat([x, x], 1), r"cat \(cat\): .*concatenation has no NetX form; add instead"),
    "mul": (lambda s, x: x * x, r"mul \(mul\): arithmetic on a tensor.*spikes cannot be multiplied"),
    "torch.mul": (lambda s, x: torch.mul(x, 2), r"mul \(mul\): not supported.*spikes cannot be multiplied"),
    "sub": (lambda s, x: x - x, r"sub \(sub\): not supported"),
    "slice": (lambda s, x: x[:, :, 1:], r"getitem \(getitem\): arithmetic on a tensor"),
    "group norm": (lambda s, x: s.group(x), r"group \(group: GroupNorm\): .*use batch norm"),
    "layer norm": (lambda s, x: s.layer(x), r"layer \(layer: LayerNorm\): .*use batch norm"),
    "softmax inside": (lambda s, x: F.relu(torch.softmax(x, 1)), r"softmax \(softmax\): softmax inside the network"),
    "alpha": (
        lambda s, x: torch.add(x, x, alpha=2),
        r"add \(add\): an addition with alpha other than 1; scale the weights",
    ),
    "alpha of a method": (lambda s, x: x.add(x, alpha=0.5), "an addition with alpha other than 1"),
    "a number added": (lambda s, x: x + 1, r"add \(add\): its argument other is 1, not a tensor of the network"),
    "broadcast": (lambda s, x: x + x.mean((2, 3), keepdim=True), r"add .* an addition that broadcasts"),
    "ceil mode": (
        lambda s, x: F.avg_pool2d(x, 3, ceil_mode=True),
        "average pooling with ceil_mode; .* use ceil_mode=False",
    ),
    "divisor": (
        lambda s, x: F.avg_pool2d(x, 2, divisor_override=3),
        "average pooling with divisor_override; leave it out",
    ),
    "uncounted padding": (
        lambda s, x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "that does not count its padding .* use padding=0",
    ),
    "uneven adaptive": (
        lambda s, x: F.adaptive_avg_pool2d(x, 3),
        r"adaptive pooling of \(8, 8\) to \(3, 3\) has uneven",
    ),
    "mean of channels": (lambda s, x: x.mean(1), "a mean over other axes than the image's; use global average pooling"),
    "mean of all": (lambda s, x: x.mean(), "a mean over other axes"),
    "partly flattened": (
        lambda s, x: x.flatten(2),
        r"reshaping \(4, 8, 8\) to \(4, 64\); only flattening to \(image, 256\)",
    ),
    "linear on the last axis": (
        lambda s, x: s.last_axis(x),
        r"a linear layer on the last axis of \(4, 8, 5\); flatten",
    ),
    "circular padding": (lambda s, x: s.circular(x), "padding_mode 'circular'; NetX pads with zeros"),
    "even same": (lambda s, x: s.even(x), "padding 'same' with an even kernel is not symmetric; use an odd kernel"),
    "parameter": (lambda s, x: x + s.offset, "a tensor stored in the model enters the computation"),
    "batch statistics": (lambda s, x: s.batch(x), "batch norm without running statistics depends on the batch"),
    "norm in training": (lambda s, x: s.training_norm(x), "it stays in training mode and depends on the batch"),
    "dropout in training": (lambda s, x: s.training_dropout(x), "it stays in training mode; let model.eval"),
    "dropout always": (
        lambda s, x: F.dropout(x, 0.5, training=True),
        "dropout that is always on; give it training=self",
    ),
    "dropout by default": (lambda s, x: F.dropout(x), "dropout that is always on"),
    "torch.dropout always": (lambda s, x: torch.dropout(x, 0.5, True), "dropout that is always on"),
    "transposed": (lambda s, x: s.transposed(x), r"transposed \(transposed: ConvTranspose2d\): not supported"),
}


def stubborn(module):
    """A module that ``model.eval()`` does not reach."""
    module.train = lambda mode=True: module
    return module


@pytest.mark.parametrize(("function", "match"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_named(function, match, net):
    model = net(
        lambda s, x: function(s, s.conv(x)),
        conv=conv(), maxpool=nn.MaxPool2d(2), leaky=nn.LeakyReLU(), group=nn.GroupNorm(2, 4), layer=nn.LayerNorm(8),
        last_axis=nn.Linear(8, 5), circular=conv(4, padding=1, padding_mode="circular"), even=conv(4, kernel=2),
        offset=nn.Parameter(torch.ones(1, 4, 8, 8)), batch=nn.BatchNorm2d(4, track_running_stats=False),
        training_norm=stubborn(nn.BatchNorm2d(4)), training_dropout=stubborn(nn.Dropout()),
        transposed=nn.ConvTranspose2d(4, 4, 1),
    )  # fmt: skip
    with pytest.raises(ConversionError, match="cannot be converted: ") as caught:
        trace(model, SHAPE)
    with pytest.raises(ConversionError, match=match):
        raise caught.value
    assert "\n" not in str(caught.value)
    refused = caught.value.report
    assert [entry.outcome for entry in refused] == ["refused"] * len(refused)


def test_all_refusals_are_told_at_once(net):
    model = net(
        lambda s, x: s.head(torch.sigmoid(s.pool(torch.tanh(s.conv(x)))).flatten(1)),
        conv=conv(), pool=nn.MaxPool2d(2), head=head(64),
    )  # fmt: skip
    with pytest.raises(ConversionError, match=r"3 operation\(s\) cannot be converted: tanh .*; pool .*; sigmoid "):
        trace(model, SHAPE)


def data_dependent(s, x):
    return s.head(x.flatten(1)) if x.sum() > 0 else s.head(x.flatten(1)) * 2


WHOLE = {
    "data-dependent flow": (data_dependent, r"Net cannot be traced \(.*\); its forward must not branch on values"),
    "wrong size": (lambda s, x: s.wide(x.flatten(1)), r"Net does not take images of \(2, 8, 8\): wide: mat1 and mat2"),
    "wrong channels": (lambda s, x: s.three(x), r"does not take images of \(2, 8, 8\): three: "),
    "two outputs": (lambda s, x: (s.head(x.flatten(1)), x), "Net returns tuple; it must return one tensor"),
    "a dictionary": (lambda s, x: {"y": x}, "Net returns .*; it must return one tensor"),
    "a number": (lambda s, x: x.shape[0], "Net returns a number; it must return one tensor"),
    "an image": (lambda s, x: F.relu(x), r"Net returns shape \(2, 8, 8\) an image; a classifier returns \(class,\)"),
}


@pytest.mark.parametrize(("function", "match"), WHOLE.values(), ids=WHOLE)
def test_networks_that_are_no_classifiers(function, match, net, capfd):
    with pytest.raises(ConversionError, match=match) as caught:
        trace(net(function, head=head(128), wide=head(999), three=nn.Conv2d(3, 4, 3)), SHAPE)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


class TwoInputs(nn.Module):
    def __init__(self, optional):
        super().__init__()
        self.head = head(128)
        if optional:
            self.forward = self.with_default

    def forward(self, x, y):
        return self.head((x + y).flatten(1))

    def with_default(self, x, y=None):
        return self.head(x.flatten(1))


@pytest.mark.parametrize("optional", [False, True])
def test_two_inputs(optional):
    with pytest.raises(ConversionError, match=r"TwoInputs takes 2 inputs; exactly one \(images\) is supported"):
        trace(TwoInputs(optional), SHAPE)


def test_images_that_are_not_used(net, rewrite):
    model = net(lambda s, x: s.head(torch.flatten(s.fixed, 1)), head=head(4), fixed=nn.Parameter(torch.ones(2, 4)))
    with pytest.raises(ConversionError, match="a tensor stored in the model"):
        rewrite(model)


def test_tracing_leaves_parameters_alone(net):
    model = net(
        lambda s, x: s.head(F.relu(s.norm(s.conv(x))).flatten(1)), conv=conv(), norm=nn.BatchNorm2d(4), head=head()
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model.train(), SHAPE)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
