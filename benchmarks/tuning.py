"""Thresholds that make a layer fire as often as a benchmark promises, found from its own synaptic sums.

numpy alone, on purpose: what is promised does not rest on the simulator that is measured.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.limits import THRESHOLD_MAX

Floats = npt.NDArray[np.float32]
Spikes = npt.NDArray[np.uint8]

_NEURONS_TRIED = 16_384
"""A random choice of so many neurons stands for a larger layer while its threshold is sought."""


def conv_sums(weight: npt.NDArray[np.integer], spikes: Spikes, stride: int, padding: int) -> Floats:
    """Cross-correlation of spike frames, exact while sums stay below 2^24.

    Args:
        weight: (C, C_in, k, k) integers.
        spikes: (step, C_in, H, W), 0/1.
        stride, padding: of both axes.

    Returns:
        (step, C, H', W') float32 holding integers.
    """
    outputs, _, kernel, _ = weight.shape
    flat = weight.reshape(outputs, -1).astype(np.float32)
    frames = []
    for frame in spikes:
        padded = np.pad(frame, ((0, 0), (padding, padding), (padding, padding))).astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
        windows = windows[:, ::stride, ::stride].transpose(0, 3, 4, 1, 2)
        height, width = windows.shape[3:]
        frames.append((flat @ windows.reshape(flat.shape[1], -1)).reshape(outputs, height, width))
    return np.stack(frames)


def dense_sums(weight: npt.NDArray[np.integer], spikes: Spikes) -> Floats:
    """Sums of a dense layer: (N, M) integers and (step, ...) spikes of M neurons to (step, N)."""
    result: Floats = spikes.reshape(len(spikes), -1).astype(np.float32) @ weight.T.astype(np.float32)
    return result


def integrate_and_fire(sums: Floats, threshold: float) -> Spikes:
    """Neurons without leak that are reset to zero: ``v += a``; spike where ``v > threshold``, then ``v = 0``.

    Args:
        sums: (step, ...) what comes in at each step.
        threshold: in the same unit.

    Returns:
        (step, ...) the spikes, 0/1.
    """
    potential = np.zeros(sums.shape[1:], dtype=np.float32)
    spikes = np.zeros(sums.shape, dtype=np.uint8)
    for step, incoming in enumerate(sums):
        potential += incoming
        fired = potential > threshold
        potential[fired] = 0
        spikes[step] = fired
    return spikes


def threshold_for(sums: Floats, rate: float) -> int:
    """The integer threshold with which the mean firing rate comes closest to ``rate``.

    Args:
        sums: (step, ...) synaptic sums of the layer's neurons in weight units.
        rate: spikes a neuron and step, above 0 and below 1.

    Returns:
        0..131071.

    Raises:
        UsageError: even with threshold 0 they fire less than nine tenths of that.
    """
    flat = sums.reshape(len(sums), -1)
    if flat.shape[1] > _NEURONS_TRIED:
        chosen = np.random.default_rng(0).choice(flat.shape[1], _NEURONS_TRIED, replace=False)
        flat = flat[:, np.sort(chosen)]
    low, high = 0, THRESHOLD_MAX
    most = float(integrate_and_fire(flat, 0).mean())
    if most < 0.9 * rate:
        raise UsageError(
            f"a firing rate of {rate:g} is out of reach: with threshold 0 the layer fires at {most:.3g}; ask for less, "
            "or give the weights a higher mean"
        )
    while high - low > 1:  # the rate falls with the threshold
        middle = (low + high) // 2
        if float(integrate_and_fire(flat, middle).mean()) >= rate:
            low = middle
        else:
            high = middle
    return min((low, high), key=lambda t: abs(float(integrate_and_fire(flat, t).mean()) - rate))
