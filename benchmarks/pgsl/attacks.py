"""Images attacked for PGSL's Table II: our saliency map, and the Adversarial Robustness Toolbox's C&W, BIM and FGSM.

No attack here is given a label: each goes away from what the attacked network itself predicts. All give 8-bit images,
so what an attack changes by less than half of 1/255 is gone, as it is in a stored or sent image. C&W, which looks for
the smallest change, therefore has a confidence above 0 by default.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.option_checks import Ranges, check_ranges
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.train import make_client
from gascnn.toolkit.training.batches import PIXEL_MAX, to_float

TITLES = {"jsma": "JSMA", "cw": "C&W", "bim": "BIM", "fgsm": "FGSM"}
"""By the name of the attack, that in Table II."""

BATCH = 128

_RANGES: Ranges = {
    "fgsm_bound": (1e-6, 1.0, False),
    "bim_bound": (1e-6, 1.0, False),
    "bim_step": (1e-6, 1.0, False),
    "bim_iterations": (1, 10_000, True),
    "cw_confidence": (0.0, 1e6, False),
    "cw_initial": (1e-9, 1e9, False),
    "cw_learning_rate": (1e-6, 100.0, False),
    "cw_search_steps": (1, 100, True),
    "cw_iterations": (1, 100_000, True),
}


@dataclass(frozen=True)
class Strengths:
    """Of the attacks for comparison; PGSL states none. The saliency-map attack's is in :class:`PgslOptions`.

    Attributes:
        fgsm_bound: every pixel moves by this much of the range from black to white (Goodfellow et al. 2014).
        bim_bound: largest change of a pixel (Kurakin et al. 2017).
        bim_step: change of a pixel in one iteration.
        bim_iterations: how many.
        cw_confidence: by how much the logit of another class shall exceed the predicted one's (Carlini, Wagner 2017).
        cw_initial: first weight of that aim against a small change; the toolbox's 0.01 finds nothing in few steps.
        cw_learning_rate: of its descent.
        cw_search_steps: of the search for the weight.
        cw_iterations: of the descent, for each of these.
    """

    fgsm_bound: float = 0.3
    bim_bound: float = 0.3
    bim_step: float = 0.03
    bim_iterations: int = 10
    cw_confidence: float = 1.0
    cw_initial: float = 10.0
    cw_learning_rate: float = 0.1
    cw_search_steps: int = 2
    cw_iterations: int = 10

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value of the wrong kind or out of range.
        """
        check_ranges(self, _RANGES)


def attack_images(
    name: str, images: Tensor, model: nn.Module, classes: int, strengths: Strengths, options: PgslOptions
) -> Tensor:
    """Attack images by what ``model`` predicts of them.

    Args:
        name: ``jsma``, ``cw``, ``bim`` or ``fgsm``.
        images: uint8 (n, C, size, size).
        model: float images in [0, 1] to logits; for ``jsma`` a :class:`LocalClassifier`. It is used in evaluation
            mode and left as it was.
        classes: number of its outputs.
        strengths: of all but ``jsma``.
        options: the client's ``attack``, for ``jsma``.

    Returns:
        uint8 of the images' shape, rounded to the nearest (ties to even). The same arguments give the same images;
        torch's global random state is left as it was.

    Raises:
        DataError: images of another dtype or shape, or none.
        UsageError: another name, no toolbox, a model the saliency map cannot be taken of.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise DataError(f"images are {images.dtype} of shape {tuple(images.shape)}; uint8 (n, C, H, W) is needed")
    if name not in TITLES:
        raise UsageError(f"attack is {name!r}; allowed: {', '.join(TITLES)}")
    if name == "jsma":
        return _saliency(images, model, options)
    return _toolbox(name, images, model, classes, strengths)


@torch.no_grad()
def _saliency(images: Tensor, model: nn.Module, options: PgslOptions) -> Tensor:
    if not isinstance(model, LocalClassifier):
        raise UsageError(f"jsma attacks {type(model).__name__}; give the client's LocalClassifier")
    attack = make_client(model, options).model.attack
    return torch.cat([to_uint8(attack(to_float(part))[0]) for part in images.split(BATCH)])


def _toolbox(name: str, images: Tensor, model: nn.Module, classes: int, strengths: Strengths) -> Tensor:
    wrapper = _import("art.estimators.classification.pytorch").PyTorchClassifier
    methods = _import("art.attacks.evasion")
    training = model.training
    # The toolbox iterates with a DataLoader, which draws from torch's global random state.
    with torch.random.fork_rng(devices=[]):
        try:
            estimator = wrapper(
                model.eval(),
                loss=nn.CrossEntropyLoss(),
                input_shape=tuple(images.shape[1:]),
                nb_classes=classes,
                clip_values=(0.0, 1.0),
                device_type="cpu",
            )
            attack = _method(name, methods, estimator, strengths)
            attacked = attack.generate(to_float(images).numpy(), y=None)
        finally:
            model.train(training)
    return to_uint8(torch.from_numpy(attacked))


def _method(name: str, methods: Any, estimator: Any, strengths: Strengths) -> Any:
    if name == "fgsm":
        return methods.FastGradientMethod(estimator, eps=strengths.fgsm_bound, batch_size=BATCH)
    if name == "bim":
        return methods.BasicIterativeMethod(
            estimator,
            eps=strengths.bim_bound,
            eps_step=strengths.bim_step,
            max_iter=strengths.bim_iterations,
            batch_size=BATCH,
            verbose=False,
        )
    return methods.CarliniL2Method(
        estimator,
        confidence=strengths.cw_confidence,
        initial_const=strengths.cw_initial,
        learning_rate=strengths.cw_learning_rate,
        binary_search_steps=strengths.cw_search_steps,
        max_iter=strengths.cw_iterations,
        batch_size=BATCH,
        verbose=False,
    )


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [0, 1] -> uint8, to the nearest (ties to even); what is outside is clipped."""
    return (images * PIXEL_MAX).round().clamp(0, PIXEL_MAX).to(torch.uint8)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            "the Adversarial Robustness Toolbox is not installed and C&W, BIM and FGSM need it; "
            "run: pip install 'gascnn[attacks]'"
        ) from None
