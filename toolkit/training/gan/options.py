"""What training the GAN can be told: one frozen record of plain values, checked when it is made. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.option_checks import Choices, Ranges, check_choices, check_known, check_ranges

Plane = Literal["features", "image"]
Device = Literal["cpu", "cuda"]

_CHOICES: Choices = {"plane": get_args(Plane), "device": get_args(Device)}
_RANGES: Ranges = {
    "width": (1, 512, True),
    "residual_blocks": (1, 64, True),
    "critic_width": (1, 512, True),
    "critic_hidden": (1, 65_536, True),
    "iterations": (1, 10_000_000, True),
    "batch_size": (1, 65_536, True),
    "critic_steps": (1, 1000, True),
    "learning_rate": (1e-8, 1.0, False),
    "decay_end": (0.0, 1.0, False),
    "beta1": (0.0, 0.9999, False),
    "beta2": (0.0, 0.999999, False),
    "alpha_penalty": (0.0, 1e6, False),
    "alpha_tvr": (0.0, 1e6, False),
    "alpha_att": (0.0, 1e6, False),
    "alpha_aaid": (0.0, 1e6, False),
    "alpha_reg": (0.0, 1e6, False),
    "ema_decay": (0.0, 0.999999, False),
    "report_every": (1, 10_000_000, True),
    "grid_every": (0, 10_000_000, True),
    "probe_images": (2, 4096, True),
    "least_diversity": (0.0, 1.0, False),
    "patience": (1, 1000, True),
    "largest_loss": (1.0, 1e12, False),
    "seed": (0, 2**62, True),
    "threads": (0, 1024, True),
}


@dataclass(frozen=True)
class GanOptions:
    """How the GAN is built and trained; the defaults are the paper's where it gives a value.

    Attributes:
        plane: what Res_2D is: ``features`` of the ResNet, projected, or the ``image`` itself.
        width: channels of the generator's first convolution; its residual blocks have four times as many.
        residual_blocks: of the generator (the paper's six).
        critic_width: channels of the discriminator's first convolution.
        critic_hidden: outputs of its first fully connected layer.
        iterations: updates of the discriminator (the paper's 150 000).
        batch_size: images of an iteration, over all processes.
        critic_steps: the generator is updated in every so many-th iteration; 5 is WGAN-GP's.
        learning_rate: of both Adams at the start (the paper's 1e-4).
        decay_end: the share of it that is left at the end; in between it falls by the same amount in each iteration,
            which is how the paper's "constant decay" is read.
        beta1: of both Adams; not in the paper.
        beta2: of both Adams.
        alpha_penalty: weight α of the gradient penalty in equation 3; not in the paper, WGAN-GP's 10.
        alpha_tvr: weight of equation 7.
        alpha_att: weight of the attention loss.
        alpha_aaid: weight of equation 6.
        alpha_reg: weight of equation 5.
        ema_decay: of a moving average of the generator, which is what makes images; 0 for none.
        report_every: iterations between two checkpoints, each with a line of progress and a check for collapse.
        grid_every: iterations between two pictures of the probe; 0 for none.
        probe_images: training images, of all classes in turn, by which diversity is measured.
        least_diversity: below this share of the real images' diversity a class has collapsed.
        patience: so many checks in a row end the run.
        largest_loss: a critic's loss beyond this, either way, ends the run.
        seed: of weights, images, conditions, interpolation.
        threads: of torch in each process; 0 takes its default. Part of what makes two runs equal to the bit.
        device: ``cpu``, or ``cuda``: one device a process.
    """

    plane: Plane = "features"
    width: int = 64
    residual_blocks: int = 6
    critic_width: int = 64
    critic_hidden: int = 128
    iterations: int = 150_000
    batch_size: int = 16
    critic_steps: int = 5
    learning_rate: float = 1e-4
    decay_end: float = 0.0
    beta1: float = 0.5
    beta2: float = 0.999
    alpha_penalty: float = 10.0
    alpha_tvr: float = 1e-5
    alpha_att: float = 0.1
    alpha_aaid: float = 7.0
    alpha_reg: float = 3.0
    ema_decay: float = 0.999
    report_every: int = 500
    grid_every: int = 2500
    probe_images: int = 16
    least_diversity: float = 0.02
    patience: int = 3
    largest_loss: float = 1e4
    seed: int = 0
    threads: int = 0
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value of the wrong kind or out of range, or two that contradict each other.
        """
        check_choices(self, _CHOICES)
        check_ranges(self, _RANGES)
        if self.critic_steps > self.iterations:
            raise UsageError(
                f"critic_steps is {self.critic_steps} and iterations {self.iterations}: the generator would never be "
                "updated; give at least as many iterations"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GanOptions:
        """Options from plain values, such as parsed JSON; what is left out keeps its default.

        Raises:
            UsageError: an unknown name, or a value that cannot be used.
        """
        check_known(cls, values, "GAN")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values that JSON can hold."""
        return asdict(self)


def learning_rate(iteration: int, options: GanOptions) -> float:
    """Of an iteration, from 0: ``lr (1 - (1 - end) i / N)``; a function of it alone, so there is no state to keep."""
    return options.learning_rate * (1 - (1 - options.decay_end) * iteration / options.iterations)
