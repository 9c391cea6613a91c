"""From any feed-forward PyTorch classifier to spikes: trace, fold, calibrate, fit, emit a NIR graph."""

from gascnn.toolkit.conversion.convert import Conversion, ConversionOptions, convert

__all__ = ["Conversion", "ConversionOptions", "convert"]
