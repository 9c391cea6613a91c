"""What travels: one safetensors file a message, a version, a kind, plain values, and arrays of a stated kind.

Values stand as JSON under ``gascnn`` in the file's metadata. A message is read only if it is of this version and its
values and tensors are exactly those of its kind (:data:`SCHEMAS`). Nothing is pickled. numpy and safetensors are all
that this module needs, so an edge board can speak it without torch.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import GascnnError, first_line

VERSION = 2
"""Of this protocol. Both ends must have the same; there is one."""

CONTENT_TYPE = "application/vnd.safetensors"
ATTEMPT_HEADER = "Gascnn-Attempt"
"""Of HTTP: how often these very bytes were sent, this time included; missing, it is 1. It tells a message that is tried
again, since its answer was lost, from one that somebody recorded and sends again."""

LONGEST_HEADER = 1 << 20
"""Bytes of names, shapes and values; a client's state has some twenty tensors."""

_KEY = "gascnn"
_LENGTH = struct.Struct("<Q")

Array = npt.NDArray[Any]


class Refused(GascnnError):  # noqa: N818 - what the server did, in the past tense
    """A request that the server does not take; nothing of it was done.

    Args:
        status: of HTTP, 4xx or 5xx.
        reason: one word for programs.
        message: one sentence for people.
        retry_s: after which it may be sent again, where that helps.
    """

    def __init__(self, status: int, reason: str, message: str, retry_s: int = 1) -> None:
        super().__init__(message)
        self.status, self.reason, self.retry_s = status, reason, retry_s


@dataclass(frozen=True)
class Schema:
    """What a kind of message holds.

    Attributes:
        values: type of each plain value.
        tensors: safetensors' name of the type, and the number of axes, of each tensor.
        state: whether tensors of any other name may be there, float32 or int64: those of a client's state.
    """

    values: Mapping[str, type] = field(default_factory=dict)
    tensors: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    state: bool = False


REQUESTS: dict[str, Schema] = {
    "terms": Schema(),
    "turn": Schema(),
    "batch": Schema({"grant": str, "number": int}, {"activations": ("F32", 4), "labels": ("I64", 1)}),
    "hand-over": Schema({"grant": str, "batches": int, "done": bool}, state=True),
    "query": Schema(tensors={"activations": ("F32", 4)}),
}
"""Each is sent to the address of its name."""

REPLIES: dict[str, Schema] = {
    "terms-reply": Schema(
        {
            "options": dict,
            "classes": int,
            "image_shape": list,
            "turn_batches": int,
            "images": int,
            "layers_sha256": str,
            "training": bool,
        }
    ),
    "granted": Schema({"grant": str, "own_turns": int, "step": int}, state=True),
    "wait": Schema({"seconds": float}),
    "finished": Schema({"step": int}, state=True),
    "gradient": Schema({"step": int, "losses": list}, {"gradient": ("F32", 4)}),
    "handed-over": Schema({"turns": int, "step": int}),
    "answer": Schema(tensors=dict.fromkeys(("scores", "attacked", "fused", "recovered"), ("F32", 2))),
}

SCHEMAS = {**REQUESTS, **REPLIES}


@dataclass(frozen=True, eq=False)
class Message:
    """One message.

    Attributes:
        kind: of :data:`SCHEMAS`.
        values: plain values.
        tensors: arrays by name.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)


def encode(message: Message) -> bytes:
    """The bytes of a message; the same message gives the same bytes."""
    from safetensors.numpy import save

    text = json.dumps(
        {"version": VERSION, "kind": message.kind, "values": message.values}, allow_nan=False, sort_keys=True
    )
    return save({name: np.asarray(value, order="C") for name, value in message.tensors.items()}, {_KEY: text})


def decode(body: bytes, kinds: tuple[str, ...]) -> Message:
    """Read a message of one of ``kinds``. The arrays are copies.

    Raises:
        Refused: status 400; cut short, not safetensors, of another version or kind, or not as its kind has it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    header = _header(body)
    kind, values = _envelope(header.pop("__metadata__", None), kinds)
    _check_tensors(kind, header)
    try:
        arrays = load(body)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise _malformed(f"the body is cut short or not safetensors ({first_line(error)})") from error
    # A float32 scalar of Adam's steps is an array without axes; np.array keeps it one.
    return Message(kind, values, {name: np.array(value, order="C") for name, value in arrays.items()})


def _header(body: bytes) -> dict[str, Any]:
    """Names, types and shapes, before anything is made of the rest."""
    if len(body) < _LENGTH.size:
        raise _malformed(f"the body has {len(body)} bytes; send a safetensors message")
    (length,) = _LENGTH.unpack_from(body)
    if length > min(LONGEST_HEADER, len(body) - _LENGTH.size):
        raise _malformed("the body is cut short or not safetensors; send the whole message")
    try:
        header = json.loads(body[_LENGTH.size : _LENGTH.size + length])
    except (ValueError, RecursionError) as error:
        raise _malformed("the body's header is not JSON; send a safetensors message") from error
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise _malformed("the body's header is not a table; send a safetensors message")
    return header


def _envelope(metadata: Any, kinds: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    try:
        found = json.loads(metadata[_KEY])
        version, kind, values = found["version"], found["kind"], found["values"]
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise _malformed("the message says no version and kind; send one of this protocol") from error
    if type(version) is not int or version != VERSION:
        raise Refused(
            400, "version", f"the message is of protocol version {_short(version)}; this end speaks {VERSION}: update"
        )
    if kind not in kinds:
        raise _malformed(f"the message is of kind {_short(kind)}; expected {' or '.join(kinds)}")
    expected = SCHEMAS[kind].values
    if not isinstance(values, dict) or values.keys() != expected.keys():
        raise _malformed(f"the values of a {kind} message are {', '.join(expected) or 'none'}; others were sent")
    for name, kept in expected.items():
        value = values[name]
        if type(value) is not kept or (isinstance(value, float) and not math.isfinite(value)):
            raise _malformed(f"{name} of a {kind} message is of another type; expected {kept.__name__}")
    return kind, values


def _check_tensors(kind: str, header: Mapping[str, Any]) -> None:
    schema = SCHEMAS[kind]
    missing = [name for name in schema.tensors if name not in header]
    extra = [name for name in header if name not in schema.tensors]
    if missing or (extra and not schema.state):
        raise _malformed(f"the tensors of a {kind} message are {', '.join(schema.tensors) or 'none'}; others were sent")
    for name, entry in header.items():
        dtype, shape = entry.get("dtype"), entry.get("shape")
        axes = schema.tensors[name][1] if name in schema.tensors else None
        allowed = (schema.tensors[name][0],) if name in schema.tensors else ("F32", "I64")
        if dtype not in allowed or not isinstance(shape, list) or (axes is not None and len(shape) != axes):
            size = "" if axes is None else f" with {axes} axes"
            raise _malformed(
                f"tensor {_short(name)} is {_short(dtype)} of shape {_short(shape)}; expected {' or '.join(allowed)}"
                f"{size}"
            )


def _malformed(message: str) -> Refused:
    return Refused(400, "malformed", message)


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
