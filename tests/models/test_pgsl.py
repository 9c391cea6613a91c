import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gascnn.models.pgsl import (
    ConvSumFusion,
    PgslClient,
    PgslServer,
    adaptive_weights,
    downsample,
    principal_channels,
    shrink_map,
    upsample,
    weighted_scores,
)
from gascnn.models.saliency import LocalClassifier, SaliencyAttack


def bits(tensor):
    return tensor.contiguous().view(torch.int32)


def make_client(size=12, channels=1, width=8, **strength):
    torch.manual_seed(0)
    return PgslClient(SaliencyAttack(LocalClassifier(channels, 3, size, width=3), **strength), width=width)


def make_server(**arguments):
    torch.manual_seed(1)
    values = {"classes": 3, "image_size": 12, "width": 8, "hidden": 10, "grid": 2, "recover": lambda m: 0.5 * m}
    return PgslServer(**(values | arguments))


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_downsampling_is_exactly_invertible(batch, channels, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    # Any bits at all, with the infinities, denormals and NaN among them.
    words = torch.randint(-(2**31), 2**31, (batch, channels, 2 * height, 2 * width), generator=generator)
    image = words.to(torch.int32).view(torch.float32)
    saliency = torch.rand(batch, 1, height, width, generator=generator)
    small = downsample(image, saliency)
    assert small.shape == (batch, 4 * channels + 1, height, width)
    again, again_saliency = upsample(small)
    assert torch.equal(bits(again), bits(image))
    assert torch.equal(bits(again_saliency), bits(saliency))
    assert torch.equal(bits(downsample(again, again_saliency)), bits(small))


def test_downsampling_takes_every_second_pixel():
    image = torch.arange(2 * 4 * 6, dtype=torch.float32).reshape(1, 2, 4, 6)
    small = downsample(image, torch.zeros(1, 1, 2, 3))
    for channel in range(2):
        for row in range(2):
            for column in range(2):
                assert torch.equal(small[0, 4 * channel + 2 * row + column], image[0, channel, row::2, column::2])


@pytest.mark.parametrize(
    ("image", "saliency", "message"),
    [
        ((1, 1, 5, 4), (1, 1, 2, 2), "the image is 5 x 4; reversible down-sampling takes even sizes"),
        ((1, 1, 4, 4), (1, 1, 4, 4), r"the map has shape \(1, 1, 4, 4\); expected \(1, 1, 2, 2\)"),
        ((2, 1, 4, 4), (1, 1, 2, 2), r"the map has shape \(1, 1, 2, 2\); expected \(2, 1, 2, 2\)"),
    ],
)
def test_downsampling_refuses_what_it_could_not_invert(image, saliency, message):
    with pytest.raises(ValueError, match=message):
        downsample(torch.zeros(image), torch.zeros(saliency))


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_upsampling_refuses_other_channels(channels):
    with pytest.raises(ValueError, match=f"the tensor has {channels} channels; expected four"):
        upsample(torch.zeros(1, channels, 2, 2))


def test_map_becomes_one_channel_by_its_largest_value():
    added = torch.zeros(1, 3, 4, 4)
    added[0, 1, 2, 3], added[0, 2, 3, 2], added[0, 0, 0, 0] = 0.5, 0.25, 1.0
    assert torch.equal(shrink_map(added), torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]]))


def test_client_is_attack_downsampling_and_two_convolutions():
    client = make_client(channels=3, pixels=4).eval()
    images = torch.rand(2, 3, 12, 12)
    attacked, added = client.attack(images)
    x = downsample(attacked, shrink_map(added))
    for conv, norm in ((client.layers[0], client.layers[2]), (client.layers[3], client.layers[5])):
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    torch.testing.assert_close(client(images), x)
    assert x.shape == (2, 8, 6, 6)
    assert client.layers[0].in_channels == 13


def test_client_has_64_channels_and_3x3_filters_as_the_paper_has():
    client = PgslClient(SaliencyAttack(LocalClassifier(1, 3, 28), pixels=3))
    convs = [layer for layer in client.layers if isinstance(layer, nn.Conv2d)]
    assert [tuple(conv.weight.shape) for conv in convs] == [(64, 5, 3, 3), (64, 64, 3, 3)]
    assert [type(layer) for layer in client.layers] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d] * 2


