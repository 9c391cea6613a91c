import dataclasses

import numpy as np
import pytest
import torch

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl.local import local_accuracy, train_local_classifier
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.recovery import robust_pca
from gascnn.toolkit.pgsl.train import (
    accuracies,
    answers,
    epoch_batches,
    make_client,
    make_recover,
    make_server,
    train_epochs,
)


def stripes(count, seed, size=8):
    """Noisy images with a bright row (class 0), column (1) or diagonal (2)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 3
    pixels = rng.integers(0, 60, (count, 1, size, size))
    for i, label in enumerate(labels):
        at = rng.integers(1, size - 1)
        if label == 0:
            pixels[i, 0, at, :] = 250
        elif label == 1:
            pixels[i, 0, :, at] = 250
        else:
            pixels[i, 0][np.diag_indices(size)] = 250
    return torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def classifier():
    return train_local_classifier(*stripes(300, 1), 3, LocalOptions(width=4, epochs=12, batch_size=16))


def test_local_classifier_learns_and_is_the_same_again(classifier):
    images, labels = stripes(90, 2)
    assert local_accuracy(classifier, images, labels) > 0.9
    assert not any(p.requires_grad for p in classifier.parameters())
    options = LocalOptions(width=4, epochs=1, batch_size=16, seed=3)
    before = torch.get_rng_state()
    first = train_local_classifier(images, labels, 3, options)
    torch.rand(5)
    second = train_local_classifier(images, labels, 3, options)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.set_rng_state(before)
    train_local_classifier(images, labels, 3, options)
    assert torch.equal(torch.get_rng_state(), before)


def pixels(*shape):
    return torch.zeros(shape, dtype=torch.uint8)


def classes(*labels):
    return torch.tensor(labels, dtype=torch.int64)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (pixels(4, 1, 8, 8).float(), classes(0, 1, 2, 0), DataError, "images are torch.float32"),
        (pixels(4, 1, 8, 6), classes(0, 1, 2, 0), DataError, r"of shape \(4, 1, 8, 6\); expected uint8"),
        (pixels(0, 1, 8, 8), classes(), DataError, "n at least 1"),
        (
            pixels(4, 1, 8, 8),
            classes(0, 1, 2),
            DataError,
            r"labels are torch.int64 of shape \(3,\); expected int64 \(4,",
        ),
        (pixels(2, 1, 8, 8), classes(0, 3), DataError, "labels reach from 0 to 3; allowed: 0 to 2"),
        (pixels(2, 2, 8, 8), classes(0, 1), UsageError, r"in_channels is 2; allowed: 1 \(gray\)"),
    ],
)
def test_local_classifier_refuses(images, labels, error, message):
    with pytest.raises(error, match=message):
        train_local_classifier(images, labels, 3)


def test_split_network_learns_with_robust_pca(classifier):
    options = PgslOptions(width=8, hidden=16, grid=4, pixels=3, amount=0.5, epochs=4, batch_size=20, learning_rate=5e-3)
    client, server = make_client(classifier, options), make_server(3, 8, options)
    steps = []
    train_epochs(client, server, *stripes(300, 1), on_step=lambda epoch, reply: steps.append((epoch, reply.step)))
    assert steps == [(i // 15, i) for i in range(60)]
    images, labels = stripes(90, 2)
    answer = answers(client, server, images)
    found = accuracies(answer, labels)
    assert set(found) == {"fusion", "recovered", "fused", "attacked"}
    assert min(found.values()) > 0.6
    assert found["fusion"] > 0.85
    right = sum(int(row.argmax()) == int(label) for row, label in zip(answer.scores, labels, strict=True))
    assert found["fusion"] == pytest.approx(right / 90)
    with pytest.raises(DataError, match="there are no images to classify"):
        answers(client, server, images[:0])


def test_epochs_see_each_image_once_in_their_own_order():
    options = PgslOptions(batch_size=4, seed=7)
    first, second = epoch_batches(14, 0, options), epoch_batches(14, 1, options)
    assert [len(batch) for batch in first] == [4, 4, 4]
    assert len(set(torch.cat(first).tolist())) == 12
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first), torch.cat(epoch_batches(14, 0, options)))
    assert [len(batch) for batch in epoch_batches(3, 0, options)] == [3]


def test_recovery_takes_a_sparse_attack_away_at_any_scale():
    torch.manual_seed(0)
    clean = torch.rand(3, 20, 1) @ torch.rand(3, 1, 24)
    attacked = clean.clone()
    attacked[:, 3, 7] += 1
    attacked[:, 12, 2] += 1
    for options in (PgslOptions(mu=0.01), PgslOptions(mu=0.01, recovered_as="low-rank")):
        recover = make_recover(options)
        recovered = recover(attacked)
        assert float((recovered - clean).norm()) < 0.2 * float((attacked - clean).norm())
        torch.testing.assert_close(recover(1000 * attacked), 1000 * recovered, rtol=1e-3, atol=1e-2)
        assert not recover(torch.zeros(2, 4, 4)).any()


def test_recovery_uses_what_the_options_say():
    matrices = torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(0))
    options = PgslOptions(mu=0.1, sparsity=1.5, recovery_iterations=7)
    found = robust_pca(matrices, mu=0.1, relative=True, sparsity=0.5, max_iterations=7)
    assert found.iterations.tolist() == [7, 7]
    assert torch.equal(make_recover(options)(matrices), matrices - found.sparse)
    options = dataclasses.replace(options, recovered_as="low-rank")
    assert torch.equal(make_recover(options)(matrices), found.low_rank)
    options = dataclasses.replace(options, mu_relative=False)
    found = robust_pca(matrices, mu=0.1, relative=False, sparsity=0.5, max_iterations=7)
    assert torch.equal(make_recover(options)(matrices), found.low_rank)
    assert PgslOptions.from_dict(options.to_dict()) == options
    with pytest.raises(UsageError, match="mu_relative is 'no'; allowed: true or false"):
        PgslOptions(mu_relative="no")


def test_seed_alone_makes_the_weights(classifier):
    options = PgslOptions(width=8, hidden=16, pixels=3)
    before = torch.get_rng_state()
    first = make_client(classifier, options).model.state_dict() | make_server(3, 8, options).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = make_client(classifier, options).model.state_dict() | make_server(3, 8, options).model.state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name])
    other = make_client(classifier, dataclasses.replace(options, seed=1)).model.state_dict()
    assert not torch.equal(other["layers.0.weight"], first["layers.0.weight"])


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("literal", {"pixels": None, "amount": 1.0, "bound": None}),
        ("pixels", {"pixels": 4, "amount": 0.5, "bound": None}),
        ("bound", {"pixels": None, "amount": 1.0, "bound": 0.2}),
    ],
)
def test_attack_has_the_strength_of_the_options(classifier, attack, expected):
    options = PgslOptions(attack=attack, pixels=4, amount=0.5, bound=0.2)
    assert make_client(classifier, options).model.attack.arguments == expected


def test_what_does_not_fit_together_is_refused(classifier):
    with pytest.raises(UsageError, match="pixels is 65; allowed: whole numbers from 1 to 64"):
        make_client(classifier, PgslOptions(pixels=65))
    with pytest.raises(UsageError, match="image_size is 9; allowed: even numbers from 4"):
        make_server(3, 9, PgslOptions())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attack": "fgsm"}, "attack is 'fgsm'; allowed: literal, pixels, bound"),
        ({"width": 30}, "width is 30; allowed: multiples of 4"),
        ({"width": "64"}, "width is '64'; allowed: whole numbers from 4 to 1024"),
        ({"fusion_kernel": 2}, "fusion_kernel is 2; allowed: odd numbers from 1 to 9"),
        ({"strides": [1, 1]}, r"strides is \(1, 1\); allowed: five of 1 or 2"),
        ({"strides": 1}, "strides is 1; give a list of numbers"),
        ({"initial_weights": [0.5, 0.5, 0.5]}, "allowed: three numbers above 0 that sum to 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; allowed: numbers from 1e-08 to 100"),
        ({"momentum": 1}, "unknown split-learning option 'momentum'; known: attack, pixels"),
    ],
)
def test_options_are_checked(values, message):
    with pytest.raises(UsageError, match=message):
        PgslOptions.from_dict(values)


def test_local_options_are_checked():
    with pytest.raises(UsageError, match="epochs is 0; allowed: whole numbers from 1"):
        LocalOptions(epochs=0)


def test_options_survive_json_and_have_the_papers_values():
    options = PgslOptions()
    assert (options.learning_rate, options.decay, options.dropout, options.mu) == (1e-3, 3e-4, 0.25, 0.55)
    assert (options.width, options.initial_weights) == (64, (0.5, 0.3, 0.2))
    assert PgslOptions.from_dict(options.to_dict()) == options
    assert isinstance(options.to_dict()["strides"], list)
