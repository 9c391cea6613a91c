"""What PGSL leaves open, measured: each reading trained as the others, and compared on validation images.

Ambiguous in print are the tensor that recovery acts on (section IV-C says the activations, V-B the image), the unit of
mu, over what equation 10 takes its maximum, and what "decay rate" decays. A seed's test images have no part in it; but
mini-MIAS is cross-validated, and the validation films of one seed are other seeds' test films.

``attack_left`` asks of each recovery what it is for: how far the recovered maps are from those of the image that was
not attacked (its map channel zero), in units of the distance without recovery; above 1 it does harm. Batch norm and
weights are those of the trained client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gascnn.benchmarks.pgsl.intervals import Scored, accuracy
from gascnn.benchmarks.pgsl.partial import Partial, pack, unpack
from gascnn.benchmarks.pgsl.presets import Settings
from gascnn.benchmarks.pgsl.seed_networks import Progress, SeedNetworks, SplitNetwork
from gascnn.benchmarks.pgsl.training import EVALUATION_BATCH, Recipe
from gascnn.models.pgsl import downsample, weighted_scores
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.batches import to_float

MEASUREMENT = "pgsl choices"

CHOICES: dict[str, dict[str, Any]] = {
    "no recovery": {"recovery": "none"},
    "image, mu in largest singular values": {"recovery": "image", "mu_relative": True},
    "image, mu in activations": {"recovery": "image", "mu_relative": False},
    "channels, mu in largest singular values": {"recovery": "channels", "mu_relative": True},
    "maps, mu in largest singular values": {"recovery": "maps", "mu_relative": True},
    "the part of low rank, image": {"recovery": "image", "mu_relative": True, "recovered_as": "low-rank"},
    "decay of weights (L2)": {"decay_of": "weights"},
    "fusion by 3x3 filters": {"fusion_kernel": 3},
}
"""By name: what differs from the settings' options."""

STREAMS = ("fusion", "recovered", "fused", "attacked")


