"""Learning itself: it gets better, what it gives is what it ran, interruptions change nothing, nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import ConversionError, DataError, TrainingError, UsageError
from gascnn.toolkit.spike_learning import LearningOptions, learn
from gascnn.toolkit.training.evaluate import predict_scores
from gascnn.toolkit.training.progress import Silent

QUICK = LearningOptions(epochs=4, batch_size=16, decay_factor=2.0, threads=1)


def agreement(network, teacher, images, steps):
    """Share of the images on which the simulator's answer is the teacher's."""
    found = simulate(network, encode_for(network, images, steps=steps)).predictions()
    return float((found == predict_scores(teacher, images).argmax(1)).mean())


def test_it_learns_what_few_steps_had_lost(pair, images, tmp_path):
    fresh = images(200, seed=9)
    before = agreement(pair.network, pair.ann, fresh, 2)
    result = learn(pair.network, pair.ann, images(256, seed=5), QUICK, tmp_path, steps=2)
    after = agreement(result.network, pair.ann, fresh, 2)
    assert after > before + 0.1
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4]
    assert 0 < result.history[-1]["spikes_a_source"] < 2
    held = result.history[-1]["agreement"]
    assert 0.5 < held <= 1


class _Stop(Exception):  # noqa: N818
    pass


class _StopAt(Silent):
    def __init__(self, epoch, step):
        self._at = (epoch, step)

    def step(self, epoch, step, loss):
        if (epoch, step) == self._at:
            raise _Stop


@pytest.mark.parametrize("where", [(1, 2), (3, 1)])
def test_an_interrupted_run_goes_on_to_the_same_integers(where, pair, images, tmp_path):
    given = images(64, seed=5)
    whole = learn(pair.network, pair.ann, given, QUICK, tmp_path / "whole", steps=4)
    with pytest.raises(_Stop):
        learn(pair.network, pair.ann, given, QUICK, tmp_path / "cut", steps=4, progress=_StopAt(*where))
    resumed = learn(pair.network, pair.ann, given, QUICK, tmp_path / "cut", steps=4, resume=True)
    assert resumed.network.digest() == whole.network.digest() != pair.network.digest()
    assert [r["loss"] for r in resumed.history] == [r["loss"] for r in whole.history]


def test_only_the_same_run_is_resumed(pair, images, tmp_path):
    given = images(32, seed=5)
    learn(pair.network, pair.ann, given, LearningOptions(epochs=1, threads=1), tmp_path, steps=4)
    with pytest.raises(UsageError, match="holds a run; resume it"):
        learn(pair.network, pair.ann, given, QUICK, tmp_path, steps=4)
    with pytest.raises(UsageError, match="was begun with epochs 1, now it is 4"):
        learn(pair.network, pair.ann, given, QUICK, tmp_path, steps=4, resume=True)
    with pytest.raises(UsageError, match="was begun with dataset fit_sha256"):
        learn(
            pair.network, pair.ann, images(32, seed=6), LearningOptions(epochs=1, threads=1), tmp_path, steps=4,
            resume=True,
        )  # fmt: skip


def test_a_loss_that_is_no_number_stops_it_and_keeps_the_last_good_epoch(pair, images, tmp_path, monkeypatch):
    from gascnn.toolkit.spike_learning import loop

    calls = []

    def broken(student, *rest):
        calls.append(1)
        return loop_loss(student, *rest) * (float("nan") if len(calls) > 6 else 1.0)

    loop_loss = loop.learning_loss
    monkeypatch.setattr(loop, "learning_loss", broken)
    options = LearningOptions(epochs=4, batch_size=16, threads=1, held_out=0.0)
    with pytest.raises(TrainingError, match=r"the loss became nan in step 3 of epoch 2; lower learning_rate") as found:
        learn(pair.network, pair.ann, images(64, seed=5), options, tmp_path, steps=4)
    assert "holds the weights after epoch 1" in str(found.value)
    monkeypatch.setattr(loop, "learning_loss", loop_loss)
    resumed = learn(pair.network, pair.ann, images(64, seed=5), options, tmp_path, steps=4, resume=True)
    assert len(resumed.history) == 4


@pytest.mark.parametrize("steps", [0, -1, 10_000])
def test_steps_out_of_range(steps, pair, images, tmp_path):
    with pytest.raises(UsageError, match=rf"T is {steps}; it must be 1\.\.1000"):
        learn(pair.network, pair.ann, images(4), QUICK, tmp_path, steps=steps)
    assert not list(tmp_path.iterdir())


def test_teachers_that_do_not_fit(pair, ann, images, tmp_path):
    with pytest.raises(ConversionError, match="the network has 3 classes; give the ANN that was converted"):
        learn(pair.network, nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), images(4), QUICK, tmp_path)
    with pytest.raises(ConversionError, match="the teacher cannot take images of"):
        learn(pair.network, nn.Sequential(nn.Flatten(), nn.Linear(10, 3)), images(4), QUICK, tmp_path)
    silent = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    nn.init.zeros_(silent[1].weight)
    nn.init.zeros_(silent[1].bias)
    with pytest.raises(UsageError, match="do not follow the teacher's at all"):
        learn(pair.network, silent, images(32), QUICK, tmp_path / "run")
    nn.init.constant_(silent[1].weight, float("nan"))
    with pytest.raises(DataError, match="answers hold NaN"):
        learn(pair.network, silent, images(32), QUICK, tmp_path / "other")


def test_images_and_labels_that_do_not_fit(pair, images, tmp_path):
    with pytest.raises(DataError, match=r"images have shape \(1, 6, 6\); the network takes \(1, 12, 12\)"):
        learn(pair.network, pair.ann, images(4)[:, :, :6, :6], QUICK, tmp_path)
    with pytest.raises(DataError, match="expected uint8"):
        learn(pair.network, pair.ann, images(4).astype(np.float32), QUICK, tmp_path)
    with pytest.raises(DataError, match=r"labels must be 4 whole numbers 0\.\.2"):
        learn(pair.network, pair.ann, images(4), QUICK, tmp_path, labels=np.array([0, 1, 2, 3]))
    with pytest.raises(ConversionError, match="does not say how it is fed"):
        learn(pair.network.with_deployment(None), pair.ann, images(4), QUICK, tmp_path)


def test_the_callers_random_state_is_left_alone(pair, images, tmp_path):
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    learn(pair.network, pair.ann, images(20), LearningOptions(epochs=1, threads=1), tmp_path, steps=8)
    torch.testing.assert_close(torch.rand(3), wanted, rtol=0, atol=0)