def test_client_takes_images_alone_and_only_its_layers_learn():
    client = make_client(pixels=3)
    assert list(inspect.signature(client.forward).parameters) == ["images"]
    assert list(inspect.signature(client.attack.forward).parameters) == ["images"]
    assert all(name.startswith("layers.") == p.requires_grad for name, p in client.named_parameters())


def test_client_refuses_odd_images_and_widths():
    with pytest.raises(ValueError, match="image_size is 9; reversible down-sampling takes even sizes"):
        make_client(size=9)
    with pytest.raises(ValueError, match="width is 6; allowed: multiples of 4"):
        make_client(width=6)


def test_fusion_by_hand():
    fusion = ConvSumFusion(2)
    with torch.no_grad():
        # Output 0: 1 u0 + 2 u1 + 3 v0 + 4 v1 + 0.5; output 1: -v1 + 0.25.
        fusion.conv.weight.copy_(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, -1]]).reshape(2, 4, 1, 1))
        fusion.conv.bias.copy_(torch.tensor([0.5, 0.25]))
    f_u = torch.tensor([1.0, 10.0]).reshape(1, 2, 1, 1)
    f_v = torch.tensor([100.0, 1000.0]).reshape(1, 2, 1, 1)
    # 1 + 20 + 300 + 4000 + 0.5 + 1 and -1000 + 0.25 + 10.
    assert fusion(f_u, f_v).flatten().tolist() == [4322.5, -989.75]


def test_adaptive_weights_by_hand():
    recovered = torch.tensor([[0.8, 0.2], [0.5, 0.5]], dtype=torch.float64)
    fused = torch.tensor([[0.4, 0.6], [0.1, 0.9]], dtype=torch.float64)
    attacked = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)
    # Image 0: 0.5 * 0.8, 0.3 * 0.6, 0.2 * 0.7 = 0.40, 0.18, 0.14; image 1: 0.25, 0.27, 0.20. Both sum to 0.72.
    expected = torch.tensor([[40, 18, 14], [25, 27, 20]], dtype=torch.float64) / 72
    torch.testing.assert_close(adaptive_weights(recovered, fused, attacked), expected)
    # 40/72 * 0.8 + 18/72 * 0.4 + 14/72 * 0.3 = 43.4/72;  25/72 * 0.5 + 27/72 * 0.1 + 20/72 * 1 = 35.2/72.
    scores = torch.tensor([[43.4, 28.6], [35.2, 36.8]], dtype=torch.float64) / 72
    torch.testing.assert_close(weighted_scores(recovered, fused, attacked), scores)


def test_adaptive_weights_of_a_batch_by_hand():
    recovered = torch.tensor([[0.8, 0.2], [0.5, 0.5]], dtype=torch.float64)
    fused = torch.tensor([[0.4, 0.6], [0.1, 0.9]], dtype=torch.float64)
    attacked = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)
    # Averages (0.65, 0.35), (0.25, 0.75), (0.65, 0.35): 0.4 * 0.65, 0.4 * 0.75, 0.2 * 0.65 = 0.26, 0.30, 0.13.
    expected = torch.tensor([[26, 30, 13]] * 2, dtype=torch.float64) / 69
    found = adaptive_weights(recovered, fused, attacked, (0.4, 0.4, 0.2), "batch")
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="maximum is 'all'; allowed: image, batch"):
        adaptive_weights(recovered, fused, attacked, maximum="all")


def test_stream_has_the_papers_layers():
    server = PgslServer(classes=3, image_size=28, recovery_on="none")
    kinds = [type(layer) for layer in server.fused.convs]
    layer = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    assert kinds == [*layer, nn.Dropout, *layer, *layer, *layer, nn.Dropout, *layer, nn.AdaptiveAvgPool2d]
    convs = [layer for layer in server.fused.convs if isinstance(layer, nn.Conv2d)]
    assert [tuple(conv.weight.shape) for conv in convs] == [(64, 16, 3, 3)] + [(64, 64, 3, 3)] * 4
    assert {layer.p for layer in server.fused.convs if isinstance(layer, nn.Dropout)} == {0.25}
    assert server(torch.rand(2, 64, 14, 14)).fused.shape == (2, 3)


