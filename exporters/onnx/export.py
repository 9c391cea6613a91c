"""Export a trained classifier to ONNX, check it, and only then let the file appear."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, checker, helper
from torch import nn

from gascnn.exporters.onnx.check import Comparison, compare, probe_images
from gascnn.exporters.onnx.graph import OPSET
from gascnn.exporters.onnx.layers import INTENSITIES, classifier, operations
from gascnn.exporters.onnx.metadata import OnnxMetadata, own_version, seal
from gascnn.exporters.onnx.quantise import quantised
from gascnn.exporters.onnx.session import LARGEST_FILE, OnnxSession
from gascnn.toolkit.bundle import MODEL_FILE, load_bundle
from gascnn.toolkit.errors import CheckFailed, FormatError, LimitError, UsageError, first_line
from gascnn.toolkit.files import atomic_path, sha256_file

_LARGEST_METADATA = 2**24  # bytes kept for it: a name for each of 100 000 classes fits


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images to check on.

    Attributes:
        images: (n, C, H, W) uint8.
        labels: (n,) int64, or None.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class OnnxReport:
    """What was written.

    Attributes:
        output: the file.
        sha256, bytes: of it.
        opset: of its operators.
        metadata: what it says of itself.
        check: against PyTorch.
    """

    output: str
    sha256: str
    bytes: int
    opset: int
    metadata: OnnxMetadata
    check: Comparison

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def export_resnet(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    calibration: npt.NDArray[np.uint8] | None = None,
    calibrated_on: str = "",
    check: LabelledImages | None = None,
) -> OnnxReport:
    """Export the classifier of an ANN bundle: uint8 images (batch, C, H, W) in, float32 logits (batch, classes) out.

    The batch is free, the division by ``pixel_max`` is inside, batch norms are folded in float64. The file is opened
    again and compared with PyTorch before it appears at ``output``.

    Args:
        bundle: folder of an ANN bundle of our own architecture.
        output: the file to write.
        calibration: (n, C, H, W) uint8, real images of the kind the network will see: the file is then int8, with
            ranges from them. None gives float32.
        calibrated_on: what those images are, for the metadata.
        check: images to compare on, better not those of ``calibration``; None takes 33 of noise.

    Raises:
        CheckFailed: the float32 file does not compute what PyTorch does; there is no file then.
        ConversionError: an operation that is not known, or weights that onnxruntime cannot quantise.
        DataError: images of another shape or type; or ``output`` cannot be written.
        FormatError: no ANN bundle there.
        LimitError: larger than an ONNX file can be.
        UsageError: ``output`` is a folder, or the bundle wants to import code of its own.
    """
    from gascnn.toolkit.training.bundles import build_model

    folder = Path(bundle)
    opened = load_bundle(folder)
    if opened.kind != "ann":
        raise FormatError(f"{folder}: a bundle of kind {opened.kind}; part resnet is made from kind ann")
    model = build_model(opened)
    graph = classifier(operations(model, opened.image_shape), opened.pixel_max).model(own_version())
    details: dict[str, Any] = {}
    if calibration is not None:
        # The pixels are the integers then, and nothing is rounded before the first layer.
        graph = quantised(graph, calibration, scales={INTENSITIES: 1 / opened.pixel_max})
        details = {"calibration_images": len(calibration), "calibrated_on": calibrated_on}
    metadata = OnnxMetadata(
        part="resnet",
        precision="fp32" if calibration is None else "int8",
        image_shape=opened.image_shape,
        pixel_max=opened.pixel_max,
        framing=opened.framing,
        classes=opened.classes,
        bundle_sha256=sha256_file(folder / MODEL_FILE),
        version=own_version(),
        details=details,
    )
    return write_checked(graph, metadata, model, Path(output), check)


def write_checked(
    graph: ModelProto, metadata: OnnxMetadata, model: nn.Module, output: Path, check: LabelledImages | None
) -> OnnxReport:
    """Write a graph beside ``output``, open it in onnxruntime, compare it with ``model``, then put it in its place.

    Raises:
        CheckFailed, DataError, LimitError, UsageError: as :func:`export_resnet`.
    """
    if graph.ByteSize() > LARGEST_FILE - _LARGEST_METADATA:
        raise LimitError(
            f"the file would have {graph.ByteSize()} bytes; ONNX holds {LARGEST_FILE}; train a narrower network"
        )
    try:
        checker.check_model(graph, full_check=True)
    except Exception as error:
        raise CheckFailed(f"onnx refuses the graph ({first_line(error)}); nothing was written") from error
    data = sealed(graph, metadata)
    chosen = LabelledImages(probe_images(metadata.image_shape)) if check is None else check
    if len(chosen.images) == 0:
        raise UsageError("there are no images to check on; give at least one, or none for noise")
    with atomic_path(output) as temporary:
        temporary.write_bytes(data)
        comparison = compare(OnnxSession(temporary), model, chosen.images, chosen.labels)
        digest = sha256_file(temporary)
    return OnnxReport(str(output), digest, len(data), OPSET, metadata, comparison)


def sealed(graph: ModelProto, metadata: OnnxMetadata) -> bytes:
    """The bytes of a file: graph, metadata, digest; the same for the same network."""
    complete = ModelProto()
    complete.CopyFrom(graph)
    helper.set_model_props(complete, metadata.properties())
    body: bytes = complete.SerializeToString(deterministic=True)
    return body + seal(body)
