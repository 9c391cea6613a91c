"""DLG and iDLG against a layer whose input its gradient spells out, against finite differences, and on a small net."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gascnn.benchmarks.pgsl.gradient_inversion import (
    InversionSettings,
    image_of,
    infer_label,
    invert_activations,
    invert_gradients,
    returned_gradients,
    server_label,
    undo_map,
    weight_gradients,
)
from gascnn.models.pgsl import PgslClient, PgslServer, downsample, shrink_map
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import DataError, UsageError

WIDTH, CLASSES = 32, 10


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(load_dataset("digits").test.images[:6]).float() / 255


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    client = PgslClient(SaliencyAttack(LocalClassifier(1, CLASSES, 8), pixels=3), width=WIDTH).eval()
    server = PgslServer(classes=CLASSES, image_size=8, width=WIDTH, hidden=32, recovery_on="none").eval()
    return client, server


def planes_of(client, images):
    with torch.no_grad():
        attacked, added = client.attack(images)
        return downsample(attacked, shrink_map(added)), attacked


def test_the_gradient_of_a_linear_layer_is_its_input():
    """Of y = W x + b, dL/dW = (dL/db) x^T: any row of the one over its entry of the other is x, without a search."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Flatten(), nn.Linear(20, 6))
    planes = torch.rand(1, 5, 2, 2)
    logits = layer(planes)
    returned = torch.softmax(logits.detach(), dim=1) - torch.eye(6)
    gradients = weight_gradients(layer, planes, returned[2:3])
    closed_form = gradients[0][4] / gradients[1][4]
    torch.testing.assert_close(closed_form, planes.flatten())
    for label in (2, None):
        found = invert_gradients(layer, returned, gradients, planes.shape, label, InversionSettings(100, 1))
        # 1e-5 was left, the square root of a mismatch of 3e-11.
        torch.testing.assert_close(found.planes.flatten(), closed_form, atol=1e-4, rtol=0)
        assert found.label == 2
        assert found.mismatch < 1e-5
    wrong = invert_gradients(layer, returned, gradients, planes.shape, 3, InversionSettings(100, 1))
    assert wrong.mismatch > 1e-2


def test_returned_gradients_are_those_of_training(network, images):
    """By torch's own cross entropy of the whole network, and by differences of the loss."""
    client, server = network
    planes, _ = planes_of(client, images[:1])
    activations = client.layers(planes).detach()
    returned = returned_gradients(server, activations)
    for label in (0, 7):
        leaf = activations.clone().requires_grad_()
        F.cross_entropy(server(leaf).fused, torch.tensor([label])).backward()
        torch.testing.assert_close(returned[label], leaf.grad[0])
    direction = torch.randn(activations.shape, generator=torch.Generator().manual_seed(1))
    maps = server.recovered_maps(activations).double()
    exact = PgslServer(**server.arguments).double().eval()
    exact.load_state_dict(server.state_dict())

    def loss(step):
        fused = exact.fusion(F.pixel_shuffle((activations + step * direction).double(), 2), maps)
        return float(F.cross_entropy(exact.fused(fused), torch.tensor([7])).detach())

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert slope == pytest.approx(float((returned[7] * direction[0]).sum()), rel=1e-3)
    # A soft label's is the mean by its probabilities, p - y being linear in y.
    leaf = activations.clone().requires_grad_()
    soft = torch.full((1, CLASSES), 0.1)
    F.cross_entropy(server(leaf).fused, soft).backward()
    torch.testing.assert_close(returned.mean(0), leaf.grad[0])


