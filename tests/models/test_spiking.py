"""The float spiking network against a loop over steps and neurons written out by hand."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

from gascnn.models.spiking import INITIAL_MEMBRANE, SpikingNetwork, SpikingOutput


def row(**nodes):
    return nir.NIRGraph(nodes, [*pairwise(nodes)], type_check=False)


def ends(shape, outputs):
    return nir.Input({"input": np.array(shape)}), nir.Output({"output": np.array([outputs])})


def neurons(shape, kind="if", theta=1.0, start=0.0):
    ones = np.ones(shape)
    if kind == "if":
        node = nir.IF(0.5 * ones, theta * ones, 0 * ones)
    elif kind == "lif":
        node = nir.LIF(4 * ones, 3 * ones, 0 * ones, theta * ones, 0 * ones)
    else:
        node = nir.CubaLIF(2 * ones, 4 * ones, 3 * ones, 0 * ones, theta * ones, 0 * ones, w_in=1.5)
    node.metadata[INITIAL_MEMBRANE] = start
    return node


def by_hand(kind, current, theta, reset, start, dt):
    """Spikes and last membranes of neurons as above; ``current`` is (step, neuron)."""
    membrane, synaptic = np.full(current.shape[1], start * theta), np.zeros(current.shape[1])
    spikes = np.zeros_like(current)
    for t, drive in enumerate(current):
        for n in range(current.shape[1]):
            if kind == "if":
                membrane[n] += 0.5 * drive[n]
            elif kind == "lif":
                membrane[n] = membrane[n] * (1 - dt / 4) + 3 * dt / 4 * drive[n]
            else:
                synaptic[n] = synaptic[n] * (1 - dt / 2) + 1.5 * dt / 2 * drive[n]
                membrane[n] = membrane[n] * (1 - dt / 4) + 3 * dt / 4 * synaptic[n]
            if membrane[n] > theta:
                spikes[t, n] = 1
                membrane[n] = membrane[n] - theta if reset == "subtract" else 0
    return spikes, membrane


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", ["if", "lif", "cuba"])
@pytest.mark.parametrize(("start", "dt"), [(0.0, 1.0), (0.5, 0.5)])
def test_two_layers_step_by_step(kind, reset, start, dt):
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.6, 1, (6, 4)), rng.normal(0.3, 1, (3, 6))
    bias = rng.normal(size=3) / 4
    given, read = ends((4,), 3)
    graph = row(
        x=given, a=nir.Linear(first), s=neurons(6, kind, 1.5, start),
        b=nir.Affine(second, bias), t=neurons(3, kind, 1.5, start), z=read,
    )  # fmt: skip
    spikes = (rng.random((5, 30, 4)) < 0.6).astype(np.float32)
    network = SpikingNetwork(graph, list(graph.nodes), reset, dt)
    found = network(torch.from_numpy(spikes), skip_steps=4)
    hidden_rate = 0.0
    for image in range(5):
        hidden, _ = by_hand(kind, spikes[image] @ first.T, 1.5, reset, start, dt)
        last, membrane = by_hand(kind, hidden @ second.T + bias, 1.5, reset, start, dt)
        np.testing.assert_array_equal(found.counts[image].numpy(), last[4:].sum(0))
        np.testing.assert_allclose(found.membrane[image].numpy(), membrane, atol=1e-4)
        hidden_rate += hidden.mean() / 5
    assert 0.05 < hidden_rate < 0.95
    assert found.rates["s"] == pytest.approx(hidden_rate)
    assert found.counts.sum() > 0


def test_images_pooling_skips_and_scales():
    """Every linear node, against torch's own layers applied to each step."""
    rng = np.random.default_rng(1)
    kernel, bias = torch.tensor(rng.normal(size=(4, 1, 3, 3))).float(), torch.tensor(rng.normal(size=4)).float()
    dense = torch.tensor(rng.normal(size=(3, 16)) * [[-1], [-1], [1]]).float()
    factors = np.array([1.0, -2.0, 0.5, 3.0])
    given, read = ends((2, 8, 8), 3)
    nodes = {
        "x": given,
        "conv": nir.Conv2d(None, kernel.numpy(), (2, 2), (1, 1), (1, 1), 2, bias.numpy()),
        "same": nir.Conv2d(None, kernel.numpy()[:, :, ::2, ::2] * 0.1, (1, 1), "valid", (1, 1), 2, np.zeros(4)),
        "avg": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([1, 1])),
        "per_channel": nir.Scale(factors),
        "full": nir.Scale(np.broadcast_to(factors.reshape(4, 1, 1), (4, 4, 4))),
        "total": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array((4, 2, 2))}, 0, -1),
        "dense": nir.Linear(dense.numpy()),
        "n": neurons(3, "if"),
        "z": read,
    }
    edges = [("x", "conv"), ("conv", "per_channel"), ("conv", "full"), ("per_channel", "total"), ("full", "total"),
             ("total", "flat"), ("flat", "dense"), ("dense", "n"), ("n", "z")]  # fmt: skip
    used = {k: v for k, v in nodes.items() if k not in ("same", "avg")}
    spikes = torch.tensor(rng.random((2, 10, 2, 8, 8)) < 0.3).float()
    found = SpikingNetwork(nir.NIRGraph(used, edges, type_check=False), list(used), "subtract")(spikes)
    functional = torch.nn.functional
    for image in range(2):
        signal = functional.conv2d(spikes[image], kernel, bias, 2, 1, 1, 2)
        signal = functional.avg_pool2d(2 * signal * torch.tensor(factors).float().view(4, 1, 1), 2) * 4
        expected, _ = by_hand("if", (signal.flatten(1) @ dense.T).double().numpy(), 1.0, "subtract", 0.0, 1.0)
        np.testing.assert_array_equal(found.counts[image].numpy(), expected.sum(0))
    assert found.counts.sum() > 0
    # The two left out: averages count their padding, and 'valid' means none.
    chain = {"x": ends((2, 8, 8), 3)[0], "same": nodes["same"], "avg": nodes["avg"], "n": neurons((4, 4, 4)), "z": read}
    chain["n"].v_threshold = np.arange(1.0, 5.0)  # one a channel
    chain["n"].r = np.ones(1)
    graph = row(**chain)
    found = SpikingNetwork(graph, list(graph.nodes), "zero")(spikes)
    signal = functional.conv2d(spikes[0], torch.tensor(nodes["same"].weight), None, 1, 0, 1, 2)
    signal = functional.avg_pool2d(signal, 2, 2, 1).flatten(1).double().numpy()
    membrane, count = np.zeros(64), np.zeros(64)
    thresholds = np.repeat(np.arange(1.0, 5.0), 16)
    for drive in signal:
        membrane = membrane + drive
        count += membrane > thresholds
        membrane[membrane > thresholds] = 0
    np.testing.assert_array_equal(found.counts[0].numpy(), count)


