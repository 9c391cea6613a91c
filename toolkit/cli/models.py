"""Open whatever MODEL names: a NetX file, a bundle (ANN or spiking) or a NIR file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.bundle import MODEL_FILE, Bundle, is_bundle, load_bundle
from gascnn.toolkit.errors import DataError, FormatError, UsageError, first_line
from gascnn.toolkit.files import sha256_file

if TYPE_CHECKING:
    import nir

    from gascnn.hardware.backends import NetxFile
    from gascnn.toolkit.data import Dataset

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class Model:
    """An opened model.

    Attributes:
        kind: ``netx`` (integers), ``ann``, ``snn`` (spiking, floating point) or ``pgsl`` (split; only from
            :func:`gascnn.toolkit.cli.pgsl_local.open_split`).
        path: where it was.
        sha256: of the NetX or NIR file, or of a bundle's ``model.json``, which names the hash of its weights.
        image_shape: (C, H, W), or None where a foreign file does not say.
        classes: names, empty where a foreign file does not say.
        framing: what part of an image it takes.
        netx, bundle, graph: what was opened; the graph is there for ``snn``.
    """

    kind: Literal["netx", "ann", "snn", "pgsl"]
    path: Path
    sha256: str
    image_shape: tuple[int, ...] | None
    classes: tuple[str, ...]
    framing: str = "whole"
    netx: NetxFile | None = None
    bundle: Bundle | None = None
    graph: nir.NIRGraph | None = None

    def summary(self) -> dict[str, Any]:
        """For JSON and for what is written into bundles; of an absolute path the name, for files travel."""
        path = self.path.name if self.path.is_absolute() else str(self.path)
        return {"path": path, "kind": self.kind, "sha256": self.sha256}


def open_model(path: Path, *, input_shape: tuple[int, ...] | None = None, input_bits: int | None = None) -> Model:
    """Open a model by what is there.

    Raises:
        FormatError: nothing there, or nothing that could be a model.
    """
    if is_bundle(path):
        return _open_bundle(path)
    if path.is_dir():
        raise FormatError(f"{path}: a folder without {MODEL_FILE}; give a bundle, a NetX file or a NIR file")
    if not path.exists():
        raise FormatError(f"{path}: nothing there; give a bundle, a NetX file (.net) or a NIR file (.nir)")
    if _is_nir(path):
        from gascnn.exporters.nir import read_nir

        return _graph_model(path, sha256_file(path), read_nir(path), None)
    from gascnn.hardware.backends import open_netx

    file = open_netx(path, input_shape=input_shape, input_bits=input_bits)
    deployment = file.network.deployment
    if deployment is None:
        return Model("netx", path, file.sha256, file.network.input_shape, (), netx=file)
    classes, framing = deployment.classes, deployment.framing
    return Model("netx", path, file.sha256, deployment.image_shape, classes, framing, netx=file)


def _is_nir(path: Path) -> bool:
    with open(path, "rb") as handle:
        if handle.read(len(_HDF5_MAGIC)) != _HDF5_MAGIC:
            return path.suffix == ".nir"
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "node" in file and "layer" not in file
    except OSError:
        return path.suffix == ".nir"


def _open_bundle(path: Path) -> Model:
    bundle = load_bundle(path)
    digest = sha256_file(path / MODEL_FILE)
    if bundle.kind == "ann":
        return Model("ann", path, digest, bundle.image_shape, bundle.classes, bundle.framing, bundle=bundle)
    if bundle.kind == "pgsl":
        raise FormatError(
            f"{path}: a bundle of kind pgsl, a split network; it goes with 'gascnn pgsl evaluate' and "
            "'gascnn export --target onnx' alone"
        )
    if bundle.kind == "gan":
        raise FormatError(f"{path}: a bundle of kind gan, which classifies nothing; it goes with 'gascnn gan sample'")
    from gascnn.toolkit.graph_bundle import graph_from_bundle

    return _graph_model(path, digest, graph_from_bundle(bundle), bundle)


def _graph_model(path: Path, digest: str, graph: nir.NIRGraph, bundle: Bundle | None) -> Model:
    import nir

    from gascnn.toolkit.lowering.annotations import graph_notes

    notes = graph_notes(graph)
    inputs = [node for node in graph.nodes.values() if isinstance(node, nir.Input)]
    shape = notes.image_shape or tuple(int(n) for n in np.asarray(inputs[0].output_type["output"]).ravel())
    return Model("snn", path, digest, shape, notes.classes, notes.framing, bundle=bundle, graph=graph)


def load_data(
    name: str, model: Model | None, data_dir: Path | None, image_size: int | None = None, channels: int | None = None
) -> Dataset:
    """Load a data set in the size a model takes.

    Raises:
        DataError: the data set cannot be read, or has other classes than the model.
        UsageError: a model whose images are not square, or a size that contradicts it.
    """
    from gascnn.toolkit.data import load_dataset

    if model is not None and model.image_shape is not None and len(model.image_shape) == 3:
        wanted, height, width = model.image_shape
        if image_size is not None and (image_size, image_size) != (height, width):
            raise UsageError(
                f"--image-size {image_size}, but {model.path} takes images of {height}x{width}; leave it out"
            )
        channels = wanted
        image_size = height if height == width else None
    framing = "whole" if model is None else model.framing
    dataset = load_dataset(name, data_dir=data_dir, image_size=image_size, channels=channels, framing=framing)
    if model is not None:
        _check_fits(dataset, model)
    return dataset


def _check_fits(dataset: Dataset, model: Model) -> None:
    if model.image_shape is not None and len(model.image_shape) == 3 and dataset.image_shape != model.image_shape:
        raise DataError(
            f"{dataset.name} has images of {dataset.image_shape}, {model.path} takes {model.image_shape}; resize them"
        )
    if dataset.framing != model.framing:  # only images that are taken as they are can differ
        raise DataError(
            f"{dataset.name} has images framed as {dataset.framing}, {model.path} takes {model.framing}; make them for "
            "this network"
        )
    if model.classes and len(model.classes) != len(dataset.class_names):
        raise DataError(
            f"{dataset.name} has {len(dataset.class_names)} classes, {model.path} has {len(model.classes)}; "
            "use the data set it was trained on"
        )
    if model.kind != "netx" or (model.netx is not None and model.netx.network.deployment is not None):
        numbered = all(name.isdigit() for name in model.classes)
        if model.classes and not numbered and tuple(model.classes) != tuple(dataset.class_names):
            raise DataError(
                f"{dataset.name} has classes {', '.join(dataset.class_names)}; {model.path} has "
                f"{', '.join(model.classes)}; use the data set it was trained on"
            )


def read_input(path: Path) -> tuple[str, npt.NDArray[np.generic], npt.NDArray[np.int64] | None]:
    """Read ``--input FILE.npz``.

    Returns:
        ``images`` or ``spikes``, the array, and ``labels`` if the file has them.

    Raises:
        DataError: not an .npz, neither or both arrays, object arrays, NaN.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an .npz with 'images' or 'spikes'")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [n for n in ("images", "spikes") if n in archive]
            if len(names) != 1:
                raise DataError(f"{path}: holds {sorted(archive.files)}; it must hold either 'images' or 'spikes'")
            array = archive[names[0]]
            labels = archive["labels"].astype(np.int64) if "labels" in archive else None
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a readable .npz file ({first_line(error)})") from error
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise DataError(f"{path}: {names[0]} holds NaN or infinity; clean the data first")
    if labels is not None and labels.shape != (len(array),):
        raise DataError(f"{path}: {len(array)} {names[0]} but labels of shape {labels.shape}")
    return names[0], array, labels


def eight_bit(images: npt.NDArray[np.generic], path: Path) -> npt.NDArray[np.uint8]:
    """Images as 8-bit pixels: uint8 0..255 as they are, float 0..1 times 255, rounded.

    Raises:
        DataError: another type, shape or range.
    """
    if images.ndim != 4 or len(images) == 0:
        raise DataError(f"{path}: images have shape {images.shape}; expected (image, C, H, W) with at least one image")
    if images.dtype == np.uint8:
        return cast("npt.NDArray[np.uint8]", images)
    if images.dtype.kind == "f":
        if images.min() < 0 or images.max() > 1:
            raise DataError(f"{path}: float images must be 0..1; found {images.min():g}..{images.max():g}")
        return cast("npt.NDArray[np.uint8]", np.rint(images.astype(np.float64) * 255).astype(np.uint8))
    raise DataError(f"{path}: images are {images.dtype}; expected uint8 0..255 or float 0..1")
