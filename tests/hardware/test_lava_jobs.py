"""What the worker is given and how its files are read, without Lava."""

import importlib
import json
import math

import h5py
import numpy as np
import pytest

from gascnn.exporters.netx import write_netx
from gascnn.hardware import lava
from gascnn.hardware.lava import supervisor
from gascnn.hardware.lava.jobs import PreparedTask, Task, write_job
from gascnn.hardware.lava.worker import subtract
from gascnn.hardware.lava.worker.processes.spikes import InputFile, OutputFile
from gascnn.toolkit.errors import BackendError, DataError, FormatError, LimitError, UsageError
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

SPIKES = np.ones((2, 5, 3), dtype=np.uint8)


def dense_network(weight=((2, 0, 0), (0, 2, 0)), threshold=1, **rest):
    layer_only = {name: rest.pop(name) for name in ("bias", "delay", "weight_rec", "self_weight") if name in rest}
    layer = DenseLayer((len(weight),), np.array(weight), CubaNeuron(np.array(threshold)), **layer_only)
    return NetxNetwork(InputLayer((len(weight[0]),)), (layer,), **rest)


# --- files of spikes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_input_goes_from_c_h_w_to_w_h_c_and_ends_in_silence(tmp_path, packed):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2 if packed else 256, (3, 4, 2, 3, 5)).astype(np.uint8)
    flat = values.reshape(3, 4, -1)
    np.save(tmp_path / "x.npy", np.packbits(flat, axis=-1) if packed else flat)

    source = InputFile(str(tmp_path / "x.npy"), packed, first_image=1, steps=6, shape=(5, 3, 2))

    for image in (1, 2):
        for step in range(6):
            found = source.step((image - 1) * 6 + step)
            assert found.dtype == np.int32
            assert found.shape == (5, 3, 2)
            expected = values[image, step] if step < 4 else np.zeros((2, 3, 5))
            np.testing.assert_array_equal(found, expected.transpose(2, 1, 0))


def test_output_is_packed_in_c_h_w_and_leftovers_are_cleared(tmp_path):
    rng = np.random.default_rng(1)
    spikes = rng.integers(0, 2, (8, 5, 3, 2))  # two images of four steps, (W, H, C)
    sink = OutputFile(str(tmp_path / "y"), counts=False, steps=4, silent=2)
    for step, values in enumerate(spikes):
        sink.step(step, values)

    bits = np.unpackbits(np.fromfile(tmp_path / "y", np.uint8).reshape(8, -1), axis=1, count=30).reshape(8, 2, 3, 5)

    expected = spikes.transpose(0, 3, 2, 1).copy()
    expected[4:6] = 0
    np.testing.assert_array_equal(bits, expected)


def test_output_counts_an_image(tmp_path):
    spikes = np.random.default_rng(2).integers(0, 2, (8, 6))
    sink = OutputFile(str(tmp_path / "y"), counts=True, steps=4, silent=1)
    for step, values in enumerate(spikes):
        sink.step(step, values)

    found = np.fromfile(tmp_path / "y", np.int32).reshape(2, 6)

    np.testing.assert_array_equal(found, [spikes[:4].sum(axis=0), spikes[5:].sum(axis=0)])


