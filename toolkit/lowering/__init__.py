"""From a NIR graph to the integers that run: :class:`NetxNetwork`, the chip's limits, :func:`lower`. No torch here."""
