"""What a network takes of a chip, against numbers made by hand."""

import dataclasses

import numpy as np
import pytest

from gascnn.benchmarks.resources import resources
from gascnn.toolkit.lowering.chips import CHIPS, Chip
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

NEURON = CubaNeuron(threshold=np.array(9))
SMALL = Chip("Small", cores=4, neurons_per_core=10, synapse_bits_per_core=640, synapses=None, source="made up")


def network(**changes):
    kernel = np.full((2, 1, 3, 3), 4)
    kernel[0, 0, 0, 0] = 0
    conv = ConvLayer((2, 3, 3), kernel, (1, 1), (1, 1), (1, 1), 1, NEURON, self_weight=np.array([8, 0]))
    dense = DenseLayer((3,), np.ones((3, 18), dtype=int) * 2, NEURON, flatten=True)
    return NetxNetwork(InputLayer((1, 3, 3)), (dataclasses.replace(conv, **changes), dense))


def test_counts_made_by_hand():
    found = resources(network(), SMALL).to_dict()
    conv, dense = found["layers"]
    # A 3x3 kernel at padding 1 has 49 of its 81 taps inside 3x3; the corner that is zero would have 4 of them (2x2).
    # The first channel's nine neurons also have a synapse to themselves each.
    assert conv["synapses"] == (49 - 4) + 49 + 9
    assert conv["shared_weights"] == 8 + 9 + 1
    assert (conv["neurons"], dense["neurons"]) == (18, 3)
    assert (dense["synapses"], dense["shared_weights"]) == (54, 54)
    assert conv["synapse_bits"] == 8 * conv["synapses"]
    # Two cores for 18 neurons of 10; 103 synapses of 80 a core, of which kernels shared need one core.
    assert conv["cores"] == [2, 2]
    assert conv["cores_for_synapses"] == [1, 2]
    assert dense["cores"] == [1, 1]
    assert found["cores"] == {"used": [3, 3], "limit": 4}
    assert found["neurons"] == {"used": 21, "limit": 40}
    assert found["synapse_bits"] == {"used": 8 * (103 + 54), "limit": 2560}
    assert found["fits"] == "It should fit one Small: 3 of 4 cores."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cores": 2}, "does not fit one Small: at least 3 of 2 cores"),
        (
            {"synapse_bits_per_core": 160, "cores": 6},
            "only if the compiler shares kernels: 5 cores with, 9 of 6 without",
        ),
        ({"synapses": 100}, "its 157 synapses exceed the 100 of one Small"),
    ],
)
def test_what_does_not_fit(changes, said):
    assert said in resources(network(), dataclasses.replace(SMALL, **changes)).fits()


def test_the_chips_numbers_have_sources():
    names = {chip.name: chip for chip in CHIPS}
    assert names["Loihi 2"].neurons == 2**20
    assert names["Loihi 1"].neurons == 128 * 1024
    assert all(chip.source and chip.cores == 128 for chip in CHIPS)


def test_memory_that_is_not_published_is_not_made_up():
    chip = dataclasses.replace(SMALL, synapse_bits_per_core=None)
    found = resources(network(), chip).to_dict()
    assert found["synapse_bits"]["limit"] is None
    assert [layer["cores_for_synapses"] for layer in found["layers"]] == [None, None]
