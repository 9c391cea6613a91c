"""Images from what travels in split training: deep leakage from gradients (DLG), iDLG, inversion of activations.

DLG (L. Zhu, Z. Liu, S. Han, "Deep Leakage from Gradients", NeurIPS 2019) looks for an input and a label whose gradients
are those observed; iDLG (B. Zhao, K. R. Mopuri, H. Bilen, arXiv:2001.02610, 2020) reads the label off the last layer's
gradient first. PGSL's Table I applies both to its split network and leaves open what was shared. Here:

* **The adversary** is the server, or somebody who got hold of what it has: the client's two layers (PGSL hands their
  weights and Adam's moments on through the server; two successive first moments give the gradient of the step between
  them, over the wire of a turn's batches together unless a turn is one batch), the server's own network, and for each
  batch the activations, the recovered maps and the fused stream's gradient. It has neither the client's local
  classifier nor ``Map'``. PGSL's threat model (section III) says black box while DLG needs the weights: DLG's rows are
  beyond that model, the decoder's within it.
* **gradients** (DLG and iDLG): those of the client's two convolutions and batch norms, which only the fused stream's
  loss trains. What comes back to the client is linear in the label, and the server works it out for every class from
  the activations (:func:`returned_gradients`): DLG's dummy label mixes them, iDLG's label picks one. The alternative,
  a backward pass through the server's network at the dummy's own activations as in a network that is not split, makes
  the mismatch jump wherever a ReLU opens in nine layers; in our trials L-BFGS stayed near where it started.
* **activations**: the split layer's output itself, which travels for every image, also in use, and needs no label.
  DLG and iDLG are one and the same then. A third reading, the gradient with respect to the activations as the only
  thing known, is left out: whoever sees it come back saw the activations go up.
* **A batch of one image** and batch norms in evaluation mode, as the papers on leakage have it. Both favour the
  adversary: what PGSL sends in training is one step's gradient over a whole batch, normalised by that batch.
* **The dummy** is the tensor of 4 ch + 1 planes that enters the first convolution, for Map' is as unknown as the image.
  An image with a map of zeros in its place would have to explain an attacked image's map by its pixels.
  The image is the up-sampled planes, cut to 0..1. The last plane is an estimate of Map': :func:`undo_map` uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.models.pgsl import PgslServer, upsample
from gascnn.toolkit.errors import DataError, UsageError


@dataclass(frozen=True)
class InversionSettings:
    """How a dummy is sought.

    Attributes:
        iterations: of L-BFGS, at most, in each start.
        restarts: starts from random planes; the one whose match is closest counts.
        history: steps that L-BFGS remembers.
        seed: of the starts, the same for every image.
    """

    iterations: int = 100
    restarts: int = 2
    history: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value out of range.
        """
        for name, low in (("iterations", 1), ("restarts", 1), ("history", 1), ("seed", 0)):
            if type(getattr(self, name)) is not int or getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)!r}; allowed: whole numbers from {low}")


@dataclass(frozen=True, eq=False)
class Inversion:
    """What was found.

    Attributes:
        planes: (1, 4 ch + 1, h, w), not cut to 0..1.
        label: that was used or found; None if activations were matched.
        mismatch: squared error of what was matched, as a share of its squared norm; infinite if that is 0.
    """

    planes: Tensor
    label: int | None
    mismatch: float


def returned_gradients(server: PgslServer, activations: Tensor) -> Tensor:
    """What the server sends back for one image, for each label it might have: (classes, width, h, w).

    Cross entropy's gradient with respect to the logits is ``p - y``, so that for a label of probabilities y the
    gradient sent back is the mean of these by y. Evaluation mode, the recovered maps a constant as in training.

    Args:
        server: of the split network.
        activations: (1, width, h, w), as they went up.
    """
    activations = activations.detach().requires_grad_()
    logits = _fused_logits(server, activations)
    losses = [F.cross_entropy(logits, torch.tensor([label])) for label in range(server.classes)]
    return torch.cat([torch.autograd.grad(loss, activations, retain_graph=True)[0] for loss in losses])


