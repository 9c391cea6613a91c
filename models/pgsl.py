"""Proximal gradient split learning: the client's and the server's part of the network.

S. A. Khowaja et al., "Get your Foes Fooled: Proximal Gradient Split Learning for Defense against Model Inversion
Attacks on IoMT data", IEEE Transactions on Network Science and Engineering, 2022, section IV; equations by its numbers.
Seven convolutions, two of them with the client, and two fully connected layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.models.saliency import SaliencyAttack

WIDTH = 64
DROPOUT = 0.25
SERVER_CONVS = 5
STRIDES = (2, 1, 2, 1, 1)
INITIAL_WEIGHTS = (0.5, 0.3, 0.2)
"""Of the recovered, the fused and the attacked stream (section V-D)."""

RECOVERIES = ("image", "channels", "maps", "none")
MAXIMA = ("image", "batch")

Recover = Callable[[Tensor], Tensor]
"""Matrices (..., H, W) to what is recovered of them, of the same shape."""


def downsample(image: Tensor, saliency: Tensor) -> Tensor:
    """The reversible down-sampling layer (section IV-B): four sub-images of each channel, and the map.

    Args:
        image: (n, ch, H, W), H and W even.
        saliency: (n, 1, H/2, W/2).

    Returns:
        (n, 4 ch + 1, H/2, W/2): channel 4 c + 2 r + s holds the pixels of channel c in the rows of parity r and the
        columns of parity s; the map is the last. No arithmetic, so :func:`upsample` gives back the same bits.

    Raises:
        ValueError: an odd height or width, or a map of another size.
    """
    batch, _, height, width = image.shape
    if height % 2 or width % 2:
        raise ValueError(f"the image is {height} x {width}; reversible down-sampling takes even sizes; pad or resize")
    expected = (batch, 1, height // 2, width // 2)
    if saliency.shape != expected:
        raise ValueError(f"the map has shape {tuple(saliency.shape)}; expected {tuple(expected)}, half the image")
    return torch.cat([F.pixel_unshuffle(image, 2), saliency], dim=1)


def upsample(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`downsample`: (n, 4 ch + 1, h, w) -> image (n, ch, 2 h, 2 w) and map (n, 1, h, w).

    Raises:
        ValueError: a number of channels that is not 4 ch + 1.
    """
    channels = tensor.shape[1]
    if channels % 4 != 1 or channels < 5:
        raise ValueError(f"the tensor has {channels} channels; expected four for each of the image's and one, the map")
    return F.pixel_shuffle(tensor[:, :-1], 2), tensor[:, -1:]


def shrink_map(added: Tensor) -> Tensor:
    """``Map'`` (n, ch, H, W) as the one channel that travels through the client's network: (n, 1, H/2, W/2).

    The paper gives the map one channel of half size and no rule. This is the largest value over the channels and the
    2x2 places. An average would divide the change of a single pixel by four.
    """
    return F.max_pool2d(added.amax(1, keepdim=True), 2)