@pytest.mark.parametrize("recovery_on", ["image", "channels", "maps", "none"])
def test_only_the_fused_streams_gradient_reaches_the_activations(recovery_on):
    server = make_server(recovery_on=recovery_on, dropout=0.0).eval()
    labels = torch.tensor([0, 1, 2, 0])
    activations = torch.randn(4, 8, 6, 6)

    def gradient(*streams):
        leaf = activations.clone().requires_grad_()
        logits = server(leaf)._asdict()
        loss = sum(F.cross_entropy(logits[name], labels) for name in streams)
        return torch.autograd.grad(loss, leaf, allow_unused=True)[0]

    assert gradient("fused").abs().max() > 0
    assert torch.equal(gradient("attacked", "fused", "recovered"), gradient("fused"))

    leaf = activations.clone().requires_grad_()
    logits = server(leaf)
    assert logits.attacked.grad_fn is not None
    for name in ("attacked", "recovered"):
        with pytest.raises(RuntimeError, match="not have been used in the graph"):
            torch.autograd.grad(getattr(logits, name).sum(), leaf, retain_graph=True)


def test_streams_get_the_attacked_the_fused_and_the_recovered_maps():
    server = make_server(recovery_on="maps").eval()
    activations = torch.randn(3, 8, 6, 6)
    maps = F.pixel_shuffle(activations, 2)
    logits = server(activations)
    torch.testing.assert_close(logits.attacked, server.attacked(maps))
    torch.testing.assert_close(logits.recovered, server.recovered(0.5 * maps))
    torch.testing.assert_close(logits.fused, server.fused(server.fusion(maps, 0.5 * maps)))


def test_recovery_gets_matrices_of_each_kind():
    seen = []

    def recover(matrices):
        seen.append(matrices)
        return 0.25 * matrices

    activations = torch.randn(3, 8, 6, 6)
    maps = F.pixel_shuffle(activations, 2)
    found = {
        on: make_server(recovery_on=on, recover=recover).recovered_maps(activations) for on in ("channels", "maps")
    }
    assert [tuple(matrices.shape) for matrices in seen] == [(3, 8, 36), (3, 8, 6, 6)]
    torch.testing.assert_close(found["channels"], 0.25 * maps)
    torch.testing.assert_close(found["maps"], 0.25 * maps)
    assert torch.equal(make_server(recovery_on="none", recover=None).recovered_maps(activations), maps)


def test_recovery_of_the_image_estimate():
    """Maps that are one image in different shares, some pixels of it attacked: the image without them comes back."""
    torch.manual_seed(0)
    image, attack = torch.rand(3, 12, 12), torch.zeros(3, 12, 12)
    attack[:, 3, 4], attack[:, 8, 2] = 2.0, -1.0
    shares = torch.tensor([0.6, 0.8]).reshape(1, 2, 1, 1)
    maps = shares * (image + attack)[:, None]
    # The sign of a principal component is arbitrary.
    sign = torch.sign(principal_channels(maps)[:, :1])
    server = make_server(recover=lambda estimate: estimate - sign[:, :, 0] * attack)
    recovered = server.recovered_maps(F.pixel_unshuffle(maps, 2))
    torch.testing.assert_close(recovered, shares * image[:, None], rtol=1e-4, atol=1e-5)


def test_principal_channels_are_the_singular_vectors():
    maps = torch.randn(4, 5, 6, 6, dtype=torch.float64)
    shares = principal_channels(maps).flatten(1)
    expected = torch.linalg.svd(maps.flatten(2), full_matrices=False).U[:, :, 0]
    torch.testing.assert_close(shares.abs(), expected.abs())
    torch.testing.assert_close((shares * expected).sum(1).abs(), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes is 1; allowed: whole numbers from 2"),
        ({"image_size": 7}, "image_size is 7; allowed: even numbers from 4"),
        ({"width": 10}, "width is 10; allowed: multiples of 4"),
        ({"strides": (1, 1)}, r"strides is \(1, 1\); allowed: 5 of 1 or 2"),
        ({"recovery_on": "all"}, "recovery_on is 'all'; allowed: image, channels, maps, none"),
        ({"recover": None}, "recovery_on is 'image' but recover is missing; give a function or use none"),
        ({"fusion_kernel": 2}, "fusion_kernel is 2; allowed: odd numbers"),
    ],
)
def test_server_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_server(**arguments)


def test_arguments_build_the_server_again():
    server = make_server().eval()
    again = PgslServer(**server.arguments, recover=server.recover).eval()
    again.load_state_dict(server.state_dict())
    activations = torch.randn(2, 8, 6, 6)
    assert torch.equal(again(activations).fused, server(activations).fused)
