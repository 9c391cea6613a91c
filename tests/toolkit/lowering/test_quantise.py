"""Integers of a lowered network against numbers worked out by hand, and against the chip's ranges."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np
import pytest

from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import ConversionError, LimitError, UsageError
from gascnn.toolkit.lowering import LoweringOptions, lower, lower_with_report
from gascnn.toolkit.lowering.annotations import GraphNotes, NeuronNotes, set_graph_notes, set_neuron_notes


def neurons(size, theta=1.0, start=0.0, peak=None):
    shape = tuple(np.atleast_1d(size))
    node = nir.IF(r=np.ones(shape), v_threshold=np.full(shape, theta), v_reset=np.zeros(shape))
    peaks = None if peak is None else np.full(shape[0], float(peak))
    set_neuron_notes(node, NeuronNotes(start, peaks, peaks))
    return node


def chain(shape, *nodes, skips=(), **notes):
    """A graph of ``nodes`` one behind the other, named n0, n1, ...; ``skips`` are further edges."""
    names = [f"n{i}" for i in range(len(nodes))]
    last = next(n for n in reversed(nodes) if isinstance(n, nir.IF | nir.LIF))
    everything = {"in": nir.Input({"input": np.array(shape)}), **dict(zip(names, nodes, strict=True))}
    everything["out"] = nir.Output({"output": np.array(last.v_threshold.shape)})
    path = ["in", *names, "out"]
    graph = nir.NIRGraph(everything, [*pairwise(path), *skips], type_check=False)
    set_graph_notes(graph, GraphNotes(**{"reset": "zero", **notes}))
    return graph


def dense(rows, bias=None):
    weight = np.array(rows, dtype=float)
    return nir.Affine(weight, np.zeros(len(weight)) if bias is None else np.array(bias, dtype=float))


def conv(weight, size, bias=None, padding=0):
    weight = np.array(weight, dtype=float)
    bias = np.zeros(len(weight)) if bias is None else np.array(bias, dtype=float)
    return nir.Conv2d((size, size), weight, 1, (padding, padding), 1, 1, bias)


READ = dense([[1.0, -0.5], [-0.25, 1.0]])
"""A second layer, so that the first is not the read-out, which has one scale for all."""


# --- reset to zero ---------------------------------------------------------------------------------------------------


def test_zero_one_scale_for_the_layer():
    """q = 254 / 0.5 = 508; W = 2 round(q w / 2): -127 -> -128 (halves to even), 50.8 -> 50, 101.6 -> 102."""
    layer = lower(chain((2,), dense([[0.5, -0.25], [0.1, 0.2]]), neurons(2), READ, neurons(2))).layers[0]
    assert layer.weight.tolist() == [[254, -128], [50, 102]]
    assert layer.neuron.threshold == 508
    assert (layer.neuron.current_decay, layer.neuron.voltage_decay) == (4096, 0)
    assert layer.bias is None
    assert layer.self_weight is None


def test_zero_thresholds_of_the_graph_are_divided_out():
    """w / theta = 0.5 and 0.05: q = 508, and the second row's threshold is 508 all the same."""
    node = neurons(2)
    node.v_threshold = np.array([1.0, 4.0])
    layer = lower(chain((2,), dense([[0.5, -0.25], [0.1, 0.2]]), node, READ, neurons(2))).layers[0]
    assert layer.weight.tolist() == [[254, -128], [12, 26]]
    assert layer.neuron.threshold == 508


def test_zero_biases_of_the_neurons():
    """q = 508: 0.3 -> 152.4, -0.1 -> -50.8, rounded to whole numbers."""
    graph = chain((2,), dense([[0.5, 0.0], [0.0, 0.2]], [0.3, -0.1]), neurons(2), READ, neurons(2))
    layer = lower(graph, LoweringOptions(bias="neuron")).layers[0]
    assert layer.bias.tolist() == [152, -51]


def test_zero_biases_bound_the_scale():
    """The chip's bias mantissa ends at 4095: q = floor(4095 / 20) = 204."""
    graph = chain((2,), dense([[0.5, 0.0], [0.0, 0.2]], [20.0, -0.1]), neurons(2), READ, neurons(2))
    layer = lower(graph, LoweringOptions(bias="neuron")).layers[0]
    assert layer.neuron.threshold == 204
    assert layer.bias.tolist() == [4080, -20]
    assert layer.weight.tolist() == [[102, 0], [0, 40]]


