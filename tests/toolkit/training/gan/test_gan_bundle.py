"""Bundles of GANs: what is saved makes the same images, what was tampered with does not load."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gascnn.models.gan import FirstStage
from gascnn.toolkit.bundle import MODEL_FILE, WEIGHTS_FILE
from gascnn.toolkit.cli.models import open_model
from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.pgsl.bundle import load_network
from gascnn.toolkit.training.bundles import build_model
from gascnn.toolkit.training.gan.bundle import Gan, from_bundle, load_gan, new_parts, save_gan, to_bundle

CLASSES, SHAPE = ("row", "column", "diagonal"), (1, 8, 8)


@pytest.fixture
def gan(network, tiny):
    torch.manual_seed(2)
    stage = FirstStage(build_model(network))
    generator, critic = new_parts(SHAPE, stage, tiny())
    return Gan(generator.eval(), critic.eval(), tiny(), CLASSES, SHAPE, "foreground", {"train": {"a": 1}}, {"seed": 3})


@pytest.fixture
def path(gan, tmp_path):
    save_gan(gan, tmp_path / "gan")
    return tmp_path / "gan"


@pytest.mark.parametrize("plane", ["features", "image"])
def test_a_gan_comes_back_and_makes_the_same_bits(gan, network, tmp_path, tiny, plane):
    if plane == "image":
        generator, critic = new_parts(SHAPE, FirstStage(build_model(network)), tiny(plane="image"))
        gan = replace(gan, generator=generator.eval(), critic=critic.eval(), options=tiny(plane="image"))
    save_gan(gan, tmp_path / "gan")
    before = torch.get_rng_state()
    found = load_gan(tmp_path / "gan")
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("options", "class_names", "image_shape", "framing", "metrics", "provenance"):
        assert getattr(found, name) == getattr(gan, name)
    images, condition = torch.rand(5, *SHAPE) * 2 - 1, torch.rand(5)
    with torch.no_grad():
        assert torch.equal(found.generator(images, condition).slices, gan.generator(images, condition).slices)
        assert torch.equal(found.critic(images)[1], gan.critic(images)[1])
    assert not found.generator.training
    assert not any(p.requires_grad for p in found.generator.parameters())
    assert sorted(p.name for p in (tmp_path / "gan").iterdir()) == [MODEL_FILE, WEIGHTS_FILE]
    assert json.loads((tmp_path / "gan" / MODEL_FILE).read_text())["kind"] == "gan"


def written(path, **fields):
    """Other fields in model.json; None takes one out."""
    values = {**json.loads((path / MODEL_FILE).read_text()), **fields}
    (path / MODEL_FILE).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": 2}, "schema 2; this version reads schema 1"),
        ({"kind": "ann"}, "of kind ann; expected gan: one that 'gascnn gan train' wrote"),
        ({"kind": "cat"}, "field 'kind' is missing or of the wrong kind"),
        ({"architecture": None}, "field 'architecture' is missing or of the wrong kind"),
        ({"image_shape": [1, 8]}, "field 'image_shape'"),
        ({"image_shape": [1, 8, True]}, "field 'image_shape'"),
        ({"pixel_max": "255"}, "field 'pixel_max'"),
        ({"framing": "close"}, "field 'framing'"),
        ({"classes": ["a", 2]}, "field 'classes'"),
        ({"metrics": []}, "field 'metrics'"),
        ({"provenance": None}, "field 'provenance'"),
        ({"weights_sha256": "0" * 64}, "not the weights model.json was written with"),
        ({"weights_sha256": 5}, "field 'weights_sha256'"),
    ],
)
def test_descriptions_that_were_tampered_with(path, fields, message):
    written(path, **fields)
    with pytest.raises(FormatError, match=message):
        load_gan(path)


def test_folders_that_are_no_bundles(path, tmp_path):
    with pytest.raises(FormatError, match="no bundle there"):
        load_gan(tmp_path / "nothing")
    (path / WEIGHTS_FILE).unlink()
    with pytest.raises(FormatError, match=r"weights\.safetensors is missing; the bundle is incomplete"):
        load_gan(path)
    (path / MODEL_FILE).write_text("{")
    with pytest.raises(FormatError, match="not readable JSON"):
        load_gan(path)


def test_weights_that_are_not_finite(gan, tmp_path):
    with torch.no_grad():
        gan.critic.fc1.bias.fill_(float("nan"))
    save_gan(gan, tmp_path / "gan")
    with pytest.raises(FormatError, match=r"critic\.fc1\.bias holds NaN or infinity; train again"):
        load_gan(tmp_path / "gan")


def changed(gan, *, options=None, stage=None, tensors=None, **fields):
    """The GAN's bundle with other values; None takes a tensor out."""
    bundle = to_bundle(gan)
    architecture = dict(bundle.architecture)
    architecture["options"] = {**architecture["options"], **(options or {})}
    architecture["first_stage"] = {**architecture["first_stage"], **(stage or {})}
    mixed = {**bundle.tensors, **(tensors or {})}
    kept = {name: value for name, value in mixed.items() if value is not None}
    return replace(bundle, **{"architecture": architecture, "tensors": kept, **fields})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ann"}, "of kind ann; expected gan: one that 'gascnn gan train' wrote"),
        ({"pixel_max": 4095}, "pixel_max is 4095; a GAN takes 255"),
        ({"classes": ("a",)}, "lists 1 classes; a GAN has at least 2"),
        ({"architecture": {"name": "resnet"}}, "needs the name attention-gan and a table 'options'"),
        ({"architecture": {"name": "attention-gan", "options": {}}}, "needs a table 'first_stage'"),
        ({"options": {"depth": 3}}, "options cannot be used: unknown GAN option 'depth'"),
        ({"options": {"width": "8"}}, "options cannot be used: width is '8'"),
        ({"stage": {"stem": "large"}}, "build no GAN: stem is 'large'"),
        ({"stage": {"channels": 3}}, "build no GAN: its first stage takes 3 channels, its images have 1"),
        ({"stage": {"depth": 3}}, "build no GAN: .*unexpected keyword argument 'depth'"),
        ({"stage": {"width": None}}, "build no GAN: width is None"),
        ({"architecture": {"name": "attention-gan", "options": {}, "first_stage": {}}}, "build no GAN"),
        ({"image_shape": (1, 10, 10)}, "build no GAN: images are 10x10"),
        ({"image_shape": (1, 8, 64)}, "tensor critic.fc1.weight has shape"),
        ({"options": {"width": 3}}, r"tensor generator.attention.encoder.0.weight has shape \(2, 2, 7, 7\)"),
        ({"options": {"plane": "image"}}, "tensor generator.first_stage.* of the bundle belongs to nothing"),
        ({"tensors": {"critic.fc2.bias": None}}, "tensor critic.fc2.bias is missing"),
        ({"tensors": {"critic.more": np.zeros(3)}}, "tensor critic.more"),
        ({"tensors": {"critic.fc2.bias": np.full(2, 1e300)}}, "critic.fc2.bias is torch.float64; expected torch.float"),
    ],
)
def test_what_fits_no_gan_is_refused(gan, changes, message):
    with pytest.raises(FormatError, match=message):
        from_bundle(changed(gan, **changes))


def test_options_that_would_fill_the_memory_are_refused_without_filling_it(gan):
    # A first fully connected layer of 4096 x 16 x 16 inputs and 65 536 outputs: two hundred tebibytes.
    huge = {"critic_width": 512, "critic_hidden": 65_536, "width": 512, "residual_blocks": 64}
    with pytest.raises(FormatError, match=r"tensor generator\.attention\.encoder\.0\.weight has shape"):
        from_bundle(changed(gan, options=huge, image_shape=(1, 4096, 4096)))


def test_other_readers_refuse_it(path):
    with pytest.raises(FormatError, match="kind gan, which classifies nothing; it goes with 'gascnn gan sample'"):
        open_model(path)
    with pytest.raises(FormatError, match="of kind gan"):
        load_network(path)
