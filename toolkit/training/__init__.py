"""Training of PyTorch classifiers: options and presets, augmentation, the loop, checkpoints, metrics, bundles.

Import from the modules, of which only some need torch: :mod:`options`, :mod:`presets` and :mod:`metrics` do not.
"""
