"""Each neuron a network is converted for, from the ANN to the real Lava: resets with and without leak, sigma-delta."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gascnn.hardware import lava
from gascnn.hardware.simulator import simulate
from gascnn.models.resnet import resnet
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.lowering import lower

pytestmark = pytest.mark.lava

NEURONS = {
    "zero": {"reset": "zero"},
    "zero, leaking": {"reset": "zero", "leak": 0.9},
    "subtract": {"reset": "subtract"},
    "subtract, leaking": {"reset": "subtract", "leak": 0.9},
    "sigma-delta": {"neuron": "sdnn"},
}
STEPS = 12


@pytest.fixture(scope="module")
def results():
    """Each network, the simulator's result and that of Lava's own models, in one start of Lava."""
    assert lava.find_lava() is not None, "Lava is missing: run make setup"
    rng = np.random.default_rng(3)
    images = np.kron(rng.integers(0, 256, (40, 1, 4, 4)), np.ones((1, 1, 3, 3))).astype(np.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = resnet(classes=3, blocks=(1, 1), width=4, channels=1, image_size=12)
        for _ in range(5):
            model(torch.from_numpy(images).float() / 255)
    networks, tasks, expected = {}, [], []
    for name, how in NEURONS.items():
        steps = {} if "neuron" in how else {"steps": STEPS, "fit_images": 16}
        network = lower(convert(model.eval(), images, **steps, **how).graph)
        spikes = encode_for(network, images[:2])
        networks[name] = network
        tasks.append(lava.Task(network, spikes, stock_models=True))
        expected.append(simulate(network, spikes, record="spikes"))
    found = lava.run_many(tasks)
    return {
        name: (networks[name], *pair) for name, pair in zip(networks, zip(expected, found, strict=True), strict=True)
    }


@pytest.mark.parametrize("name", NEURONS)
def test_every_layer_equals_lava(results, name):
    network, expected, found = results[name]
    assert found.models == "stock"
    sent = "messages" if network.sigma_delta else "spikes"
    hidden = getattr(expected, sent)[:-1]
    assert all(np.any(layer) for layer in hidden), "silent layers prove nothing"
    for theirs, ours in zip(getattr(found, sent), getattr(expected, sent), strict=True):
        np.testing.assert_array_equal(theirs, ours)
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)


def test_the_leak_is_in_the_network_and_changes_what_it_fires(results):
    for reset in ("zero", "subtract"):
        plain, leaking = results[reset], results[f"{reset}, leaking"]
        keep = {name: (int(np.max(n.layers[0].neuron.voltage_decay)), int(np.max(n.layers[0].neuron.current_decay)))
                for name, n in (("plain", plain[0]), ("leaking", leaking[0]))}  # fmt: skip
        assert keep["plain"] != keep["leaking"]
        assert any(np.any(a != b) for a, b in zip(plain[1].spikes, leaking[1].spikes, strict=True))
