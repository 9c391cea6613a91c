"""What an exported file says of itself in its metadata properties, and the digest that seals it.

Each property's name begins with ``gascnn.``; values are text, lists and tables in JSON. The last one,
``gascnn.sha256``, is the SHA-256 of every byte before it, so that a file that was cut short or changed on its way is
found out before it gives a wrong answer. It is a checksum, not a signature: whoever changes the file on purpose can
write a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.framing import FRAMINGS

SCHEMA = "1"
PARTS = ("resnet", "pgsl-client")
PRECISIONS = ("fp32", "int8")
_PREFIX = "gascnn."
_SEAL = b"\x72\x51\x0a\x0dgascnn.sha256\x12\x40"  # field 14, 81 bytes: key, 13 bytes; value, 64 bytes


@dataclass(frozen=True)
class OnnxMetadata:
    """What a file computes, on which images.

    Attributes:
        part: ``resnet`` (images in, logits out) or ``pgsl-client`` (images in, activations out).
        precision: ``fp32``, or ``int8`` (static quantisation).
        image_shape: (C, H, W) of the images, uint8.
        pixel_max: the pixel value that means intensity 1; the division is inside the graph.
        framing: what part of an image it was trained on; see :mod:`gascnn.toolkit.framing`.
        classes: names in the order of the outputs.
        bundle_sha256: of the ``model.json`` it was made from, which names the hash of its weights.
        version: of the program that wrote it.
        details: what else belongs to the part, such as how it was quantised; plain values.
    """

    part: str
    precision: str
    image_shape: tuple[int, int, int]
    pixel_max: int
    framing: str
    classes: tuple[str, ...]
    bundle_sha256: str
    version: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def properties(self) -> dict[str, str]:
        """As text, without the digest."""
        values = {
            "schema": SCHEMA,
            "part": self.part,
            "precision": self.precision,
            "image_shape": _json(list(self.image_shape)),
            "pixel_max": _json(self.pixel_max),
            "framing": self.framing,
            "classes": _json(list(self.classes)),
            "bundle_sha256": self.bundle_sha256,
            "version": self.version,
            "details": _json(self.details),
        }
        return {_PREFIX + name: value for name, value in values.items()}


def own_version() -> str:
    """Of this package as it is installed."""
    try:
        return version("gascnn")
    except PackageNotFoundError:
        return "unknown"


def seal(body: bytes) -> bytes:
    """What follows the ``body`` of a file: its digest, as one more entry of the model's ``metadata_props``.

    A serialised protocol buffer may be continued by another of the same message: both together are one model.
    """
    return _SEAL + hashlib.sha256(body).hexdigest().encode()


def check_seal(data: bytes) -> bool | None:
    """Whether a file's bytes are those that were written; None if it carries no digest of ours."""
    length = len(seal(b""))
    body, found = data[:-length], data[-length:]
    return found == seal(body) if found.startswith(_SEAL) else None


def read_properties(properties: Mapping[str, str]) -> OnnxMetadata:
    """The inverse of :meth:`OnnxMetadata.properties`.

    Raises:
        FormatError: not ours, another schema, or a value that cannot be; says which.
    """
    values = {key.removeprefix(_PREFIX): value for key, value in properties.items() if key.startswith(_PREFIX)}
    if "schema" not in values:
        raise FormatError("holds no metadata of 'gascnn export'; it was written by another program")
    if values["schema"] != SCHEMA:
        raise FormatError(f"metadata of schema {values['schema']!r}; this version reads schema {SCHEMA}")
    found = {name: _parsed(values.get(name, "")) for name in ("image_shape", "pixel_max", "classes", "details")}
    shape, classes = found["image_shape"], found["classes"]
    checks = {
        "part": values.get("part") in PARTS,
        "precision": values.get("precision") in PRECISIONS,
        "image_shape": isinstance(shape, list) and len(shape) == 3 and all(_positive(n) for n in shape),
        "pixel_max": _positive(found["pixel_max"]),
        "framing": values.get("framing") in FRAMINGS,
        "classes": isinstance(classes, list) and all(isinstance(name, str) for name in classes),
        "bundle_sha256": "bundle_sha256" in values,
        "version": "version" in values,
        "details": isinstance(found["details"], dict),
    }
    wrong = [name for name, good in checks.items() if not good]
    if wrong:
        raise FormatError(f"its metadata {_PREFIX}{wrong[0]} is missing or of the wrong kind; export it again")
    return OnnxMetadata(
        part=values["part"],
        precision=values["precision"],
        image_shape=(shape[0], shape[1], shape[2]),
        pixel_max=found["pixel_max"],
        framing=values["framing"],
        classes=tuple(classes),
        bundle_sha256=values["bundle_sha256"],
        version=values["version"],
        details=found["details"],
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _positive(value: object) -> bool:
    return type(value) is int and value > 0
