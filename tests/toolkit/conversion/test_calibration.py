"""Percentiles and extremes against numpy, and what they mean for how far a membrane drifts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.hardware.simulator import simulate
from gascnn.models.resnet import resnet
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.conversion.calibrate import measure_activations
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering import lower
from gascnn.toolkit.lowering.annotations import neuron_notes


@pytest.mark.parametrize("percentile", [75.0, 99.0, 99.9, 100.0])
def test_percentiles_and_extremes_of_every_channel(rewrite, percentile):
    torch.manual_seed(0)
    model = resnet(classes=3, blocks=(1,), width=4, channels=1, image_size=8).eval()
    with torch.no_grad():
        model.fc.bias.copy_(torch.tensor([-5.0, 0.0, 5.0]))
    pictures = torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = rewrite(model, (1, 8, 8))
    seen: dict[str, np.ndarray] = {}
    model.layer1[0].relu.register_forward_pre_hook(lambda _, inputs: seen.update(hidden=inputs[0].numpy()))
    with torch.no_grad():
        logits = model(pictures).numpy()
    found = measure_activations(graph, pictures, ["layer1_0_relu", "readout"], percentile, batch_size=16)

    values = seen["hidden"].transpose(1, 0, 2, 3).reshape(4, -1)
    hidden, readout = found["layer1_0_relu"], found["readout"]
    np.testing.assert_allclose(hidden.low, values.min(1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(hidden.high, values.max(1), rtol=0, atol=1e-5)
    # Of n values, the k-th largest with k = ceil(n (1 - p / 100)): at most k - 1 are larger.
    kept = max(1, int(np.ceil(values.shape[1] * (1 - percentile / 100))))
    expected = np.sort(np.maximum(values, 0), axis=1)[:, -kept]
    np.testing.assert_allclose(hidden.percentile, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(readout.low, logits.min(0), rtol=0, atol=1e-4)
    assert readout.percentile[0] < 0  # a read-out is no ReLU


def test_what_cannot_be_measured(rewrite):
    graph = rewrite(resnet(classes=3, blocks=(1,), width=4, channels=1, image_size=8).eval(), (1, 8, 8))
    with pytest.raises(UsageError, match=r"percentile is 50.0; it must be above 50"):
        measure_activations(graph, torch.rand(2, 1, 8, 8), ["relu"], 50.0)
    with pytest.raises(DataError, match="no images to calibrate with"):
        measure_activations(graph, torch.rand(0, 1, 8, 8), ["relu"], 99.0)
    with pytest.raises(DataError, match="relu: an activation is not finite"):
        measure_activations(graph, torch.full((2, 1, 8, 8), torch.nan), ["relu"], 99.0)


def two_kinds_of_images():
    """The first eight are dark; the others drive one channel far below zero, which spikes never balance."""
    images = np.full((40, 1, 4, 4), 60, np.uint8)
    images[8:] = 255
    return images


def one_channel_sinks():
    model = nn.Sequential(nn.Conv2d(1, 2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight[0], model[0].weight[1] = 1 / 16, -2.5
        model[0].bias.copy_(torch.tensor([0.0, 10.0]))
        model[3].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        model[3].bias.zero_()
    return model


def test_membranes_that_no_fitted_image_moved_do_not_wrap():
    """Eight images are run as spikes, and none of them says how far the second channel sinks: 10 - 40 = -30 a step.

    Its activation is at most 10 - 40 * 60 / 255 = 0.59, but a spike adds -2.5, which may be four thresholds: one is
    0.625. So it sinks by 48 thresholds a step, by 4800 in 100 steps.
    """
    images = two_kinds_of_images()
    spiking = convert(one_channel_sinks(), images, reset="subtract", steps=100, fit_images=8)
    assert neuron_notes(spiking.graph.nodes["_1"]).membrane_peak[1] == pytest.approx(4800, rel=1e-3)
    network = lower(spiking.graph)
    assert network.layers[0].self_weight[1] <= 65535 / 4800
    assert simulate(network, encode_for(network, images)).wraps == [0, 0]

    unseen = lower(convert(one_channel_sinks(), images[:8], reset="subtract", steps=100).graph)
    assert simulate(unseen, encode_for(unseen, images)).wraps[0] > 0  # what must not happen
