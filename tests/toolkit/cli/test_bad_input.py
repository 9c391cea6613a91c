"""Bad input: one line that says what and where, exit status 1 or 2, no half-written file."""

import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gascnn.exporters.netx import read_netx, write_netx
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import first_line
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork


def assert_refused(outcome, message, status=2):
    assert outcome.status == status
    assert message in outcome.error
    assert len(outcome.err.strip().splitlines()) == 1


def test_exceptions_that_say_nothing_are_named():
    assert first_line(EOFError()) == "EOFError"
    assert first_line(OSError("\nno such device\n(details)")) == "no such device"


def test_missing_and_truncated_files(gascnn, models, tmp_path):
    assert_refused(gascnn("run", tmp_path / "no.net", "--data", "digits"), "nothing there; give a bundle, a NetX file")
    cut = tmp_path / "cut.net"
    cut.write_bytes(models.zero.read_bytes()[:5000])
    assert_refused(gascnn("run", cut, "--data", "digits"), "not a whole HDF5 file")
    assert_refused(gascnn("verify", cut, "--data", "digits"), "not a whole HDF5 file")
    cut.with_suffix(".nir").write_bytes(models.nir.read_bytes()[:5000])
    assert_refused(gascnn("run", cut.with_suffix(".nir"), "--data", "digits"), "not a readable NIR file")
    assert_refused(gascnn("run", tmp_path, "--data", "digits"), "a folder without model.json")
    text = tmp_path / "text.net"
    text.write_text("hello")
    assert_refused(gascnn("run", text, "--data", "digits"), "not a whole HDF5 file")


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps(gascnn, models, tmp_path, steps):
    message = f"--steps is {steps}; it must be at least 1"
    assert_refused(gascnn("run", models.zero, "--data", "digits", "--steps", steps), message)
    assert_refused(gascnn("verify", models.zero, "--data", "digits", "--steps", steps), message)
    assert_refused(
        gascnn("export", models.snn, "--target", "lava", "--steps", steps, "-o", tmp_path / "x.net"), message
    )
    assert_refused(
        gascnn("convert", models.ann, "--data", "digits", "--steps", steps, "-o", tmp_path / "x"), f"steps is {steps}"
    )
    assert_refused(gascnn("demo", "--steps", steps, "-o", tmp_path / "d"), message)
    assert not list(tmp_path.iterdir())


def test_more_steps_than_anything_is_fitted_for(gascnn, models, tmp_path):
    message = "steps is 10000; it must be 1..1000"
    assert_refused(gascnn("convert", models.ann, "--data", "digits", "--steps", 10_000, "-o", tmp_path / "x"), message)
    assert not list(tmp_path.iterdir())


def test_wrong_use(gascnn, models, tmp_path):
    assert_refused(gascnn("run", models.zero), "give either --data or --input")
    assert_refused(gascnn("run", models.zero, "--data", "digits", "--limit", 0), "--limit is 0; it must be at least 1")
    assert_refused(gascnn("run", models.zero, "--data", "digits", "--batch-size", 0), "--batch-size is 0")
    assert_refused(gascnn("run", models.zero, "--data", "nothing-of-that-name"), "neither a data set's name")
    assert_refused(
        gascnn("run", models.ann, "--data", "digits", "--backend", "lava"), "is not a NetX file; only those run on"
    )
    assert_refused(gascnn("run", models.zero, "--data", "digits", "--backend", "tpu"), "'tpu' is not one of")
    assert_refused(gascnn("verify", models.ann, "--data", "digits"), "is not a NetX file; export it first")
    assert_refused(gascnn("convert", models.snn, "--data", "digits", "-o", tmp_path / "x"), "is already spiking")
    assert_refused(gascnn("export", models.zero, "--target", "lava", "-o", tmp_path / "x"), "is a NetX file already")
    assert_refused(gascnn("export", models.snn, "--target", "tpu", "-o", tmp_path / "x"), "'tpu' is not one of")
    assert_refused(
        gascnn(
            "export", models.snn, "--target", "lava", "--reset", "subtract", "--bias", "neuron", "-o", tmp_path / "x"
        ),
        "use bias input",
    )
    assert_refused(gascnn("nonsense"), "No such command 'nonsense'")
    assert_refused(gascnn("run", models.zero, "--data", "digits", "--nonsense"), "No such option")
    assert_refused(
        gascnn("train", "--data", "digits", "--preset", "huge", "-o", tmp_path / "x"), "no preset 'huge'; known:"
    )
    assert not list(tmp_path.iterdir())


