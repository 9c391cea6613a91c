"""What a user needs to feed and read a deployed network; travels inside the file, ignored by stock NetX."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.framing import FRAMINGS

Coding = Literal["regular", "bernoulli", "constant", "rate", "rate-inverted", "rate-normal"]
Grade = Literal["hardware", "simulator"]

STEPS_MAX = 1000
"""T, at most, that a network is fitted or learnt for: spikes of all steps are held, and accuracy has settled before."""

SCHEMA = 1


@dataclass(frozen=True)
class Deployment:
    """How to feed and read a network.

    Attributes:
        image_shape: (C, H, W) of the images, without constant channels.
        classes: class names, in the order of the output neurons.
        steps: T, the number of input steps it was fitted for.
        coding: ``regular`` (evenly spaced spikes, seeded phase), ``bernoulli`` (seeded random spikes), ``constant``
            (the pixel itself at every step), ``rate``, ``rate-inverted`` or ``rate-normal`` (above or below seeded
            random thresholds between the image's extremes); see :mod:`gascnn.toolkit.coding`.
        seed: of the coding.
        pixel_max: the pixel value that means intensity 1 (255 for 8-bit images).
        framing: what part of an image it takes; see :mod:`gascnn.toolkit.framing`.
        grade: ``hardware`` if every number is within the chip's documented ranges, else ``simulator``.
        skip_steps: how many of the first read-out steps are left out of the spike count.
        expected: figures of exactly this network (its ``digest`` names it): dataset, split, images, accuracy, ...
        provenance: where it came from: source model's hash, dataset, versions.
    """

    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    steps: int
    coding: Coding = "regular"
    seed: int = 0
    pixel_max: int = 255
    framing: str = "whole"
    grade: Grade = "hardware"
    skip_steps: int = 0
    expected: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON with a schema number."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Deployment:
        """Read what :meth:`to_json` wrote.

        Raises:
            FormatError: not JSON, another schema, or a field missing or of the wrong kind.
        """
        try:
            values = json.loads(text)
            schema = values.pop("schema")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise FormatError(f"the deployment record is not what this version writes ({error})") from error
        if schema != SCHEMA:
            raise FormatError(f"the deployment record has schema {schema}; this version reads schema {SCHEMA}")
        try:
            return cls(
                **{
                    **values,
                    "image_shape": tuple(int(n) for n in values["image_shape"]),
                    "classes": tuple(str(c) for c in values["classes"]),
                    "steps": int(values["steps"]),
                }
            ).checked()
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"the deployment record lacks or garbles a field ({error})") from error

    def checked(self) -> Deployment:
        """Itself, if its values can be used.

        Raises:
            FormatError: a value of the wrong kind or out of range.
        """
        good = {
            "image_shape": bool(self.image_shape) and min(self.image_shape) > 0,
            "seed": isinstance(self.seed, int) and self.seed >= 0,
            "pixel_max": isinstance(self.pixel_max, int) and self.pixel_max > 0,
            "framing": self.framing in FRAMINGS,
            "grade": self.grade in get_args(Grade),
            "expected": isinstance(self.expected, dict),
            "provenance": isinstance(self.provenance, dict),
        }
        wrong = [name for name, fine in good.items() if not fine]
        if wrong:
            raise FormatError(f"{wrong[0]} is {getattr(self, wrong[0])!r}")
        if self.coding not in get_args(Coding):
            raise FormatError(f"unknown input coding {self.coding!r}; known: {', '.join(get_args(Coding))}")
        if self.steps < 1 or self.skip_steps < 0 or self.skip_steps >= self.steps:
            raise FormatError(f"steps {self.steps} and skip_steps {self.skip_steps} leave nothing to read out")
        return self
