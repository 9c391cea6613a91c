"""Sigma-delta networks: graded messages instead of spikes, layer by layer over all steps, exactly as Lava computes.

With 0-based steps ``t``, layers ``k`` from 1, ``m_0`` the messages of the input neurons, ``S = 12``::

    a_k[t]    = W_k m_{k-1}[t-1]                       one step of delay a synaptic layer; a_k[0] = 0
    sigma[t]  = sigma[t-1] + a_k[t]
    act[t]    = max(sigma[t] + (bias << S), 0)         input neurons: act[t] = input[t] << S, without delay
    d         = act[t] - act[t-1] + residue
    m_k[t]    = d >> 6  where |d| >= threshold << S, else 0
    residue   = d less what was sent
    read-out:   m_K[t] = sigma[t]

States are 32-bit integers and wrap like Lava's. Nothing changes in a step in which nothing comes in: it is left out.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator.synapse import FLOAT64_EXACT, ConvProduct, wrapped
from gascnn.toolkit.errors import LimitError
from gascnn.toolkit.lowering.limits import (
    MESSAGE_EXPONENT,
    MESSAGE_MAX,
    SIGMA_DELTA_SHIFT,
    SIGMA_DELTA_STATE_LIMIT,
)
from gascnn.toolkit.lowering.network import ConvLayer, NetxNetwork, SigmaDeltaNeuron, SynapticLayer, layer_label
from gascnn.toolkit.lowering.netx_dense import effective_dense

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_INT32_LIMIT = 1 << 31
_ARRAYS = 8
"""Arrays of 4 bytes an element that a step takes beside the recorded messages, about."""


def sigma_delta_bytes(network: NetxNetwork, steps: int) -> int:
    """Memory an image takes: messages of two neighbouring layers, sums and states of one."""
    sizes = [math.prod(network.input_shape), *(math.prod(layer.shape) for layer in network.layers)]
    return 4 * max(
        (before + after) * steps + _ARRAYS * (2 * before + after) for before, after in itertools.pairwise(sizes)
    )


def run_sigma_delta(network: NetxNetwork, inputs: npt.NDArray[np.generic], keep: bool, skip: int) -> RunResult:
    """Run checked input of some images; ``keep`` every message. The read-out is the sum at the end, whatever ``skip``.

    Raises:
        LimitError: sums with which Lava's own result is undefined.
    """
    images, steps = inputs.shape[:2]
    source = _input_messages(network, inputs)
    recorded, counts, wraps = [], [], []
    for index, layer in enumerate(network.layers):
        run = _LayerRun(layer, images, layer_label(network, index))
        source = run.all_steps(source)
        counts.append(np.count_nonzero(source, axis=1).astype(np.int32))
        wraps.append(run.wraps)
        if keep:
            recorded.append(source)
    return RunResult(
        steps=steps,
        counts=counts,
        output_counts=np.zeros((images, math.prod(network.layers[-1].shape)), dtype=np.int32),
        output_membrane=run.potential().reshape(images, -1),
        spikes=[messages != 0 for messages in recorded] if keep else None,
        messages=recorded if keep else None,
        wraps=wraps,
    )


def input_message_counts(network: NetxNetwork, inputs: npt.NDArray[np.generic]) -> Int32:
    """(image, ...) how many messages each element of the input sends, constant channels included.

    Args:
        network: with sigma-delta neurons.
        inputs: (image, T, ...) checked input.
    """
    counts: Int32 = (_input_messages(network, inputs) != 0).sum(axis=1, dtype=np.int32)
    return counts


def _input_messages(network: NetxNetwork, inputs: npt.NDArray[np.generic]) -> Int32:
    """(image, T + K, ...) what reaches the first layer."""
    images, steps = inputs.shape[:2]
    result = np.zeros((images, steps + network.depth, *network.input_shape), dtype=np.int32)
    neuron = network.input.neuron
    if not isinstance(neuron, SigmaDeltaNeuron):
        result[:, :steps] = inputs if network.input_bits else inputs != 0
        return result
    delta = _Delta(neuron, network.input_shape, images)
    for t in range(steps):  # behind them the input stays as it is
        result[:, t] = delta.step(inputs[:, t].astype(np.int32) << SIGMA_DELTA_SHIFT)
    return result


class _Delta:
    """Sends what has changed, where that is enough."""

    def __init__(self, neuron: SigmaDeltaNeuron, shape: tuple[int, ...], images: int) -> None:
        self._threshold = np.int32(int(neuron.threshold) << SIGMA_DELTA_SHIFT)
        self._act: Int32 = np.zeros((images, *shape), dtype=np.int32)
        self._residue: Int32 = np.zeros((images, *shape), dtype=np.int32)

    def step(self, act: Int32) -> Int32:
        """Messages of one step from the new activations."""
        delta = act - self._act + self._residue
        sent = np.where(np.abs(delta) >= self._threshold, delta, 0)
        self._act, self._residue = act, delta - sent
        messages: Int32 = sent >> MESSAGE_EXPONENT
        return messages


class _LayerRun:
    """All steps of one layer for some images."""

    def __init__(self, layer: SynapticLayer, images: int, label: str) -> None:
        assert isinstance(layer.neuron, SigmaDeltaNeuron)
        self._layer, self._read_out = layer, layer.neuron.read_out
        self._sums = _Sums(layer, label)
        self._sigma: Int32 = np.zeros((images, *layer.shape), dtype=np.int32)
        self._delta = _Delta(layer.neuron, layer.shape, images)
        self._bias: Int32 | None = None
        if layer.bias is not None:
            bias = layer.bias.astype(np.int64).astype(np.int32) << SIGMA_DELTA_SHIFT
            self._bias = bias.reshape(-1, *(1,) * (len(layer.shape) - 1)) if bias.ndim == 1 else bias
        self.wraps = 0

    def all_steps(self, source: Int32) -> Int32:
        """(image, T + K, ...) messages from those of the layer before; step t sees its step t - 1."""
        images, total = source.shape[:2]
        result = np.zeros((images, total, *self._layer.shape), dtype=np.int32)
        for t in range(total):
            active = t > 0 and bool(np.any(source[:, t - 1]))
            if active:
                self._add(source[:, t - 1])
            if self._read_out:
                result[:, t] = self._sigma
            elif active or t == 0:
                result[:, t] = messages = self._delta.step(np.maximum(self._biased(), 0))
                self.wraps += int(np.count_nonzero(np.abs(messages) > MESSAGE_MAX))
        return result

    def potential(self) -> Int64:
        """(image, ...) the sum with its bias, ahead of the ReLU."""
        return self._biased().astype(np.int64)

    def _biased(self) -> Int32:
        return self._sigma if self._bias is None else self._sigma + self._bias

    def _add(self, messages: Int32) -> None:
        sums = self._sums(messages)
        self._sigma = self._sigma + (wrapped(sums) if isinstance(self._layer, ConvLayer) else sums.astype(np.int32))
        outside = (np.abs(sums) >= SIGMA_DELTA_STATE_LIMIT) | (np.abs(self._sigma) >= SIGMA_DELTA_STATE_LIMIT)
        self.wraps += int(np.count_nonzero(outside))


class _Sums:
    """Exact sums of one step's messages; those of a dense layer with its weights as NetX encodes them."""

    def __init__(self, layer: SynapticLayer, label: str) -> None:
        self._label, self._shift = label, 0
        self._convolution: ConvProduct | None = None
        weight = layer.weight
        if isinstance(layer, ConvLayer):
            self._convolution = ConvProduct(layer, np.float64)
        else:
            effective = effective_dense(layer, label)
            weight, self._shift = effective.weight, effective.shift
            self._matrix = np.ascontiguousarray(weight.T.astype(np.float64))
        self._row_sum = int(np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1).max(initial=0))

    def __call__(self, messages: Int32) -> Int64:
        """(image, ...) messages to (image, ...) sums."""
        largest = int(np.abs(messages.astype(np.int64)).max(initial=0))
        if self._row_sum * largest >= FLOAT64_EXACT:
            raise LimitError(f"{self._label}: messages up to {largest} may sum to 2^53, which Lava rounds; scale down")
        if self._convolution is not None:
            sums = self._convolution(messages).astype(np.int64)
        else:
            sums = (messages.reshape(len(messages), -1).astype(np.float64) @ self._matrix).astype(np.int64)
        if np.abs(sums).max(initial=0) >= _INT32_LIMIT:
            raise LimitError(f"{self._label}: a synaptic sum leaves the 32 bits that Lava holds; scale down")
        shifted: Int64 = sums >> self._shift
        return shifted
