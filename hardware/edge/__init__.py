"""Run an exported ONNX file with onnxruntime and numpy alone: what an edge board needs."""

from gascnn.hardware.edge.model import EdgeModel

__all__ = ["EdgeModel"]
