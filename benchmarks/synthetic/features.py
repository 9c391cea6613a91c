"""Features of images: what a trained ResNet's last layer sees of them, or what the user's own ONNX file gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.models.resnet import ResNet
from gascnn.toolkit.errors import DataError, FormatError, UsageError, first_line
from gascnn.toolkit.training.batches import to_float
from gascnn.toolkit.training.evaluate import predict_scores

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]

BATCH = 64
MOST_FEATURES = 8192
_FATAL = 4  # onnxruntime's own log says on standard error what our exception says anyway


class NetworkFeatures:
    """The pooled activations ahead of ``fc``: one number a channel of the last stage.

    Args:
        model: with its weights.

    Raises:
        UsageError: a network that is no :class:`gascnn.models.resnet.ResNet`.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, ResNet):
            raise UsageError(f"features are those of a ResNet, this is a {type(model).__name__}; give one of ours")
        self._model = model

    def __call__(self, images: Images) -> Floats:
        """(n, d) features of (n, C, H, W) uint8."""
        return self.with_logits(images)[0]

    def with_logits(self, images: Images) -> tuple[Floats, npt.NDArray[np.float32]]:
        """(n, d) features and the (n, classes) logits that ``fc`` makes of them."""
        seen: list[Tensor] = []

        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.append(inputs[0].detach().double())

        hook = self._model.fc.register_forward_pre_hook(keep)
        try:
            logits = predict_scores(self._model, images, batch_size=BATCH)
        finally:
            hook.remove()
        return torch.cat(seen).numpy(), logits


class OnnxFeatures:
    """Features by an ONNX file of the user's, such as an Inception network without its last layer.

    It takes one float32 input (n, C, H, W) of 0..1 and does any further normalisation itself; its first output, a
    row an image, is flattened. Images are scaled (bilinear, smoothed on the way down) where the file fixes H and W,
    and gray is repeated where it wants three channels.

    Args:
        path: the file; ONNX runs no code of its own.
        threads: of onnxruntime; 0 takes its default.

    Raises:
        FormatError: not there, not ONNX, or not of one such input.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        import onnxruntime

        self._path = Path(path)
        if not self._path.is_file():
            raise FormatError(f"{self._path}: no such file; give an ONNX network that turns images into features")
        chosen = onnxruntime.SessionOptions()
        chosen.log_severity_level = _FATAL
        chosen.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(self._path), chosen, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises types of its own, a different one for each fault
            raise FormatError(
                f"{self._path}: onnxruntime cannot open it ({first_line(error)}); export it again"
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{each.type} {each.shape}" for each in inputs)
            raise FormatError(f"{self._path}: its inputs are {found}; one float32 input (n, C, H, W) is needed")
        self._input, self._shape = inputs[0].name, inputs[0].shape
        self._output = self._session.get_outputs()[0].name

    def __call__(self, images: Images) -> Floats:
        """(n, d) features of (n, C, H, W) uint8.

        Raises:
            DataError: images it does not take, or features that are not finite or more than 8192.
        """
        step = self._shape[0] if isinstance(self._shape[0], int) else BATCH
        parts = [self._run(images[start : start + step], step) for start in range(0, len(images), step)]
        found = np.concatenate(parts)
        if found.shape[1] > MOST_FEATURES or not np.all(np.isfinite(found)):
            raise DataError(
                f"{self._path}: {found.shape[1]} features an image, not all finite or too many; at most "
                f"{MOST_FEATURES} finite ones are needed (give a network that ends in its pooling)"
            )
        return found

    def _run(self, images: Images, step: int) -> Floats:
        batch = self._fitted(to_float(torch.tensor(images))).numpy()
        if isinstance(self._shape[0], int) and len(batch) < step:  # a fixed batch wants to be filled
            batch = np.concatenate([batch, np.repeat(batch[-1:], step - len(batch), axis=0)])
        try:
            (output,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:  # as above
            raise DataError(f"{self._path}: does not take {batch.shape[1:]} images ({first_line(error)})") from error
        values = np.asarray(output)
        if values.ndim < 2 or len(values) != len(batch):
            raise DataError(f"{self._path}: gives {values.shape} for {len(batch)} images; a row an image is needed")
        return values.reshape(len(values), -1)[: len(images)].astype(np.float64)

    def _fitted(self, images: Tensor) -> Tensor:
        channels, height, width = (n if isinstance(n, int) else None for n in self._shape[1:])
        if images.shape[1] == 1 and channels == 3:
            images = images.expand(-1, 3, -1, -1)
        size = (height or images.shape[2], width or images.shape[3])
        if size != tuple(images.shape[2:]):
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return images.contiguous()
