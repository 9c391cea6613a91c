"""Bundles of split networks: what is saved answers as before, what was tampered with does not load."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gascnn.toolkit.bundle import MODEL_FILE, WEIGHTS_FILE, load_bundle
from gascnn.toolkit.cli.models import open_model
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.pgsl.bundle import SplitNetwork, from_bundle, load_network, new_parts, save_network, to_bundle
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.split import train_step
from gascnn.toolkit.pgsl.train import answers

SHAPE, CLASSES = (1, 12, 12), ("round", "odd", "none")
OPTIONS = PgslOptions(
    width=8, hidden=10, grid=2, attack="bound", bound=0.2, recovery="channels", recovery_iterations=5,
    initial_weights=(0.6, 0.3, 0.1), seed=3,
)  # fmt: skip
LOCAL = LocalOptions(width=4, epochs=2, seed=3)


def images(count=20, seed=0):
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    client, server = new_parts(SHAPE, 3, OPTIONS, LOCAL)
    for step in range(3):  # batch norms and weights as training leaves them
        train_step(client, server, images(seed=step).float() / 255, torch.arange(20) % 3)
    return SplitNetwork(client, server, LOCAL, CLASSES, SHAPE, "foreground", {"test": {"images": 5}}, {"seed": 3})


@pytest.fixture
def path(network, tmp_path):
    save_network(network, tmp_path / "split")
    return tmp_path / "split"


def test_a_network_comes_back_and_answers_in_the_same_bits(network, path):
    assert sorted(p.name for p in path.iterdir()) == [MODEL_FILE, WEIGHTS_FILE]
    before = torch.get_rng_state()
    found = load_network(path)
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("options", "local", "class_names", "image_shape", "framing", "metrics", "provenance"):
        assert getattr(found, name) == getattr(network, name)
    expected, answer = (answers(one.client, one.server, images(50, 9)) for one in (network, found))
    for name in ("scores", "attacked", "fused", "recovered"):
        assert torch.equal(getattr(answer, name), getattr(expected, name))
    assert not found.client.model.training
    assert not found.server.model.training
    parameters = found.client.model.attack.classifier.parameters()
    assert not any(parameter.requires_grad for parameter in parameters)


def test_every_weight_is_in_the_file_and_nothing_else(network, path):
    expected = {f"client.{name}" for name in network.client.model.layers.state_dict()}
    expected |= {f"local.{name}" for name in network.client.model.attack.classifier.state_dict()}
    expected |= {f"server.{name}" for name in network.server.model.state_dict()}
    assert set(load_bundle(path).tensors) == expected


@pytest.mark.parametrize("name", [WEIGHTS_FILE, MODEL_FILE])
def test_damage_is_found(path, name):
    content = bytearray((path / name).read_bytes())
    if name == MODEL_FILE:
        content = content.replace(b'"width": 8', b'"width": 12')
    else:
        content[-1] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(FormatError, match=r"SHA-256 differs|tensor client.0.weight has shape"):
        load_network(path)


def changed(network, *, options=None, local=None, tensors=None, **fields):
    """The network's bundle with other values; None takes a tensor out."""
    bundle = to_bundle(network)
    architecture = dict(bundle.architecture)
    architecture["options"] = {**architecture["options"], **(options or {})}
    architecture["local"] = {**architecture["local"], **(local or {})}
    mixed = {**bundle.tensors, **(tensors or {})}
    kept = {name: value for name, value in mixed.items() if value is not None}
    return replace(bundle, **{"architecture": architecture, "tensors": kept, **fields})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ann"}, "of kind ann; expected pgsl: one that 'gascnn pgsl train' wrote"),
        ({"pixel_max": 4095}, "pixel_max is 4095; split networks take 255"),
        ({"architecture": {"name": "resnet"}}, "needs the name pgsl and tables 'options' and 'local'"),
        ({"architecture": {"name": "pgsl", "options": [], "local": {}}}, "needs the name pgsl and tables"),
        ({"options": {"depth": 3}}, "options cannot be used: unknown split-learning option 'depth'"),
        ({"options": {"width": "8"}}, "options cannot be used: width is '8'"),
        ({"local": {"depth": 3}}, "options cannot be used: .*unexpected keyword argument 'depth'"),
        ({"options": {"attack": "pixels", "pixels": 400}}, "build no split network: pixels is 400"),
        ({"image_shape": (1, 12, 14)}, "build no split network: images are 12x14"),
        ({"image_shape": (1, 11, 11)}, "build no split network: image_size is 11"),
        ({"image_shape": (1, 2048, 2048)}, "build no split network: image_size is 2048"),
        ({"classes": ("a", "b")}, r"tensor local.fc.weight has shape \(3, 72\); the architecture expects \(2, 72\)"),
        ({"local": {"width": 5}}, "tensor local.convs.0.weight has shape"),
        ({"tensors": {"server.fused.fc2.bias": None}}, "tensor server.fused.fc2.bias is missing"),
        ({"tensors": {"server.more": np.zeros(3)}}, "tensor server.more"),
        ({"tensors": {"client.0.bias": np.full(8, 1e300)}}, "client.0.bias is torch.float64; expected torch.float32"),
    ],
)  # fmt: skip
def test_what_fits_no_network_is_refused(network, changes, message):
    with pytest.raises(FormatError, match=message):
        from_bundle(changed(network, **changes))


def test_options_that_would_fill_the_memory_are_refused_without_filling_it(network):
    # 1024 x 64 x 64 inputs to 65536 outputs, three times: three tebibytes in float32.
    huge = changed(
        network, options={"width": 1024, "hidden": 65_536, "grid": 64, "strides": [1] * 5}, image_shape=(1, 64, 64)
    )
    with pytest.raises(FormatError, match=r"tensor client.0.weight has shape \(8, 5, 3, 3\); the architecture expects"):
        from_bundle(huge)


def test_new_parts_refuse_in_their_own_words():
    with pytest.raises(UsageError, match="images are 12x10; split networks take square ones"):
        new_parts((1, 12, 10), 3, OPTIONS, LOCAL)
    with pytest.raises(UsageError, match=r"in_channels is 2; allowed"):
        new_parts((2, 12, 12), 3, OPTIONS, LOCAL)


def test_other_commands_refuse_it(path):
    with pytest.raises(
        FormatError, match=r"a bundle of kind pgsl, a split network; it goes with 'gascnn pgsl evaluate'"
    ):
        open_model(path)
    assert json.loads((path / MODEL_FILE).read_text())["kind"] == "pgsl"
