import copy
import json

import pytest
import torch
from torch import nn

from gascnn.models.resnet import (
    BasicBlock,
    ResNet,
    automatic_stem,
    count_macs,
    load_torchvision_weights,
    resnet,
    resnet18,
)


def torchvision_resnet18_shapes():
    """Names and shapes of torchvision's ResNet-18, written down from its architecture, not from our code."""

    def batch_norm(name, channels):
        shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
        return {**shapes, f"{name}.num_batches_tracked": ()}

    shapes = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    before = 64
    for stage, channels in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (channels, before, 3, 3)
            shapes |= batch_norm(f"{name}.bn1", channels)
            shapes[f"{name}.conv2.weight"] = (channels, channels, 3, 3)
            shapes |= batch_norm(f"{name}.bn2", channels)
            if before != channels:
                shapes[f"{name}.downsample.0.weight"] = (channels, before, 1, 1)
                shapes |= batch_norm(f"{name}.downsample.1", channels)
            before = channels
    return {**shapes, "fc.weight": (1000, 512), "fc.bias": (1000,)}


def torchvision_state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = torchvision_resnet18_shapes()
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def test_resnet18_has_torchvisions_names_shapes_and_size():
    model = resnet18(classes=1000)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == torchvision_resnet18_shapes()
    parameters = list(model.parameters())
    assert len(parameters) == 62
    assert sum(p.numel() for p in parameters) == 11_689_512


def test_modules_are_where_a_torchvision_user_looks():
    model = resnet18(classes=4)
    assert isinstance(model.relu, nn.ReLU)
    assert isinstance(model.avgpool, nn.AdaptiveAvgPool2d)
    assert isinstance(model.fc, nn.Linear)
    assert isinstance(model.layer4[1], BasicBlock)
    assert isinstance(model.layer2[0].downsample, nn.Sequential)
    assert model.layer1[0].downsample is None
    assert model.layer3[0].conv1.stride == (2, 2)
    assert model.layer3[1].conv1.stride == (1, 1)


def reference_forward(model, x, stem_pool):
    """The same network written as one function of its state dict."""
    state = model.state_dict()

    def conv_bn(x, conv, norm, stride, padding):
        y = nn.functional.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return nn.functional.batch_norm(y, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"])

    kernel = state["conv1.weight"].shape[-1]
    x = conv_bn(x, "conv1", "bn1", 2 if stem_pool or model.arguments["stem"] == "small-stride2" else 1, kernel // 2)
    if stem_pool:
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    x = x.clamp(min=0)
    for stage, count in enumerate(model.arguments["blocks"], start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride, 1).clamp(min=0)
            y = conv_bn(y, f"{name}.conv2", f"{name}.bn2", 1, 1)
            if f"{name}.downsample.0.weight" in state:
                x = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride, 0)
            x = (y + x).clamp(min=0)
    return x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(
    ("stem", "size", "blocks", "channels"),
    [("small", 8, (1, 1), 1), ("small-stride2", 28, (2, 1), 3), ("imagenet", 64, (1, 1, 1), 1)],
)
def test_forward_is_the_formula(stem, size, blocks, channels):
    torch.manual_seed(1)
    model = resnet(classes=5, blocks=blocks, width=4, channels=channels, image_size=size, stem=stem, dropout=0.5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    x = torch.rand(3, channels, size, size)
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference_forward(model, x, stem == "imagenet"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "stem"),
    [(8, "small"), (47, "small"), (48, "small-stride2"), (95, "small-stride2"), (96, "imagenet"), (224, "imagenet")],
)
def test_automatic_stem(size, stem):
    assert automatic_stem(size) == stem
    assert resnet(classes=2, blocks=(1,), width=1, image_size=size).arguments["stem"] == stem


@pytest.mark.parametrize("size", [8, 9, 31, 64, 97, 224])
def test_every_size_passes_through_four_stages(size):
    model = resnet(classes=3, blocks=(1, 1, 1, 1), width=2, image_size=size).eval()
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 3)


