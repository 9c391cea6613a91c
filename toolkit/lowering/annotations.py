"""What NIR cannot say, kept in its nodes' metadata: reset, time step, coding, initial membrane, calibration.

NIR's IF resets to ``v_reset`` since 1.0.8 and by subtraction before, and nothing in a file tells which was meant; so
a graph says its reset here, or the user does (``--reset``).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import nir
import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.framing import FRAMINGS
from gascnn.toolkit.lowering.deployment import Coding

KEY = "gascnn"
SCHEMA = 1


@dataclass(frozen=True)
class GraphNotes:
    """Facts about a whole graph.

    Attributes:
        reset: ``zero`` or ``subtract``; None where the graph does not say.
        dt: length of a step, in the unit of its time constants; None where no neuron needs it.
        coding: how images become spikes; see :mod:`gascnn.toolkit.coding`.
        seed: of the coding.
        steps: T it was calibrated for.
        skip_steps: first read-out steps left out of the spike count.
        classes: class names.
        image_shape: (C, H, W), or None if unknown.
        pixel_max: pixel value of intensity 1.
        framing: what part of an image it takes; see :mod:`gascnn.toolkit.framing`.
        provenance: where the network came from.
        neuron: ``cuba`` (integrate and fire) or ``sdnn``: its IF nodes stand for ReLUs, to become sigma-delta neurons.
        input_threshold: of ``sdnn``: the smallest change of a pixel that is sent, as a share of the largest message.
    """

    reset: Literal["zero", "subtract"] | None = None
    dt: float | None = None
    coding: Coding = "regular"
    seed: int = 0
    steps: int = 64
    skip_steps: int = 0
    classes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    pixel_max: int = 255
    framing: str = "whole"
    provenance: dict[str, Any] = field(default_factory=dict)
    neuron: Literal["cuba", "sdnn"] = "cuba"
    input_threshold: float = 0.0

    def checked(self) -> GraphNotes:
        """Itself, if its values can be used.

        Raises:
            FormatError: a value of the wrong kind or out of range.
        """
        good = {
            "reset": self.reset in (None, "zero", "subtract"),
            "dt": self.dt is None or (isinstance(self.dt, int | float) and 0 < self.dt < math.inf),
            "coding": self.coding in get_args(Coding),
            "seed": _whole(self.seed, 0),
            "steps": _whole(self.steps, 1),
            "skip_steps": _whole(self.skip_steps, 0),
            "classes": all(isinstance(name, str) for name in self.classes),
            "image_shape": self.image_shape is None
            or (len(self.image_shape) == 3 and all(_whole(n, 1) for n in self.image_shape)),
            "pixel_max": _whole(self.pixel_max, 1),
            "framing": self.framing in FRAMINGS,
            "provenance": isinstance(self.provenance, dict),
            "neuron": self.neuron in ("cuba", "sdnn"),
            "input_threshold": isinstance(self.input_threshold, int | float) and 0 <= self.input_threshold <= 1,
        }
        for name, fine in good.items():
            if not fine:
                raise FormatError(f"the NIR graph's notes say {name} {getattr(self, name)!r}; convert it again")
        return self


def _whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


@dataclass(frozen=True, eq=False)
class NeuronNotes:
    """Facts about one population.

    Attributes:
        initial_membrane: membrane potential at the start, as a share of the threshold, 0..1.
        current_peak: (C,) largest absolute input current of one step seen in calibration, in thresholds; None if
            never measured.
        membrane_peak: (C,) largest absolute membrane potential seen in calibration, in thresholds; None likewise. Of a
            sigma-delta neuron: its largest activation.
        message_threshold: of a sigma-delta neuron: the smallest change that is sent, as a share of the largest message.
    """

    initial_membrane: float = 0.0
    current_peak: npt.NDArray[np.floating] | None = None
    membrane_peak: npt.NDArray[np.floating] | None = None
    message_threshold: float = 0.0


def graph_notes(graph: nir.NIRGraph) -> GraphNotes:
    """Read the notes of a graph; a graph of somebody else gets the defaults.

    Raises:
        FormatError: notes of another schema or garbled.
    """
    text = graph.metadata.get(KEY) if graph.metadata else None
    if text is None:
        return GraphNotes()
    try:
        values = json.loads(_text(text))
        if values.pop("schema") != SCHEMA:
            raise FormatError(f"the NIR graph's notes have another schema than {SCHEMA}; convert it again")
        values["classes"] = tuple(values["classes"])
        if values["image_shape"] is not None:
            values["image_shape"] = tuple(values["image_shape"])
        return GraphNotes(**values).checked()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"the NIR graph's notes are garbled ({error}); convert it again") from error


def set_graph_notes(graph: nir.NIRGraph, notes: GraphNotes) -> None:
    """Write the notes into the graph's metadata."""
    graph.metadata[KEY] = json.dumps({"schema": SCHEMA, **asdict(notes)})


def neuron_notes(node: nir.NIRNode) -> NeuronNotes:
    """Read the notes of a neuron node; missing ones get the defaults.

    Raises:
        FormatError: a share outside 0..1, peaks that are negative or not finite.
    """
    values = node.metadata or {}
    initial = _share("initial_membrane", values.get("initial_membrane", 0.0), "threshold")
    threshold = _share("message_threshold", values.get("message_threshold", 0.0), "largest message")
    current, membrane = (values.get(name) for name in ("current_peak", "membrane_peak"))
    return NeuronNotes(initial, _peak(current), _peak(membrane), threshold)


def set_neuron_notes(node: nir.NIRNode, notes: NeuronNotes) -> None:
    """Write the notes into a neuron node's metadata."""
    node.metadata["initial_membrane"] = float(notes.initial_membrane)
    if notes.message_threshold:
        node.metadata["message_threshold"] = float(notes.message_threshold)
    for name in ("current_peak", "membrane_peak"):
        value = getattr(notes, name)
        if value is not None:
            node.metadata[name] = np.asarray(value, dtype=np.float32)


def _share(name: str, value: object, of: str) -> float:
    numbers = _numbers(name, value)
    if numbers.size != 1 or numbers[0] > 1.0:
        raise FormatError(f"{name} is {numbers}; it must be one share of the {of}, 0..1")
    return float(numbers[0])


def _peak(value: object) -> npt.NDArray[np.floating] | None:
    return None if value is None else _numbers("a peak", value)


def _numbers(name: str, value: object) -> npt.NDArray[np.floating]:
    try:
        numbers = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise FormatError(f"{name} in a NIR node's notes is no number ({error}); convert the network again") from error
    if numbers.size == 0 or not np.all(np.isfinite(numbers)) or np.any(numbers < 0):
        raise FormatError(f"{name} in a NIR node's notes is negative or not finite; convert the network again")
    return numbers


def _text(value: object) -> str:
    plain = value if isinstance(value, str | bytes) else np.asarray(value).item()
    return plain.decode("utf-8") if isinstance(plain, bytes) else str(plain)
