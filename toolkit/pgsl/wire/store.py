"""The server's run folder: what was agreed, and one checkpoint, written anew whenever a turn is over.

A checkpoint is one file written beside the old one and renamed: killed at any moment, the server finds the turn whole
or not at all.
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from gascnn.toolkit.errors import DataError, FormatError, UsageError
from gascnn.toolkit.training.checkpoint import LAST_FILE, load_checkpoint, save_checkpoint
from gascnn.toolkit.training.run_folder import open_run

_LOCK_FILE = "lock"
_SERVER, _CLIENT = "server.", "client."
_HANDED_OVER = {"grant": str, "digest": str, "attempt": int, "turns": int, "step": int}


@dataclass(frozen=True)
class HandOver:
    """A client's last one, and what it was answered.

    Attributes:
        grant: of the turn that it ended.
        digest: SHA-256 of its bytes.
        attempt: the latest that was answered, from 1.
        turns: whole turns made with it, all clients together.
        step: batches counted with it, all clients together.
    """

    grant: str
    digest: str
    attempt: int
    turns: int
    step: int


@dataclass(frozen=True)
class Progress:
    """How far training has come; never changed, always replaced.

    Attributes:
        steps: batches counted, all clients together.
        turns: whole turns made.
        holder: number of the client whose turn it is.
        own_turns: whole turns of each client.
        own_batches: batches counted of each client.
        done: clients that have no more turns.
        handed_over: the last hand-over of each client.
    """

    steps: int = 0
    turns: int = 0
    holder: int = 0
    own_turns: dict[str, int] = field(default_factory=dict)
    own_batches: dict[str, int] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    handed_over: dict[str, HandOver] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """All that a server goes on from.

    Attributes:
        server: tensors of the server's network and optimiser.
        client: tensors of the state that the next client takes.
        progress: where training is.
    """

    server: dict[str, Tensor]
    client: dict[str, Tensor]
    progress: Progress


class RunStore:
    """A run's folder, held by one process.

    Args:
        folder: made if it is not there; a run in it goes on.
        options: of split learning.
        model: classes and image shape.
        clients: names in the order of their turns, and the turns' length.

    Raises:
        DataError: the folder cannot be written.
        FormatError: what is there is damaged.
        UsageError: another process serves it, or its run was begun with other values.
    """

    def __init__(
        self, folder: Path, options: Mapping[str, Any], model: Mapping[str, Any], clients: Mapping[str, Any]
    ) -> None:
        self.path = folder / LAST_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Kept open: the lock goes with the process, however it ends.
            self._lock = open(folder / _LOCK_FILE, "w")  # noqa: SIM115
        except OSError as error:
            raise DataError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UsageError(f"{folder} is served by another process; stop it, or name another folder") from error
        try:
            open_run(folder, {"options": dict(options), "model": dict(model), "dataset": dict(clients)}, resume=True)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, flushed to the disk, in place of the one there.

        Raises:
            DataError: the disk is full or the folder cannot be written; the older one is kept.
        """
        tensors = {_SERVER + name: value for name, value in checkpoint.server.items()}
        tensors |= {_CLIENT + name: value for name, value in checkpoint.client.items()}
        save_checkpoint(self.path, tensors, {"progress": asdict(checkpoint.progress)})

    def load(self) -> Checkpoint | None:
        """The last checkpoint, None before the first.

        Raises:
            FormatError: damaged, or of another version.
        """
        if not self.path.exists():
            return None
        tensors, values = load_checkpoint(self.path)
        parts: dict[str, dict[str, Tensor]] = {
            prefix: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            for prefix in (_SERVER, _CLIENT)
        }
        return Checkpoint(parts[_SERVER], parts[_CLIENT], self._progress(values.get("progress")))

    def _progress(self, found: Any) -> Progress:
        kinds = {"steps": int, "turns": int, "holder": int, "own_turns": dict, "own_batches": dict, "done": list,
                 "handed_over": dict}  # fmt: skip
        assert kinds.keys() == {entry.name for entry in fields(Progress)}
        if not _holds(found, kinds) or not all(_holds(entry, _HANDED_OVER) for entry in found["handed_over"].values()):
            raise FormatError(f"{self.path} holds no progress of this version; start again in a new folder")
        handed_over = {client: HandOver(**entry) for client, entry in found["handed_over"].items()}
        return Progress(**{**found, "done": tuple(found["done"]), "handed_over": handed_over})


def _holds(found: Any, kinds: Mapping[str, type]) -> bool:
    """Whether it is a table with exactly these keys and types."""
    return (
        isinstance(found, dict)
        and found.keys() == kinds.keys()
        and all(type(found[name]) is kind for name, kind in kinds.items())
    )