# --- self-inhibition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (6, 6), (127, 127), (134, 67), (128, 64), (131, 1)])
def test_the_inhibitory_kernel_is_diagonal(channels, groups):
    weight = np.random.default_rng(0).integers(1, 300, channels)

    kernel, found = subtract.conv_inhibition(weight)

    assert found == groups
    assert kernel.shape == (channels, 1, 1, channels // groups)
    full = np.zeros((channels, channels), dtype=int)
    for channel in range(channels):
        first = channel // (channels // groups) * (channels // groups)
        full[channel, first : first + channels // groups] = kernel[channel, 0, 0]
    np.testing.assert_array_equal(full, -np.diag(weight))


@pytest.mark.parametrize(
    ("weight", "parts"),
    [
        ([0, 0], 0),
        ([127, 1], 1),
        ([255, 3], 1),
        ([96, 160, 0], 1),
        ([127 << 7, 64 << 7], 1),
        ([257, 1], 2),
        ([70001], 3),
    ],
)
def test_inhibition_of_dense_neurons_is_eight_bits_at_a_time(weight, parts):
    found = subtract.dense_inhibition(np.array(weight))

    assert len(found) == parts
    assert all(mantissas.min() >= 0 and mantissas.max() <= 255 for mantissas, _ in found)
    total = sum((mantissas << exponent for mantissas, exponent in found), np.zeros(len(weight), dtype=int))
    np.testing.assert_array_equal(total, weight)


# --- what is refused before Lava is started --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (Task(dense_network(), SPIKES, steps=0), UsageError, r"steps is 0; it must be at least 1"),
        (Task(dense_network(), SPIKES[:, :, :2]), DataError, r"spikes of one step have shape \(2,\)"),
        (Task(dense_network(), SPIKES * 2), DataError, r"spikes must be integers 0..1; found 2..2"),
        (Task(dense_network(), SPIKES, skip_steps=5), UsageError, r"skip_steps is 5; it must be 0..4 of 5"),
        (Task(dense_network(), SPIKES, record="all"), UsageError, r"record is 'all'; it must be 'spikes' or 'counts'"),
        (
            Task(dense_network(self_weight=np.array([3, 3]), reset="subtract"), SPIKES, stock=True),
            UsageError,
            r"stock Lava has no reset by subtraction",
        ),
        (Task(dense_network(((0, 0, 0), (0, 0, 0))), SPIKES), LimitError, r"layer_00 \(dense\): all weights are zero"),
        (Task(dense_network(((300, 0, 1),)), SPIKES), LimitError, r"layer_00 .*exceed 8 bits; NetX drops all of them"),
        (Task(dense_network(((-255, 0, 0),)), SPIKES), LimitError, r"layer_00 .*come out as zeros in Lava"),
        (
            Task(dense_network(((2**29, 2**29, 2**30),)), SPIKES),
            LimitError,
            r"layer_00 .*sum to 2147483648; below 2\^31",
        ),
        (
            Task(
                dense_network(weight_rec=np.ones((2, 2), dtype=int), delay=np.ones((2, 3), dtype=int)),
                SPIKES,
            ),
            LimitError,
            r"layer_00 .*recurrent synapses with delays",
        ),
        (Task("nowhere.net", SPIKES), FormatError, r"nowhere.net: no such file"),
    ],
)
def test_refusals(task, error, message):
    with pytest.raises(error, match=message):
        PreparedTask(task, 0)


def test_nothing_to_run():
    with pytest.raises(UsageError, match="nothing to run"):
        lava.run_many([])


def test_a_file_that_needs_its_input_shape(tmp_path):
    path = tmp_path / "a.net"
    kernel = np.ones((1, 1, 2, 2), dtype=int)
    layer = ConvLayer((1, 2, 2), kernel, (1, 1), (0, 0), (1, 1), 1, CubaNeuron(np.array(1)))
    write_netx(NetxNetwork(InputLayer((1, 3, 3)), (layer,)), path)
    with h5py.File(path, "a") as file:
        del file["gascnn"], file["layer/0"]
        file.move("layer/1", "layer/0")
    spikes = np.ones((1, 4, 1, 3, 3), dtype=np.uint8) * 9

    with pytest.raises(FormatError, match="does not say its input's shape"):
        PreparedTask(Task(path, spikes), 0)

    task = PreparedTask(Task(path, spikes, input_shape=(1, 3, 3), input_bits=4), 0)
    assert task.write(tmp_path)["input_bits"] == 4
    assert (tmp_path / "run_0.net").read_bytes() == path.read_bytes()


# --- when images may follow each other -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (dense_network(), True),
        (dense_network(bias=np.array([0, 0])), True),
        (dense_network(bias=np.array([0, 1])), False),
        (dense_network(delay=np.zeros((2, 3), dtype=int)), False),
        (dense_network(weight_rec=np.array([[2, 0], [0, 2]])), False),
        (dense_network(self_weight=np.array([3, 3]), reset="subtract"), False),
        (dense_network(threshold=-1), False),
    ],
)
def test_when_images_follow_each_other(network, expected):
    assert PreparedTask(Task(network, SPIKES), 0).follow_each_other is expected
    assert not PreparedTask(Task(network, SPIKES[:1]), 0).follow_each_other


