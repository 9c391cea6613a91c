"""What runs in the contenders' processes: other frameworks in the interpreter of ``make peers``, ours in ours.

The files beside ``own.py`` import nothing of the project.
"""
