"""One folder that measures on a board without torch and without network, and the results of several boards together.

- :func:`gascnn.benchmarks.board.pack.pack` makes the folder, where the networks are (torch, onnx);
- :func:`gascnn.benchmarks.board.run.run_board` measures in it (numpy, onnxruntime, h5py);
- :func:`gascnn.benchmarks.board.merge.merge` puts results of several boards into one table.
"""