def weight_gradients(layers: nn.Module, planes: Tensor, returned: Tensor, *, graph: bool = False) -> list[Tensor]:
    """Gradients of the layers' parameters, by the chain rule from the gradient of their output.

    Args:
        layers: of the client, as they are (the caller sets evaluation mode).
        planes: what enters them, (1, 4 ch + 1, h, w).
        returned: gradient with respect to what leaves them, of its shape.
        graph: whether the gradients can themselves be differentiated.
    """
    return list(torch.autograd.grad(layers(planes), list(layers.parameters()), returned, create_graph=graph))


def infer_label(last_layer_gradient: Tensor) -> int:
    """iDLG: the label of a single image from the gradient of the last fully connected layer's weights.

    Row c of it is ``(p_c - [c = label]) h``, and h, behind a ReLU, is not negative: only the label's row is not
    positive. The row with the smallest sum is the label, whatever the network answers.

    Args:
        last_layer_gradient: (classes, features).

    Raises:
        DataError: another shape, or a gradient of nothing but zeros, which belongs to no label.
    """
    if last_layer_gradient.ndim != 2 or not bool((last_layer_gradient != 0).any()):
        raise DataError(
            f"the gradient of shape {tuple(last_layer_gradient.shape)} tells no label; "
            "(classes, features) with values other than 0 is needed"
        )
    return int(last_layer_gradient.sum(1).argmin())


def server_label(server: PgslServer, activations: Tensor, label: int) -> int:
    """The label that :func:`infer_label` finds in the fused stream's last layer after a training step on one image.

    The server has the labels in training, and this gradient too: iDLG gives it nothing that it lacks.
    Where the gradient vanishes in float32 the label that was sent is given back.
    """
    loss = F.cross_entropy(_fused_logits(server, activations), torch.tensor([label]))
    (gradient,) = torch.autograd.grad(loss, [server.fused.fc2.weight])
    return infer_label(gradient) if bool((gradient != 0).any()) else label


def invert_gradients(
    layers: nn.Module,
    returned: Tensor,
    gradients: Sequence[Tensor],
    shape: Sequence[int],
    label: int | None = None,
    settings: InversionSettings | None = None,
) -> Inversion:
    """DLG, or with a label iDLG: ``min over planes (and label) sum_l ||g_l - g_l*||² / sum_l ||g_l*||²``.

    DLG's unknown label is the softmax of free values, as in its paper; the divisor, a constant, keeps L-BFGS's
    tolerances apart from how sure the network is.

    Args:
        layers: the client's two convolutions, in evaluation mode.
        returned: for each label, the gradient with respect to their output: (classes, ...), see
            :func:`returned_gradients`.
        gradients: g*, of the layers' parameters.
        shape: of the planes, (1, 4 ch + 1, h, w).
        label: of iDLG; None is DLG.
        settings: how.

    Raises:
        UsageError: a label beyond the classes.
    """
    classes = len(returned)
    if label is not None and not 0 <= label < classes:
        raise UsageError(f"label is {label}; allowed: 0 to {classes - 1}")
    norm = float(sum((gradient.double() ** 2).sum() for gradient in gradients))

    def mismatch(planes: Tensor, free: Tensor) -> Tensor:
        if label is None:
            upstream = torch.tensordot(torch.softmax(free, dim=1), returned, dims=1)
        else:
            upstream = returned[label : label + 1]
        found = weight_gradients(layers, planes, upstream, graph=True)
        return torch.stack([((a - b) ** 2).sum() for a, b in zip(found, gradients, strict=True)]).sum() / norm

    planes, free, loss = _minimise(mismatch, shape, classes if label is None else 0, norm, settings)
    return Inversion(planes, int(free.argmax()) if label is None else label, loss)


