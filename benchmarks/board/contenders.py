"""The networks of a folder, each answering one image at a time, and how their answers compare with those expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.board.digests import image_digests
from gascnn.benchmarks.board.folder import CONTENDERS, NETWORK, ExpectedAnn, ExpectedSnn, PackFolder
from gascnn.hardware.backends import open_netx
from gascnn.hardware.edge import EdgeModel
from gascnn.hardware.result import RunResult
from gascnn.hardware.simulator import Simulator
from gascnn.hardware.simulator.engine import has_numba
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import BackendError, FormatError

LOGIT_TOLERANCE = 1e-4
"""Share of the largest logit by which float32 may differ between processors, which add up in another order: the
exporter's own tolerance (``docs/onnx.md``)."""


class Contender(Protocol):
    """One network."""

    name: str

    def answer(self, image: int) -> Any:
        """What comes out for an image of the folder; this is what is timed."""

    def keep(self, answer: Any) -> Any:
        """What the comparison needs of it."""

    def compare(self, answers: Mapping[int, Any]) -> dict[str, Any]:
        """Answers by image with those expected."""

    def classes(self, answers: Mapping[int, Any]) -> dict[int, int]:
        """The class answered for each image."""


def open_contenders(pack: PackFolder, threads: int) -> list[Contender]:
    """All networks of a folder, ready to run.

    Raises:
        FormatError: a file that is none of ours, or whose classes or images are not those of the folder.
    """
    return [Snn(pack, threads) if name == "snn" else Ann(pack, name, threads) for name in pack.contenders]


