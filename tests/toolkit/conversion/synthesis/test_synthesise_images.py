"""Images meet their soft labels, are the same however often a run was interrupted, and need no data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.toolkit.conversion import convert
from gascnn.toolkit.conversion.synthesis import SynthesisOptions, get_synthesis_preset, synthesise
from gascnn.toolkit.conversion.synthesis.optimise import divergences, optimise
from gascnn.toolkit.conversion.synthesis.regularisers import BatchNormMatch
from gascnn.toolkit.errors import ConversionError, FormatError, TrainingError, UsageError
from gascnn.toolkit.lowering import lower

SHAPE = (1, 8, 8)
PLAIN = SynthesisOptions(
    images=30, batch_size=30, iterations=400, statistics=0.0, temperature=20.0, scale=1.0, threads=1
)
QUICK = replace(PLAIN, images=25, batch_size=10, iterations=3)


def answers_of(model, images, temperature):
    """Softmax in double precision by numpy, on the 8-bit images."""
    with torch.no_grad():
        logits = model(torch.from_numpy(images).float() / 255).double().numpy() / temperature
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def divergence_of(model, made, temperature):
    """Cross entropy less the label's entropy."""
    answers, labels = answers_of(model, made.images, temperature), made.soft_labels.astype(np.float64)
    entropy = -np.where(labels > 0, labels * np.log(np.where(labels > 0, labels, 1)), 0).sum(1)
    return -(labels * np.log(answers)).sum(1) - entropy


def same(one, other):
    for name in ("images", "labels", "soft_labels", "drawn_for", "divergence"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_divergence_is_cross_entropy_less_entropy_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]])) * 7
    labels = torch.tensor([[0.25, 0.75, 0.0]])
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.25)
    assert float(divergences(logits, labels, 7.0)) == pytest.approx(expected, abs=1e-6)
    assert float(divergences(torch.log(labels + 1e-30), labels, 1.0)) == pytest.approx(0.0, abs=1e-6)


def test_images_meet_their_soft_labels(digits_model):
    options = replace(PLAIN, temperature=1.0, iterations=250)
    made = synthesise(digits_model, SHAPE, options)
    found = divergence_of(digits_model, made, 1.0)
    np.testing.assert_allclose(made.divergence, found, atol=1e-4)
    assert found.mean() < options.tolerance
    assert found.max() < 0.25
    # Far from what noise is answered with, or meeting a label would mean nothing.
    noise = replace(made, images=np.random.default_rng(0).integers(0, 256, made.images.shape).astype(np.uint8))
    assert divergence_of(digits_model, noise, 1.0).mean() > 1.0
    assert made.report["meet_their_label"] == pytest.approx((found <= options.tolerance).mean(), abs=1e-6)
    assert made.images.dtype == np.uint8
    assert made.images.shape == (30, *SHAPE)
    np.testing.assert_array_equal(made.labels, made.soft_labels.argmax(1))
    np.testing.assert_array_equal(made.drawn_for, np.arange(30) % 10)
    assert len({image.tobytes() for image in made.images}) == 30


def test_statistics_of_batch_norms_are_matched(digits_model):
    def distance(made):
        with BatchNormMatch(digits_model) as match, torch.no_grad():
            digits_model(torch.from_numpy(made.images).float() / 255)
            return float(match.take())

    plain = synthesise(digits_model, SHAPE, PLAIN, images=16, iterations=100)
    matched = synthesise(digits_model, SHAPE, PLAIN, images=16, iterations=100, statistics=10.0)
    assert distance(matched) < distance(plain) / 3
    assert plain.report["batch_norms_matched"] == 0
    assert matched.report["batch_norms_matched"] == 6


def test_total_variation_smooths(digits_model):
    def roughness(made):
        return np.abs(np.diff(made.images.astype(float), axis=2)).mean()

    plain = synthesise(digits_model, SHAPE, PLAIN, iterations=80)
    assert roughness(synthesise(digits_model, SHAPE, PLAIN, iterations=80, total_variation=1.0)) < roughness(plain) / 2


def test_it_ends_when_labels_are_met_and_nothing_is_gained(digits_model):
    made = synthesise(digits_model, SHAPE, PLAIN, images=5, iterations=1500, temperature=4.0, scale=10.0, tolerance=1.0)
    assert made.report["iterations"][0] in range(200, 1500, 100)


def test_the_seed_decides(digits_model):
    one, other = (synthesise(digits_model, SHAPE, QUICK, seed=seed) for seed in (0, 1))
    same(one, synthesise(digits_model, SHAPE, QUICK))
    assert not np.array_equal(one.images, other.images)
    assert [len(part) for part in np.array_split(one.images, 3)] == [9, 8, 8]
    assert len(one.report["iterations"]) == 3


def test_a_killed_run_goes_on_to_the_same_images(digits_model, tmp_path):
    whole = synthesise(digits_model, SHAPE, QUICK, run_folder=tmp_path / "whole")

    class KilledError(Exception):
        pass

    def killed_in_the_second_batch(done):
        if done > 12:
            raise KilledError

    run = tmp_path / "run"
    with pytest.raises(KilledError):
        synthesise(digits_model, SHAPE, QUICK, run_folder=run, progress=killed_in_the_second_batch)
    assert [p.name for p in sorted(run.glob("batch_*"))] == ["batch_00000.npz"]
    (run / ".batch_00001.npz.half").mkdir()
    with pytest.raises(UsageError, match="holds a run; resume it"):
        synthesise(digits_model, SHAPE, QUICK, run_folder=run)
    written = (run / "batch_00000.npz").stat().st_mtime_ns
    same(whole, synthesise(digits_model, SHAPE, QUICK, run_folder=run, resume=True))
    assert (run / "batch_00000.npz").stat().st_mtime_ns == written
    assert sorted(p.name for p in run.iterdir()) == [*(f"batch_0000{i}.npz" for i in range(3)), "run.json"]
    with pytest.raises(UsageError, match=r"was begun with seed 0, now it is 1; resume with the same"):
        synthesise(digits_model, SHAPE, QUICK, seed=1, run_folder=run, resume=True)


