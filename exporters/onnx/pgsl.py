"""Export the client of proximal gradient split learning: uint8 images in, activations out, the attack inside.

onnxruntime has no autograd, so the saliency map's gradient is written as forward operators, as in
:mod:`gascnn.models.saliency`: the adjoint of a convolution is a transposed convolution with the same weights, that of
a ReLU a mask. The graph follows :class:`gascnn.models.pgsl.PgslClient` step by step and is checked against it.

In an int8 file the two convolutions that the server continues, by far most of the work, are integers; the attack stays
in float32, for a map rounded to 8 bits would be another attack.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from gascnn.exporters.onnx.export import LabelledImages, OnnxReport, write_checked
from gascnn.exporters.onnx.graph import GraphBuilder
from gascnn.exporters.onnx.layers import IMAGES, intensities
from gascnn.exporters.onnx.metadata import OnnxMetadata, own_version
from gascnn.exporters.onnx.quantise import quantised
from gascnn.models.pgsl import PgslClient
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.training.checkpoint import weights_sha256

ACTIVATIONS = "activations"
"""Name of the output."""

_INTEGERS = ("conv0", "relu0", "conv1", "relu1")
_GEOMETRY: dict[str, Any] = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}


def export_pgsl_client(
    client: PgslClient,
    output: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    pixel_max: int = 255,
    framing: str = "whole",
    bundle_sha256: str = "",
    calibration: npt.NDArray[np.uint8] | None = None,
    calibrated_on: str = "",
    check: npt.NDArray[np.uint8] | None = None,
) -> OnnxReport:
    """Export a client: uint8 images (batch, C, H, W) in, float32 activations (batch, width, H/2, W/2) out.

    Args:
        client: trained; put into evaluation mode.
        output: the file to write, once it was compared with ``client``.
        classes: names, in the order of the local classifier's outputs.
        pixel_max: the pixel value that means intensity 1.
        framing: what part of an image it was trained on.
        bundle_sha256: of what it was loaded from.
        calibration: (n, C, H, W) uint8, real images: the file is then int8. None gives float32.
        calibrated_on: what those images are, for the metadata.
        check: (n, C, H, W) uint8 to compare on; None takes 33 of noise.

    Raises:
        CheckFailed: the float32 file does not compute what PyTorch does; there is no file then.
        DataError: images of another shape or type; or ``output`` cannot be written.
        UsageError: ``output`` is a folder, or no images to check on.
    """
    client.eval()
    classifier = client.attack.classifier
    shape = (classifier.in_channels, client.image_size, client.image_size)
    details: dict[str, Any] = {
        "attack": dict(client.attack.arguments), "width": client.width, "layers_sha256": weights_sha256(client.layers),
    }  # fmt: skip
    graph = client_graph(client, pixel_max)
    if calibration is not None:
        graph = quantised(graph, calibration, nodes=_INTEGERS)
        details |= {"calibration_images": len(calibration), "calibrated_on": calibrated_on}
    metadata = OnnxMetadata(
        part="pgsl-client",
        precision="fp32" if calibration is None else "int8",
        image_shape=shape,
        pixel_max=pixel_max,
        framing=framing,
        classes=tuple(classes),
        bundle_sha256=bundle_sha256,
        version=own_version(),
        details=details,
    )
    chosen = None if check is None else LabelledImages(check)
    return write_checked(graph, metadata, client, Path(output), chosen)


def client_graph(client: PgslClient, pixel_max: int) -> ModelProto:
    """The graph of a client in float32, without metadata."""
    graph = GraphBuilder("pgsl_client")
    side, channels = client.image_size, client.attack.classifier.in_channels
    pixels = graph.input(IMAGES, "uint8", (channels, side, side))
    values = intensities(graph, pixels, pixel_max)
    added = _attack(graph, client.attack, values)
    attacked = graph.add("Add", values, added, name="attacked")
    shrunk = graph.add("ReduceMax", added, name="map", axes=(1,), keepdims=1)
    shrunk = graph.add("MaxPool", shrunk, name="map_half", kernel_shape=(2, 2), strides=(2, 2))
    halves = graph.add("SpaceToDepth", attacked, name="halves", blocksize=2)
    value = graph.add("Concat", halves, shrunk, name="downsampled", axis=1)
    value = _layers(graph, client.layers, value, channels)
    graph.output(value, ACTIVATIONS, "float32", (client.width, side // 2, side // 2))
    return graph.model(own_version())


def _layers(graph: GraphBuilder, layers: nn.Sequential, value: str, channels: int) -> str:
    """Twice convolution, ReLU, batch norm. A batch norm behind a ReLU folds into no convolution with padding."""
    for i, start in enumerate((0, 3)):
        conv, norm = cast(nn.Conv2d, layers[start]), cast(nn.BatchNorm2d, layers[start + 2])
        weight, bias = _float32(conv.weight), _float32(cast(Tensor, conv.bias))
        if start == 0:
            # ONNX's SpaceToDepth counts places before channels, torch's pixel_unshuffle channels before places.
            order = [4 * channel + place for place in range(4) for channel in range(channels)]
            weight = weight[:, [*order, 4 * channels]]
        names = [graph.constant(f"conv{i}.weight", weight), graph.constant(f"conv{i}.bias", bias)]
        value = graph.add("Conv", value, *names, name=f"conv{i}", **_GEOMETRY)
        value = graph.add("Relu", value, name=f"relu{i}")
        tensors = (norm.weight, norm.bias, cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var))
        names = [graph.constant(f"norm{i}.{j}", _float32(tensor)) for j, tensor in enumerate(tensors)]
        value = graph.add("BatchNormalization", value, *names, name=f"norm{i}", epsilon=float(norm.eps))
    return value


def _attack(graph: GraphBuilder, attack: SaliencyAttack, images: str) -> str:
    """``Map'``, what is added to the images; :meth:`gascnn.models.saliency.SaliencyAttack.forward`."""
    zero, one = graph.constant("zero", np.float32(0)), graph.constant("one", np.float32(1))
    classifier = attack.classifier
    activations = _activations(graph, classifier, images)
    flat = graph.add("Flatten", activations[-1], name="flat")
    weight = graph.constant("fc.weight", _float32(classifier.fc.weight))
    bias = graph.constant("fc.bias", _float32(classifier.fc.bias))
    logits = graph.add("Gemm", flat, weight, bias, name="local_logits", transB=1)
    best = graph.add("ArgMax", logits, name="best", axis=1, keepdims=1)
    numbers = graph.constant("numbers", np.arange(classifier.classes, dtype=np.int64))
    predicted = graph.add("Equal", best, numbers, name="predicted")
    lowest = graph.constant("lowest", np.float32(-np.inf))
    others = graph.add("Softmax", graph.add("Where", predicted, lowest, logits, name="rivals"), name="others", axis=1)
    direction = graph.add(
        "Sub", graph.add("Cast", predicted, name="own", to=TensorProto.FLOAT), others, name="direction"
    )
    start = graph.add("MatMul", direction, weight, name="gradient")
    derivative = _pull_back(graph, classifier, activations, start, zero)
    against = graph.add("Relu", graph.add("Neg", derivative, name="falling"), name="against")
    if attack.pixels is None and attack.bound is None:
        scaled = graph.add("Mul", against, _spread(graph, logits, predicted, zero), name="scaled")
        return graph.add("Mul", scaled, scaled, name="added")
    room = graph.add("Relu", graph.add("Sub", one, images, name="below_white"), name="room")
    free = graph.add("Greater", room, zero, name="free")
    movable = graph.add("Where", free, against, zero, name="movable")
    peak = graph.add("ReduceMax", movable, name="peak", axes=(1, 2, 3), keepdims=1)
    tiny = graph.constant("tiny", np.float32(np.finfo(np.float32).tiny))
    relative = graph.add("Div", movable, graph.add("Max", peak, tiny, name="scale"), name="relative")
    saliency = graph.add("Mul", relative, relative, name="saliency")
    return graph.add("Min", _strong(graph, attack, saliency, movable, zero, one), room, name="added")


