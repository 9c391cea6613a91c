"""NetX files: what is written, what is read, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from gascnn.exporters.netx import read_netx, recorded_digest, write_netx
from gascnn.toolkit.errors import DataError, FormatError, LimitError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork, Segment


def neuron(threshold: int = 20, **parameters: int) -> CubaNeuron:
    return CubaNeuron(np.array(threshold), **{k: np.array(v) for k, v in parameters.items()})


def conv(**changes: object) -> ConvLayer:
    values = {
        "shape": (4, 5, 3),
        "weight": 2 * np.random.default_rng(0).integers(-100, 100, (4, 2, 3, 3)),
        "stride": (1, 2),
        "padding": (1, 1),
        "dilation": (1, 1),
        "groups": 1,
        "neuron": neuron(),
        "bias": np.array([3, -4, 0, 9]),
        "segments": (Segment("population", "relu", 0, 3), Segment("relay", "input", 3, 4)),
    }
    return ConvLayer(**{**values, **changes})  # type: ignore[arg-type]


def dense(**changes: object) -> DenseLayer:
    values = {
        "shape": (3,),
        "weight": 2 * np.random.default_rng(1).integers(-100, 100, (3, 60)),
        "neuron": neuron(30),
        "flatten": True,
    }
    return DenseLayer(**{**values, **changes})  # type: ignore[arg-type]


def network(*layers: ConvLayer | DenseLayer, **changes: object) -> NetxNetwork:
    values = {"input": InputLayer((2, 5, 5)), "layers": layers or (conv(), dense())}
    return NetxNetwork(**{**values, **changes})  # type: ignore[arg-type]


DEPLOYMENT = Deployment(image_shape=(2, 5, 5), classes=("a", "b", "c"), steps=32, expected={"accuracy": 0.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.net"


def rewrite(path: Path, change: object) -> Path:
    """Change a file in place with h5py, as a stranger's tool would."""
    with h5py.File(path, "r+") as file:
        change(file)  # type: ignore[operator]
    return path


def replace(file: h5py.File, name: str, value: object) -> None:
    del file[name]
    file[name] = value


def test_layout_is_what_netx_reads(path: Path) -> None:
    write_netx(network(), path)
    with h5py.File(path, "r") as file:
        assert sorted(file["layer"]) == ["0", "1", "2", "3"]
        kinds = [file[f"layer/{i}/type"][0] for i in range(4)]
        assert kinds == [b"input", b"conv", b"flatten", b"dense"]
        assert file["layer/0/shape"][()].tolist() == [2, 5, 5]
        # The stored kernel is PyTorch's, unflipped; NetX flips it itself.
        np.testing.assert_array_equal(file["layer/1/weight"][()], conv().weight)
        assert file["layer/1/stride"][()].tolist() == [1, 2]
        assert file["layer/1/groups"][()] == 1
        assert file["layer/1/bias"][()].tolist() == [3, -4, 0, 9]
        cell = file["layer/1/neuron"]
        assert (cell["type"][0], cell["vThMant"][()], cell["iDecay"][()], cell["vDecay"][()]) == (b"CUBA", 20, 4096, 0)
        assert "messageBits" not in cell
        assert all(isinstance(file[f"layer/{i}"], h5py.Group) for i in range(4))


