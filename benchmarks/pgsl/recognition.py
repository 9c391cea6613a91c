"""PGSL's Table II: accuracy on attacked and reconstructed images, and of the split network's streams and decision.

"We report the results when trained directly with the attacked images" and "test the recognition accuracy on the images
if attacked" (section V-D) leave two readings, and both are measured:

- ``clean``: a plain network trained on clean images classifies attacked test images;
- ``attacked``: it is trained on attacked images and classifies attacked ones.

In both the attack goes by the predictions of the client's small classifier, as the client's own does, and the plain
network is another one. A third, ``white-box``, attacks a few test images by the gradient of the very network that then
classifies them, the strongest use of C&W, BIM and FGSM. Which network PGSL's attacks were made for is not printed.

Reconstructed images are classified by the network that was trained on clean ones. No test label is used for anything
but counting right answers.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gascnn.benchmarks.pgsl.attacks import TITLES
from gascnn.benchmarks.pgsl.intervals import Scored, accuracy, difference
from gascnn.benchmarks.pgsl.partial import Partial, pack, unpack
from gascnn.benchmarks.pgsl.presets import Settings
from gascnn.benchmarks.pgsl.seed_networks import Progress, SeedNetworks
from gascnn.benchmarks.pgsl.training import predictions
from gascnn.toolkit.errors import DataError, UsageError

MEASUREMENT = "pgsl recognition"
STREAMS = ("recovered", "fused", "attacked")
MAJORITY = "majority class"
RECONSTRUCTED = "reconstructed"

Reconstruct = Callable[[Tensor], Tensor]
"""uint8 images (n, C, size, size) to what an attacker makes of their activations, of the same shape and dtype."""


@dataclass(frozen=True)
class Reconstructions:
    """Methods of reconstruction, whose images are classified too. Not among the settings: rows can be added later.

    Attributes:
        methods: by name, made for a seed's networks, so that the client that is attacked is that seed's; called only
            where a seed lacks the row.
        images: of the test images, how many are reconstructed, the first ones; None is all.
        described: how, as plain values; each row keeps it.
    """

    methods: Mapping[str, Callable[[SeedNetworks], Reconstruct]]
    images: int | None = None
    described: Mapping[str, Any] = field(default_factory=dict)


Row = tuple[str, Callable[[], tuple[Tensor, dict[str, Any]]]]
"""Name of a row, and what gives its answers to the first test images and what else is to be kept."""


def measure(
    settings: Settings,
    *,
    partial: Path | None = None,
    attacks: Sequence[str] = tuple(TITLES),
    reconstructions: Reconstructions | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure Table II on one data set.

    Args:
        settings: data set, sizes, seeds, options; see :mod:`gascnn.benchmarks.pgsl.presets`.
        partial: a JSON file of what is done, written after each row; a run that is started again with the same file
            goes on where it ended, to the same figures, and rows of reconstructions can be added to a file later.
        attacks: names of the attacks for comparison.
        reconstructions: methods of reconstruction whose images are classified too.
        data_dir: where to look for the data first.
        progress: told each step as it begins.

    Returns:
        ``settings``, ``machine``, ``versions``, ``rule`` (of the division), ``seeds`` (answers of each row, packed),
        ``figures`` (by row: mean, by seed, 95 % intervals, see :mod:`gascnn.benchmarks.pgsl.intervals`) and
        ``fusion_minus`` (paired differences: decision less each stream, the majority class and the clean row).

    Raises:
        DataError: data that is not there, or reconstructed images of another shape or dtype.
        FormatError: ``partial`` is not such a file.
        UsageError: an unknown attack, a toolbox that is missing, a partial file of other settings, images or
            reconstructions.
    """
    unknown = [name for name in attacks if name not in TITLES]
    if unknown:
        raise UsageError(f"attack is {unknown[0]!r}; allowed: {', '.join(TITLES)}")
    store = Partial(partial, MEASUREMENT, settings.to_dict())
    rule = ""
    for seed in settings.seeds:
        part = settings.partition(seed, data_dir)
        rule = part.rule
        known = store.seed(seed, part.sha256())
        known.setdefault("train_images", len(part.train.labels))
        known["labels"], known["units"] = pack(part.test.labels), part.units.tolist()
        known["majority"] = int(torch.bincount(part.train.labels, minlength=part.classes).argmax())
        networks = SeedNetworks(settings, seed, part, progress or _silent)
        _measure_seed(networks, known, attacks, reconstructions, store)
    report = store.report(settings.seeds, rule=rule)
    return report | summarise(list(report["seeds"].values()))


