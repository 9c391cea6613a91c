"""ResNet-18 and its narrower and shallower relatives, for images of one or three channels and 8 to 224 pixels.

Names and structure are torchvision's (``conv1``, ``bn1``, ``layer1.0.conv2``, ``layer2.0.downsample.1``, ``fc``), so
its ResNet-18 weights load where the shapes agree. Two things differ, both for the spiking network this one becomes:

- the large stem has an average pooling **before** its ReLU where torchvision has a max pooling behind it: averaging is
  linear and folds exactly into the convolution ahead of it, a maximum of spike trains does not fold at all;
- the two ReLUs of a block are two modules (``relu``, ``relu_out``): each becomes a layer of neurons of its own.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

STEMS = ("auto", "small", "small-stride2", "imagenet")
GRAY_RULES = ("sum", "skip")
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 224
MAX_STAGES, MAX_BLOCKS, MAX_WIDTH, MAX_CLASSES = 4, 64, 512, 100_000
# Below: small; from the first to the second: small-stride2; from the second on: imagenet.
AUTO_STEM_SIZES = (48, 96)


def automatic_stem(image_size: int) -> str:
    """The stem that ``stem="auto"`` means: ``small`` below 48 pixels, ``small-stride2`` below 96, else ``imagenet``.

    The first stage then works on 8 to 48 pixels a side, and on no more than 56 for the usual 224.
    """
    first, second = AUTO_STEM_SIZES
    if image_size < first:
        return "small"
    return "small-stride2" if image_size < second else "imagenet"


class BasicBlock(nn.Module):
    """``relu_out(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``, the shortcut an identity or a 1x1 convolution.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: of ``conv1`` and the shortcut, 1 or 2.
        drop_path: probability, in training alone, that an image takes only the shortcut (stochastic depth: G. Huang
            et al., ECCV 2016); the others' sum is divided by 1 - drop_path.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu_out = nn.ReLU()
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, H, W) -> (n, channels, ceil(H / stride), ceil(W / stride))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.training and self.drop_path > 0:
            kept = torch.rand(len(y), 1, 1, 1) >= self.drop_path
            y = y * (kept / (1 - self.drop_path))
        return cast(Tensor, self.relu_out(y + shortcut))


