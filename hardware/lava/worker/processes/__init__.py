"""Lava processes of this package, alone in their folder: Lava executes every file beside the one defining a process."""