def summarise(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``figures`` and ``fusion_minus`` of :func:`measure` from what was kept of its seeds."""
    names = [name for name in seeds[0]["rows"] if all(name in seed["rows"] for seed in seeds)]
    scored = {name: [_scored(seed, name) for seed in seeds] for name in [*names, MAJORITY]}
    against = [name for name in (*STREAMS, MAJORITY, "clean") if name in scored]
    return {
        "figures": {name: accuracy(parts) for name, parts in scored.items()},
        "fusion_minus": {name: difference(scored["fusion"], scored[name]) for name in against},
    }


def _measure_seed(
    networks: SeedNetworks,
    known: dict[str, Any],
    attacks: Sequence[str],
    reconstructions: Reconstructions | None,
    store: Partial,
) -> None:
    if not all(name in known["rows"] for name in ("fusion", *STREAMS)):
        started = time.process_time()
        answer = networks.split.model.answer(networks.partition.test.images)
        for name, scores in (("recovered", answer.recovered), ("fused", answer.fused), ("attacked", answer.attacked)):
            known["rows"][name] = {"answers": pack(scores.argmax(1))}
        # The training of all three is in the decision's time.
        known["rows"]["fusion"] = {"answers": pack(answer.scores.argmax(1)), **_seconds(started)}
        known["split"] = networks.split.to_dict()
        store.save()
    for name, answers in (*_plain_rows(networks, attacks), *_reconstructed_rows(networks, reconstructions)):
        if name in known["rows"]:
            _check_same(name, known["rows"][name], networks, reconstructions)
            continue
        networks.tell(name)
        started = time.process_time()
        found, more = answers()
        known["rows"][name] = {"answers": pack(found), **more, **_seconds(started)}
        store.save()


def _check_same(
    name: str, row: dict[str, Any], networks: SeedNetworks, reconstructions: Reconstructions | None
) -> None:
    """Refuse a kept row of reconstructions that were made otherwise: one row of both would be of neither."""
    if reconstructions is None or not name.startswith(RECONSTRUCTED):
        return
    count = len(networks.partition.test.images[: reconstructions.images])
    method = json.loads(json.dumps(dict(reconstructions.described)))
    if len(unpack(row["answers"])) != count or row["method"] != method:
        raise UsageError(
            f"the partial file's row {name!r} of seed {networks.seed} is of other images or made by another method; "
            "name another file"
        )


def _plain_rows(networks: SeedNetworks, attacks: Sequence[str]) -> Iterator[Row]:
    part, settings = networks.partition, networks.settings

    def clean() -> tuple[Tensor, dict[str, Any]]:
        return predictions(networks.plain.model, part.test.images), {"plain": networks.plain.to_dict()}

    yield "clean", clean
    attacked_test = functools.cache(lambda name: networks.attack(name, part.test.images))
    for name in attacks:

        def on_clean(name: str = name) -> tuple[Tensor, dict[str, Any]]:
            attacked = attacked_test(name)
            return predictions(networks.plain.model, attacked), networks.change(part.test.images, attacked)

        def on_attacked(name: str = name) -> tuple[Tensor, dict[str, Any]]:
            images = networks.attack(name, part.train.take(settings.attacked_train_images).images)
            model = networks.train_plain(images, networks.plain.recipe)
            return predictions(model, attacked_test(name)), {"train_images": len(images)}

        def white_box(name: str = name) -> tuple[Tensor, dict[str, Any]]:
            images = part.test.images[: settings.white_box_images]
            attacked = networks.attack(name, images, networks.plain.model)
            return predictions(networks.plain.model, attacked), networks.change(images, attacked)

        yield f"{name}, clean", on_clean
        yield f"{name}, attacked", on_attacked
        # The saliency map is written for the client's classifier alone.
        if settings.white_box_images and name != "jsma":
            yield f"{name}, white-box", white_box


def _reconstructed_rows(networks: SeedNetworks, reconstructions: Reconstructions | None) -> Iterator[Row]:
    if reconstructions is None:
        return
    images = networks.partition.test.images[: reconstructions.images]
    for name in reconstructions.methods:

        def classify(name: str = name) -> tuple[Tensor, dict[str, Any]]:
            made = reconstructions.methods[name](networks)(images.clone())
            if made.shape != images.shape or made.dtype != torch.uint8:
                raise DataError(
                    f"{name} gives {made.dtype} of shape {tuple(made.shape)}; uint8 {tuple(images.shape)} is needed"
                )
            squares = (made.double() - images.double()).square() / 255**2
            more = {"mse": float(squares.mean()), "method": dict(reconstructions.described)}
            return predictions(networks.plain.model, made), more

        yield f"{RECONSTRUCTED}, {name}", classify


def _scored(seed: dict[str, Any], name: str) -> Scored:
    labels = unpack(seed["labels"])
    answers = np.full(len(labels), seed["majority"]) if name == MAJORITY else unpack(seed["rows"][name]["answers"])
    right = (answers == labels[: len(answers)]).astype(np.float64)
    return Scored(np.asarray(seed["units"], dtype=np.int64)[: len(answers)], right)


def _seconds(started: float) -> dict[str, float]:
    return {"processor_s": round(time.process_time() - started, 1)}


def _silent(_: str) -> None:
    pass
