"""Do made images show what their label says, and can a classifier learn from them what it would from real ones?

Trained on synthetic and tested on real images (TSTR), the reverse (TRTS), and real on real beside them (TRTR), after
C. Esteban et al., "Real-valued (Medical) Time Series Generation with Recurrent Conditional GANs", 2017, section 5.2.
The two classifiers of a seed are of one recipe, start from the same weights and have equally many training images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from gascnn.benchmarks.bootstrap import Estimate, estimate
from gascnn.benchmarks.synthetic.settings import SyntheticSettings
from gascnn.toolkit.data.dataset import Dataset, ImageSet
from gascnn.toolkit.training.evaluate import predict_scores
from gascnn.toolkit.training.presets import get_preset
from gascnn.toolkit.training.train import train

TITLES = {
    "real_on_real": "real, tested on real",
    "synthetic_on_real": "made, tested on real",
    "real_on_synthetic": "real, tested on made",
}
FIGURES = ("accuracy", "macro_f1")


def agreement(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Share of images that a network answers with their label, and macro-F1, with 95 % intervals over images."""
    found = estimate(labels, logits.argmax(axis=1))
    return {"images": len(labels)} | {name: found[name].to_dict() for name in FIGURES}


def usefulness(
    synthetic: ImageSet, real: Dataset, settings: SyntheticSettings, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Train on each kind and test on the other.

    Args:
        synthetic: all made images.
        real: its training images are trained on, its test images tested on.
        settings: preset, seeds, threads.
        progress: told of each training.

    Returns:
        ``preset``, ``options``, ``training_images``, ``notes``, and ``rows``: by name (``real_on_real``,
        ``synthetic_on_real``, ``real_on_synthetic``) ``accuracy`` and ``macro_f1``: mean over seeds, ``by_seed``, and
        a 95 % interval over images, the networks held fixed.
    """
    count = min(len(synthetic), len(real.train))
    recipe = get_preset(settings.preset)
    changed: dict[str, Any] = {"select": "last"}  # an epoch chosen by real images would be learning from them
    if settings.threads:
        changed["threads"] = settings.threads
    parts = {seed: [_some(part, count, seed) for part in (real.train, synthetic)] for seed in settings.seeds}
    notes = []
    if any(len(np.unique(part.labels)) < len(real.class_names) for pair in parts.values() for part in pair):
        notes.append("a class is missing among the training images; classes are not balanced")
        changed["balance"] = "none"
    options = replace(recipe.options, **changed)
    rows: dict[str, list[dict[str, Estimate]]] = {name: [] for name in TITLES}
    for seed, (of_real, of_synthetic) in parts.items():
        fitted = []
        for what, part in (("real", of_real), ("made", of_synthetic)):
            progress(f"training on {count} {what} images, seed {seed}")
            data = _only_training(real, part, what)
            with tempfile.TemporaryDirectory() as folder:
                fitted.append(train(recipe.model, data, replace(options, seed=seed), folder).model)
        rows["real_on_real"].append(_tested(fitted[0], real.test))
        rows["synthetic_on_real"].append(_tested(fitted[1], real.test))
        rows["real_on_synthetic"].append(_tested(fitted[0], synthetic))
    return {
        "preset": settings.preset,
        "options": options.to_dict(),
        "training_images": count,
        "rows": {name: {figure: _over_seeds(found, figure) for figure in FIGURES} for name, found in rows.items()},
        "notes": notes,
    }


def _some(part: ImageSet, count: int, seed: int) -> ImageSet:
    chosen = np.sort(np.random.default_rng((seed, 4)).permutation(len(part))[:count])
    return ImageSet(part.images[chosen], part.labels[chosen])


def _only_training(real: Dataset, part: ImageSet, what: str) -> Dataset:
    nothing = ImageSet(part.images[:0], part.labels[:0])
    return Dataset(f"{real.name}, {what}", real.class_names, part, nothing, nothing, framing=real.framing)


def _tested(model: nn.Module, part: ImageSet) -> dict[str, Estimate]:
    return estimate(part.labels, predict_scores(model, part.images).argmax(axis=1))


def _over_seeds(found: Sequence[dict[str, Estimate]], figure: str) -> dict[str, Any]:
    """Means over the seeds; the test images are the same, so intervals are averaged and not narrowed."""
    values = [one[figure] for one in found]
    return {
        "value": float(np.mean([one.value for one in values])),
        "by_seed": [one.value for one in values],
        "interval": [float(np.mean([one.low for one in values])), float(np.mean([one.high for one in values]))],
    }
