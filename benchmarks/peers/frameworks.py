"""The three frameworks of spiking networks on torch: the same integers as float32, each in its fastest way on a CPU.

Layers run one after the other over the whole time window (``window``), or all layers step by step (``steps``), in
torch's own or the channels-last layout of memory. Only the last layer's spikes are made; nothing is counted in timed
runs. ``compiled`` puts torch's compiler over each population of neurons.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LAYOUTS = ("contiguous", "channels-last")


def load(name: str, plan: Path, threads: int) -> Any:
    """The contender of that name, its network built."""
    torch = import_module("torch")
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    description = json.loads(plan.read_text())
    kinds: dict[str, Callable[..., Any]] = {"spikingjelly": SpikingJelly, "snntorch": SnnTorch, "sinabs": Sinabs}
    return kinds[name](torch, description, plan.parent)


class _Framework(ABC):
    """What the three have in common: the synapses are torch's.

    Args:
        torch: the module.
        plan: layers, as :mod:`gascnn.benchmarks.plan` wrote them.
        folder: holds the arrays.
    """

    name = ""
    orders: tuple[str, ...] = ("window",)

    def __init__(self, torch: Any, plan: dict[str, Any], folder: Path) -> None:
        self.torch = torch
        self.steps: int = plan["steps"]
        self.layers: list[dict[str, Any]] = plan["layers"]
        # (step, image, ...), the order in which all three take or can take time.
        self.spikes = np.swapaxes(np.load(folder / plan["input"]), 0, 1)
        self.weights = [np.load(folder / layer["weight"]).astype(np.float32) for layer in self.layers]
        self.versions = {name: version(name) for name in ("torch", self.name)}
        self.compiled = bool(plan.get("compile_peers"))
        orders = (*self.orders, "compiled") if self.compiled else self.orders
        layouts = LAYOUTS if any(layer["kind"] == "conv" for layer in self.layers) else LAYOUTS[:1]
        self.options = tuple(f"{order}, {layout}" for order in orders for layout in layouts)

    def prepare(self, option: str, images: int) -> Callable[[], None]:
        """Build the network in a layout of memory; input tensors are ready before the clock runs."""
        order, layout = option.split(", ")
        torch = self.torch
        memory = torch.channels_last if layout == "channels-last" else torch.contiguous_format
        synapses = [self._synapse(k, memory) for k in range(len(self.layers))]
        neurons = [self.neurons(layer["threshold"]) for layer in self.layers]
        shape = (self.steps * images, *self.spikes.shape[2:])
        frames = torch.from_numpy(np.ascontiguousarray(self.spikes[:, :images], dtype=np.float32)).reshape(shape)
        if frames.ndim == 4:
            frames = frames.contiguous(memory_format=memory)
        if order == "steps":
            steps = list(frames.split(images))
            return lambda: self.run_steps(steps, synapses, neurons)
        if order == "compiled":
            # Every layer has its own shape and threshold; beyond the limit torch would quietly stop compiling.
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
            neurons = [torch.compile(population, dynamic=False) for population in neurons]
        return lambda: self._run_window(frames, images, synapses, neurons)

    def counts(self, images: int) -> list[Any]:
        """Each layer's spikes of every neuron, (image, ...)."""
        result: list[Any] = []
        synapses = [self._synapse(k, self.torch.contiguous_format) for k in range(len(self.layers))]
        neurons = [self.neurons(layer["threshold"]) for layer in self.layers]
        for image in range(images):  # one at a time: the spikes of all would not fit
            frames = self.torch.from_numpy(self.spikes[:, image].astype(np.float32))
            found: list[Any] = []
            self._run_window(frames, 1, synapses, neurons, found)
            result.append([layer.sum(dim=(0, 1)).numpy() for layer in found])
        return [np.stack(layer) for layer in zip(*result, strict=True)]

    def _run_window(
        self, frames: Any, images: int, synapses: list[Any], neurons: list[Any], keep: list[Any] | None = None
    ) -> None:
        """Layer after layer, each over all steps at once."""
        for synapse, population in zip(synapses, neurons, strict=True):
            sums = synapse(frames).unflatten(0, (self.steps, images))
            spikes = self.fire(population, sums)
            if keep is not None:
                keep.append(spikes)
            frames = spikes.flatten(0, 1)

    def _synapse(self, index: int, memory: Any) -> Callable[[Any], Any]:
        layer, functional = self.layers[index], self.torch.nn.functional
        weight = self.torch.from_numpy(self.weights[index])
        if layer["kind"] == "dense":
            return lambda frames: functional.linear(frames.flatten(1), weight)
        weight = weight.contiguous(memory_format=memory)
        geometry = {name: layer[name] for name in ("stride", "padding", "dilation", "groups")}
        return lambda frames: functional.conv2d(frames, weight, **geometry)

    @abstractmethod
    def neurons(self, threshold: float) -> Any:
        """A population of integrate-and-fire neurons reset to zero."""

    @abstractmethod
    def fire(self, population: Any, sums: Any) -> Any:
        """(step, image, ...) sums to spikes, from rest."""

    def run_steps(self, steps: list[Any], synapses: list[Any], neurons: list[Any]) -> None:
        """All layers step by step, where ``orders`` has it."""
        raise ValueError(f"{self.name} runs whole windows of time; its orders are {', '.join(self.orders)}")


