"""Every message of every layer at every step: the real Lava against the simulator, the networks in one start of it."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware import lava
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.lowering.network import ConvLayer, DenseLayer, InputLayer, NetxNetwork, SigmaDeltaNeuron

pytestmark = pytest.mark.lava

spec = importlib.util.spec_from_file_location(
    "sigma_delta_reference", Path(__file__).with_name("sigma_delta_reference.py")
)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

SEEDS = (0, 1, 2, 3, 5, 7, 11, 13)

SLAYER = """
import sys
import h5py, numpy as np, torch
from lava.lib.dl import slayer

torch.manual_seed(3)
cell = {"threshold": 0.1, "activation": torch.nn.functional.relu}
blocks = [
    slayer.block.sigma_delta.Input(cell),
    slayer.block.sigma_delta.Conv(cell, 2, 4, 3, stride=2, padding=1, weight_scale=2),
    slayer.block.sigma_delta.Flatten(),
    slayer.block.sigma_delta.Dense(cell, 64, 8, weight_scale=2),
    slayer.block.sigma_delta.Output(cell, 8, 3, weight_scale=2),
]
value = torch.rand(1, 2, 8, 8, 4, generator=torch.Generator().manual_seed(1))
for block in blocks:
    block.eval()
with torch.no_grad():
    for block in blocks:
        value = block(value)
with h5py.File(sys.argv[1], "w") as file:
    layers = file.create_group("layer")
    for index, block in enumerate(blocks):
        block.export_hdf5(layers.create_group(str(index)))
"""


def overflowing():
    """Sums beyond 24 bits in the convolution, messages beyond 16 bits into the dense layer, negative read-outs."""
    rng = np.random.default_rng(9)
    first = ConvLayer(
        (3, 4, 4), rng.integers(0, 128, (3, 4, 3, 3)) * 2, (1, 1), (1, 1), (1, 1), 1, SigmaDeltaNeuron(np.array(2))
    )
    last = DenseLayer((3,), rng.integers(-120, 120, (3, 48)) * 2, SigmaDeltaNeuron(read_out=True), flatten=True)
    images = rng.integers(0, 256, (2, 3, 4, 4, 4)).astype(np.uint8)
    return NetxNetwork(InputLayer((4, 4, 4), SigmaDeltaNeuron(np.array(5))), (first, last)), images


def assert_equal(found, expected):
    for theirs, ours in zip(found.messages, expected.messages, strict=True):
        np.testing.assert_array_equal(theirs, ours)
    for theirs, ours in zip(found.counts, expected.counts, strict=True):
        np.testing.assert_array_equal(theirs, ours)
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)
    np.testing.assert_array_equal(found.output_counts, expected.output_counts)


def test_every_message_is_lavas():
    cases = [*(reference.random_network(seed) for seed in SEEDS), overflowing()]
    tasks = [lava.Task(network, images, stock=own) for own in (True, False) for network, images in cases]
    counted = lava.Task(*cases[1], record="counts")
    *found, counts = lava.run_many([*tasks, counted])

    active = 0
    own, fast = found[: len(cases)], found[len(cases) :]
    for (network, images), *results in zip(cases, own, fast, strict=True):
        expected = simulate(network, images, record="spikes")
        assert [result.models for result in results] == ["stock", "fast"]
        for result in results:
            assert_equal(result, expected)
        active += all(np.any(messages) for messages in expected.messages)
    assert active >= len(cases) - 2, "silent networks prove nothing"
    assert sum(simulate(*cases[-1]).wraps) > 0
    expected = simulate(*cases[1])
    assert counts.messages is counts.spikes is None
    assert counts.models == "fast"
    for theirs, ours in zip(counts.counts, expected.counts, strict=True):
        np.testing.assert_array_equal(theirs, ours)
    np.testing.assert_array_equal(counts.output_membrane, expected.output_membrane)


def test_sums_beyond_32_bits_are_refused():
    """Where Lava's own sums are undefined, the faster models say so; the message comes from a layer, not the image."""
    first, second = (
        ConvLayer((1, 2, 2), np.full((1, 1, 1, 1), weight), (1, 1), (0, 0), (1, 1), 1, SigmaDeltaNeuron(np.array(0)))
        for weight in (254, 2**20)
    )
    last = DenseLayer((2,), np.full((2, 4), 2), SigmaDeltaNeuron(read_out=True), flatten=True)
    network = NetxNetwork(InputLayer((1, 2, 2), SigmaDeltaNeuron(np.array(0))), (first, second, last))
    # 255 * 254; 2^31 / 2^20
    told = r"messages of 64770\.\.64770 leave -2047\.\.2047; only Lava's own models \(--stock\)"
    with pytest.raises(BackendError, match=told):
        lava.run(network, np.full((1, 4, 1, 2, 2), 255, dtype=np.uint8))


def test_a_file_of_lavas_own_trainer(tmp_path):
    found = lava.find_lava()
    assert found is not None, "Lava is missing: run make setup"
    path = tmp_path / "slayer.net"
    trained = subprocess.run([found.python, "-c", SLAYER, path], capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    network = read_netx(path)
    assert network.sigma_delta
    assert network.layers[-1].neuron.read_out
    assert [int(layer.neuron.threshold) for layer in network.layers[:-1]] == [6, 6]
    images = np.random.default_rng(2).integers(0, 65, (1, 5, 2, 8, 8)).astype(np.uint8)
    expected = simulate(network, images, record="spikes")
    assert_equal(lava.run(path, images, stock=True), expected)
    assert all(np.any(messages) for messages in expected.messages)
