"""ONNX for edge boards: written from a bundle, read back, compared with PyTorch.

``export`` needs torch and onnx; ``session`` and ``metadata`` only numpy and onnxruntime, for a board to import.

- :func:`gascnn.exporters.onnx.export.export_resnet` writes a file;
- :class:`gascnn.hardware.edge.EdgeModel` runs it.
"""