class Ann:
    """An ONNX file in onnxruntime: uint8 image in, logits out."""

    def __init__(self, pack: PackFolder, name: str, threads: int) -> None:
        self.name = name
        self._images, self._expected, self._torch = pack.images, pack.expected[name], pack.expected["torch"]
        path = pack.folder / CONTENDERS[name]
        self._model = EdgeModel(path, threads=threads)
        metadata = self._model.metadata
        shape = pack.images.shape[1:]
        if metadata.part != "resnet" or metadata.classes != pack.classes or metadata.image_shape != shape:
            raise FormatError(f"{path}: not a classifier of the folder's images and classes; make the folder anew")

    def answer(self, image: int) -> npt.NDArray[np.float32]:
        """Logits (classes,)."""
        logits: npt.NDArray[np.float32] = self._model.logits(self._images[image : image + 1])[0]
        return logits

    def keep(self, answer: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """All of it."""
        return answer

    def classes(self, answers: Mapping[int, npt.NDArray[np.float32]]) -> dict[int, int]:
        """The class of the largest logit, of equal ones the first."""
        return {image: int(logits.argmax()) for image, logits in answers.items()}

    def compare(self, answers: Mapping[int, npt.NDArray[np.float32]]) -> dict[str, Any]:
        """Shares of equal answers and the largest difference of a logit.

        Returns:
            ``images``, ``equal_answers``, ``different_answers`` and ``agreement`` (a share), ``equal_answers_torch``,
            ``largest_logit_difference`` and ``of_largest_logit`` (the same as a share), ``identical`` (every bit), and
            ``agrees``: of float32, whether logits agree within :data:`LOGIT_TOLERANCE` and so do all answers that are
            further apart than twice that; of int8, whose rounding is the processor's, None.

        Raises:
            BackendError: NaN or infinity came out.
        """
        chosen = np.array(sorted(answers))
        found = np.stack([answers[image] for image in chosen])
        if not np.isfinite(found).all():
            raise BackendError(f"{self.name}: gives NaN or infinity on this machine; its onnxruntime cannot be used")
        expected = self._expected.logits[chosen]
        largest = float(np.abs(expected).max()) or 1.0
        difference = float(np.abs(found - expected).max())
        same = found.argmax(axis=1) == self._expected.classes[chosen]
        equal = int(same.sum())
        agrees = None
        if self.name == "ann-fp32":
            close = _margins(found) <= 2 * LOGIT_TOLERANCE * largest
            agrees = bool(difference <= LOGIT_TOLERANCE * largest and (same | close).all())
        return {
            "images": len(chosen),
            "equal_answers": equal,
            "different_answers": len(chosen) - equal,
            "agreement": equal / len(chosen),
            "equal_answers_torch": int((found.argmax(axis=1) == self._torch.classes[chosen]).sum()),
            "largest_logit_difference": difference,
            "of_largest_logit": difference / largest,
            "identical": bool((found == expected).all()),
            "agrees": agrees,
        }


@dataclass(frozen=True, eq=False)
class SnnAnswer:
    """What the simulator gave for one image: class, digest of all spike counts, and the read-out (classes,)."""

    category: int
    digest: str
    counts: npt.NDArray[np.int64]
    membrane: npt.NDArray[np.int64]


class Snn:
    """The NetX file in the simulator: an image is coded into spikes, simulated and read out."""

    def __init__(self, pack: PackFolder, threads: int) -> None:
        self.name = "snn"
        self.method = simulator_method()
        self._pack, self._expected = pack, pack.expected_snn
        self._network = open_netx(pack.folder / NETWORK).network
        self._simulator = Simulator(self._network, method=self.method, threads=threads)

    def answer(self, image: int) -> tuple[int, RunResult]:
        """Class and run; the image's number is that in the folder, which random codings depend on."""
        pack = self._pack
        spikes = encode_for(
            self._network, pack.images[image : image + 1], steps=pack.steps, seed=pack.seed, first=image
        )
        result = self._simulator.run(spikes)
        return int(result.predictions()[0]), result

    def keep(self, answer: tuple[int, RunResult]) -> SnnAnswer:
        """Digest and read-out: a run of every layer's counts would fill a small board's memory."""
        category, result = answer
        if result.output_counts.shape[1] != len(self._pack.classes):
            raise FormatError(f"{self._pack.folder / NETWORK}: not a classifier of the folder's classes; make it anew")
        return SnnAnswer(
            category, image_digests(result)[0], result.output_counts[0].astype(np.int64), result.output_membrane[0]
        )

    def classes(self, answers: Mapping[int, SnnAnswer]) -> dict[int, int]:
        """The class of each."""
        return {image: answer.category for image, answer in answers.items()}

    def compare(self, answers: Mapping[int, SnnAnswer]) -> dict[str, Any]:
        """Whether every spike count of every layer is the one expected; if not, how far off the read-out is.

        Returns:
            ``images``, ``equal_answers``, ``different_answers`` and ``agreement``, ``bit_equal`` (all images),
            ``unequal_images``, ``largest_count_difference`` and ``largest_membrane_difference`` of an output neuron,
            and ``agrees``: equal bits and answers.
        """
        chosen = sorted(answers)
        expected = self._expected
        unequal = sum(answers[i].digest != expected.digests[i] for i in chosen)
        equal = sum(answers[i].category == int(expected.classes[i]) for i in chosen)
        return {
            "images": len(chosen),
            "equal_answers": equal,
            "different_answers": len(chosen) - equal,
            "agreement": equal / len(chosen),
            "bit_equal": unequal == 0,
            "unequal_images": unequal,
            "largest_count_difference": _largest([answers[i].counts for i in chosen], expected.output_counts[chosen]),
            "largest_membrane_difference": _largest(
                [answers[i].membrane for i in chosen], expected.output_membrane[chosen]
            ),
            "agrees": unequal == 0 and equal == len(chosen),
        }


def simulator_method() -> str:
    """``auto`` where numba is installed, else ``plain``; never changes a bit."""
    return "auto" if has_numba() else "plain"


def expected_classes(pack: PackFolder, name: str) -> npt.NDArray[np.int64]:
    """Answers to all images where the folder was made."""
    expected: ExpectedAnn | ExpectedSnn = pack.expected_snn if name == "snn" else pack.expected[name]
    return expected.classes


def _largest(found: Sequence[npt.NDArray[np.int64]], expected: npt.NDArray[np.int64]) -> int:
    return int(np.abs(np.stack(found) - expected).max())


def _margins(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far the best class of each image is ahead of the second; without bound where there is one class only."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf, np.float32)
    best = np.sort(logits, axis=1)[:, -2:]
    margins: npt.NDArray[np.float32] = best[:, 1] - best[:, 0]
    return margins
