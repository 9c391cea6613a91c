"""Models of neuro-cores; the stand-in has none."""


class AbstractNcProcessModel:
    """Marks a model as one of a neuro-core."""
