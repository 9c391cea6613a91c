import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gascnn.benchmarks.pgsl import choices
from gascnn.benchmarks.pgsl.choices import attack_left, markdown, measure
from gascnn.benchmarks.pgsl.intervals import Scored, over_units
from gascnn.benchmarks.pgsl.partial import unpack
from gascnn.benchmarks.pgsl.presets import Settings, choices_preset
from gascnn.benchmarks.pgsl.seed_networks import SeedNetworks
from gascnn.models.pgsl import downsample
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.wilson import wilson_interval

TINY = Settings(
    "digits",
    train_images=80,
    val_images=30,
    test_images=2,
    seeds=(0, 1),
    options=PgslOptions(width=8, hidden=12, grid=2, pixels=2, recovery_iterations=5, epochs=2, batch_size=20),
    local=LocalOptions(width=4, epochs=2),
)
NAMES = ("no recovery", "image, mu in activations")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("choices") / "partial.json"
    told = []
    return measure(TINY, NAMES, partial=path, progress=told.append), path, told


def test_answers_are_counted_on_validation_images(report):
    found = report[0]
    settings = choices._with(TINY, choices.CHOICES["image, mu in activations"])
    assert (settings.options.recovery, settings.options.mu_relative) == ("image", False)
    part = settings.partition(1, None)
    networks = SeedNetworks(settings, 1, part, lambda text: None)
    answer = networks.split.model.answer(part.val.images)
    row = found["seeds"]["1"]["rows"]["image, mu in activations"]
    assert len(part.val.labels) == 30
    kept = {name: unpack(packed).tolist() for name, packed in row["answers"].items()}
    for name, scores in (("recovered", answer.recovered), ("fused", answer.fused), ("attacked", answer.attacked)):
        assert kept[name] == scores.argmax(1).tolist()
    assert kept["image"] == answer.scores.argmax(1).tolist()
    # Equation 10 over the batch, by hand: one weight a stream for all images.
    streams = torch.stack([answer.recovered, answer.fused, answer.attacked])
    weights = torch.tensor([0.5, 0.3, 0.2]) * streams.mean(1).amax(1)
    decided = (weights[:, None, None] * streams).sum(0).argmax(1)
    assert kept["batch"] == decided.tolist()
    pooled = found["figures"]["image, mu in activations"]["accuracy"]["image"]
    right = [
        unpack(found["seeds"][seed]["rows"]["image, mu in activations"]["answers"]["image"]) == part.val.labels.numpy()
        for seed in ("0", "1")
    ]
    assert pooled["by_seed"] == [part.mean() for part in right]
    # The same thirty images in both seeds are thirty, not sixty.
    assert pooled["interval_images"] == list(over_units([Scored(np.arange(30), part.astype(float)) for part in right]))
    alone = measure(dataclasses.replace(TINY, seeds=(1,)), NAMES, partial=report[1])["figures"]
    expected = wilson_interval(int(right[1].sum()), 30)
    assert alone["image, mu in activations"]["accuracy"]["image"]["interval_images"] == list(expected)


def test_what_recovery_leaves_of_the_attack(report):
    rows = report[0]["seeds"]["0"]["rows"]
    assert rows["no recovery"]["attack_left"] == 1.0
    part = TINY.partition(0, None)
    settings = choices._with(TINY, choices.CHOICES["image, mu in activations"])
    network = SeedNetworks(settings, 0, part, lambda text: None).split.model
    with torch.no_grad():
        pixels = part.val.images.float() / 255
        clean = network.client.model.eval().layers(downsample(pixels, torch.zeros(30, 1, 4, 4)))
        sent = network.client.model(pixels)
        recovered = network.server.model.eval().recovered_maps(sent)
    expected = F.mse_loss(recovered, F.pixel_shuffle(clean, 2)) / F.mse_loss(sent, clean)
    assert rows["image, mu in activations"]["attack_left"] == pytest.approx(float(expected), rel=1e-4)
    assert attack_left(network, part.val.images) != 1.0


def test_a_broken_run_goes_on(report):
    found, path, told = report
    assert "digits, seed 0: no recovery" in told
    again = []
    assert measure(TINY, NAMES, partial=path, progress=again.append)["figures"] == found["figures"]
    assert not again
    with pytest.raises(UsageError, match="its settings is not this run's"):
        measure(dataclasses.replace(TINY, val_images=20), NAMES, partial=path)


def test_the_page(report):
    page = markdown(report[0], "gascnn bench").splitlines()
    assert page[0].startswith("`digits`, images of their stored size, 80 training images, 2 epochs, seeds: 2.")
    assert "60 validation images" in page[0]
    row = next(line for line in page if line.startswith("| no recovery |"))
    assert "| 1.00 |" in row
    assert page[-1] == "`gascnn bench`"


def test_what_cannot_be_chosen():
    with pytest.raises(UsageError, match="choice is 'luck'; allowed: no recovery, image"):
        measure(TINY, ("luck",))
    assert choices_preset("small", "mnist").options.epochs == 3
    assert choices_preset("smoke", "digits").options.epochs == 6
