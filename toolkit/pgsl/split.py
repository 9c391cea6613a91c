"""Split training in one process: a client and a server that exchange messages and nothing else.

One step: the client sends up the activations of a batch **and its labels**; the server trains its three streams and
sends down the gradient of the **fused** stream's loss with respect to the activations; the client steps with it.

The labels go up in training because the server computes the losses, as in the paper (and in vanilla split learning,
P. Vepakomma et al. 2018): the server learns the labels of training images, and whoever must hide them needs another
arrangement. They take no part in what the client computes: its network has no place for them. In use none is sent.

Up-sampling needs no more than the activations. Every message is a plain dataclass of tensors and numbers.

Several clients take turns (round robin): who is done hands :class:`ClientState` on, weights, batch-norm statistics and
Adam's moments, and the next goes on as the same client would have. Each keeps its own local classifier.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.models.pgsl import PgslClient, PgslServer, StreamLogits, weighted_scores
from gascnn.toolkit.errors import DataError, FormatError, TrainingError, UsageError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.training.checkpoint import module_tensors, optimizer_state, restore_module, restore_optimizer

LARGEST_ACTIVATION = 1e6
"""Far beyond what a batch norm gives, and its square times a map's size far within float32."""


@dataclass(frozen=True)
class Upload:
    """Client to server.

    Attributes:
        activations: float32 (n, width, size/2, size/2), detached.
        labels: int64 (n,) in training, None in use.
    """

    activations: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Gradient:
    """Server to client, in training.

    Attributes:
        gradient: of the fused stream's loss with respect to the activations, of their shape.
        step: how many steps the server had made before this one; it sets the client's learning rate.
        losses: mean cross entropies of the attacked, fused and recovered stream, for the record.
    """

    gradient: Tensor
    step: int
    losses: tuple[float, float, float]


@dataclass(frozen=True)
class Answer:
    """Server to client, in use: softmax scores (n, classes) of the decision and of each stream."""

    scores: Tensor
    attacked: Tensor
    fused: Tensor
    recovered: Tensor


@dataclass(frozen=True)
class ClientState:
    """What a client hands on: tensors by name, those of ``layers.`` and of ``optimizer.``."""

    tensors: dict[str, Tensor]


class SplitClient:
    """The client's side of split training.

    Args:
        model: what is trained, in place.
        options: learning rate and decay.
    """

    def __init__(self, model: PgslClient, options: PgslOptions) -> None:
        self.model, self.options = model, options
        self._pending: Tensor | None = None
        self._buffers: list[Tensor] = []

    @functools.cached_property
    def optimizer(self) -> torch.optim.Adam:
        """Of the convolutions; made when training begins, for torch takes two seconds to import what Adam needs."""
        return make_optimizer(self.model.layers, self.options)

    def upload(self, images: Tensor, labels: Tensor) -> Upload:
        """First half of a training step. A batch whose gradient never came is forgotten, as :meth:`forget` does.

        Args:
            images: float32 (n, ch, size, size) in [0, 1].
            labels: int64 (n,); they travel, nothing is computed with them.
        """
        self.forget()
        self._buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.model.train()
        self._pending = self.model(images)
        return Upload(self._pending.detach(), labels)

    @torch.no_grad()
    def forget(self) -> None:
        """Undo an :meth:`upload` whose gradient will not come: batch norms have its batch in their statistics."""
        if self._pending is not None:
            self._pending = None
            for buffer, value in zip(self.model.buffers(), self._buffers, strict=True):
                buffer.copy_(value)

    def step(self, reply: Gradient) -> None:
        """Second half: one step of Adam with the gradient that came back.

        Raises:
            UsageError: no batch waits for a gradient.
            DataError: a gradient of another shape or dtype, or one that is not finite; the weights are unchanged.
        """
        if self._pending is None:
            raise UsageError("a gradient came but no batch waits for one; send a batch first")
        _check_like(reply.gradient, self._pending)
        pending, self._pending = self._pending, None
        self.optimizer.zero_grad(set_to_none=True)
        pending.backward(reply.gradient)
        set_learning_rate(self.optimizer, self.options, reply.step)
        self.optimizer.step()

    @torch.no_grad()
    def query(self, images: Tensor) -> Upload:
        """A batch to be classified: evaluation mode, no labels."""
        self.model.eval()
        return Upload(self.model(images))

    def state(self) -> ClientState:
        """A copy of what the next client needs: weights, batch-norm statistics and Adam's moments."""
        tensors = module_tensors("layers", self.model.layers) | optimizer_state(self.optimizer)[0]
        return ClientState({name: value.detach().clone() for name, value in tensors.items()})

    def take(self, state: ClientState) -> None:
        """Go on where another client stopped.

        Raises:
            FormatError: a tensor that is missing, too many, of another shape or not finite; nothing has changed.
        """
        _restore("layers", self.model.layers, self.optimizer, state.tensors)
        self._pending = None


