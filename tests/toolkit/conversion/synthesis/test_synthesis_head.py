"""The last linear layer is found by what the network computes, not by a name; what has none is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gascnn.models.resnet import resnet
from gascnn.toolkit.conversion.synthesis import find_head
from gascnn.toolkit.errors import ConversionError

SHAPE = (2, 4, 4)


class Own(nn.Module):
    """``forward`` is the function given; modules by keyword."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def test_of_our_resnet():
    model = resnet(classes=3, blocks=(1,), width=4, channels=1, image_size=8)
    head = find_head(model, (1, 8, 8))
    assert head.origin == "fc: Linear"
    assert head.classes == 3
    np.testing.assert_array_equal(head.weight, model.fc.weight.detach().double().numpy())


def test_behind_softmax_and_dropout_whatever_it_is_called():
    model = Own(
        lambda m, x: F.log_softmax(m.drop(m.zebra(torch.relu(m.first(x.flatten(1))))), dim=1),
        aardvark=nn.Linear(7, 7),  # never called
        first=nn.Linear(32, 6),
        zebra=nn.Linear(6, 4),
        drop=nn.Dropout(0.5),
    )
    head = find_head(model, SHAPE)
    assert head.origin == "zebra: Linear"
    np.testing.assert_array_equal(head.weight, model.zebra.weight.detach().double().numpy())


def test_a_batch_norm_behind_it_scales_its_rows():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.BatchNorm1d(3)).eval()
    model[2].running_var.copy_(torch.tensor([4.0, 1.0, 0.25]) - model[2].eps)
    found = find_head(model, SHAPE).weight
    expected = model[1].weight.detach().double().numpy() / np.array([[2.0], [1.0], [0.5]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.ReLU()),
            r"Sequential ends in _2 \(2: ReLU\), which is not a linear layer",
        ),
        (
            nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            r"Sequential ends in _2 \(2: Flatten\), which is not a linear layer",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(32, 1)), r"_1 \(1: Linear\) has one output; soft labels need"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)), r"_0 \(0: MaxPool2d\)"),
    ],
)
def test_networks_without_one(model, message):
    with pytest.raises(ConversionError, match=message):
        find_head(model, SHAPE)


def test_weights_that_are_no_numbers():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].bias[2] = torch.nan
    with pytest.raises(ConversionError, match=r"1.bias holds NaN or infinity; train again"):
        find_head(model, SHAPE)