class ResNet(nn.Module):
    """A residual network of basic blocks; :func:`resnet` describes the arguments.

    Attributes:
        arguments: what :func:`resnet` needs to build this network again, plain values that JSON can hold
            (``stem`` is the one chosen, never ``auto``).
    """

    def __init__(
        self,
        *,
        classes: int,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        channels: int = 1,
        image_size: int = 64,
        stem: str = "auto",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        _check_arguments(blocks, width, classes, channels, image_size, stem)
        _check_probability("dropout", dropout)
        _check_probability("drop_path", drop_path)
        stem = automatic_stem(image_size) if stem == "auto" else stem
        self.arguments: dict[str, Any] = {
            "blocks": [int(n) for n in blocks],
            "width": int(width),
            "classes": int(classes),
            "channels": int(channels),
            "image_size": int(image_size),
            "stem": stem,
            "dropout": float(dropout),
            "drop_path": float(drop_path),
            "zero_init": bool(zero_init),
        }
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        else:
            stride = 2 if stem == "small-stride2" else 1
            self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.AvgPool2d(2) if stem == "imagenet" else None
        self.relu = nn.ReLU()
        self.stages = tuple(f"layer{i}" for i in range(1, len(blocks) + 1))
        # Deeper blocks are dropped more often: from 0 for the first to drop_path for the last.
        rates = iter(drop_path * i / max(1, sum(blocks) - 1) for i in range(sum(blocks)))
        features = width
        for i, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            inputs, features = features, width * 2**i
            stage = [BasicBlock(inputs, features, 1 if i == 0 else 2, next(rates))]
            stage += [BasicBlock(features, features, 1, next(rates)) for _ in range(count - 1)]
            self.add_module(name, nn.Sequential(*stage))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features, classes)
        self._initialise(zero_init)

    def _initialise(self, zero_init: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init and isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, channels, H, W), float in [0, 1] -> logits (n, classes)."""
        x = self.bn1(self.conv1(x))
        if self.pool is not None:
            x = self.pool(x)
        x = self.relu(x)
        for name in self.stages:
            x = getattr(self, name)(x)
        x = torch.flatten(self.avgpool(x), 1)
        return cast(Tensor, self.fc(self.dropout(x)))


def resnet(
    *,
    classes: int,
    blocks: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    channels: int = 1,
    image_size: int = 64,
    stem: str = "auto",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    zero_init: bool = False,
) -> ResNet:
    """Build a residual network.

    Args:
        classes: number of outputs, at least 2.
        blocks: basic blocks in each stage, one to four stages; ``(2, 2, 2, 2)`` is ResNet-18.
        width: channels of the first stage; stage i (from 0) has ``width * 2**i`` and, but for the first, stride 2.
        channels: 1 (gray) or 3 (colour).
        image_size: pixels a side, 8 to 224; the longer side if the images are not square. It only chooses the stem.
        stem: ``small`` (3x3 convolution), ``small-stride2`` (the same with stride 2), ``imagenet`` (7x7, stride 2,
            then 2x2 average pooling before the ReLU), or ``auto`` (see :func:`automatic_stem`).
        dropout: probability of dropping a feature ahead of ``fc``, in [0, 1).
        drop_path: probability of skipping the last block for an image in training, in [0, 1); it rises evenly from 0
            for the first block. Evaluation and conversion do not see it.
        zero_init: start the last batch norm of each block at 0, so that a block begins as its shortcut.

    Returns:
        The network in training mode, initialised from torch's global random state.

    Raises:
        ValueError: an argument out of range; says what was found and what is allowed.
    """
    return ResNet(
        classes=classes,
        blocks=blocks,
        width=width,
        channels=channels,
        image_size=image_size,
        stem=stem,
        dropout=dropout,
        drop_path=drop_path,
        zero_init=zero_init,
    )


def resnet18(*, classes: int, channels: int = 3, image_size: int = 224, **arguments: Any) -> ResNet:
    """ResNet-18: two blocks in each of four stages, width 64; other arguments as for :func:`resnet`."""
    return resnet(classes=classes, channels=channels, image_size=image_size, **arguments)


@dataclass(frozen=True)
class WeightReport:
    """What :func:`load_torchvision_weights` did.

    Attributes:
        copied: names of the tensors that were copied.
        skipped: names in the file that were not copied, each with the reason.
        kept: names of the model's tensors that keep their initial values.
    """

    copied: tuple[str, ...]
    skipped: dict[str, str]
    kept: tuple[str, ...]


def load_torchvision_weights(model: nn.Module, state_dict: Mapping[str, Tensor], *, gray: str = "sum") -> WeightReport:
    """Copy every tensor of a torchvision ResNet into ``model`` whose name and shape agree.

    Args:
        model: changed in place.
        state_dict: torchvision's names and tensors.
        gray: what becomes of a three-channel ``conv1.weight`` where the model has one channel: ``sum`` adds the
            three planes (the answer to a gray image given as three equal channels), ``skip`` leaves it out.

    Returns:
        What was copied, what was skipped and why, what keeps its initial value.

    Raises:
        ValueError: no tensor agrees, a tensor holds NaN or infinity, or ``gray`` is unknown; the model is unchanged.
    """
    if gray not in GRAY_RULES:
        raise ValueError(f"gray is {gray!r}; allowed: {', '.join(GRAY_RULES)}")
    own = model.state_dict()
    accepted: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    for name, value in state_dict.items():
        if name not in own:
            skipped[name] = "the model has no tensor of that name"
            continue
        if name == "conv1.weight" and gray == "sum" and value.shape[1] == 3 and own[name].shape[1] == 1:
            value = value.sum(dim=1, keepdim=True)
        if value.shape != own[name].shape:
            skipped[name] = f"shape {tuple(value.shape)}, the model has {tuple(own[name].shape)}"
            continue
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds NaN or infinity; use another weights file")
        accepted[name] = value
    if all(own[name].ndim == 0 for name in accepted):
        raise ValueError(
            f"none of the {len(state_dict)} tensors has a name and shape of this model; "
            "give a ResNet-18 state dict, or build the model with blocks (2, 2, 2, 2) and width 64"
        )
    with torch.no_grad():
        for name, value in accepted.items():
            own[name].copy_(value)
    kept = tuple(name for name in own if name not in accepted)
    return WeightReport(copied=tuple(accepted), skipped=skipped, kept=kept)


def count_macs(model: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """Multiply-accumulate operations of one image in each convolution and fully connected layer.

    A convolution counts (outputs) x (weights of one output channel), padding included; a linear layer counts its
    weights. Biases, batch norms, pooling and additions count nothing. The sum of the values is the whole network's.

    Args:
        model: any network; it is run once on zeros, in evaluation mode, and left as it was.
        image_shape: (C, H, W).

    Returns:
        The operations by module name, in the order in which the modules first ran.
    """
    counts: dict[str, int] = {}

    def counter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = cast(Tensor, module.weight)
            counts[name] = counts.get(name, 0) + output.numel() * weight[0].numel()

        return hook

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(counter(name)) for name, module in layers]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, *image_shape))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return counts


def _check_arguments(
    blocks: Sequence[int], width: int, classes: int, channels: int, image_size: int, stem: str
) -> None:
    if isinstance(blocks, str) or not isinstance(blocks, Sequence) or not 1 <= len(blocks) <= MAX_STAGES:
        raise ValueError(f"blocks is {blocks!r}; give 1 to {MAX_STAGES} counts, such as (2, 2, 2, 2) for ResNet-18")
    for count in blocks:
        _check_integer("each entry of blocks", count, 1, MAX_BLOCKS)
    _check_integer("width", width, 1, MAX_WIDTH)
    _check_integer("classes", classes, 2, MAX_CLASSES)
    _check_integer("image_size", image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE, "resize the images")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; allowed: 1 (gray) or 3 (colour); convert the images")
    if stem not in STEMS:
        raise ValueError(f"stem is {stem!r}; allowed: {', '.join(STEMS)}; use auto if in doubt")


def _check_probability(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; allowed: 0 to below 1; use 0 for none")


def _check_integer(name: str, value: object, low: int, high: int, remedy: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        hint = f"; {remedy}" if remedy else ""
        raise ValueError(f"{name} is {value!r}; allowed: whole numbers from {low} to {high}{hint}")
