import inspect
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gascnn.benchmarks.pgsl.attacks import TITLES, Strengths, attack_images, to_uint8
from gascnn.benchmarks.pgsl.plain import PlainCnn, train_plain
from gascnn.benchmarks.pgsl.training import Recipe, batches, predictions, train_split
from gascnn.models.saliency import SaliencyAttack
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl.local import train_local_classifier
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.train import make_client, make_server, train_epochs

CLASSES, SIZE = 3, 8
OPTIONS = PgslOptions(
    width=8, hidden=12, grid=2, pixels=4, recovery_iterations=5, epochs=3, batch_size=10, learning_rate=5e-3
)
STRENGTHS = Strengths(fgsm_bound=0.1, bim_bound=0.1, bim_step=0.04, bim_iterations=4, cw_search_steps=1)


def bars(count, seed):
    """Noisy images with a bright row (class 0), column (1) or diagonal (2)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = rng.integers(0, 60, (count, 1, SIZE, SIZE))
    for i, label in enumerate(labels):
        at = rng.integers(1, SIZE - 1)
        where = {0: (at, slice(None)), 1: (slice(None), at), 2: np.diag_indices(SIZE)}[int(label)]
        pixels[i, 0][where] = 250
    return torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels.astype(np.int64))


@pytest.fixture(scope="module")
def classifier():
    return train_local_classifier(*bars(300, 0), CLASSES, LocalOptions(width=4, epochs=10, batch_size=16))


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        return torch.flatten(images, 1) @ self.weight


def test_fgsm_of_a_linear_model_by_hand():
    # Logits are +x0 and -x0: a bright first pixel is class 0. Its loss grows as x0 falls, class 1's as x0 rises.
    weight = torch.zeros(4, 2)
    weight[0] = torch.tensor([1.0, -1.0])
    weight[1] = torch.tensor([-0.5, 0.5])
    images = torch.tensor([[200, 100, 7, 9], [10, 240, 250, 0], [2, 254, 1, 1]], dtype=torch.uint8).reshape(3, 1, 2, 2)
    model = Linear(weight)
    assert predictions(model, images).tolist() == [0, 1, 1]
    attacked = attack_images("fgsm", images, model, 2, Strengths(fgsm_bound=20 / 255), PgslOptions())
    # Clipped at white; pixels without influence stay.
    expected = [[180, 120, 7, 9], [30, 220, 250, 0], [22, 234, 1, 1]]
    assert attacked.flatten(1).tolist() == expected
    assert attacked.dtype == torch.uint8


def test_fgsm_and_bim_follow_the_gradient_of_the_predicted_class(classifier):
    images, _ = bars(9, 1)

    def step(now, origin, bound, by, predicted):
        now = now.clone().requires_grad_()
        F.cross_entropy(classifier(now), predicted).backward()
        moved = (now.detach() + by * now.grad.sign()).clamp(0, 1)
        return torch.maximum(torch.minimum(moved, origin + bound), origin - bound)

    original = images.float() / 255
    predicted = classifier(original).argmax(1)
    fgsm = attack_images("fgsm", images, classifier, CLASSES, STRENGTHS, OPTIONS)
    assert torch.equal(fgsm, to_uint8(step(original, original, 0.1, 0.1, predicted)))
    now = original
    for _ in range(4):
        now = step(now, original, 0.1, 0.04, predicted)
    assert torch.equal(attack_images("bim", images, classifier, CLASSES, STRENGTHS, OPTIONS), to_uint8(now))


def test_cw_finds_another_answer_with_a_smaller_change_than_fgsm(classifier):
    images, _ = bars(9, 2)
    strengths = Strengths(cw_search_steps=3, fgsm_bound=0.3)
    before = torch.get_rng_state()
    found = attack_images("cw", images, classifier, CLASSES, strengths, OPTIONS)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, attack_images("cw", images, classifier, CLASSES, strengths, OPTIONS))
    other = predictions(classifier, found) != predictions(classifier, images)
    assert other.double().mean() > 0.6
    fgsm = attack_images("fgsm", images, classifier, CLASSES, strengths, OPTIONS)

    def far(attacked):
        return torch.flatten((attacked.float() - images.float())[other], 1).norm(dim=1).mean()

    assert 0 < far(found) < 0.9 * far(fgsm)


def test_jsma_is_the_clients_attack_rounded(classifier):
    images, _ = bars(9, 3)
    attacked = attack_images("jsma", images, classifier, CLASSES, STRENGTHS, OPTIONS)
    expected, _ = SaliencyAttack(classifier, pixels=4)(images.float() / 255)
    assert torch.equal(attacked, to_uint8(expected))
    moved = (attacked != images).flatten(1).sum(1)
    assert int(moved.min()) > 0
    assert int(moved.max()) <= 4
    bound = attack_images("jsma", images, classifier, CLASSES, STRENGTHS, PgslOptions(attack="bound", bound=10 / 255))
    assert int((bound.int() - images.int()).max()) == 10


def test_rounds_to_the_nearest_and_clips():
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.0, 1.2, -0.1])
    assert to_uint8(values).tolist() == [0, 0, 1, 254, 255, 255, 0]


def test_no_attack_has_a_place_for_a_label():
    assert list(inspect.signature(attack_images).parameters) == [
        "name", "images", "model", "classes", "strengths", "options",
    ]  # fmt: skip


def test_the_model_is_left_as_it_was():
    images, labels = bars(6, 4)
    model = train_plain(images, labels, CLASSES, OPTIONS).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    attack_images("fgsm", images, model, CLASSES, STRENGTHS, OPTIONS)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_attacks_refuse(classifier, monkeypatch):
    images, _ = bars(3, 5)
    with pytest.raises(UsageError, match="attack is 'pgd'; allowed: jsma, cw, bim, fgsm"):
        attack_images("pgd", images, classifier, CLASSES, STRENGTHS, OPTIONS)
    for bad in (images.float(), images[:0], images[0]):
        with pytest.raises(DataError, match=r"uint8 \(n, C, H, W\) is needed"):
            attack_images("jsma", bad, classifier, CLASSES, STRENGTHS, OPTIONS)
    with pytest.raises(UsageError, match="jsma attacks Linear; give the client's LocalClassifier"):
        attack_images("jsma", images, Linear(torch.zeros(64, 3)), CLASSES, STRENGTHS, OPTIONS)
    with pytest.raises(UsageError, match="bim_step is 0"):
        Strengths(bim_step=0)
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    for name in set(TITLES) - {"jsma"}:
        with pytest.raises(UsageError, match=r"not installed.*pip install 'gascnn\[attacks\]'$"):
            attack_images(name, images, classifier, CLASSES, STRENGTHS, OPTIONS)


def test_plain_network_has_the_split_ones_layers_and_learns():
    images, labels = bars(240, 6)
    before = torch.get_rng_state()
    model = train_plain(images, labels, CLASSES, OPTIONS)
    assert torch.equal(torch.get_rng_state(), before)
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    # The client's without the map: four sub-images in; the server's up-sampled maps have a quarter of the width.
    assert [conv.in_channels for conv in convs] == [4, 8, 2, 8, 8, 8, 8]
    assert sum(isinstance(layer, nn.Linear) for layer in model.modules()) == 2
    held, right = bars(90, 7)
    assert float((predictions(model, held) == right).double().mean()) > 0.85
    again = train_plain(images, labels, CLASSES, OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_plain_network_refuses():
    images, labels = bars(6, 8)
    with pytest.raises(DataError, match="expected uint8"):
        train_plain(images.float(), labels, CLASSES, OPTIONS)
    with pytest.raises(DataError, match=r"expected int64 \(6,\)"):
        train_plain(images, labels[:5], CLASSES, OPTIONS)
    with pytest.raises(DataError, match="labels reach from 0 to 2; allowed: 0 to 1"):
        train_plain(images, labels, 2, OPTIONS)
    with pytest.raises(UsageError, match="image_size is 7"):
        PlainCnn(1, CLASSES, 7, OPTIONS)


def test_a_plain_recipe_makes_the_steps_of_train_epochs(classifier):
    images, labels = bars(60, 9)
    networks = []
    for train in (train_epochs, train_split):
        client, server = make_client(classifier, OPTIONS), make_server(CLASSES, SIZE, OPTIONS)
        train(client, server, images, labels)
        networks.append(client.model.state_dict() | server.model.state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


def test_balance_and_augmentation():
    images, _ = bars(60, 10)
    labels = torch.tensor([0] * 40 + [1] * 10 + [2] * 10)
    drawn = torch.cat([found for _, _, found in batches(images, labels, CLASSES, OPTIONS, Recipe(balance=1.0))])
    assert torch.bincount(drawn).tolist() == [60, 60, 60]
    plain, turned = (
        next(batches(images, labels, CLASSES, OPTIONS, Recipe(augmentation=name))) for name in ("none", "light")
    )
    assert torch.equal(plain[2], turned[2])
    assert not torch.equal(plain[1], turned[1])
    with pytest.raises(UsageError, match="no augmentation policy 'strong'"):
        Recipe(augmentation="strong")
    with pytest.raises(UsageError, match="unknown split-learning option 'epoch'"):
        Recipe(changes=(("epoch", 3),))
    with pytest.raises(UsageError, match="balance is 2"):
        Recipe(balance=2)
