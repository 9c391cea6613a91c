"""Decoders against maps that can be undone exactly, and against the best answer of who sees nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gascnn.benchmarks.pgsl.decoder import DecoderSettings, Discriminator, decode, train_decoder
from gascnn.benchmarks.pgsl.stand_in import LaplacianNoise, NoAttack, with_attack
from gascnn.models.pgsl import PgslClient
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import DataError, TrainingError, UsageError

SETTINGS = DecoderSettings(hidden=16, epochs=10)


@pytest.fixture(scope="module")
def digits():
    dataset = load_dataset("digits")
    return (
        torch.from_numpy(dataset.val.images).float() / 255,
        torch.from_numpy(dataset.test.images[:60]).float() / 255,
    )


@pytest.mark.parametrize("adversarial", [0.0, 1e-3])
def test_it_learns_to_undo_what_can_be_undone(digits, adversarial):
    """The map is the down-sampling itself, mixed by an orthogonal matrix: nothing of an image is lost."""
    own, others = digits
    mixing, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))

    def client(images):
        return torch.einsum("ij,njhw->nihw", mixing, F.pixel_unshuffle(images, 2))

    decoder = train_decoder(client(own), own, replace(SETTINGS, adversarial=adversarial))
    error = float(F.mse_loss(decode(decoder, client(others)), others))
    by_the_mean = float(F.mse_loss(own.mean(0, keepdim=True).expand_as(others), others))
    # Ten passes over 269 images left a fifteenth; a sixth can only be passed by a decoder that reads the activations.
    assert error < by_the_mean / 6
    shuffled = decode(decoder, client(others).flip(0))
    assert float(F.mse_loss(shuffled, others)) > by_the_mean


def test_it_is_a_function_of_its_seed(digits):
    own, _ = digits
    activations = F.pixel_unshuffle(own[:40], 2)
    before = torch.get_rng_state()
    first, again, other = (
        decode(train_decoder(activations, own[:40], replace(SETTINGS, epochs=1, seed=seed)), activations)
        for seed in (0, 0, 1)
    )
    assert first.equal(again)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(before)
    assert bool(((first >= 0) & (first <= 1)).all())


def test_the_discriminator_changes_what_is_learnt(digits):
    own, _ = digits
    activations = F.pixel_unshuffle(own[:64], 2)
    settings = replace(SETTINGS, epochs=1, adversarial=0.1)
    with_it = decode(train_decoder(activations, own[:64], settings), activations)
    plain = decode(train_decoder(activations, own[:64], settings.plain()), activations)
    assert not with_it.equal(plain)
    assert settings.plain() == replace(settings, adversarial=0.0)
    assert Discriminator(1, 4)(own[:3]).shape == (3, 1)


def test_stand_ins_of_the_attack(digits):
    own, _ = digits
    local = LocalClassifier(1, 10, 8)
    image, zeros = NoAttack(local)(own[:2])
    assert image.equal(own[:2])
    assert not zeros.any()
    noise = LaplacianNoise(local, 0.1, seed=1)
    gray = torch.full((1, 1, 200, 200), 0.5) + torch.arange(200) * 1e-6
    added = noise(gray)[0] - gray
    # Of Laplace's density: mean magnitude b, variance 2 b²; within 0.5 less than 1 % of it is cut.
    assert float(added.abs().mean()) == pytest.approx(0.1, rel=0.03)
    assert float(added.var()) == pytest.approx(0.02, rel=0.06)
    noisy, zeros = noise(own[:4])
    assert not zeros.any()
    assert bool(((noisy >= 0) & (noisy <= 1)).all())
    assert noise(own[2:4])[0].equal(noisy[2:])  # whatever batch an image comes in
    assert not LaplacianNoise(local, 0.1, seed=2)(own[:4])[0].equal(noisy)
    client = PgslClient(SaliencyAttack(local, pixels=2), width=8).eval()
    changed = with_attack(client, NoAttack(local))
    assert changed.layers[0].weight.equal(client.layers[0].weight)
    assert isinstance(client.attack, SaliencyAttack)
    assert not isinstance(client.attack, NoAttack)
    assert not changed(own[:2]).equal(client(own[:2]))


def test_refused(digits):
    own, _ = digits
    activations = F.pixel_unshuffle(own[:4], 2)
    with pytest.raises(UsageError, match="epochs is 0; allowed: whole numbers from 1"):
        DecoderSettings(epochs=0)
    with pytest.raises(UsageError, match=r"learning_rate is 0 and adversarial 0\.001"):
        DecoderSettings(learning_rate=0)
    with pytest.raises(DataError, match="as many of each, 2 or more"):
        train_decoder(activations, own[:3])
    with pytest.raises(DataError, match="twice the activations' height and width"):
        train_decoder(own[:4], own[:4])
    with pytest.raises(TrainingError, match=r"the decoder's loss became nan in step 1; lower its learning_rate"):
        train_decoder(activations * float("nan"), own[:4])
    with pytest.raises(UsageError, match="scale is 0 and seed 0; allowed: above 0 to 1"):
        LaplacianNoise(LocalClassifier(1, 10, 8), 0)