class PgslClient(nn.Module):
    """Attack, reversible down-sampling, and two convolutions: images in, activations out, and no place for a label.

    The input of the first convolution is the attacked image's four sub-images and ``Map'``, the map of what was added
    (section IV-B writes *Map*, IV-C "the inverted saliency map concatenated in the tensor"; the two are one here).

    Args:
        attack: with the classifier that was trained before; neither learns here.
        width: channels of each convolution, a multiple of 4.

    Attributes:
        layers: twice conv 3x3, ReLU, batch norm: all that learns.

    Raises:
        ValueError: an odd image size, or a width out of range.
    """

    def __init__(self, attack: SaliencyAttack, *, width: int = WIDTH) -> None:
        super().__init__()
        size = attack.classifier.image_size
        if size % 2:
            raise ValueError(f"image_size is {size}; reversible down-sampling takes even sizes; resize the images")
        _check_width(width)
        self.attack, self.width, self.image_size = attack, width, size
        self.layers = nn.Sequential(
            *_conv_layers(4 * attack.classifier.in_channels + 1, width), *_conv_layers(width, width)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, ch, size, size), float in [0, 1] -> activations (n, width, size/2, size/2)."""
        attacked, added = self.attack(images)
        return cast(Tensor, self.layers(downsample(attacked, shrink_map(added))))


class ConvSumFusion(nn.Module):
    """Convolution-sum fusion (equations 7 and 8): ``concat(f_u, f_v) * filt + bias + f_u``.

    The filters bring the two maps' channels back to one map's. The paper leaves their size open: 1x1, "a weighted
    combination of the activation maps", is the default. It also leaves open which of the maps is f_u, to which the
    combination is added: here the attacked one, so that the fused stream's gradient has a direct way to the client.

    Args:
        channels: of each of the two maps.
        kernel_size: of the filters, odd.
    """

    def __init__(self, channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, f_u: Tensor, f_v: Tensor) -> Tensor:
        """Two maps (n, channels, H, W) -> (n, channels, H, W)."""
        return cast(Tensor, self.conv(torch.cat([f_u, f_v], dim=1)) + f_u)


class Stream(nn.Module):
    """Convolutions 3 to 7 and the two fully connected layers of one stream.

    Each convolution is 3x3, ReLU, batch norm. Dropout follows every third convolution, counted through the whole
    network: behind the 3rd and the 6th, which are the server's 1st and 4th. The paper names neither stride nor pooling,
    and 64 maps of a mammogram in full size would give a fully connected layer a billion weights: ``strides`` and an
    average over a ``grid`` ahead of the first one are choices of ours; ``strides`` of 1 are the paper's letter.

    Args:
        in_channels: of the up-sampled maps.
        classes: number of outputs.
        width: channels of each convolution.
        strides: of the five convolutions.
        hidden: outputs of the first fully connected layer.
        grid: the maps are averaged to at most grid x grid places.
        dropout: probability.
        image_size: pixels a side of the up-sampled maps.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        width: int,
        strides: Sequence[int],
        hidden: int,
        grid: int,
        dropout: float,
        image_size: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side = image_size
        for number, stride in enumerate(strides, start=3):
            layers += _conv_layers(in_channels, width, stride)
            side = (side - 1) // stride + 1
            in_channels = width
            if number % 3 == 0:
                layers.append(nn.Dropout(dropout))
        grid = min(grid, side)
        self.convs = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(grid))
        self.fc1 = nn.Linear(width * grid**2, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, in_channels, image_size, image_size) -> logits (n, classes)."""
        features = torch.flatten(self.convs(maps), 1)
        return cast(Tensor, self.fc2(F.relu(self.fc1(features))))


class StreamLogits(NamedTuple):
    """Logits (n, classes) of the three streams."""

    attacked: Tensor
    fused: Tensor
    recovered: Tensor


class PgslServer(nn.Module):
    """Recovery, reversible up-sampling, fusion and the three streams: activations in, three logits out.

    Up-sampling is the pixel shuffle that undoes a down-sampling by two: (n, width, h, w) -> (n, width/4, 2 h, 2 w).
    It needs nothing but the activations.

    **On what recovery acts** (section IV-C says the activations; V-B and figure 3 act on the attacked image). Equations
    2 to 5 are robust PCA, observed = low-rank + sparse, where the map is the sparse part. Equation 2 has a minus ahead
    of it and the nuclear norm on both, which is not the convex problem it is called; Lin et al. 2009, which it cites,
    have a plus and the l1 norm on the sparse part, and that is what ``recover`` is for. ``recovery_on`` is one of

    - ``image`` (default): an estimate of the image, the first principal component of the up-sampled maps over their
      channels; what recovery takes away from it is taken away from each map in proportion to its share in the
      component (``x ~ x_hat - Map``, with a map of one channel). One matrix 2 h x 2 w an image, the cheapest;
    - ``channels``: one matrix an image, width x (h w): maps are combinations of few patterns, the attack is local;
    - ``maps``: each of the maps h x w, as section IV-C reads; width matrices an image, the dearest;
    - ``none``: the recovered maps are the attacked ones, to measure by.

    **Gradients.** Recovery is a constant to autograd, and the attacked and the recovered stream see the maps detached.
    So one backward pass of the three losses' sum gives each stream its own gradient, the fusion's filters the fused
    stream's, and the activations that of the fused stream **alone**, which is all that goes back to the client.

    Args:
        classes: number of outputs, at least 2.
        image_size: pixels a side of the client's images, even.
        width: channels of the activations and of each convolution, a multiple of 4.
        strides: of the five convolutions of a stream (see :class:`Stream`).
        hidden: outputs of the first fully connected layer.
        grid: see :class:`Stream`.
        dropout: probability, in [0, 1).
        recovery_on: one of the above.
        fusion_kernel: side of the fusion's filters, odd.
        recover: robust PCA, matrices to what it recovers of them; needed unless ``recovery_on`` is ``none``.

    Attributes:
        arguments: all but ``recover``, plain values that JSON can hold.

    Raises:
        ValueError: an argument out of range, or no ``recover`` where one is needed.
    """

    def __init__(
        self,
        *,
        classes: int,
        image_size: int,
        width: int = WIDTH,
        strides: Sequence[int] = STRIDES,
        hidden: int = 128,
        grid: int = 4,
        dropout: float = DROPOUT,
        recovery_on: str = "image",
        fusion_kernel: int = 1,
        recover: Recover | None = None,
    ) -> None:
        super().__init__()
        _check_server(classes, image_size, width, strides, recovery_on, fusion_kernel)
        if recover is None and recovery_on != "none":
            raise ValueError(f"recovery_on is {recovery_on!r} but recover is missing; give a function or use none")
        self.arguments: dict[str, Any] = {
            "classes": classes,
            "image_size": image_size,
            "width": width,
            "strides": list(strides),
            "hidden": hidden,
            "grid": grid,
            "dropout": dropout,
            "recovery_on": recovery_on,
            "fusion_kernel": fusion_kernel,
        }
        self.classes, self.width, self.image_size = classes, width, image_size
        self.recovery_on, self.recover = recovery_on, recover
        channels = width // 4

        def stream() -> Stream:
            return Stream(
                channels,
                classes,
                width=width,
                strides=strides,
                hidden=hidden,
                grid=grid,
                dropout=dropout,
                image_size=image_size,
            )

        self.fusion = ConvSumFusion(channels, fusion_kernel)
        self.attacked, self.fused, self.recovered = stream(), stream(), stream()

    def forward(self, activations: Tensor) -> StreamLogits:
        """Activations (n, width, image_size/2, image_size/2) -> logits (n, classes) of the three streams."""
        maps = F.pixel_shuffle(activations, 2)
        recovered = self.recovered_maps(activations)
        return StreamLogits(
            attacked=self.attacked(maps.detach()),
            fused=self.fused(self.fusion(maps, recovered)),
            recovered=self.recovered(recovered),
        )

    @torch.no_grad()
    def recovered_maps(self, activations: Tensor) -> Tensor:
        """The recovered up-sampled maps (n, width/4, image_size, image_size), without a gradient."""
        maps = F.pixel_shuffle(activations, 2)
        if self.recovery_on == "none":
            return maps
        assert self.recover is not None
        if self.recovery_on == "maps":
            return F.pixel_shuffle(self.recover(activations), 2)
        if self.recovery_on == "channels":
            low_rank = self.recover(torch.flatten(activations, 2))
            return F.pixel_shuffle(low_rank.reshape(activations.shape), 2)
        shares = principal_channels(maps)
        estimate = (shares * maps).sum(1)
        return maps - shares * (estimate - self.recover(estimate)).unsqueeze(1)


def principal_channels(maps: Tensor) -> Tensor:
    """Each channel's share p in the first principal component: unit vectors (n, C, 1, 1) for maps (n, C, H, W).

    Of all combinations of the channels, ``(p * maps).sum(1)`` leaves the least squared error in ``maps`` as p times
    itself. It is not centred, and its sign is arbitrary, which cancels.
    """
    flat = torch.flatten(maps, 2)
    _, vectors = torch.linalg.eigh(flat @ flat.transpose(1, 2))
    return cast(Tensor, vectors[:, :, -1, None, None])


def adaptive_weights(
    recovered: Tensor,
    fused: Tensor,
    attacked: Tensor,
    initial: Sequence[float] = INITIAL_WEIGHTS,
    maximum: str = "image",
) -> Tensor:
    """Weights of the three streams (equations 10 and 11), ``W S_max`` over the sum of the three.

    What the maximum runs over is open: "the maximum average score of a particular class label". ``image`` takes the
    largest of one image's scores, so that an answer depends on that image alone; ``batch`` first averages each class's
    score over all the images given, which gives all of them the same weights.

    Args:
        recovered: softmax scores (n, classes).
        fused: the same.
        attacked: the same.
        initial: fixed weights of the streams in this order.
        maximum: ``image`` or ``batch``.

    Returns:
        (n, 3): gamma, rho and 1 - gamma - rho; each row sums to one.

    Raises:
        ValueError: another ``maximum``.
    """
    if maximum not in MAXIMA:
        raise ValueError(f"maximum is {maximum!r}; allowed: {', '.join(MAXIMA)}")
    scores = torch.stack([recovered, fused, attacked], dim=1)
    if maximum == "batch":
        scores = scores.mean(0, keepdim=True).expand_as(scores)
    weighted = scores.amax(2) * torch.as_tensor(initial, dtype=scores.dtype, device=scores.device)
    return weighted / weighted.sum(1, keepdim=True)


def weighted_scores(
    recovered: Tensor,
    fused: Tensor,
    attacked: Tensor,
    initial: Sequence[float] = INITIAL_WEIGHTS,
    maximum: str = "image",
) -> Tensor:
    """The decision (equation 9): scores (n, classes), the streams' weighted by :func:`adaptive_weights`."""
    weights = adaptive_weights(recovered, fused, attacked, initial, maximum)
    return (weights.unsqueeze(2) * torch.stack([recovered, fused, attacked], dim=1)).sum(1)