def test_the_stem_pools_before_its_relu():
    model = resnet(classes=2, blocks=(1,), width=1, image_size=128).eval()
    order = []
    for name in ("conv1", "bn1", "pool", "relu"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: order.append(name))
    model(torch.zeros(1, 1, 128, 128))
    assert order == ["conv1", "bn1", "pool", "relu"]


def test_arguments_survive_json_and_build_the_same_network():
    model = resnet(classes=3, blocks=(2, 1), width=6, image_size=28, dropout=0.25, zero_init=True)
    again = resnet(**json.loads(json.dumps(model.arguments)))
    assert isinstance(again, ResNet)
    assert again.arguments == model.arguments
    assert [v.shape for v in again.state_dict().values()] == [v.shape for v in model.state_dict().values()]


def test_zero_init_makes_a_block_its_shortcut():
    block = resnet(classes=2, blocks=(1,), width=3, image_size=8, zero_init=True).layer1[0].eval()
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(block(x), x)
    plain = resnet(classes=2, blocks=(1,), width=3, image_size=8).layer1[0].eval()
    assert not torch.equal(plain(x), x)


def test_drop_path_leaves_images_with_their_shortcut_in_training_alone():
    torch.manual_seed(0)
    model = resnet(classes=2, blocks=(2, 1), width=3, image_size=8, drop_path=0.4)
    blocks = [*model.layer1, *model.layer2]
    assert [block.drop_path for block in blocks] == pytest.approx([0.0, 0.2, 0.4])
    block = blocks[1]
    for norm in (block.bn1, block.bn2):
        norm.eval()
    x = torch.rand(1, 3, 8, 8).expand(2000, 3, 8, 8)
    with torch.no_grad():
        out = block(x)
        branch = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x[:1])))))
        dropped = torch.tensor([torch.equal(image, x[0]) for image in out])
        assert 0.15 < float(dropped.float().mean()) < 0.25
        scaled = (x[0] + branch[0] / 0.8).clamp(min=0)
        assert all(torch.allclose(image, scaled, atol=1e-5) for image in out[~dropped])
        block.eval()
        torch.testing.assert_close(block(x[:1]), (x[:1] + branch).clamp(min=0))
    traced = torch.fx.symbolic_trace(model.eval())
    assert not [node for node in traced.graph.nodes if "rand" in str(node.target)]