def test_always_on_biases_are_spread_over_columns():
    """Biases of 3 and 2.4 times the largest weight need 3 always-on channels: 762 = 3 x 254, 609.6 -> 2 x 254 + 102."""
    second = dense([[0.5, 0.0], [0.0, 0.5]], [1.5, -1.2])
    graph = chain((2,), READ, neurons(2), second, neurons(2))
    first, layer = lower(graph, LoweringOptions(bias="always-on")).layers
    # Layer one makes the channels: no weights, a bias just above the threshold 254 = 254 / 1.
    assert [(s.kind, s.start, s.stop) for s in first.segments] == [("population", 0, 2), ("always-on", 2, 5)]
    assert first.neuron.threshold == 254
    assert first.bias.tolist() == [0, 0, 255, 255, 255]
    assert not first.weight[2:].any()
    assert layer.neuron.threshold == 508
    assert layer.weight.tolist() == [[254, 0, 254, 254, 254], [0, 254, -254, -254, -102]]
    assert layer.bias is None


def test_input_biases_are_planes_of_the_input():
    graph = chain((2,), dense([[0.5, 0.0], [0.0, 0.5]], [0.25, -0.5]), neurons(2))
    network = lower(graph, LoweringOptions(bias="input"))
    assert (network.input_shape, network.constant_channels) == ((3,), 1)
    assert network.layers[0].weight.tolist() == [[254, 0, 128], [0, 254, -254]]  # 127 -> 128, halves to even


def test_zero_relays_bound_the_threshold():
    """A relay of weight 254 must exceed the shared threshold: 252 at most, although the weights would allow 508."""
    first = conv(np.full((1, 1, 1, 1), 0.5), 2)
    inner = conv(np.full((1, 1, 1, 1), 0.5), 2)
    last = conv(np.full((1, 1, 1, 1), 0.25), 2)
    shape = (1, 2, 2)
    graph = chain(shape, first, neurons(shape), inner, neurons(shape), last, neurons(shape), skips=[("n1", "n5")])
    layers = lower(graph).layers
    assert layers[0].neuron.threshold == 508
    assert layers[1].neuron.threshold == 252
    assert layers[1].weight.ravel().tolist() == [126, 254]
    assert [s.kind for s in layers[1].segments] == ["population", "relay"]
    # The identity weighs one threshold: q = 254, and 0.25 q = 63.5 -> 64.
    assert layers[2].neuron.threshold == 254
    assert layers[2].weight.ravel().tolist() == [64, 254]


def test_simulator_grade_gives_each_channel_its_threshold():
    """Convolutions up to 2^15: q = 32768 / 0.5 and 131071 (17 bits; 32768 / 0.2 is more); relays of weight 2 over 1."""
    first = conv([[[[0.5]]], [[[0.2]]]], 2)
    inner = conv(np.full((2, 2, 1, 1), 0.5), 2)
    last = conv(np.full((2, 2, 1, 1), 0.5), 2)
    a, b = (1, 2, 2), (2, 2, 2)
    graph = chain(a, first, neurons(b), inner, neurons(b), last, neurons(b), skips=[("n1", "n5")])
    layers = lower(graph, LoweringOptions(grade="simulator")).layers
    assert layers[0].neuron.threshold.tolist() == [65536, 131071]
    assert layers[0].weight.ravel().tolist() == [32768, 26214]
    assert layers[1].neuron.threshold.tolist() == [65536, 65536, 1, 1]
    assert layers[1].weight[2:].reshape(2, 2).tolist() == [[2, 0], [0, 2]]


def test_simulator_grade_makes_always_on_channels():
    """Their bias exceeds their own threshold of 1, not the layer's largest, which int16 could not hold."""
    first, last = conv([[[[0.5]]], [[[0.1]]]], 2), conv(np.full((1, 2, 1, 1), 0.5), 2, [0.5])
    graph = chain((1, 2, 2), first, neurons((2, 2, 2)), last, neurons((1, 2, 2)))
    network = lower(graph, LoweringOptions(grade="simulator", bias="always-on"))
    assert network.layers[0].neuron.threshold.tolist() == [65536, 131071, 1]
    assert network.layers[0].bias.tolist() == [0, 0, 2]
    result = simulate(network, np.zeros((1, 4, 1, 2, 2), np.uint8), record="spikes")
    assert result.spikes[0][:, :, 2].all()
    assert not result.spikes[0][:, :, :2].any()