def measure(
    settings: Settings,
    names: Sequence[str] = tuple(CHOICES),
    *,
    partial: Path | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a split network for each choice and seed and compare them on validation images.

    Args:
        settings: data set, sizes, seeds, options; the first recipe presents the images, its changes are left out.
        names: of :data:`CHOICES`.
        partial: a JSON file of what is done, written after each choice; a run started again with it goes on.
        data_dir: where to look for the data first.
        progress: told each step as it begins.

    Returns:
        ``settings``, ``machine``, ``versions``, ``seeds`` (by choice: ``answers``, packed, of the decision with the
        maximum of equation 10 over the ``image`` and over the ``batch`` and of each stream, ``attack_left``,
        ``processor_s``), ``figures`` (by choice: ``accuracy`` of each, see
        :func:`gascnn.benchmarks.pgsl.intervals.accuracy`, and means of the rest).

    Raises:
        DataError: data that is not there.
        FormatError: ``partial`` is not such a file.
        UsageError: an unknown choice, or a partial file of other settings.
    """
    unknown = [name for name in names if name not in CHOICES]
    if unknown:
        raise UsageError(f"choice is {unknown[0]!r}; allowed: {', '.join(CHOICES)}")
    store = Partial(partial, MEASUREMENT, settings.to_dict())
    for seed in settings.seeds:
        part = settings.partition(seed, data_dir)
        known = store.seed(seed, part.sha256())
        known["labels"], known["units"] = pack(part.val.labels), part.val_units.tolist()
        for name in names:
            if name in known["rows"]:
                continue
            networks = SeedNetworks(_with(settings, CHOICES[name]), seed, part, progress or _silent)
            networks.tell(name)
            known["rows"][name] = _row(networks)
            store.save()
    report = store.report(settings.seeds)
    return report | {"figures": {name: _figures(list(report["seeds"].values()), name) for name in names}}


def markdown(report: dict[str, Any], command: str = "") -> str:
    """The choices as a table.

    Args:
        report: as :func:`measure` gives it.
        command: what was typed.
    """
    settings, figures = report["settings"], report["figures"]
    images = sum(next(iter(figures.values()))["accuracy"]["image"]["images"])
    size = settings["image_size"]
    columns = ("choice", "fusion", "maximum over the batch", "S_r", "S_f", "S_a", "attack left", "processor s")
    lines = [
        f"`{settings['data']}`, images of {f'{size}x{size}' if size else 'their stored size'}, "
        f"{settings['train_images'] or 'all'} training images, {settings['options']['epochs']} epochs, seeds: "
        f"{len(report['seeds'])}. Accuracy on {images} validation images in percent, with the fusion's 95 % interval "
        "over images, networks held fixed (Wilson's where each counts once, else bootstrap); what differs "
        "from the settings is named. Processor time is of training and answering.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(_cells(name, found)) + " |" for name, found in figures.items()),
        *(["", f"`{command}`"] if command else []),
    ]
    return "\n".join(lines) + "\n"


def attack_left(network: SplitNetwork, images: Tensor) -> float:
    """Squared distance of recovered maps to those without an attack, over that of the attacked maps; 1 is no recovery.

    Args:
        network: trained.
        images: uint8 (n, C, size, size).
    """
    client, server = network.client.model.eval(), network.server.model.eval()
    left = whole = 0.0
    with torch.no_grad():
        for part in images.split(EVALUATION_BATCH):
            pixels = to_float(part)
            sent = client(pixels)
            no_map = torch.zeros(len(pixels), 1, sent.shape[2], sent.shape[3])
            clean = F.pixel_shuffle(client.layers(downsample(pixels, no_map)), 2)
            left += float((server.recovered_maps(sent) - clean).square().double().sum())
            whole += float((F.pixel_shuffle(sent, 2) - clean).square().double().sum())
    return left / whole if whole else 1.0


def _with(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    recipe = Recipe(settings.recipes[0].name, settings.recipes[0].augmentation, settings.recipes[0].balance)
    options = Recipe(changes=tuple(changes.items())).options(settings.options)
    return replace(settings, options=options, recipes=(recipe,))


def _row(networks: SeedNetworks) -> dict[str, Any]:
    import time

    started = time.process_time()
    network, val = networks.split.model, networks.partition.val
    answer = network.answer(val.images)
    streams = {"recovered": answer.recovered, "fused": answer.fused, "attacked": answer.attacked}
    by_maximum = {
        maximum: weighted_scores(**streams, initial=networks.settings.options.initial_weights, maximum=maximum)
        for maximum in ("image", "batch")
    }
    answers = {name: pack(scores.argmax(1)) for name, scores in (by_maximum | streams).items()}
    seconds = time.process_time() - started
    return {
        "answers": answers,
        "attack_left": attack_left(network, val.images),
        "processor_s": round(seconds, 1),
    }


def _figures(seeds: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    rows = [seed["rows"][name] for seed in seeds]
    return {
        "accuracy": {key: accuracy([_scored(seed, name, key) for seed in seeds]) for key in rows[0]["answers"]},
        "attack_left": sum(row["attack_left"] for row in rows) / len(rows),
        "processor_s": sum(row["processor_s"] for row in rows) / len(rows),
    }


def _scored(seed: dict[str, Any], name: str, key: str) -> Scored:
    right = unpack(seed["rows"][name]["answers"][key]) == unpack(seed["labels"])
    return Scored(np.asarray(seed["units"], dtype=np.int64), right.astype(np.float64))


def _cells(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    shares = found["accuracy"]
    low, high = shares["image"]["interval_images"]
    return (
        name,
        f"{100 * shares['image']['mean']:.2f} ({100 * low:.2f} to {100 * high:.2f})",
        *(f"{100 * shares[key]['mean']:.2f}" for key in ("batch", "recovered", "fused", "attacked")),
        f"{found['attack_left']:.2f}",
        f"{found['processor_s']:.0f}",
    )


def _silent(_: str) -> None:
    pass
