"""Memory traffic by hand, after Lemaire et al. 2022."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.benchmarks.counts import count_operations
from gascnn.benchmarks.energy import (
    TABLES,
    AnnLayer,
    AnnWork,
    SramCosts,
    ann_memory,
    bill,
    snn_memory,
)
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

KIB = 1024
SRAM = SramCosts()


@pytest.mark.parametrize(
    ("size_bytes", "pj"),
    [
        (0, 10), (8 * KIB, 10), (20 * KIB, 15), (32 * KIB, 20), (528 * KIB, 60), (1024 * KIB, 100), (64 << 20, 100),
    ],
)  # fmt: skip
def test_an_access_is_linear_between_8_kib_32_kib_and_1_mib(size_bytes, pj):
    assert SRAM.access_pj(size_bytes) == pytest.approx(pj)


def test_the_anns_traffic():
    """A conv of 1000 products, 200 inputs of 4 bytes, 8 KiB + 12 KiB of weights; a dense layer of 50 inputs."""
    conv = AnnLayer("conv", 1000, 200, 100, 5 * KIB, 4)
    dense = AnnLayer("dense", 500, 50, 10, 500, 0)
    found = ann_memory(AnnWork(1500, None, (conv, dense)), SRAM, 4)
    assert found.inputs == pytest.approx((1000 + 50) * 10)  # equations 3 and 4
    assert found.weights == pytest.approx(1000 * 15 + 100 * 10 + 500 * 10)  # 6.1 with biases, 6.2 without
    assert found.outputs == pytest.approx((100 + 10) * 10)  # 11, 12
    assert found.potentials == 0
    assert found.fixed == pytest.approx(found.total)


def conv_then_dense(bias=None, input_bits=0):
    """1x4x4 through two 3x3 kernels without padding to 2x2x2, then 3 neurons."""
    weight = np.full((2, 1, 3, 3), 2)
    conv = ConvLayer((2, 2, 2), weight, (1, 1), (0, 0), (1, 1), 1, CubaNeuron(np.array(50)), bias=bias)
    last = DenseLayer((3,), np.full((3, 8), 2), CubaNeuron(np.array(50)), flatten=True)
    return NetxNetwork(InputLayer((1, 4, 4)), (conv, last), input_bits)


def run_of(network, images=1, steps=5):
    """A corner and a middle pixel spike once an image (fan-out 2 and 8), one hidden neuron twice (3 each)."""
    sent = np.zeros((1, 4, 4), dtype=int)
    sent[0, 0, 0] = sent[0, 1, 1] = images
    hidden = np.zeros((2, 2, 2), dtype=int)
    hidden[1, 0, 1] = 2 * images
    return count_operations(network, sent, [hidden, np.zeros(3)], images=images, steps=steps)


@pytest.mark.parametrize("images", [1, 3])
def test_the_spiking_networks_traffic(images):
    network = conv_then_dense()
    found = snn_memory(network, run_of(network, images), SRAM, 1)
    operations = (2 + 8) + 2 * 3
    assert found.inputs == pytest.approx((2 + 2) * 10)  # equation 5
    assert found.weights == pytest.approx(operations * 10)  # 7 and 8, with real fan-out
    assert found.potentials == pytest.approx((2 * operations + 8 + 3) * 10)  # 14 and 15, and as many reads
    assert found.outputs == pytest.approx(2 * 10)  # 13
    assert found.fixed == pytest.approx((8 + 3) * 10)


def test_biases_are_read_at_every_step():
    bare, biased = conv_then_dense(), conv_then_dense(bias=np.array([1, 0]))
    without, found = (snn_memory(network, run_of(network), SRAM, 1) for network in (bare, biased))
    assert found.weights - without.weights == pytest.approx(8 * (5 + 2) * 10)
    assert found.fixed - without.fixed == pytest.approx(8 * (5 + 2) * 10)


def test_graded_input_reads_inputs_and_weights_for_every_product():
    """72 products at each of 5 steps; each of 8 potentials read and written once a step."""
    network = conv_then_dense(input_bits=8)
    found = snn_memory(network, run_of(network), SRAM, 1)
    assert found.inputs == pytest.approx((72 * 5 + 2) * 10)
    assert found.weights == pytest.approx((72 * 5 + 6) * 10)
    assert found.potentials == pytest.approx((2 * 8 * 5 + 2 * 6 + 8 + 3) * 10)
    assert found.fixed == pytest.approx((72 * 5 * 2 + 2 * 8 * 5 + 8 + 3) * 10)


def test_potentials_have_32_bits_whatever_the_weights_have():
    """5000 neurons take 20000 bytes: 14.9 pJ an access, with weights of 8 bits too."""
    layer = DenseLayer((5000,), np.full((5000, 1), 2), CubaNeuron(np.array(50)))
    network = NetxNetwork(InputLayer((1,)), (layer,))
    counts = count_operations(network, np.array([1]), [np.zeros(5000)], images=1, steps=1)
    access = 10 + 10 * (20000 - 8 * KIB) / (24 * KIB)
    found = snn_memory(network, counts, SRAM, 1)
    assert found.potentials == pytest.approx((2 * 5000 + 5000) * access)
    assert found.weights == pytest.approx(5000 * 10)


def test_both_bills_with_memory_by_hand():
    network = conv_then_dense()
    work = AnnWork(96, None, (AnnLayer("conv", 72, 16, 8, 18, 2), AnnLayer("dense", 24, 8, 3, 24, 3)))
    (one,) = bill(network, run_of(network), work, [TABLES["45nm-int32-memory"]])
    memory = ((72 + 8) + (72 + 8 + 24 + 3) + (8 + 3)) * 10
    assert one.ann_memory_pj == pytest.approx(memory)
    assert one.ann_pj == pytest.approx(96 * 3.2 + (8 + 3) * 0.1 + memory)
    updates = (8 + 3) * (5 + 2)
    assert one.snn_pj == pytest.approx(16 * 0.1 + updates * 0.1 + (4 + 16 + 32 + 11 + 2) * 10)
    driven = 16 * 0.1 + (4 + 16 + 32 + 2) * 10
    fixed = updates * 0.1 + 110
    assert one.break_even == pytest.approx(one.spikes_per_source * (one.ann_pj - fixed) / driven)
    assert one.int8_ann_table == "45nm-int8-memory"
    assert one.int8_ann_pj == pytest.approx(96 * 0.23 + 11 * 0.03 + memory)
