"""The whole conversion: trace, passes, calibrate, fit, emit, check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gascnn.toolkit.coding import encode, expected_input
from gascnn.toolkit.conversion.calibrate import Activations, measure_activations
from gascnn.toolkit.conversion.emit import emit
from gascnn.toolkit.conversion.fit import Fitter, Scale
from gascnn.toolkit.conversion.ir import Entry, OpGraph, evaluate
from gascnn.toolkit.conversion.passes import run_passes
from gascnn.toolkit.conversion.response import NeuronModel
from gascnn.toolkit.conversion.sigma_delta import RELU, MessageCost, fit_sigma_delta, relu_scales
from gascnn.toolkit.conversion.trace import trace
from gascnn.toolkit.errors import ConversionError, DataError, UsageError
from gascnn.toolkit.lowering.annotations import GraphNotes
from gascnn.toolkit.lowering.deployment import STEPS_MAX, Coding
from gascnn.toolkit.lowering.graph import read_graph
from gascnn.toolkit.lowering.plan import plan_layers
from gascnn.toolkit.lowering.sigma_delta import MESSAGE_RANGE

Progress = Callable[[str, int, int], None]
"""Called with (what, done, of)."""

FAITHFUL = 1e-3
"""The traced operations must give the model's own outputs to this share of their largest value."""


MOST_CALIBRATION_IMAGES, MOST_FIT_IMAGES, FEWEST_IMAGES = 512, 64, 8

WORK = 150_000_000_000
"""Products that calibration and fitting may each take, unless asked for more: seconds on two cores."""


@dataclass(frozen=True)
class ConversionOptions:
    """How to convert.

    Attributes:
        neuron: ``cuba`` integrates and fires; ``sdnn`` is a sigma-delta neuron with graded messages, which answers
            after one input step of plain pixels (``steps`` is then 1 and ``coding`` constant, and what only concerns
            spikes is refused).
        reset: ``zero`` runs in stock NetX; ``subtract`` is the paper's neuron and loses least.
        steps: T the scales are fitted for.
        percentile: of real activations, one scale a channel.
        leak: share of the membrane potential kept each step (paper, eq. 1); 1 is none.
        initial_membrane: in thresholds; None takes one half for reset by subtraction without a leak (the target
            holds it as a shifted threshold) and 0 elsewhere.
        coding: of the input.
        seed: of the coding.
        skip_steps: first read-out steps left out of the spike count.
        readout: ``count`` of the output neurons' spikes, or their ``membrane`` at the end, which then never spike.
        calibration_images: how many images give the percentiles, at most; None takes 512, fewer of a large network.
        fit_images: how many of them are run as spikes, at most; None takes 64, fewer of a large network.
        message_error: of ``sdnn``: how much holding back small messages may change the logits, mean square as a share
            of their variance; 0 sends every change.
    """

    neuron: Literal["cuba", "sdnn"] = "cuba"
    reset: Literal["zero", "subtract"] = "zero"
    steps: int = 64
    percentile: float = 99.9
    leak: float = 1.0
    initial_membrane: float | None = None
    coding: Coding = "regular"
    seed: int = 0
    skip_steps: int = 0
    readout: Literal["count", "membrane"] = "count"
    calibration_images: int | None = None
    fit_images: int | None = None
    message_error: float = 0.005

    def checked(self) -> ConversionOptions:
        """Itself, if its values can be used.

        Raises:
            UsageError: a value out of range, or one that means nothing to this neuron.
        """
        for name, value, allowed in (
            ("neuron", self.neuron, ("cuba", "sdnn")),
            ("reset", self.reset, ("zero", "subtract")),
            ("readout", self.readout, ("count", "membrane")),
            ("coding", self.coding, get_args(Coding)),
        ):
            if value not in allowed:
                raise UsageError(f"{name} is {value!r}; it must be {' or '.join(allowed)}")
        if not 1 <= self.steps <= STEPS_MAX:
            raise UsageError(f"steps is {self.steps}; it must be 1..{STEPS_MAX}")
        if not 0.0 < self.leak <= 1.0:
            raise UsageError(f"leak is {self.leak}; the share kept each step must be above 0 and at most 1")
        if not 0 <= self.skip_steps < self.steps:
            raise UsageError(f"skip_steps is {self.skip_steps}; it must be 0..{self.steps - 1}")
        if self.readout == "membrane" and self.leak < 1.0:
            raise UsageError("with a leak the membrane forgets what it summed up; read out by count")
        start = self.initial_membrane
        if start is not None and not 0.0 <= start <= 1.0:
            raise UsageError(f"initial_membrane is {start}; it must be a share of the threshold, 0..1")
        if start and (self.reset == "zero" or self.leak < 1.0):
            raise UsageError(
                f"initial_membrane is {start}; the target holds it as a shifted threshold, which only reset subtract "
                "without a leak allows; leave it 0"
            )
        if any(count is not None and count < 1 for count in (self.fit_images, self.calibration_images)):
            raise UsageError("calibration needs at least one image")
        return self._sigma_delta() if self.neuron == "sdnn" else self

    def _sigma_delta(self) -> ConversionOptions:
        """With what is settled by the neuron; the rest of the options is about spikes."""
        if not 0.0 <= self.message_error < math.inf:
            raise UsageError(f"message_error is {self.message_error}; it must be a share of the variance, 0 or more")
        unsaid = ConversionOptions(coding="constant" if self.coding == "constant" else "regular")
        for name in _OF_SPIKES:
            if getattr(self, name) != getattr(unsaid, name):
                raise UsageError(
                    f"{name} {getattr(self, name)} is for integrate-and-fire neurons; leave it out with neuron sdnn"
                )
        return replace(self, steps=1, coding="constant")

    def with_counts(self, multiply_accumulates: int, available: int) -> ConversionOptions:
        """Both numbers of images settled for a network of that many products an image, and so many images."""
        cost = max(1, multiply_accumulates)
        calibration = min(self.calibration_images or _affordable(cost, MOST_CALIBRATION_IMAGES), available)
        fit = self.fit_images or _affordable(cost * self.steps, MOST_FIT_IMAGES)
        return replace(self, calibration_images=calibration, fit_images=min(fit, calibration))

    def model(self) -> NeuronModel:
        """The integrate-and-fire neuron that will run, or what stands for a ReLU."""
        if self.neuron == "sdnn":
            return RELU
        start = self.initial_membrane
        if start is None:
            start = 0.5 if self.reset == "subtract" and self.leak == 1.0 else 0.0
        return NeuronModel(self.reset, self.leak, start)