# --- reset by subtraction --------------------------------------------------------------------------------------------


def test_subtract_self_weights_are_mantissas_of_one_exponent():
    """Bounds 508 and 1270. Exponent 4: 31 and 79, together 19.26 bits, more than 3 (63, 127) or 5 (15, 39).

    Thresholds 496 and 1264 are shifted from their middle, 880, by biases of +384 and -384.
    """
    first = dense([[0.5, -0.25], [0.1, 0.2]])
    layer = lower(chain((2,), first, neurons(2), READ, neurons(2), reset="subtract")).layers[0]
    assert layer.self_weight.tolist() == [496, 1264]
    assert layer.weight.tolist() == [[248, -124], [126, 252]]  # 126.4 -> 126, 252.8 -> 252
    assert layer.neuron.threshold == 880
    assert layer.bias.tolist() == [384, -384]
    assert (layer.neuron.current_decay, layer.neuron.voltage_decay) == (0, 4096)


def test_subtract_starts_are_lowered_thresholds():
    """From half a threshold, 496 is reached at 248 and 1264 at 632: middle 440, shifts +192 and -192."""
    first = dense([[0.5, -0.25], [0.1, 0.2]])
    graph = chain((2,), first, neurons(2, start=0.5), READ, neurons(2), reset="subtract")
    layer = lower(graph).layers[0]
    assert layer.self_weight.tolist() == [496, 1264]
    assert layer.neuron.threshold == 440
    assert layer.bias.tolist() == [192, -192]


def test_subtract_relays_weigh_what_they_subtract():
    """Bounds 254 / 0.5 = 508 at exponent 2: 127 x 4; the relay's weight is the least even multiple of 4."""
    shape = (1, 2, 2)
    one = conv(np.full((1, 1, 1, 1), 0.5), 2)
    graph = chain(
        shape, one, neurons(shape), one, neurons(shape), one, neurons(shape), skips=[("n1", "n5")], reset="subtract"
    )
    layer = lower(graph).layers[1]
    assert layer.self_weight.tolist() == [508, 4]
    assert layer.weight.ravel().tolist() == [254, 4]
    assert layer.neuron.threshold == 255  # between 508 and 2, where a relay of weight 4 fires
    assert layer.bias.tolist() == [255 - 508, 255 - 2]


def test_subtract_thresholds_stay_within_the_bias_range_of_each_other():
    """Channels of very different weights: 0.001 alone could have theta 127 x 128 = 16256, too far from 254's."""
    first = dense([[1.0, 0.0], [0.0, 0.001]])
    layer = lower(chain((2,), first, neurons(2), READ, neurons(2), reset="subtract")).layers[0]
    assert layer.self_weight[1] <= 8190
    assert np.abs(layer.bias).max() <= 4095
    fires_at = layer.neuron.threshold - layer.bias
    assert fires_at.tolist() == layer.self_weight.tolist()


def test_read_out_has_one_scale():
    graph = chain((2,), dense([[0.5, -0.25], [0.1, 0.2]]), neurons(2), reset="subtract")
    layer = lower(graph).layers[0]
    assert layer.self_weight.tolist() == [508, 508]
    assert layer.weight.tolist() == [[254, -128], [50, 102]]


def test_subtract_with_a_leak():
    """tau 2, dt 1: half is kept. Bounds 508 give self-weights of at most 254 = 0.5 x 508, at exponent 1: 127 x 2."""
    ones = np.ones(2)
    leaky = nir.LIF(tau=2 * ones, r=2 * ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones)
    graph = chain((2,), dense([[0.5, 0.0], [0.0, 0.5]]), leaky, READ, neurons(2), reset="subtract", dt=1.0)
    layer = lower(graph).layers[0]
    assert layer.neuron.current_decay == 2048
    assert layer.self_weight.tolist() == [254, 254]
    assert layer.weight.tolist() == [[254, 0], [0, 254]]
    assert (layer.neuron.threshold - layer.bias).tolist() == [508, 508]


