import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gascnn.models.resnet import resnet
from gascnn.toolkit.errors import DataError, FormatError, TrainingError, UsageError
from gascnn.toolkit.training.checkpoint import load_checkpoint
from gascnn.toolkit.training.evaluate import evaluate
from gascnn.toolkit.training.loop import Loop
from gascnn.toolkit.training.options import TrainingOptions
from gascnn.toolkit.training.progress import Silent
from gascnn.toolkit.training.train import train

MODEL = {"blocks": (1,), "width": 4}
QUICK = TrainingOptions(epochs=2, batch_size=16, threads=1)


class Listener(Silent):
    def __init__(self):
        self.calls = []

    def begin(self, epochs, steps, done):
        self.calls.append(("begin", epochs, steps, done))

    def step(self, epoch, step, loss):
        self.calls.append(("step", epoch, step))

    def epoch(self, record):
        self.calls.append(("epoch", record.epoch, record.best))

    def end(self):
        self.calls.append(("end",))


def test_it_learns_and_reports_what_it_measured(dataset, tmp_path):
    options = TrainingOptions(epochs=12, batch_size=16, learning_rate=1e-2, threads=1)
    result = train({"blocks": (1, 1), "width": 8}, dataset, options, tmp_path / "run")
    assert result.metrics["test"]["accuracy"] > 0.9
    assert {name: (m["dataset"], m["split"], m["images"]) for name, m in result.metrics.items()} == {
        "val": ("stripes", "val", 24),
        "test": ("stripes", "test", 24),
    }
    again = evaluate(result.model, dataset.test, dataset.class_names)
    assert {**result.metrics["test"], **again} == result.metrics["test"]
    assert not result.model.training
    assert result.image_shape == (1, 8, 8)
    assert result.class_names == ("row", "column", "diagonal")
    assert result.model.arguments["classes"] == 3
    assert result.model.arguments["image_size"] == 8
    json.dumps([result.metrics, result.provenance, result.history], allow_nan=False)
    assert result.provenance["dataset"]["source"] == {"source": "drawn by the test"}
    assert result.provenance["options"]["epochs"] == 12
    assert result.provenance["fitted_images"] == 48
    assert result.provenance["training_time_s"] > 0


def test_the_best_epoch_on_validation_images_is_kept(dataset, tmp_path):
    options = TrainingOptions(epochs=6, batch_size=16, learning_rate=2e-2, schedule="constant", threads=1)
    result = train(MODEL, dataset, options, tmp_path)
    figures = [(record["val_macro_f1"], record["val_accuracy"], record["epoch"]) for record in result.history]
    assert result.epoch == max(figures)[2]
    assert result.metrics["val"]["macro_f1"] == max(figures)[0]
    assert [record["best"] for record in result.history] == [
        all(figures[i][:2] >= earlier[:2] for earlier in figures[:i]) for i in range(6)
    ]
    best, _ = load_checkpoint(tmp_path / "best.safetensors")
    assert all(torch.equal(best[f"model.{name}"], value) for name, value in result.model.state_dict().items())
    assert "the highest macro-F1 on the validation images" in result.provenance["selection"]
    assert json.loads((tmp_path / "history.json").read_text()) == result.history


def test_select_last_keeps_the_last_epoch(dataset, tmp_path):
    result = train(MODEL, dataset, TrainingOptions(epochs=3, batch_size=16, select="last", threads=1), tmp_path)
    last, _ = load_checkpoint(tmp_path / "last.safetensors")
    assert result.epoch == 3
    assert all(torch.equal(last[f"model.{name}"], value) for name, value in result.model.state_dict().items())
    assert not (tmp_path / "best.safetensors").exists()


def test_train_and_val_together_leave_nothing_to_select_by(dataset, tmp_path):
    result = train(MODEL, dataset, TrainingOptions(epochs=2, batch_size=16, fit_on="train+val", threads=1), tmp_path)
    assert result.epoch == 2
    assert set(result.metrics) == {"test"}
    assert result.provenance["fitted_images"] == 72
    assert result.provenance["options"]["select"] == "last"
    assert "none left to select by" in result.provenance["selection"]
    assert all(record["val_macro_f1"] is None for record in result.history)


