import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.errors import DataError, FormatError, TrainingError, UsageError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import (
    Answer,
    ClientState,
    Gradient,
    SplitServer,
    Upload,
    _step_seed,
    train_round_robin,
    train_step,
)
from gascnn.toolkit.pgsl.train import make_client, make_server

CLASSES, SIZE = 3, 12
OPTIONS = PgslOptions(width=8, hidden=10, grid=2, pixels=4, recovery="channels", decay=0.1, batch_size=6)


def shrink(matrices):
    """In place of robust PCA: not linear, quick."""
    return torch.sign(matrices) * (matrices.abs() - 0.3).clamp(min=0)


def local_classifier(seed=5):
    torch.manual_seed(seed)
    return LocalClassifier(1, CLASSES, SIZE, width=3)


def pair(options=OPTIONS):
    client, server = make_client(local_classifier(), options), make_server(CLASSES, SIZE, options)
    server.model.recover = shrink
    return client, server


def batches(count, images=6, seed=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, images, 1, SIZE, SIZE)
    labels = torch.randint(CLASSES, (count, images), generator=generator)
    return list(zip(torch.rand(shape, generator=generator), labels, strict=True))


def weights(client, server):
    return copy.deepcopy(client.state().tensors | server.state()[0])


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class Monolith(nn.Module):
    """The same network as one torch module, written anew: autograd goes through the cut."""

    def __init__(self, width, hidden, grid, dropout):
        super().__init__()

        def convs(numbers, channels, strides):
            layers = []
            for number, stride in zip(numbers, strides, strict=True):
                layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.ReLU(), nn.BatchNorm2d(width)]
                layers += [nn.Dropout(dropout)] if number in (3, 6) else []
                channels = width
            return layers

        self.layers = nn.Sequential(*convs((1, 2), 5, (1, 1)))
        self.filters = nn.Conv2d(width // 2, width // 4, 1)
        self.streams = nn.ModuleList(
            nn.Sequential(
                *convs(range(3, 8), width // 4, (2, 1, 2, 1, 1)),
                nn.AdaptiveAvgPool2d(grid),
                nn.Flatten(),
                nn.Linear(width * grid**2, hidden),
                nn.ReLU(),
                nn.Linear(hidden, CLASSES),
            )
            for _ in range(3)
        )

    def losses(self, images, added, labels):
        smaller = [images[:, :, r::2, s::2] for r in (0, 1) for s in (0, 1)]
        activations = self.layers(torch.cat([*smaller, F.max_pool2d(added, 2)], 1))
        maps = F.pixel_shuffle(activations, 2)
        recovered = F.pixel_shuffle(shrink(activations), 2).detach()
        fused = self.filters(torch.cat([maps, recovered], 1)) + maps
        inputs = (maps.detach(), fused, recovered)
        return [F.cross_entropy(net(x), labels) for net, x in zip(self.streams, inputs, strict=True)]

    def copy_from(self, client, server):
        self.layers.load_state_dict(client.model.layers.state_dict())
        self.filters.load_state_dict(server.model.fusion.conv.state_dict())
        model = server.model
        for own, stream in zip(self.streams, (model.attacked, model.fused, model.recovered), strict=True):
            theirs = stream.state_dict().values()
            for value, other in zip(own.state_dict().values(), theirs, strict=True):
                value.copy_(other)


@pytest.mark.parametrize("decay_of", ["learning-rate", "weights"])
def test_split_steps_give_the_numbers_of_one_torch_module(decay_of):
    options = dataclasses.replace(OPTIONS, decay_of=decay_of)
    client, server = pair(options)
    whole = Monolith(options.width, options.hidden, options.grid, options.dropout).train()
    with torch.no_grad():
        whole.copy_from(client, server)
    optimizer = torch.optim.Adam(
        whole.parameters(), lr=1e-3, weight_decay=options.decay if decay_of == "weights" else 0.0
    )
    for step, (images, labels) in enumerate(batches(4)):
        attacked, added = client.model.attack(images)
        torch.manual_seed(_step_seed(options.seed, step))
        losses = whole.losses(attacked, added, labels)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.param_groups[0]["lr"] = 1e-3 / (1 + 0.1 * step) if decay_of == "learning-rate" else 1e-3
        optimizer.step()
        reply = train_step(client, server, images, labels)
        torch.testing.assert_close(torch.tensor(reply.losses), torch.stack(losses).detach(), rtol=1e-6, atol=0)
        assert reply.step == step
    expected = Monolith(options.width, options.hidden, options.grid, options.dropout)
    with torch.no_grad():
        expected.copy_from(client, server)
    found = whole.state_dict()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_only_the_fused_streams_gradient_comes_back():
    client, server = pair()
    upload = client.upload(*batches(1)[0])
    leaf = upload.activations.clone().requires_grad_()
    model = copy.deepcopy(server.model).train()
    torch.manual_seed(_step_seed(OPTIONS.seed, 0))
    expected = torch.autograd.grad(F.cross_entropy(model(leaf).fused, upload.labels), leaf)[0]
    # Other streams of other weights: what comes back must not know.
    with torch.no_grad():
        for stream in (server.model.attacked, server.model.recovered):
            for parameter in stream.parameters():
                parameter.mul_(-1.7)
    reply = server.train(upload)
    assert torch.equal(reply.gradient, expected)
    assert expected.abs().max() > 0


def test_messages_carry_tensors_without_a_graph():
    client, server = pair()
    images, labels = batches(1)[0]
    upload = client.upload(images, labels)
    reply = server.train(upload)
    assert upload.activations.shape == (6, 8, 6, 6)
    assert [field.name for field in dataclasses.fields(Upload)] == ["activations", "labels"]
    assert [field.name for field in dataclasses.fields(Gradient)] == ["gradient", "step", "losses"]
    for tensor in (upload.activations, reply.gradient):
        assert tensor.grad_fn is None
        assert not tensor.requires_grad


def test_labels_do_not_reach_what_the_client_computes():
    client, server = pair()
    images, labels = batches(1, images=30)[0]
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    assert not torch.equal(labels, shuffled)
    first, second = client.upload(images, labels), client.upload(images, shuffled)
    assert torch.equal(first.activations, second.activations)
    assert torch.equal(second.labels, shuffled)
    query = client.query(images)
    assert query.labels is None
    assert torch.equal(query.activations, client.query(images).activations)
    # Trained on wrong labels, the client still attacks the same pixels: by its own classifier's predictions.
    attacked = client.model.attack(images)[0]
    train_step(client, server, images, shuffled)
    assert torch.equal(client.model.attack(images)[0], attacked)


def test_round_robin_gives_the_numbers_of_one_client():
    data = batches(6)
    single, server = pair()
    for images, labels in data:
        train_step(single, server, images, labels)

    first, other = pair()
    second = make_client(local_classifier(), dataclasses.replace(OPTIONS, seed=99))
    third = make_client(local_classifier(), dataclasses.replace(OPTIONS, seed=98))
    replies = train_round_robin([first, second, third], other, [data[:1], data[1:3], data[3:4], data[4:]])
    assert [reply.step for reply in replies] == list(range(6))
    # The fourth turn was the first client's again.
    assert_same_bits(weights(first, other), weights(single, server))


def test_handing_on_takes_moments_and_statistics_too():
    data = batches(3)
    client, server = pair()
    train_step(client, server, *data[0])
    state = client.state()
    kept = copy.deepcopy(state.tensors)
    names = {name.split(".")[0] for name in state.tensors}
    assert names == {"layers", "optimizer"}
    assert "layers.2.running_mean" in state.tensors
    train_step(client, server, *data[1])
    assert_same_bits(state.tensors, kept)
    # Back to before the first step, where Adam has no moments.
    fresh = make_client(local_classifier(), OPTIONS)
    client.take(fresh.state())
    assert_same_bits(client.state().tensors, fresh.state().tensors)


def test_server_goes_on_from_its_checkpoint_to_the_same_bits():
    data = batches(5)
    client, server = pair()
    for batch in data[:2]:
        train_step(client, server, *batch)
    tensors, values = server.state()
    state = client.state()
    for batch in data[2:]:
        train_step(client, server, *batch)

    again, restarted = pair(OPTIONS)
    torch.rand(17)
    restarted.restore(tensors, values)
    again.take(state)
    assert restarted.steps == 2
    for batch in data[2:]:
        train_step(again, restarted, *batch)
    assert_same_bits(weights(again, restarted), weights(client, server))


def test_dropout_differs_by_step_and_leaves_torchs_random_state():
    _, server = pair()
    before = torch.get_rng_state()
    upload = Upload(torch.randn(6, 8, 6, 6, generator=torch.Generator().manual_seed(0)), batches(1)[0][1])
    other = copy.deepcopy(server)
    other.steps = 1
    assert server.train(upload).losses != other.train(upload).losses
    assert torch.equal(torch.get_rng_state(), before)


def test_a_forgotten_batch_leaves_no_trace():
    data = batches(2)
    client, server = pair()
    expected = copy.deepcopy(client.state().tensors)
    client.upload(*data[0])
    client.forget()
    assert_same_bits(client.state().tensors, expected)
    client.upload(*data[0])
    train_step(client, server, *data[1])
    straight, other = pair()
    train_step(straight, other, *data[1])
    assert_same_bits(weights(client, server), weights(straight, other))


def test_decision_is_the_weighted_average():
    client, server = pair()
    answer = server.answer(client.query(batches(1)[0][0]))
    assert isinstance(answer, Answer)
    streams = torch.stack([answer.recovered, answer.fused, answer.attacked], 1)
    torch.testing.assert_close(streams.sum(2), torch.ones(6, 3))
    parts = torch.tensor([0.5, 0.3, 0.2]) * streams.amax(2)
    expected = (streams * (parts / parts.sum(1, keepdim=True))[:, :, None]).sum(1)
    torch.testing.assert_close(answer.scores, expected)


ACTIVATIONS, LABELS = torch.zeros(4, 8, 6, 6), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("upload", "message"),
    [
        (Upload(ACTIVATIONS[:, :4], LABELS), r"activations are torch.float32 of shape \(4, 4, 6, 6\); expected"),
        (Upload(ACTIVATIONS.double(), LABELS), "activations are torch.float64"),
        (Upload(ACTIVATIONS[:0], LABELS[:0]), r"of shape \(0, 8, 6, 6\)"),
        (Upload(ACTIVATIONS[0], LABELS), r"of shape \(8, 6, 6\)"),
        (Upload(ACTIVATIONS * float("nan"), LABELS), "activations hold NaN or exceed 1e"),
        (Upload(ACTIVATIONS + 2e6, LABELS), "activations hold NaN or exceed 1e"),
        (Upload(ACTIVATIONS, LABELS[:3]), r"labels are torch.int64 of shape \(3,\); expected int64 \(4,\)"),
        (Upload(ACTIVATIONS, LABELS.float()), "labels are torch.float32"),
        (Upload(ACTIVATIONS, LABELS + 1), "labels reach from 1 to 3; allowed: 0 to 2"),
        (Upload(ACTIVATIONS, LABELS - 1), "labels reach from -1 to 1; allowed: 0 to 2"),
        (Upload(ACTIVATIONS), "the batch has no labels; training needs one for each image"),
    ],
)
def test_server_refuses_bad_batches_unchanged(upload, message):
    _, server = pair()
    before, _ = server.state()
    with pytest.raises(DataError, match=message):
        server.train(upload)
    assert_same_bits(server.state()[0], before)
    assert server.steps == 0


def test_a_loss_that_is_not_finite_changes_nothing():
    client, server = pair()
    with torch.no_grad():
        server.model.fused.fc2.bias[0] = float("inf")
    before, _ = server.state()
    with pytest.raises(TrainingError, match="loss or gradient is not finite in step 1; lower learning_rate"):
        server.train(client.upload(*batches(1)[0]))
    assert_same_bits(server.state()[0], before)
    assert server.steps == 0


def test_client_refuses_what_is_not_its_gradient():
    client, server = pair()
    images, labels = batches(1)[0]
    with pytest.raises(UsageError, match="a gradient came but no batch waits for one"):
        client.step(Gradient(torch.zeros(6, 8, 6, 6), 0, (0.0, 0.0, 0.0)))
    reply = server.train(client.upload(images, labels))
    before = client.state().tensors
    with pytest.raises(DataError, match=r"the gradient is torch.float32 of shape \(5, 8, 6, 6\); expected"):
        client.step(dataclasses.replace(reply, gradient=reply.gradient[:5]))
    with pytest.raises(DataError, match="the gradient holds NaN or infinity"):
        client.step(dataclasses.replace(reply, gradient=reply.gradient / 0))
    assert_same_bits(client.state().tensors, before)
    client.step(reply)
    assert not torch.equal(client.state().tensors["layers.0.weight"], before["layers.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layers.0.weight"), "tensor layers.0.weight of the state is missing; send the whole state"),
        (lambda t: t.pop("optimizer.3.exp_avg"), "tensor optimizer.3.exp_avg of the state is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "tensor extra of the state is not one of this network's"),
        (lambda t: t.update({"layers.5.bias": torch.zeros(9)}), r"tensor layers.5.bias of the state is .* \(9,\)"),
        (lambda t: t["layers.5.bias"].fill_(float("nan")), "or has values that are not finite"),
        (
            lambda t: t.update({"layers.5.bias": torch.zeros(8, dtype=torch.int64)}),
            "is torch.int64 .* expected torch.float32",
        ),
        (lambda t: t["optimizer.0.step"].fill_(0), "tensor optimizer.0.step of the state has values below 1"),
        (
            lambda t: t["optimizer.3.exp_avg_sq"][0].fill_(-1e-9),
            "optimizer.3.exp_avg_sq of the state has values below 0",
        ),
        (lambda t: t["layers.2.running_var"][7].fill_(-1), "layers.2.running_var of the state has values below 0"),
    ],
)
def test_client_takes_a_state_whole_or_not_at_all(change, message):
    client, server = pair()
    train_step(client, server, *batches(1)[0])
    state = client.state()
    train_step(client, server, *batches(1, seed=3)[0])
    before = client.state().tensors
    tensors = dict(state.tensors)
    change(tensors)
    with pytest.raises(FormatError, match=message):
        client.take(ClientState(tensors))
    assert_same_bits(client.state().tensors, before)


def test_server_restores_whole_or_not_at_all():
    client, server = pair()
    train_step(client, server, *batches(1)[0])
    tensors, values = server.state()
    del tensors["model.fusion.conv.bias"]
    fresh = pair()[1]
    before, _ = fresh.state()
    with pytest.raises(FormatError, match=r"tensor model.fusion.conv.bias of the state is missing"):
        fresh.restore(tensors, values)
    assert isinstance(fresh, SplitServer)
    assert_same_bits(fresh.state()[0], before)
