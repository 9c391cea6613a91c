"""Multiply-accumulates by hand, the padding left out."""

from __future__ import annotations

import pytest
from torch import nn

from gascnn.benchmarks.ann_macs import ann_macs
from gascnn.models.resnet import resnet


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # 3x3, padding 1, on 3x3: corners read 4 taps, edges 6, the middle 9.
        ((nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5)), 2 * 49 + 90),
        # without padding 3x3 outputs of 2x2 taps; two groups of one channel each
        ((nn.Conv2d(2, 4, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2, bias=False)), 4 * 4 * 4 + 32),
        # stride 2: 2x2 outputs of one tap; a batch norm and a pooling cost nothing
        (
            (
                nn.Conv2d(2, 3, 1, stride=2),
                nn.BatchNorm2d(3),
                nn.ReLU(),
                nn.AvgPool2d(2),
                nn.Flatten(),
                nn.Linear(3, 2),
            ),
            2 * 3 * 4 + 6,
        ),
    ],
)
def test_by_hand(layers, expected):
    first = layers[0]
    assert ann_macs(nn.Sequential(*layers).eval(), (first.in_channels, 3, 3)) == expected


def test_a_resnet_adds_up():
    """Stem 3x3 (1 to 4), two blocks, the second of stride 2 with a 1x1 shortcut; on 8x8 22 of 24 taps are inside."""
    model = resnet(classes=3, blocks=(1, 1), width=4, channels=1, image_size=8).eval()
    same = 22 * 22  # sum over positions of taps inside, 3x3 with padding 1 on 8x8
    halved = 11 * 11  # outputs 0, 2, 4, 6 read 2 + 3 + 3 + 3 taps an axis
    small = 10 * 10  # 3x3 with padding 1 on 4x4
    convolutions = (1 * 4 + 2 * 4 * 4) * same + 4 * 8 * halved + 8 * 8 * small + 4 * 8 * 16
    assert ann_macs(model, (1, 8, 8)) == convolutions + 8 * 3
