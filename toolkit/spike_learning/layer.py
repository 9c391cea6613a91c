"""One layer of the integer machine: integer weights behind floating-point ones that learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from gascnn.toolkit.errors import ConversionError, LimitError
from gascnn.toolkit.lowering.limits import (
    BIAS_MAX,
    BIAS_SIMULATOR_MAX,
    CONV_ACCUMULATOR_BITS,
    DECAY_UNITY,
    WEIGHT_MAX,
    WEIGHT_MIN,
    WEIGHT_SIMULATOR_MAX,
)
from gascnn.toolkit.lowering.network import ConvLayer, DenseLayer, Segment, SynapticLayer
from gascnn.toolkit.spike_learning.rows import sort_rows
from gascnn.toolkit.spike_learning.surrogate import Dynamics, State, even_weights, integrate, whole_numbers

_LARGEST_IN_UNITS = 4.0
"""A read-out by the membrane has thresholds that nothing reaches: in thresholds its weights would be smaller
than a step of the optimiser. No unit is more than so many times the layer's largest weight."""


class MachineLayer(nn.Module):
    """A deployed layer whose populations learn.

    Weights and biases are kept in thresholds, where these are within reach, as floating point; the forward pass and
    :meth:`deployed` see the even integers that come of them.

    Args:
        layer: as lowered or read from a file.
        before: segments of the layer in front, or of the input.
        largest_input: 1 for spikes, else the largest graded input.
        first: whether it is the first layer, the only one whose neurons may have a bias of their own.
        label: for messages.
        height: of the surrogate gradient.

    Attributes:
        learning: channels that learn.
        weight: (row, ...) of the learning rows, in thresholds.
        bias: (row,) likewise, or None where the neurons have none.

    Raises:
        ConversionError: numbers that cannot be learnt with: delays, recurrent synapses, decays or biases that differ
            where they must not, biases of neurons behind the first layer.
        LimitError: sums beyond what Lava's convolution holds.
    """

    threshold: Tensor
    width: Tensor
    scale: Tensor
    others: Tensor
    trainable: Tensor
    fixed_bias: Tensor
    inhibition: Tensor

    def __init__(
        self,
        layer: SynapticLayer,
        before: tuple[Segment, ...],
        largest_input: int,
        *,
        first: bool,
        label: str,
        height: float = 1.0,
    ) -> None:
        super().__init__()
        _check(layer, first, label)
        self.layer, self._height = layer, height
        self.rows = sort_rows(layer, before, largest_input, label)
        fan_in = layer.weight[0].size
        # Layers of simulator grade may have wider weights and biases than the chip's.
        self._largest = WEIGHT_MAX if np.abs(layer.weight).max() <= -WEIGHT_MIN else WEIGHT_SIMULATOR_MAX
        wide = layer.bias is not None and np.abs(layer.bias).max() > BIAS_MAX
        self._largest_bias = BIAS_SIMULATOR_MAX if wide else BIAS_MAX
        if fan_in * self._largest * largest_input >= 1 << (CONV_ACCUMULATOR_BITS - 1):
            raise LimitError(f"{label}: sums over {fan_in} inputs may leave 24 bits; learn a smaller network")
        keep_u, keep_v = (
            DECAY_UNITY - int(np.ravel(d)[0]) for d in (layer.cuba.current_decay, layer.cuba.voltage_decay)
        )
        self._keep = (keep_u, keep_v)
        self._order, computed = self._arrange()
        own = _own_scale(layer, keep_u)
        self.learning = torch.from_numpy(self.rows.learning)
        learning = self.rows.learning
        units = np.minimum(own[learning], _LARGEST_IN_UNITS * max(int(np.abs(layer.weight[learning]).max()), 1))
        self.register_buffer("scale", _numbers(units).view(-1, *(1,) * (layer.weight.ndim - 1)))
        self.weight = nn.Parameter(_numbers(layer.weight[learning]) / self.scale)
        self.register_buffer("trainable", torch.tensor(self.rows.trainable))
        self.register_buffer("others", _numbers(layer.weight[computed[len(learning) :]]))
        self.register_buffer("threshold", _each(layer.neuron.threshold, layer, computed))
        self.register_buffer("width", _numbers(own[computed]).clamp_min(1.0))
        self_weight = 0 if layer.self_weight is None else layer.self_weight
        self.register_buffer("inhibition", _each(self_weight, layer, computed))
        self.register_buffer("fixed_bias", _each(0 if layer.bias is None else layer.bias, layer, computed))
        learns = layer.bias is not None and layer.self_weight is None
        self.bias = nn.Parameter(self.fixed_bias[: len(learning)] / self.scale.flatten()) if learns else None

    def _arrange(self) -> tuple[Tensor | None, npt.NDArray[np.intp]]:
        """Where each channel is among computed, copied and constant rows; and the computed ones, learning first."""
        rows = self.rows
        learning = set(rows.learning.tolist())
        computed = np.array([*rows.learning, *(row for row in rows.computed if row not in learning)], dtype=np.intp)
        order = np.argsort(np.concatenate([computed, rows.copied[:, 0], rows.constant]))
        return None if np.array_equal(order, np.arange(len(order))) else torch.from_numpy(order), computed

    # --- running ---

    def start(self, images: int) -> State:
        """At rest."""
        shape = (images, *self.layer.shape[1:], len(self.width))
        return torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)

    def forward(self, spikes: Tensor, state: State) -> tuple[Tensor, State]:
        """Run some steps.

        Args:
            spikes: (step, image, H, W, C) or (step, image, N) of the layer in front in the same local steps; float32.
            state: at the start.

        Returns:
            Spikes of all channels, likewise, and the state at the end.
        """
        neurons = Dynamics(self.threshold, self.width, self.inhibition, *self._keep, self._height)
        fired, state = integrate(self._sums(spikes), self._biases(), state, neurons)
        return self._complete(fired, spikes), state

    def integers(self) -> Tensor:
        """(row, ...) even integers of the learning rows."""
        return even_weights(self.weight * self.trainable, self.scale, self._largest)

    def _own_bias(self) -> Tensor:
        assert self.bias is not None
        return whole_numbers(self.bias * self.scale.flatten(), self._largest_bias)

    def _biases(self) -> Tensor:
        if self.bias is None:
            return self.fixed_bias
        learnt = self._own_bias()
        return torch.cat([learnt, self.fixed_bias[len(learnt) :]])

    def _sums(self, spikes: Tensor) -> Tensor:
        weight = torch.cat([self.integers(), self.others]) if len(self.others) else self.integers()
        flat, layer = spikes.flatten(0, 1), self.layer
        if flat.ndim == 4:
            flat = flat.permute(0, 3, 1, 2)  # as torch names the axes; in memory, channels stay last
        if isinstance(layer, ConvLayer):
            weight = weight.contiguous(memory_format=torch.channels_last)
            # Algorithms that transform the kernel round; sums of integers below 2^24 do not in any other.
            with torch.backends.nnpack.flags(enabled=False):
                sums = functional.conv2d(flat, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
            sums = sums.permute(0, 2, 3, 1)
        else:
            sums = functional.linear(flat.flatten(1), weight)
        result: Tensor = sums.unflatten(0, spikes.shape[:2])
        return result

    def _complete(self, fired: Tensor, spikes: Tensor) -> Tensor:
        """Copied and constant rows joined to the computed ones, in the order of the layer's channels."""
        parts = [fired]
        if len(self.rows.copied):
            parts.extend(self._relayed(spikes[..., start:stop]) for start, stop in _runs(self.rows.copied[:, 1]))
        if len(self.rows.constant):
            parts.append(torch.ones(*fired.shape[:-1], len(self.rows.constant)))
        joined = torch.cat(parts, dim=-1) if len(parts) > 1 else fired
        return joined if self._order is None else joined[..., self._order]

    def _relayed(self, spikes: Tensor) -> Tensor:
        if not isinstance(self.layer, ConvLayer):
            return spikes
        (down, across), (height, width) = self.layer.stride, self.layer.shape[1:]
        seen = spikes[:, :, ::down, ::across][:, :, :height, :width]
        return functional.pad(seen, (0, 0, 0, width - seen.shape[3], 0, height - seen.shape[2]))

    # --- what is deployed ---

    @torch.no_grad()
    def deployed(self) -> SynapticLayer:
        """The layer with the integers that the forward pass uses."""
        weight = self.layer.weight.astype(np.int64)
        weight[self.rows.learning] = self.integers().to(torch.int64).numpy()
        changes: dict[str, Any] = {"weight": weight}
        if self.bias is not None:
            bias = np.broadcast_to(np.asarray(self.layer.bias), self.layer.shape[:1]).astype(np.int64)
            bias[self.rows.learning] = self._own_bias().to(torch.int64).numpy()
            changes["bias"] = bias
        return replace(self.layer, **changes)


def _runs(numbers: npt.NDArray[np.intp]) -> list[tuple[int, int]]:
    """Ranges of consecutive numbers: slices are far cheaper than indices."""
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(numbers, cuts)]


