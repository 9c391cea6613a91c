"""Accuracy against the strength of the client's attack.

Of the split network, trained anew for each strength, and of the client's own classifier, which the attack is made to
mislead. Equation 1 taken literally changes nothing at 8 bits: ``literal`` is the end of the curve without an attack.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gascnn.benchmarks.pgsl.intervals import Scored, accuracy, difference
from gascnn.benchmarks.pgsl.partial import Partial, pack, unpack
from gascnn.benchmarks.pgsl.partition import Partition
from gascnn.benchmarks.pgsl.presets import Settings
from gascnn.benchmarks.pgsl.seed_networks import Progress, SeedNetworks
from gascnn.benchmarks.pgsl.training import predictions
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.pgsl.options import PgslOptions

MEASUREMENT = "pgsl strength"
NETWORKS = ("fusion", "recovered", "fused", "attacked", "local")
TITLES = {"fusion": "fusion", "recovered": "S_r", "fused": "S_f", "attacked": "S_a", "local": "local classifier"}


@dataclass(frozen=True)
class Strength:
    """One point.

    Attributes:
        attack: ``literal``, ``pixels`` or ``bound``.
        value: number of pixels, or the bound; not looked at with ``literal``.
    """

    attack: str
    value: float = 0.0

    @property
    def name(self) -> str:
        """In the report: ``literal``, ``pixels 10``, ``bound 0.1``."""
        return self.attack if self.attack == "literal" else f"{self.attack} {self.value:g}"

    def options(self, base: PgslOptions) -> PgslOptions:
        """``base`` with this attack.

        Raises:
            UsageError: another attack, or a value out of range.
        """
        changed: dict[str, Any] = {"attack": self.attack}
        if self.attack == "pixels":
            changed["pixels"] = int(self.value) if float(self.value).is_integer() else self.value
        elif self.attack == "bound":
            changed["bound"] = self.value
        return PgslOptions.from_dict(base.to_dict() | changed)


def curve_of(pixels: Sequence[int], bounds: Sequence[float] = ()) -> tuple[Strength, ...]:
    """No attack (equation 1 as it is printed), then attacks by so many pixels, then bounded ones."""
    by_pixels = (Strength("pixels", count) for count in pixels if count)
    return (Strength("literal"), *by_pixels, *(Strength("bound", bound) for bound in bounds))


def measure(
    settings: Settings,
    strengths: Sequence[Strength],
    *,
    partial: Path | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the split network for each strength and seed, and test it.

    Args:
        settings: data set, sizes, seeds, options; ``attack``, ``pixels`` and ``bound`` of its options are replaced.
        strengths: the points, in the order of the report.
        partial: a JSON file of what is done, written after each point; points and seeds can be added to it.
        data_dir: where to look for the data first.
        progress: told each step as it begins.

    Returns:
        ``settings``, ``machine``, ``versions``, ``rule``, ``seeds``, and ``points``: for each strength its ``name``,
        ``figures`` (by network, 95 % intervals), ``fusion_minus`` (paired differences to each stream), ``mean_l2``
        (of what is added, pixels of 0 to 1), ``pixels_changed`` (at 8 bits) and ``local_answers_changed`` (share of
        test images); means over seeds.

    Raises:
        DataError: data that is not there.
        FormatError: ``partial`` is not such a file.
        UsageError: no strength, one given twice or out of range, a partial file of other settings.
    """
    names = [strength.name for strength in strengths]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"strengths are {', '.join(names) or 'none'}; at least one is needed, each once")
    varied = {strength.name: replace(settings, options=strength.options(settings.options)) for strength in strengths}
    store = Partial(partial, MEASUREMENT, settings.to_dict())
    rule = ""
    for seed in settings.seeds:
        part = settings.partition(seed, data_dir)
        rule = part.rule
        known = store.seed(seed, part.sha256())
        known["labels"], known["units"] = pack(part.test.labels), part.units.tolist()
        for name, chosen in varied.items():
            if name not in known["rows"]:
                known["rows"][name] = _point(chosen, name, seed, part, progress or _silent)
                store.save()
    report = store.report(settings.seeds, rule=rule)
    return report | {"points": [_summary(name, list(report["seeds"].values())) for name in names]}


def markdown(report: dict[str, Any], command: str = "") -> str:
    """The curve as a table.

    Args:
        report: as :func:`measure` gives it.
        command: what was typed.
    """
    settings = report["settings"]
    columns = ("strength", *TITLES.values(), "fusion − S_a", "answers changed", "pixels changed", "added, L2")
    size, options = settings["image_size"], settings["options"]
    lines = [
        f"`{settings['data']}`, images of {f'{size}x{size}' if size else 'their stored size'}, "
        f"{settings['train_images'] or 'all'} training images, {options['epochs']} epochs, seeds: "
        f"{len(report['seeds'])}; {report['rule']}. Accuracy on attacked test images in "
        "percent with 95 % intervals over images, networks held fixed: Wilson's where each image counts once, else "
        "(the difference, in percentage points, too) bootstrap of the images (mias: patients). "
        "`answers changed`: test images whose class the attack changes for the client's classifier.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(_cells(point)) + " |" for point in report["points"]),
        *(["", f"`{command}`"] if command else []),
    ]
    return "\n".join(lines) + "\n"


def _point(settings: Settings, name: str, seed: int, part: Partition, progress: Progress) -> dict[str, Any]:
    started = time.process_time()
    networks = SeedNetworks(settings, seed, part, lambda text: progress(f"{text} ({name})"))
    answer = networks.split.model.answer(part.test.images)
    attacked = networks.attack("jsma", part.test.images)
    scores = {
        "fusion": answer.scores,
        "recovered": answer.recovered,
        "fused": answer.fused,
        "attacked": answer.attacked,
    }
    return {
        "answers": {key: pack(value.argmax(1)) for key, value in scores.items()}
        | {"local": pack(predictions(networks.local, attacked))},
        "split": networks.split.to_dict(),
        **networks.change(part.test.images, attacked),
        "processor_s": round(time.process_time() - started, 1),
    }


def _summary(name: str, seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [seed["rows"][name] for seed in seeds]
    scored = {
        network: [_scored(seed, row["answers"][network]) for seed, row in zip(seeds, rows, strict=True)]
        for network in NETWORKS
    }
    return {
        "name": name,
        "figures": {network: accuracy(parts) for network, parts in scored.items()},
        "fusion_minus": {
            network: difference(scored["fusion"], parts) for network, parts in scored.items() if network != "fusion"
        },
        **{
            key: float(np.mean([row[key] for row in rows]))
            for key in ("mean_l2", "pixels_changed", "local_answers_changed")
        },
    }


def _scored(seed: dict[str, Any], answers: str) -> Scored:
    right = (unpack(answers) == unpack(seed["labels"])).astype(np.float64)
    return Scored(np.asarray(seed["units"], dtype=np.int64), right)


def _cells(point: dict[str, Any]) -> tuple[str, ...]:
    return (
        point["name"],
        *(_interval(point["figures"][network]) for network in NETWORKS),
        _interval(point["fusion_minus"]["attacked"]),
        f"{100 * point['local_answers_changed']:.1f} %",
        f"{point['pixels_changed']:.1f}",
        f"{point['mean_l2']:.2f}",
    )


def _interval(found: dict[str, Any]) -> str:
    low, high = found["interval_images"]
    return f"{100 * found['mean']:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _silent(_: str) -> None:
    pass
