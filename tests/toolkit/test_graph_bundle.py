"""Spiking graphs in bundles: every node kind comes back, garbled descriptions do not."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import pairwise

import nir
import numpy as np
import pytest

from gascnn.exporters.nir import first_difference
from gascnn.toolkit import graph_bundle
from gascnn.toolkit.bundle import MODEL_FILE, load_bundle, save_bundle
from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.graph_bundle import graph_from_bundle, graph_to_bundle
from gascnn.toolkit.lowering.annotations import GraphNotes, NeuronNotes, graph_notes, set_graph_notes, set_neuron_notes

RNG = np.random.default_rng(0)
NOTES = GraphNotes("subtract", 1.0, "regular", 3, 32, 2, ("a", "b"), (2, 6, 6), 255, "whole", {"from": "a test"})


def array(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def everything():
    """One of each node that bundles hold, small and large arrays, constant ones and notes."""
    image, flat = (3, 6, 6), 27
    ones = np.ones(flat, dtype=np.float32)
    nodes = {
        "x": nir.Input({"input": np.array((2, 6, 6))}),
        "conv": nir.Conv2d((6, 6), array(3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1, array(3)),
        "same": nir.Conv2d(None, array(3, 1, 3, 3), 1, "same", 1, 3, np.zeros(3)),
        "if": nir.IF(np.ones(image), np.full(image, 0.5), np.zeros(image)),
        "scale": nir.Scale(np.broadcast_to(array(3, 1, 1), image)),
        "avg": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "sum": nir.SumPool2d(np.array([1, 1]), np.array([1, 1]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array((3, 3, 3))}, 0, -1),
        "lif": nir.LIF(4 * ones, ones, 0 * ones, ones, 0 * ones),
        "linear": nir.Linear(array(5, flat)),
        "cuba": nir.CubaLIF(*(np.full(5, v) for v in (2.0, 4.0, 1.0, 0.0, 1.0, 0.0)), w_in=array(5)),
        "affine": nir.Affine(array(2, 5), array(2)),
        "last": nir.IF(np.ones(2), np.ones(2), np.zeros(2)),
        "z": nir.Output({"output": np.array((2,))}),
    }
    set_neuron_notes(nodes["if"], NeuronNotes(0.5, array(3) ** 2, array(3) ** 2))
    graph = nir.NIRGraph(nodes, [*pairwise(nodes)], type_check=False)
    set_graph_notes(graph, NOTES)
    return graph


def test_every_kind_of_node_comes_back(tmp_path):
    graph = everything()
    bundle = graph_to_bundle(graph, {"accuracy": 0.5})
    assert (bundle.kind, bundle.image_shape, bundle.classes) == ("snn", (2, 6, 6), ("a", "b"))
    assert (bundle.pixel_max, bundle.metrics, bundle.provenance) == (255, {"accuracy": 0.5}, {"from": "a test"})
    save_bundle(bundle, tmp_path / "snn")
    found = graph_from_bundle(load_bundle(tmp_path / "snn"))
    assert first_difference(graph, found) == ""
    assert list(found.nodes) == list(graph.nodes)
    for name, node in graph.nodes.items():
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray):
                assert getattr(found.nodes[name], field).dtype == value.dtype, (name, field)
    assert graph_notes(found) == NOTES


def test_every_kind_is_tested():
    assert {type(node).__name__ for node in everything().nodes.values()} == set(graph_bundle._NODES)


def test_thresholds_of_one_do_not_fill_the_file(tmp_path):
    graph = everything()
    graph.nodes["if"].v_threshold = np.ones((64, 100, 100))
    save_bundle(graph_to_bundle(graph), tmp_path / "snn")
    assert sum(p.stat().st_size for p in (tmp_path / "snn").iterdir()) < 50_000


def test_nodes_that_bundles_do_not_hold():
    graph = everything()
    graph.nodes["delay"] = nir.Delay(np.ones(3))
    with pytest.raises(FormatError, match="delay: a bundle cannot hold NIR node Delay"):
        graph_to_bundle(graph)


def test_notes_must_say_the_image_shape():
    graph = everything()
    set_graph_notes(graph, replace(NOTES, image_shape=None))
    with pytest.raises(FormatError, match="lack the image shape; convert it again"):
        graph_to_bundle(graph)


def test_a_trained_network_is_no_graph():
    bundle = replace(graph_to_bundle(everything()), kind="ann")
    with pytest.raises(FormatError, match="holds an ANN; convert it to spikes first"):
        graph_from_bundle(bundle)


def change(path, value):
    """Set (or with None delete) an entry deep in the architecture."""

    def apply(architecture):
        inner = architecture
        for key in path[:-1]:
            inner = inner[key]
        if value is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value

    return apply


TAMPERED = {
    "nodes gone": change(["nodes"], None),
    "edges gone": change(["edges"], None),
    "notes gone": change(["notes"], None),
    "edge of one": change(["edges", 0], ["x"]),
    "edges a number": change(["edges"], 3),
    "unknown node": change(["nodes", "conv", "type"], "Conv9d"),
    "type a list": change(["nodes", "conv", "type"], ["Conv2d"]),
    "field gone": change(["nodes", "conv", "values", "weight"], None),
    "field too many": change(["nodes", "conv", "values", "extra"], 1),
    "tensor gone": change(["nodes", "conv", "values", "weight"], {"tensor": "nowhere"}),
    "object array": change(["nodes", "affine", "values", "bias"], {"array": [1, 2], "dtype": "O"}),
    "text array": change(["nodes", "affine", "values", "bias"], {"array": ["a"], "dtype": "<U1"}),
    "infinite": change(["nodes", "affine", "values", "bias"], {"array": [1e400, 2.0], "dtype": "<f4"}),
    "overflow": change(["nodes", "affine", "values", "bias"], {"array": [1e300, 2.0], "dtype": "<f4"}),
    "negative shape": change(["nodes", "if", "values", "r"], {"constant": 1, "shape": [-3], "dtype": "<f4"}),
    "unknown dtype": change(["nodes", "if", "values", "r"], {"constant": 1, "shape": [3], "dtype": "float99"}),
    "ragged": change(["nodes", "affine", "values", "bias"], {"array": [[1], [1, 2]], "dtype": "<f4"}),
    "shapes that differ": change(["nodes", "if", "values", "r"], {"constant": 1, "shape": [3, 2], "dtype": "<f4"}),
    "metadata gone": change(["nodes", "conv", "metadata"], None),
    "node a list": change(["nodes", "conv"], [1]),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_tampered_graphs(tamper):
    bundle = graph_to_bundle(everything())
    architecture = copy.deepcopy(bundle.architecture)
    tamper(architecture)
    with pytest.raises(FormatError):
        graph_from_bundle(replace(bundle, architecture=architecture))


def test_not_a_number_in_the_description(tmp_path):
    save_bundle(graph_to_bundle(everything()), tmp_path / "snn")
    path = tmp_path / "snn" / MODEL_FILE
    values = json.loads(path.read_text())
    values["architecture"]["nodes"]["affine"]["values"]["bias"]["array"] = [float("nan"), 1.0]
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=r"not readable JSON .it holds NaN"):
        load_bundle(tmp_path / "snn")
