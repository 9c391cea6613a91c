"""A client that trains over the wire: its batches cut into turns, each made again if it did not come to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gascnn.toolkit.errors import BackendError, TrainingError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import ClientState, Gradient, SplitClient
from gascnn.toolkit.pgsl.train import epoch_batches
from gascnn.toolkit.pgsl.wire.client import WireClient
from gascnn.toolkit.pgsl.wire.messages import Message, Refused
from gascnn.toolkit.training.batches import to_float

MOST_LOST_TURNS = 20
"""In a row: then another client is likely to use the same token."""

LostTurn = ("no-turn", "replay")
"""Reasons of a refusal that mean: ask for the turn again."""


@dataclass(frozen=True)
class Report:
    """How training went for one client.

    Attributes:
        batches: of its own that counted.
        turns: of its own that counted.
        lost_turns: begun and made again.
        steps: batches of all clients together.
        losses: of each of its batches: attacked, fused, recovered; from this process alone.
    """

    batches: int
    turns: int
    lost_turns: int
    steps: int
    losses: tuple[tuple[float, float, float], ...]


def own_turns(count: int, options: PgslOptions, turn_batches: int) -> list[list[tuple[int, Tensor]]]:
    """Epoch and image numbers of each batch of each of a client's turns.

    Args:
        count: of the client's images.
        options: epochs, batch size and seed.
        turn_batches: most batches of a turn; it may go over an epoch's end.
    """
    batches = [(epoch, chosen) for epoch in range(options.epochs) for chosen in epoch_batches(count, epoch, options)]
    return [batches[start : start + turn_batches] for start in range(0, len(batches), turn_batches)]


def train_over_wire(
    client: SplitClient,
    wire: WireClient,
    images: Tensor,
    labels: Tensor,
    turn_batches: int,
    on_step: Callable[[int, Gradient], None] | None = None,
    wait_s: float = 3600.0,
) -> Report:
    """Train until all clients are done; at the end ``client`` has the weights that the last one handed on.

    A client that was ended and begun anew, with the same images and options, goes on with the turn that it was in.

    Args:
        client: trained in place.
        wire: to the server.
        images: uint8 (n, ch, size, size).
        labels: int64 (n,).
        turn_batches: as the server's terms have it.
        on_step: called after each step with the epoch, from 0, and what the server sent.
        wait_s: longest time to wait for a turn.

    Raises:
        BackendError: no answer, or no turn for ``wait_s``.
        DataError: images that make no batch.
        Refused: what the server does not take.
        TrainingError: turns that are lost again and again.
    """
    turns = own_turns(len(images), client.options, turn_batches)
    made = lost = in_a_row = batches = 0
    losses: list[tuple[float, float, float]] = []
    while True:
        reply = _ask_for_turn(wire, wait_s)
        client.take(_state(reply))
        if reply.kind == "finished":
            return Report(batches, made, lost, reply.values["step"], tuple(losses))
        number = reply.values["own_turns"]
        if number > len(turns):
            raise TrainingError(f"the server counted {number} turns, these images make {len(turns)}; use the same ones")
        turn = turns[number] if number < len(turns) else []
        try:
            steps = _make_turn(client, wire, reply.values["grant"], turn, number + 1 >= len(turns), images, labels)
        except Refused as error:
            if error.reason not in LostTurn:
                raise
            lost, in_a_row = lost + 1, in_a_row + 1
            if in_a_row > MOST_LOST_TURNS:
                raise TrainingError(
                    f"{in_a_row} turns in a row were lost; is another client using the same token?"
                ) from error
            continue
        in_a_row, made, batches = 0, made + 1, batches + len(turn)
        for (epoch, _), step in zip(turn, steps, strict=True):
            losses.append(step.losses)
            if on_step is not None:
                on_step(epoch, step)


def _make_turn(
    client: SplitClient,
    wire: WireClient,
    grant: str,
    turn: Sequence[tuple[int, Tensor]],
    done: bool,
    images: Tensor,
    labels: Tensor,
) -> list[Gradient]:
    steps = []
    for number, (_, chosen) in enumerate(turn):
        upload = client.upload(to_float(images[chosen]), labels[chosen])
        tensors = {"activations": upload.activations.numpy(), "labels": labels[chosen].numpy()}
        reply = wire.send(Message("batch", {"grant": grant, "number": number}, tensors))
        steps.append(_gradient(reply))
        client.step(steps[-1])
    state = {name: value.numpy() for name, value in client.state().tensors.items()}
    wire.send(Message("hand-over", {"grant": grant, "batches": len(turn), "done": done}, state))
    return steps


def _gradient(reply: Message) -> Gradient:
    losses, step = reply.values["losses"], reply.values["step"]
    if len(losses) != 3 or any(type(loss) is not float for loss in losses) or step < 0:
        raise BackendError("the server's answer holds no step and three losses; is it of this version?")
    gradient = torch.from_numpy(reply.tensors["gradient"]).clone()
    return Gradient(gradient, step, (losses[0], losses[1], losses[2]))


def _ask_for_turn(wire: WireClient, wait_s: float) -> Message:
    until = time.monotonic() + wait_s
    while True:
        reply = wire.send(Message("turn"))
        if reply.kind != "wait":
            return reply
        if time.monotonic() > until:
            raise BackendError(f"no turn for {wait_s:g} s; are the other clients running?")
        time.sleep(min(max(reply.values["seconds"], 0.01), 10.0))


def _state(reply: Message) -> ClientState:
    return ClientState({name: torch.from_numpy(value).clone() for name, value in reply.tensors.items()})
