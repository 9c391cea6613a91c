"""Static 8-bit quantisation by onnxruntime: integers with a scale around each operation (QDQ), ranges from real images.

A tensor of activations is ``scale (q - zero)`` with q in 0..255, one scale and zero point a tensor, from the least and
the largest value that the calibration images give it. A weight is ``scale q``, one scale an output channel, with q in
-64..64, seven bits: with AVX2 and plain AVX-512, x86 processors add two products of 8-bit numbers in 16 bits, which
saturate above 32 767; 2 * 255 * 64 = 32 640 stays below. A bias is a 32-bit integer in units of the product of both.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from gascnn.toolkit.errors import ConversionError, DataError, first_line

OPERATORS = ("Conv", "Gemm", "Relu", "Add", "AveragePool", "Flatten")
"""Computed in integers."""

_BATCH = 32


class _Batches(CalibrationDataReader):
    """Calibration images, some at a time."""

    def __init__(self, name: str, images: npt.NDArray[np.uint8]) -> None:
        self._batches = iter(
            {name: np.ascontiguousarray(images[start : start + _BATCH])} for start in range(0, len(images), _BATCH)
        )

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        return next(self._batches, None)


def quantised(
    model: ModelProto,
    images: npt.NDArray[np.uint8],
    *,
    nodes: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
) -> ModelProto:
    """A float32 network with :data:`OPERATORS` in integers.

    Args:
        model: with one input, uint8 (batch, C, H, W).
        images: (n, C, H, W) uint8, real ones of the kind it will see.
        nodes: names of those that become integers; none given, all of :data:`OPERATORS`.
        scales: of tensors whose unit is known before; they take q = 0 for 0.

    Raises:
        ConversionError: onnxruntime cannot; for example, weights are NaN.
        DataError: no images, or of another shape.
    """
    source = model.graph.input[0]
    check_calibration(images, tuple(size.dim_value for size in source.type.tensor_type.shape.dim[1:]))
    known = {
        name: [{"scale": np.array(s, np.float32), "zero_point": np.array(0, np.uint8)}]
        for name, s in (scales or {}).items()
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of ranges that are NaN, which end in an exception
        given, prepared, result = (str(Path(folder) / f"{name}.onnx") for name in ("given", "prepared", "result"))
        onnx.save(model, given)
        try:
            quant_pre_process(given, prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                result,
                _Batches(source.name, images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                nodes_to_quantize=list(nodes),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Logits come from a Gemm; in 8 bits, close ones would tie.
                extra_options={"TensorQuantOverrides": known, "OpTypesToExcludeOutputQuantization": ["Gemm"]},
            )
        except Exception as error:
            raise ConversionError(
                f"onnxruntime cannot quantise the network ({first_line(error)}); export it without int8, which says "
                "whether it gives NaN"
            ) from error
        integers = onnx.load(result)
    integers.producer_name, integers.producer_version = model.producer_name, model.producer_version
    del integers.metadata_props[:]
    return integers


def check_calibration(images: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    """Refuse images that a network of this input shape (C, H, W) does not take.

    Raises:
        DataError: says what they are.
    """
    if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) == 0:
        raise DataError(
            f"calibration images are {images.dtype} {images.shape}; the network takes uint8 (n, "
            f"{', '.join(map(str, shape))}) with n at least 1"
        )