class SpikingJelly(_Framework):
    """``IFNode`` in multi-step mode."""

    name = "spikingjelly"

    def neurons(self, threshold: float) -> Any:
        """See :class:`_Framework`."""
        neuron = import_module("spikingjelly.activation_based.neuron")
        return neuron.IFNode(v_threshold=threshold, v_reset=0.0, step_mode="m")

    def fire(self, population: Any, sums: Any) -> Any:
        """See :class:`_Framework`."""
        spikes = population(sums)
        population.reset()
        return spikes


class SnnTorch(_Framework):
    """``Leaky`` without leak (beta = 1), reset to zero."""

    name = "snntorch"
    orders = ("window", "steps")

    def neurons(self, threshold: float) -> Any:
        """See :class:`_Framework`."""
        return import_module("snntorch").Leaky(beta=1.0, threshold=threshold, reset_mechanism="zero")

    def fire(self, population: Any, sums: Any) -> Any:
        """See :class:`_Framework`."""
        membrane = self.torch.zeros_like(sums[0])
        spikes = []
        for now in sums:
            fired, membrane = population(now, membrane)
            spikes.append(fired)
        return self.torch.stack(spikes)

    def run_steps(self, steps: list[Any], synapses: list[Any], neurons: list[Any]) -> None:
        """See :class:`_Framework`."""
        membranes: list[Any] = [None] * len(neurons)
        for frames in steps:
            for k, (synapse, population) in enumerate(zip(synapses, neurons, strict=True)):
                sums = synapse(frames)
                before = self.torch.zeros_like(sums) if membranes[k] is None else membranes[k]
                frames, membranes[k] = population(sums, before)


class Sinabs(_Framework):
    """``IAF`` with at most one spike a step, reset to zero, no lower limit."""

    name = "sinabs"

    def neurons(self, threshold: float) -> Any:
        """See :class:`_Framework`."""
        layers, activation = import_module("sinabs.layers"), import_module("sinabs.activation")
        return layers.IAF(
            spike_threshold=self.torch.tensor(threshold),
            spike_fn=activation.SingleSpike,
            reset_fn=activation.MembraneReset(),
            min_v_mem=None,
        )

    def fire(self, population: Any, sums: Any) -> Any:
        """See :class:`_Framework`."""
        population.reset_states()
        # sinabs takes (image, step, ...); the transposed view costs nothing.
        return population(sums.transpose(0, 1)).transpose(0, 1)
