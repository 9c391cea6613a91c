import pytest
import torch
from torch import nn

from gascnn.models.gan import (
    AttentionGenerator,
    Discriminator,
    FirstStage,
    ResidualBlock,
    SliceGenerator,
    check_sides,
    condition_of,
    synthetic_slices,
)
from gascnn.models.resnet import resnet


def small_resnet(channels=1, stem="small", size=8):
    torch.manual_seed(1)
    network = resnet(classes=3, blocks=(1,), width=4, channels=channels, image_size=size, stem=stem)
    with torch.no_grad():  # statistics as training leaves them
        network.bn1.running_mean.uniform_(-0.2, 0.2)
        network.bn1.running_var.uniform_(0.5, 2)
    return network.eval()


def count(module, kind):
    return sum(type(part) is kind for part in module.modules())


def test_conditions_of_three_classes_are_the_papers():
    assert condition_of(torch.tensor([0, 1, 2]), 3).tolist() == [0.0, 0.5, 1.0]
    assert condition_of(torch.tensor([3]), 5).tolist() == [0.75]
    with pytest.raises(ValueError, match="classes is 1; a condition in \\[0, 1\\] needs at least 2"):
        condition_of(torch.tensor([0]), 1)


def test_equation_2_by_hand():
    image = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1)
    plane = torch.tensor([-1.0, 0.5]).view(1, 2, 1, 1)
    mask = torch.tensor([0.25]).view(1, 1, 1, 1)
    # 0.5 - 0.5 x 0.25 + (-1) x 0.25 and -1 + 1 x 0.25 + 0.5 x 0.25
    assert synthetic_slices(image, mask, plane).flatten().tolist() == [0.125, -0.625]


@pytest.mark.parametrize("channels", [1, 3])
def test_both_heads_are_their_own_modules(channels):
    """One convolution stands for torch's transposed one and the mask's, gradients included."""
    torch.manual_seed(0)
    generator = AttentionGenerator(channels, width=4, blocks=1).double()
    seen = []
    generator.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image, mask = generator(torch.rand(2, channels, 8, 12).double(), torch.rand(2).double())
    pull = torch.rand(2, channels + 1, 8, 12).double()
    one = (torch.cat((image, mask), 1) * pull).sum()
    found = torch.autograd.grad(one, list(generator.parameters()), retain_graph=True)
    image_alone, mask_alone = torch.tanh(generator.image(seen[0])), torch.sigmoid(generator.mask(seen[0]))
    torch.testing.assert_close((image, mask), (image_alone, mask_alone))
    both = torch.cat((image_alone, mask_alone), 1)
    wanted = torch.autograd.grad((both * pull).sum(), list(generator.parameters()))
    torch.testing.assert_close(found, wanted)
    assert all(gradient.abs().max() > 0 for gradient in found)


@pytest.mark.parametrize(("stem", "size", "scale"), [("small", 8, 1), ("small-stride2", 16, 2), ("imagenet", 32, 4)])
def test_first_stage_gives_the_features_the_resnets_blocks_get(stem, size, scale):
    network = small_resnet(3, stem, size)
    images = torch.rand(2, 3, size, size)
    seen = []
    network.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(images)
        found = FirstStage(network)(images)
    assert seen[0].shape[-1] * scale == size
    expected = seen[0] if scale == 1 else nn.Upsample(scale_factor=scale, mode="bilinear")(seen[0])
    torch.testing.assert_close(found, expected)
    assert found.std() > 0.01


def test_first_stage_never_changes():
    stage = FirstStage(small_resnet())
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    generator = SliceGenerator(1, stage, width=2, blocks=1).train()
    made = generator(torch.rand(4, 1, 8, 8) * 2 - 1, torch.rand(4))
    made.slices.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in stage.state_dict().items())
    assert all(p.grad is None for p in stage.parameters())
    learnt = [name for name, p in generator.named_parameters() if p.requires_grad]
    assert learnt
    assert all(name.startswith(("projection.", "attention.")) for name in learnt)
    assert generator.projection.conv.weight.grad.abs().sum() > 0


