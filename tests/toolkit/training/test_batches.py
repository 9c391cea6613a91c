import numpy as np
import pytest
import torch

from gascnn.toolkit.errors import DataError
from gascnn.toolkit.training.batches import class_weights, epoch_order, mix_batch, soft_loss, to_float
from gascnn.toolkit.training.options import TrainingOptions


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_to_float_divides_by_255_and_does_nothing_else():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(1, 1, 16, 16)
    assert np.array_equal(to_float(images).numpy(), expected)


def test_class_weights_by_hand():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2] * 1)
    # Full balance: each class gets 10 / 3 in all.
    torch.testing.assert_close(class_weights(labels, 3, 1.0), torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    torch.testing.assert_close(class_weights(labels, 3, 0.0), torch.ones(3))
    half = class_weights(labels, 3, 0.5)
    torch.testing.assert_close(half[2] / half[0], torch.tensor(6**0.5))
    assert float(half[labels].mean()) == pytest.approx(1.0)


def test_a_class_without_images_cannot_be_balanced():
    with pytest.raises(DataError, match="class 1 has no training images; balancing needs at least one"):
        class_weights(torch.tensor([0, 0, 2]), 3, 1.0)


def test_plain_order_is_a_permutation():
    order = epoch_order(torch.zeros(50, dtype=torch.int64), 1, TrainingOptions(), generator())
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != list(range(50))


def test_balanced_sampling_gives_every_class_its_share():
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    options = TrainingOptions(balance="sampling", balance_power=1.0)
    order = epoch_order(labels, 3, options, generator())
    assert len(order) == 100
    counts = torch.bincount(labels[order], minlength=3).tolist()
    assert sorted(counts) == [33, 33, 34]
    # Systematic resampling: each image comes a fixed number of times, rounded up or down.
    times = torch.bincount(order, minlength=100)
    assert set(times[:70].tolist()) <= {0, 1}
    assert set(times[90:].tolist()) <= {3, 4}
    assert labels[order][:50].float().mean() > 0.5


def test_power_zero_samples_each_image_once():
    options = TrainingOptions(balance="sampling", balance_power=0.0)
    order = epoch_order(torch.tensor([0] * 9 + [1]), 2, options, generator())
    assert sorted(order.tolist()) == list(range(10))


def one_value_images(count=8):
    batch = torch.arange(count).float().view(count, 1, 1, 1).expand(count, 1, 10, 10).clone()
    return batch, torch.eye(count)


def test_mixup_mixes_images_and_targets_in_the_same_parts():
    batch, targets = one_value_images()
    mixed, soft = mix_batch(batch, targets, TrainingOptions(mixup_alpha=1.0), generator(4))
    # An image's value is its number: the mixed value must be the same mixture of numbers that the target says.
    torch.testing.assert_close(mixed[:, 0, 0, 0], soft @ torch.arange(8).float())
    torch.testing.assert_close(soft.sum(1), torch.ones(8))
    assert not torch.equal(soft, targets)


def test_cutmix_target_is_the_area_that_was_pasted():
    batch, targets = one_value_images()
    mixed, soft = mix_batch(batch, targets, TrainingOptions(cutmix_alpha=1.0), generator(4))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), soft @ torch.arange(8).float())
    assert all(len(image.unique()) <= 2 for image in mixed)
    assert any(len(image.unique()) == 2 for image in mixed)


def test_mixing_happens_as_often_as_asked_and_takes_both_kinds():
    batch, targets = one_value_images()
    options = TrainingOptions(mixup_alpha=1.0, cutmix_alpha=1.0, mix_probability=0.5)
    source = generator()
    kinds = {"none": 0, "mixup": 0, "cutmix": 0}
    for _ in range(300):
        mixed, _ = mix_batch(batch, targets, options, source)
        if mixed is batch:
            kinds["none"] += 1
        else:
            kinds["cutmix" if any(len(image.unique()) == 2 for image in mixed) else "mixup"] += 1
    assert 120 <= kinds["none"] <= 180
    assert kinds["mixup"] > 50
    assert kinds["cutmix"] > 50


def test_no_mixing_by_default_and_no_random_number_used():
    batch, targets = one_value_images()
    source = generator()
    before = source.get_state()
    assert mix_batch(batch, targets, TrainingOptions(), source) == (batch, targets)
    assert torch.equal(source.get_state(), before)


def test_loss_is_the_weighted_smoothed_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    weights, smoothing = np.array([1.0, 2.0, 0.5]), 0.1
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    q = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    expected = -(weights * q * log_p).sum(1).mean()
    found = soft_loss(torch.tensor(logits), torch.eye(3).double()[labels], torch.tensor(weights), smoothing)
    assert float(found) == pytest.approx(expected, rel=1e-12)
