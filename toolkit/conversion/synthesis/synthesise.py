"""The whole synthesis: soft labels, batches of optimised images, each on disk as soon as it is done."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gascnn.toolkit.conversion.synthesis.head import find_head
from gascnn.toolkit.conversion.synthesis.labels import class_similarity, concentration, draw_soft_labels
from gascnn.toolkit.conversion.synthesis.optimise import optimise
from gascnn.toolkit.conversion.synthesis.options import SynthesisOptions
from gascnn.toolkit.conversion.synthesis.regularisers import BatchNormMatch
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.files import atomic_path
from gascnn.toolkit.training.checkpoint import weights_sha256
from gascnn.toolkit.training.loop import own_torch_state
from gascnn.toolkit.training.run_folder import open_run, settled_threads

_ARRAYS = ("images", "answers", "divergence", "soft_labels", "drawn_for", "iterations", "time_s")


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Images made from a network.

    Attributes:
        images: (n, C, H, W) uint8.
        labels: (n,) int64, the class of the soft label's largest share: what the network says of the image, where the
            image meets its label.
        soft_labels: (n, class) float32 they were optimised for.
        drawn_for: (n,) int64, the class whose Dirichlet the soft label was drawn from.
        divergence: (n,) float32, of the network's answers to these 8-bit images from the soft labels, in nats.
        report: options, digest of the network's weights, share of the images that meet their labels, iterations of
            each batch, seconds; plain values.
    """

    images: npt.NDArray[np.uint8] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    soft_labels: npt.NDArray[np.float32] = field(repr=False)
    drawn_for: npt.NDArray[np.int64] = field(repr=False)
    divergence: npt.NDArray[np.float32] = field(repr=False)
    report: dict[str, Any]


def synthesise(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    options: SynthesisOptions | None = None,
    *,
    run_folder: Path | None = None,
    resume: bool = False,
    pixel_max: int = 255,
    progress: Callable[[float], None] | None = None,
    **changes: Any,
) -> Synthesis:
    """Make labelled images that a trained classifier alone knows of.

    Every batch has random numbers of its own, drawn from the seed and the batch's number, and is written when it is
    done: a run that was killed and resumed gives the same images, to the bit, as one that was not (same machine,
    versions and threads).

    Args:
        model: any classifier of :func:`gascnn.toolkit.conversion.trace.trace` that ends in a linear layer; put into
            evaluation mode, its weights stay as they are.
        image_shape: (C, H, W) it takes.
        options: how.
        run_folder: for what is done so far; None keeps it in memory.
        resume: go on with the run in ``run_folder``, if one was begun there.
        pixel_max: the pixel value of intensity 1, at most 255.
        progress: called with the number of images done, parts of images included.
        changes: fields of ``options`` by name.

    Raises:
        ConversionError: a network that cannot be traced, does not end in a linear layer, has one class or NaN weights.
        UsageError: options out of range, or a folder that holds another run.
        FormatError: what lies in the run's folder is damaged.
        TrainingError: the loss is no longer a finite number.
        DataError: a batch could not be written.
    """
    options = replace(options or SynthesisOptions(), **changes)
    if not 1 <= pixel_max <= 255:
        raise UsageError(f"the network's pixels go to {pixel_max}; images of 8 bits need 1..255")
    options = replace(options, threads=settled_threads(options.threads, run_folder, resume))
    with own_torch_state(options.seed, options.threads):
        head = find_head(model, image_shape)
        description = _description(model, image_shape, options)
        if run_folder is not None:
            _open(run_folder, description, resume)
        concentrations = concentration(class_similarity(head.weight), options.scale)
        batches = _batches(options)
        parts: list[dict[str, npt.NDArray[Any]]] = []
        for number, indices in enumerate(batches):
            path = None if run_folder is None else run_folder / f"batch_{number:05d}.npz"
            if path is not None and path.exists():
                part = _read(path, len(indices), image_shape, head.classes)
            else:
                part = _batch(model, image_shape, concentrations, number, indices, options, pixel_max, progress)
                if path is not None:
                    _write(path, part)
            parts.append(part)
            if progress is not None:
                progress(float(indices[-1] + 1))
    found = {name: np.concatenate([part[name] for part in parts]) for name in _ARRAYS}
    return Synthesis(
        images=found["images"],
        labels=found["soft_labels"].argmax(1).astype(np.int64),
        soft_labels=found["soft_labels"],
        drawn_for=found["drawn_for"],
        divergence=found["divergence"],
        report=_report(description, found, model, head.origin),
    )


