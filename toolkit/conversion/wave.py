"""A sigma-delta network's answer to a static image: one wave from the input to the read-out, in PyTorch.

From rest and with biases from the input, every neuron sends at most one message: what its activation is when the wave
reaches it. (Behind the wave nothing changes.) So the answer of T + K steps is one pass through the layers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gascnn.toolkit.lowering.limits import MESSAGE_UNIT, SIGMA_DELTA_SHIFT
from gascnn.toolkit.lowering.network import ConvLayer, NetxNetwork, SynapticLayer

_IMAGES_AT_ONCE = 32


class Wave:
    """The layers of a network that is fed with static images.

    Args:
        network: sigma-delta neurons, no biases of their own, a read-out at the end.
        dtype: float64 gives the simulator's numbers; float32 rounds where sums exceed 24 bits.

    Attributes:
        weights: of each layer; may be replaced by others, such as those before rounding.
    """

    def __init__(self, network: NetxNetwork, dtype: torch.dtype = torch.float32) -> None:
        self.network = network
        self._dtype = dtype
        self.weights = [torch.from_numpy(layer.weight).to(dtype) for layer in network.layers]
        self._fan_out = [self._fan(index) for index in range(network.depth)]

    @property
    def thresholds(self) -> list[int]:
        """Of the input and of every layer but the read-out, in activations."""
        neurons = [self.network.input.neuron, *(layer.neuron for layer in self.network.layers[:-1])]
        return [int(neuron.threshold) for neuron in neurons if neuron is not None]

    def input(self, images: Tensor) -> Tensor:
        """(image, C, H, W) pixels 0..255 as the states of the input neurons, always-on planes included."""
        planes = self.network.constant_channels
        shape = (len(images), *self.network.input_shape)
        states = torch.empty(shape, dtype=self._dtype)
        states[:, : shape[1] - planes] = images.reshape(len(images), -1, *shape[2:])
        states[:, shape[1] - planes :] = self.network.constant_level
        return states * (1 << SIGMA_DELTA_SHIFT)

    def messages(self, states: Tensor, threshold: int) -> Tensor:
        """What neurons send whose activation has this state: nothing below the threshold."""
        return torch.where(states >= threshold << SIGMA_DELTA_SHIFT, torch.floor(states / MESSAGE_UNIT), 0.0)

    def sums(self, index: int, messages: Tensor) -> Tensor:
        """What a layer's neurons receive, in 1/4096 activations; behind a ReLU it is their state."""
        layer, weight = self.network.layers[index], self.weights[index]
        return torch.cat([_sums(layer, weight, part) for part in messages.split(_IMAGES_AT_ONCE)])

    def operations(self, index: int, messages: Tensor) -> float:
        """Synaptic operations an image of these messages to a layer: each goes over every weight that is not 0."""
        return float(((messages != 0).to(torch.float64).mean(0) * self._fan_out[index]).sum())

    def _fan(self, index: int) -> Tensor:
        """Weights that are not 0, and lead to a neuron inside the layer, from each element of its input."""
        layer, connected = self.network.layers[index], (self.weights[index] != 0).to(torch.float64)
        shape = self.network.input_of(index)
        if not isinstance(layer, ConvLayer):
            return connected.sum(0).view(shape)
        # The gradient of the sum of all outputs with respect to the input.
        source = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            total = _sums(layer, connected, source).sum()
        (fan_out,) = torch.autograd.grad(total, source)
        return fan_out[0]


def _sums(layer: SynapticLayer, weight: Tensor, messages: Tensor) -> Tensor:
    if isinstance(layer, ConvLayer):
        return functional.conv2d(messages, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return functional.linear(messages.flatten(1), weight)
