"""PGSL's Table I: how far reconstructed images are from those before the attack, and the same against its strength.

Mean squared error over pixels of 0..1 between what the adversary makes and the image **before** the attack. Of each
seed three split networks are trained: without attack, with it (JSMA), and with Laplacian noise on the images
(``[8]``), the first and last without recovery. The methods are those of :mod:`gascnn.benchmarks.pgsl.reconstructors`.

- ``JSMA + X``, ``[8] + X``: the client attacks its images, or adds noise; the adversary sees what then leaves it.
- ``Ours (X)``: robust PCA, the server's own, of the images of ``JSMA + X``.

Four rows are not the paper's, and without them its figures say little: the attacked image **itself**, as if the
activations gave it away whole (what the attack alone moves); the noisy one; robust PCA of the attacked one; and the
mean of the adversary's own images, which is what one knows who sees nothing.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gascnn.benchmarks.pgsl.intervals import Scored, figure
from gascnn.benchmarks.pgsl.partial import Partial
from gascnn.benchmarks.pgsl.partition import make_partition
from gascnn.benchmarks.pgsl.reconstruction_settings import ReconstructionSettings
from gascnn.benchmarks.pgsl.reconstruction_systems import ITSELF, JSMA, NOISE, NONE, Progress, SeedSystems
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.batches import to_float

TABLE, CURVE = "pgsl reconstruction", "pgsl reconstruction against strength"
MEAN = "mean of the adversary's images"

PREFIXES = {NONE: "", JSMA: "JSMA + ", NOISE: "[8] + "}
METHODS = {
    NONE: ("DLG", "iDLG", "DCGAN", "MIA", "activations"),
    JSMA: (ITSELF, "DLG", "iDLG", "DCGAN", "MIA", "DCGAN, untold", "MIA, untold", "activations", "map undone"),
    NOISE: (ITSELF, "DLG", "iDLG", "DCGAN", "MIA", "activations"),
}
"""Of each split network, in the order of the table."""


def reconstruction(
    settings: ReconstructionSettings,
    progress: Progress | None = None,
    partial_results_path: Path | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Measure Table I on one data set.

    Args:
        settings: see :mod:`gascnn.benchmarks.pgsl.reconstruction_settings`.
        progress: told what is begun, and each image of an inversion.
        partial_results_path: JSON of what is done, written after each method; a run that is started again with it goes
            on where it ended, to the same figures.
        data_dir: where to look for the data first.

    Returns:
        ``settings``, ``machine``, ``versions``, ``rule`` (of the division), ``seeds`` (squared errors of each image by
        row, and the fused stream's accuracy of each split network), ``figures`` (by row: mean, by seed, 95 %
        intervals, see :mod:`gascnn.benchmarks.pgsl.intervals`), ``ratios`` (see :func:`ratio`) and ``examples``
        (see :func:`example_images`).

    Raises:
        DataError: data that is not there.
        FormatError: the file is not of partial results.
        UsageError: it holds another measurement or other settings; more pixels than an image has.
    """
    store = Partial(partial_results_path, TABLE, settings.to_dict())
    rule = ""
    for systems, known in _seeds(settings, store, settings.options.pixels, progress, data_dir):
        rule = systems.partition.rule
        _keep_originals(systems, known)
        for defence, names in METHODS.items():
            _measure(systems, known, store, defence, settings.options.pixels, names, _table_name)
    report = store.report(settings.seeds, rule=rule)
    seeds = report["seeds"]
    report["figures"] = figures(list(seeds.values()))
    report["ratios"] = {
        row: ratio(list(seeds.values()), row, base) for row, base in bases(list(report["figures"])).items()
    }
    return report


def reconstruction_curve(
    settings: ReconstructionSettings,
    progress: Progress | None = None,
    partial_results_path: Path | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Error of reconstructions against k, the pixels that the attack moves, each with a split network of its own.

    Args:
        settings: ``strengths`` and ``curve_methods`` say which k and methods; 0 pixels is no attack.
        progress, partial_results_path, data_dir: as for :func:`reconstruction`.

    Returns:
        As :func:`reconstruction`, with ``curve`` in place of ``ratios``: by method, and by method with ``, recovered``,
        a list in the order of ``settings["strengths"]`` of ``pixels``, ``mse`` (a figure) and ``accuracy`` (of the
        fused stream, mean over seeds).

    Raises:
        The same, and UsageError: a method that is not known.
    """
    unknown = [name for name in settings.curve_methods if name not in METHODS[JSMA]]
    if unknown:
        raise UsageError(f"method is {unknown[0]!r}; allowed: {', '.join(METHODS[JSMA])}")
    names = (ITSELF, *(name for name in settings.curve_methods if name != ITSELF))
    store = Partial(partial_results_path, CURVE, settings.to_dict())
    rule = ""
    for systems, known in _seeds(settings, store, max(settings.strengths), progress, data_dir):
        rule = systems.partition.rule
        for pixels in settings.strengths:
            _measure(systems, known, store, JSMA, pixels, names, _curve_name)
    report = store.report(settings.seeds, rule=rule)
    seeds = report["seeds"]
    found = figures(list(seeds.values()))
    curve = {
        method: [
            {
                "pixels": pixels,
                "mse": found[
                    _curve_name(JSMA, pixels, method, False) if own else _curve_name(JSMA, pixels, name, True)
                ],
                "accuracy": float(np.mean([seed["accuracy"][f"{JSMA} {pixels}"] for seed in seeds.values()])),
            }
            for pixels in settings.strengths
        ]
        for name in names
        for method, own in ((name, True), (f"{name}, recovered", False))
    }
    return report | {"figures": found, "curve": curve}


def figures(seeds: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By row, of what was kept of the seeds: mean squared error with its intervals."""
    return {row: figure([_scored(seed, row) for seed in seeds]) for row in seeds[0]["rows"]}


def bases(rows: Sequence[str]) -> dict[str, str]:
    """What each row is divided by: with attack or noise by without, recovered by not."""
    found = {}
    for row in rows:
        if row.startswith("Ours ("):
            found[row] = PREFIXES[JSMA] + row[len("Ours (") : -1]
        for prefix in (PREFIXES[JSMA], PREFIXES[NOISE]):
            if row.startswith(prefix) and row[len(prefix) :].removesuffix(", untold") in METHODS[NONE]:
                found[row] = row[len(prefix) :].removesuffix(", untold")
    return {row: base for row, base in found.items() if base in rows}


def ratio(seeds: Sequence[dict[str, Any]], row: str, base: str, *, resamples: int = 2000) -> dict[str, Any] | None:
    """One row's mean squared error over another's on the same images, with a 95 % percentile bootstrap interval.

    Units (images, or patients with all their images in all seeds) are drawn with replacement, both rows alike.

    Returns:
        ``of``, ``value`` and ``interval``; None where the other row's error is 0 for some resample.
    """
    units = np.concatenate([np.asarray(seed["units"]) for seed in seeds])
    errors = [np.concatenate([_scored(seed, name).values for seed in seeds]) for name in (row, base)]
    _, places = np.unique(units, return_inverse=True)
    sums = np.stack([np.bincount(places, weights=values) for values in errors])
    count = sums.shape[1]
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    above, below = sums @ np.concatenate([np.ones((1, count)), draws]).T
    if not (below > 0).all():
        return None
    values = above / below
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"of": base, "value": float(values[0]), "interval": [float(low), float(high)]}