def test_weight_gradients_are_those_of_backward(network, images):
    client, server = network
    planes, _ = planes_of(client, images[:1])
    client.layers.zero_grad()
    activations = client.layers(planes)
    F.cross_entropy(server(activations).fused, torch.tensor([4])).backward()
    found = weight_gradients(client.layers, planes, returned_gradients(server, activations)[4:5])
    for gradient, parameter in zip(found, client.layers.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    client.layers.zero_grad()


def test_the_label_is_read_off_the_last_layer(network, images):
    client, server = network
    planes, _ = planes_of(client, images)
    for place, one in enumerate(planes.split(1)):
        activations = client.layers(one).detach()
        for label in (place, 9 - place):
            assert server_label(server, activations, label) == label
    rows = torch.tensor([[0.2, 0.4], [0.1, 0.2], [-0.3, -0.6]])
    assert infer_label(rows) == 2
    assert infer_label(rows[[2, 0, 1]]) == 0


def test_a_small_net_gives_the_image_away(network, images):
    """Activations give it to rounding: 32 numbers of each place tell 5. Gradients tell it but for what ReLUs' kinks
    keep L-BFGS from: of six images one start of 60 steps left 0.003 at most, where the mean of all digits leaves 0.07.
    """
    client, server = network
    settings = InversionSettings(iterations=60, restarts=1)
    planes, attacked = planes_of(client, images[:3])
    for one, shown, label in zip(planes.split(1), attacked.split(1), (3, 1, 4), strict=True):
        activations = client.layers(one).detach()
        inverted = invert_activations(client.layers, activations, one.shape, settings)
        torch.testing.assert_close(inverted.planes, one, atol=1e-3, rtol=0)
        torch.testing.assert_close(image_of(inverted.planes), shown, atol=1e-3, rtol=0)
        returned = returned_gradients(server, activations)
        gradients = weight_gradients(client.layers, one, returned[label : label + 1])
        for known in (None, label):
            found = invert_gradients(client.layers, returned, gradients, one.shape, known, settings)
            assert found.label == label
            assert float(((image_of(found.planes) - shown) ** 2).mean()) < 0.01


def test_the_map_that_travels_undoes_the_attack():
    """By hand: one pixel of a block was moved from 0.25 to white, and nothing elsewhere."""
    image = torch.tensor([[0.1, 0.25, 0.9, 0.2], [0.3, 0.4, 1.0, 0.0], [0.0] * 4, [0.5] * 4]).reshape(1, 1, 4, 4)
    attacked = image.clone()
    attacked[0, 0, 0, 1] = 1.0
    planes = downsample(attacked, shrink_map(attacked - image))
    torch.testing.assert_close(undo_map(planes), image)
    torch.testing.assert_close(image_of(planes), attacked)
    # Two pixels of one block: the map tells the larger step and the brightest gets it, the other stays.
    attacked[0, 0, 1, 1] = 1.0
    left = undo_map(downsample(attacked, shrink_map(attacked - image)))
    assert int((left != image).sum()) == 1
    colour = torch.rand(2, 3, 4, 4)
    assert undo_map(downsample(colour, torch.zeros(2, 1, 2, 2))).equal(colour)


def test_the_same_seed_gives_the_same_bits(network, images):
    client, _ = network
    planes, _ = planes_of(client, images[:1])
    activations = client.layers(planes).detach()
    first, again, other = (
        invert_activations(client.layers, activations, planes.shape, InversionSettings(5, 1, seed=seed)).planes
        for seed in (0, 0, 1)
    )
    assert first.equal(again)
    assert not first.equal(other)


def test_no_gradient_no_image(network):
    client, _ = network
    zeros = [torch.zeros_like(parameter) for parameter in client.layers.parameters()]
    found = invert_gradients(client.layers, torch.zeros(CLASSES, WIDTH, 4, 4), zeros, (1, 5, 4, 4), 0)
    assert found.mismatch == float("inf")
    assert bool(((found.planes >= 0) & (found.planes <= 1)).all())


def test_refused(network):
    client, _ = network
    with pytest.raises(UsageError, match="iterations is 0; allowed: whole numbers from 1"):
        InversionSettings(iterations=0)
    with pytest.raises(UsageError, match="restarts is True; allowed"):
        InversionSettings(restarts=True)
    with pytest.raises(UsageError, match="label is 10; allowed: 0 to 9"):
        invert_gradients(client.layers, torch.zeros(CLASSES, 1), [torch.ones(1)], (1, 5, 4, 4), 10)
    with pytest.raises(DataError, match=r"\(3, 2\) tells no label"):
        infer_label(torch.zeros(3, 2))