@pytest.mark.parametrize(
    "original",
    [
        network(deployment=DEPLOYMENT),
        network(conv(bias=np.arange(60).reshape(4, 5, 3)), dense()),
        network(conv(neuron=CubaNeuron(np.array([1, 2, 3, 4]), np.array([4096, 0, 7, 9]))), dense()),
        network(
            conv(bias=None), dense(delay=np.random.default_rng(2).integers(0, 62, (3, 60)), bias=np.array([1, 2, 3]))
        ),
        network(conv(), dense(weight_rec=2 * np.random.default_rng(3).integers(-9, 9, (3, 3)))),
        network(conv(weight=np.full((4, 2, 3, 3), 40_000)), dense()),
        network(
            conv(self_weight=np.array([20, 40, 60, 2])),
            dense(self_weight=np.array([8, 16, 24])),
            reset="subtract",
            constant_channels=1,
            input_bits=8,
        ),
        NetxNetwork(InputLayer((60,), neuron(5), weight=64, bias=2), (dense(flatten=False),)),
    ],
)
def test_what_is_read_is_what_was_written(original: NetxNetwork, path: Path) -> None:
    write_netx(original, path)
    found = read_netx(path)
    assert found.digest() == original.digest() == recorded_digest(path)
    assert (found.reset, found.input_bits, found.constant_channels) == (
        original.reset,
        original.input_bits,
        original.constant_channels,
    )
    assert found.deployment == original.deployment
    assert [layer.segments for layer in found.layers] == [layer.segments for layer in original.layers]
    for left, right in zip(found.layers, original.layers, strict=True):
        np.testing.assert_array_equal(left.weight, right.weight)
        assert left.shape == right.shape
        for name in ("bias", "self_weight"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_a_subtract_network_is_out_of_stock_netx_reach(path: Path) -> None:
    write_netx(network(conv(self_weight=np.full(4, 20)), dense(self_weight=np.full(3, 30)), reset="subtract"), path)
    with h5py.File(path, "r") as file:
        assert "layer" not in file
        assert file["gascnn/layer/1/self_weight"][()].tolist() == [20] * 4


def test_any_changed_integer_changes_the_digest(path: Path) -> None:
    write_netx(network(), path)
    before = read_netx(path).digest()

    def one_weight(file: h5py.File) -> None:
        weights = file["layer/3/weight"][()]
        weights[1, 7] += 2
        replace(file, "layer/3/weight", weights)

    rewrite(path, one_weight)
    assert read_netx(path).digest() != before
    assert recorded_digest(path) == before


def test_slayer_style_files_are_read_as_netx_does(path: Path) -> None:
    """float32 weights, a trailing time axis, 1-D dense weights, 0-d types: as lava-dl's slayer has written them."""
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer")
        first = layer.create_group("0")
        first["type"], first["shape"] = np.bytes_("input"), np.array([1, 4, 4])
        middle = layer.create_group("1")
        middle["type"], middle["shape"] = np.array([b"conv"]), np.array([2, 2, 2])
        weight = np.zeros((2, 1, 3, 3, 1), np.float32)
        weight[0, 0, 1, 1, 0], weight[1, 0, 0, 0, 0] = 5.99, -5.99
        middle["weight"] = weight
        for name, value in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
            middle[name] = value
        last = layer.create_group("2")
        last["type"], last["shape"] = "flatten", np.array([8])
        out = layer.create_group("3")
        out["type"], out["shape"] = "dense", np.array([3])
        out["weight"] = np.arange(24, dtype=np.float64)
        out["bias"] = np.array([-1.9, 2.0, 0.5], np.float32)
        out["delay"] = np.array([0.0, 3.7, 99.0], np.float32)
        for group in (middle, out):
            cell = group.create_group("neuron")
            cell["type"], cell["vThMant"], cell["iDecay"], cell["vDecay"] = np.array([b"CUBA"]), 80, 1024, 128
    found = read_netx(path)
    assert found.input_shape == (1, 4, 4)
    kernel, matrix = found.layers
    assert kernel.weight.shape == (2, 1, 3, 3)
    # NetX truncates towards zero.
    assert (kernel.weight[0, 0, 1, 1], kernel.weight[1, 0, 0, 0]) == (5, -5)
    assert isinstance(matrix, DenseLayer)
    assert matrix.weight[1].tolist() == list(range(8, 16))
    assert matrix.flatten
    assert matrix.bias is not None
    assert matrix.bias.tolist() == [-1, 2, 0]
    assert matrix.delay is not None
    assert matrix.delay[:, 0].tolist() == [0, 3, 62]
    assert int(matrix.neuron.current_decay) == 1024
    assert found.deployment is None
    assert recorded_digest(path) is None


def test_dense_without_neurons_accumulates_for_ever(path: Path) -> None:
    write_netx(network(), path)
    rewrite(path, lambda file: file.__delitem__("layer/3/neuron"))
    assert int(read_netx(path).layers[1].neuron.threshold) == 131072
    assert int(read_netx(path).layers[1].neuron.current_decay) == 0


def test_a_conv_delay_is_ignored_with_a_warning(path: Path) -> None:
    write_netx(network(), path)
    rewrite(path, lambda file: file.__setitem__("layer/1/delay", np.ones(4)))
    with pytest.warns(UserWarning, match="Lava ignores the delay of a convolution"):
        read_netx(path)


def test_input_shape_can_be_given_where_the_file_is_silent(path: Path) -> None:
    write_netx(network(), path)

    def forget(file: h5py.File) -> None:
        del file["gascnn"]
        del file["layer/0"]
        for index in (1, 2, 3):
            file.move(f"layer/{index}", f"layer/{index - 1}")

    rewrite(path, forget)
    with pytest.raises(FormatError, match="does not say its input's shape; give it with --input-shape C,H,W"):
        read_netx(path)
    assert read_netx(path, input_shape=(2, 5, 5)).input_shape == (2, 5, 5)


def _gap(file: h5py.File) -> None:
    file.move("layer/2", "layer/7")


def _conv_last(file: h5py.File) -> None:
    file.move("layer/1", "layer/x")
    file.move("layer/3", "layer/1")
    file.move("layer/x", "layer/3")


def _external(file: h5py.File) -> None:
    del file["layer/1/weight"]
    file["layer/1/weight"] = h5py.ExternalLink("elsewhere.h5", "/weight")


def _petabyte(file: h5py.File) -> None:
    del file["layer/3/weight"]
    file["layer/3"].create_dataset("weight", shape=(10**6, 10**9), dtype="f8", chunks=(1, 1024))


BROKEN = {
    "no layers": (lambda f: f.__delitem__("layer"), "no group 'layer' in it; this is not a NetX file"),
    "gap": (_gap, r"layers must be numbered 0..3 without gaps; found 0, 1, 3, 7"),
    "wrong order": (_conv_last, r"a convolution needs an input of \(C, H, W\)|weight"),
    "no flatten": (
        lambda f: (f.__delitem__("layer/2"), f.move("layer/3", "layer/2")),
        "no flatten between .* and a dense layer; NetX needs one; insert a flatten layer",
    ),
    "no stride": (lambda f: f.__delitem__("layer/1/stride"), "layer/1: no 'stride' in it"),
    "pool": (lambda f: replace(f, "layer/2/type", np.bytes_("pool")), "layer type 'pool' is not one NetX can load"),
    "rf": (lambda f: replace(f, "layer/1/neuron/type", np.bytes_("RF")), "neuron type RF is not supported"),
    "sdnn": (lambda f: replace(f, "layer/1/neuron/type", np.bytes_("SDNN")), "neurons of types CUBA and SDNN"),
    "message bits": (lambda f: f.__setitem__("layer/1/neuron/messageBits", 8), "messageBits cannot be loaded"),
    "decay": (lambda f: replace(f, "layer/1/neuron/iDecay", 5000), "iDecay must be 0..4096; found 5000..5000"),
    "shape": (lambda f: replace(f, "layer/1/shape", [4, 5, 4]), r"shape \(4, 5, 4\) does not follow from its input"),
    "groups": (lambda f: replace(f, "layer/1/groups", 2), "2 groups does not fit 2 input channels"),
    "nan": (lambda f: replace(f, "layer/3/weight", np.full((3, 60), np.nan)), "weight holds NaN or infinity"),
    "text": (lambda f: replace(f, "layer/1/groups", "one"), "groups holds .* not numbers"),
    "bias": (lambda f: replace(f, "layer/1/bias", np.zeros(5)), r"bias has shape \(5,\); expected \(4,\)"),
    "matrix": (lambda f: replace(f, "layer/3/weight", np.zeros((3, 61))), r"its input has 60 elements"),
    "external": (_external, "points to another file"),
    "huge": (_petabyte, "claims 1000000000000000 elements"),
    "record": (lambda f: replace(f, "gascnn/format", "gascnn-netx-9"), "written in format gascnn-netx-9"),
    "json": (lambda f: replace(f, "gascnn/deployment", "{"), "the deployment record is not what this version writes"),
    "schema": (
        lambda f: replace(f, "gascnn/deployment", json.dumps({"schema": 9})),
        "the deployment record has schema 9",
    ),
    "segments": (lambda f: replace(f, "gascnn/segments", "[]"), "segments describe 0 layers; the file has 2"),
    "segment fields": (lambda f: replace(f, "gascnn/segments", '[[{"a": 1}], []]'), "segments are not what"),
    "segment range": (
        lambda f: replace(f, "gascnn/segments", '[[{"kind": "relay", "name": "x", "start": 0, "stop": 9}], []]'),
        r"segments of layer_00 reach 0..9; it has 4",
    ),
    "input bits": (lambda f: replace(f, "gascnn/input_bits", 40), "input_bits is 40; it must be 0..16"),
    "planes": (lambda f: replace(f, "gascnn/constant_channels", 2), "constant_channels is 2; it must be 0..1"),
    "weight is a group": (
        lambda f: (f.__delitem__("layer/1/weight"), f.create_group("layer/1/weight")),
        "weight is not a plain dataset",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_lava_could_not_run_is_refused(name: str, path: Path) -> None:
    change, message = BROKEN[name]
    write_netx(network(deployment=DEPLOYMENT), path)
    with pytest.raises(FormatError, match=message) as raised:
        read_netx(rewrite(path, change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a whole HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 99, "not a whole HDF5 file"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the network; fetch it with git lfs pull",
        ),
    ],
)
def test_what_is_not_hdf5_is_refused(content: bytes, match: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError, match=match):
        read_netx(path)


def test_missing_and_truncated_files_are_refused(path: Path) -> None:
    with pytest.raises(FormatError, match="no such file; give the path of a NetX file"):
        read_netx(path)
    write_netx(network(), path)
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FormatError, match=r"not a whole HDF5 file|damaged"):
            read_netx(path)


HARDWARE = Deployment(image_shape=(2, 5, 5), classes=("a", "b", "c"), steps=8, grade="hardware")
LIMITS = {
    "odd weights": (network(conv(weight=np.full((4, 2, 3, 3), 3)), dense(), deployment=HARDWARE), "with odd ones"),
    "nine bits": (
        network(conv(weight=np.full((4, 2, 3, 3), 256)), dense(), deployment=HARDWARE),
        "even integers -256..254",
    ),
    "thresholds a channel": (
        network(conv(neuron=CubaNeuron(np.arange(4))), dense(), deployment=HARDWARE),
        "one value a layer on the chip",
    ),
    "thirteen bits of bias": (network(conv(bias=np.full(4, 4096)), dense(), deployment=HARDWARE), "-4095..4095"),
    "self weights": (
        network(
            conv(self_weight=np.array([1, 129, 3, 5])), dense(self_weight=np.ones(3, int)), reset="subtract",
            deployment=HARDWARE,
        ),
        "share no exponent",
    ),
    "int16 bias": (network(conv(bias=np.full(4, 40_000)), dense()), "at most 32767"),
    "threshold": (network(conv(neuron=neuron(131_072)), dense()), r"0..131071 \(17 bits\)"),
    "groups": (
        NetxNetwork(
            InputLayer((128, 1, 1)),
            (ConvLayer((128, 1, 1), np.full((128, 1, 1, 1), 2), (1, 1), (0, 0), (1, 1), 128, neuron()),),
        ),
        "128 groups; at most 127",
    ),
    "dense beyond eight bits": (network(conv(), dense(weight=np.full((3, 60), 256))), "NetX clips beyond"),
    "all-zero dense": (network(conv(), dense(weight=np.zeros((3, 60), int))), "all weights are zero"),
    "odd and one-signed dense": (
        network(conv(), dense(weight=np.where(np.arange(180).reshape(3, 60) % 7, -255, 0))),
        "come out as zeros in Lava without a word",
    ),
    "one-signed dense": (network(conv(), dense(weight=np.full((3, 60), -128))), r"NetX alters such weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_what_the_target_cannot_hold_is_not_written(name: str, path: Path) -> None:
    broken, message = LIMITS[name]
    with pytest.raises((LimitError, FormatError), match=message) as raised:
        write_netx(broken, path)
    assert str(raised.value).startswith("layer_0")
    assert not path.exists()
    assert not list(path.parent.iterdir())


def test_nothing_is_left_where_the_disk_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as handle:
            handle.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="the disk is full; free some space"):
        write_netx(network(), path)
    assert not list(path.parent.iterdir())


def test_an_older_file_survives_a_failed_write(path: Path) -> None:
    write_netx(network(), path)
    before = path.read_bytes()
    with pytest.raises(LimitError):
        write_netx(network(conv(bias=np.full(4, 40_000)), dense()), path)
    assert path.read_bytes() == before
