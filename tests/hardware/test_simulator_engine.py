"""How the fast simulator is put together: methods, proofs of its narrow sums, windows, memory, threads, cached code."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from gascnn.hardware.simulator import Simulator, engine, layers, memory, simulate
from gascnn.hardware.simulator.events import events_of
from gascnn.hardware.simulator.layout import LayerLayout, partial_sum_groups
from gascnn.toolkit.errors import LimitError, UsageError
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

RNG_SEED = 11


def conv(weight, size, threshold=100, padding=(1, 1), **more):
    neuron = more.pop("neuron", CubaNeuron(np.array(threshold)))
    return ConvLayer((len(weight), *size), np.asarray(weight), (1, 1), padding, (1, 1), 1, neuron, **more)


def small_network(threshold=60):
    rng = np.random.default_rng(RNG_SEED)
    first = conv(rng.integers(-40, 60, (40, 3, 3, 3)), (6, 6), threshold)
    last = DenseLayer((7,), rng.integers(-100, 100, (7, 40 * 36)), CubaNeuron(np.array(200)), flatten=True)
    return NetxNetwork(InputLayer((3, 6, 6)), (first, last))


def random_spikes(shape, rate=0.3, seed=RNG_SEED):
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.uint8)


def assert_equal_to_plain(network, spikes, **way):
    plain = simulate(network, spikes, record="spikes", method="plain")
    found = simulate(network, spikes, record="spikes", **way)
    for left, right in zip(found.spikes, plain.spikes, strict=True):
        assert right.any()
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(found.output_membrane, plain.output_membrane)


@pytest.fixture(autouse=True)
def _no_work_is_too_small(monkeypatch):
    monkeypatch.setattr(engine, "_STEPS_A_LAYER", 0.01)


@pytest.fixture
def methods_used(monkeypatch):
    """Names of the kernels that ran."""
    used = []
    for name in ("run_events", "run_sums"):
        kernel = getattr(layers, name)

        def spy(*arguments, name=name, kernel=kernel):
            used.append(name)
            return kernel(*arguments)

        monkeypatch.setattr(layers, name, spy)
    return used


@pytest.mark.parametrize(("rate", "kernel"), [(0.05, "run_events"), (1.0, "run_sums")])
def test_auto_goes_by_the_measured_firing(rate, kernel, methods_used):
    rng = np.random.default_rng(RNG_SEED)
    network = NetxNetwork(InputLayer((256, 8, 8)), (conv(rng.integers(-9, 10, (256, 256, 3, 3)), (8, 8), 500),))
    simulate(network, random_spikes((1, 3, 256, 8, 8), rate), threads=1)
    assert set(methods_used) == {kernel}


def test_methods_use_their_kernels(methods_used):
    network, spikes = small_network(), random_spikes((1, 4, 3, 6, 6))
    simulate(network, spikes, method="events", threads=1)
    assert set(methods_used) == {"run_events"}
    methods_used.clear()
    simulate(network, spikes, method="dense", threads=1)
    assert set(methods_used) == {"run_sums"}
    methods_used.clear()
    simulate(network, spikes, method="plain", threads=1)
    assert methods_used == []


@pytest.mark.parametrize(
    ("images", "steps", "kernels"), [(1, 4, False), (1, 40, True), (60, 4, True)], ids=["little", "long", "many"]
)
def test_a_few_steps_of_small_layers_go_the_plain_way(images, steps, kernels, methods_used, monkeypatch):
    monkeypatch.setattr(engine, "_STEPS_A_LAYER", 16)
    simulate(small_network(), random_spikes((images, steps, 3, 6, 6)))
    assert bool(methods_used) == kernels


def test_a_network_of_delayed_layers_goes_the_plain_way(monkeypatch):
    delayed = DenseLayer((5,), np.full((5, 4), 60), CubaNeuron(np.array(30)), delay=np.ones((5, 4), dtype=int))
    network, spikes = NetxNetwork(InputLayer((4,)), (delayed,)), random_spikes((200, 90, 4))
    monkeypatch.setattr(Simulator, "_fast", lambda *_: pytest.fail("laid out for kernels that nothing runs"))
    assert simulate(network, spikes).counts[0].any()


def test_frames_that_stay_the_same_are_summed_once(monkeypatch):
    rng = np.random.default_rng(RNG_SEED)
    network = NetxNetwork(
        InputLayer((2, 5, 5)), (conv(rng.integers(-9, 20, (4, 2, 3, 3)), (5, 5), 9000),), input_bits=8
    )
    frames = []
    plain = layers.LayerLayout.frame_synapse.func

    def counted(layout):
        synapse = plain(layout)
        return lambda part: frames.append(len(part)) or synapse(part)

    monkeypatch.setattr(layers.LayerLayout, "frame_synapse", property(counted))
    images = rng.integers(0, 256, (2, 1, 2, 5, 5)).astype(np.uint8)
    assert_equal_to_plain(network, np.repeat(images, 9, axis=1))
    assert frames == [2]
    moving = rng.integers(0, 256, (1, 9, 2, 5, 5)).astype(np.uint8)
    assert_equal_to_plain(network, moving)
    assert frames == [2, 9]


def test_groups_of_partial_sums_by_hand():
    # 64 inputs of 250 rise to 16000 a unit; two of them stay below 32767, a third does not.
    assert partial_sum_groups(np.full((1, 64, 5), 250)).tolist() == [0, 0, 1, 1, 2]
    # The negative side counts by itself, and so does each output.
    mixed = np.concatenate([np.full((1, 64, 3), 250), np.full((1, 64, 3), -400)])
    assert partial_sum_groups(mixed).tolist() == [0, 1, 2]
    # One unit beyond int16 has no proof; channels make units of 64: 8128, 16256, 16510, 24638, 32766 and then 33020.
    assert partial_sum_groups(np.full((1, 64, 1), 512)) is None
    assert partial_sum_groups(np.full((1, 130, 2), 127)).tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("value", [127, 254, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_beyond_16_bits_are_exact(value, sign):
    """All inputs fire all the time, borders included, where whole taps (and moves of partial sums) are left out."""
    rng = np.random.default_rng(RNG_SEED)
    weight = np.full((3, 200, 5, 5), sign * value)
    weight[2] = rng.integers(-value, value, weight.shape[1:])
    network = NetxNetwork(InputLayer((200, 4, 4)), (conv(weight, (4, 4), 90, (2, 2), bias=np.array([5, 9000, 0])),))
    layout = LayerLayout(network.layers[0], (200, 4, 4), 1, "layer")
    assert layout.synapses.split == (value < 512)
    assert layout.synapses.weights.dtype == (np.int16 if value < 512 else np.int32)
    spikes = np.ones((1, 5, 200, 4, 4), dtype=np.uint8)
    plain = simulate(network, spikes, record="spikes", method="plain")
    found = simulate(network, spikes, record="spikes", method="events")
    np.testing.assert_array_equal(found.spikes[0], plain.spikes[0])
    np.testing.assert_array_equal(found.output_membrane, plain.output_membrane)
    assert plain.spikes[0].any()
    assert value == 1000 or found.output_membrane.any()


def test_room_for_events_grows():
    weight = np.full((40, 1, 1, 1), 50)
    network = NetxNetwork(InputLayer((1, 16, 16)), (conv(weight, (16, 16), 10, (0, 0)),))
    spikes = np.ones((3, 20, 1, 16, 16), dtype=np.uint8)
    found = simulate(network, spikes, method="events")
    assert found.counts[0].tolist() == np.full((3, 40, 16, 16), 20).tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 2, 7])
def test_threads_and_images_change_nothing(threads, images):
    assert_equal_to_plain(small_network(), random_spikes((images, 6, 3, 6, 6)), threads=threads)


def test_windows_follow_a_small_memory_limit(monkeypatch):
    network, spikes = small_network(), random_spikes((2, 200, 3, 6, 6))
    cuts = []
    plan = memory.plan

    def spy(*arguments):
        cuts.append(plan(*arguments))
        return cuts[-1]

    monkeypatch.setattr(memory, "plan", spy)
    monkeypatch.setattr(engine, "held_memory_bytes", lambda: 0)
    layouts = [LayerLayout(layer, network.input_of(k), 1, "") for k, layer in enumerate(network.layers)]
    results = 2 * (4 + 202) * (40 * 36 + 7) + 12 * 2 * 7
    room = memory.bytes_an_image(layouts, 16, 202)
    assert_equal_to_plain(network, spikes, threads=1, memory_bytes=results + room)
    assert cuts == [memory.Plan(images=1, window=16, threads=1, together=False)]


def test_arrays_stay_within_the_estimate():
    rng = np.random.default_rng(RNG_SEED)
    weight = rng.integers(-9, 30, (64, 4, 3, 3))
    network = NetxNetwork(
        InputLayer((4, 32, 32)), (conv(weight, (32, 32), 1), conv(rng.integers(-9, 30, (64, 64, 3, 3)), (32, 32), 1))
    )
    spikes = random_spikes((2, 30, 4, 32, 32), 0.9)
    simulator = Simulator(network, threads=1)
    simulator.run(spikes)
    layouts = [LayerLayout(layer, network.input_of(k), 1, "") for k, layer in enumerate(network.layers)]
    tracemalloc.start()
    result = simulator.run(spikes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = sum(c.nbytes for c in result.counts) + result.output_counts.nbytes + result.output_membrane.nbytes
    assert result.counts[1].mean() > 10
    # Input is checked by a copy.
    assert peak < 2 * spikes.nbytes + kept + memory.bytes_an_image(layouts, 32, 32)


def test_too_little_memory_is_said():
    with pytest.raises(LimitError, match=r"one image of this network needs \d+ MiB for 5 steps at once; 0 MiB"):
        simulate(small_network(), random_spikes((1, 3, 3, 6, 6)), memory_bytes=1000)


def test_a_missing_numba_means_the_plain_version(monkeypatch):
    network, spikes = small_network(), random_spikes((2, 4, 3, 6, 6))
    expected = simulate(network, spikes)
    monkeypatch.setattr(engine, "has_numba", lambda: False)
    np.testing.assert_array_equal(simulate(network, spikes).counts[1], expected.counts[1])
    with pytest.raises(UsageError, match=r"method events needs numba; install gascnn\[fast\], or use method plain"):
        simulate(network, spikes, method="events")


def test_wrong_settings_are_named():
    network, spikes = small_network(), random_spikes((1, 4, 3, 6, 6))
    with pytest.raises(UsageError, match="method is 'quick'; it must be one of auto, events, dense, plain"):
        simulate(network, spikes, method="quick")
    with pytest.raises(UsageError, match="threads is 0; it must be at least 1"):
        simulate(network, spikes, threads=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_counts_images(threads, monkeypatch):
    monkeypatch.setattr(memory, "_NEURON_STEPS", 1)
    told = []
    simulate(small_network(), random_spikes((5, 4, 3, 6, 6)), threads=threads, progress=told.append)
    assert told == [1, 2, 3, 4, 5]


def test_an_error_in_a_thread_comes_out(monkeypatch):
    def broken(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(layers, "run_events", broken)
    with pytest.raises(MemoryError, match="no room"):
        simulate(small_network(), random_spikes((4, 4, 3, 6, 6)), method="events", threads=2)


def test_events_of_spikes_by_hand():
    spikes = np.zeros((1, 3, 70, 2), dtype=np.uint8)
    spikes[0, 2, 5, 1] = spikes[0, 1, 69, 1] = spikes[0, 1, 5, 1] = 1
    found = events_of(spikes)
    assert found.count == 3
    places = [found.events[a:b].tolist() for a, b in zip(found.start, found.stop, strict=True)]
    assert places == [[], [], [5 << 16 | 1, 5 << 16 | 2], [69 << 16 | 1]]
    back = np.zeros((1, 4, 70, 2), dtype=bool)
    found.write(back, first=1)
    np.testing.assert_array_equal(back[:, 1:], spikes.astype(bool))
    counts = np.zeros((1, 70, 2), dtype=np.int32)
    found.add_counts(counts)
    found.add_counts(counts, 2)
    assert counts.sum() == 4
    assert (counts[0, 5, 1], counts[0, 69, 1]) == (3, 1)


@pytest.mark.slow
def test_compiled_kernels_are_kept_and_events_need_no_torch(tmp_path):
    code = """
import sys
import numpy as np
from gascnn.hardware.simulator import kernels, simulate
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, InputLayer, NetxNetwork
layer = ConvLayer((2, 3, 3), np.ones((2, 1, 1, 1), int), (1, 1), (0, 0), (1, 1), 1, CubaNeuron(np.array(2)))
network = NetxNetwork(InputLayer((1, 3, 3)), (layer,))
counts = simulate(network, np.ones((1, 7, 1, 3, 3), np.uint8), method='events').counts[0]
stats = kernels.run_events.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), counts.max(), "torch" in sys.modules)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for expected in ("0 1 2 False", "1 0 2 False"):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