def example_images(report: dict[str, Any], seed: int | None = None) -> dict[str, npt.NDArray[np.uint8]]:
    """The pictures kept of one seed, the first if None: by row, and ``original``, uint8 (examples, C, H, W)."""
    number = report["settings"]["seeds"][0] if seed is None else seed
    known = report["seeds"][str(number)]
    kept = {row: values["examples"] for row, values in known["rows"].items()} | {"original": known["original"]}
    return {
        row: np.frombuffer(base64.b64decode(picture["base64"]), dtype=np.uint8).reshape(picture["shape"])
        for row, picture in kept.items()
    }


def _seeds(
    settings: ReconstructionSettings,
    store: Partial,
    pixels: int,
    progress: Progress | None,
    data_dir: str | os.PathLike[str] | None,
) -> Iterator[tuple[SeedSystems, dict[str, Any]]]:
    for seed in settings.seeds:
        part = make_partition(
            settings.data,
            seed,
            image_size=settings.image_size,
            framing=settings.framing,
            limits=(settings.train_images, settings.auxiliary_images, None),
            data_dir=data_dir,
        )
        _check_pixels(part.test.images.shape[-1], pixels)
        known = store.seed(seed, part.sha256())
        systems = SeedSystems(settings, seed, part, progress or _silent)
        known["train_images"], known["auxiliary_images"] = len(part.train.labels), len(part.val.labels)
        known["units"] = part.units[: len(systems.targets.labels)].tolist()
        known["original"] = _picture(systems.targets.images, settings.examples)
        known.setdefault("accuracy", {})
        yield systems, known


def _keep_originals(systems: SeedSystems, known: dict[str, Any]) -> None:
    known["rows"].setdefault(MEAN, _row(systems, systems.mean_image()))


def _measure(
    systems: SeedSystems,
    known: dict[str, Any],
    store: Partial,
    defence: str,
    pixels: int,
    names: Sequence[str],
    named: Callable[[str, int, str, bool], str],
) -> None:
    """The rows of one split network that are not there yet."""
    for name in names:
        rows = {recovered: named(defence, pixels, name, recovered) for recovered in (False, True)}
        if defence != JSMA:
            del rows[True]
        if all(row in known["rows"] for row in rows.values()):
            continue
        system = systems.system(defence, pixels)
        key = f"{defence} {pixels}" if defence == JSMA else defence
        if key not in known["accuracy"]:
            known["accuracy"][key] = systems.fused_accuracy(system)
        systems.tell(rows[False])
        started = time.process_time()
        made = system.methods[name](systems.targets.images, systems.targets.labels)
        taken = {"processor_s": round(time.process_time() - started, 1)}
        known["rows"][rows[False]] = _row(systems, made) | taken
        if True in rows:
            known["rows"][rows[True]] = _row(systems, systems.recover(made))
        store.save()


def _table_name(defence: str, _: int, name: str, recovered: bool) -> str:
    return f"Ours ({name})" if recovered else PREFIXES[defence] + name


def _curve_name(_: str, pixels: int, name: str, recovered: bool) -> str:
    return f"{pixels} pixels, {name}" + (", recovered" if recovered else "")


def _row(systems: SeedSystems, made: Tensor) -> dict[str, Any]:
    errors = (to_float(made).double() - to_float(systems.targets.images).double()).square().flatten(1).mean(1)
    return {"errors": errors.tolist(), "examples": _picture(made, systems.settings.examples)}


def _picture(images: Tensor, count: int) -> dict[str, Any]:
    pixels = images[:count].contiguous().numpy()
    return {"shape": list(pixels.shape), "base64": base64.b64encode(pixels.tobytes()).decode("ascii")}


def _scored(seed: dict[str, Any], row: str) -> Scored:
    return Scored(np.asarray(seed["units"], dtype=np.int64), np.asarray(seed["rows"][row]["errors"]))


def _check_pixels(side: int, pixels: int) -> None:
    if pixels > side * side:
        raise UsageError(f"the attack is to move {pixels} pixels; an image has {side * side}")


def _silent(_: str) -> None:
    pass
