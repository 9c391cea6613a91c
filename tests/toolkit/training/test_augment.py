import math

import pytest
import torch

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=6, channels=1, height=16, width=16, seed=5):
    return torch.rand(count, channels, height, width, generator=generator(seed))


@pytest.mark.parametrize("name", list(augment.POLICIES))
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 12, 20)])
def test_every_policy_keeps_shape_and_range_and_repeats_itself(name, channels, height, width):
    batch = pictures(5, channels, height, width)
    before = batch.clone()
    state = torch.get_rng_state()
    first = augment.policy(name)(batch, generator(1))
    again = augment.policy(name)(batch, generator(1))
    assert first.shape == batch.shape
    assert first.dtype == torch.float32
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1 + 1e-6
    assert torch.equal(first, again)
    assert torch.equal(batch, before)
    assert torch.equal(torch.get_rng_state(), state)
    if name != "none":
        assert not torch.equal(first, augment.policy(name)(batch, generator(2)))
    else:
        assert torch.equal(first, batch)


def test_an_unknown_policy_is_refused():
    with pytest.raises(UsageError, match="no augmentation policy 'heavy'; known: none, light, medical"):
        augment.policy("heavy")


def test_affine_with_no_strength_is_the_identity():
    batch = pictures()
    torch.testing.assert_close(augment.random_affine(batch, generator()), batch, atol=1e-5, rtol=0)


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else():
    batch = pictures(400)
    flipped = augment.random_affine(batch, generator(), flip=True)
    mirrored = torch.tensor([torch.allclose(f, b.flip(-1), atol=1e-5) for f, b in zip(flipped, batch, strict=True)])
    same = torch.tensor([torch.allclose(f, b, atol=1e-5) for f, b in zip(flipped, batch, strict=True)])
    assert bool((mirrored ^ same).all())
    assert 160 <= int(mirrored.sum()) <= 240


def spots(count, offset, size=65):
    """One soft spot an image, ``offset`` (x, y) pixels from the middle."""
    middle = (size - 1) / 2
    axis = torch.arange(size).float() - middle
    spot = torch.exp(-((axis[None, :] - offset[0]) ** 2 + (axis[:, None] - offset[1]) ** 2) / 8)
    return spot.expand(count, 1, size, size).clone()


def centres(batch):
    """(n, 2): x and y of the centre of brightness, from the middle."""
    size = batch.shape[-1]
    axis = torch.arange(size).float() - (size - 1) / 2
    weight = batch[:, 0] / batch[:, 0].sum(dim=(1, 2), keepdim=True)
    return torch.stack([(weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)], dim=1)


def test_translation_stays_within_its_bound_and_reaches_it():
    moved = centres(augment.random_affine(spots(300, (0, 0)), generator(), translation=0.1))
    assert float(moved.abs().max()) <= 6.5 + 0.05
    assert float(moved.max()) > 5.5
    assert float(moved.min()) < -5.5
    assert float(moved.mean().abs()) < 0.6


def test_rotation_keeps_the_distance_and_bounds_the_angle():
    moved = centres(augment.random_affine(spots(300, (16, 0)), generator(), rotation_deg=20))
    torch.testing.assert_close(moved.norm(dim=1), torch.full((300,), 16.0), atol=0.1, rtol=0)
    angles = torch.atan2(moved[:, 1], moved[:, 0]) * 180 / math.pi
    assert float(angles.abs().max()) <= 20.2
    assert float(angles.max()) > 17
    assert float(angles.min()) < -17


def test_scale_moves_along_the_ray_within_its_bound():
    moved = centres(augment.random_affine(spots(300, (12, 12)), generator(), scale=0.25))
    torch.testing.assert_close(moved[:, 0], moved[:, 1], atol=0.1, rtol=0)
    ratio = moved[:, 0] / 12
    assert float(ratio.min()) == pytest.approx(1 / 1.25, abs=0.03)
    assert float(ratio.max()) == pytest.approx(1.25, abs=0.03)


def test_aspect_keeps_the_area():
    moved = centres(augment.random_affine(spots(200, (12, 12)), generator(), aspect=0.2)) / 12
    torch.testing.assert_close(moved[:, 0] * moved[:, 1], torch.ones(200), atol=0.02, rtol=0)
    assert float(moved.max()) == pytest.approx(1.2, abs=0.03)


def test_shear_moves_rows_sideways_in_proportion_to_their_height():
    moved = centres(augment.random_affine(spots(200, (0, 20)), generator(), shear_deg=10))
    assert float((moved[:, 1] - 20).abs().max()) < 0.1
    assert float(moved[:, 0].abs().max()) == pytest.approx(20 * math.tan(math.radians(10)), abs=0.2)


