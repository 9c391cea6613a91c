"""One process, or several that ``torchrun`` started: who is first, and means over all of them.

Every process draws the same batch from the same generator and takes its share of it; gradients are averaged by
DistributedDataParallel. So a run on n devices trains on the batches of a run on one, and differs by rounding alone.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gascnn.toolkit.errors import UsageError


def started() -> int:
    """How many processes torchrun started; 1 without it.

    Raises:
        UsageError: ``WORLD_SIZE`` is no whole number from 1.
    """
    return _whole("WORLD_SIZE", 1, 1)


def _whole(name: str, default: int, least: int) -> int:
    """A variable of the environment that torchrun sets."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise UsageError(f"{name} is {text!r}; allowed: whole numbers from {least}; unset it, or start with torchrun")
    return int(text)


def is_first() -> bool:
    """Whether this process writes files and talks: the only one, or torchrun's rank 0."""
    return started() == 1 or os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        rank: of this one, from 0.
        count: of all.
        device: this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows of what all drew alike, on its device."""
        return batch[self.rank :: self.count].to(self.device)

    def mean(self, values: Tensor) -> Tensor:
        """Of the processes, the same bits in each."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.count
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module itself, or one whose gradients are averaged over the processes."""
        if self.count == 1:
            return module
        # Its buffers are the frozen statistics of the ResNet, alike everywhere. torch 2.13 renamed the option.
        wrapper: Any = nn.parallel.DistributedDataParallel
        renamed = "forward_sync_buffers" in inspect.signature(wrapper).parameters
        found: nn.Module = wrapper(module, **{"forward_sync_buffers" if renamed else "broadcast_buffers": False})
        return found


@contextlib.contextmanager
def joined(device: str, batch_size: int) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did; leave them at the end.

    Args:
        device: ``cpu`` (gloo) or ``cuda`` (nccl).
        batch_size: of an iteration; must be a multiple of the number of processes.

    Raises:
        UsageError: a batch that cannot be shared evenly, no such device here, or variables that torchrun did not set.
    """
    count = started()
    if batch_size % count:
        raise UsageError(f"batch_size is {batch_size} for {count} processes; allowed: multiples of {count}")
    place = torch.device("cpu")
    if device == "cuda":
        local = _whole("LOCAL_RANK", 0, 0)
        if not torch.cuda.is_available() or local >= torch.cuda.device_count():
            raise UsageError(f"device is cuda, but there is none for process {local} here; use device cpu")
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    if count == 1:
        yield Processes(0, 1, place)
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {count}, but {', '.join(missing)} is not set; unset WORLD_SIZE, or start with torchrun"
        )
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, place)
    finally:
        dist.destroy_process_group()