# --- what a membrane may reach ---------------------------------------------------------------------------------------


def drifting(steps, peak):
    """One neuron that loses a whole threshold at every step, beside one that fires."""
    weights = dense([[-1.0], [0.6]])
    return chain((1,), weights, neurons(2, peak=peak), READ, neurons(2, peak=20.0), reset="subtract", steps=steps)


def longest(network, steps):
    return simulate(network, np.ones((1, steps, 1), np.uint8)).wraps


def test_membranes_seen_in_calibration_stay_within_half_the_state():
    """64 steps of -1 threshold: theta is at most 65535 / 64 = 1023."""
    lowered = lower_with_report(drifting(64, 64.0))
    assert lowered.network.layers[0].self_weight.max() <= 1023
    assert lowered.layers[0].state_used <= 0.5
    assert longest(lowered.network, 64) == [0, 0]


def test_more_steps_than_calibrated_scale_the_layer_down():
    unscaled = lower(drifting(64, 64.0))
    assert longest(unscaled, 2000)[0] > 0  # what must not happen
    lowered = lower_with_report(drifting(64, 64.0), LoweringOptions(steps=2000))
    assert lowered.network.deployment.steps == 2000
    assert lowered.network.layers[0].self_weight.max() <= 65535 / 2000
    assert longest(lowered.network, 2000) == [0, 0]


def test_far_too_many_steps_are_refused():
    with pytest.raises(LimitError, match=r"layer_00 \(n1\): neuron channel 0 .* convert with fewer steps"):
        lower(drifting(64, 64.0), steps=10**6)


def test_currents_beyond_the_state_scale_reset_to_zero_down():
    """600 inputs of 0.5 thresholds at once: 600 x 254 would wrap at 131071; half of that leaves theta 65535 / 300."""
    graph = chain((600,), dense([[0.5] * 600]), neurons(1, peak=300.0))
    network = lower(graph)
    assert network.layers[0].neuron.threshold == 218
    result = simulate(network, np.ones((1, 5, 600), np.uint8))
    assert result.wraps == [0]
    assert result.output_counts.item() == 5
    unmeasured = lower_with_report(chain((600,), dense([[0.5] * 600]), neurons(1)))
    assert unmeasured.wrap_unproven()
    assert simulate(unmeasured.network, np.ones((1, 5, 600), np.uint8)).wraps[0] > 0


def test_what_proves_that_nothing_wraps():
    def unproven(inputs, *, peak=None, **notes):
        return lower_with_report(
            chain((inputs,), dense([[0.5] * inputs]), neurons(1, peak=peak), **notes)
        ).wrap_unproven()

    assert not unproven(600, peak=300.0)
    assert not unproven(500)  # 500 x 254 = 127000 fits
    assert unproven(5, reset="subtract")
    assert unproven(3, coding="constant")  # 3 x 254 x 255 = 194310
    # A current with a memory piles up: 300 x 254 at each step, half of it kept, is twice that.
    ones = np.ones(1)
    for inputs, unproven in ((250, False), (300, True)):
        cuba = nir.CubaLIF(
            tau_syn=2 * ones, tau_mem=2 * ones, r=ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones
        )
        graph = nir.NIRGraph(
            {"in": nir.Input({"input": np.array([inputs])}), "w": dense([[0.5] * inputs]), "c": cuba,
             "out": nir.Output({"output": np.array([1])})},
            [("in", "w"), ("w", "c"), ("c", "out")], type_check=False,
        )  # fmt: skip
        set_graph_notes(graph, GraphNotes(reset="zero", dt=1.0))
        assert lower_with_report(graph).wrap_unproven() == unproven


def test_peaks_of_the_other_reset_prove_nothing():
    graph = drifting(64, 1.0)
    set_graph_notes(graph, GraphNotes(reset="zero"))
    assert lower_with_report(graph, LoweringOptions(reset="subtract")).wrap_unproven()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_weights_far_above_the_threshold_are_refused():
    graph = chain((1,), dense([[200.0], [1.0]]), neurons(2), READ, neurons(2))
    with pytest.raises(LimitError, match=r"layer_00 \(n1\): neuron channel 0 has weights up to 200"):
        lower(graph)