class SplitServer:
    """The server's side of split training; one caller at a time.

    Dropout is a function of seed and step alone, so a server that is started again needs no random state.

    Args:
        model: what is trained, in place.
        options: learning rate, decay, seed, and how decisions are made.

    Attributes:
        steps: how many steps were made.
    """

    def __init__(self, model: PgslServer, options: PgslOptions) -> None:
        self.model, self.options = model, options
        self.steps = 0

    @functools.cached_property
    def optimizer(self) -> torch.optim.Adam:
        """Of all weights; made when training begins."""
        return make_optimizer(self.model, self.options)

    def train(self, upload: Upload) -> Gradient:
        """One step of Adam on the sum of the three streams' mean cross entropies.

        Raises:
            DataError: activations or labels that cannot be used.
            TrainingError: a loss or gradient that is not finite. With either error nothing has changed.
        """
        self.check(upload)
        if upload.labels is None:
            raise DataError("the batch has no labels; training needs one for each image")
        activations = upload.activations.detach().clone().requires_grad_()
        with _unchanged_on_error(self.model):
            losses = self._backward(activations, upload.labels)
        set_learning_rate(self.optimizer, self.options, self.steps)
        self.optimizer.step()
        self.steps += 1
        assert activations.grad is not None
        return Gradient(activations.grad, self.steps - 1, losses)

    def _backward(self, activations: Tensor, labels: Tensor) -> tuple[float, float, float]:
        self.model.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_step_seed(self.options.seed, self.steps))
            logits = self.model(activations)
        losses = [F.cross_entropy(stream, labels) for stream in logits]
        self.optimizer.zero_grad(set_to_none=True)
        # The streams share nothing but the activations, and only the fused one is not detached from them.
        torch.stack(losses).sum().backward()
        gradients = [leaf.grad for leaf in (activations, *self.model.parameters()) if leaf.grad is not None]
        if not all(bool(torch.isfinite(value).all()) for value in [*gradients, *losses]):
            raise TrainingError(
                f"loss or gradient is not finite in step {self.steps + 1}; "
                f"lower learning_rate ({self.options.learning_rate:g}) in a new run"
            )
        attacked, fused, recovered = (float(loss.detach()) for loss in losses)
        return attacked, fused, recovered

    @torch.no_grad()
    def answer(self, upload: Upload) -> Answer:
        """Classify a batch.

        Raises:
            DataError: activations that cannot be used.
        """
        self.check(upload)
        self.model.eval()
        logits = self.model(upload.activations)
        streams = StreamLogits(*(torch.softmax(stream, dim=1) for stream in logits))
        options = self.options
        scores = weighted_scores(
            streams.recovered, streams.fused, streams.attacked, options.initial_weights, options.maximum
        )
        return Answer(scores, **streams._asdict())

    def check(self, upload: Upload) -> None:
        """Refuse what this server cannot use.

        Raises:
            DataError: activations of another shape or dtype, empty or not finite; labels likewise or out of range.
        """
        side = self.model.image_size // 2
        shape, dtype = tuple(upload.activations.shape), upload.activations.dtype
        if dtype != torch.float32 or len(shape) != 4 or not shape[0] or shape[1:] != (self.model.width, side, side):
            raise DataError(
                f"activations are {dtype} of shape {shape}; expected torch.float32 (n, {self.model.width}, {side}, "
                f"{side}), n at least 1"
            )
        # Also false for NaN.
        if not bool((upload.activations.abs() <= LARGEST_ACTIVATION).all()):
            raise DataError(
                f"activations hold NaN or exceed {LARGEST_ACTIVATION:g}; send what the client's batch norm gives"
            )
        if upload.labels is None:
            return
        labels = upload.labels
        if labels.dtype != torch.int64 or tuple(labels.shape) != shape[:1]:
            raise DataError(f"labels are {labels.dtype} of shape {tuple(labels.shape)}; expected int64 ({shape[0]},)")
        if int(labels.min()) < 0 or int(labels.max()) >= self.model.classes:
            raise DataError(
                f"labels reach from {int(labels.min())} to {int(labels.max())}; allowed: 0 to {self.model.classes - 1}"
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Tensors and plain values of a checkpoint, from which :meth:`restore` goes on to the same bits."""
        tensors = module_tensors("model", self.model) | optimizer_state(self.optimizer)[0]
        return {name: value.detach().clone() for name, value in tensors.items()}, {"steps": self.steps}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, int]) -> None:
        """Put back what :meth:`state` gave.

        Raises:
            FormatError: a tensor that is missing, too many, of another shape or not finite; nothing has changed.
        """
        _restore("model", self.model, self.optimizer, tensors)
        self.steps = values["steps"]


def train_step(client: SplitClient, server: SplitServer, images: Tensor, labels: Tensor) -> Gradient:
    """One batch up, its gradient back; what was sent back."""
    reply = server.train(client.upload(images, labels))
    client.step(reply)
    return reply


def train_round_robin(
    clients: Sequence[SplitClient], server: SplitServer, turns: Iterable[Sequence[tuple[Tensor, Tensor]]]
) -> list[Gradient]:
    """Let clients train in turn, each beginning with the weights that the one before it hands on.

    Args:
        clients: all for the same options; the first one's weights are where training begins.
        server: of all of them.
        turns: batches of images and labels of each turn; turn i is client i modulo their number's.

    Returns:
        The replies, in the order of the steps.
    """
    replies = []
    state: ClientState | None = None
    for turn, batches in enumerate(turns):
        client = clients[turn % len(clients)]
        if state is not None:
            client.take(state)
        replies += [train_step(client, server, images, labels) for images, labels in batches]
        state = client.state()
    return replies


def make_optimizer(model: nn.Module, options: PgslOptions) -> torch.optim.Adam:
    """Adam, with the options' decay as L2 if it is of the weights."""
    weight_decay = options.decay if options.decay_of == "weights" else 0.0
    return torch.optim.Adam(model.parameters(), lr=options.learning_rate, weight_decay=weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, options: PgslOptions, step: int) -> None:
    """That of a step, counted from 0: divided by 1 + decay x step if the decay is of the rate."""
    decay = options.decay if options.decay_of == "learning-rate" else 0.0
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate / (1 + decay * step)


def _step_seed(seed: int, step: int) -> int:
    # Far apart for neighbouring steps and seeds: an odd multiplier of 64 bits (Weyl), within torch's range.
    return (seed * 0x9E3779B97F4A7C15 + step * 0xD1342543DE82EF95) % 2**63


def _check_like(gradient: Tensor, activations: Tensor) -> None:
    if gradient.shape != activations.shape or gradient.dtype != activations.dtype:
        raise DataError(
            f"the gradient is {gradient.dtype} of shape {tuple(gradient.shape)}; expected {activations.dtype} "
            f"{tuple(activations.shape)}, that of the activations"
        )
    if not bool(torch.isfinite(gradient).all()):
        raise DataError("the gradient holds NaN or infinity; ask for it again, the batch still waits")


def _restore(prefix: str, model: nn.Module, optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Weights, batch-norm statistics and moments, all or nothing."""
    expected = dict(module_tensors(prefix, model))
    # Before the first step Adam has no moments.
    if any(name.startswith("optimizer.") for name in tensors):
        for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
            moments = {"step": torch.ones(()), "exp_avg": parameter, "exp_avg_sq": parameter}
            expected |= {f"optimizer.{index}.{key}": like for key, like in moments.items()}
    wrong = sorted(expected.keys() ^ tensors.keys())
    if wrong:
        found = "missing" if wrong[0] in expected else "not one of this network's"
        raise FormatError(f"tensor {wrong[0]} of the state is {found}; send the whole state of the same network")
    for name, like in expected.items():
        _check_state(name, tensors[name], like)
    restore_module(prefix, model, tensors)
    restore_optimizer(optimizer, tensors, {})


_LEAST = {"step": 1.0, "exp_avg_sq": 0.0, "running_var": 0.0, "num_batches_tracked": 0.0}
"""Below which no training gets the last part of a tensor's name; Adam divides by what a step of 0 gives."""


def _check_state(name: str, value: Tensor, like: Tensor) -> None:
    if value.shape != like.shape or value.dtype != like.dtype or not bool(torch.isfinite(value).all()):
        raise FormatError(
            f"tensor {name} of the state is {value.dtype} of shape {tuple(value.shape)} or has values that are not "
            f"finite; expected {like.dtype} {tuple(like.shape)}"
        )
    least = _LEAST.get(name.rpartition(".")[2])
    if least is not None and bool((value < least).any()):
        raise FormatError(f"tensor {name} of the state has values below {least:g}; training never gives them")


@contextlib.contextmanager
def _unchanged_on_error(model: nn.Module) -> Iterator[None]:
    """Put batch-norm statistics back if the block fails."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    except BaseException:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
        raise
