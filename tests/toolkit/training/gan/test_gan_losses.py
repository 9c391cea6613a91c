"""Every equation against values worked out by hand; each comment holds the sum."""

import pytest
import torch
from torch import nn

from gascnn.models.gan import Discriminator, SliceGenerator
from gascnn.toolkit.training.gan import losses
from gascnn.toolkit.training.gan.presets import PRESETS
from gascnn.toolkit.training.gan.steps import CRITIC_TERMS, GENERATOR_TERMS, CriticUpdate, GeneratorUpdate


def assert_close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype))


class Linear(nn.Module):
    """P_a = w . z, P_sc = the first pixel."""

    def __init__(self, *weights):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights))

    def forward(self, z):
        return z.flatten(1) @ self.weight, z.flatten(1)[:, 0]


class HalfSquare(nn.Module):
    """P_a = |z|^2 / 2, whose gradient is z itself."""

    def forward(self, z):
        return (z**2).flatten(1).sum(1) / 2, z.flatten(1)[:, 0]


def test_equation_3():
    # 10 x 0.5 - (1 + 3) / 2 + (0 + 2) / 2
    real, synthetic = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    assert_close(losses.adversarial_loss(real, synthetic, torch.tensor(0.5), 10), 4.0)


def test_gradient_penalty_and_what_it_does_to_weights():
    critic = Linear(3.0, 4.0)
    penalty = losses.gradient_penalty(critic, torch.rand(5, 1, 1, 2))
    assert_close(penalty, 16.0)  # (5 - 1)^2, wherever z is
    penalty.backward()
    assert_close(critic.weight.grad, [4.8, 6.4])  # 2 (5 - 1) (3, 4) / 5


def test_gradient_penalty_is_a_mean_over_images_of_norms_over_pixels():
    z = torch.tensor([[2.0, 0.0], [0.0, 0.0], [3.0, 4.0]]).view(3, 1, 1, 2)
    assert_close(losses.gradient_penalty(HalfSquare(), z), (1 + 1 + 16) / 3)


def test_equation_4():
    synthetic, real = torch.full((3, 1, 1, 1), 1.0), torch.full((3, 1, 1, 1), 5.0)
    assert_close(losses.interpolation(synthetic, real, torch.tensor([0.0, 0.25, 1.0])).flatten(), [1.0, 2.0, 5.0])


def test_equation_5():
    # (0.2^2 + 0.5^2) / 2
    assert_close(losses.regression_loss(torch.tensor([0.2, 1.0]), torch.tensor([0.0, 0.5])), 0.145)


def test_equation_6():
    plane = torch.tensor([1.0, -0.5, 0.0, 0.5]).view(1, 2, 1, 2)
    slices = torch.tensor([0.5, 0.5, 0.0, 1.0]).view(1, 2, 1, 2)
    mask = torch.tensor([0.2, 1.0]).view(1, 1, 1, 2)
    # (0.5 x 0.8 + 1 x 0 + 0 + 0.5 x 0) / 4
    assert_close(losses.identity_loss(plane, slices, mask), 0.1)


def test_attention_loss():
    assert_close(losses.attention_loss(torch.tensor([0.2, 0.6]).view(2, 1, 1, 1)), 0.4)


def test_equation_7():
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0] = torch.tensor([[0.0, 1.0], [0.5, 0.25]])
    # Down 0.5 + 0.75, right 1 + 0.25, the second image 0: a sum over pixels, a mean over images.
    assert_close(losses.total_variation_loss(mask), 1.25)


def test_equation_8_has_the_sign_that_makes_slices_real():
    parts = [torch.tensor(value) for value in (100.0, 0.5, 0.25, 2.0)]
    found = losses.generator_loss(
        torch.tensor([1.0, 3.0]), *parts, alpha_tvr=1e-2, alpha_att=0.1, alpha_aaid=7, alpha_reg=3
    )
    assert_close(found, -2 + 1 + 0.05 + 1.75 + 6)


def test_equation_9():
    assert_close(losses.discriminator_loss(torch.tensor(0.5), torch.tensor(-1.0), alpha_reg=3), 0.5)


def test_the_papers_values():
    options = PRESETS["paper"].options
    assert (options.alpha_tvr, options.alpha_att, options.alpha_aaid, options.alpha_reg) == (1e-5, 0.1, 7, 3)
    assert (options.learning_rate, options.iterations, options.residual_blocks) == (1e-4, 150_000, 6)


def test_a_discriminators_update_by_hand(tiny):
    # P_a: real 3, 0; synthetic -3, 4. P_sc of the real ones: 1, 0.
    real = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    synthetic = torch.tensor([[-1.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    update = CriticUpdate(Linear(3.0, 4.0), tiny())
    found = update(real, torch.tensor([0.0, 0.0]), synthetic, torch.rand(2))
    terms = dict(zip(CRITIC_TERMS, found.tolist(), strict=True))
    # 10 x 16 - 1.5 + 0.5 + 3 x 0.5
    assert terms == pytest.approx({"loss": 160.5, "distance": 1.0, "penalty": 16.0, "regression": 0.5})


def test_a_generators_update_puts_equation_8_together(tiny):
    torch.manual_seed(0)
    generator, critic = SliceGenerator(1, None, 2, 1), Linear(*torch.rand(64).tolist())
    images, wanted = torch.rand(3, 1, 8, 8) * 2 - 1, torch.tensor([0.0, 0.5, 1.0])
    found = GeneratorUpdate(generator, critic, tiny(alpha_tvr=0.01))(images, wanted)
    terms = dict(zip(GENERATOR_TERMS, found.tolist(), strict=True))
    made = generator(images, wanted)
    slices, mask = made.slices.detach().numpy(), made.mask.detach().numpy()
    expected = {
        "realism": (slices.reshape(3, -1) @ critic.weight.detach().numpy()).mean(),
        "variation": (abs(mask[:, :, 1:] - mask[:, :, :-1]).sum() + abs(mask[..., 1:] - mask[..., :-1]).sum()) / 3,
        "attention": mask.mean(),
        "identity": abs((images.numpy() - slices) * (1 - mask)).mean(),
        "regression": ((slices[:, 0, 0, 0] - wanted.numpy()) ** 2).mean(),
    }
    weights = {"realism": -1, "variation": 0.01, "attention": 0.1, "identity": 7, "regression": 3}
    expected["loss"] = sum(weights[name] * expected[name] for name in weights)
    assert terms == pytest.approx(expected, rel=1e-4)


def test_updates_of_the_generator_raise_realism_and_leave_the_critic_alone(tiny):
    torch.manual_seed(0)
    generator, critic = SliceGenerator(1, None, 2, 1), Discriminator(1, (8, 8), 2, 6)
    alone = tiny(alpha_tvr=0.0, alpha_att=0.0, alpha_aaid=0.0, alpha_reg=0.0)
    update = GeneratorUpdate(generator, critic, alone)
    assert not any(name.startswith("critic") for name in update.state_dict())
    images, wanted = torch.rand(6, 1, 8, 8) * 2 - 1, torch.rand(6)
    optimizer = torch.optim.Adam(update.parameters(), 1e-2)
    seen = []
    for _ in range(10):
        terms = update(images, wanted)
        seen.append(float(terms[GENERATOR_TERMS.index("realism")].detach()))
        optimizer.zero_grad()
        terms[0].backward()
        optimizer.step()
    assert seen[-1] > seen[0]
