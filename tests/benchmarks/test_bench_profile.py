"""The profile times the very spikes the simulator gives, and refuses what it cannot cut apart."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from gascnn.benchmarks.networks import convs
from gascnn.benchmarks.profile import LayerShare, profile
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.cli.bench_profile import command
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork


def test_layers_have_the_simulators_spikes():
    bench = convs(0.1, width=8, size=6, steps=5, images=1)
    measured = profile(bench.network, bench.spikes)
    counts = [int(count.sum()) for count in simulate(bench.network, bench.spikes, method="plain").counts]
    assert [layer.input_spikes for layer in measured.layers[1:]] == counts[:-1]
    total = bench.steps + bench.network.depth
    rates = [count / (np.prod(layer.shape) * total) for count, layer in zip(counts, bench.network.layers, strict=True)]
    assert [layer.firing_rate for layer in measured.layers] == pytest.approx(rates)
    assert measured.time_s == pytest.approx(measured.sorting_s + sum(layer.time_s for layer in measured.layers))
    assert all(layer.time_s > 0 and layer.membrane_s > 0 for layer in measured.layers)


def test_shares_by_hand():
    layer = LayerShare("l", 10, 0.1, time_s=5e-6, membrane_s=2e-6, additions=1000)
    assert layer.spikes_s == pytest.approx(3e-6)
    assert layer.addition_ns == pytest.approx(3.0)
    assert LayerShare("l", 0, 0.0, time_s=1e-6, membrane_s=2e-6, additions=0).spikes_s == 0


def test_delays_are_refused():
    layer = DenseLayer((2,), np.array([[2, 4], [6, 8]]), CubaNeuron(np.array(3)), delay=np.array([[0, 1], [1, 0]]))
    with pytest.raises(UsageError, match="does not take events; profile a network without such layers"):
        profile(NetxNetwork(InputLayer((2,)), (layer,)), np.ones((1, 3, 2), dtype=np.uint8))


def test_the_command(tmp_path):
    path = tmp_path / "profile.json"
    done = CliRunner().invoke(command, ["--net", "dense", "--steps", "3", "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "ns a row added" in done.output
    found = json.loads(path.read_text())
    assert len(found["layers"]) == 4