def _conv_layers(in_channels: int, channels: int, stride: int = 1) -> list[nn.Module]:
    # In the order of section IV-F: convolution, ReLU, batch norm.
    return [nn.Conv2d(in_channels, channels, 3, stride, padding=1), nn.ReLU(), nn.BatchNorm2d(channels)]


def _check_width(width: int) -> None:
    if isinstance(width, bool) or not isinstance(width, int) or width < 4 or width % 4:
        raise ValueError(f"width is {width!r}; allowed: multiples of 4, which the server's up-sampling divides")


def _check_server(
    classes: int, image_size: int, width: int, strides: Sequence[int], recovery_on: str, fusion_kernel: int
) -> None:
    _check_width(width)
    if classes < 2:
        raise ValueError(f"classes is {classes!r}; allowed: whole numbers from 2")
    if image_size < 4 or image_size % 2:
        raise ValueError(f"image_size is {image_size!r}; allowed: even numbers from 4")
    if len(strides) != SERVER_CONVS or any(stride not in (1, 2) for stride in strides):
        raise ValueError(f"strides is {tuple(strides)!r}; allowed: {SERVER_CONVS} of 1 or 2, such as {STRIDES}")
    if recovery_on not in RECOVERIES:
        raise ValueError(f"recovery_on is {recovery_on!r}; allowed: {', '.join(RECOVERIES)}")
    if fusion_kernel % 2 != 1:
        raise ValueError(f"fusion_kernel is {fusion_kernel!r}; allowed: odd numbers, such as 1 or 3")
