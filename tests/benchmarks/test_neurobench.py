"""Synaptic operations equal NeuroBench's: against its recorded answer, and against NeuroBench itself where it is.

``python tests/benchmarks/test_neurobench.py .venv-peers/bin/python`` records its answer anew (after ``make peers``).
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from gascnn.benchmarks.contenders import peers_python
from gascnn.benchmarks.neurobench_check import compare, neurobench_check, neurobench_counts_of
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import BackendError
from gascnn.toolkit.files import write_json
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

ANSWER = Path(__file__).with_name("neurobench_answer.json")
COMMAND = "python tests/benchmarks/test_neurobench.py .venv-peers/bin/python"


def integers(seed, shape, low, high):
    """The same on every version of NumPy: from SHA-256, not from its generators."""
    size = int(np.prod(shape))
    blocks = (hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range(-(-size // 8)))
    numbers = np.frombuffer(b"".join(blocks), dtype="<u4")[:size]
    return (numbers.astype(np.int64) % (high - low) + low).reshape(shape)


def conv(seed, before, channels, kernel, groups=1, stride=(1, 1), padding=(0, 0), dilation=(1, 1), **more):
    weight = integers(seed, (channels, before[0] // groups, *kernel), -3, 7) * 2
    shape = conv_output_shape(before, weight.shape, stride, padding, dilation)
    return ConvLayer(shape, weight, stride, padding, dilation, groups, CubaNeuron(np.array(15)), **more)


def dense(seed, inputs, neurons, threshold=30, **more):
    weight = integers(seed, (neurons, inputs), -2, 5) * 2
    return DenseLayer((neurons,), weight, CubaNeuron(np.array(threshold)), **more)


def convolutions(input_bits=0):
    """Two convolutions with borders, strides of two kinds, dilation and groups, and a dense layer."""
    first = conv(1, (2, 9, 8), 6, (3, 3), stride=(2, 1), padding=(1, 2))
    second = conv(2, first.shape, 4, (2, 3), groups=2, stride=(1, 2), padding=(0, 1), dilation=(2, 1))
    last = dense(3, int(np.prod(second.shape)), 5, flatten=True)
    return NetxNetwork(InputLayer((2, 9, 8)), (first, second, last), input_bits)


def with_skips():
    """Relays, an always-on plane, and reset by subtraction."""
    first = conv(
        4, (2, 7, 7), 5, (3, 3), padding=(1, 1), self_weight=np.full(5, 16),
        segments=(Segment("population", "a", 0, 3), Segment("relay", "input", 3, 4), Segment("always-on", "on", 4, 5)),
    )  # fmt: skip
    second = conv(5, first.shape, 4, (3, 3), stride=(2, 2), padding=(1, 1), self_weight=np.full(4, 16))
    last = dense(6, int(np.prod(second.shape)), 3, self_weight=np.full(3, 30), flatten=True)
    return NetxNetwork(InputLayer((2, 7, 7)), (first, second, last), 0, "subtract", constant_channels=1)


def sigma_delta():
    """Graded messages, of which a few are 1 or -1 and none in a whole batch of frames."""
    hidden = DenseLayer((4,), integers(7, (4, 12), -9, 40) * 2, SigmaDeltaNeuron(np.array(2)))
    last = DenseLayer((3,), integers(8, (3, 4), -9, 40) * 2, SigmaDeltaNeuron(read_out=True))
    return NetxNetwork(InputLayer((12,), SigmaDeltaNeuron(np.array(0))), (hidden, last), input_bits=8)


def dense_layers():
    return NetxNetwork(InputLayer((40,)), (dense(9, 40, 30), dense(10, 30, 20), dense(11, 20, 4, 20)))


NETWORKS = {
    "convolutions": convolutions,
    "graded input": lambda: convolutions(8),
    "dense layers": dense_layers,
    "skips and reset by subtraction": with_skips,
    "sigma-delta": sigma_delta,
}


def run_of(name, images=4, steps=6):
    network = NETWORKS[name]()
    bare = (network.input_shape[0] - network.constant_channels, *network.input_shape[1:])
    there = integers(f"where {name}", (images, steps, *bare), 0, 3) == 0
    fed = there * (integers(f"what {name}", there.shape, 2, 256) if network.input_bits else 1)
    inputs = checked_spikes(network, fed.astype(np.uint8))
    return network, inputs, simulate(network, inputs, record="spikes")


def digest(network, inputs, result):
    """Of everything that NeuroBench was given."""
    found = hashlib.sha256(network.digest().encode())
    for array in (inputs, *result.spikes):
        found.update(np.packbits(array != 0).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_equal_neurobenchs_recorded_answer(name):
    network, inputs, result = run_of(name)
    recorded = json.loads(ANSWER.read_text())
    answer = recorded["networks"][name]
    assert digest(network, inputs, result) == answer["digest"], f"another network or input; record anew: {COMMAND}"
    found = compare(network, inputs, result, {"versions": recorded["versions"], "layers": answer["layers"]})
    assert all(layer["ours"]["effective"] > 0 for layer in found["layers"])
    assert found["ours"] == found["neurobench"]
    assert found["equal"]


def test_what_neurobench_leaves_out_is_told_apart():
    """Own spikes of reset by subtraction; pixels of value zero; spikes are ACs, graded input and messages MACs."""
    recorded = json.loads(ANSWER.read_text())

    def found(name):
        network, inputs, result = run_of(name)
        told = {"versions": recorded["versions"], "layers": recorded["networks"][name]["layers"]}
        return compare(network, inputs, result, told), result

    skips, result = found("skips and reset by subtraction")
    assert skips["apart"] == {"own": sum(int(spikes.sum()) for spikes in result.spikes), "zero_pixels": 0}
    graded, _ = found("graded input")
    first, *others = graded["layers"]
    assert (first["acs"], first["macs"]) == (0, first["ours"]["effective"])
    # Billed here at every step of T, whatever the pixel is: the same number of operations in each.
    billed = first["ours"]["effective"] + first["apart"]["zero_pixels"]
    assert billed % (graded["images"] * graded["steps"]) == 0
    assert first["apart"]["zero_pixels"] > first["ours"]["effective"]  # two pixels of three are zero
    assert all(layer["macs"] == 0 for layer in others)
    messages, _ = found("sigma-delta")
    assert messages["layers"][1]["acs"] == 0


def test_a_single_operation_of_difference_is_seen():
    network, inputs, result = run_of("convolutions")
    recorded = json.loads(ANSWER.read_text())
    layers = recorded["networks"]["convolutions"]["layers"]
    for change in ({"acs": 1}, {"dense": 1}, {"acs": -1, "macs": 1}):
        other = copy.deepcopy(layers)
        for name, difference in change.items():
            other[1][name] += difference
        found = compare(network, inputs, result, {"versions": {}, "layers": other})
        assert not found["equal"]
        assert [layer["equal"] for layer in found["layers"]] == [True, False, True]


@pytest.mark.peers
def test_counts_equal_neurobenchs_own():
    python = peers_python()
    assert python is not None, "NeuroBench itself runs in the environment of 'make peers'; run make test-peers"
    network, inputs, _ = run_of("convolutions")
    found = neurobench_check(network, inputs, python)
    assert found["equal"]
    recorded = json.loads(ANSWER.read_text())
    told = [{name: layer[name] for name in ("acs", "macs")} for layer in found["layers"]]
    answer = recorded["networks"]["convolutions"]["layers"]
    assert told == [{name: layer[name] for name in ("acs", "macs")} for layer in answer]


# --- its process -----------------------------------------------------------------------------------------------------


def interpreter(folder, body):
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


def test_what_the_process_is_given(tmp_path):
    """Frames of every layer, one an image and step of T + K, and its weights as they are stored."""
    network, inputs, result = run_of("graded input")
    body = f"""