def test_images_of_another_size_or_kind(gascnn, models, tmp_path):
    def given(**arrays):
        np.savez(tmp_path / "in.npz", **arrays)
        return gascnn("run", models.zero, "--input", tmp_path / "in.npz")

    assert_refused(
        given(images=np.zeros((2, 1, 9, 8), np.uint8)), "images have shape (1, 9, 8); this network takes (1, 8, 8)"
    )
    assert_refused(given(images=np.zeros((2, 3, 8, 8), np.uint8)), "images have shape (3, 8, 8)")
    assert_refused(given(images=np.full((2, 1, 8, 8), np.nan)), "images holds NaN or infinity")
    assert_refused(given(images=np.full((2, 1, 8, 8), 1.5)), "float images must be 0..1; found 1.5..1.5")
    assert_refused(given(images=np.zeros((2, 1, 8, 8), np.int64)), "images are int64; expected uint8")
    assert_refused(given(images=np.zeros((0, 1, 8, 8), np.uint8)), "with at least one image")
    assert_refused(given(spikes=np.full((2, 3, 1, 8, 8), 2)), "spikes must be integers 0..1; found 2..2")
    assert_refused(given(spikes=np.zeros((2, 3, 1, 7, 8))), "spikes of one step have shape (1, 7, 8)")
    assert_refused(given(other=np.zeros(3)), "it must hold either 'images' or 'spikes'")
    assert_refused(given(images=np.array([{"a": 1}], dtype=object)), "not a readable .npz file")
    (tmp_path / "in.npz").write_bytes(b"")
    assert_refused(gascnn("run", models.zero, "--input", tmp_path / "in.npz"), "not a readable .npz file")
    (tmp_path / "in.npz").write_bytes(b"PK\x03\x04broken")
    assert_refused(gascnn("run", models.zero, "--input", tmp_path / "in.npz"), "not a readable .npz file")
    assert_refused(gascnn("run", models.zero, "--input", tmp_path / "no.npz"), "no such file; give an .npz")


def test_data_of_other_classes(gascnn, models, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=np.arange(40) % 2)
    assert_refused(gascnn("run", models.zero, "--data", tmp_path / "two.npz"), "has 2 classes")