def test_elastic_bends_but_only_a_little():
    moved = centres(augment.random_affine(spots(300, (0, 0)), generator(), elastic=0.05))
    assert 0.5 < float(moved.std()) < 2.5


def test_gamma_is_a_power_between_its_bounds():
    batch = torch.full((500, 1, 2, 2), 0.5)
    power = torch.log(augment.random_gamma(batch, generator(), gamma=0.5)) / math.log(0.5)
    assert float(power.min()) == pytest.approx(1 / 1.5, abs=0.02)
    assert float(power.max()) == pytest.approx(1.5, abs=0.02)
    assert float((power[:, 0, 0, 0] > 1).float().mean()) == pytest.approx(0.5, abs=0.08)
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat(9, 1, 1, 1)
    assert torch.equal(augment.random_gamma(ends, generator(), gamma=0.5), ends)


def test_contrast_multiplies_and_brightness_adds():
    batch = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2).repeat(2000, 1, 1, 1)
    out = augment.random_contrast(batch, generator(), contrast=0.3, brightness=0.0)
    gain = out[:, 0, 0, 1] / 0.5
    assert torch.equal(out[:, 0, 0, 0], torch.zeros(2000))
    assert (float(gain.min()), float(gain.max())) == pytest.approx((0.7, 1.3), abs=0.02)
    out = augment.random_contrast(batch, generator(), contrast=0.0, brightness=0.1)[:, 0, 0, 1] - 0.5
    assert (float(out.min()), float(out.max())) == pytest.approx((-0.1, 0.1), abs=0.005)
    assert float((out == 0).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_probability_zero_changes_nothing():
    batch = pictures()
    assert torch.equal(augment.random_gamma(batch, generator(), gamma=1.0, probability=0.0), batch)
    assert torch.equal(augment.random_blur(batch, generator(), probability=0.0), batch)
    assert torch.equal(augment.random_low_resolution(batch, generator(), probability=0.0), batch)
    assert torch.equal(augment.random_noise(batch, generator(), deviation=0.5, probability=0.0), batch)
    assert torch.equal(augment.random_erasing(batch, generator(), probability=0.0), batch)


def test_blur_spreads_a_point_over_the_binomial_kernel():
    batch = torch.zeros(200, 2, 9, 9)
    batch[:, :, 4, 4] = 1
    out = augment.random_blur(batch, generator(), probability=1.0)
    torch.testing.assert_close(out.sum(dim=(2, 3)), torch.ones(200, 2))
    # Of a point, the part that is blurred leaves (6/16)^2 in the middle and puts 1/256 two steps away on both axes.
    part = out[:, 0, 2, 2] * 256
    torch.testing.assert_close(out[:, 0, 4, 4], 1 - part * (1 - 36 / 256), atol=1e-5, rtol=0)
    assert (float(part.min()), float(part.max())) == pytest.approx((0, 1), abs=0.03)
    flat = torch.full((3, 1, 8, 8), 0.7)
    torch.testing.assert_close(augment.random_blur(flat, generator(), probability=1.0), flat)


def test_low_resolution_removes_fine_detail():
    checks = (torch.arange(16)[:, None] + torch.arange(16)[None]).remainder(2).float().expand(4, 1, 16, 16)
    out = augment.random_low_resolution(checks, generator(), probability=1.0, smallest=0.5, largest=0.5)
    assert float((out - 0.5).abs()[:, :, 2:-2, 2:-2].max()) < 0.1


def test_noise_has_the_deviation_it_is_given():
    batch = torch.full((400, 1, 16, 16), 0.5)
    deviation = augment.random_noise(batch, generator(), deviation=0.1, probability=1.0).std(dim=(1, 2, 3))
    assert float(deviation.max()) == pytest.approx(0.1, abs=0.02)
    assert float(deviation.mean()) == pytest.approx(0.05, abs=0.01)


def test_erasing_paints_one_rectangle_of_one_gray():
    batch = torch.ones(300, 3, 40, 40)
    out = augment.random_erasing(batch, generator(), probability=0.5, smallest=0.05, largest=0.2)
    erased = (out != 1).any(dim=1)
    touched = erased.flatten(1).any(dim=1)
    assert float(touched.float().mean()) == pytest.approx(0.5, abs=0.1)
    for image, mask in zip(out[touched], erased[touched], strict=True):
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])
        assert 0.03 * 1600 <= int(mask.sum()) <= 0.23 * 1600
        values = image[:, mask]
        assert float(values.max() - values.min()) == 0
        assert 0 <= float(values.max()) <= 0.5
