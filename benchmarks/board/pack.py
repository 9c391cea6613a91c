"""Make the folder that goes to a board: networks, images, and what they answer here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.board.checked import LONGEST_TEXT
from gascnn.benchmarks.board.digests import image_digests
from gascnn.benchmarks.board.folder import (
    ANN,
    ANN_INT8,
    ANNS,
    CONTENDERS,
    EXPECTED,
    EXPECTED_FORMAT,
    EXPECTED_KIND,
    IMAGES,
    MANIFEST,
    MOST_IMAGES,
    NETWORK,
    PACK_FORMAT,
    PACK_KIND,
    README,
    SCRIPT,
    open_pack,
)
from gascnn.benchmarks.board.texts import readme, script
from gascnn.exporters.onnx.check import torch_outputs
from gascnn.exporters.onnx.export import LabelledImages, export_resnet
from gascnn.exporters.onnx.metadata import own_version
from gascnn.hardware.backends import NetxFile, check_image_shape, open_netx, run_batches
from gascnn.hardware.edge import EdgeModel
from gascnn.toolkit.bundle import MODEL_FILE, Bundle, load_bundle
from gascnn.toolkit.errors import DataError, FormatError, UsageError
from gascnn.toolkit.files import atomic_folder, sha256_file
from gascnn.toolkit.training.bundles import build_model

CHECK_IMAGES = 200
"""Packed images on which an exported file is compared with PyTorch."""

_VERSIONS = ("numpy", "onnxruntime", "torch")
Images = npt.NDArray[np.uint8]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Pack:
    """A folder that was made.

    Attributes:
        folder: where it is.
        manifest: what its ``manifest.json`` holds.
        manifest_sha256: of that file; every result names it.
        bytes: of all files together.
    """

    folder: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "bytes": self.bytes,
            "manifest_sha256": self.manifest_sha256,
            "manifest": self.manifest,
        }


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What goes into a folder, checked."""

    network: NetxFile
    baseline: Path
    bundle: Bundle
    images: Images
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    steps: int
    seed: int | None
    calibration: Images | None
    texts: dict[str, str]

    @property
    def anns(self) -> tuple[str, ...]:
        """Names of the ANNs, int8 only where there are images to calibrate on."""
        return ANNS if self.calibration is not None else ANNS[:1]

    @property
    def contenders(self) -> list[str]:
        """Names of all."""
        return [*self.anns, "snn"]


