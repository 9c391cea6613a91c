"""Activity step by step: against the counts of whole runs, and against a loop over every spike and every weight."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from gascnn.benchmarks.activity import activity, input_spikes
from gascnn.benchmarks.counts import count_operations, sent_by_input
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator import simulate
from gascnn.hardware.summary import summarise
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    Segment,
    SigmaDeltaNeuron,
)
from gascnn.toolkit.lowering.shapes import conv_output_shape

STEPS = 6


def conv(rng, before, channels, kernel, groups=1, stride=(1, 1), padding=(0, 0), dilation=(1, 1), **more):
    weight = rng.integers(-3, 7, (channels, before[0] // groups, *kernel)) * 2
    shape = conv_output_shape(before, weight.shape, stride, padding, dilation)
    return ConvLayer(shape, weight, stride, padding, dilation, groups, CubaNeuron(np.array(15)), **more)


def random_network(seed, reset="zero", input_bits=0):
    """conv, grouped conv, dense; sizes, strides, padding and dilation are drawn, kinds of channels are not."""
    rng = np.random.default_rng(seed)
    size = (2, int(rng.integers(5, 8)), int(rng.integers(5, 8)))

    def drawn(low, high):
        return tuple(int(n) for n in rng.integers(low, high, 2))

    def own(channels):
        return {"self_weight": np.full(channels, 16)} if reset == "subtract" else {}

    first = conv(
        rng, size, 4, drawn(1, 4), 1, drawn(1, 3), drawn(0, 3), drawn(1, 3), **own(4),
        segments=(Segment("population", "a", 0, 2), Segment("relay", "input", 2, 3), Segment("always-on", "on", 3, 4)),
    )  # fmt: skip
    second = conv(
        rng, first.shape, 6, (2, 2), 2, drawn(1, 3), (1, 1), (1, 1), **own(6),
        segments=(Segment("population", "b", 0, 4), Segment("relay", "a", 4, 6)),
    )  # fmt: skip
    wide = int(np.prod(second.shape))
    last = DenseLayer((3,), rng.integers(-2, 5, (3, wide)) * 2, CubaNeuron(np.array(30)), flatten=True, **own(3))
    return NetxNetwork(InputLayer(size), (first, second, last), input_bits, reset, constant_channels=1)


def sigma_delta_network():
    hidden = DenseLayer(
        (2,), np.array([[64, 64, 0], [64, 64, 64]]), SigmaDeltaNeuron(np.array(5)), bias=np.array([0, -250])
    )
    last = DenseLayer((2,), np.array([[64, 2], [4, 64]]), SigmaDeltaNeuron(read_out=True))
    return NetxNetwork(InputLayer((3,), SigmaDeltaNeuron(np.array(0))), (hidden, last), input_bits=8)


def recurrent_network():
    layer = DenseLayer(
        (2,), np.array([[8, 8], [8, 0]]), CubaNeuron(np.array(10)), weight_rec=np.array([[0, 2], [4, 6]])
    )
    return NetxNetwork(InputLayer((2,), CubaNeuron(np.array(1))), (layer,))


def fed_to(network, images=3, steps=STEPS, seed=0):
    rng = np.random.default_rng(seed)
    bare = (network.input_shape[0] - network.constant_channels, *network.input_shape[1:])
    most = 2**network.input_bits if network.input_bits else 2
    values = rng.integers(1, most, (images, steps, *bare)) * (rng.random((images, steps, *bare)) < 0.5)
    return checked_spikes(network, values.astype(np.uint8))


NETWORKS = {
    "reset to zero": lambda: random_network(1),
    "reset by subtraction": lambda: random_network(2, "subtract"),
    "graded input": lambda: random_network(3, input_bits=8),
    "sigma-delta": sigma_delta_network,
    "recurrent, with input neurons": recurrent_network,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sums_over_steps_are_the_counts_of_the_run(name):
    network = NETWORKS[name]()
    fed = fed_to(network)
    result = simulate(network, fed, record="spikes")
    whole = count_operations(
        network, sent_by_input(network, fed), summarise(result).totals, images=len(fed), steps=STEPS
    )
    assert whole.operations() > 0
    assert activity(network, fed, result).counts() == whole


# --- a loop over every spike and every weight ------------------------------------------------------------------------


def kind_of(layer, channel):
    return next((s.kind for s in layer.segments if s.start <= channel < s.stop), "population")


def conv_reach(layer, source, before):
    """(kind of neuron, tap) for every weight that a spike at ``source`` goes over."""
    per_out, per_in = len(layer.weight) // layer.groups, before[0] // layer.groups
    for out, c, i, j in np.argwhere(layer.weight != 0):
        if out // per_out * per_in + c != source[0]:
            continue
        for y in range(layer.shape[1]):
            for x in range(layer.shape[2]):
                row = y * layer.stride[0] + i * layer.dilation[0] - layer.padding[0]
                column = x * layer.stride[1] + j * layer.dilation[1] - layer.padding[1]
                if (row, column) == (source[1], source[2]):
                    yield kind_of(layer, out)


def dense_reach(layer, source, before):
    column = int(np.ravel_multi_index(source, before))
    for neuron in range(len(layer.weight)):
        if layer.weight[neuron, column] != 0:
            yield kind_of(layer, neuron)


def loop_over_spikes(network, fed, result):
    """Operations by (layer, kind of source, kind of neuron, step)."""
    found, reached = {}, {}
    sources = [np.concatenate([fed != 0, np.zeros((len(fed), network.depth, *fed.shape[2:]), bool)], axis=1)]
    for k, sent in enumerate([*sources, *result.spikes[:-1]]):
        layer, before = network.layers[k], network.input_of(k)
        for _, t, *source in np.argwhere(sent):
            if k == 0:
                kind = "always-on" if source[0] >= before[0] - network.constant_channels else "input"
            else:
                kind = kind_of(network.layers[k - 1], source[0])
            key = (k, *source)
            if key not in reached:
                reach = conv_reach if isinstance(layer, ConvLayer) else dense_reach
                reached[key] = list(reach(layer, source, before))
            for target in reached[key]:
                found[k, kind, target, int(t)] = found.get((k, kind, target, int(t)), 0) + 1
    return found


@pytest.mark.parametrize("seed", range(6))
def test_every_step_against_a_loop_over_every_spike_and_weight(seed):
    network = random_network(seed, "subtract" if seed % 2 else "zero")
    fed = fed_to(network, images=2, steps=4, seed=seed)
    result = simulate(network, fed, record="spikes")
    found = activity(network, fed, result)
    ways = [way for layer in found.layers for way in layer.ways if way.source != "own"]
    operations = {(w.layer, w.source, w.target, t): int(n) for w in ways for t, n in enumerate(w.operations) if n}
    assert {layer for layer, *_ in operations} == {0, 1, 2}
    assert operations == loop_over_spikes(network, fed, result)
    for layer, spikes in zip(found.layers, result.spikes, strict=True):
        np.testing.assert_array_equal(sum(layer.spikes.values()), spikes.sum(axis=(0, *range(2, spikes.ndim))))
        if network.reset == "subtract":  # one operation a spike, back to the neuron that sent it
            np.testing.assert_array_equal(layer.operations("own"), sum(layer.spikes.values()))


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_dense_layer_by_hand():
    """Input 0 reaches both neurons, input 1 the second; each fires one step after 4 comes in, threshold 3."""
    layer = DenseLayer((2,), np.array([[4, 0], [4, 4]]), CubaNeuron(np.array(3)))
    network = NetxNetwork(InputLayer((2,)), (layer,))
    fed = checked_spikes(network, np.array([[[1, 0], [0, 0], [0, 1]], [[1, 1], [0, 0], [0, 0]]], dtype=np.uint8))
    told = activity(network, fed, simulate(network, fed, record="spikes")).to_dict()
    assert (told["images"], told["steps"], told["total_steps"], told["neuron_updates"]) == (2, 3, 4, 8)
    assert told["input"]["by_step"]["spikes"] == {"input": [1.5, 0.0, 0.5, 0.0]}
    (only,) = told["layers"]
    assert only["by_step"]["operations"] == {"input": [2.5, 0.0, 0.5, 0.0]}
    assert only["by_step"]["spikes"] == {"population": [0.0, 2.0, 0.0, 0.5]}
    assert only["by_step"]["firing_rate"] == {"population": [0.0, 1.0, 0.0, 0.25]}
    assert only["by_step"]["neuron_updates"] == [2, 2, 2, 2]
    assert only["firing_rate"] == {"population": pytest.approx(2.5 / (2 * 3))}
    assert (only["operations"], only["additions"], only["multiply_accumulates"]) == (3.0, 3.0, 0.0)
    json.dumps(told, allow_nan=False)


def test_messages_of_an_input_that_changes_are_told_step_by_step():
    """Pixels 0, 9, 200, then 0, 9, 100, then the same: two messages, one, none."""
    network = sigma_delta_network()
    fed = checked_spikes(network, np.array([[[0, 9, 200], [0, 9, 100], [0, 9, 100]]], dtype=np.uint8))
    sent = input_spikes(network, fed)
    assert sent.shape == (1, 5, 3)
    np.testing.assert_array_equal(sent[0].sum(axis=1), [2, 1, 0, 0, 0])
    first = activity(network, fed, simulate(network, fed, record="spikes")).layers[0]
    # Pixel 9 reaches both neurons, the other one the second.
    np.testing.assert_array_equal(first.operations("input"), [3, 1, 0, 0, 0])
    assert first.to_dict(1, 3)["multiply_accumulates"] == 4


def test_graded_input_is_sent_at_every_one_of_t_steps():
    network = random_network(3, input_bits=8)
    fed = fed_to(network, images=2)
    found = activity(network, fed, simulate(network, fed, record="spikes"))
    pixels = int(np.prod(network.input_shape[1:]))
    np.testing.assert_array_equal(found.input_spikes["input"], [2 * pixels] * STEPS + [0] * 3)


# --- batches and errors ----------------------------------------------------------------------------------------------


def test_batches_add_up():
    network = random_network(4, "subtract")
    fed = fed_to(network, images=5)
    result = simulate(network, fed, record="spikes")
    parts = [activity(network, part, simulate(network, part, record="spikes")) for part in (fed[:2], fed[2:])]
    assert (parts[0] + parts[1]).to_dict() == activity(network, fed, result).to_dict()


def test_other_networks_and_other_t_do_not_add_up():
    one, other = random_network(4), random_network(5)
    runs = [
        activity(network, fed, simulate(network, fed, record="spikes"))
        for network, fed in ((one, fed_to(one)), (other, fed_to(other)), (one, fed_to(one, steps=3)))
    ]
    for each in runs[1:]:
        with pytest.raises(UsageError, match="are of different networks or T; add batches of the same run"):
            runs[0] + each


def test_a_run_without_spikes_or_of_another_input_is_refused():
    network = random_network(4)
    fed = fed_to(network)
    with pytest.raises(UsageError, match='has only counts of its spikes; run it with record="spikes"'):
        activity(network, fed, simulate(network, fed))
    with pytest.raises(DataError, match=r"recorded spikes have shapes .* this network makes .* of this input"):
        activity(network, fed[:1], simulate(network, fed, record="spikes"))


def test_counting_and_billing_need_no_torch():
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import gascnn.benchmarks.activity, gascnn.benchmarks.energy, gascnn.benchmarks.neurobench_check\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
