"""The last layer's membrane potentials at every step, which the simulator tells at the end only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator.neuron import Population
from gascnn.hardware.simulator.plain import final_membrane, run_input_neurons
from gascnn.hardware.simulator.synapse import ConvSynapse, DenseSynapse, dense_synapses, recurrent_synapse
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.network import ConvLayer, NetxNetwork, SigmaDeltaNeuron, SynapticLayer, layer_label

Spikes = npt.NDArray[np.generic]
Int64 = npt.NDArray[np.int64]


def potentials(network: NetxNetwork, inputs: npt.NDArray[np.uint8], result: RunResult) -> Int64:
    """What :attr:`RunResult.output_membrane` would be of runs that stop after 1, 2, ... T input steps.

    The last layer is run once more, by the simulator's plain parts, on the recorded spikes of the layer before it.

    Args:
        network: what ran.
        inputs: (image, T, ...) checked input.
        result: of that run, with every spike, or message of sigma-delta neurons.

    Returns:
        (image, T, N): the potential after steps K, K + 1, ... K + T - 1.

    Raises:
        UsageError: a sigma-delta network whose last layer is no read-out, for it does not tell its sums.
    """
    steps, depth, layer = result.steps, network.depth, network.layers[-1]
    if isinstance(layer.neuron, SigmaDeltaNeuron):
        if not layer.neuron.read_out or result.messages is None:
            raise UsageError(
                "this sigma-delta network ends without a read-out (sigma_output), so its sums at each step are not "
                "known; export it with 'gascnn export --neuron sdnn'"
            )
        # A read-out sends its sum at every step.
        sums = result.messages[-1][:, depth : depth + steps]
        return sums.reshape(len(sums), steps, -1).astype(np.int64)
    return _run_again(network, _before_the_last(network, inputs, result), steps)


def _before_the_last(network: NetxNetwork, inputs: npt.NDArray[np.uint8], result: RunResult) -> Spikes:
    """(image, T + K, ...) what comes into the last layer."""
    if network.depth > 1:
        assert result.spikes is not None
        return result.spikes[-2]
    padded = np.zeros((len(inputs), result.steps + network.depth, *network.input_shape), dtype=inputs.dtype)
    padded[:, : result.steps] = inputs
    if network.input.neuron is not None:
        return run_input_neurons(network, padded)
    return padded if network.input_bits else padded != 0


def _run_again(network: NetxNetwork, source: Spikes, steps: int) -> Int64:
    layer, images, depth = network.layers[-1], len(source), network.depth
    largest = 2**network.input_bits - 1 if depth == 1 and network.input_bits and network.input.neuron is None else 1
    synapses, recurrent = _synapses(layer, largest, layer_label(network, depth - 1))
    inhibition = None
    if layer.self_weight is not None:
        inhibition = layer.self_weight.astype(np.int32).reshape(-1, *(1,) * (len(layer.shape) - 1))
    population = Population(layer.cuba, layer.shape, images, layer.bias)
    fired = np.zeros((images, *layer.shape), dtype=bool)
    result = np.empty((images, steps, int(np.prod(layer.shape))), dtype=np.int64)
    for t in range(depth + steps):
        sums = np.zeros((images, *layer.shape), dtype=np.int32)
        for delay, synapse in synapses.items():
            if t > delay:
                sums += synapse(source[:, t - 1 - delay]).reshape(sums.shape)
        if inhibition is not None:
            sums -= inhibition * fired
        if recurrent is not None:
            sums += recurrent(fired)
        fired = population.step(sums)
        if t >= depth:
            now = final_membrane(layer, network.reset, population, fired)
            result[:, t - depth] = now.reshape(images, -1)
    return result


def _synapses(
    layer: SynapticLayer, largest: int, label: str
) -> tuple[dict[int, ConvSynapse] | dict[int, DenseSynapse], DenseSynapse | None]:
    """Those from the layer before, by their delay, and those from itself."""
    if isinstance(layer, ConvLayer):
        return {0: ConvSynapse(layer, largest, label)}, None
    return dense_synapses(layer, largest, label), recurrent_synapse(layer, label)