def test_fx_traces_it():
    model = resnet(classes=2, blocks=(1, 1), width=2, image_size=128).eval()
    x = torch.rand(1, 1, 128, 128)
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": ()}, r"blocks is \(\); give 1 to 4 counts"),
        ({"blocks": (1, 1, 1, 1, 1)}, "give 1 to 4 counts"),
        ({"blocks": "22"}, "blocks is '22'"),
        ({"blocks": (1, 0)}, "each entry of blocks is 0; allowed: whole numbers from 1 to 64"),
        ({"width": 0}, "width is 0; allowed: whole numbers from 1 to 512"),
        ({"width": 1.5}, "width is 1.5"),
        ({"classes": 1}, "classes is 1; allowed: whole numbers from 2"),
        ({"classes": True}, "classes is True"),
        ({"channels": 2}, r"channels is 2; allowed: 1 \(gray\) or 3"),
        ({"image_size": 7}, "image_size is 7; allowed: whole numbers from 8 to 224; resize the images"),
        ({"image_size": 225}, "image_size is 225"),
        ({"stem": "large"}, "stem is 'large'; allowed: auto, small, small-stride2, imagenet"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed: 0 to below 1"),
        ({"dropout": "a"}, "dropout is 'a'"),
        ({"drop_path": -0.1}, "drop_path is -0.1; allowed: 0 to below 1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        resnet(**{"classes": 2, **arguments})


def test_torchvision_weights_load_completely_where_everything_agrees():
    model, state = resnet18(classes=1000), torchvision_state()
    report = load_torchvision_weights(model, state)
    assert len(report.copied) == 122
    assert report.skipped == {}
    assert report.kept == ()
    for name in ("conv1.weight", "layer4.1.bn2.running_var", "fc.bias"):
        assert torch.equal(model.state_dict()[name], state[name])


def test_torchvision_weights_load_where_shapes_agree():
    model, state = resnet18(classes=4, channels=1), torchvision_state()
    fc = model.fc.weight.detach().clone()
    report = load_torchvision_weights(model, state)
    assert report.skipped == {
        "fc.weight": "shape (1000, 512), the model has (4, 512)",
        "fc.bias": "shape (1000,), the model has (4,)",
    }
    assert report.kept == ("fc.weight", "fc.bias")
    assert torch.equal(model.fc.weight, fc)
    assert torch.equal(model.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
    gray = torch.rand(2, 1, 224, 224)
    torch.testing.assert_close(
        model.conv1(gray), nn.functional.conv2d(gray.expand(-1, 3, -1, -1), state["conv1.weight"], stride=2, padding=3)
    )


def test_gray_skip_leaves_the_first_convolution_alone():
    model, state = resnet18(classes=4, channels=1), torchvision_state()
    before = model.conv1.weight.detach().clone()
    report = load_torchvision_weights(model, state, gray="skip")
    assert report.skipped["conv1.weight"] == "shape (64, 3, 7, 7), the model has (64, 1, 7, 7)"
    assert torch.equal(model.conv1.weight, before)


def test_shallower_models_take_the_stages_they_have():
    model = resnet(classes=4, blocks=(2, 2), channels=3, image_size=32)
    report = load_torchvision_weights(model, torchvision_state())
    assert report.skipped["layer4.1.bn2.bias"] == "the model has no tensor of that name"
    assert report.skipped["conv1.weight"] == "shape (64, 3, 7, 7), the model has (64, 3, 3, 3)"
    assert "layer2.0.downsample.0.weight" in report.copied


def test_weights_that_cannot_be_used_change_nothing():
    model = resnet(classes=4, blocks=(1,), width=2, image_size=32)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"none of the 122 tensors has a name and shape of this model; give"):
        load_torchvision_weights(model, torchvision_state())
    broken = {"bn1.weight": torch.ones(2), "bn1.bias": torch.tensor([1.0, float("nan")])}
    with pytest.raises(ValueError, match=r"bn1.bias holds NaN or infinity"):
        load_torchvision_weights(model, broken)
    with pytest.raises(ValueError, match="gray is 'mean'; allowed: sum, skip"):
        load_torchvision_weights(model, torchvision_state(), gray="mean")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_count_macs_of_a_small_network_by_hand():
    model = resnet(classes=10, blocks=(1, 1), width=8, image_size=8, stem="small")
    assert count_macs(model, (1, 8, 8)) == {
        "conv1": 64 * 8 * 9,
        "layer1.0.conv1": 64 * 8 * 8 * 9,
        "layer1.0.conv2": 64 * 8 * 8 * 9,
        "layer2.0.downsample.0": 16 * 16 * 8,
        "layer2.0.conv1": 16 * 16 * 8 * 9,
        "layer2.0.conv2": 16 * 16 * 16 * 9,
        "fc": 160,
    }


def test_count_macs_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    model[1].eval()
    shared = nn.Sequential(model[0], nn.ReLU())
    assert count_macs(model, (1, 4, 4)) == {"0": 4 * 2 * 9, "3": 24}
    assert model.training
    assert not model[1].training
    assert not model[0]._forward_hooks
    assert torch.equal(model[1].running_mean, torch.zeros(2))
    assert shared.training


def test_count_macs_of_resnet18_is_the_published_1_8_billion():
    counts = count_macs(resnet18(classes=1000), (3, 224, 224))
    assert sum(counts.values()) == 1_814_073_344
