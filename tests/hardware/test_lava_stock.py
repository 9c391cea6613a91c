"""Lava's own ways: a file written by its trainer, and our file in the example's few lines of stock lava-dl."""

import contextlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gascnn.exporters.netx import read_netx, write_netx
from gascnn.hardware import lava
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import LimitError
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork
from gascnn.toolkit.lowering.netx_dense import effective_dense

pytestmark = pytest.mark.lava

EXAMPLE = Path(__file__).parents[2] / "examples" / "stock_lava.py"

SLAYER = """
import sys
import h5py, numpy as np, torch
from lava.lib.dl import slayer

torch.manual_seed(5)
cell = {"threshold": 0.6, "current_decay": 0.4, "voltage_decay": 0.1}
blocks = [
    slayer.block.cuba.Conv(cell, 2, 4, 3, stride=2, padding=1, weight_scale=3),
    slayer.block.cuba.Conv(cell, 4, 4, 3, padding=1, groups=2, weight_scale=3),
    slayer.block.cuba.Flatten(),
    slayer.block.cuba.Dense(cell, 64, 10, weight_scale=3, delay=True),
    slayer.block.cuba.Dense(cell, 10, 3, weight_scale=3),
]
for block in blocks:
    block.eval()
spikes = (torch.rand(2, 2, 8, 8, 14, generator=torch.Generator().manual_seed(1)) < 0.4).float()
with torch.no_grad():
    value = spikes
    for block in blocks:
        value = block(value)  # a delay takes its shape from the first input
    blocks[3].delay.delay.copy_((torch.arange(10) % 4 + 0.5).reshape(blocks[3].delay.delay.shape))
    value = spikes
    for block in blocks:
        value = block(value)
with h5py.File(sys.argv[1], "w") as file:
    layers = file.create_group("layer")
    for index, block in enumerate(blocks):
        block.export_hdf5(layers.create_group(str(index)))
np.savez(sys.argv[2], spikes=spikes.numpy().astype(np.uint8), answer=value.numpy().astype(np.uint8))
"""

ENCODING = """
import importlib.util, pathlib, sys, warnings
import numpy as np
from lava.utils import weightutils as dense

warnings.simplefilter("ignore")
root = pathlib.Path(dense.__file__).parents[1]
spec = importlib.util.spec_from_file_location("netx_utils", root / "lib" / "dl" / "netx" / "utils.py")
netx = importlib.util.module_from_spec(spec)
spec.loader.exec_module(netx)
stored, out = np.load(sys.argv[1]), {}
for name in stored.files:
    parts = np.hsplit(stored[name], [3])
    try:
        weight, bits, exponent, _ = netx.optimize_weight_bits(np.hstack([p for p in parts if p.size]))
    except OverflowError:
        out[name] = np.zeros((0, 0))
        continue
    encoded = []
    for part in np.hsplit(weight, [3]):
        if part.size:
            mode = dense.determine_sign_mode(part)
            encoded.append(dense.truncate_weights(dense.clip_weights(part, mode, num_bits=8), mode, bits))
    out[name], out[name + " exponent"] = np.hstack(encoded), exponent
np.savez(sys.argv[2], **out)
"""