def _open(folder: Path, description: dict[str, Any], resume: bool) -> None:
    open_run(folder, description, resume)
    for leftover in folder.glob(".batch_*"):  # of a process that was killed while it wrote
        shutil.rmtree(leftover, ignore_errors=True)


def _batches(options: SynthesisOptions) -> list[npt.NDArray[np.intp]]:
    count = -(-options.images // options.batch_size)
    return [np.asarray(part) for part in np.array_split(np.arange(options.images), count)]


def _batch(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    concentrations: npt.NDArray[np.float64],
    number: int,
    indices: npt.NDArray[np.intp],
    options: SynthesisOptions,
    pixel_max: int,
    progress: Callable[[float], None] | None,
) -> dict[str, npt.NDArray[Any]]:
    """One batch; its classes take turns, so that every batch and every first n images hold a fair share of each."""
    started = time.perf_counter()
    randomness = np.random.default_rng([options.seed, number])
    drawn_for = np.asarray(indices % len(concentrations), dtype=np.int64)
    labels = draw_soft_labels(concentrations, drawn_for, randomness).astype(np.float32)
    generator = torch.Generator().manual_seed(int(randomness.integers(2**62)))
    tell = None
    if progress is not None:
        first, share = float(indices[0]), len(indices) / options.iterations

        def tell(done: int) -> None:
            progress(first + done * share)

    made = optimise(model, labels, image_shape, options, generator, pixel_max=pixel_max, progress=tell)
    return {
        "images": made.images,
        "answers": made.answers,
        "divergence": made.divergence,
        "soft_labels": labels,
        "drawn_for": drawn_for,
        "iterations": np.array([made.iterations]),
        "time_s": np.array([time.perf_counter() - started]),
    }


def _write(path: Path, part: dict[str, npt.NDArray[Any]]) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, **part)  # type: ignore[arg-type]  # arrays by name


def _read(path: Path, count: int, image_shape: tuple[int, int, int], classes: int) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            part = {name: archive[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: damaged ({type(error).__name__}); delete it and resume") from error
    fits = part["images"].shape == (count, *image_shape) and part["soft_labels"].shape == (count, classes)
    if not fits or part["images"].dtype != np.uint8:
        raise FormatError(f"{path}: not a batch of this run; delete it and resume")
    return part


def _description(model: nn.Module, image_shape: tuple[int, int, int], options: SynthesisOptions) -> dict[str, Any]:
    """What a resumed run must agree in."""
    return {
        "options": options.to_dict(),
        "model": {"weights_sha256": weights_sha256(model)},
        "dataset": {"image_shape": list(image_shape)},
    }


def _report(
    description: dict[str, Any], found: dict[str, npt.NDArray[Any]], model: nn.Module, origin: str
) -> dict[str, Any]:
    options = description["options"]
    divergence, seconds = found["divergence"].astype(np.float64), float(found["time_s"].sum())
    agree = found["answers"].argmax(1) == found["soft_labels"].argmax(1)
    return {
        "options": options,
        "network_weights_sha256": description["model"]["weights_sha256"],
        "last_layer": origin,
        "batch_norms_matched": len(BatchNormMatch(model)) if options["statistics"] else 0,
        "images": len(divergence),
        "meet_their_label": float((divergence <= options["tolerance"]).mean()),
        "answered_as_labelled": float(agree.mean()),
        "mean_divergence_nats": float(divergence.mean()),
        "iterations": found["iterations"].tolist(),
        "time_s": round(seconds, 3),
        "time_an_image_s": round(seconds / len(divergence), 6),
    }
