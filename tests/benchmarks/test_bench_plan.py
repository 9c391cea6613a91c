"""What the contenders are given, and which networks the peers cannot follow."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gascnn.benchmarks.networks import BenchNetwork, convs, resnet18
from gascnn.benchmarks.peers import frameworks
from gascnn.benchmarks.plan import check_peers_can_follow, write_plan
from gascnn.exporters.netx import read_netx
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork


@pytest.fixture(scope="module")
def tiny() -> BenchNetwork:
    return resnet18(0.1, width=4, size=16, blocks=(1, 1), steps=8, images=2)


def test_the_plan_holds_network_input_and_ann(tiny, tmp_path):
    plan = json.loads(write_plan(tiny, tmp_path).read_text())
    assert read_netx(tmp_path / plan["network"]).digest() == tiny.network.digest()
    assert np.array_equal(np.load(tmp_path / plan["input"]), tiny.spikes)
    assert (plan["steps"], plan["images"], plan["input_shape"], plan["compile_peers"]) == (8, 2, [1, 16, 16], False)
    for described, layer in zip(plan["layers"], tiny.network.layers, strict=True):
        assert np.array_equal(np.load(tmp_path / described["weight"]), layer.weight)
        assert described["threshold"] == int(layer.neuron.threshold) + 0.5
    assert plan["layers"][3]["stride"] == [2, 2]
    nodes = {node["name"]: node for node in plan["ann"]}
    assert nodes["layer2_0_add"]["inputs"] == ["layer2_0_conv2", "layer2_0_shortcut"]
    assert nodes["layer1_0_add"]["inputs"] == ["layer1_0_conv2", "stem"]
    assert np.load(tmp_path / nodes["layer2_0_shortcut"]["weight"]).shape == (8, 4, 1, 1)
    assert nodes["average"]["weight"] is None


class Leaky:
    """snnTorch's neuron as its documentation has it: resets at the step after a spike, to zero."""

    def __init__(self, beta, threshold, reset_mechanism):
        assert (beta, reset_mechanism) == (1.0, "zero")
        self.threshold = threshold

    def __call__(self, sums, membrane):
        membrane = membrane * (membrane <= self.threshold) + sums
        return (membrane > self.threshold).float(), membrane


@pytest.mark.parametrize("make", [lambda: convs(0.1, width=6, size=8, depth=3, steps=10, images=2), None])
def test_layers_without_delays_spike_as_often_as_those_with(make, tiny, tmp_path, monkeypatch):
    """The peers' own code path, with a stand-in for the one class it takes from snnTorch."""
    bench = tiny if make is None else make()
    module = type("snntorch", (), {"Leaky": Leaky})
    real = frameworks.import_module
    monkeypatch.setattr(frameworks, "import_module", lambda name: module if name == "snntorch" else real(name))
    monkeypatch.setattr(frameworks, "version", lambda name: "0")
    torch = real("torch")
    plan = json.loads(write_plan(bench, tmp_path).read_text())
    with torch.no_grad():
        peer = frameworks.SnnTorch(torch, plan, tmp_path)
        counts = peer.counts(2)
        expected = simulate(bench.network, bench.spikes, method="plain").counts
        assert [c.shape for c in counts] == [c.shape for c in expected]
        assert all(np.array_equal(a, b) for a, b in zip(counts, expected, strict=True))
        assert all(c.any() for c in counts)
        assert peer.options == (
            "window, contiguous", "window, channels-last", "steps, contiguous", "steps, channels-last",
        )  # fmt: skip
        for option in peer.options:
            assert peer.prepare(option, 2)() is None


def test_steps_and_window_fire_alike(tmp_path, monkeypatch):
    bench = convs(0.1, width=6, size=8, depth=2, steps=10, images=2)
    seen = []

    class Told(Leaky):
        def __call__(self, sums, membrane):
            spikes, membrane = super().__call__(sums, membrane)
            seen.append(int(spikes.sum()))
            return spikes, membrane

    module = type("snntorch", (), {"Leaky": Told})
    real = frameworks.import_module
    monkeypatch.setattr(frameworks, "import_module", lambda name: module if name == "snntorch" else real(name))
    monkeypatch.setattr(frameworks, "version", lambda name: "0")
    plan = json.loads(write_plan(bench, tmp_path).read_text())
    totals = {}
    with real("torch").no_grad():
        peer = frameworks.SnnTorch(real("torch"), plan, tmp_path)
        for option in peer.options:
            seen.clear()
            peer.prepare(option, 2)()
            totals[option] = sum(seen)
    expected = sum(int(c.sum()) for c in simulate(bench.network, bench.spikes, method="plain").counts)
    assert set(totals.values()) == {expected}


def network(**changes):
    layer = DenseLayer(shape=(2,), weight=np.array([[2, -4], [6, 8]]), neuron=CubaNeuron(threshold=np.array(5)))
    return NetxNetwork(InputLayer((2,)), (replace(layer, **changes),))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (network(bias=np.array([1, 0])), "has biases"),
        (network(neuron=CubaNeuron(np.array(5), current_decay=np.array(0))), "has a current that does not decay"),
        (network(neuron=CubaNeuron(np.array(5), voltage_decay=np.array(9))), "has a leak"),
        (network(neuron=CubaNeuron(np.array([5, 6]))), "has several thresholds"),
        (network(delay=np.array([[1, 0], [0, 0]])), "has delays"),
        (network(weight_rec=np.array([[2, 0], [0, 2]])), "has recurrent synapses"),
        (replace(network(), input_bits=8), "has another reset or another input"),
        (replace(network(), reset="subtract"), "has another reset or another input"),
    ],
)
def test_what_the_peers_cannot_follow_is_refused_by_name(odd, message):
    check_peers_can_follow(network())
    with pytest.raises(UsageError, match=message):
        check_peers_can_follow(odd)


@pytest.mark.parametrize("name", ["spikingjelly", "snntorch", "sinabs"])
def test_every_peer_runs_each_of_its_orders(name, tmp_path, monkeypatch):
    """The classes as the worker makes them; a stand-in for each library's neuron, which here never fires."""
    bench = convs(0.1, width=4, size=6, depth=2, steps=5, images=2)
    monkeypatch.setattr(frameworks, "version", lambda _: "0")
    torch = frameworks.import_module("torch")
    threads = torch.get_num_threads()
    peer = frameworks.load(name, write_plan(bench, tmp_path), threads)
    torch.set_grad_enabled(True)  # load turns it off for the process it is alone in
    ran = []
    monkeypatch.setattr(type(peer), "neurons", lambda self, threshold: threshold)
    monkeypatch.setattr(
        type(peer), "fire", lambda self, population, sums: ran.append("window") or torch.zeros_like(sums)
    )
    if "steps" in peer.orders:
        monkeypatch.setattr(type(peer), "run_steps", lambda self, steps, *rest: ran.append("steps"))
    for option in peer.options:
        ran.clear()
        with torch.no_grad():
            peer.prepare(option, 2)()
        assert set(ran) == {option.split(",")[0]}
    assert {option.split(",")[0] for option in peer.options} == set(peer.orders)