def test_the_test_images_never_matter_for_the_weights(dataset, dataset_maker, tmp_path):
    other = dataset_maker(test=3)
    first = train(MODEL, dataset, QUICK, tmp_path / "a")
    second = train(MODEL, other, QUICK, tmp_path / "b")
    third = train(MODEL, dataset_maker(test=0), QUICK, tmp_path / "c")
    assert "test" not in third.metrics
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])
        assert torch.equal(value, third.model.state_dict()[name])


def test_another_seed_gives_another_network_and_the_caller_keeps_its_random_state(dataset, tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = train(MODEL, dataset, QUICK, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    second = train(MODEL, dataset, TrainingOptions(epochs=2, batch_size=16, threads=1, seed=1), tmp_path / "b")
    assert not torch.equal(first.model.fc.weight, second.model.fc.weight)


def test_a_module_is_trained_as_a_copy(dataset, tmp_path):
    torch.manual_seed(3)
    model = resnet(classes=3, image_size=8, **MODEL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = train(model, dataset, QUICK, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(result.model.conv1.weight, model.conv1.weight)
    assert result.model.conv1.weight.is_contiguous()


def test_the_moving_average_is_what_is_evaluated_and_kept(dataset, tmp_path):
    options = TrainingOptions(epochs=3, batch_size=16, ema_decay=0.9, select="last", threads=1)
    result = train(MODEL, dataset, options, tmp_path)
    last, _ = load_checkpoint(tmp_path / "last.safetensors")
    for name, value in result.model.state_dict().items():
        assert torch.equal(last[f"average.{name}"], value)
    assert not torch.equal(last["model.fc.weight"], result.model.fc.weight)
    assert result.history[-1]["val_macro_f1"] == result.metrics["val"]["macro_f1"]
    assert result.provenance["weights"] == "moving average"


def test_every_option_at_once(dataset, tmp_path):
    options = TrainingOptions(
        epochs=4,
        batch_size=16,
        optimizer="sgd",
        schedule="cosine",
        warmup=0.1,
        learning_rate=0.05,
        label_smoothing=0.1,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        mix_probability=0.5,
        balance="sampling",
        balance_power=0.5,
        ema_decay=0.9,
        augmentation="medical",
        gradient_clip=1.0,
        validate_every=3,
        channels_last=False,
        threads=1,
    )
    result = train({**MODEL, "dropout": 0.2}, dataset, options, tmp_path)
    assert [record["val_accuracy"] is None for record in result.history] == [True, True, False, False]
    assert result.epoch in (3, 4)


def test_class_weights_lean_towards_the_rare_class(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    labels = np.array([0] * 50 + [1] * 10)
    part = SimpleNamespace(images=noise, labels=labels)
    data = SimpleNamespace(
        name="noise", class_names=("a", "b"), image_shape=(1, 8, 8), provenance={}, train=part, val=None, test=part
    )
    share = {}
    for balance in ("none", "weights"):
        options = TrainingOptions(epochs=1, batch_size=30, learning_rate=1e-3, balance=balance, threads=1)
        share[balance] = Recorder.first_gradient(data, options, tmp_path / balance)
    # Equal logits: the gradient on a bias is the weighted mean of p - target; 50 and 10 images against 30 and 30.
    assert share["none"] > 0.2
    assert abs(share["weights"]) < 0.1


class Recorder(nn.Module):
    """A bias alone; keeps the first gradient on class b's logit, summed over all batches of one epoch."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))
        self.pull = []

    def forward(self, x):
        logits = self.bias.expand(len(x), 2)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.pull.append(float(gradient[:, 1].sum())))
        return logits

    @classmethod
    def first_gradient(cls, data, options, folder):
        return sum(train(cls(), data, options, folder).model.pull) / 2


def test_progress_hears_of_everything_once(dataset, tmp_path):
    listener = Listener()
    train(MODEL, dataset, QUICK, tmp_path, progress=listener)
    kinds = [call[0] for call in listener.calls]
    assert listener.calls[0] == ("begin", 2, 3, 0)
    assert kinds == ["begin", "step", "step", "step", "epoch", "step", "step", "step", "epoch", "end"]
    assert listener.calls[-3] == ("step", 2, 3)


def test_a_small_set_makes_one_smaller_batch(dataset_maker, tmp_path):
    listener = Listener()
    options = TrainingOptions(epochs=1, batch_size=64, threads=1)
    train(MODEL, dataset_maker(train=9), options, tmp_path, progress=listener)
    assert listener.calls[0] == ("begin", 1, 1, 0)


class Poisoned(nn.Module):
    """A linear network whose answers turn into NaN after some training steps."""

    def __init__(self, good_steps):
        super().__init__()
        self.fc = nn.Linear(64, 3)
        self.good_steps = good_steps

    def forward(self, x):
        y = self.fc(x.flatten(1))
        if self.training:
            self.good_steps -= 1
            if self.good_steps < 0:
                return y * float("nan")
        return y


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(dataset, tmp_path):
    listener = Listener()
    message = (
        r"the loss became nan in step 2 of epoch 2; lower learning_rate \(0.002\) or set gradient_clip to 1 in a new "
        r"run; .*last.safetensors holds the weights after epoch 1"
    )
    with pytest.raises(TrainingError, match=message):
        train(Poisoned(4), dataset, QUICK, tmp_path, progress=listener)
    tensors, values = load_checkpoint(tmp_path / "last.safetensors")
    assert values["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for name, value in tensors.items() if name.startswith("model."))
    assert listener.calls[-1] == ("end",)


def test_a_weight_that_is_no_number_ends_the_run(dataset, tmp_path):
    options = TrainingOptions(
        epochs=2, batch_size=48, optimizer="sgd", learning_rate=100.0, schedule="constant", gradient_clip=5.0, threads=1
    )

    class Infinite(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            y = self.fc(x.flatten(1))
            if y.requires_grad:
                y.register_hook(lambda gradient: gradient * float("inf"))
            return y

    with pytest.raises(
        TrainingError, match=r"fc.weight holds NaN or infinity after epoch 1; .*lower gradient_clip \(5"
    ):
        train(Infinite(), dataset, options, tmp_path)
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["epoch"] == 0


def test_a_begun_folder_is_not_overwritten(dataset, tmp_path):
    train(MODEL, dataset, QUICK, tmp_path)
    with pytest.raises(UsageError, match=r"holds a run; resume it \(--resume\), or name a new folder"):
        train(MODEL, dataset, QUICK, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "was begun with learning_rate 0.002, now it is 0.5; resume with the same"),
        ({"epochs": 9}, "was begun with epochs 2, now it is 9"),
        ({"augmentation": "light"}, 'was begun with augmentation "none", now it is "light"'),
        ({"threads": 2}, "was begun with threads 1, now it is 2"),
    ],
)
def test_resuming_with_another_option_names_it(dataset, tmp_path, change, message):
    train(MODEL, dataset, QUICK, tmp_path)
    changed = TrainingOptions(**{**QUICK.to_dict(), **change})
    with pytest.raises(UsageError, match=message):
        train(MODEL, dataset, changed, tmp_path, resume=True)


def test_resuming_with_another_model_or_data_set_names_it(dataset, dataset_maker, tmp_path):
    train(MODEL, dataset, QUICK, tmp_path)
    with pytest.raises(UsageError, match=r'was begun with model arguments .*"width": 4.*, now it is'):
        train({**MODEL, "width": 5}, dataset, QUICK, tmp_path, resume=True)
    with pytest.raises(UsageError, match=r'was begun with model name "resnet", now it is ".*:Poisoned"'):
        train(Poisoned(9), dataset, QUICK, tmp_path, resume=True)
    with pytest.raises(UsageError, match="was begun with dataset fit_sha256"):
        train(MODEL, dataset_maker(train=51), QUICK, tmp_path, resume=True)
    dataset.class_names = ("row", "column", "other")
    with pytest.raises(UsageError, match="was begun with dataset classes"):
        train(MODEL, dataset, QUICK, tmp_path, resume=True)


def test_resuming_a_finished_run_gives_it_again(dataset, tmp_path):
    first = train(MODEL, dataset, QUICK, tmp_path)
    again = train(MODEL, dataset, TrainingOptions(epochs=2, batch_size=16, threads=0), tmp_path, resume=True)
    assert again.metrics == first.metrics
    assert again.epoch == first.epoch
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in first.model.state_dict().items())


def test_damaged_runs_are_refused(dataset, tmp_path):
    train(MODEL, dataset, QUICK, tmp_path / "a")
    train(MODEL, dataset, TrainingOptions(epochs=2, batch_size=16, threads=1, seed=1), tmp_path / "b")
    last, run = tmp_path / "a" / "last.safetensors", tmp_path / "a" / "run.json"
    whole = last.read_bytes()
    last.write_bytes((tmp_path / "b" / "last.safetensors").read_bytes())
    with pytest.raises(FormatError, match=r"last.safetensors belongs to another run than run.json beside it"):
        train(MODEL, dataset, QUICK, tmp_path / "a", resume=True)
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        train(MODEL, dataset, QUICK, tmp_path / "a", resume=True)
    last.write_bytes(whole)
    (tmp_path / "a" / "best.safetensors").unlink()
    with pytest.raises(FormatError, match=r"best.safetensors: not a readable checkpoint"):
        train(MODEL, dataset, QUICK, tmp_path / "a", resume=True)
    run.write_text("{")
    with pytest.raises(FormatError, match=r"run.json: not readable JSON"):
        train(MODEL, dataset, QUICK, tmp_path / "a", resume=True)
    run.write_text('{"options": 3}')
    with pytest.raises(FormatError, match="not the record of a training run"):
        train(MODEL, dataset, QUICK, tmp_path / "a", resume=True)
    run.unlink()
    with pytest.raises(FormatError, match=r"holds a checkpoint but no run\.json"):
        train(MODEL, dataset, QUICK, tmp_path / "a", resume=True)


def test_bad_data_is_refused_before_anything_is_written(dataset, dataset_maker, tmp_path):
    folder = tmp_path / "run"
    bad = dataset_maker()
    bad.train.images = bad.train.images.astype(np.float32)
    with pytest.raises(DataError, match=r"train images are float32 of shape \(48, 1, 8, 8\); expected uint8"):
        train(MODEL, bad, QUICK, folder)
    bad = dataset_maker()
    bad.val.labels = bad.val.labels + 1
    with pytest.raises(DataError, match="val labels run from 1 to 3; allowed: 0 to 2"):
        train(MODEL, bad, QUICK, folder)
    bad = dataset_maker()
    bad.test.labels = bad.test.labels[:-1]
    with pytest.raises(DataError, match=r"test labels are int64 of shape \(23,\); expected 24 integers"):
        train(MODEL, bad, QUICK, folder)
    bad = dataset_maker(train=0)
    with pytest.raises(UsageError, match="data set stripes has no training images"):
        train(MODEL, bad, QUICK, folder)
    with pytest.raises(UsageError, match="the model's arguments cannot be used: width is 0"):
        train({"width": 0}, dataset, QUICK, folder)
    with pytest.raises(UsageError, match=r"the model's arguments cannot be used: .*colour"):
        train({"colour": 1}, dataset, QUICK, folder)
    no_val = dataset_maker(val=0)
    with pytest.raises(UsageError, match="select is val-macro-f1 but the data set has no validation images"):
        train(MODEL, no_val, TrainingOptions(select="val-macro-f1"), folder)
    with pytest.raises(UsageError, match=r"fit_on is train\+val but the data set has no validation images"):
        train(MODEL, no_val, TrainingOptions(fit_on="train+val"), folder)
    with pytest.raises(UsageError, match="no augmentation policy 'heavy'"):
        train(MODEL, dataset, TrainingOptions(augmentation="heavy"), folder)
    assert not folder.exists()


def test_a_model_with_other_outputs_is_refused(dataset, tmp_path):
    model = resnet(classes=5, image_size=8, **MODEL)
    with pytest.raises(UsageError, match=r"answers a batch with shape \(16, 5\); expected \(16, 3\)"):
        train(model, dataset, QUICK, tmp_path)


def test_a_full_disk_is_an_error_and_leaves_the_older_checkpoint(dataset, tmp_path, monkeypatch):
    class Full(Silent):
        def step(self, epoch, step, loss):
            if epoch == 2:
                monkeypatch.setattr("gascnn.toolkit.files.os.fsync", self.no_space)

        def no_space(self, handle):
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"could not write .*safetensors: the disk is full"):
        train(MODEL, dataset, QUICK, tmp_path, progress=Full())
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["epoch"] == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_loop_alone_can_be_asked_how_far_it_is(dataset, tmp_path):
    model = resnet(classes=3, image_size=8, **MODEL)
    options = TrainingOptions(epochs=1, batch_size=16, select="last", threads=1)
    images, labels = torch.tensor(dataset.train.images), torch.tensor(dataset.train.labels)
    loop = Loop(model, images, labels, dataset.class_names, None, options, tmp_path, "run", Silent())
    assert loop.done == 0
    loop.run_epochs()
    assert loop.done == 1
    assert loop.time_s > 0
