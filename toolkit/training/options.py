"""What a training run can be told: one frozen record of plain values, checked when it is made. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import Choices, Ranges, check_choices, check_known, check_ranges

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["one-cycle", "cosine", "constant"]
Balance = Literal["none", "weights", "sampling"]
Selection = Literal["auto", "val-macro-f1", "last"]
FitOn = Literal["train", "train+val"]

_CHOICES: Choices = {
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "balance": get_args(Balance),
    "select": get_args(Selection),
    "fit_on": get_args(FitOn),
}
_RANGES: Ranges = {
    "epochs": (1, 100_000, True),
    "batch_size": (2, 65_536, True),
    "learning_rate": (1e-8, 100.0, False),
    "warmup": (0.0, 0.9, False),
    "cosine_end": (0.0, 1.0, False),
    "momentum": (0.0, 0.9999, False),
    "weight_decay": (0.0, 10.0, False),
    "label_smoothing": (0.0, 0.9, False),
    "mixup_alpha": (0.0, 100.0, False),
    "cutmix_alpha": (0.0, 100.0, False),
    "mix_probability": (0.0, 1.0, False),
    "balance_power": (0.0, 1.0, False),
    "ema_decay": (0.0, 0.999999, False),
    "gradient_clip": (0.0, 1e6, False),
    "seed": (0, 2**62, True),
    "validate_every": (1, 100_000, True),
    "threads": (0, 1024, True),
}


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. A run and its resumption must agree in all of them.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; a last, smaller batch is left out (its images come in another epoch).
        optimizer: ``adamw``, or ``sgd`` with Nesterov momentum.
        learning_rate: the highest of the schedule.
        schedule: ``one-cycle`` (half a cosine up, half a cosine down to a ten-thousandth), ``cosine`` (a straight line
            up, half a cosine down to ``cosine_end``) or ``constant``.
        warmup: fraction of all steps in which the learning rate rises; unused by ``constant``.
        cosine_end: learning rate at the end of ``cosine``, as a fraction of the highest. With an average of the
            weights (``ema_decay``) a quarter can do better than nearly nothing.
        momentum: of ``sgd``.
        weight_decay: of tensors with two dimensions or more; batch norms and biases do not decay.
        label_smoothing: probability spread evenly over all classes in the target.
        mixup_alpha: parameter of the Beta distribution that mixes two images; 0 for none.
        cutmix_alpha: the same for pasting a rectangle of another image; with both, each batch takes one at random.
        mix_probability: fraction of the batches that are mixed, where either alpha is above 0.
        balance: against unequal classes: ``weights`` in the loss, or ``sampling`` rare classes more often.
        balance_power: 1 makes all classes count alike, 0 leaves them as they are; 0.5 is halfway.
        ema_decay: of an exponential moving average of weights and batch-norm statistics, which is then what is
            evaluated and kept; 0 for none. In the first steps the decay is less, (1 + step) / (10 + step).
        augmentation: name of a policy of :mod:`gascnn.toolkit.training.augment`.
        gradient_clip: largest norm of the whole gradient; 0 for no limit.
        seed: of everything random: weights, order, augmentation, dropout.
        validate_every: epochs between two validations; the last epoch is always validated.
        select: ``val-macro-f1`` keeps the epoch that is best on the validation images, ``last`` the last one, ``auto``
            the former where there are validation images that are not trained on.
        fit_on: ``train``, or ``train+val``, which leaves nothing to select by.
        threads: of torch; 0 takes torch's default. Part of what makes two runs equal to the bit.
        channels_last: keep activations as (n, H, W, C) in memory, faster on most CPUs for 16 channels and more.
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    schedule: Schedule = "one-cycle"
    warmup: float = 0.25
    cosine_end: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    balance: Balance = "none"
    balance_power: float = 1.0
    ema_decay: float = 0.0
    augmentation: str = "none"
    gradient_clip: float = 0.0
    seed: int = 0
    validate_every: int = 1
    select: Selection = "auto"
    fit_on: FitOn = "train"
    threads: int = 0
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value of the wrong kind or out of range, or two that contradict each other.
        """
        check_choices(self, _CHOICES)
        check_ranges(self, _RANGES)
        if not isinstance(self.channels_last, bool):
            raise UsageError(f"channels_last is {self.channels_last!r}; allowed: true or false")
        if not isinstance(self.augmentation, str):
            raise UsageError(f"augmentation is {self.augmentation!r}; give the name of a policy, such as 'light'")
        if self.fit_on == "train+val" and self.select == "val-macro-f1":
            raise UsageError("select is val-macro-f1 but fit_on train+val trains on those images; use select last")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingOptions:
        """Options from plain values, such as parsed JSON; what is left out keeps its default.

        Raises:
            UsageError: an unknown name, or a value that cannot be used.
        """
        check_known(cls, values, "training")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values that JSON can hold."""
        return asdict(self)
