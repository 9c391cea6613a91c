"""Networks for ONNX files, and their answers in PyTorch and in onnxruntime, without any code of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from gascnn.exporters.onnx.export import sealed
from gascnn.exporters.onnx.layers import INTENSITIES, classifier, operations
from gascnn.exporters.onnx.metadata import OnnxMetadata
from gascnn.exporters.onnx.quantise import quantised
from gascnn.toolkit.bundle import save_bundle
from gascnn.toolkit.training.bundles import to_bundle


def used(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Batch norms as after training: statistics of some images, factors that are not 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.copy_(0.5 + torch.rand(len(module.weight), generator=generator))
                module.bias.copy_(torch.randn(len(module.bias), generator=generator) / 4)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(8, *shape, generator=generator))
    return model.eval()


def noise(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def in_torch(model: nn.Module, images: np.ndarray, pixel_max: int = 255) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(images).float() / pixel_max).numpy()


def in_onnxruntime(path: Path, images: np.ndarray, output: str = "logits") -> np.ndarray:
    """Without any code of ours."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run([output], {"images": images})
    return found


def bundle_of(model: nn.Module, shape: tuple[int, int, int], path: Path, **settings: object) -> Path:
    classes = [f"class {i}" for i in range(model.arguments["classes"])]
    save_bundle(to_bundle(model, classes, shape, **settings), path)
    return path


def exported_as(precision: str, model: nn.Module, images: np.ndarray, folder: Path) -> Path:
    """A file of a network that is no ResNet, calibrated on the images where it is int8."""
    shape = images.shape[1:]
    graph = classifier(operations(model, shape), 255).model()
    if precision == "int8":
        graph = quantised(graph, images, scales={INTENSITIES: 1 / 255})
    names = tuple(str(i) for i in range(graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value))
    path = folder / "m.onnx"
    path.write_bytes(sealed(graph, OnnxMetadata("resnet", precision, shape, 255, "whole", names, "")))
    onnx.checker.check_model(str(path), full_check=True)
    return path
