import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gascnn.models.gan import FirstStage
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.training.bundles import build_model
from gascnn.toolkit.training.gan.bundle import Gan, new_parts
from gascnn.toolkit.training.gan.sample import sample

CLASSES, SHAPE = ("row", "column", "diagonal"), (1, 8, 8)


@pytest.fixture
def gan(network, tiny):
    torch.manual_seed(2)
    generator, critic = new_parts(SHAPE, FirstStage(build_model(network)), tiny())
    return Gan(generator.eval(), critic.eval(), tiny(), CLASSES, SHAPE)


@pytest.fixture
def copier(network, tiny):
    """A GAN whose mask is 1 everywhere: by equation 2 each slice is its source."""
    generator, critic = new_parts(SHAPE, FirstStage(build_model(network)), tiny(plane="image"))
    with torch.no_grad():
        generator.attention.mask.bias.fill_(200.0)
    return Gan(generator.eval(), critic.eval(), tiny(plane="image"), CLASSES, SHAPE)


def test_classes_take_turns_and_sources_do_not_repeat(gan, dataset):
    done = []
    made = sample(gan, dataset, 48, progress=done.append)
    assert made.images.shape == (144, 1, 8, 8)
    assert made.images.dtype == np.uint8
    assert made.labels.tolist() == [i % 3 for i in range(144)]
    np.testing.assert_allclose(made.condition, np.array([0.0, 0.5, 1.0])[made.labels])
    for k in range(3):  # 48 training images: each once a class
        assert sorted(made.source[made.labels == k]) == list(range(48))
    np.testing.assert_array_equal(made.source_label, dataset.train.labels[made.source])
    assert done[-1] == 144


@pytest.mark.parametrize(
    ("sources", "most", "scarce"), [("any", 48, "row"), ("same", 10, "column"), ("other", 26, "diagonal")]
)
def test_no_image_is_made_twice(gan, dataset, sources, most, scarce):
    """Without noise the second image of a source and a class would be the first: 16, 10 and 22 training images."""
    dataset.train.labels[1:18:3] = 2
    assert len(set(pairs(sample(gan, dataset, most, sources=sources)))) == 3 * most
    message = f"images is {most + 1}; with sources {sources} there are {most} training images to make class {scarce} "
    with pytest.raises(UsageError, match=rf"{message}.*; allowed: 1 to {most}$"):
        sample(gan, dataset, most + 1, sources=sources)
    fewer = sample(gan, dataset, most + 1, sources=sources, fewer=True)
    assert fewer.report["images_a_class"] == most
    assert list(pairs(fewer)) == list(pairs(sample(gan, dataset, most, sources=sources)))
    assert sample(gan, dataset, 2, sources=sources, fewer=True).report["images_a_class"] == 2


def pairs(made):
    return zip(made.source.tolist(), made.labels.tolist(), strict=True)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that holds as many images."""

    def __init__(self, images):
        super().__init__()
        self.images, self.bytes = images, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dim() and len(found) == self.images:
            self.bytes = max(self.bytes, found.nbytes)
        return found


def test_of_the_whole_set_its_pixels_alone_are_held(gan, dataset):
    with Largest(144) as seen:
        made = sample(gan, dataset, 48)
    assert seen.bytes == made.images.nbytes == 144 * 64


def test_what_is_made_of_a_copier_are_its_sources(copier, dataset):
    made = sample(copier, dataset, 20, seed=5)
    np.testing.assert_array_equal(made.images, dataset.train.images[made.source])
    assert made.report["difference_from_source"] == 0


@pytest.mark.parametrize("images", [4, 40])  # of three classes: in one chunk, in two
def test_images_by_hand(gan, dataset, images):
    made = sample(gan, dataset, images)
    real = torch.from_numpy(dataset.train.images[made.source].astype(np.float32)) / 127.5 - 1
    with torch.no_grad():
        slices = gan.generator(real, torch.from_numpy(made.condition)).slices.numpy()
        realism, read = gan.critic(torch.from_numpy(made.images.astype(np.float32)) / 127.5 - 1)
    assert np.abs((slices + 1) * 127.5 - made.images).max() < 0.51
    np.testing.assert_allclose(made.realism, realism.numpy(), atol=1e-5)
    np.testing.assert_allclose(made.condition_read, read.numpy(), atol=1e-5)
    assert made.report["condition_error"] == pytest.approx(np.abs(read.numpy() - made.condition).mean(), abs=1e-5)
    nearest = np.abs(read.numpy()[:, None] - np.array([0, 0.5, 1])).argmin(1)
    assert made.report["read_as_asked"] == pytest.approx((nearest == made.labels).mean())
    expected = np.abs(made.images.astype(float) - dataset.train.images[made.source]).mean() / 255
    assert made.report["difference_from_source"] == pytest.approx(expected)


@pytest.mark.parametrize("sources", ["same", "other"])
def test_sources_of_the_same_class_or_another(gan, dataset, sources):
    made = sample(gan, dataset, 16, sources=sources)
    assert np.all((made.source_label == made.labels) == (sources == "same"))


def test_seeds_repeat_and_differ(gan, dataset):
    one, same, other = (sample(gan, dataset, 5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.images, same.images)
    np.testing.assert_array_equal(one.source, same.source)
    assert one.source.tolist() != other.source.tolist()


def test_what_is_kept_beside_the_images(gan, dataset):
    made = sample(gan, dataset, 2)
    arrays = made.arrays()
    assert set(arrays) == {"drawn_for", "source", "source_label", "condition", "condition_read", "realism"}
    assert all(len(array) == 6 for array in arrays.values())


def test_what_cannot_be_made(gan, dataset, dataset_maker):
    with pytest.raises(UsageError, match="sources is 'mine'; allowed: any, same, other"):
        sample(gan, dataset, 2, sources="mine")
    with pytest.raises(UsageError, match="images is 0; at least one"):
        sample(gan, dataset, 0)
    with pytest.raises(DataError, match=r"has images of \(1, 12, 12\), \(1, 8, 8\) are wanted"):
        sample(gan, dataset_maker(size=12), 2)
    with torch.no_grad():
        gan.generator.attention.image.bias.fill_(float("nan"))
    with pytest.raises(DataError, match="the GAN gave NaN or infinity"):
        sample(gan, dataset, 2)