_OF_SPIKES = ("reset", "percentile", "leak", "initial_membrane", "coding", "skip_steps", "readout", "fit_images")
"""Options that mean nothing to sigma-delta neurons."""


def _affordable(cost: int, most: int) -> int:
    return max(FEWEST_IMAGES, min(most, WORK // cost))


@dataclass(frozen=True, eq=False)
class Conversion:
    """A converted network.

    Attributes:
        graph: the spiking network as NIR, in floating point.
        report: what became of every node of the model.
        rates: mean spikes a neuron and step of each population, on the images it was fitted with.
        options: what was asked for.
        messages: of sigma-delta neurons: thresholds, and what they save and cost.
    """

    graph: nir.NIRGraph
    report: tuple[Entry, ...]
    rates: dict[str, float]
    options: ConversionOptions
    scales: dict[str, Scale] = field(repr=False)
    messages: MessageCost | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "options": vars(self.options),
            "nodes": [vars(entry) for entry in self.report],
            "firing_rates": self.rates,
            "messages": None if self.messages is None else vars(self.messages),
        }


def convert(
    model: nn.Module,
    images: npt.NDArray[np.uint8],
    options: ConversionOptions | None = None,
    *,
    classes: tuple[str, ...] = (),
    pixel_max: int = 255,
    framing: str = "whole",
    provenance: dict[str, Any] | None = None,
    activations: Mapping[str, Activations] | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Conversion:
    """Turn a trained feed-forward classifier into a spiking network.

    Args:
        model: takes (image, C, H, W) intensities 0..1, returns (image, class). It is traced with ``torch.fx``.
        images: (image, C, H, W) uint8 to calibrate with: training images, or synthetic ones; never test images.
        options: neuron, steps, scales, coding.
        classes: names, in the order of the outputs.
        pixel_max: pixel value of intensity 1.
        framing: what part of an image these are, recorded for whoever feeds the network.
        provenance: recorded in the result.
        activations: of each population, measured earlier on training images
            (:func:`gascnn.toolkit.conversion.statistics.stored_activations`); the images given are then only run.
        progress: called as the work goes on.
        changes: fields of ``options`` by name, as in ``convert(model, images, reset="subtract", steps=32)``.

    Returns:
        The spiking network and a report that lists every node.

    Raises:
        ConversionError: operations that cannot be converted, all named, or a topology NetX cannot hold.
        DataError: images of another shape or type.
        UsageError: options out of range, class names that do not fit the outputs, activations of another network or
            for another coding.
    """
    options = replace(options or ConversionOptions(), **changes).checked()
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) == 0:
        raise DataError(f"calibration images are {images.dtype} {images.shape}; expected uint8 (image, C, H, W)")
    tell = progress or (lambda what, done, of: None)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    graph = trace(model, shape)
    outputs = graph.output.shape[0]
    if classes and len(classes) != outputs:
        raise UsageError(f"{len(classes)} class names for a network of {outputs} outputs; give one each")
    run_passes(graph)
    options = options.with_counts(graph.multiply_accumulates, len(images))
    chosen = torch.from_numpy(expected_input(images[: options.calibration_images], options.coding, pixel_max))
    _check_faithful(graph, model, chosen[: min(16, len(chosen))])
    populations = [op.name for op in graph if op.kind == "neurons"]
    if activations is not None:
        _check_activations(activations, graph, populations, options)
    with torch.no_grad():
        measured = dict(activations or {}) or measure_activations(
            graph, chosen, populations, options.percentile, progress=lambda n: tell("calibrating", n, len(chosen))
        )
        cost: MessageCost | None = None
        if options.neuron == "sdnn":
            scales, cost = _with_messages(graph, measured, images, chosen, options, pixel_max, tell)
        else:
            scales = _fitted(graph, measured, images, chosen, options, pixel_max, tell)
    notes = GraphNotes(
        reset=None if options.neuron == "sdnn" else options.reset,
        dt=1.0,
        coding=options.coding,
        seed=options.seed,
        steps=options.steps,
        skip_steps=options.skip_steps,
        classes=classes,
        image_shape=shape,
        pixel_max=pixel_max,
        framing=framing,
        provenance=provenance or {},
        neuron=options.neuron,
        input_threshold=0.0 if cost is None else cost.thresholds[0] / MESSAGE_RANGE,
    )
    result = emit(graph, scales, options.model(), notes)
    plan_layers(read_graph(result), 0)  # what cannot become a sequence of layers is refused here, not at export
    return Conversion(result, tuple(graph.report), {n: s.rate for n, s in scales.items()}, options, scales, cost)


def _fitted(
    graph: OpGraph,
    measured: Mapping[str, Activations],
    images: npt.NDArray[np.uint8],
    chosen: torch.Tensor,
    options: ConversionOptions,
    pixel_max: int,
    tell: Progress,
) -> dict[str, Scale]:
    """Scales for neurons that integrate and fire, fitted on spikes."""
    few = images[: options.fit_images]
    inputs = torch.from_numpy(encode(few, options.coding, options.steps, seed=options.seed, pixel_max=pixel_max))
    if options.coding == "constant":
        inputs = inputs.to(torch.float32) / 255
    fitter = Fitter(graph, chosen[: len(few)], inputs, options.model(), options.readout)
    done: list[str] = []

    def fitted(name: str) -> None:
        done.append(name)
        tell("fitting", len(done), len(measured))

    return fitter.fit(dict(measured), fitted)


def _with_messages(
    graph: OpGraph,
    measured: Mapping[str, Activations],
    images: npt.NDArray[np.uint8],
    chosen: torch.Tensor,
    options: ConversionOptions,
    pixel_max: int,
    tell: Progress,
) -> tuple[dict[str, Scale], MessageCost]:
    """Scales, thresholds and biases for sigma-delta neurons."""
    pixels = torch.from_numpy(encode(images[: len(chosen)], options.coding, 1, pixel_max=pixel_max)[:, 0])
    return fit_sigma_delta(
        graph,
        relu_scales(graph, measured),
        pixels,
        chosen,
        options.message_error,
        lambda done, of: tell("choosing thresholds", done, of),
    )


def _check_activations(
    activations: Mapping[str, Activations], graph: OpGraph, populations: list[str], options: ConversionOptions
) -> None:
    """They must be of this network's populations, and of what this coding feeds."""
    if options.coding.startswith("rate"):
        raise UsageError(f"stored activations are of plain intensities, coding {options.coding} feeds others; measure")
    expected = {name: graph.ops[name].shape[0] for name in populations}
    found = {name: len(values.percentile) for name, values in activations.items()}
    if found != expected:
        wrong = next(name for name in [*expected, *found] if found.get(name) != expected.get(name))
        raise UsageError(
            f"the stored activations have {found.get(wrong, 0)} channels for {wrong}, the network "
            f"{expected.get(wrong, 0)}; they are of another network: measure them again with calibrate"
        )


def _check_faithful(graph: OpGraph, model: nn.Module, images: torch.Tensor) -> None:
    """The operations must compute what the model computes: nothing was skipped or misread."""
    with torch.no_grad():
        expected = model.eval()(images.clone())  # a model may overwrite its input
        found = evaluate(graph, images, {graph.output.name})[graph.output.name]
    scale = float(expected.abs().max())
    # A softmax at the output was dropped: compare what it would have been given, up to a constant.
    if bool((expected >= 0).all()) and bool(torch.allclose(expected.sum(1), torch.ones(len(expected)), atol=1e-4)):
        found = torch.softmax(found, dim=1)
    elif bool((expected <= 0).all()) and bool(
        torch.allclose(expected.exp().sum(1), torch.ones(len(expected)), atol=1e-4)
    ):
        found = torch.log_softmax(found, dim=1)
    worst = float((found - expected).abs().max())
    if not worst <= FAITHFUL * max(scale, 1.0):
        raise ConversionError(
            f"the traced network differs from the model by {worst:.3g} (largest output {scale:.3g}); "
            "its forward depends on something a trace does not show (dropout that is always on, random numbers, state)"
        )