def invert_activations(
    layers: nn.Module, activations: Tensor, shape: Sequence[int], settings: InversionSettings | None = None
) -> Inversion:
    """``min over planes ||layers(planes) - activations||² / ||activations||²``.

    Args:
        layers: the client's two convolutions, in evaluation mode.
        activations: (1, width, h, w), what was sent.
        shape: of the planes, (1, 4 ch + 1, h, w).
        settings: how.
    """
    norm = float((activations.double() ** 2).sum())

    def mismatch(planes: Tensor, _: Tensor) -> Tensor:
        error: Tensor = ((layers(planes) - activations) ** 2).sum() / norm
        return error

    planes, _, loss = _minimise(mismatch, shape, 0, norm, settings)
    return Inversion(planes, None, loss)


def image_of(planes: Tensor) -> Tensor:
    """Planes (n, 4 ch + 1, h, w) to the image (n, ch, 2 h, 2 w), cut to 0..1."""
    return upsample(planes)[0].clamp(0, 1)


def undo_map(planes: Tensor) -> Tensor:
    """The image before the attack, as far as the map that travels with it tells: (n, ch, 2 h, 2 w) in 0..1.

    ``x = x_hat - Map'`` at the brightest of the four places that share a value of the map, all channels alike: the
    attack moves a pixel towards white. Exact where one pixel of four was moved, in one channel, and ended brightest.
    """
    image, added = upsample(planes)
    count, channels, height, width = image.shape
    blocks = F.pixel_unshuffle(image, 2).reshape(count, channels, 4, height // 2, width // 2)
    brightest = F.one_hot(blocks.argmax(2), 4).permute(0, 1, 4, 2, 3).to(image.dtype)
    blocks = blocks - brightest * added.clamp(0, 1).unsqueeze(1)
    return F.pixel_shuffle(blocks.reshape(count, 4 * channels, height // 2, width // 2), 2).clamp(0, 1)


def _fused_logits(server: PgslServer, activations: Tensor) -> Tensor:
    """Of the fused stream, in evaluation mode."""
    server.eval()
    logits: Tensor = server(activations).fused
    return logits


def _minimise(
    mismatch: Callable[[Tensor, Tensor], Tensor],
    shape: Sequence[int],
    classes: int,
    norm: float,
    settings: InversionSettings | None,
) -> tuple[Tensor, Tensor, float]:
    """Planes, free values of the label, and mismatch of the best start; the first start as it is if ``norm`` is 0."""
    settings = InversionSettings() if settings is None else settings
    generator = torch.Generator().manual_seed(settings.seed)
    best: tuple[Tensor, Tensor, float] | None = None
    for _ in range(settings.restarts):
        planes = torch.rand(tuple(shape), generator=generator).requires_grad_()
        free = torch.randn((1, classes), generator=generator).requires_grad_()
        loss = _descend(mismatch, planes, free, settings) if norm > 0 else float("inf")
        # A start that ended in NaN is never smaller.
        if best is None or loss < best[2]:
            best = planes.detach(), free.detach(), loss
    assert best is not None
    return best


def _descend(
    mismatch: Callable[[Tensor, Tensor], Tensor], planes: Tensor, free: Tensor, settings: InversionSettings
) -> float:
    """L-BFGS from one start, in place; the mismatch at its end. If that is no number: infinite, and the start again."""
    start = planes.detach().clone()
    variables = [planes] if not free.numel() else [planes, free]
    optimizer = torch.optim.LBFGS(
        variables,
        lr=1.0,
        max_iter=settings.iterations,
        history_size=settings.history,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        loss = mismatch(planes, free)
        gradients = torch.autograd.grad(loss, variables, allow_unused=True)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = torch.zeros_like(variable) if gradient is None else gradient
        return loss

    optimizer.step(closure)
    loss = float(mismatch(planes, free).detach())
    if loss == loss and bool(torch.isfinite(planes.detach()).all()):
        return loss
    with torch.no_grad():
        planes.copy_(start)
    return float("inf")