def pack(
    network_path: str | os.PathLike[str],
    baseline_bundle: str | os.PathLike[str],
    images: Images,
    labels: npt.NDArray[np.integer[Any]],
    class_names: Sequence[str],
    out_folder: str | os.PathLike[str],
    *,
    int8: bool = True,
    calibration: Images | None = None,
    calibrated_on: str = "",
    steps: int | None = None,
    seed: int | None = None,
    data_name: str = "",
    provenance: str = "",
    note: str = "",
    replace: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Pack:
    """Write a folder that measures a spiking network and its ANN on a board without torch.

    The same arguments give the same bytes on the same machine. Nothing is left behind where something goes wrong.

    Args:
        network_path: NetX file; it is copied byte for byte.
        baseline_bundle: the ANN it is compared with, a bundle of our own architecture.
        images: (n, C, H, W) uint8, a few hundred test images, at most :data:`MOST_IMAGES`.
        labels: (n,) integers.
        class_names: in the order of the labels; those of both networks must be the same.
        out_folder: the folder to write.
        int8: also an 8-bit ANN.
        calibration: (m, C, H, W) uint8, training images to take its ranges from; those that are among ``images`` are
            left out.
        calibrated_on: what these are.
        steps: T; default what the network was fitted for.
        seed: of the coding; default the network's.
        data_name, provenance, note: recorded, each in one line.
        replace: an older folder of this kind may be replaced, if nothing else is in it.
        threads: of the simulator here.
        progress: called with the number of images simulated.

    Raises:
        UsageError: the networks' classes, framing or images differ from one another or from ``class_names``;
            ``out_folder`` is there already; no calibration images for int8.
        DataError: images or labels that cannot be used, or the folder cannot be written.
        FormatError: a network file or bundle that cannot be read.
        CheckFailed: the exported ANN does not compute what PyTorch does.
    """
    wanted = _Wanted(
        network=open_netx(network_path),
        baseline=Path(baseline_bundle),
        bundle=load_bundle(baseline_bundle),
        images=_images(images, "images"),
        labels=_labels(labels, len(images), len(class_names)),
        classes=tuple(str(name) for name in class_names),
        steps=1,
        seed=seed,
        calibration=_calibration(calibration, images) if int8 else None,
        texts={
            name: _line(name, text)
            for name, text in {
                "data_name": data_name, "provenance": provenance, "note": note, "calibrated_on": calibrated_on,
            }.items()
        },
    )  # fmt: skip
    wanted = _checked(wanted, steps)
    target = Path(out_folder)
    _check_target(target, replace)
    with atomic_folder(target, MANIFEST) as folder:
        _write(folder, wanted, threads, progress)
        made = open_pack(folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
    return Pack(target, made.manifest, made.manifest_sha256, size)


def _images(images: Images, what: str) -> Images:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        shown = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{what} are {shown}; uint8 (n, C, H, W) is needed")
    if not 1 <= len(images) <= MOST_IMAGES:
        raise DataError(f"there are {len(images)} {what}; 1 to {MOST_IMAGES} can be packed, a few hundred are enough")
    return images


def _labels(labels: npt.NDArray[np.integer[Any]], count: int, classes: int) -> npt.NDArray[np.int64]:
    found = np.asarray(labels)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise DataError(f"labels are {found.dtype} {found.shape}; {count} integers are needed, one an image")
    if found.size and not (found.min() >= 0 and found.max() < classes):
        raise DataError(f"labels go from {found.min()} to {found.max()}; there are {classes} classes, from 0")
    return found.astype(np.int64)


def _calibration(calibration: Images | None, images: Images) -> Images:
    """Those that are not packed too, by their pixels: int8 must not have seen what it is tested on."""
    if calibration is None:
        raise UsageError("int8 needs calibration images, training images of the same data; or leave int8 out")
    packed = {image.tobytes() for image in images}
    kept = np.array([image.tobytes() not in packed for image in _images(calibration, "calibration images")])
    if not kept.any():
        raise UsageError("every calibration image is among the packed ones; give training images")
    chosen: Images = calibration[kept]
    return chosen


def _line(name: str, text: str) -> str:
    line = " ".join(text.split())
    if len(line) > LONGEST_TEXT:
        raise UsageError(f"{name} has {len(line)} characters; at most {LONGEST_TEXT} are kept")
    return line


def _checked(wanted: _Wanted, steps: int | None) -> _Wanted:
    """With T, if both networks answer the same question about the same images."""
    network, path = wanted.network.network, wanted.network.path
    _check_networks(wanted)
    check_image_shape(network, wanted.images)
    if wanted.images.shape[1:] != wanted.bundle.image_shape:
        raise DataError(
            f"images have shape {wanted.images.shape[1:]}; {wanted.baseline} takes {wanted.bundle.image_shape}"
        )
    if steps is None:
        if network.deployment is None:
            raise UsageError(f"{path} does not say how many steps an image takes; give steps")
        steps = network.deployment.steps
    if steps < 1:
        raise UsageError(f"steps is {steps}; it must be at least 1")
    return dataclasses.replace(wanted, steps=steps)


def _check_networks(wanted: _Wanted) -> None:
    bundle, path, deployment = wanted.bundle, wanted.network.path, wanted.network.network.deployment
    if bundle.kind != "ann":
        raise FormatError(f"{wanted.baseline}: a bundle of kind {bundle.kind}; the baseline is one of kind ann")
    outputs = wanted.network.network.layers[-1].shape[0]
    if outputs != len(wanted.classes):
        raise UsageError(f"{path} has {outputs} outputs; the images have {len(wanted.classes)} classes")
    said = {wanted.baseline: bundle.classes, path: () if deployment is None else deployment.classes}
    for name, classes in said.items():
        if classes and classes != wanted.classes:
            raise UsageError(f"{name} answers {_few(classes)}; the images' classes are {_few(wanted.classes)}")
    for what in () if deployment is None else ("framing", "pixel_max"):
        one, other = getattr(deployment, what), getattr(bundle, what)
        if one != other:
            raise UsageError(f"{path} takes {what} {one}, {wanted.baseline} {other}; both must see the same images")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _check_target(target: Path, replace: bool) -> None:
    """Nothing of anybody's may be lost: neither an older folder, nor results that were put into it."""
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not replace or not (target / MANIFEST).is_file():
        raise UsageError(f"{target} is there already and not empty; give the name of a new folder")
    ours = {MANIFEST, IMAGES, EXPECTED, SCRIPT, README, *CONTENDERS.values()}
    others = sorted(path.name for path in target.iterdir() if path.name not in ours)
    if others:
        raise UsageError(f"{target} also holds {others[0]}; move it elsewhere before the folder is replaced")


def _write(folder: Path, wanted: _Wanted, threads: int | None, progress: Progress | None) -> None:
    """All files of the folder, the manifest last."""
    (folder / NETWORK).write_bytes(_same_bytes(wanted.network))
    check = LabelledImages(wanted.images[:CHECK_IMAGES], wanted.labels[:CHECK_IMAGES])
    export_resnet(wanted.baseline, folder / ANN, check=check)
    if wanted.calibration is not None:
        told = wanted.texts["calibrated_on"]
        export_resnet(
            wanted.baseline, folder / ANN_INT8, calibration=wanted.calibration, calibrated_on=told, check=check
        )
    np.savez(folder / IMAGES, images=wanted.images, labels=wanted.labels)
    _write_json(folder / EXPECTED, _expected(folder, wanted, threads, progress), indent=None)
    (folder / SCRIPT).write_text(script(), encoding="utf-8")
    (folder / README).write_text(readme(_record(wanted)), encoding="utf-8")
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(folder.iterdir())}
    _write_json(folder / MANIFEST, {**_record(wanted), "files": files}, indent=2)


def _same_bytes(network: NetxFile) -> bytes:
    """The file's bytes, which must still be those that were read."""
    data = network.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != network.sha256:
        raise FormatError(f"{network.path}: changed while it was read; pack again when nobody writes it")
    return data


def _record(wanted: _Wanted) -> dict[str, Any]:
    texts = wanted.texts
    return {
        "kind": PACK_KIND,
        "format": PACK_FORMAT,
        "gascnn": own_version(),
        "versions": {name: version(name) for name in _VERSIONS},
        "data": {"name": texts["data_name"], "provenance": texts["provenance"]},
        "images": len(wanted.images),
        "image_shape": list(wanted.images.shape[1:]),
        "classes": list(wanted.classes),
        "contenders": wanted.contenders,
        "steps": wanted.steps,
        "seed": wanted.seed,
        "bundle_sha256": sha256_file(wanted.baseline / MODEL_FILE),
        "calibration_images": 0 if wanted.calibration is None else len(wanted.calibration),
        "calibrated_on": "" if wanted.calibration is None else texts["calibrated_on"],
        "note": texts["note"],
    }


def _expected(folder: Path, wanted: _Wanted, threads: int | None, progress: Progress | None) -> dict[str, Any]:
    """What every network answers here; the ANNs one image at a time, as on the board."""
    images = wanted.images
    expected: dict[str, Any] = {"kind": EXPECTED_KIND, "format": EXPECTED_FORMAT}
    for name in wanted.anns:
        expected[name] = _logits(EdgeModel(folder / CONTENDERS[name]).logits(images, batch_size=1), name)
    expected["torch"] = _logits(torch_outputs(build_model(wanted.bundle), images, wanted.bundle.pixel_max), "torch")
    snn: dict[str, list[Any]] = {"classes": [], "output_counts": [], "output_membrane": [], "digests": []}
    for result in run_batches(
        wanted.network, images=images, steps=wanted.steps, seed=wanted.seed, threads=threads, progress=progress
    ):
        snn["classes"] += result.predictions().tolist()
        snn["output_counts"] += result.output_counts.tolist()
        snn["output_membrane"] += result.output_membrane.tolist()
        snn["digests"] += image_digests(result)
    return {**expected, "snn": snn}


def _logits(logits: npt.NDArray[np.float32], name: str) -> dict[str, Any]:
    """Classes, and logits in as few digits as give the same float32 again."""
    if not np.isfinite(logits).all():
        raise DataError(f"{name} gives NaN or infinity on these images; train the network again")
    return {
        "classes": logits.argmax(axis=1).tolist(),
        "logits": [[float(str(value)) for value in row] for row in logits],
    }


def _write_json(path: Path, value: Any, *, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
