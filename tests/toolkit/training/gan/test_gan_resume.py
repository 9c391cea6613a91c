"""A run that was interrupted, anywhere, ends in the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.training.checkpoint import load_checkpoint, save_checkpoint
from gascnn.toolkit.training.gan.progress import Silent
from gascnn.toolkit.training.gan.train import train_gan

SCRIPT = Path(__file__).with_name("resumable_gan.py")


class StopAt(Silent):
    """Stands in for a kill where only the place in the run matters."""

    def __init__(self, iteration):
        self.iteration = iteration

    def step(self, iteration):
        if iteration == self.iteration:
            raise KeyboardInterrupt


def without_times(history):
    return [{**record, "time_s": 0} for record in history]


def assert_same_runs(first, second):
    (tensors, values), (others, other_values) = (load_checkpoint(run / "last.safetensors") for run in (first, second))
    assert list(tensors) == list(others)
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []
    assert values["iteration"] == other_values["iteration"]
    assert without_times(values["history"]) == without_times(other_values["history"])


def test_runs_killed_in_an_iteration_and_while_writing(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    places = (straight, "never", killed, "before-1", killed, "before-2", killed, "8", killed, "never")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, places)],
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert json.loads(done.stdout) == [0, *[-signal.SIGKILL] * 3, 0]
    assert_same_runs(straight, killed)
    grids = {f"grid_{i:07d}.png" for i in (3, 6, 9)}
    for run in (straight, killed):
        assert {p.name for p in run.iterdir()} == {"run.json", "history.json", "last.safetensors", *grids}
    for name in grids:
        assert (straight / name).read_bytes() == (killed / name).read_bytes()


@pytest.mark.parametrize("changes", [{}, {"plane": "image", "ema_decay": 0.0, "critic_steps": 1, "report_every": 4}])
def test_stopping_after_every_other_iteration_changes_nothing(network, dataset, tmp_path, tiny, changes):
    options = tiny(**changes)
    whole = train_gan(network, dataset, options, tmp_path / "straight")
    for iteration in (1, 3, 5):
        with pytest.raises(KeyboardInterrupt):
            train_gan(network, dataset, options, tmp_path / "stopped", resume=True, progress=StopAt(iteration))
    resumed = train_gan(network, dataset, options, tmp_path / "stopped", resume=True)
    assert_same_runs(tmp_path / "straight", tmp_path / "stopped")
    for part in ("generator", "critic"):
        expected, found = (getattr(gan, part).state_dict() for gan in (whole, resumed))
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert resumed.metrics == whole.metrics
    finished = train_gan(network, dataset, options, tmp_path / "stopped", resume=True)
    assert finished.metrics == whole.metrics


def test_a_stopped_run_without_its_random_state_would_differ(network, dataset, tmp_path, tiny):
    """The comparison above can fail."""
    train_gan(network, dataset, tiny(), tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train_gan(network, dataset, tiny(), tmp_path / "stopped", progress=StopAt(3))
    path = tmp_path / "stopped" / "last.safetensors"
    tensors, values = load_checkpoint(path)
    tensors["random.generator"] = torch.Generator().manual_seed(99).get_state()
    save_checkpoint(path, tensors, values)
    train_gan(network, dataset, tiny(), tmp_path / "stopped", resume=True)
    with pytest.raises(AssertionError):
        assert_same_runs(tmp_path / "straight", tmp_path / "stopped")


def test_another_run_is_not_gone_on_with(network, network_of, dataset, dataset_maker, tmp_path, tiny):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_gan(network, dataset, tiny(), folder, progress=StopAt(3))
    with pytest.raises(UsageError, match=r"holds a run; resume it \(--resume\), or name a new folder"):
        train_gan(network, dataset, tiny(), folder)
    with pytest.raises(UsageError, match=r"was begun with alpha_reg 3\.0, now it is 4\.0"):
        train_gan(network, dataset, tiny(alpha_reg=4.0), folder, resume=True)
    with pytest.raises(UsageError, match="was begun with dataset train_sha256"):
        train_gan(network, dataset_maker(train=47), tiny(), folder, resume=True)
    other = network_of()
    other.tensors["conv1.weight"][0] += 1
    with pytest.raises(UsageError, match="was begun with model resnet_weights_sha256"):
        train_gan(other, dataset, tiny(), folder, resume=True)
    content = (folder / "last.safetensors").read_bytes()
    (folder / "last.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        train_gan(network, dataset, tiny(), folder, resume=True)
