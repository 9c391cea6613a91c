"""Sigma-delta networks in the simulator, against a scalar reference written from Lava's sources and by hand."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gascnn.hardware.backends import NetxFile, run_images
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.result import concatenate
from gascnn.hardware.simulator import Simulator, simulate, synapse
from gascnn.hardware.simulator.sigma_delta import input_message_counts
from gascnn.hardware.summary import summarise
from gascnn.hardware.verify import compare
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import FormatError, LimitError, UsageError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork, SigmaDeltaNeuron

spec = importlib.util.spec_from_file_location(
    "sigma_delta_reference", Path(__file__).with_name("sigma_delta_reference.py")
)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def sends(threshold=0):
    return SigmaDeltaNeuron(np.array(threshold))


READS = SigmaDeltaNeuron(read_out=True)


def chain(*weights, threshold=0, bias=None, pixel=0):
    """One neuron a layer, and a read-out."""
    layers = [DenseLayer((1,), np.array([[w]]), sends(threshold), bias=bias) for w in weights]
    return NetxNetwork(InputLayer((1,), sends(pixel)), (*layers, DenseLayer((1,), np.array([[64]]), READS)))


def run(network, values, **options):
    return simulate(network, np.array(values, dtype=np.uint8)[None, :, None], record="spikes", **options)


def messages(result):
    return [sent[0, :, 0].tolist() for sent in result.messages]


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_one_wave():
    """Pixel 10 is a message of 640; a weight of 32 halves it; the read-out keeps 10 / 2 in 1/4096."""
    result = run(chain(32), [10])
    assert messages(result) == [[0, 320, 0], [0, 0, 320 * 64]]
    assert result.output_membrane.tolist() == [[5 * 4096]]
    assert result.output_counts.tolist() == [[0]]
    assert [count.tolist() for count in result.counts] == [[[1]], [[1]]]


def test_what_stays_costs_nothing_and_what_changes_is_sent():
    result = run(chain(64), [10, 10, 10, 7, 7])
    assert messages(result)[0] == [0, 640, 0, 0, -192, 0, 0]
    assert result.output_membrane.tolist() == [[7 * 4096]]


def test_the_last_input_stays_behind_the_last_step():
    short, long = run(chain(64), [9]), run(chain(64), [9], steps=4)
    assert messages(short)[0] == [0, 576, 0]
    assert messages(long)[0] == [0, 576, 0, 0, 0, 0]
    assert long.steps == 4
    assert long.output_membrane.tolist() == short.output_membrane.tolist() == [[9 * 4096]]


def test_changes_below_the_threshold_wait():
    """10 is sent, 12 is not (2 < 4), 14 is: 4 in all."""
    result = run(chain(64, threshold=4), [10, 12, 14])
    assert messages(result)[0] == [0, 640, 0, 256, 0]
    assert result.output_membrane.tolist() == [[14 * 4096]]


def test_a_change_as_large_as_the_threshold_is_sent():
    assert messages(run(chain(64, threshold=10), [10]))[0] == [0, 640, 0]
    assert messages(run(chain(64, threshold=11), [10]))[0] == [0, 0, 0]


def test_pixels_have_a_threshold_too():
    network = chain(64, pixel=5)
    assert messages(run(network, [4, 4]))[0] == [0, 0, 0, 0]
    assert messages(run(network, [5, 9, 10]))[0] == [0, 320, 0, 320, 0]


def test_relu_and_bias():
    """Bias 3 is sent at once; a pixel of 10 over -62 leaves max(3 - 9.7, 0) = 0."""
    result = run(chain(-62, bias=np.array([3])), [10])
    assert messages(result)[0] == [192, -192, 0]
    assert result.output_membrane.tolist() == [[0]]


def test_messages_are_rounded_down_and_the_rest_is_lost():
    """Weight 2 makes 1/32 of 1: 2 of 64ths. Weight 2 again: 4096 / 32 / 32 = 4 of 4096ths, which is no message."""
    result = run(chain(2, 2), [1])
    assert messages(result)[:2] == [[0, 2, 0, 0], [0, 0, 0, 0]]
    down = run(chain(2, 2), [1, 0])
    assert messages(down)[1] == [0, 0, 0, -1, 0], "floor(-4 / 64) = -1"


def test_a_neuron_of_the_last_layer_is_read_before_its_relu():
    last = DenseLayer((1,), np.array([[-96]]), sends(), bias=np.array([2]))
    network = NetxNetwork(InputLayer((1,), sends()), (last,))
    result = run(network, [6])
    assert result.output_membrane.tolist() == [[(2 - 9) * 4096]]
    assert messages(result) == [[128, -128]]


# --- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("torch", [True, False])
def test_random_networks(seed, torch, monkeypatch):
    monkeypatch.setattr(synapse, "_torch", lambda products: importlib.import_module("torch") if torch else None)
    network, images = reference.random_network(seed)
    result = simulate(network, images, record="spikes")
    for index, image in enumerate(images):
        expected, potential = reference.reference(network, image)
        for sent, wanted, counts in zip(result.messages, expected, result.counts, strict=True):
            np.testing.assert_array_equal(sent[index], wanted)
            np.testing.assert_array_equal(counts[index], np.count_nonzero(wanted, axis=0))
        np.testing.assert_array_equal(result.output_membrane[index], potential)
    for spikes, sent in zip(result.spikes, result.messages, strict=True):
        np.testing.assert_array_equal(spikes, sent != 0)


def test_the_random_networks_are_of_every_kind():
    networks = [reference.random_network(seed)[0] for seed in range(60)]
    layers = [layer for network in networks for layer in network.layers]
    assert {layer.kind for layer in layers} == {"conv", "dense"}
    assert {None, 1, 3} == {None if layer.bias is None else layer.bias.ndim for layer in layers}
    assert {int(layer.neuron.threshold) > 0 for layer in layers if not layer.neuron.read_out} == {True, False}
    assert {network.input.neuron is None for network in networks} == {True, False}
    assert {network.layers[-1].neuron.read_out for network in networks} == {True, False}
    assert max(layer.groups for layer in layers if layer.kind == "conv") > 1


def test_sums_wrap_at_24_bits_and_are_counted():
    layer = ConvLayer((1, 1, 1), np.full((1, 3, 1, 1), 254), (1, 1), (0, 0), (1, 1), 1, sends())
    network = NetxNetwork(InputLayer((3, 1, 1), sends()), (layer,))
    image = np.full((1, 1, 3, 1, 1), 255, dtype=np.uint8)
    result = simulate(network, image, record="spikes")
    expected, potential = reference.reference(network, image[0])
    assert 3 * 254 * 255 * 64 > 2**23
    assert potential.tolist() == [3 * 254 * 255 * 64 - 2**24]
    np.testing.assert_array_equal(result.messages[0][0], expected[0])
    assert result.output_membrane.tolist() == [potential.tolist()]
    assert result.wraps == [1]


def test_messages_beyond_16_bits_are_counted():
    network = chain(254, 254)
    """131 * 254 is beyond 2^15; what follows from it, and the sums, are beyond 2^23 as well."""
    assert run(network, [131]).wraps == [1, 2, 1]
    assert run(network, [32]).wraps == [0, 0, 0]


def test_batches_threads_and_memory_change_nothing():
    network, images = reference.random_network(3)
    many = np.concatenate([images] * 20)
    whole = simulate(network, many, record="spikes")
    parts = concatenate([simulate(network, many[i : i + 7], record="spikes") for i in range(0, len(many), 7)])
    for left, right in zip(whole.messages, parts.messages, strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(whole.output_membrane, parts.output_membrane)
    done = []
    small = simulate(network, many, memory_bytes=1 << 30, threads=2, progress=done.append)
    np.testing.assert_array_equal(small.output_membrane, whole.output_membrane)
    assert small.messages is small.spikes is None
    assert done[-1] == len(many)


# --- feeding and reading ---------------------------------------------------------------------------------------------


def deployed():
    layer = DenseLayer((2,), np.array([[64, 0, 4], [0, 64, -4]]), READS)
    deployment = Deployment((2,), ("a", "b"), steps=1, coding="constant")
    return NetxNetwork(InputLayer((3,), sends()), (layer,), constant_channels=1, deployment=deployment)


def test_always_on_planes_hold_32():
    fed = checked_spikes(deployed(), np.array([[[5, 9]]], dtype=np.uint8))
    assert fed.tolist() == [[[5, 9, 32]]]
    result = simulate(deployed(), np.array([[[5, 9]], [[9, 6]]], dtype=np.uint8))
    assert result.output_membrane.tolist() == [[7 * 4096, 7 * 4096], [11 * 4096, 4 * 4096]]
    assert result.predictions().tolist() == [0, 0]
    assert result.scores().tolist() == result.output_membrane.tolist()
    assert summarise(result).scores().tolist() == result.output_membrane.tolist()


def test_messages_of_the_input():
    network = replace(deployed(), input=InputLayer((3,), sends(8)))
    fed = checked_spikes(network, np.array([[[5, 9], [5, 30]], [[0, 8], [8, 8]]], dtype=np.uint8))
    assert input_message_counts(network, fed).tolist() == [[0, 2, 1], [1, 1, 1]]


def test_images_are_encoded_as_pixels(tmp_path):
    layer = ConvLayer((1, 2, 2), np.full((1, 1, 1, 1), 64), (1, 1), (0, 0), (1, 1), 1, READS)
    deployment = Deployment((1, 2, 2), tuple("abcd"), steps=1, coding="constant")
    network = NetxNetwork(InputLayer((1, 2, 2), sends()), (layer,), deployment=deployment)
    image = np.array([[[[0, 255], [17, 3]]]], dtype=np.uint8)
    np.testing.assert_array_equal(encode_for(network, image)[:, 0], image)
    result = run_images(NetxFile(tmp_path, "", network, True), image)
    assert (result.output_membrane >> 12).tolist() == [[0, 255, 17, 3]]


def test_verification_compares_messages():
    network = chain(64)
    expected, found = run(network, [3, 5]), run(network, [3, 5])
    assert compare(network, expected, found).passed
    found.messages[0][0, 2, 0] += 1
    check = compare(network, expected, found)
    assert not check.passed
    assert check.layers[0].differences == 1
    assert (
        "layer_00 (dense), image 0, step 2, neuron (0,): message 129 where the simulator has message 128"
        in (check.reasons()[0])
    )
    with pytest.raises(ValueError, match="only one of the runs has graded messages"):
        compare(network, expected, replace(found, messages=None))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["events", "dense"])
def test_methods_for_spikes_are_refused(method):
    with pytest.raises(UsageError, match=f"method {method} is for spikes; sigma-delta networks run with plain"):
        Simulator(chain(64), method=method)


def test_plain_and_auto_are_the_same():
    assert run(chain(64), [3], method="plain").output_membrane == run(chain(64), [3], method="auto").output_membrane


def test_networks_lava_could_not_run():
    with pytest.raises(LimitError, match=r"threshold 524288..524288; 0..524287, which Lava holds in 32 bits"):
        run(chain(64, threshold=524288), [1])
    mixed = NetxNetwork(InputLayer((1,), CubaNeuron(np.array(1))), chain(64).layers)
    with pytest.raises(FormatError, match="neurons of types CUBA and SDNN"):
        run(mixed, [1])


def test_sums_lava_leaves_undefined():
    layer = ConvLayer((1, 1, 1), np.full((1, 1, 1, 1), 2**18), (1, 1), (0, 0), (1, 1), 1, sends())
    network = NetxNetwork(InputLayer((1, 1, 1), sends()), (layer,))
    assert simulate(network, np.full((1, 1, 1, 1, 1), 127, dtype=np.uint8)).wraps == [1]
    with pytest.raises(LimitError, match=r"layer_00 \(conv\): a synaptic sum leaves the 32 bits that Lava holds"):
        simulate(network, np.full((1, 1, 1, 1, 1), 128, dtype=np.uint8))
    huge = replace(network, layers=(replace(layer, weight=np.full((1, 1, 1, 1), 2**40)),))
    with pytest.raises(LimitError, match=r"messages up to 16320 may sum to 2.53, which Lava rounds"):
        simulate(huge, np.full((1, 1, 1, 1, 1), 255, dtype=np.uint8))


def test_what_works_with_spikes_only_says_so():
    with pytest.raises(LimitError, match=r"integrate-and-fire neurons .* only; the network has sigma-delta neurons"):
        _ = chain(64).layers[0].cuba
