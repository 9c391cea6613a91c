"""The deployed network itself as a torch module: what it computes is what runs on the target, spike for spike.

Time is local to each layer. A deployed layer k (from 0) sees in step t what the layer in front fired in step t - 1; its
local step is ``t - k``, so that all layers see a frame in the same local step: frame s of the input in local step
s + 1. Local step 0 is the one in which always-on channels, which need no input, reach a layer ahead of the first frame.
A run of T frames takes the local steps 0..T; what a layer fires later meets no read-out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gascnn.toolkit.errors import ConversionError, DataError
from gascnn.toolkit.lowering.network import NetxNetwork, Segment, layer_label
from gascnn.toolkit.spike_learning.layer import MachineLayer
from gascnn.toolkit.spike_learning.surrogate import State

_BYTES_A_NEURON_STEP = 24
"""What a layer keeps for the backward pass of one neuron and step: sums, spikes, potentials, and copies of them."""

_Steps = tuple[Tensor, list[State], Tensor, list[Tensor], list[Tensor]]
"""The last layer's spikes, every layer's state, mean rates, every layer's spikes, sums over time."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the last layer did.

    Attributes:
        counts: (image, class) spikes in the read-out window.
        membrane: (image, class) membrane potential at its end, in thresholds.
        rates: mean spikes a neuron and step of each layer's populations.
        spikes: each layer's (local step, image, ...) spikes, if they were asked for.
        sums: (image, ..., C) spikes of the populations of those layers that were asked for, over the whole run.
    """

    counts: Tensor
    membrane: Tensor
    rates: Tensor
    spikes: list[Tensor] | None = None
    sums: list[Tensor] = field(default_factory=list)


class IntegerMachine(nn.Module):
    """A deployed network whose weights learn; see :class:`gascnn.toolkit.spike_learning.layer.MachineLayer`.

    Args:
        network: as lowered or read from a file, with its segments.
        height: of the surrogate gradient.
        dropout: share of a population's channels (of neurons in front of the read-out) silenced while it learns, each
            for the whole run of an image.
        memory_bytes: what the backward pass may keep; longer runs are cut into windows that are computed again.

    Raises:
        ConversionError, LimitError: as :class:`MachineLayer`; input neurons.
    """

    def __init__(
        self, network: NetxNetwork, *, height: float = 1.0, dropout: float = 0.0, memory_bytes: int = 4 << 30
    ) -> None:
        super().__init__()
        if network.sigma_delta:
            raise ConversionError(
                "sigma-delta networks are not learnt with spikes, which they do not have; learn one of neuron cuba"
            )
        if network.input.neuron is not None:
            raise ConversionError("the network has input neurons; learn one that takes its input directly")
        self.network, self._dropout, self._memory_bytes = network, dropout, memory_bytes
        largest = 2**network.input_bits - 1 if network.input_bits else 1
        self.layers = nn.ModuleList(
            MachineLayer(
                layer,
                network.layers[k - 1].segments if k else _input_segments(network),
                1 if k else largest,
                first=k == 0,
                label=layer_label(network, k),
                height=height,
            )
            for k, layer in enumerate(network.layers)
        )

    def deployed(self) -> NetxNetwork:
        """The network with the integers that the forward pass uses."""
        layers = tuple(layer.deployed() for layer in self.machine_layers)
        return replace(self.network, layers=layers)

    def forward(
        self,
        frames: Tensor,
        *,
        tail: int = 0,
        skip_steps: int = 0,
        keep_spikes: bool = False,
        summed: Sequence[int] = (),
    ) -> Answer:
        """Run from rest.

        Args:
            frames: (image, T, C, H, W) what is fed, constant channels included: 0/1, or integers for graded input.
            tail: silent local steps behind the last frame.
            skip_steps: first read-out steps left out of the counts.
            keep_spikes: whether to give every layer's spikes.
            summed: numbers of layers whose spikes are wanted, summed over time.

        Raises:
            DataError: frames of another shape than the network takes.
        """
        images, steps = frames.shape[:2]
        if tuple(frames.shape[2:]) != self.network.input_shape:
            raise DataError(f"frames are {tuple(frames.shape[2:])}; this network takes {self.network.input_shape}")
        total = 1 + steps + tail
        masks = self._masks(images)
        states = [layer.start(images) for layer in self.machine_layers]
        window = self._window(images, total) if torch.is_grad_enabled() else total
        fired, kept = torch.zeros(len(self.layers)), []
        outputs: list[Tensor] = []
        sums: list[Tensor] = []
        for start in range(0, total, window):
            part = _local(frames, start, min(start + window, total))
            if window < total:
                flat = [value for state in states for value in state]
                given = checkpoint(self._flat_steps, part, masks, keep_spikes, summed, *flat, use_reentrant=False)
            else:
                given = self._steps(part, masks, keep_spikes, summed, states)
            spikes, states, rates, every, added = given
            fired = fired + rates
            outputs.append(spikes)
            kept.append(every)
            sums = [a + b for a, b in zip(sums, added, strict=True)] if sums else added
        out = _channels_first(torch.cat(outputs)).flatten(2)
        counts = out[1 + skip_steps : 1 + steps].sum(0)
        return Answer(
            counts=counts,
            membrane=self._membrane(states[-1]),
            rates=fired / (images * steps),
            spikes=[_channels_first(torch.cat(layer)) for layer in zip(*kept, strict=True)] if keep_spikes else None,
            sums=sums,
        )

    @property
    def machine_layers(self) -> Sequence[MachineLayer]:
        """The layers, in order."""
        return self.layers  # type: ignore[return-value]  # a ModuleList does not know what it holds

    def _flat_steps(
        self, part: Tensor, masks: list[Tensor | None], keep: bool, summed: Sequence[int], *flat: Tensor
    ) -> _Steps:
        states = [flat[i : i + 3] for i in range(0, len(flat), 3)]
        return self._steps(part, masks, keep, summed, states)  # type: ignore[arg-type]  # three each

    def _steps(
        self,
        part: Tensor,
        masks: list[Tensor | None],
        keep: bool,
        summed: Sequence[int],
        states: Sequence[State],
    ) -> _Steps:
        """All layers over some local steps."""
        after, rates, kept, sums, value = [], [], [], [], part
        for k, (layer, state, mask) in enumerate(zip(self.machine_layers, states, masks, strict=True)):
            value, end = layer(value, state)
            neurons = len(layer.learning) * math.prod(layer.layer.shape[1:])
            rates.append(value.flatten(0, -2).sum(0)[layer.learning].sum() / neurons)
            if keep:
                kept.append(value)
            if k in summed:
                sums.append(value.sum(0)[..., layer.learning])
            if mask is not None:
                value = value * mask
            after.append(end)
        return value, after, torch.stack(rates), kept, sums

    def _masks(self, images: int) -> list[Tensor | None]:
        """Dropout held over time, one mask an image: 0, or 1 / (1 - share); None where nothing is dropped."""
        layers = self.machine_layers
        if not self.training or self._dropout == 0.0:
            return [None] * len(layers)
        masks: list[Tensor | None] = []
        for index, layer in enumerate(layers):
            if index != len(layers) - 2:
                masks.append(None)
                continue
            channels = layer.layer.shape[0]
            mask = torch.ones(images, channels)
            dropped = torch.rand(images, len(layer.learning)) < self._dropout
            mask[:, layer.learning] = (~dropped).float() / (1.0 - self._dropout)
            mask = mask.view(images, *(1,) * (len(layer.layer.shape) - 1), channels)
            masks.append(mask)
        return masks

    def _membrane(self, state: State) -> Tensor:
        """Of the last layer, in thresholds; under reset by subtraction what is left after the last spikes."""
        last = self.machine_layers[-1]
        u, v, spikes = state
        value = v if last.layer.self_weight is None else u - last.inhibition * spikes
        return _channels_first((value / last.width)[None]).flatten(2)[0]

    def _window(self, images: int, total: int) -> int:
        """Local steps whose values fit the memory."""
        neurons = sum(math.prod(layer.layer.shape) for layer in self.machine_layers)
        return max(1, min(total, self._memory_bytes // (_BYTES_A_NEURON_STEP * neurons * images)))


def _input_segments(network: NetxNetwork) -> tuple[Segment, ...]:
    """What is fed, and behind it the planes that are always on."""
    channels, planes = network.input_shape[0], network.constant_channels
    fed = Segment("population", "input", 0, channels - planes)
    return (fed, Segment("always-on", "input", channels - planes, channels)) if planes else (fed,)


def _channels_first(value: Tensor) -> Tensor:
    """(step, image, H, W, C) to (step, image, C, H, W); vectors as they are."""
    return value.movedim(-1, 2)


def _local(frames: Tensor, start: int, stop: int) -> Tensor:
    """(local step, image, ..., C) of the input: silence in step 0 and behind the last frame."""
    steps = frames.shape[1]
    part = frames[:, max(start - 1, 0) : max(min(stop - 1, steps), 0)].transpose(0, 1).movedim(2, -1).float()
    before = torch.zeros(1 if start == 0 else 0, *part.shape[1:])
    behind = torch.zeros(stop - start - len(before) - len(part), *part.shape[1:])
    return torch.cat([before, part, behind])