@pytest.fixture(scope="module")
def python():
    """Runs something with Lava's own Python."""
    found = lava.find_lava()
    assert found is not None, "Lava is missing: run make setup"

    def run(*arguments):
        result = subprocess.run([found.python, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr

    return run


def test_a_file_of_lavas_own_trainer(python, tmp_path):
    path = tmp_path / "slayer.net"
    python("-c", SLAYER, path, tmp_path / "slayer.npz")
    with np.load(tmp_path / "slayer.npz") as file:
        spikes, answer = file["spikes"].transpose(0, 4, 1, 2, 3), file["answer"]

    network = read_netx(path, input_shape=(2, 8, 8))
    expected = simulate(network, spikes, record="spikes")
    found = lava.run(path, spikes, input_shape=(2, 8, 8), stock=True)

    assert [layer.shape for layer in network.layers] == [(4, 4, 4), (4, 4, 4), (10,), (3,)]
    assert network.layers[2].delay.max() == 3
    for theirs, ours in zip(found.spikes, expected.spikes, strict=True):
        np.testing.assert_array_equal(theirs, ours)
        assert 0.02 < theirs.mean() < 0.98
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)
    # The trainer's own answer, (image, class, step), index for index.
    np.testing.assert_array_equal(found.spikes[-1][:, : answer.shape[2]].transpose(0, 2, 1), answer)


@pytest.mark.parametrize("graded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_example_runs_our_file_in_stock_lava(python, tmp_path, graded):
    rng = np.random.default_rng(8)
    threshold = 9000 if graded else 60
    first = ConvLayer(
        (3, 4, 3), rng.integers(-20, 50, (3, 1, 3, 3)) * 2, (2, 2), (1, 1), (1, 1), 1, CubaNeuron(np.array(threshold))
    )
    second = DenseLayer((4,), rng.integers(-30, 50, (4, 36)) * 2, CubaNeuron(np.array(150)), flatten=True)
    network = NetxNetwork(InputLayer((1, 7, 6)), (first, second), input_bits=8 if graded else 0)
    write_netx(network, tmp_path / "a.net")
    spikes = (rng.random((2, 9, 1, 7, 6)) < 0.4).astype(np.uint8) * (200 if graded else 1)
    np.savez(tmp_path / "spikes.npz", spikes=spikes)

    python(EXAMPLE, tmp_path / "a.net", tmp_path / "spikes.npz", tmp_path / "out.npz")

    expected = simulate(network, spikes, record="spikes")
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["spikes"], expected.spikes[1][:, 2:])
        np.testing.assert_array_equal(out["counts"], expected.output_counts)
        assert out["counts"].any()


def matrices(rng, number):
    """Matrices of every kind: of one sign or two, even and odd, beyond 8 bits, with a recurrent part or without."""
    for index in range(number):
        low, high = sorted(rng.integers(-320, 320, 2))
        kind = rng.integers(4)
        if kind == 0:
            low, high = min(low, 0), min(high, 0)
        elif kind == 1:
            low, high = max(low, 0), max(high, 0)
        matrix = rng.integers(low, high + 1, (2, 3 if index % 2 else 5))
        if rng.random() < 0.5:
            matrix = matrix // 2 ** rng.integers(0, 6) * 2 ** rng.integers(0, 4)
        if rng.random() < 0.3:
            matrix[0, 0] = 0
        if rng.random() < 0.3:
            matrix[:, 3:] = -np.abs(matrix[:, 3:]) if rng.random() < 0.5 else np.abs(matrix[:, 3:])
        yield str(index), matrix


def test_dense_weights_are_re_encoded_as_lava_does(python, tmp_path):
    stored = dict(matrices(np.random.default_rng(4), 3000))
    np.savez(tmp_path / "in.npz", **stored)
    python("-c", ENCODING, tmp_path / "in.npz", tmp_path / "out.npz")

    refused = altered = 0
    with np.load(tmp_path / "out.npz") as out:
        for name, matrix in stored.items():
            parts = [part for part in np.hsplit(matrix, [3]) if part.size]
            layer = DenseLayer((2,), parts[0], CubaNeuron(np.array(1)), weight_rec=parts[1] if len(parts) > 1 else None)
            theirs = out[name]
            ours = None
            with contextlib.suppress(LimitError):
                ours = effective_dense(layer, f"layer {name}")
            if ours is None:
                vanished = [
                    part.any() and not theirs[:, start : start + part.shape[1]].any()
                    for part, start in zip(parts, (0, 3), strict=False)
                ]
                assert not theirs.size or any(vanished), matrix.tolist()
                refused += 1
                continue
            weight = ours.weight if ours.recurrent is None else np.hstack([ours.weight, ours.recurrent])
            shift = -int(out[f"{name} exponent"])
            assert ours.shift in (0, shift)
            np.testing.assert_array_equal(weight << (shift - ours.shift), theirs, err_msg=str(matrix.tolist()))
            altered += not np.array_equal(theirs >> shift, matrix)
    assert refused > 100
    assert altered > 100
