"""An ONNX graph under construction: names, nodes and constants, in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 17
"""Of the operators used; every onnxruntime from 1.12 on runs it."""

IR_VERSION = 8
"""Of the file format that belongs to this opset."""

BATCH = "batch"
"""Name of the free first dimension of input and output."""


class GraphBuilder:
    """Collects a graph; every method that adds something returns the name of its result.

    Args:
        name: of the graph.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._names: set[str] = set()

    def input(self, name: str, dtype: str, shape: Sequence[int]) -> str:
        """An input (batch, ...) of the element type ``dtype``, in numpy's words, and of a shape without the batch."""
        self._inputs.append(_described(self._free(name), dtype, shape))
        return name

    def output(self, source: str, name: str, dtype: str, shape: Sequence[int]) -> None:
        """Return ``source`` under ``name``; type and shape as for :meth:`input`."""
        self.add("Identity", source, name=name)
        self._outputs.append(_described(name, dtype, shape))

    def constant(self, name: str, values: npt.NDArray[np.generic] | np.generic) -> str:
        """A tensor stored in the file: a weight, a scale, a shape."""
        self._constants.append(numpy_helper.from_array(np.asarray(values), self._free(name)))
        return name

    def add(self, operator: str, *inputs: str, name: str, unused: Sequence[str] = (), **attributes: Any) -> str:
        """A node whose output is called as it is; ``unused`` outputs that nobody reads come before that one."""
        outputs = (*(self._free(f"{name}.{other}") for other in unused), self._free(name))
        self._nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))
        return name

    def model(self, version: str = "") -> ModelProto:
        """The whole graph without metadata; ``version`` is that of the program that made it."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._constants)
        return helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="gascnn",
            producer_version=version,
        )

    def _free(self, name: str) -> str:
        assert name not in self._names, f"{name} is taken"
        self._names.add(name)
        return name


def _described(name: str, dtype: str, shape: Sequence[int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), (BATCH, *shape))