@pytest.mark.parametrize(
    ("settings", "models"),
    [({}, "fast"), ({"stock_models": True}, "stock"), ({"stock": True}, "stock")],
)
def test_which_process_models_run(tmp_path, settings, models):
    assert PreparedTask(Task(dense_network(), SPIKES, **settings), 0).write(tmp_path)["models"] == models


# --- reading results -------------------------------------------------------------------------------------------------


def prepared(tmp_path, **rest):
    task = PreparedTask(Task(dense_network(**rest.pop("network", {})), SPIKES, **rest), 0)
    write_job([task], tmp_path)
    return task, json.loads((tmp_path / "job.json").read_text())["runs"][0]


def test_a_result_is_read_from_the_files(tmp_path):
    theta = {"self_weight": np.array([3, 5]), "reset": "subtract"}
    task, run = prepared(tmp_path, network=theta, skip_steps=2)
    bits = np.random.default_rng(5).integers(0, 2, (2, 6, 2))
    bits[:, -1] = [[1, 0], [1, 1]]
    np.packbits(bits, axis=2).tofile(tmp_path / run["layers"][0]["output"])
    np.save(tmp_path / run["membrane"], np.array([[10, 20], [30, 40]]))
    report = {"models": "fast", "why_stock": None, "start_s": 0.5, "image_s": [0.1, 0.2]}
    (tmp_path / run["report"]).write_text(json.dumps(report))

    result = task.read(tmp_path)

    np.testing.assert_array_equal(result.spikes[0], bits.astype(bool))
    np.testing.assert_array_equal(result.counts[0], bits.sum(axis=1))
    np.testing.assert_array_equal(result.output_counts, bits[:, 3:].sum(axis=1))
    # What fired last still has its threshold, in 1/64 weight units, to be taken off.
    np.testing.assert_array_equal(result.output_membrane, [[10 - 192, 20], [30 - 192, 40 - 320]])
    assert task.finished(tmp_path) == (12, 2.0)
    assert (result.models, result.why_stock, result.start_s, result.image_s) == ("fast", None, 0.5, (0.1, 0.2))


def test_an_incomplete_result_is_an_error(tmp_path):
    task, run = prepared(tmp_path)
    assert task.finished(tmp_path) == (0, 0.0)
    (tmp_path / run["layers"][0]["output"]).write_bytes(bytes(11))
    assert task.finished(tmp_path) == (11, pytest.approx(11 / 6))

    with pytest.raises(BackendError, match=r"Lava's output of layer_00 \(dense\) has 11 bytes; expected 12"):
        task.read(tmp_path)

    (tmp_path / run["layers"][0]["output"]).write_bytes(bytes(12))
    with pytest.raises(BackendError, match="final membrane potentials are incomplete"):
        task.read(tmp_path)

    np.save(tmp_path / run["membrane"], np.zeros((2, 2)))
    with pytest.raises(BackendError, match="report on its run is incomplete"):
        task.read(tmp_path)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_args, **_rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    task = PreparedTask(Task(dense_network(), SPIKES), 0)

    with pytest.raises(BackendError, match=r"could not write Lava's input to .*No space left on device; free some"):
        write_job([task], tmp_path)


def test_inputs_are_packed_bits_or_integers(tmp_path):
    _, run = prepared(tmp_path)
    assert run["packed"]
    assert np.load(tmp_path / run["input"]).shape == (2, 5, math.ceil(3 / 8))

    graded = PreparedTask(Task(dense_network(input_bits=8), SPIKES * 200), 1).write(tmp_path)
    assert not graded["packed"]
    np.testing.assert_array_equal(np.load(tmp_path / graded["input"]), SPIKES * 200)


@pytest.mark.parametrize(
    "name",
    [
        *("main", "events", "guard", "graph", "stock", "subtract", "session", "watch", "arithmetic", "models"),
        "processes.spikes",
    ],
)
def test_the_worker_imports_where_there_is_no_lava(name):
    module = importlib.import_module(f"gascnn.hardware.lava.worker.{name}")

    assert module.__doc__
    assert supervisor.WORKER.name == "main.py"
    assert supervisor.WORKER.is_file()