def test_plane_of_features_is_the_projection_by_hand():
    network = small_resnet()
    generator = SliceGenerator(1, FirstStage(network), width=2, blocks=1)
    with torch.no_grad():
        generator.projection.conv.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]).view(1, 4, 1, 1))
        generator.projection.conv.bias.fill_(0.25)
        images = torch.rand(3, 1, 8, 8)
        features = torch.relu(network.bn1(network.conv1(images)))
        found = generator.plane(images * 2 - 1)
    expected = torch.tanh(features[:, :1] - 2 * features[:, 1:2] + 0.5 * features[:, 2:3] + 0.25)
    torch.testing.assert_close(found, expected)


def test_plane_of_the_image_is_the_image():
    generator = SliceGenerator(1, None, width=2, blocks=1)
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    made = generator(images, torch.tensor([0.0, 1.0]))
    assert torch.equal(made.plane, images)
    assert not any("projection" in name or "first_stage" in name for name in generator.state_dict())


def test_structure_is_the_papers():
    generator = AttentionGenerator(1, width=4)
    assert count(generator.encoder, nn.Conv2d) == 3
    assert count(generator.transition, ResidualBlock) == 6
    assert isinstance(generator.image, nn.ConvTranspose2d)
    critic = Discriminator(1, (64, 64), width=4)
    assert count(critic, nn.Conv2d) == 5
    assert count(critic, nn.Linear) == 2
    assert critic.fc2.out_features == 2


@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (12, 20)), (1, (28, 28)), (1, (64, 64))])
def test_shapes_and_ranges(channels, size):
    torch.manual_seed(0)
    stage = FirstStage(small_resnet(channels))
    made = SliceGenerator(channels, stage, width=3, blocks=2)(torch.rand(2, channels, *size) * 2 - 1, torch.rand(2))
    assert made.slices.shape == made.plane.shape == (2, channels, *size)
    assert made.mask.shape == (2, 1, *size)
    assert 0 < made.mask.min() < made.mask.max() < 1
    assert made.slices.abs().max() < 1
    realism, condition = Discriminator(channels, size, width=2, hidden=5)(made.slices)
    assert realism.shape == condition.shape == (2,)
    assert not torch.equal(realism, condition)


def test_every_part_of_an_image_reaches_the_discriminator():
    """No size is halved away to nothing, and no border is lost."""
    for size in ((8, 8), (28, 28), (44, 44), (12, 100)):
        torch.manual_seed(0)
        images = torch.rand(1, 1, *size, requires_grad=True)
        Discriminator(1, size, width=4, hidden=16)(images)[0].sum().backward()
        touched = images.grad[0, 0].abs() > 0
        assert touched[:8].any(), size
        assert touched[-8:, -8:].any(), size


def test_condition_does_more_than_a_norm_can_take_away():
    """SC adds a constant to each channel; behind the first ReLU its effect differs from pixel to pixel."""
    torch.manual_seed(0)
    generator = AttentionGenerator(1, width=8, blocks=1)
    plane = torch.rand(1, 1, 32, 32) * 2 - 1
    low, high = (torch.cat((plane, torch.full_like(plane, value)), 1) for value in (0.0, 1.0))
    with torch.no_grad():
        change = (generator.encoder[:3](high) - generator.encoder[:3](low))[:, :, 3:-3, 3:-3]
    # Within what no border touches a constant would have a deviation of 0.
    assert change.std(dim=(2, 3)).mean() > 0.05 * change.abs().mean()


@pytest.mark.parametrize("size", [(30, 30), (28, 30), (4, 4)])
def test_sides_that_are_no_multiples_of_4_are_refused(size):
    with pytest.raises(ValueError, match="allowed: sides that are multiples of 4, from 8 on"):
        check_sides(size)
    with pytest.raises(ValueError, match="allowed: sides that are multiples of 4"):
        AttentionGenerator(1, width=2, blocks=1)(torch.zeros(1, 1, *size), torch.zeros(1))


def test_first_stage_is_built_again_from_its_arguments():
    stage = FirstStage(small_resnet(3, "small-stride2", 16))
    other = FirstStage.build(**stage.arguments)
    other.load_state_dict(stage.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(other(images), stage(images))
    with pytest.raises(ValueError, match="stem is 'large'"):
        FirstStage.build(1, 4, "large")