def test_the_read_out_is_the_output_population():
    """A population that nobody reads is evaluated last here, and must not give its membrane away."""
    given, read = ends((1,), 1)
    nodes = {"x": given, "n": neurons(1), "idle": neurons(1, theta=9.0), "z": read}
    edges = [("x", "n"), ("x", "idle"), ("n", "z")]
    network = SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), ["x", "n", "idle", "z"], "subtract")
    found = network(torch.ones(1, 3, 1))  # membranes: 0.5, 1.0, 1.5 -> spike -> 0.5
    assert found.counts.item() == 1
    assert found.membrane.item() == 0.5


def test_ties_go_to_the_membrane_then_to_the_lower_class():
    counts = torch.tensor([[3.0, 3.0, 1.0], [2.0, 2.0, 2.0], [0.0, 1.0, 5.0], [4.0, 4.0, 4.0]])
    membrane = torch.tensor([[0.1, 0.2, 0.9], [0.5, -0.5, 0.5], [9.0, 9.0, -9.0], [-1.0, -2.0, -0.5]])
    assert SpikingOutput(counts, membrane, {}).predictions().tolist() == [1, 0, 2, 2]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n": nir.Threshold(np.ones(1))}, "n: NIR node Threshold cannot be run here"),
        ({"n": nir.IF(np.ones(1), np.ones(1), np.ones(1))}, "n: v_reset must be 0"),
        ({"n": nir.LIF(*[np.ones(1)] * 4, np.zeros(1))}, "n: v_leak must be 0"),
        ({"n": nir.Linear(np.eye(1))}, "z: only neurons can be read out"),
    ],
)
def test_what_cannot_be_run(change, match):
    given, read = ends((1,), 1)
    graph = row(**{"x": given, "n": neurons(1), "z": read, **change})
    with pytest.raises(ValueError, match=match):
        SpikingNetwork(graph, list(graph.nodes), "zero")


def test_a_node_that_nothing_feeds():
    given, read = ends((1,), 1)
    nodes = {"x": given, "n": neurons(1), "z": read}
    with pytest.raises(ValueError, match="n: nothing feeds this node"):
        SpikingNetwork(nir.NIRGraph(nodes, [("n", "z")], type_check=False), list(nodes), "zero")


def test_the_reset_must_be_known():
    given, read = ends((1,), 1)
    graph = row(x=given, n=neurons(1), z=read)
    with pytest.raises(ValueError, match="reset is 'soft'; it must be 'zero', 'subtract' or 'none'"):
        SpikingNetwork(graph, list(graph.nodes), "soft")