def _activations(graph: GraphBuilder, classifier: LocalClassifier, value: str) -> list[str]:
    maps = []
    for i, module in enumerate(classifier.convs):
        conv = cast(nn.Conv2d, module)
        weight = graph.constant(f"local{i}.weight", _float32(conv.weight))
        bias = graph.constant(f"local{i}.bias", _float32(cast(Tensor, conv.bias)))
        value = graph.add("Conv", value, weight, bias, name=f"local{i}", strides=(2, 2), **_GEOMETRY)
        value = graph.add("Relu", value, name=f"local{i}.relu")
        maps.append(value)
    return maps


def _pull_back(graph: GraphBuilder, classifier: LocalClassifier, maps: list[str], value: str, zero: str) -> str:
    # 0 takes over the batch, whatever it is.
    shape = graph.constant("last_shape", np.array((0, *classifier.last_shape), np.int64))
    value = graph.add("Reshape", value, shape, name="gradient_map")
    for i in reversed(range(len(maps))):
        opened = graph.add("Greater", maps[i], zero, name=f"local{i}.open")
        value = graph.add("Where", opened, value, zero, name=f"local{i}.masked")
        value = graph.add(
            "ConvTranspose",
            value,
            f"local{i}.weight",
            name=f"local{i}.adjoint",
            strides=(2, 2),
            output_padding=(classifier.output_padding[i],) * 2,
            **_GEOMETRY,
        )
    return value


