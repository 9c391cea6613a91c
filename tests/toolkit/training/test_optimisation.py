import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gascnn.models.resnet import resnet
from gascnn.toolkit.training.optimisation import WeightAverage, learning_rate, make_optimizer
from gascnn.toolkit.training.options import TrainingOptions


def test_one_cycle_agrees_with_torchs_scheduler():
    options = TrainingOptions(learning_rate=0.4, schedule="one-cycle", warmup=0.25)
    steps = 100
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch's phases end at pct_start * total_steps - 1 and total_steps - 1; ours at 25 and 100.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, total_steps=steps + 1, pct_start=26 / 101, div_factor=25, final_div_factor=1e4 / 25
    )
    for step in range(steps):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate(step, steps, options), rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_one_cycle_at_its_corners():
    options = TrainingOptions(learning_rate=0.5, schedule="one-cycle", warmup=0.25)
    assert learning_rate(0, 80, options) == pytest.approx(0.5 / 25)
    assert learning_rate(10, 80, options) == pytest.approx(0.5 * (1 + 1 / 25) / 2)
    assert learning_rate(20, 80, options) == pytest.approx(0.5)
    assert learning_rate(50, 80, options) == pytest.approx(0.5 * (1 + 1e-4) / 2)
    assert learning_rate(80, 80, options) == pytest.approx(0.5e-4)


def test_cosine_at_its_corners():
    options = TrainingOptions(learning_rate=0.5, schedule="cosine", warmup=0.1)
    assert learning_rate(0, 100, options) == pytest.approx(0.05)
    assert learning_rate(9, 100, options) == pytest.approx(0.5)
    assert learning_rate(10, 100, options) == pytest.approx(0.5)
    assert learning_rate(55, 100, options) == pytest.approx(0.5 * (1 + 0.01) / 2)
    assert learning_rate(100, 100, options) == pytest.approx(0.005)
    assert learning_rate(100, 100, replace(options, cosine_end=0.25)) == pytest.approx(0.125)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.9])
def test_learning_rates_are_positive_and_never_above_the_highest(schedule, warmup):
    options = TrainingOptions(learning_rate=0.1, schedule=schedule, warmup=warmup)
    for steps in (1, 2, 7):
        assert all(0 < learning_rate(step, steps, options) <= 0.1 + 1e-12 for step in range(steps))


def test_batch_norms_and_biases_do_not_decay():
    model = resnet(classes=2, blocks=(1,), width=2, image_size=8)
    decaying, free = make_optimizer(model, TrainingOptions(weight_decay=0.3)).param_groups
    assert decaying["weight_decay"] == 0.3
    assert free["weight_decay"] == 0.0
    assert {p.ndim for p in decaying["params"]} == {2, 4}
    assert {p.ndim for p in free["params"]} == {1}
    assert len(decaying["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_sgd_takes_one_nesterov_step():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = make_optimizer(
        model, TrainingOptions(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.2)
    )
    model.weight.grad = torch.full((1, 1), 2.0)
    optimizer.step()
    # gradient 2 + 0.2 * 1 = 2.2; Nesterov's first step: 2.2 + 0.5 * 2.2 = 3.3
    assert float(model.weight.detach()) == pytest.approx(1 - 0.1 * 3.3)


def test_average_of_weights_and_statistics_by_hand():
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.5)
    expected_weight, expected_mean = 1.0, 0.0
    for step, (weight, mean) in enumerate([(2.0, 4.0), (3.0, 8.0), (-1.0, 2.0)], start=1):
        with torch.no_grad():
            model.weight.fill_(weight)
            model.running_mean.fill_(mean)
            model.num_batches_tracked.fill_(step)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected_weight = decay * expected_weight + (1 - decay) * weight
        expected_mean = decay * expected_mean + (1 - decay) * mean
        assert float(average.model.weight) == pytest.approx(expected_weight)
        assert float(average.model.running_mean) == pytest.approx(expected_mean)
        assert int(average.model.num_batches_tracked) == step
    assert not average.model.training
    assert model.weight.requires_grad
    assert not average.model.weight.requires_grad


def test_averaged_statistics_fit_the_averaged_weights():
    """After steady training the averaged statistics are those that the averaged weights really produce."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4))
    average = WeightAverage(model, 0.95)
    for step in range(1, 400):
        with torch.no_grad():
            model[0].weight += 0.002 * torch.randn_like(model[0].weight)
        model(torch.rand(32, 1, 8, 8))
        average.update(model, step)
    measured = copy.deepcopy(average.model).train()
    measured[1].momentum = None
    measured[1].reset_running_stats()
    for _ in range(50):
        measured(torch.rand(32, 1, 8, 8))
    mean, variance = average.model[1].running_mean, average.model[1].running_var
    assert float((mean - measured[1].running_mean).abs().max()) < 0.1 * float(variance.sqrt().min())
    torch.testing.assert_close(variance, measured[1].running_var, rtol=0.15, atol=0)
    assert math.isfinite(float(variance.sum()))