def _check(layer: SynapticLayer, first: bool, label: str) -> None:
    if isinstance(layer, DenseLayer) and (layer.delay is not None or layer.weight_rec is not None):
        raise ConversionError(f"{label}: synaptic delays and recurrent synapses cannot be learnt with; remove them")
    neuron = layer.cuba
    for name, values in (("iDecay", neuron.current_decay), ("vDecay", neuron.voltage_decay)):
        if len(np.unique(values)) > 1:
            raise ConversionError(f"{label}: {name} differs between channels; use one for the layer to learn it")
    if layer.bias is not None and np.ndim(layer.bias) > 1:
        raise ConversionError(f"{label}: a bias for each neuron cannot be learnt; use one a channel")
    if not first and layer.self_weight is None and layer.bias is not None and np.any(layer.bias):
        raise ConversionError(
            f"{label}: its neurons have biases of their own, which act long before the image arrives; "
            "export with --bias always-on or --bias input to learn it"
        )


def _own_scale(layer: SynapticLayer, keep_u: int) -> npt.NDArray[np.float64]:
    """(channel,) weight units that one spike takes from a neuron: the threshold, or what it subtracts and has kept."""
    values = layer.neuron.threshold if layer.self_weight is None else layer.self_weight * (DECAY_UNITY / keep_u)
    return np.broadcast_to(np.asarray(values, dtype=np.float64).ravel(), layer.shape[:1])


def _numbers(values: npt.ArrayLike) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float32))


def _each(values: npt.ArrayLike, layer: SynapticLayer, rows: npt.NDArray[np.intp]) -> Tensor:
    """(row,) one number for all or one a channel, of some rows."""
    return _numbers(np.broadcast_to(np.asarray(values).ravel(), layer.shape[:1])[rows])
