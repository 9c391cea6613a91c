"""Spike learning: retrain the deployed network as it runs (GASCNN, IV-C)."""

from gascnn.toolkit.spike_learning.learn import Learned, learn
from gascnn.toolkit.spike_learning.machine import IntegerMachine
from gascnn.toolkit.spike_learning.options import LearningOptions

__all__ = ["IntegerMachine", "Learned", "LearningOptions", "learn"]