def test_biases_far_above_the_threshold_are_refused():
    graph = chain((1,), dense([[1.0], [1.0]], [0.0, 5000.0]), neurons(2), READ, neurons(2))
    with pytest.raises(LimitError, match="neuron channel 1 has weights up to 1 and a bias of 5e"):
        lower(graph, LoweringOptions(bias="neuron"))


def test_a_start_that_reset_to_zero_cannot_hold_is_refused():
    graph = chain((2,), READ, neurons(2, start=0.5), reset="subtract")
    assert lower(graph).reset == "subtract"
    with pytest.raises(ConversionError, match=r"start at 0.5 thresholds, but with reset to zero Lava's start at 0"):
        lower(graph, LoweringOptions(reset="zero"))


def leaky(size, tau, start=0.0):
    ones = np.ones(size)
    node = nir.LIF(tau=tau * ones, r=tau * ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones)
    set_neuron_notes(node, NeuronNotes(start))
    return node


def test_a_start_that_would_decay_is_refused():
    with pytest.raises(ConversionError, match="a shifted threshold would not decay"):
        lower(chain((2,), READ, leaky(2, 4.0, 0.5), reset="subtract", dt=1.0))


def test_neurons_without_memory_have_nothing_to_subtract_from():
    assert lower(chain((2,), READ, leaky(2, 1.0), dt=1.0)).layers[0].neuron.voltage_decay == 4096
    with pytest.raises(ConversionError, match="forget everything in one step"):
        lower(chain((2,), READ, leaky(2, 1.0), reset="subtract", dt=1.0))


def test_a_leak_beyond_what_self_weights_can_follow_is_refused():
    """keep = 1 / 4096: theta 508 would need a self-weight of 0.12."""
    with pytest.raises(LimitError, match="no self-weight"):
        lower(chain((2,), dense([[0.5, 0], [0, 0.5]]), leaky(2, 1.0002), reset="subtract", dt=1.0))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reset": "soft"}, "reset is 'soft'; it must be one of zero, subtract"),
        ({"grade": "loihi"}, "grade is 'loihi'; it must be one of hardware, simulator"),
        ({"grade": None}, "grade is None"),
        ({"bias": "none"}, "bias is 'none'; it must be one of neuron, always-on, input"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"dt": 0.0}, "dt is 0.0; it must be positive"),
        ({"reset": "subtract", "bias": "neuron"}, "the chip's own bias shifts the threshold; use bias input"),
        ({"reset": "subtract", "bias": "always-on"}, "use bias input"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(UsageError, match=match):
        lower(chain((2,), READ, neurons(2)), LoweringOptions(**options))


def test_the_reset_must_be_known():
    graph = chain((2,), READ, neurons(2), reset=None)
    with pytest.raises(ConversionError, match="give --reset zero or --reset subtract"):
        lower(graph)
    assert lower(graph, LoweringOptions(reset="subtract")).reset == "subtract"


def test_classes_must_fit_the_outputs():
    with pytest.raises(ConversionError, match="the graph has 2 outputs but names 3 classes"):
        lower(chain((2,), READ, neurons(2), classes=("a", "b", "c")))


def test_reports_say_what_was_made():
    second = dense([[0.5, 0.0], [0.0, 0.5]], [1.5, -1.2])
    lowered = lower_with_report(chain((2,), READ, neurons(2), second, neurons(2)))
    report = lowered.layers[0]
    assert (report.name, report.shape, report.populations) == ("layer_00", (5,), ("n1",))
    assert (report.relay_channels, report.always_on_channels) == (0, 3)
    assert (report.scale_min, report.scale_max, report.state_used) == (252.0, 252.0, None)  # below a relay's weight
    assert lowered.to_dict()["layers"][1]["weight_bits"] == round(np.log2(254), 2)


def test_products_of_a_step_by_hand():
    """A 3x3 convolution of 1 to 2 channels on 4x4 without padding gives 2x2: 72 products; then 8 to 2: 16."""
    shape, flat = (2, 2, 2), nir.Flatten({"input": np.array((2, 2, 2))}, 0, -1)
    stem, image = conv(np.full((2, 1, 3, 3), 0.1), 4), neurons(shape)
    network = lower(chain((1, 4, 4), stem, image, flat, dense(np.full((2, 8), 0.1)), neurons(2)))
    assert network.multiply_accumulates == 2 * 9 * 4 + 2 * 8
