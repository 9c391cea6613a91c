"""What training does to a GAN, and how it ends where it leads nowhere."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.toolkit.errors import DataError, FormatError, TrainingError, UsageError
from gascnn.toolkit.training.bundles import to_bundle
from gascnn.toolkit.training.checkpoint import load_checkpoint
from gascnn.toolkit.training.gan import losses
from gascnn.toolkit.training.gan.progress import Silent
from gascnn.toolkit.training.gan.train import train_gan


class Seen(Silent):
    def __init__(self):
        self.calls, self.records = [], []

    def begin(self, iterations, done):
        self.calls.append(("begin", iterations, done))

    def step(self, iteration):
        self.calls.append(("step", iteration))

    def record(self, record):
        self.records.append(record)

    def end(self):
        self.calls.append(("end",))


def last(folder):
    return load_checkpoint(folder / "last.safetensors")


def test_a_run_and_what_it_leaves(network, dataset, tmp_path, tiny):
    seen, before = Seen(), torch.get_rng_state()
    gan = train_gan(network, dataset, tiny(iterations=5, grid_every=4), tmp_path, progress=seen)
    assert torch.equal(torch.get_rng_state(), before)
    assert seen.calls == [("begin", 5, 0), *[("step", i) for i in range(1, 6)], ("end",)]
    assert [record.iteration for record in seen.records] == [2, 4, 5]
    assert seen.records[2].generator == {}  # the fifth iteration updates the critic alone
    history = json.loads((tmp_path / "history.json").read_text())
    assert [record["diversity"] for record in history] == [record.diversity for record in seen.records]
    assert sorted(p.name for p in tmp_path.glob("grid*")) == ["grid_0000004.png", "grid_0000005.png"]
    assert (gan.class_names, gan.image_shape, gan.framing) == (("row", "column", "diagonal"), (1, 8, 8), "whole")
    assert gan.provenance["dataset"]["source"] == {"source": "drawn by the test"}
    assert gan.provenance["fitted_images"] == 48
    assert gan.provenance["parameters"]["critic"] == sum(p.numel() for p in gan.critic.parameters())
    assert gan.metrics["train"]["iteration"] == 5
    assert not gan.generator.training


def test_the_resnet_is_used_and_stays_as_it_is(network, dataset, tmp_path, tiny):
    gan = train_gan(network, dataset, tiny(), tmp_path)
    stage = gan.generator.first_stage.state_dict()
    for name, value in stage.items():
        np.testing.assert_array_equal(value.numpy(), network.tensors[name])
    assert {"conv1.weight", "bn1.running_var"} <= set(stage)


def test_everything_that_should_learn_does(network, dataset, tmp_path, tiny):
    options = tiny(ema_decay=0.5)
    train_gan(network, dataset, options, tmp_path / "six")
    trained = last(tmp_path / "six")[0]
    with pytest.raises(TrainingError):  # before the first update: what a run begins with
        train_gan(network, dataset, tiny(ema_decay=0.5, largest_loss=1.0, alpha_penalty=1e6), tmp_path / "none")
    fresh, values = last(tmp_path / "none")
    assert values["iteration"] == 0
    learnt = [name for name in fresh if name.startswith(("generator.proj", "generator.att", "critic.", "average.att"))]
    assert len(learnt) > 40
    # A shift of all of P_a changes neither loss; its gradient is 0.
    same = [name for name in learnt if torch.equal(fresh[name], trained[name])]
    assert same == []
    averaged, own = trained["average.projection.conv.weight"], trained["generator.projection.conv.weight"]
    assert not torch.equal(averaged, own)


@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
def test_the_diversity_that_is_told_is_that_of_the_generator_that_is_saved(network, dataset, tmp_path, tiny, ema_decay):
    options = tiny(ema_decay=ema_decay, learning_rate=0.05, iterations=8)
    gan = train_gan(network, dataset, options, tmp_path)
    # The probe: the first images of each class in turn, and of stripes these are the first images.
    real = torch.from_numpy(dataset.train.images[: options.probe_images].astype(np.float32)) / 127.5 - 1

    def least(generator):
        spreads = []
        with torch.no_grad():
            for condition in (0.0, 0.5, 1.0):
                slices = generator(real, torch.full((len(real),), condition)).slices.numpy().astype(float)
                spreads.append(slices.std(axis=0).mean() / real.numpy().astype(float).std(axis=0).mean())
        return min(spreads)

    told = gan.metrics["train"]
    assert told["diversity"] == pytest.approx(least(gan.generator), rel=1e-4)
    raw = {name.removeprefix("generator."): t for name, t in last(tmp_path)[0].items() if name.startswith("generator.")}
    gan.generator.load_state_dict(raw)
    assert told["diversity_trained"] == pytest.approx(least(gan.generator), rel=1e-4)
    assert (told["diversity"] == told["diversity_trained"]) == (ema_decay == 0)
    assert json.loads((tmp_path / "history.json").read_text())[-1]["diversity"] == told["diversity"]


def test_seeds_differ_and_repeat(network, dataset, tmp_path, tiny):
    runs = [train_gan(network, dataset, tiny(seed=s), tmp_path / str(i)) for i, s in enumerate((0, 0, 1))]
    weights = [gan.generator.projection.conv.weight for gan in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_not_a_number_ends_the_run_and_leaves_the_last_good_checkpoint(network, dataset, tmp_path, tiny, monkeypatch):
    calls = []

    def penalty(critic, z):
        calls.append(len(z))
        return z.sum() * (float("nan") if len(calls) == 5 else 0.0)

    monkeypatch.setattr(losses, "gradient_penalty", penalty)
    seen = Seen()
    with pytest.raises(TrainingError, match="the critic's loss became nan in iteration 5"):
        train_gan(network, dataset, tiny(), tmp_path, progress=seen)
    assert seen.calls[-1] == ("end",)
    tensors, values = last(tmp_path)
    assert values["iteration"] == 4
    assert all(bool(torch.isfinite(v).all()) for v in tensors.values() if v.dtype.is_floating_point)


def test_an_exploding_critic_ends_the_run(network, dataset, tmp_path, tiny):
    with pytest.raises(TrainingError, match=r"the critic's loss became .* in iteration 1, beyond largest_loss \(10\)"):
        train_gan(network, dataset, tiny(alpha_penalty=1e6, largest_loss=10.0), tmp_path)


def test_a_collapsed_generator_ends_the_run(network, dataset, tmp_path, tiny):
    """Nothing made by so few iterations is as diverse as real images: with a threshold of 1 all of it has collapsed."""
    options = tiny(least_diversity=1.0, patience=2)
    with pytest.raises(TrainingError, match=r"the generator collapsed: images of class .* after iteration 4") as caught:
        train_gan(network, dataset, options, tmp_path)
    assert "\n" not in str(caught.value)
    assert last(tmp_path)[1]["iteration"] == 0  # the only good state there was
    assert len(json.loads((tmp_path / "history.json").read_text())) == 1


def test_what_no_gan_can_be_trained_on(network, network_of, dataset, dataset_maker, tmp_path, tiny, monkeypatch):
    with pytest.raises(UsageError, match="images are 10x10; allowed: sides that are multiples of 4"):
        train_gan(network_of(size=10), dataset_maker(size=10), tiny(), tmp_path)
    spiking = network_of()
    object.__setattr__(spiking, "kind", "snn")
    with pytest.raises(FormatError, match="of kind snn; expected ann"):
        train_gan(spiking, dataset, tiny(), tmp_path)
    other = to_bundle(
        nn.Linear(2, 3), network.classes, network.image_shape,
        architecture={"name": "torch.nn:Linear", "arguments": {"in_features": 2, "out_features": 3}},
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"wants to import and run torch\.nn:Linear"):
        train_gan(other, dataset, tiny(), tmp_path)
    alike = dataset_maker()
    alike.train.images[:] = 7
    with pytest.raises(DataError, match="the first 6 training images are all alike"):
        train_gan(network, alike, tiny(), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device is cuda, but there is none for process 0 here; use device cpu"):
            train_gan(network, dataset, tiny(device="cuda"), tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="batch_size is 6 for 4 processes; allowed: multiples of 4"):
        train_gan(network, dataset, tiny(), tmp_path)
    assert not list(tmp_path.iterdir())