def _spread(graph: GraphBuilder, logits: str, predicted: str, zero: str) -> str:
    """``f_y (1 - f_y)`` (batch, 1, 1, 1), the second factor summed from the other probabilities."""
    probabilities = graph.add("Softmax", logits, name="probabilities", axis=1)
    classes = graph.constant("class_axis", np.array([1], np.int64))
    own = graph.add("Where", predicted, probabilities, zero, name="own_probability")
    rest = graph.add("Where", predicted, zero, probabilities, name="other_probabilities")
    sums = [graph.add("ReduceSum", part, classes, name=f"{part}.sum", keepdims=1) for part in (own, rest)]
    spread = graph.add("Mul", *sums, name="spread")
    return graph.add(
        "Reshape", spread, graph.constant("an_image", np.array([0, 1, 1, 1], np.int64)), name="image_spread"
    )


def _strong(graph: GraphBuilder, attack: SaliencyAttack, saliency: str, movable: str, zero: str, one: str) -> str:
    if attack.bound is not None:
        return graph.add("Mul", saliency, graph.constant("bound", np.float32(attack.bound)), name="bounded")
    side = attack.classifier.image_size
    channels = graph.constant("channel_axis", np.array([1], np.int64))
    summed = graph.add("ReduceSum", saliency, channels, name="over_channels", keepdims=0)
    places = graph.add("Flatten", summed, name="places")
    count = graph.constant("count", np.array([attack.pixels], np.int64))
    chosen = graph.add("TopK", places, count, name="chosen", unused=("values",), axis=1)
    nowhere = graph.add("Expand", zero, graph.add("Shape", places, name="places.shape"), name="nowhere")
    marks = graph.add("Expand", one, graph.add("Shape", chosen, name="chosen.shape"), name="marks")
    mask = graph.add("ScatterElements", nowhere, chosen, marks, name="mask", axis=1)
    shape = graph.constant("image_mask_shape", np.array([0, 1, side, side], np.int64))
    mask = graph.add("Reshape", mask, shape, name="image_mask")
    amount = graph.add("Mul", mask, graph.constant("amount", np.float32(attack.amount)), name="moved")
    return graph.add("Where", graph.add("Greater", movable, zero, name="moves"), amount, zero, name="moving")


def _float32(value: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = value.detach().float().numpy()
    return found
