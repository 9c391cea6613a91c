"""Images from a trained network alone, so that it can be converted and retrained where its own images may not go."""

from gascnn.toolkit.conversion.synthesis.head import Head, find_head
from gascnn.toolkit.conversion.synthesis.labels import class_similarity, concentration, draw_soft_labels
from gascnn.toolkit.conversion.synthesis.options import PRESETS, SynthesisOptions, get_synthesis_preset
from gascnn.toolkit.conversion.synthesis.sources import (
    DatasetSource,
    GeneratorSource,
    ImageSource,
    SynthesisSource,
)
from gascnn.toolkit.conversion.synthesis.synthesise import Synthesis, synthesise

__all__ = [
    "PRESETS",
    "DatasetSource",
    "GeneratorSource",
    "Head",
    "ImageSource",
    "Synthesis",
    "SynthesisOptions",
    "SynthesisSource",
    "class_similarity",
    "concentration",
    "draw_soft_labels",
    "find_head",
    "get_synthesis_preset",
    "synthesise",
]
