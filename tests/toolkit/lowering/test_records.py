"""What travels beside the integers: the notes of a graph, the deployment record, the digest."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import nir
import numpy as np
import pytest

from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.lowering.annotations import KEY, GraphNotes, graph_notes, set_graph_notes
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import (
    ConvLayer,
    CubaNeuron,
    DenseLayer,
    InputLayer,
    NetxNetwork,
    Segment,
    layer_label,
)

NOTES = GraphNotes(
    "subtract", 0.5, "constant", 3, 20, 4, ("cat", "Hündin"), (1, 8, 8), 4095, "foreground", {"data": "x"}
)


def empty_graph():
    nodes = {"a": nir.Input({"input": np.array([1])}), "z": nir.Output({"output": np.array([1])})}
    return nir.NIRGraph(nodes, [("a", "z")], type_check=False)


def test_notes_come_back():
    graph = empty_graph()
    assert graph_notes(graph) == GraphNotes()
    set_graph_notes(graph, NOTES)
    assert graph_notes(graph) == NOTES
    graph.metadata[KEY] = graph.metadata[KEY].encode()  # as HDF5 gives it back
    assert graph_notes(graph) == NOTES
    graph.metadata[KEY] = np.array(graph.metadata[KEY], dtype=object)
    assert graph_notes(graph) == NOTES


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": 2}, "another schema than 1; convert it again"),
        ({"reset": "soft"}, "say reset 'soft'; convert it again"),
        ({"dt": 0}, "say dt 0"),
        ({"dt": "fast"}, "say dt 'fast'"),
        ({"coding": "morse"}, "say coding 'morse'"),
        ({"seed": -1}, "say seed -1"),
        ({"steps": 0}, "say steps 0"),
        ({"steps": 2.5}, "say steps 2.5"),
        ({"steps": True}, "say steps True"),
        ({"skip_steps": -1}, "say skip_steps -1"),
        ({"classes": [1, 2]}, "say classes"),
        ({"classes": None}, "garbled"),
        ({"image_shape": [8, 8]}, "say image_shape"),
        ({"image_shape": [1, 8, 0]}, "say image_shape"),
        ({"image_shape": 8}, "garbled"),
        ({"pixel_max": 0}, "say pixel_max 0"),
        ({"framing": "left"}, "say framing 'left'"),
        ({"provenance": []}, "say provenance"),
        ({"surprise": 1}, "garbled .*surprise"),
    ],
)
def test_garbled_notes(change, match):
    graph = empty_graph()
    values = {"schema": 1, **asdict(NOTES), **change}
    graph.metadata[KEY] = json.dumps(values)
    with pytest.raises(FormatError, match=match):
        graph_notes(graph)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", b"\xff", np.array([1, 2])])
def test_notes_that_are_no_notes(text):
    graph = empty_graph()
    graph.metadata[KEY] = text
    with pytest.raises(FormatError, match="garbled"):
        graph_notes(graph)


# --- deployment ------------------------------------------------------------------------------------------------------

RECORD = Deployment(
    image_shape=(1, 8, 8), classes=("no", "yes"), steps=20, coding="bernoulli", seed=3, skip_steps=5,
    expected={"accuracy": 0.5}, provenance={"from": "a bundle"},
)  # fmt: skip


def test_a_record_comes_back():
    assert Deployment.from_json(RECORD.to_json()) == RECORD


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": 2}, "has schema 2; this version reads schema 1"),
        ({"coding": "morse"}, "unknown input coding 'morse'; known: regular, bernoulli, constant"),
        ({"steps": 0}, "steps 0 and skip_steps 5 leave nothing to read out"),
        ({"skip_steps": 20}, "steps 20 and skip_steps 20 leave nothing"),
        ({"skip_steps": -1}, "skip_steps -1"),
        ({"skip_steps": "5"}, "lacks or garbles a field"),
        ({"classes": 3}, "lacks or garbles a field"),
        ({"image_shape": ["a"]}, "lacks or garbles a field"),
        ({"image_shape": [0, 8, 8]}, "lacks or garbles a field .image_shape"),
        ({"seed": "s"}, "lacks or garbles a field .seed"),
        ({"pixel_max": 0}, "lacks or garbles a field .pixel_max"),
        ({"framing": "left"}, "lacks or garbles a field .framing"),
        ({"grade": "toy"}, "lacks or garbles a field .grade"),
        ({"expected": 1}, "lacks or garbles a field .expected"),
        ({"provenance": "me"}, "lacks or garbles a field .provenance"),
        ({"surprise": 1}, "lacks or garbles a field .*surprise"),
    ],
)
def test_garbled_records(change, match):
    values = {**json.loads(RECORD.to_json()), **change}
    with pytest.raises(FormatError, match=match):
        Deployment.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "nothing", "[]", "{}", '"schema"'])
def test_records_that_are_no_records(text):
    with pytest.raises(FormatError, match="is not what this version writes"):
        Deployment.from_json(text)


def test_a_missing_field():
    values = json.loads(RECORD.to_json())
    del values["steps"]
    with pytest.raises(FormatError, match="lacks or garbles a field"):
        Deployment.from_json(json.dumps(values))


# --- digest ----------------------------------------------------------------------------------------------------------


def small_network():
    neuron = CubaNeuron(np.array(20))
    conv = ConvLayer(
        (2, 3, 3), np.arange(36).reshape(2, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1, neuron,
        bias=np.array([1, 0]), segments=(Segment("population", "stem", 0, 2),),
    )  # fmt: skip
    dense = DenseLayer((2,), np.arange(36).reshape(2, 18), neuron, flatten=True, delay=np.zeros((2, 18), int))
    return NetxNetwork(InputLayer((2, 3, 3)), (conv, dense))


def every_change(network):
    """Networks that differ in one number that decides a spike."""
    conv, dense = network.layers
    more = np.array([[1] * 18, [0] * 18])
    for layer in (
        replace(conv, weight=conv.weight + (np.arange(36).reshape(2, 2, 3, 3) == 7)),
        replace(conv, bias=np.array([0, 1])), replace(conv, bias=None), replace(conv, stride=(2, 1)),
        replace(conv, padding=(0, 1)), replace(conv, dilation=(1, 2)), replace(conv, groups=2),
        replace(conv, self_weight=np.array([0, 2])), replace(conv, neuron=CubaNeuron(np.array(21))),
        replace(conv, neuron=CubaNeuron(np.array(20), np.array(4095))),
        replace(conv, neuron=CubaNeuron(np.array(20), np.array(4096), np.array(1))),
    ):  # fmt: skip
        yield replace(network, layers=(layer, dense))
    for layer in (
        replace(dense, delay=more),
        replace(dense, delay=None),
        replace(dense, weight_rec=np.eye(2, dtype=int)),
    ):
        yield replace(network, layers=(conv, layer))
    yield replace(network, layers=(conv,))
    yield replace(network, input=InputLayer((2, 3, 4)))
    yield replace(network, input=InputLayer((2, 3, 3), CubaNeuron(np.array(20))))
    yield replace(network, input_bits=8)
    yield replace(network, constant_channels=1)


def test_the_digest_changes_with_every_deciding_number():
    network = small_network()
    digests = [network.digest(), *(changed.digest() for changed in every_change(network))]
    assert len(set(digests)) == len(digests)


def test_the_digest_ignores_names_dtypes_and_records():
    network = small_network()
    conv, dense = network.layers
    same = replace(
        network,
        layers=(replace(conv, weight=conv.weight.astype(np.int8), segments=()), dense),
        deployment=RECORD,
    )
    assert same.digest() == network.digest()


def test_what_a_network_tells():
    network = small_network()
    assert (network.depth, network.neurons, network.input_of(0), network.input_of(1)) == (2, 20, (2, 3, 3), (2, 3, 3))
    assert not network.silent_at_rest
    quiet = replace(network, layers=(replace(network.layers[0], bias=np.array([0, 0])), network.layers[1]))
    assert quiet.silent_at_rest
    assert layer_label(network, 0) == "layer_00 (conv: stem)"
    assert layer_label(network, 1) == "layer_01 (dense)"
