"""What is left of a run when its images are summed up: small however many there were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gascnn.hardware.result import RunResult, class_scores, population_rates, predict
from gascnn.toolkit.lowering.network import NetxNetwork


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Read-out of every image, and spikes of all images together.

    Attributes:
        steps: T.
        totals: one int64 array a synaptic layer, in the layer's shape: each neuron's spikes over the whole run, summed
            over the images.
        output_counts, output_membrane, wraps: as in :class:`gascnn.hardware.result.RunResult`.
    """

    steps: int
    totals: list[npt.NDArray[np.int64]]
    output_counts: npt.NDArray[np.int32]
    output_membrane: npt.NDArray[np.int64]
    wraps: list[int] | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.output_counts)

    def predictions(self) -> npt.NDArray[np.int64]:
        """(image,) class numbers, as :meth:`gascnn.hardware.result.RunResult.predictions`."""
        return predict(self.output_counts, self.output_membrane)

    def scores(self) -> npt.NDArray[np.float64]:
        """(image, class), as :meth:`gascnn.hardware.result.RunResult.scores`."""
        return class_scores(self.output_counts, self.output_membrane, self.steps)

    def rates(self, network: NetxNetwork) -> list[float]:
        """Mean spikes a neuron and input step, as :func:`gascnn.hardware.result.population_rates`."""
        return population_rates(network, [total[None] for total in self.totals], self.steps * self.images)


def summarise(result: RunResult) -> RunSummary:
    """Sum a run over its images."""
    return RunSummary(
        steps=result.steps,
        totals=[count.sum(axis=0, dtype=np.int64) for count in result.counts],
        output_counts=result.output_counts,
        output_membrane=result.output_membrane,
        wraps=result.wraps,
    )


def join(summaries: Iterable[RunSummary]) -> RunSummary:
    """Put the summaries of several batches of the same run together, in order; takes one at a time.

    Raises:
        ValueError: there is none.
    """
    kept: list[RunSummary] = []
    totals: list[npt.NDArray[np.int64]] = []
    wraps: list[int] | None = None
    for summary in summaries:
        totals = [a + b for a, b in zip(totals, summary.totals, strict=True)] if kept else summary.totals
        if summary.wraps is not None:
            wraps = [a + b for a, b in zip(wraps or [0] * len(summary.wraps), summary.wraps, strict=True)]
        kept.append(RunSummary(summary.steps, [], summary.output_counts, summary.output_membrane))
    if not kept:
        raise ValueError("no summaries to join")
    return RunSummary(
        steps=kept[0].steps,
        totals=totals,
        output_counts=np.concatenate([s.output_counts for s in kept]),
        output_membrane=np.concatenate([s.output_membrane for s in kept]),
        wraps=wraps,
    )
