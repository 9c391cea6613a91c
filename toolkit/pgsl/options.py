"""What proximal-gradient split learning can be told: frozen records of plain values, checked when made. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import Choices, Ranges, check_choices, check_known, check_ranges

Attack = Literal["literal", "pixels", "bound"]
Recovery = Literal["image", "channels", "maps", "none"]
Decay = Literal["learning-rate", "weights"]
Recovered = Literal["difference", "low-rank"]
Maximum = Literal["image", "batch"]

_CHOICES: Choices = {
    "attack": get_args(Attack),
    "recovery": get_args(Recovery),
    "recovered_as": get_args(Recovered),
    "decay_of": get_args(Decay),
    "maximum": get_args(Maximum),
}
_RANGES: Ranges = {
    "pixels": (1, 2**20, True),
    "amount": (1e-6, 1.0, False),
    "bound": (1e-6, 1.0, False),
    "width": (4, 1024, True),
    "hidden": (1, 65_536, True),
    "grid": (1, 64, True),
    "dropout": (0.0, 0.99, False),
    "fusion_kernel": (1, 9, True),
    "mu": (1e-6, 1e6, False),
    "sparsity": (1e-3, 1e3, False),
    "recovery_iterations": (1, 100_000, True),
    "epochs": (1, 100_000, True),
    "batch_size": (2, 65_536, True),
    "learning_rate": (1e-8, 100.0, False),
    "decay": (0.0, 10.0, False),
    "seed": (0, 2**62, True),
}
_LOCAL_RANGES: Ranges = {
    "width": (1, 512, True),
    "epochs": (1, 100_000, True),
    "batch_size": (2, 65_536, True),
    "learning_rate": (1e-8, 100.0, False),
    "seed": (0, 2**62, True),
}


@dataclass(frozen=True)
class PgslOptions:
    """How the split network is built and trained. Client and server must agree in all of them.

    Attributes:
        attack: form of the client's attack: ``literal`` is equation 1, ``pixels`` moves the ``pixels`` most salient
            places by ``amount``, ``bound`` scales the map to a largest change of ``bound``.
        pixels: places moved, with ``attack="pixels"``.
        amount: by how much, of a range of 1 from black to white.
        bound: largest change of a pixel, with ``attack="bound"``.
        width: channels of every convolution, a multiple of 4.
        strides: of the server's five convolutions.
        hidden: outputs of the first fully connected layer.
        grid: places a side to which the maps are averaged ahead of it, at most.
        dropout: probability, behind the 3rd and the 6th convolution.
        fusion_kernel: side of the fusion's filters.
        recovery: on what the server's robust PCA acts: ``image``, ``channels``, ``maps`` or ``none``.
        recovered_as: what counts as recovered: the ``difference`` of what was observed and the sparse part, as in
            x = x_hat - Map', or the ``low-rank`` part.
        mu: its relaxation parameter; the paper's 0.55 is for pixels of 0 to 1, and activations have another range.
        mu_relative: mu is in units of each matrix's largest singular value, best for small images made of strokes;
            else in the unit of the activations themselves, for smooth images, such as mammograms.
        sparsity: its weight lambda of the sparse part, in units of the usual ``1 / sqrt(max(H, W))``.
        recovery_iterations: its largest number of iterations. Recovery dominates the server's time where images are
            large: an image of 28x28 costs 3 ms of one core (22 steps), one of 128x128 44 ms (15), and without
            ``mu_relative``, of pixels, 9 and 170 ms (76 and 58); of activations more than the default allows, which
            then ends it. ``channels`` and ``maps`` recover more than one matrix an image.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam.
        decay: the paper's "decay rate".
        decay_of: ``learning-rate`` divides it by 1 + decay x step (what Keras calls decay, with the paper's words);
            ``weights`` adds decay x weight to each gradient (L2) and keeps the learning rate.
        initial_weights: of the recovered, fused and attacked stream in the decision; they sum to one.
        maximum: over what equation 10 takes the maximum: each ``image``'s scores or the ``batch``'s average.
        seed: of weights, order and dropout.
    """

    attack: Attack = "pixels"
    pixels: int = 10
    amount: float = 1.0
    bound: float = 0.3
    width: int = 64
    strides: tuple[int, ...] = (2, 1, 2, 1, 1)
    hidden: int = 128
    grid: int = 4
    dropout: float = 0.25
    fusion_kernel: int = 1
    recovery: Recovery = "image"
    recovered_as: Recovered = "difference"
    mu: float = 0.55
    mu_relative: bool = True
    sparsity: float = 1.0
    recovery_iterations: int = 50
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay: float = 3e-4
    decay_of: Decay = "learning-rate"
    initial_weights: tuple[float, ...] = (0.5, 0.3, 0.2)
    maximum: Maximum = "image"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value of the wrong kind or out of range.
        """
        check_choices(self, _CHOICES)
        check_ranges(self, _RANGES)
        if not isinstance(self.mu_relative, bool):
            raise UsageError(f"mu_relative is {self.mu_relative!r}; allowed: true or false")
        if self.width % 4:
            raise UsageError(f"width is {self.width}; allowed: multiples of 4, which the server's up-sampling divides")
        if self.fusion_kernel % 2 == 0:
            raise UsageError(f"fusion_kernel is {self.fusion_kernel}; allowed: odd numbers from 1 to 9")
        self._check_tuples()

    def _check_tuples(self) -> None:
        # JSON has lists; the record keeps what can be compared and hashed.
        for name in ("strides", "initial_weights"):
            if not isinstance(getattr(self, name), (list, tuple)):
                raise UsageError(f"{name} is {getattr(self, name)!r}; give a list of numbers")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.strides) != 5 or any(type(stride) is not int or stride not in (1, 2) for stride in self.strides):
            raise UsageError(f"strides is {self.strides!r}; allowed: five of 1 or 2")
        weights = self.initial_weights
        good = len(weights) == 3 and all(type(weight) in (int, float) and weight > 0 for weight in weights)
        if not good or not math.isclose(sum(weights), 1, abs_tol=1e-6):
            raise UsageError(f"initial_weights is {weights!r}; allowed: three numbers above 0 that sum to 1")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PgslOptions:
        """Options from plain values, such as parsed JSON; what is left out keeps its default.

        Raises:
            UsageError: an unknown name, or a value that cannot be used.
        """
        check_known(cls, values, "split-learning")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class LocalOptions:
    """How the client's own small classifier is trained.

    Attributes:
        width: channels of its first convolution; the others have twice as many.
        epochs: passes over the client's training images.
        batch_size: images a step; the last batch of an epoch may be smaller.
        learning_rate: of Adam; it falls in half a cosine to 0.
        seed: of weights and order.
    """

    width: int = 8
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value of the wrong kind or out of range.
        """
        check_ranges(self, _LOCAL_RANGES)
