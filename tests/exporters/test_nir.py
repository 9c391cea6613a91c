"""NIR files: round trips of all node kinds, and files that are not what they claim to be."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np
import pytest

from gascnn.exporters import nir as exporter
from gascnn.exporters.nir import first_difference, read_nir, write_nir
from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.lowering.annotations import GraphNotes, NeuronNotes, graph_notes, set_graph_notes, set_neuron_notes

RNG = np.random.default_rng(1)
NOTES = GraphNotes("zero", None, "constant", 1, 8, 0, ("ja", "näin"), (1, 6, 6), 255, "whole", {})


def row(**nodes):
    """Nodes in a row, as one graph with notes."""
    graph = nir.NIRGraph(nodes, [*pairwise(nodes)], type_check=False)
    set_graph_notes(graph, NOTES)
    return graph


def one_of_each():
    image = (2, 6, 6)
    ones = np.ones(18)
    graph = row(
        x=nir.Input({"input": np.array((1, 6, 6))}),
        grouped=nir.Conv2d((6, 6), RNG.normal(size=(2, 1, 3, 1)), (1, 1), (1, 0), (1, 1), 1, RNG.normal(size=2)),
        valid=nir.Conv2d((6, 6), RNG.normal(size=(2, 1, 1, 1)), 1, "valid", 1, 2, np.zeros(2)),
        spikes=nir.IF(np.ones(image), np.full(image, 0.5), np.zeros(image)),
        scale=nir.Scale(RNG.normal(size=image)),
        average=nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        total=nir.SumPool2d(np.array([1, 1]), np.array([1, 1]), np.array([0, 0])),
        flat=nir.Flatten({"input": np.array((2, 3, 3))}, 0, -1),
        leaky=nir.LIF(4 * ones, ones, 0 * ones, ones, 0 * ones),
        linear=nir.Linear(RNG.normal(size=(5, 18))),
        cuba=nir.CubaLIF(*(np.full(5, v) for v in (2.0, 4.0, 1.0, 0.0, 1.0, 0.0)), w_in=np.full(5, 0.5)),
        affine=nir.Affine(RNG.normal(size=(2, 5)), RNG.normal(size=2)),
        last=nir.IF(np.ones(2), np.ones(2), np.zeros(2)),
        z=nir.Output({"output": np.array((2,))}),
    )
    set_neuron_notes(graph.nodes["spikes"], NeuronNotes(0.5, np.array([1.0, 2.0]), np.array([3.0, 4.0])))
    return graph


def test_a_graph_comes_back(tmp_path):
    graph = one_of_each()
    path = tmp_path / "model.nir"
    write_nir(graph, path)
    found = read_nir(path)
    assert list(tmp_path.iterdir()) == [path]
    assert set(found.nodes) == set(graph.nodes)
    assert sorted(found.edges) == sorted(graph.edges)
    for name, node in graph.nodes.items():
        assert type(found.nodes[name]) is type(node)
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(getattr(found.nodes[name], field), value)
    assert found.nodes["valid"].padding in ("valid", b"valid")
    assert graph_notes(found) == NOTES
    assert float(found.nodes["spikes"].metadata["initial_membrane"]) == 0.5
    np.testing.assert_array_equal(found.nodes["spikes"].metadata["membrane_peak"], [3, 4])


def test_files_of_the_nir_package_are_read(tmp_path):
    graph = one_of_each()
    nir.write(tmp_path / "theirs.nir", graph)
    assert first_difference(graph, read_nir(tmp_path / "theirs.nir")) == ""


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda g: g.nodes.pop("scale"), "nodes scale"),
        (lambda g: g.edges.pop(), "edges"),
        (lambda g: g.nodes.update(last=nir.Affine(np.eye(2), np.ones(2))), "last is Affine, was IF"),
        (lambda g: g.nodes["affine"].weight.__setitem__((0, 0), 9), "affine.weight"),
        (lambda g: g.nodes["spikes"].metadata.update(initial_membrane=0.25), "spikes.metadata"),
        (lambda g: set_graph_notes(g, GraphNotes()), "metadata"),
        (lambda g: setattr(g.nodes["valid"], "padding", "same"), "valid.padding"),
        (lambda g: setattr(g.nodes["grouped"], "groups", 2), "grouped.groups"),
    ],
)
def test_differences_are_found(change, difference):
    global RNG
    RNG = np.random.default_rng(1)
    left = one_of_each()
    RNG = np.random.default_rng(1)
    right = one_of_each()
    assert first_difference(left, right) == ""
    change(right)
    assert first_difference(left, right) == difference


def test_nothing_is_written_that_cannot_be_read_back(tmp_path, monkeypatch):
    graph = one_of_each()
    other = one_of_each()
    other.nodes["affine"].bias = other.nodes["affine"].bias + 1
    monkeypatch.setattr(exporter.nir, "read", lambda *_, **__: other)
    with pytest.raises(FormatError, match=r"NIR did not keep the graph: .*; nothing was written"):
        write_nir(graph, tmp_path / "model.nir")
    assert list(tmp_path.iterdir()) == []


def test_what_the_nir_package_cannot_write(tmp_path):
    graph = one_of_each()
    graph.nodes["valid"].input_shape = None
    with pytest.raises(FormatError, match="the nir package cannot write this graph"):
        write_nir(graph, tmp_path / "model.nir")
    assert list(tmp_path.iterdir()) == []


# --- what is not a NIR file ------------------------------------------------------------------------------------------


def test_no_file(tmp_path):
    for path in (tmp_path / "nowhere.nir", tmp_path):
        with pytest.raises(FormatError, match="no such file; give the path of a NIR file"):
            read_nir(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n"])
def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "a.nir").write_bytes(content)
    with pytest.raises(FormatError, match="not a readable NIR file") as caught:
        read_nir(tmp_path / "a.nir")
    assert "\n" not in str(caught.value)


def test_a_truncated_file(tmp_path):
    write_nir(one_of_each(), tmp_path / "a.nir")
    content = (tmp_path / "a.nir").read_bytes()
    (tmp_path / "a.nir").write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match="not a readable NIR file"):
        read_nir(tmp_path / "a.nir")


def test_hdf5_that_is_no_nir(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.nir", "w") as file:
        file["weights"] = [1, 2, 3]
    with pytest.raises(FormatError, match="not a readable NIR file"):
        read_nir(tmp_path / "a.nir")


def test_a_single_node(tmp_path):
    nir.write(tmp_path / "a.nir", nir.Linear(np.eye(2)))
    with pytest.raises(FormatError, match="holds a single node, not a graph"):
        read_nir(tmp_path / "a.nir")


def test_a_cycle(tmp_path):
    graph = one_of_each()
    graph.edges.append(("last", "affine"))
    nir.write(tmp_path / "a.nir", graph)
    with pytest.raises(FormatError, match="a cycle through"):
        read_nir(tmp_path / "a.nir")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(tmp_path, value):
    graph = one_of_each()
    graph.nodes["linear"].weight[2, 3] = value
    nir.write(tmp_path / "a.nir", graph)
    with pytest.raises(FormatError, match=r"a.nir: linear.weight holds NaN or infinity"):
        read_nir(tmp_path / "a.nir")
