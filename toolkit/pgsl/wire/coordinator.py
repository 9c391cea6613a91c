"""Who trains when: turns are granted, counted and handed on, and each is made whole or not at all.

A client asks for its turn and is granted it with the weights that the client before it handed on. It sends its batches,
numbered from 0 within the turn, and then its own weights, which ends the turn: only now the server's progress is
written to the disk and counts. Whatever breaks in between, the client, the connection or the server, both sides go back
to the beginning of the turn, and the client makes it again. Dropout goes by the step, the batches by the client's count
of turns, so the numbers are the same as if nothing had happened.

A repeated request is told from a replayed one by the attempt that it names. A turn's last batch and a client's last
hand-over, sent again as a further attempt, get the answer they had: it may have been lost on its way, and a client must
be able to ask again without counting twice. The same attempt again, byte for byte, an older number, or another body
under the same number is refused with 409.

In use, any client may send activations at any time; answers come from the weights as they are, also amid a turn.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.errors import DataError, FormatError, TrainingError
from gascnn.toolkit.pgsl.split import ClientState, SplitServer, Upload
from gascnn.toolkit.pgsl.train import make_client
from gascnn.toolkit.pgsl.wire.messages import Array, Message, Refused
from gascnn.toolkit.pgsl.wire.store import Checkpoint, HandOver, Progress, RunStore
from gascnn.toolkit.training.checkpoint import weights_sha256

TURN_BATCHES = 20
LEASE_S = 60.0
"""A client that was granted a turn, or could have been, and is silent for so long, loses it to the next."""

WAIT_S = 0.2
"""After which a client that waits for its turn asks again."""

FEWEST_IMAGES = 2
"""Of a batch, as in one process: a batch norm over a single place has no statistics of one image."""


@dataclass
class Counts:
    """What happened since the server was started, for its metrics.

    Attributes:
        batches: trained, also those of turns that were not ended.
        repeated: batches and hand-overs tried again and answered again.
        turns: ended.
        taken_back: turns begun and not ended.
        skipped: turns passed to the next client because of silence.
        images: classified.
    """

    batches: int = 0
    repeated: int = 0
    turns: int = 0
    taken_back: int = 0
    skipped: int = 0
    images: int = 0


@dataclass
class _Grant:
    """A turn under way."""

    client: str
    name: str
    batches: int = 0
    digest: str = ""
    attempt: int = 0
    reply: Message | None = None


class Coordinator:
    """Takes one message at a time, from any thread.

    Args:
        server: trained in place.
        channels: of the images, which with the server's options says what a client's state must be.
        clients: names of those that train, in the order of their turns.
        store: the run's folder; its checkpoint is gone on from.
        turn_batches: most batches of a turn.
        lease_s: see :data:`LEASE_S`.
        clock: seconds, of any beginning.

    Attributes:
        server: as given.
        progress: what is written and counts.
        counts: since the start.

    Raises:
        FormatError: a checkpoint of another network.
    """

    def __init__(
        self,
        server: SplitServer,
        channels: int,
        clients: Sequence[str],
        store: RunStore,
        *,
        turn_batches: int = TURN_BATCHES,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server, self.clients, self.channels = server, tuple(clients), channels
        self.turn_batches, self.lease_s = turn_batches, lease_s
        self.counts = Counts()
        self._store, self._clock, self._lock = store, clock, threading.Lock()
        classifier = LocalClassifier(channels, server.model.classes, server.model.image_size, 1)
        # Its layers alone matter: they say what states there can be, and where training begins.
        self._keeper = make_client(classifier, server.options)
        found = store.load()
        if found is not None:
            self.server.restore(found.server, {"steps": found.progress.steps})
            self._keeper.take(ClientState(found.client))
        self._saved = found or Checkpoint(server.state()[0], self._keeper.state().tensors, Progress())
        self._grant: _Grant | None = None
        self._heard = clock()

    @property
    def progress(self) -> Progress:
        """What is written and counts."""
        return self._saved.progress

    @property
    def finished(self) -> bool:
        """Whether every client said that it is done."""
        return len(self.progress.done) == len(self.clients)

    def handle(self, client: str, message: Message, digest: str, attempt: int = 1) -> Message:
        """Answer a message.

        Args:
            client: who sent it.
            message: of :data:`gascnn.toolkit.pgsl.wire.messages.REQUESTS`.
            digest: SHA-256 of its bytes.
            attempt: which sending of these bytes this is, counted from 1.

        Raises:
            Refused: 403, 409, 422 or 507; nothing has changed.
        """
        with self._lock:
            if message.kind == "terms":
                return self._terms()
            if message.kind == "query":
                return self._query(message)
            if client not in self.clients:
                raise Refused(403, "role", f"{client} takes no part in training; it may send terms and query")
            if message.kind == "turn":
                return self._turn(client)
            if message.kind == "batch":
                return self._batch(client, message, digest, attempt)
            return self._hand_over(client, message, digest, attempt)

    def _terms(self) -> Message:
        model, options = self.server.model, self.server.options
        return Message(
            "terms-reply",
            {
                "options": options.to_dict(),
                "classes": model.classes,
                "image_shape": [self.channels, model.image_size, model.image_size],
                "turn_batches": self.turn_batches,
                "images": options.batch_size,
                # Which client's two layers the server's continue: activations of others would mean nothing to it.
                "layers_sha256": weights_sha256(self._keeper.model.layers),
                "training": self._grant is not None or (self.progress.steps > 0 and not self.finished),
            },
        )

    def _turn(self, client: str) -> Message:
        if self.finished:
            return Message("finished", {"step": self.progress.steps}, _arrays(self._saved.client))
        if self.clients[self.progress.holder] != client and self._clock() - self._heard > self.lease_s:
            self._skip()
        if self.clients[self.progress.holder] != client:
            return Message("wait", {"seconds": WAIT_S})
        # Who asks again has begun anew, or never got the answer: the turn starts from its beginning.
        self._take_back()
        self._heard = self._clock()
        self._grant = _Grant(client, secrets.token_hex(16))
        values = {
            "grant": self._grant.name,
            "own_turns": self.progress.own_turns.get(client, 0),
            "step": self.progress.steps,
        }
        return Message("granted", values, _arrays(self._saved.client))

    def _batch(self, client: str, message: Message, digest: str, attempt: int) -> Message:
        grant = self._granted(client, message.values["grant"])
        number = message.values["number"]
        if grant.reply is not None and number == grant.batches - 1 and digest == grant.digest:
            grant.attempt = self._again(f"batch {number}", attempt, grant.attempt)
            return grant.reply
        if number != grant.batches:
            raise Refused(
                409, "replay", f"batch {number} of this turn was sent, {grant.batches} is next; each counts once"
            )
        if number >= self.turn_batches:
            raise Refused(409, "turn-full", f"a turn has {self.turn_batches} batches; hand your weights over")
        upload = self._upload(message, FEWEST_IMAGES)
        try:
            gradient = self.server.train(upload)
        except (DataError, TrainingError) as error:
            raise Refused(422, "data", str(error)) from error
        finally:
            # The time that the server took for itself is no silence of the client.
            self._heard = self._clock()
        reply = Message(
            "gradient",
            {"step": gradient.step, "losses": list(gradient.losses)},
            {"gradient": gradient.gradient.numpy()},
        )
        grant.batches, grant.digest, grant.attempt, grant.reply = number + 1, digest, attempt, reply
        self.counts.batches += 1
        return reply

    def _hand_over(self, client: str, message: Message, digest: str, attempt: int) -> Message:
        values, progress = message.values, self.progress
        last = progress.handed_over.get(client)
        if last is not None and (values["grant"], digest) == (last.grant, last.digest):
            return self._handed_over_before(client, last, attempt)
        grant = self._granted(client, values["grant"])
        if values["batches"] != grant.batches:
            raise Refused(
                409, "replay", f"{values['batches']} batches are handed over, {grant.batches} of this turn were counted"
            )
        if not grant.batches and not values["done"]:
            raise Refused(409, "empty-turn", "a turn without batches is handed over; send some, or say that it is done")
        try:
            self._keeper.take(ClientState({name: torch.from_numpy(v).clone() for name, v in message.tensors.items()}))
        except (FormatError, DataError) as error:
            raise Refused(422, "data", str(error)) from error
        done = (*progress.done, client) if values["done"] else progress.done
        ended = HandOver(grant.name, digest, attempt, progress.turns + 1, self.server.steps)
        after = replace(
            progress,
            steps=ended.step,
            turns=ended.turns,
            holder=self._after(progress.holder, done),
            own_turns={**progress.own_turns, client: progress.own_turns.get(client, 0) + 1},
            own_batches={**progress.own_batches, client: progress.own_batches.get(client, 0) + grant.batches},
            done=done,
            handed_over={**progress.handed_over, client: ended},
        )
        self._save(Checkpoint(self.server.state()[0], self._keeper.state().tensors, after))
        self._grant, self._heard = None, self._clock()
        self.counts.turns += 1
        return _handed_over(ended)

    def _handed_over_before(self, client: str, last: HandOver, attempt: int) -> Message:
        answered = replace(last, attempt=self._again("this hand-over", attempt, last.attempt))
        # Also a server that is started again knows that this attempt was answered.
        after = replace(self.progress, handed_over={**self.progress.handed_over, client: answered})
        self._save(replace(self._saved, progress=after))
        return _handed_over(answered)

    def _again(self, what: str, attempt: int, answered: int) -> int:
        """The attempt that is answered once more, if it is one that was not answered before."""
        if attempt <= answered:
            raise Refused(409, "replay", f"attempt {attempt} of {what} was answered before; each is answered once")
        self.counts.repeated += 1
        return attempt

    def _save(self, checkpoint: Checkpoint) -> None:
        try:
            self._store.save(checkpoint)
        except DataError as error:
            # The turn is still open; the same hand-over may come again once there is room.
            raise Refused(507, "storage", "the server could not write its checkpoint; send this again later") from error
        self._saved = checkpoint

    def _query(self, message: Message) -> Message:
        try:
            answer = self.server.answer(self._upload(message, 1))
        except DataError as error:
            raise Refused(422, "data", str(error)) from error
        self.counts.images += len(answer.scores)
        names = ("scores", "attacked", "fused", "recovered")
        return Message("answer", {}, {name: getattr(answer, name).numpy() for name in names})

    def _upload(self, message: Message, fewest: int) -> Upload:
        tensors = {name: torch.from_numpy(value).clone() for name, value in message.tensors.items()}
        upload = Upload(tensors["activations"], tensors.get("labels"))
        most, count = self.server.options.batch_size, len(upload.activations)
        if not fewest <= count <= most:
            raise Refused(422, "data", f"{count} images were sent at once; allowed: {fewest} to {most}")
        try:
            self.server.check(upload)
        except DataError as error:
            raise Refused(422, "data", str(error)) from error
        return upload

    def _granted(self, client: str, name: str) -> _Grant:
        grant = self._grant
        given = name if name.isascii() else ""
        if grant is None or grant.client != client or not secrets.compare_digest(grant.name, given):
            raise Refused(409, "no-turn", "this turn is over or was begun anew; ask for a turn")
        self._heard = self._clock()
        return grant

    def _take_back(self) -> None:
        """Undo what a turn that is not ended has done."""
        if self._grant is None:
            return
        if self._grant.batches:
            self.server.restore(self._saved.server, {"steps": self.progress.steps})
            self.counts.taken_back += 1
        self._grant = None

    def _skip(self) -> None:
        self._take_back()
        holder = self._after(self.progress.holder, self.progress.done)
        self._saved = replace(self._saved, progress=replace(self.progress, holder=holder))
        self._heard = self._clock()
        self.counts.skipped += 1

    def _after(self, holder: int, done: Sequence[str]) -> int:
        """The next client that is not done; the same one where there is no other."""
        count = len(self.clients)
        following = [(holder + i) % count for i in range(1, count + 1)]
        return next((i for i in following if self.clients[i] not in done), holder)


def _handed_over(ended: HandOver) -> Message:
    return Message("handed-over", {"turns": ended.turns, "step": ended.step})


def digest_of(body: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Array]:
    return {name: value.numpy() for name, value in tensors.items()}
