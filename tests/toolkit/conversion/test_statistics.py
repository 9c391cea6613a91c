"""Statistics that travel with a bundle give the scales that the images themselves gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import MODEL_FILE, STATISTICS_FILE, Statistics, load_bundle, save_bundle
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.conversion.calibrate import measure_activations, measure_percentiles
from gascnn.toolkit.conversion.statistics import measure_statistics, stored_activations, with_statistics
from gascnn.toolkit.errors import DataError, FormatError, UsageError
from gascnn.toolkit.training.bundles import to_bundle

SHAPE = (1, 8, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return resnet(classes=3, blocks=(1,), width=4, channels=1, image_size=8).eval()


@pytest.fixture
def path(model, tmp_path):
    bundle = to_bundle(model, ("a", "b", "c"), SHAPE)
    statistics = measure_statistics(model, IMAGES, origin={"dataset": "noise", "split": "train"})
    save_bundle(with_statistics(bundle, statistics), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_several_percentiles_in_one_pass_are_those_of_a_pass_each(model, rewrite):
    graph, images = rewrite(model, SHAPE), torch.from_numpy(IMAGES).float() / 255
    names = ["relu", "layer1_0_relu_out", "readout"]
    together = measure_percentiles(graph, images, names, (90.0, 99.0, 99.9, 100.0), batch_size=7)
    for percentile in (90.0, 99.0, 99.9, 100.0):
        alone = measure_activations(graph, images, names, percentile, batch_size=7)
        for name in names:
            assert torch.equal(together[name][percentile].percentile, alone[name].percentile)
            assert torch.equal(together[name][percentile].low, alone[name].low)
            assert torch.equal(together[name][percentile].high, alone[name].high)


def test_they_come_back_with_the_bundle(path):
    record = load_bundle(path).statistics.record
    assert record["images"] == 40
    assert record["dataset"] == "noise"
    assert record["populations"] == ["relu", "layer1_0_relu", "layer1_0_relu_out", "readout"]
    assert sorted(p.name for p in path.iterdir()) == ["model.json", "statistics.safetensors", "weights.safetensors"]


def test_only_a_few_numbers_a_channel_are_stored(path):
    tensors = load_bundle(path).statistics.tensors
    assert {value.shape for name, value in tensors.items() if not name.startswith("readout")} == {(4,)}
    assert {value.shape for name, value in tensors.items() if name.startswith("readout")} == {(3,)}
    assert len(tensors) == 4 * (5 + 2)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_stored_and_measured_give_the_same_network(model, path, reset):
    stored = stored_activations(load_bundle(path).statistics, 99.9)
    one = convert(model, IMAGES, reset=reset, steps=8)
    other = convert(model, IMAGES, reset=reset, steps=8, activations=stored)
    assert one.scales.keys() == other.scales.keys()
    for name, scale in one.scales.items():
        for field in ("gain", "decode", "current_peak", "membrane_peak"):
            assert torch.equal(getattr(scale, field), getattr(other.scales[name], field)), (name, field)


def test_scales_come_from_what_is_stored_not_from_the_images_given(model, path):
    """Black images say nothing of activations; the stored ones still do."""
    stored = stored_activations(load_bundle(path).statistics, 99.9)
    black = np.zeros((4, *SHAPE), np.uint8)
    scales = convert(model, black, reset="subtract", steps=8, activations=stored).scales
    percentile = stored["relu"].percentile
    # A spike adds a pixel's weight, at most four thresholds: the scale is the larger of both.
    graph_weight = (model.conv1.weight / torch.sqrt(model.bn1.running_var + model.bn1.eps)[:, None, None, None]).abs()
    expected = torch.maximum(percentile.float(), graph_weight.flatten(1).amax(1).detach() / 4)
    torch.testing.assert_close(scales["relu"].decode, expected, rtol=1e-4, atol=1e-6)


def test_bundles_without_statistics_still_load(model, tmp_path):
    save_bundle(to_bundle(model, ("a", "b", "c"), SHAPE), tmp_path / "old")
    assert load_bundle(tmp_path / "old").statistics is None
    assert "statistics" not in json.loads((tmp_path / "old" / MODEL_FILE).read_text())


def test_statistics_of_another_bundle_are_refused(path):
    (path / STATISTICS_FILE).write_bytes((path / "weights.safetensors").read_bytes())
    with pytest.raises(FormatError, match=r"not the statistics model.json was written with \(their SHA-256 differs\)"):
        load_bundle(path)
    (path / STATISTICS_FILE).unlink()
    with pytest.raises(FormatError, match=r"statistics.safetensors is missing; the bundle is incomplete"):
        load_bundle(path)
    values = json.loads((path / MODEL_FILE).read_text())
    (path / MODEL_FILE).write_text(json.dumps({**values, "statistics": [1]}))
    with pytest.raises(FormatError, match="field 'statistics' is missing or of the wrong kind"):
        load_bundle(path)


def test_percentiles_that_are_not_stored(path):
    with pytest.raises(UsageError, match=r"percentile 98 is not among .*; stored are 99, 99.5, 99.9, 99.99, 100"):
        stored_activations(load_bundle(path).statistics, 98.0)


def test_records_and_tensors_that_do_not_fit(path):
    whole = load_bundle(path).statistics
    with pytest.raises(FormatError, match="lack their populations or percentiles"):
        stored_activations(Statistics(whole.tensors, {}), 99.9)
    fewer = {name: value for name, value in whole.tensors.items() if name != "relu.high"}
    with pytest.raises(FormatError, match=r"relu.high is missing in the bundle's statistics; measure them anew"):
        stored_activations(Statistics(fewer, whole.record), 99.9)


def test_activations_of_another_network_or_coding(model, path):
    stored = stored_activations(load_bundle(path).statistics, 99.9)
    wider = resnet(classes=3, blocks=(1,), width=8, channels=1, image_size=8).eval()
    with pytest.raises(UsageError, match=r"have 4 channels for relu, the network 8; they are of another network"):
        convert(wider, IMAGES, activations=stored, steps=4)
    deeper = resnet(classes=3, blocks=(2,), width=4, channels=1, image_size=8).eval()
    with pytest.raises(UsageError, match=r"have 0 channels for layer1_1_relu, the network 4"):
        convert(deeper, IMAGES, activations=stored, steps=4)
    with pytest.raises(UsageError, match="are of plain intensities, coding rate feeds others"):
        convert(model, IMAGES, activations=stored, steps=4, coding="rate")


def test_what_cannot_be_measured(model):
    with pytest.raises(DataError, match=r"calibration images are float64"):
        measure_statistics(model, IMAGES / 255)
    with pytest.raises(UsageError, match=r"percentile is 20.0; it must be above 50"):
        measure_statistics(model, IMAGES, percentiles=(20.0,))
    with pytest.raises(UsageError, match="calibration needs at least one image"):
        measure_statistics(model, IMAGES, count=0)
    assert measure_statistics(model, IMAGES, count=7).record["images"] == 7
