"""Reading NIR graphs: what their nodes mean, and everything that is refused, by name."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

from gascnn.toolkit import lowering
from gascnn.toolkit.errors import ConversionError, FormatError
from gascnn.toolkit.lowering.annotations import NeuronNotes, set_neuron_notes
from gascnn.toolkit.lowering.graph import read_graph, topological_order

SHAPE = (2, 6, 6)


def spiking(shape, theta=1.0, **parameters):
    values = {"r": np.ones(shape), "v_threshold": np.full(shape, theta), "v_reset": np.zeros(shape), **parameters}
    return nir.IF(**values)


def conv(weight=None, stride=1, padding=1, dilation=1, groups=1, bias=None):
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)) if weight is None else weight
    return nir.Conv2d(None, weight, stride, padding, dilation, groups, np.zeros(len(weight)) if bias is None else bias)


def graph(shape, edges=None, metadata=None, **nodes):
    """Nodes in a row (or with ``edges``) between an input ``a`` and an output ``z``."""
    every = {"a": nir.Input({"input": np.array(shape)}), **nodes, "z": nir.Output({"output": np.array([1])})}
    names = list(every)
    edges = [(names[i], names[i + 1]) for i in range(len(names) - 1)] if edges is None else edges
    return nir.NIRGraph(every, edges, metadata=metadata or {}, type_check=False)


def only_path(found):
    assert len(found.populations) == 1
    assert len(found.populations[0].paths) == 1
    return found.populations[0].paths[0].map


# --- meaning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding", "stride", "dilation", "expected"),
    [
        (1, 2, 1, (1, 1)),
        ((2, 0), (1, 2), (2, 1), (2, 0)),
        ("same", 1, 2, (2, 2)),
        (b"same", 1, 1, (1, 1)),
        ("valid", 2, 1, (0, 0)),
        (np.array([1, 2]), np.array([2, 1]), np.array([1, 1]), (1, 2)),
    ],
)
def test_convolutions(padding, stride, dilation, expected):
    node = conv()
    node.padding, node.stride, node.dilation = padding, stride, dilation
    pairs = [tuple(int(n) for n in np.broadcast_to(v, 2)) for v in (stride, expected, dilation)]
    like = functional.conv2d(torch.zeros(1, *SHAPE).double(), torch.tensor(node.weight), None, *pairs)
    found = only_path(read_graph(graph(SHAPE, c=node, n=spiking(tuple(like.shape[1:])))))
    assert (found.stride, found.padding, found.dilation) == tuple(pairs)
    assert found.out_shape == tuple(like.shape[1:])


def test_parameters_may_be_scalars_channels_or_full():
    shape = (3, 6, 6)
    channels = np.array([1.0, 2.0, 4.0])
    full = np.broadcast_to(channels.reshape(3, 1, 1), shape)
    for given in (channels, channels.reshape(3, 1, 1), full):
        node = nir.IF(r=0 * given + 2.0, v_threshold=given)
        population = read_graph(graph(SHAPE, c=conv(), n=node)).populations[0]
        np.testing.assert_array_equal(population.threshold, channels)
        np.testing.assert_array_equal(population.gain, [2.0] * 3)
    scalar = nir.IF(r=np.array([0.5]), v_threshold=np.array([3.0]))
    np.testing.assert_array_equal(read_graph(graph(SHAPE, c=conv(), n=scalar)).populations[0].threshold, [3.0] * 3)


def test_a_bias_behind_a_sum_counts_once():
    nodes = {
        "c": conv(), "p": spiking((3, 6, 6)), "q": spiking((3, 6, 6)),
        "s": conv(np.ones((1, 3, 1, 1)), padding=0, bias=np.array([5.0])), "n": spiking((1, 6, 6)),
    }  # fmt: skip
    edges = [("a", "c"), ("c", "p"), ("c", "q"), ("p", "s"), ("q", "s"), ("s", "n"), ("n", "z")]
    last = read_graph(graph(SHAPE, edges, **nodes)).populations[-1]
    assert [path.source for path in last.paths] == ["p", "q"]
    assert sum(float(path.map.bias[0]) for path in last.paths) == 5.0


def test_populations_that_nobody_reads_are_left_out():
    nodes = {"c": conv(), "n": spiking((3, 6, 6)), "idle": spiking((3, 6, 6))}
    edges = [("a", "c"), ("c", "n"), ("n", "idle"), ("n", "z")]
    assert [p.name for p in read_graph(graph(SHAPE, edges, **nodes)).populations] == ["n"]


def test_order_does_not_depend_on_how_nodes_are_stored():
    nodes = {"n": spiking((3, 6, 6)), "c": conv()}
    order = topological_order(graph(SHAPE, [("a", "c"), ("c", "n"), ("n", "z")], **nodes))
    assert order == ["a", "c", "n", "z"]


# --- refusals --------------------------------------------------------------------------------------------------------

THREE = (3, 6, 6)
UNFIT = [
    ("no input", {"c": conv(), "n": spiking(THREE)}, [("c", "n"), ("n", "z")], "c: nothing feeds this node"),
    ("unfed neurons", {"n": spiking(THREE)}, [("n", "z")], "n: nothing feeds this node"),
    (
        "unknown edge",
        {"n": spiking(SHAPE)},
        [("a", "n"), ("n", "b"), ("n", "z")],
        "an edge n -> b to a node that is not",
    ),
    ("twice", {"n": spiking(SHAPE)}, [("a", "n"), ("a", "n"), ("n", "z")], "the edge a -> n twice; double its weights"),
    ("cycle", {"n": spiking(SHAPE)}, [("a", "n"), ("n", "n"), ("n", "z")], "a cycle through n"),
    ("inputs", {"b": nir.Input({"input": np.array(SHAPE)}), "n": spiking(SHAPE)}, None, "2 inputs; exactly one"),
    ("outputs", {"n": spiking(SHAPE), "y": nir.Output({"output": np.array([1])})}, None, "2 outputs; exactly one"),
    ("name", {"always-on": spiking(SHAPE)}, None, "called 'always-on', which means something else here"),
    ("input name", {"input": spiking(SHAPE)}, None, "called 'input', which means something else here"),
    (
        "pooled vector",
        {"p": nir.AvgPool2d(*[np.array([2, 2])] * 3), "n": spiking(3)},
        None,
        r"p: pooling of a signal of",
    ),
    ("channels", {"c": conv(np.ones((3, 3, 3, 3))), "n": spiking(THREE)}, None, "in 1 groups does not fit 2"),
    (
        "groups",
        {"c": conv(np.ones((3, 1, 3, 3)), groups=2), "n": spiking(THREE)},
        None,
        "in 2 groups does not fit 2 ch",
    ),
    ("stride", {"c": conv(stride=0), "n": spiking(THREE)}, None, r"stride \(0, 0\), .* are at least 1"),
    ("padding", {"c": conv(padding=-1), "n": spiking(THREE)}, None, "padding at least 0"),
    (
        "kernel",
        {"c": conv(np.ones((3, 2, 9, 9))), "n": spiking(THREE)},
        None,
        r"c: its kernel \(9, 9\) is larger than its padded",
    ),
    (
        "pool",
        {"p": nir.AvgPool2d(np.array([7, 7]), np.array([7, 7]), np.array([0, 0])), "n": spiking(SHAPE)},
        None,
        "p: its kernel",
    ),
    ("bias", {"c": conv(bias=np.zeros(2)), "n": spiking(THREE)}, None, "c: a bias of 2 numbers for 3 channels"),
    (
        "unflattened",
        {"l": nir.Linear(np.ones((4, 72))), "n": spiking(4)},
        None,
        r"l: weight \(4, 72\) .*flatten it first",
    ),
    ("threshold", {"c": conv(), "n": spiking((3, 6, 5))}, None, r"n: r has shape \(3, 6, 5\); expected \(3, 6, 6\)"),
]


@pytest.mark.parametrize(("nodes", "edges", "match"), [pytest.param(*case, id=name) for name, *case in UNFIT])
def test_inconsistent_graphs(nodes, edges, match):
    shape = (2,) if "p" in nodes and "n" in nodes and nodes["n"].r.shape == (3,) else SHAPE
    with pytest.raises(FormatError, match=match):
        read_graph(graph(shape, edges, **nodes))


def test_a_vector_cannot_be_convolved():
    with pytest.raises(FormatError, match=r"c: a convolution of a signal of shape \(8,\)"):
        read_graph(graph((8,), c=conv(), n=spiking(THREE)))


def test_sums_of_different_shapes():
    nodes = {"c": conv(), "d": conv(padding=0), "n": spiking(THREE)}
    edges = [("a", "c"), ("a", "d"), ("c", "n"), ("d", "n"), ("n", "z")]
    with pytest.raises(FormatError, match=r"n: inputs of different shapes are added \(\(3, 6, 6\), \(3, 4, 4\)\)"):
        read_graph(graph(SHAPE, edges, **nodes))


IMPOSSIBLE = [
    (
        "threshold node",
        {"t": nir.Threshold(np.ones(1)), "n": spiking(SHAPE)},
        "t: NIR node Threshold cannot be lowered to NetX; supp",
    ),
    ("no neurons", {"c": conv()}, "z: the graph's output is not a population of neurons"),
    (
        "even same",
        {"c": conv(np.ones((3, 2, 2, 2)), padding="same"), "n": spiking(THREE)},
        "c: padding 'same' is not symmetric here",
    ),
    ("v_reset", {"n": spiking(SHAPE, v_reset=np.full(SHAPE, 0.5))}, "n: v_reset must be 0"),
    (
        "thresholds",
        {"n": spiking(SHAPE, v_threshold=np.random.default_rng(0).random(SHAPE) + 1)},
        "n: v_threshold differs within a channel",
    ),
    (
        "bias and padding",
        {"b": conv(bias=np.ones(3)), "c": conv(np.ones((3, 3, 3, 3))), "n": spiking(THREE)},
        "c: cannot be folded with the linear layer before it: a bias ahead of a zero-padded .* put a ReLU",
    ),
]


@pytest.mark.parametrize(("nodes", "match"), [pytest.param(*case, id=name) for name, *case in IMPOSSIBLE])
def test_graphs_that_netx_cannot_hold(nodes, match):
    with pytest.raises(ConversionError, match=match):
        read_graph(graph(SHAPE, **nodes))


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"initial_membrane": 1.5}, "one share of the threshold, 0..1"),
        ({"initial_membrane": np.array([0.1, 0.2])}, "one share of the threshold"),
        ({"initial_membrane": "half"}, "initial_membrane in a NIR node's notes is no number"),
        ({"membrane_peak": np.array([1.0, np.nan])}, "a peak in a NIR node's notes is negative or not finite"),
        ({"current_peak": np.array([-1.0, 1.0])}, "negative or not finite"),
        ({"current_peak": np.ones(3)}, "n: 3 peaks were noted for 2 channels"),
    ],
)
def test_notes_of_neurons(metadata, match):
    node = spiking(SHAPE)
    node.metadata = metadata
    with pytest.raises(FormatError, match=match):
        read_graph(graph(SHAPE, n=node))


def test_notes_of_neurons_are_read():
    node = spiking(SHAPE)
    set_neuron_notes(node, NeuronNotes(0.25, np.array([1.0, 2.0]), None))
    notes = read_graph(graph(SHAPE, n=node)).populations[0].notes
    assert notes.initial_membrane == 0.25
    assert notes.current_peak.tolist() == [1.0, 2.0]
    assert notes.membrane_peak is None


def test_the_package_offers_what_it_says():
    assert lowering.LoweringOptions().grade == "hardware"
    with pytest.raises(AttributeError, match="has no attribute 'raise_'"):
        lowering.raise_  # noqa: B018
