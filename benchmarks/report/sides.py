"""The two networks of a report: the deployed one, and the ANN it is compared with, which must be of the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from gascnn.benchmarks.ann_framework import ann_work
from gascnn.benchmarks.energy.work import AnnWork
from gascnn.hardware.backends import NetxFile
from gascnn.toolkit.bundle import MODEL_FILE, Bundle
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.training.bundles import build_model
from gascnn.toolkit.training.evaluate import predict_scores

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Baseline:
    """The ANN.

    Attributes:
        path: of its bundle.
        sha256: of its ``model.json``, which names the hash of the weights.
        bundle: as it was read.
        model: in evaluation mode.
        work: its multiply-accumulates, by our count and by torch's.
    """

    path: Path
    sha256: str
    bundle: Bundle
    model: nn.Module
    work: AnnWork

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(value.numel() for value in self.model.parameters())

    def answers(self, images: Images) -> Labels:
        """(image,) classes."""
        found: Labels = predict_scores(self.model, images).argmax(axis=1).astype(np.int64)
        return found


def open_baseline(path: Path, bundle: Bundle) -> Baseline:
    """The ANN of a bundle.

    Raises:
        UsageError: a bundle of another kind.
        ConversionError: operations that tracing does not know.
    """
    if bundle.kind != "ann":
        raise UsageError(f"{path} is a bundle of kind {bundle.kind}; the baseline is an ANN, of 'gascnn train'")
    model = build_model(bundle)
    return Baseline(path, sha256_file(path / MODEL_FILE), bundle, model, ann_work(model, bundle.image_shape))


def check_pair(file: NetxFile, baseline: Baseline) -> Deployment:
    """The deployment record of a network that can be compared with this ANN.

    Raises:
        UsageError: a foreign file, which does not say how it is fed.
        DataError: other classes, another image shape or another framing than the ANN's.
    """
    deployment = file.network.deployment
    if deployment is None:
        raise UsageError(f"{file.path} does not say how it is fed; report a file that 'gascnn export' wrote")
    pairs = {
        "classes": (deployment.classes, baseline.bundle.classes),
        "images of shape": (tuple(deployment.image_shape), tuple(baseline.bundle.image_shape)),
        "framing": (deployment.framing, baseline.bundle.framing),
    }
    for what, (snn, ann) in pairs.items():
        if snn != ann:
            raise DataError(
                f"{file.path} has {what} {_told(snn)}, the baseline {baseline.path} has {_told(ann)}; give the ANN "
                "that the network is from"
            )
    return deployment


def _told(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
