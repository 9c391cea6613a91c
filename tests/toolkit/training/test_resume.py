import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gascnn.toolkit.training.checkpoint import load_checkpoint
from gascnn.toolkit.training.options import TrainingOptions
from gascnn.toolkit.training.progress import Silent
from gascnn.toolkit.training.train import train

SCRIPT = Path(__file__).with_name("resumable_run.py")
EVERYTHING = {
    "epochs": 4,
    "batch_size": 32,
    "ema_decay": 0.9,
    "augmentation": "medical",
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "mix_probability": 0.7,
    "balance": "sampling",
    "label_smoothing": 0.1,
    "gradient_clip": 1.0,
}


def run_in_turn(options, *places):
    # Waiting threads that spin would make this test slow where the processors are shared.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    arguments = [sys.executable, str(SCRIPT), json.dumps(options), *(str(item) for place in places for item in place)]
    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=300)
    return json.loads(done.stdout)


def assert_same_files(first, second):
    names = [path.name for path in first.glob("*.safetensors")]
    assert sorted(names) == sorted(path.name for path in second.glob("*.safetensors"))
    for name in names:
        tensors, values = load_checkpoint(first / name)
        others, other_values = load_checkpoint(second / name)
        assert list(tensors) == list(others)
        different = [key for key, value in tensors.items() if not torch.equal(value, others[key])]
        assert different == []
        assert values.get("best") == other_values.get("best")
        for record, other in zip(values.get("history", []), other_values.get("history", []), strict=True):
            assert {**record, "time_s": 0} == {**other, "time_s": 0}


@pytest.mark.slow
def test_a_run_killed_twice_ends_in_the_same_bits(tmp_path):
    options = {**EVERYTHING, "optimizer": "adamw", "threads": 2}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    statuses = run_in_turn(options, (straight, "never"), (killed, "2:3"), (killed, "3:before-last"))
    assert statuses == [0, -signal.SIGKILL, -signal.SIGKILL]
    assert load_checkpoint(killed / "last.safetensors")[1]["epoch"] == 2
    assert list(killed.glob(".last.safetensors.*"))
    assert run_in_turn(options, (killed, "never")) == [0]
    assert_same_files(straight, killed)
    assert not list(killed.glob(".*"))


class StopAt(Silent):
    """Stands in for a kill where only the place in the run matters."""

    def __init__(self, epoch, step):
        self.place = (epoch, step)

    def step(self, epoch, step, loss):
        if (epoch, step) == self.place:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options",
    [
        {"augmentation": "light", "ema_decay": 0.8, "balance": "weights", "validate_every": 2},
        {**EVERYTHING, "optimizer": "sgd", "schedule": "cosine", "channels_last": False},
        {"optimizer": "sgd", "momentum": 0.0, "select": "last"},
    ],
)
def test_stopping_in_every_epoch_changes_nothing(dataset, tmp_path, options):
    model = {"blocks": (1,), "width": 4, "dropout": 0.3}
    options = TrainingOptions(**{**options, "epochs": 3, "batch_size": 16, "threads": 1})
    straight = train(model, dataset, options, tmp_path / "straight")
    for epoch in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            train(model, dataset, options, tmp_path / "stopped", resume=True, progress=StopAt(epoch, 2))
    resumed = train(model, dataset, options, tmp_path / "stopped", resume=True)
    assert_same_files(tmp_path / "straight", tmp_path / "stopped")
    assert resumed.metrics == straight.metrics
    assert resumed.epoch == straight.epoch
    assert all(torch.equal(v, resumed.model.state_dict()[k]) for k, v in straight.model.state_dict().items())


def test_a_stopped_run_without_its_random_states_would_differ(dataset, tmp_path):
    """The comparison above can fail: the same run resumed with another generator state ends elsewhere."""
    from gascnn.toolkit.training.checkpoint import save_checkpoint

    model = {"blocks": (1,), "width": 4}
    options = TrainingOptions(epochs=2, batch_size=16, augmentation="light", select="last", threads=1)
    straight = train(model, dataset, options, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(model, dataset, options, tmp_path / "stopped", progress=StopAt(2, 1))
    path = tmp_path / "stopped" / "last.safetensors"
    tensors, values = load_checkpoint(path)
    tensors["random.generator"] = torch.Generator().manual_seed(99).get_state()
    save_checkpoint(path, tensors, values)
    resumed = train(model, dataset, options, tmp_path / "stopped", resume=True)
    assert not torch.equal(straight.model.fc.weight, resumed.model.fc.weight)
