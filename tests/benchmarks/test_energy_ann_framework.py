"""The ANN's work: by torch's own counter, by hand, and layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gascnn.benchmarks.ann_framework import ann_framework_macs, ann_work
from gascnn.benchmarks.ann_macs import ann_macs
from gascnn.benchmarks.energy import AnnLayer
from gascnn.models.resnet import resnet


def test_the_frameworks_counter_includes_the_padding():
    """3x3, padding 1, on 8x8: 9 taps at each of 64 places, 22 * 22 of them inside."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    assert ann_framework_macs(model, (1, 8, 8)) == 2 * 576 + 640
    assert ann_macs(model.eval(), (1, 8, 8)) == 2 * 484 + 640


def test_without_padding_both_are_equal():
    model = nn.Sequential(nn.Conv2d(2, 4, 2, groups=2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    assert ann_framework_macs(model, (2, 8, 8)) == ann_macs(model, (2, 8, 8)) == 4 * 16 * 4 + 192


def test_the_model_stays_as_it_was():
    model = resnet(classes=3, blocks=(1, 1), width=4, channels=1, image_size=8).train()
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert ann_framework_macs(model, (1, 8, 8)) > 0
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_work_of_a_resnet_adds_up():
    model = resnet(classes=3, blocks=(1, 1), width=4, channels=1, image_size=8).eval()
    work = ann_work(model, (1, 8, 8))
    assert work.macs == ann_macs(model, (1, 8, 8)) == sum(layer.macs for layer in work.layers)
    # Stem and two 3x3 at 8x8; 3x3 of stride 2, 3x3 at 4x4, 1x1 shortcut of stride 2; linear.
    padded = 576 * (4 + 2 * 16) + 144 * (32 + 64) + 16 * 32 + 24
    assert (work.framework_macs, work.macs_of) == (padded, "ann")
    stem, *_, last = work.layers
    assert stem == AnnLayer("conv", 4 * 484, 64, 256, 36, 4)  # its batch norm's offsets are biases
    assert (last.kind, last.macs, last.inputs, last.outputs, last.biases) == ("dense", 24, 8, 3, 3)


@pytest.mark.parametrize("bias", [False, True])
def test_biases_are_told(bias):
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2, bias=bias)).eval()
    assert ann_work(model, (1, 3, 3)).layers == (AnnLayer("dense", 18, 9, 2, 18, 2 if bias else 0),)
