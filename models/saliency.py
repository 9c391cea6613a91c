"""The pixel attack of PGSL's client: a small local classifier, its saliency map, and the attacked image.

The map is equation 1 of S. A. Khowaja et al., "Get your Foes Fooled: Proximal Gradient Split Learning for Defense
against Model Inversion Attacks on IoMT data", IEEE Transactions on Network Science and Engineering, 2022, with its two
conditions inverted, so that it raises what speaks against the predicted class. Nothing here takes a label.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 4, 1024
MAX_CLASSES, MAX_WIDTH = 100_000, 512
LAST_SIDE = 8
"""Convolutions halve the image until it has at most so many pixels a side."""


class LocalClassifier(nn.Module):
    """A classifier that an edge board holds, whose gradient is also written as forward operators.

    Convolutions 3x3 of stride 2 with ReLU, two of them or as many as bring the image to :data:`LAST_SIDE` pixels a
    side, the first with ``width`` channels and the others with twice as many; then one fully connected layer. There is
    no batch norm and no dropout, so training and evaluation are the same function.

    Args:
        in_channels: 1 (gray) or 3 (colour).
        classes: number of outputs, at least 2.
        image_size: pixels a side, 4 to 1024.
        width: channels of the first convolution.

    Attributes:
        arguments: what builds this network again, plain values that JSON can hold.

    Raises:
        ValueError: an argument out of range; says what was found and what is allowed.
    """

    def __init__(self, in_channels: int, classes: int, image_size: int, width: int = 8) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels is {in_channels!r}; allowed: 1 (gray) or 3 (colour); convert the images")
        _check_integer("classes", classes, 2, MAX_CLASSES)
        _check_integer("image_size", image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)
        _check_integer("width", width, 1, MAX_WIDTH)
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "classes": classes,
            "image_size": image_size,
            "width": width,
        }
        self.in_channels, self.classes, self.image_size = in_channels, classes, image_size
        self.convs = nn.ModuleList()
        sides, channels = [image_size], in_channels
        while len(self.convs) < 2 or sides[-1] > LAST_SIDE:
            outputs = width if not self.convs else 2 * width
            self.convs.append(nn.Conv2d(channels, outputs, 3, stride=2, padding=1))
            sides.append((sides[-1] + 1) // 2)
            channels = outputs
        # From m pixels a side the transposed convolution gives 2 m - 1, and one more where the input was even.
        self.output_padding = tuple(1 - side % 2 for side in sides[:-1])
        self.last_shape = (channels, sides[-1], sides[-1])
        self.fc = nn.Linear(channels * sides[-1] ** 2, classes)

    def activations(self, images: Tensor) -> list[Tensor]:
        """The outputs of all ReLUs, first to last, for images (n, in_channels, image_size, image_size)."""
        maps = []
        for conv in self.convs:
            images = F.relu(conv(images))
            maps.append(images)
        return maps

    def logits(self, activations: list[Tensor]) -> Tensor:
        """Logits (n, classes) from what :meth:`activations` gives."""
        return cast(Tensor, self.fc(torch.flatten(activations[-1], 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, in_channels, image_size, image_size), float in [0, 1] -> logits (n, classes)."""
        return self.logits(self.activations(images))

    def pull_back(self, activations: list[Tensor], direction: Tensor) -> Tensor:
        """The gradient of ``(direction * logits).sum()`` with respect to the images, without autograd.

        The chain rule backwards, each layer by its adjoint: the product with the weights of the fully connected layer,
        then, for each convolution, a mask where its ReLU was open and the transposed convolution with its weights.

        Args:
            activations: of the images, from :meth:`activations`.
            direction: (n, classes).

        Returns:
            (n, in_channels, image_size, image_size).
        """
        gradient = torch.unflatten(direction @ self.fc.weight, 1, self.last_shape)
        layers = zip(reversed(self.convs), reversed(activations), reversed(self.output_padding), strict=True)
        for conv, activation, padding in layers:
            gradient = torch.where(activation > 0, gradient, torch.zeros_like(gradient))
            weight = cast(Tensor, conv.weight)
            gradient = F.conv_transpose2d(gradient, weight, stride=2, padding=1, output_padding=padding)
        return gradient


