"""The ANN in onnxruntime, float32, once for every step of the spiking network."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

_OPSET, _IR = 17, 8


def load(name: str, plan: Path, threads: int) -> OnnxAnn:
    """The contender."""
    del name
    return OnnxAnn(json.loads(plan.read_text()), plan.parent, threads)


class OnnxAnn:
    """A session of onnxruntime.

    Args:
        plan: nodes, as :mod:`gascnn.benchmarks.plan` wrote them.
        folder: holds the arrays.
        threads: of the session.
    """

    options = ("all steps in one batch", "a step at a time")

    def __init__(self, plan: dict[str, Any], folder: Path, threads: int) -> None:
        runtime = import_module("onnxruntime")
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Threads that wait by spinning after a run would slow down whoever runs next.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        model = _model(plan["ann"], plan["input_shape"], folder)
        self._session = runtime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        self._steps: int = plan["steps"]
        self._shape = tuple(plan["input_shape"])
        self.versions = {"onnxruntime": version("onnxruntime"), "onnx": version("onnx")}

    def prepare(self, option: str, images: int) -> Callable[[], None]:
        """Random intensities in 0..1 of the input's shape; a dense network does the same work whatever they are."""
        frames = np.random.default_rng(0).random((images * self._steps, *self._shape)).astype(np.float32)
        batches = [frames] if option == self.options[0] else [frames[i : i + 1] for i in range(len(frames))]

        def run() -> None:
            for batch in batches:
                self._session.run(None, {"input": batch})

        return run

    def counts(self, images: int) -> list[Any]:
        """It has no spikes."""
        del images
        return []


def _model(nodes: list[dict[str, Any]], shape: list[int], folder: Path) -> bytes:
    """The network as a serialised ONNX model."""
    onnx = import_module("onnx")
    helper, made, weights = onnx.helper, [], []
    for node in nodes:
        name, inputs = node["name"], list(node["inputs"])
        result = f"{name}_before" if node["relu"] else name
        if node["weight"] is not None:
            weights.append(onnx.numpy_helper.from_array(np.load(folder / node["weight"]), f"{name}_weight"))
            inputs.append(f"{name}_weight")
        if node["kind"] == "conv":
            geometry = {"strides": [node["stride"]] * 2, "pads": [node["padding"]] * 4}
            made.append(helper.make_node("Conv", inputs, [result], **geometry))
        elif node["kind"] == "dense":
            made.append(helper.make_node("Flatten", inputs[:1], [f"{name}_flat"]))
            made.append(helper.make_node("Gemm", [f"{name}_flat", inputs[1]], [result], transB=1))
        else:
            made.append(
                helper.make_node({"add": "Add", "average": "GlobalAveragePool"}[node["kind"]], inputs, [result])
            )
        if node["relu"]:
            made.append(helper.make_node("Relu", [result], [name]))
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        made,
        "ann",
        [helper.make_tensor_value_info("input", number, ["batch", *shape])],
        [helper.make_tensor_value_info(nodes[-1]["name"], number, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR
    serialised: bytes = model.SerializeToString()
    return serialised