def test_a_class_folder_with_one_unreadable_file(gascnn, models, tmp_path):
    for name in ("healthy", "ill"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng(index + 100 * len(name)).integers(0, 255, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{index}.png")
    broken = tmp_path / "set" / "ill" / "5.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert_refused(gascnn("train", "--data", tmp_path / "set", "--preset", "smoke", "-o", tmp_path / "x"), "5.png")
    assert_refused(gascnn("predict", models.zero, tmp_path / "set", "-o", tmp_path / "x.csv"), "5.png")
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_bundles_that_do_not_fit(gascnn, models, tmp_path):
    from safetensors.numpy import load_file, save_file

    bundle = tmp_path / "ann"
    shutil.copytree(models.ann, bundle)
    tensors = load_file(bundle / "weights.safetensors")
    save_file({**tensors, "fc.weight": tensors["fc.weight"][:, :-1]}, bundle / "weights.safetensors")
    assert_refused(gascnn("run", bundle, "--data", "digits"), "their SHA-256 differs")
    from gascnn.toolkit.bundle import load_bundle, save_bundle

    whole = load_bundle(models.ann)
    shape = {**whole.tensors, "fc.weight": whole.tensors["fc.weight"][:, :-1].copy()}
    save_bundle(replace(whole, tensors=shape), bundle)
    assert_refused(gascnn("run", bundle, "--data", "digits"), "tensor fc.weight has shape (10, 15)")
    (bundle / "weights.safetensors").unlink()
    assert_refused(gascnn("run", bundle, "--data", "digits"), "weights.safetensors is missing")
    (bundle / "model.json").write_text("{")
    assert_refused(gascnn("run", bundle, "--data", "digits"), "not readable JSON")


def wrapping_network():
    """One neuron that adds 2 * 254 * 255 weight units a step without ever reaching its threshold."""
    weight = np.full((1, 2), 254)
    dense = DenseLayer((1,), weight, CubaNeuron(np.array(131_071), np.array(0), np.array(4096)))
    return NetxNetwork(InputLayer((2,)), (dense,), input_bits=8)


def test_a_network_that_wraps_says_where(gascnn, tmp_path):
    write_netx(wrapping_network(), tmp_path / "wraps.net")
    np.savez(tmp_path / "in.npz", spikes=np.full((1, 4, 2), 255, np.uint8))
    outcome = gascnn("run", tmp_path / "wraps.net", "--input", tmp_path / "in.npz")
    # A foreign network may mean it: Lava runs it so. It is said, on standard error.
    assert outcome.status == 0
    assert "the current u wrapped" in outcome.err
    assert "layer_00" in outcome.err


def test_export_refuses_a_network_that_would_wrap(gascnn, models, tmp_path):
    outcome = gascnn("export", models.snn, "--target", "lava", "--steps", 10**6, "-o", tmp_path / "x.net")
    assert outcome.status == 2
    assert "24-bit state" in outcome.error
    assert "layer_0" in outcome.error
    assert not list(tmp_path.iterdir())


@pytest.mark.lava
def test_verify_fails_on_a_changed_weight(gascnn, models, tmp_path):
    import h5py

    changed = tmp_path / "changed.net"
    shutil.copy(models.zero, changed)
    with h5py.File(changed, "r+") as file:
        weights = file["layer/2/weight"][()]
        where = np.unravel_index(np.argmax(weights), weights.shape)
        weights[where] -= 2
        file["layer/2/weight"][...] = weights
    outcome = gascnn("verify", changed, "--data", "digits", "--limit", 1, "--steps", 4)
    assert outcome.status == 1
    assert "its integers are not those it was exported with" in outcome.error


@pytest.mark.lava
def test_verify_fails_on_a_silent_layer(gascnn, tmp_path):
    conv = ConvLayer((2, 8, 8), np.full((2, 1, 1, 1), 20), (1, 1), (0, 0), (1, 1), 1, CubaNeuron(np.array(9)))
    dense = DenseLayer((10,), np.full((10, 128), 2), CubaNeuron(np.array(131_071)), flatten=True)
    write_netx(NetxNetwork(InputLayer((1, 8, 8)), (conv, dense)), tmp_path / "silent.net")
    outcome = gascnn("verify", tmp_path / "silent.net", "--data", "digits", "--limit", 1, "--steps", 4)
    assert outcome.status == 1
    assert "layer_01 (dense) is silent: its spikes prove nothing" in outcome.error


def test_lava_not_installed(gascnn, models, tmp_path, monkeypatch):
    monkeypatch.delenv("GASCNN_LAVA_PYTHON", raising=False)
    monkeypatch.setenv("GASCNN_LAVA_HOME", str(tmp_path / "nowhere"))
    outcome = gascnn("run", models.zero, "--data", "digits", "--limit", 1, "--backend", "lava")
    assert_refused(outcome, "run: gascnn lava install", status=1)
    outcome = gascnn("run", models.zero, "--data", "digits", "--limit", 1, "--backend", "loihi")
    assert_refused(outcome, "run: gascnn lava install", status=1)
    assert_refused(gascnn("lava", "info", "--python"), "run: gascnn lava install", status=1)


@pytest.mark.lava
def test_the_python_of_lava_alone(gascnn):
    outcome = gascnn("lava", "info", "--python")
    assert outcome.status == 0
    assert subprocess.run([outcome.out.strip(), "-c", "import lava.lib.dl.netx"], capture_output=True).returncode == 0


@pytest.mark.lava
def test_loihi_without_the_extension(gascnn, models):
    outcome = gascnn("run", models.zero, "--data", "digits", "--limit", 1, "--backend", "loihi")
    assert_refused(outcome, "no lava-loihi extension", status=1)


def test_stock_backend_refuses_reset_by_subtraction(gascnn, models):
    outcome = gascnn("run", models.subtract, "--data", "digits", "--limit", 1, "--backend", "lava-stock")
    assert outcome.status == 2
    assert "subtract" in outcome.error


def test_disk_full_while_writing(models, tmp_path):
    """A limit on the size of files is what a full disk looks like to a process."""
    script = Path(sys.executable).parent / "gascnn"

    def run(*arguments):
        return subprocess.run(
            [str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        )

    for arguments in (
        ("export", models.snn, "--target", "lava", "-o", "x.net"),
        ("export", models.snn, "--target", "nir", "-o", "x.nir"),
        ("run", models.zero, "--data", "digits", "--limit", "200", "--save-spikes", "s.npz"),
        ("convert", models.ann, "--data", "digits", "--steps", "4", "--fit-images", "4", "-o", "snn"),
    ):
        done = run(*arguments)
        assert done.returncode in (1, 2), (arguments, done.stderr)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: could not write"), done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_output_that_cannot_be_written(gascnn, models, tmp_path):
    assert_refused(
        gascnn("export", models.snn, "--target", "nir", "-o", tmp_path), "is a folder; give the name of a file"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    few = ("--steps", 4, "--fit-images", 4)
    outcome = gascnn("convert", models.ann, "--data", "digits", *few, "-o", tmp_path / "mine")
    assert_refused(outcome, "holds other files (no model.json in it)")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_debug_shows_the_traceback(gascnn, tmp_path):
    outcome = gascnn("run", tmp_path / "no.net", "--data", "digits", "--debug")
    assert outcome.status == 2
    assert "Traceback" in outcome.err
    assert outcome.error


def test_steps_beyond_those_of_the_file_are_allowed(gascnn, models):
    images = load_dataset("digits").test.images
    assert len(images) > 5
    assert gascnn("run", models.zero, "--data", "digits", "--limit", 5, "--steps", 40).status == 0
    assert read_netx(models.zero).deployment.steps == 16
