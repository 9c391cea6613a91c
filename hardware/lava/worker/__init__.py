"""What runs inside Lava's own interpreter: the standard library, numpy, h5py and Lava, nothing of this project.

``main.py`` is started as a script and makes this folder importable under its installed name. Where Lava is not
installed the modules import all the same and define nothing that needs it.
"""