def test_a_run_of_another_network_or_with_damaged_batches(digits_model, tmp_path):
    run = tmp_path / "run"
    synthesise(digits_model, SHAPE, QUICK, run_folder=run)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(UsageError, match=r"was begun with model weights_sha256"):
        synthesise(linear, SHAPE, QUICK, run_folder=run, resume=True)
    batch = run / "batch_00001.npz"
    content = batch.read_bytes()
    batch.write_bytes(content[:1000])
    with pytest.raises(FormatError, match=r"batch_00001.npz: damaged \(BadZipFile\); delete it and resume"):
        synthesise(digits_model, SHAPE, QUICK, run_folder=run, resume=True)
    batch.write_bytes((run / "batch_00000.npz").read_bytes())  # nine images where eight belong
    with pytest.raises(FormatError, match="not a batch of this run; delete it and resume"):
        synthesise(digits_model, SHAPE, QUICK, run_folder=run, resume=True)
    batch.unlink()
    synthesise(digits_model, SHAPE, QUICK, run_folder=run, resume=True)
    assert batch.read_bytes()[:2] == content[:2]


def test_threads_of_a_resumed_run_are_those_it_began_with(digits_model, tmp_path):
    run = tmp_path / "run"
    synthesise(digits_model, SHAPE, QUICK, threads=0, run_folder=run)
    begun = json.loads((run / "run.json").read_text())["options"]["threads"]
    assert begun == torch.get_num_threads()
    values = json.loads((run / "run.json").read_text())
    values["options"]["threads"] = begun + 1
    (run / "run.json").write_text(json.dumps(values))
    made = synthesise(digits_model, SHAPE, QUICK, threads=0, run_folder=run, resume=True)
    assert made.report["options"]["threads"] == begun + 1


def test_weights_stay_and_any_network_will_do():
    """No batch norm, two classes, three channels, not square, one image in the last batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 3, 2), nn.Softmax(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = synthesise(model, (3, 6, 5), QUICK, images=1, statistics=1.0)
    assert made.images.shape == (1, 3, 6, 5)
    assert made.report["batch_norms_matched"] == 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pixels_of_fewer_levels(digits_model):
    made = synthesise(digits_model, SHAPE, QUICK, pixel_max=16)
    assert made.images.max() == 16
    with pytest.raises(UsageError, match=r"pixels go to 4095; images of 8 bits need 1..255"):
        synthesise(digits_model, SHAPE, QUICK, pixel_max=4095)


def test_a_loss_that_is_no_number():
    class Explodes(nn.Module):
        def forward(self, x):
            return torch.log(x.flatten(1)[:, :3] - 2.0)

    options = SynthesisOptions(images=3, iterations=2)
    with pytest.raises(TrainingError, match=r"the loss of synthesis became nan in iteration 1; lower learning_rate"):
        optimise(Explodes(), np.full((3, 3), 1 / 3), (1, 2, 2), options, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", 0),
        ("images", 2.5),
        ("iterations", 0),
        ("temperature", 0.0),
        ("scale", float("nan")),
        ("learning_rate", 2.0),
        ("statistics", -1.0),
        ("total_variation", -0.1),
        ("seed", -1),
        ("jitter", True),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(UsageError, match=rf"{name} is .*; allowed:"):
        replace(PLAIN, **{name: value})


def test_presets():
    paper = get_synthesis_preset("paper")
    assert (paper.images, paper.temperature, paper.statistics, paper.total_variation) == (5000, 20.0, 0.0, 0.0)
    with pytest.raises(UsageError, match="no preset 'huge'; known: smoke, small, paper"):
        get_synthesis_preset("huge")


def test_the_whole_chain_without_any_data(digits_model, held_out, no_data):
    """Synthesise, convert and lower; the integers then know digits they never saw as well as the network does."""
    from gascnn.hardware.simulator import simulate
    from gascnn.toolkit import data
    from gascnn.toolkit.coding import encode_for

    with pytest.raises(AssertionError, match="real data was asked for"):
        data.load_dataset("digits")
    made = synthesise(digits_model, SHAPE, images=40, iterations=80, batch_size=40, threads=1)
    spiking = convert(digits_model, made.images, reset="subtract", steps=32, classes=tuple("0123456789"))
    network = lower(spiking.graph)
    result = simulate(network, encode_for(network, held_out.images))
    right = (answers_of(digits_model, held_out.images, 1.0).argmax(1) == held_out.labels).mean()
    assert right > 0.9
    assert (result.predictions() == held_out.labels).mean() > right - 0.03
    assert not any(result.wraps or [])


def test_a_network_without_a_last_linear_layer_leaves_nothing_behind(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 3, 8), nn.ReLU(), nn.Flatten())
    with pytest.raises(ConversionError, match="which is not a linear layer"):
        synthesise(model, SHAPE, QUICK, run_folder=tmp_path / "run")
    assert not list(tmp_path.iterdir())
