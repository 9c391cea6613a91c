"""The paper's attention GAN: losses, training, bundles, sampling.

Import from the modules, of which :mod:`options` and :mod:`presets` do without torch.
"""
