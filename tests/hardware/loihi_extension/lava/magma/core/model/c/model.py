"""What ``lava.magma.core.run_configs`` takes for models of the chip.

``AbstractCProcessModel`` is left out on purpose: Lava's compiler then looks for no compiler of the chip's and takes the
models of this stand-in, which are Python, for what they are.
"""


class CLoihiProcessModel:
    """Marks a model as one of the chip's."""
