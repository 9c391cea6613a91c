"""A contender of :mod:`gascnn.benchmarks.pgsl.edge_client` in its own process: ``edge_contender.py NAME PLAN THREADS``.

It is told what to do by JSON lines on standard input, as ``benchmarks/peers/worker.py`` is, and answers each by one:
``check`` (compute all images, write their activations beside the plan) or ``time`` (some single images, each timed).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from gascnn.models.pgsl import PgslClient

Images = npt.NDArray[np.uint8]
Run = Callable[[Images], npt.NDArray[np.float32]]
"""Images (n, C, H, W) to activations, from numpy to numpy: what a program on a board has and wants."""

WARM_UP = 5
"""Images ahead of the first that counts."""


def load(name: str, plan: dict[str, Any], folder: Path, threads: int) -> tuple[Run, dict[str, str]]:
    """A contender by its name: what runs it, and the versions of its packages.

    Args:
        name: ``onnxruntime-fp32``, ``onnxruntime-int8``, ``torch-autograd`` or ``torch-forward``.
        plan: files in ``folder``, and what builds the client again.
        folder: of the plan.
        threads: that one call may use.
    """
    kind, _, variant = name.partition("-")
    if kind == "onnxruntime":
        import onnxruntime

        from gascnn.hardware.edge import EdgeModel

        return EdgeModel(folder / plan[variant], threads=threads).activations, {
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        }
    import torch

    torch.set_num_threads(threads)
    client = load_client(plan, folder)
    network = client if variant == "forward" else AutogradClient(client)

    def run(images: Images) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            activations: npt.NDArray[np.float32] = network(torch.from_numpy(images).float() / 255).numpy()
        return activations

    return run, {"torch": torch.__version__, "numpy": np.__version__}


def load_client(plan: dict[str, Any], folder: Path) -> PgslClient:
    """The client of a plan, in evaluation mode and with frozen weights."""
    from gascnn.models.pgsl import PgslClient
    from gascnn.models.saliency import LocalClassifier, SaliencyAttack
    from gascnn.toolkit.training.checkpoint import load_checkpoint, restore_module

    attack = SaliencyAttack(LocalClassifier(**plan["classifier"]), **plan["attack"])
    client = PgslClient(attack, width=plan["width"])
    restore_module("client", client, load_checkpoint(folder / plan["weights"])[0])
    return client.eval().requires_grad_(False)


class AutogradClient:
    """The client as one writes it in PyTorch without looking further: the gradient of the map from autograd.

    The attack in its form ``pixels``, written anew: of :class:`gascnn.models.saliency.SaliencyAttack` it takes numbers
    alone. The weights are frozen, and autograd runs for the local classifier alone, so nothing is slow needlessly.

    Args:
        client: whose weights are used.
    """

    def __init__(self, client: PgslClient) -> None:
        self.classifier, self.layers = client.attack.classifier, client.layers
        assert client.attack.pixels is not None
        self.pixels, self.amount = client.attack.pixels, client.attack.amount

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, ch, size, size), float in [0, 1] -> activations (n, width, size/2, size/2)."""
        import torch
        import torch.nn.functional as F

        against = torch.relu(-self._derivative(images))
        room = 1 - images
        movable = torch.where(room > 0, against, 0.0)
        saliency = movable.square().sum(1)
        chosen = saliency.flatten(1).topk(self.pixels).indices
        mask = torch.zeros_like(saliency).flatten(1).scatter_(1, chosen, 1.0).view_as(saliency).unsqueeze(1)
        added = torch.minimum((movable > 0) * mask * self.amount, room)
        halves = F.pixel_unshuffle(images + added, 2)
        seen = F.max_pool2d(added.amax(1, keepdim=True), 2)
        activations: Tensor = self.layers(torch.cat([halves, seen], 1))
        return activations

    def _derivative(self, images: Tensor) -> Tensor:
        """Of the log odds of the predicted class, which is df_y/dx but for a factor above 0 an image."""
        import torch

        with torch.enable_grad():
            images = images.detach().requires_grad_()
            logits = self.classifier(images)
            predicted = logits.argmax(1, keepdim=True)
            others = logits.scatter(1, predicted, -torch.inf)
            log_odds = logits.gather(1, predicted).sum() - torch.logsumexp(others, 1).sum()
            return torch.autograd.grad(log_odds, images)[0]


class Worker:
    """Carries out what it is told.

    Args:
        name: of the contender.
        plan: path of ``plan.json``.
        threads: that one call may use.
    """

    def __init__(self, name: str, plan: Path, threads: int) -> None:
        self._name, self._folder = name, plan.parent
        read = json.loads(plan.read_text(encoding="utf-8"))
        self._images: Images = np.load(self._folder / read["images"], allow_pickle=False)
        self._run, self.versions = load(name, read, self._folder, threads)
        for place in range(WARM_UP):
            self._run(self._one(place))
        self._next = 0

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; gives the answer."""
        if order["do"] == "check":
            found = np.concatenate([self._run(self._one(i)) for i in range(len(self._images))])
            np.save(self._folder / f"{self._name}.npy", found, allow_pickle=False)
            return {}
        if order["do"] == "time":
            return {"seconds": [self._timed() for _ in range(order["calls"])]}
        raise ValueError(f"unknown order {order['do']!r}")

    def _timed(self) -> float:
        image = self._one(self._next)
        self._next += 1
        started = time.perf_counter()
        self._run(image)
        return time.perf_counter() - started

    def _one(self, number: int) -> Images:
        place = number % len(self._images)
        return self._images[place : place + 1]


def main(arguments: list[str]) -> int:
    """Serve orders until the parent is gone."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")

    try:
        worker = Worker(arguments[0], Path(arguments[1]), int(arguments[2]))
        answer(ok=True, versions=worker.versions, options=[])
        for line in sys.stdin:
            answer(ok=True, **worker(json.loads(line)))
    except Exception as error:
        answer(ok=False, error=f"{type(error).__name__}: {error}".splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
