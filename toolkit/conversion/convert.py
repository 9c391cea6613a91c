"""The whole conversion: trace, passes, calibrate, fit, emit, check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gascnn.toolkit.coding import encode
from gascnn.toolkit.conversion.calibrate import measure_activations
from gascnn.toolkit.conversion.emit import emit
from gascnn.toolkit.conversion.fit import Fitter, Scale
from gascnn.toolkit.conversion.ir import Entry, OpGraph, evaluate
from gascnn.toolkit.conversion.passes import PASSES
from gascnn.toolkit.conversion.response import NeuronModel
from gascnn.toolkit.conversion.trace import trace
from gascnn.toolkit.errors import ConversionError, DataError, UsageError
from gascnn.toolkit.lowering.annotations import GraphNotes
from gascnn.toolkit.lowering.deployment import Coding
from gascnn.toolkit.lowering.graph import read_graph
from gascnn.toolkit.lowering.plan import plan_layers

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
        reset: ``zero`` runs in stock NetX; ``subtract`` is the paper's neuron and loses least.
        steps: T the scales are fitted for.
        percentile: of real activations, one scale a channel.
        leak: share of the membrane potential kept each step (paper, eq. 1); 1 is none.
        initial_membrane: in thresholds; None takes one half for reset by subtraction without a leak (the target
            holds it as a shifted threshold) and 0 elsewhere.
        coding: of the input.
        seed: of the coding.
        skip_steps: first read-out steps left out of the spike count.
        calibration_images: how many images give the percentiles, at most; None takes 512, fewer of a large network.
        fit_images: how many of them are run as spikes, at most; None takes 64, fewer of a large network.
    """

    reset: Literal["zero", "subtract"] = "zero"
    steps: int = 64
    percentile: float = 99.9
    leak: float = 1.0
    initial_membrane: float | None = None
    coding: Coding = "regular"
    seed: int = 0
    skip_steps: int = 0
    calibration_images: int | None = None
    fit_images: int | None = None

    def checked(self) -> ConversionOptions:
        """Itself, if its values can be used.

        Raises:
            UsageError: a value out of range.
        """
        if self.reset not in ("zero", "subtract"):
            raise UsageError(f"reset is {self.reset!r}; it must be zero or subtract")
        if self.steps < 1:
            raise UsageError(f"steps is {self.steps}; it must be at least 1")
        if not 0.0 < self.leak <= 1.0:
            raise UsageError(f"leak is {self.leak}; the share kept each step must be above 0 and at most 1")
        if not 0 <= self.skip_steps < self.steps:
            raise UsageError(f"skip_steps is {self.skip_steps}; it must be 0..{self.steps - 1}")
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
        return self

    def with_counts(self, multiply_accumulates: int, available: int) -> ConversionOptions:
        """Both numbers of images settled for a network of that many products an image, and so many images."""
        cost = max(1, multiply_accumulates)
        calibration = min(self.calibration_images or _affordable(cost, MOST_CALIBRATION_IMAGES), available)
        fit = self.fit_images or _affordable(cost * self.steps, MOST_FIT_IMAGES)
        return replace(self, calibration_images=calibration, fit_images=min(fit, calibration))

    def neuron(self) -> NeuronModel:
        """The neuron that will run."""
        start = self.initial_membrane
        if start is None:
            start = 0.5 if self.reset == "subtract" and self.leak == 1.0 else 0.0
        return NeuronModel(self.reset, self.leak, start)


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
    """

    graph: nir.NIRGraph
    report: tuple[Entry, ...]
    rates: dict[str, float]
    options: ConversionOptions
    scales: dict[str, Scale] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "options": vars(self.options),
            "nodes": [vars(entry) for entry in self.report],
            "firing_rates": self.rates,
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
    progress: Progress | None = None,
    **changes: Any,
) -> Conversion:
    """Turn a trained feed-forward classifier into a spiking network.

    Args:
        model: takes (image, C, H, W) intensities 0..1, returns (image, class). It is traced with ``torch.fx``.
        images: (image, C, H, W) uint8 to calibrate with: training images, never test images.
        options: neuron, steps, scales, coding.
        classes: names, in the order of the outputs.
        pixel_max: pixel value of intensity 1.
        framing: what part of an image these are, recorded for whoever feeds the network.
        provenance: recorded in the result.
        progress: called as the work goes on.
        changes: fields of ``options`` by name, as in ``convert(model, images, reset="subtract", steps=32)``.

    Returns:
        The spiking network and a report that lists every node.

    Raises:
        ConversionError: operations that cannot be converted, all named, or a topology NetX cannot hold.
        DataError: images of another shape or type.
        UsageError: options out of range, or class names that do not fit the outputs.
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
    for rewrite in PASSES:
        rewrite(graph)
    options = options.with_counts(graph.multiply_accumulates, len(images))
    chosen = torch.from_numpy(images[: options.calibration_images].astype(np.float32) / pixel_max)
    _check_faithful(graph, model, chosen[: min(16, len(chosen))])
    populations = [op.name for op in graph if op.kind == "neurons"]
    with torch.no_grad():
        activations = measure_activations(
            graph, chosen, populations, options.percentile, progress=lambda n: tell("calibrating", n, len(chosen))
        )
        few = images[: options.fit_images]
        inputs = torch.from_numpy(encode(few, options.coding, options.steps, seed=options.seed, pixel_max=pixel_max))
        if options.coding == "constant":
            inputs = inputs.to(torch.float32) / 255
        fitter = Fitter(graph, chosen[: len(few)], inputs, options.neuron())
        done: list[str] = []

        def fitted(name: str) -> None:
            done.append(name)
            tell("fitting", len(done), len(populations))

        scales = fitter.fit(activations, fitted)
    notes = GraphNotes(
        reset=options.reset,
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
    )
    result = emit(graph, scales, options.neuron(), notes)
    plan_layers(read_graph(result), 0)  # what cannot become a sequence of layers is refused here, not at export
    return Conversion(result, tuple(graph.report), {n: s.rate for n, s in scales.items()}, options, scales)


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