class SaliencyAttack(nn.Module):
    """``x_hat = x + Map'``: the untargeted saliency-map attack against the classifier's own prediction.

    With f the softmax probabilities and y the class that the classifier **predicts**, equation 1 with inverted
    conditions is, pixel by pixel::

        Map'_i = - d_i s_i   where d_i < 0 and s_i > 0, else 0;   d_i = df_y/dx_i,  s_i = sum over y' != y of df_y'/dx_i

    Since the probabilities sum to one, s = -d: the map is d², where d is negative. Taken literally it vanishes with the
    classifier's doubt (d is a multiple of f_y (1 - f_y)): an image it is sure of comes out unchanged at 8 bits. Hence
    three forms, of which the two last have a strength as JSMA's own papers do (N. Papernot et al., EuroS&P 2016;
    R. Wiyatno and A. Xu, 2018):

    - **literal** (neither ``pixels`` nor ``bound``): ``Map'`` as above, nothing clipped;
    - **pixels = k**: the k places with the largest sum over channels of ``Map'`` move up by ``amount``, in those
      channels in which the conditions hold. Fewer than k move where the conditions hold at fewer places;
    - **bound = eps**: ``Map'`` times one factor an image, so that its largest value is eps: ||x_hat - x||_inf <= eps.

    In the last two a pixel never passes 1, white: one that is there already is no candidate (JSMA's search domain), and
    one that comes there stops. ``Map'`` is always what was added, x_hat - x.

    How it is computed: d = f_y (1 - f_y) u, where u is the derivative of log(f_y / (1 - f_y)), which needs the other
    classes' probabilities among themselves alone. It does not vanish where the softmax saturates, and it ranks pixels
    as d does; the two strong forms use u, and only the literal one multiplies by f_y (1 - f_y), with 1 - f_y summed
    from the other probabilities. There is no autograd in it, and each operator has one in ONNX (opset 17).

    Where the paper leaves it open. The sign: ``Map'`` adds, as the paper has it; the map with the conditions as
    printed in equation 1 would have to be subtracted to lower f_y. The attacked class: the paper writes the pair (x, y)
    with a label; in use there is none, so it is the prediction in training also.

    Args:
        classifier: trained before; its parameters are frozen here.
        pixels: k, at least 1 and at most the places of an image.
        amount: of ``pixels``, above 0 and at most 1; 1 moves a pixel to white.
        bound: eps, above 0 and at most 1.

    Attributes:
        arguments: ``pixels``, ``amount`` and ``bound``.

    Raises:
        ValueError: both forms of strength at once, or a value out of range.
    """

    def __init__(
        self,
        classifier: LocalClassifier,
        *,
        pixels: int | None = None,
        amount: float = 1.0,
        bound: float | None = None,
    ) -> None:
        super().__init__()
        if pixels is not None and bound is not None:
            raise ValueError(f"pixels is {pixels!r} and bound {bound!r}; give one of them, or neither for equation 1")
        if pixels is not None:
            _check_integer("pixels", pixels, 1, classifier.image_size**2)
        _check_fraction("amount", amount)
        if bound is not None:
            _check_fraction("bound", bound)
        self.arguments: dict[str, Any] = {"pixels": pixels, "amount": amount, "bound": bound}
        self.classifier = classifier.requires_grad_(False)
        self.pixels, self.amount, self.bound = pixels, amount, bound

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Attack images.

        Args:
            images: (n, C, image_size, image_size), float in [0, 1].

        Returns:
            The attacked images and ``Map'``, which is what was added to them; both of the images' shape.
        """
        derivative, spread = self.log_odds_derivative(images)
        if self.pixels is None and self.bound is None:
            added = F.relu(-derivative * spread[:, None, None, None]).square()
        else:
            room = F.relu(1 - images)
            movable = torch.where(room > 0, F.relu(-derivative), torch.zeros_like(images))
            # Squares of values near 1: of the derivatives themselves they could leave what float32 holds.
            scale = movable.amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(images.dtype).tiny)
            saliency = (movable / scale).square()
            added = torch.minimum(self._strong(saliency, movable), room)
        return images + added, added

    def log_odds_derivative(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative of the prediction's log odds, and what makes it the derivative of its probability.

        Args:
            images: (n, C, image_size, image_size).

        Returns:
            u (n, C, image_size, image_size), and f_y (1 - f_y) (n,); their product is df_y/dx.
        """
        classifier = self.classifier
        activations = classifier.activations(images)
        logits = classifier.logits(activations)
        numbers = torch.arange(classifier.classes, device=logits.device)
        predicted = logits.argmax(1, keepdim=True) == numbers
        others = torch.softmax(torch.where(predicted, torch.full_like(logits, -torch.inf), logits), dim=1)
        derivative = classifier.pull_back(activations, predicted.to(logits.dtype) - others)
        probabilities = torch.softmax(logits, dim=1)
        zeros = torch.zeros_like(probabilities)
        own = torch.where(predicted, probabilities, zeros).sum(1)
        rest = torch.where(predicted, zeros, probabilities).sum(1)
        return derivative, own * rest

    def _strong(self, saliency: Tensor, movable: Tensor) -> Tensor:
        """What the strong forms add before a pixel stops at white; (n, C, H, W)."""
        if self.bound is not None:
            return saliency * self.bound
        assert self.pixels is not None
        places = torch.flatten(saliency.sum(1), 1)
        _, chosen = torch.topk(places, self.pixels, dim=1)
        mask = torch.zeros_like(places).scatter(1, chosen, torch.ones_like(places))
        mask = torch.unflatten(mask, 1, saliency.shape[2:]).unsqueeze(1)
        return torch.where(movable > 0, mask * self.amount, torch.zeros_like(movable))


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; allowed: whole numbers from {low} to {high}")


def _check_fraction(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"{name} is {value!r}; allowed: above 0 to 1, as a share of the range from black to white")