import json, pathlib, shutil, sys
assert sys.argv[1:3] == ["-I", "-B"] and sys.argv[3].endswith("neurobench_counts.py")
plan = pathlib.Path(sys.argv[4])
kept = pathlib.Path({str(tmp_path / "kept")!r})
shutil.copytree(plan.parent, kept)
pathlib.Path(sys.argv[5]).write_text(json.dumps({{"versions": {{}}, "layers": []}}))
"""
    assert neurobench_counts_of(network, inputs, result, interpreter(tmp_path, body)) == {"versions": {}, "layers": []}
    plan = json.loads((tmp_path / "kept" / "plan.json").read_text())
    assert [layer["kind"] for layer in plan["layers"]] == ["conv", "conv", "dense"]
    assert plan["layers"][1]["groups"] == 2
    assert plan["layers"][1]["dilation"] == [2, 1]
    first, second, _ = (np.load(tmp_path / "kept" / layer["spikes"]) for layer in plan["layers"])
    np.testing.assert_array_equal(first.reshape(4, 9, 2, 9, 8)[:, :6], inputs)
    np.testing.assert_array_equal(second.reshape(4, 9, *network.layers[0].shape), result.spikes[0])
    stored = np.load(tmp_path / "kept" / plan["layers"][0]["weight"])
    np.testing.assert_array_equal(stored, network.layers[0].weight)


def test_a_process_that_fails(tmp_path):
    network, inputs, _ = run_of("dense layers")
    broken = interpreter(tmp_path, "import sys; sys.exit('no neurobench here')")
    with pytest.raises(BackendError, match=r"NeuroBench failed in .*/python \(no neurobench here\); run 'make peers'"):
        neurobench_check(network, inputs, broken)
    with pytest.raises(BackendError, match=r"could not start .*nothing: No such file or directory; run 'make peers'"):
        neurobench_check(network, inputs, tmp_path / "nothing")


def record(python):
    """Write NeuroBench's answer for every network."""
    networks, versions = {}, {}
    for name in NETWORKS:
        network, inputs, result = run_of(name)
        told = neurobench_counts_of(network, inputs, result, python)
        networks[name] = {"digest": digest(network, inputs, result), "layers": told["layers"]}
        versions = told["versions"]
    write_json(ANSWER, {"command": COMMAND, "versions": versions, "networks": networks})


if __name__ == "__main__":
    record(Path(sys.argv[1]).absolute())
