"""The steps: what each reads, writes, and what one types for it in the run's folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gascnn.toolkit.chain.digests import RealData
from gascnn.toolkit.chain.presets import ChainPreset
from gascnn.toolkit.errors import UsageError

STEPS: Mapping[str, str] = {
    "train": "a ResNet on the real images",
    "gan": "a GAN on the real images and the ResNet",
    "sample": "the GAN's images: the last step that reads the data set",
    "synthesise": "images from the ResNet alone",
    "join": "the images of both kinds as one set",
    "convert": "the ResNet to spikes, with synthetic images",
    "export": "its integers as a NetX file",
    "learn": "spike learning on those integers: the deployed network",
    "verify": "the deployed network in the real Lava",
    "report": "the deployed network beside the ResNet",
}
"""In their order, each with what it makes or does."""

SYNTHETIC = ("gan", "dirichlet", "both")
CAN_BE_SKIPPED = ("learn", "verify", "report")
NOTHING_READS = ("verify", "report")
RESULTS, WORK = "results", "work"
"""Folders: what steps wrote with ``--json``; checkpoints of the step that is being made."""

REPORT_FILE = "report/report.json"


@dataclass(frozen=True)
class Outside:
    """A path that is not in the run's folder; the manifest has only its name.

    Attributes:
        path: absolute.
        option: typed ahead of it; where there is one, the manifest has neither.
    """

    path: Path
    option: str = ""


Word = str | Outside


@dataclass(frozen=True)
class Setup:
    """What was asked for.

    Attributes:
        data: the data set.
        preset: what the steps are told.
        seed: of everything random.
        synthetic: what calibrates and is learnt from: gan: its images; dirichlet: images from the ResNet alone;
            both: all of these.
        skip: steps to leave out.
        use: by step: what stands for its output.
        report_on_real: whether the report is made with the data set.
    """

    data: RealData
    preset: ChainPreset
    seed: int = 0
    synthetic: str = "gan"
    skip: frozenset[str] = frozenset()
    use: Mapping[str, Path] = field(default_factory=dict)
    report_on_real: bool = True

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            UsageError: a step that cannot be left out or replaced, or that is both.
        """
        absent = absent_steps(self.synthetic)
        for name in sorted(self.skip - set(CAN_BE_SKIPPED) - absent):
            raise UsageError(
                f"--skip {name}: later steps read what it makes; skip {', '.join(CAN_BE_SKIPPED)}, or give --use "
                f"{name}=PATH" + ("; --synthetic dirichlet does without a GAN" if name in ("gan", "sample") else "")
            )
        for name in self.use:
            if name in NOTHING_READS:
                raise UsageError(f"--use {name}: no step reads what it makes; leave it out with --skip {name}")
            if name in absent:
                raise UsageError(f"--use {name}: not a step of this chain (--synthetic {self.synthetic})")
            if name in self.skip:
                raise UsageError(f"step {name} is given both with --skip and with --use; leave one out")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: of the step.
        words: what is typed behind ``gascnn`` in the run's folder.
        reads: steps whose output it reads.
        output: file or folder it makes, in the run's folder.
        result: what it wrote with ``--json``, in the run's folder; may be the output.
        real_data: whether it reads the data set.
        is_result: whether it is made again where it was deleted, though nobody reads it anew.
        figures: of ``result``, by dotted keys, that the manifest repeats.
    """

    name: str
    words: tuple[Word, ...]
    reads: tuple[str, ...]
    output: str
    result: str
    real_data: bool = False
    is_result: bool = False
    figures: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Everything it writes that is kept."""
        return outputs_of(self.name)

    def typed(self) -> list[str]:
        """The words as they are run."""
        words: list[str] = []
        for word in self.words:
            words += [word] if isinstance(word, str) else [w for w in (word.option, str(word.path)) if w]
        return words

    def command(self) -> str:
        """What is typed, with the names alone of what lies outside: for the manifest."""
        shown = [word if isinstance(word, str) else word.path.name for word in self.words if not _unshown(word)]
        return shlex.join(["gascnn", *shown])


def _unshown(word: Word) -> bool:
    return isinstance(word, Outside) and bool(word.option)


def absent_steps(synthetic: str) -> frozenset[str]:
    """Steps that a kind of synthetic images does without."""
    return frozenset({"gan": ("synthesise", "join"), "dirichlet": ("gan", "sample", "join"), "both": ()}[synthetic])


def chain(setup: Setup) -> tuple[Step, ...]:
    """The steps in their order, those left out not among them."""
    left_out = setup.skip | absent_steps(setup.synthetic)
    return tuple(_MAKERS[name](setup) for name in STEPS if name not in left_out)


OUTPUTS = {
    "train": "ann",
    "gan": "gan",
    "sample": "synthetic-gan",
    "synthesise": "synthetic-dirichlet",
    "join": "synthetic-both",
    "convert": "snn",
    "export": "converted.net",
    "learn": "learnt.net",
    "verify": "results/verify.json",
    "report": "report",
}
"""File or folder that a step makes, in the run's folder."""


def outputs_of(name: str) -> tuple[str, ...]:
    """Everything a step writes that is kept, in the run's folder."""
    output, result = OUTPUTS[name], _result_of(name)
    inside = result == output or result.startswith(f"{output}/")
    return (output,) if inside else (output, result)


def _result_of(name: str) -> str:
    return {"verify": OUTPUTS["verify"], "report": REPORT_FILE}.get(name, f"{RESULTS}/{name}.json")


def _at(setup: Setup, name: str) -> Word:
    """Where a step's output lies."""
    return Outside(setup.use[name]) if name in setup.use else OUTPUTS[name]


def _data(setup: Setup) -> tuple[Word, ...]:
    data = setup.data
    given: Word = data.given if data.given == data.name else Outside(Path(data.given))
    return ("--data", given) if data.folder is None else ("--data", given, Outside(data.folder, "--data-dir"))


def _end(name: str, *, resumable: bool = False) -> tuple[Word, ...]:
    resume = ("--resume", "--run-folder", f"{WORK}/{name}") if resumable else ()
    return (*resume, "-o", OUTPUTS[name], "--json", f"{RESULTS}/{name}.json")


def _seed(setup: Setup) -> tuple[Word, ...]:
    return ("--seed", str(setup.seed))


def _step(
    name: str, words: tuple[Word, ...], *reads: str, real_data: bool = False, is_result: bool = False, figures: str = ""
) -> Step:
    return Step(name, words, reads, OUTPUTS[name], _result_of(name), real_data, is_result, tuple(figures.split()))


def _images(setup: Setup) -> str:
    """The step whose images calibrate, are learnt from and are run in Lava."""
    return {"gan": "sample", "dirichlet": "synthesise", "both": "join"}[setup.synthetic]


def _deployed(setup: Setup) -> str:
    return "export" if "learn" in setup.skip else "learn"


def _train(setup: Setup) -> Step:
    recipe = () if setup.preset.training is None else ("--preset", setup.preset.training)
    words = ("train", *_data(setup), *recipe, *setup.preset.training_options, *_seed(setup))
    words = (*words, *_end("train", resumable=True))
    figures = "epoch metrics.test.images metrics.test.accuracy"
    return _step("train", words, real_data=True, is_result=True, figures=figures)


def _gan(setup: Setup) -> Step:
    words = ("gan", "train", _at(setup, "train"), *_data(setup), "--preset", setup.preset.gan, *_seed(setup))
    return _step("gan", (*words, *_end("gan", resumable=True)), "train", real_data=True)


def _sample(setup: Setup) -> Step:
    count = ("--images", str(setup.preset.gan_images), "--fewer")
    words = ("gan", "sample", _at(setup, "gan"), *_data(setup), *count, *_seed(setup), *_end("sample"))
    return _step("sample", words, "gan", real_data=True, figures="images sha256")


def _synthesise(setup: Setup) -> Step:
    recipe = ("--preset", setup.preset.synthesis, *setup.preset.synthesis_options)
    words = ("synthesise", _at(setup, "train"), *recipe, *_seed(setup), *_end("synthesise", resumable=True))
    return _step("synthesise", words, "train", figures="images sha256 answered_as_labelled")


def _join(setup: Setup) -> Step:
    sets = (_at(setup, "sample"), _at(setup, "synthesise"))
    return _step("join", ("data", "join", *sets, *_end("join")), "sample", "synthesise", figures="images sha256")


def _data_free(setup: Setup) -> tuple[Word, ...]:
    return ("--data", _at(setup, _images(setup)), "--data-free")


def _convert(setup: Setup) -> Step:
    recipe = setup.preset
    neuron = ("--reset", recipe.reset, "--readout", recipe.readout, "--coding", recipe.coding)
    words = ("convert", _at(setup, "train"), *_data_free(setup), *neuron, "--steps", str(recipe.steps))
    return _step("convert", (*words, *_seed(setup), *_end("convert")), "train", _images(setup))


def _export(setup: Setup) -> Step:
    words = ("export", _at(setup, "convert"), "--target", "lava", *_data_free(setup), *_end("export"))
    deployed = _deployed(setup) == "export"
    return _step("export", words, "convert", _images(setup), is_result=deployed, figures="network_digest neurons")


def _learn(setup: Setup) -> Step:
    images = _images(setup)
    teacher = ("--teacher", _at(setup, "train"), "--data", _at(setup, images))
    recipe = ("--preset", setup.preset.learning, *setup.preset.learning_options)
    words = ("spike-learn", _at(setup, "export"), *teacher, *recipe, *_seed(setup), *_end("learn", resumable=True))
    return _step("learn", words, "export", "train", images, is_result=True, figures="network_digest neurons steps")


def _verify(setup: Setup) -> Step:
    network, images = _deployed(setup), _images(setup)
    fed = ("--data", _at(setup, images), "--limit", str(setup.preset.verify_images))
    words = ("verify", _at(setup, network), "--backend", "lava", *fed, "--json", OUTPUTS["verify"])
    return _step("verify", words, network, images, figures="passed images")


def _report(setup: Setup) -> Step:
    network, images, recipe = _deployed(setup), _images(setup), setup.preset
    fed = _data(setup) if setup.report_on_real else ("--data", _at(setup, images))
    size = ("--limit", str(recipe.report_images), "--latency-s", f"{recipe.latency_s:g}")
    words = ("bench", "run", _at(setup, network), "--baseline", _at(setup, "train"), *fed, *size)
    reads = (network, "train") if setup.report_on_real else (network, "train", images)
    words = (*words, "-o", OUTPUTS["report"])
    return _step("report", words, *reads, real_data=setup.report_on_real, figures="data.name headline.accuracy")


_MAKERS = {
    "train": _train,
    "gan": _gan,
    "sample": _sample,
    "synthesise": _synthesise,
    "join": _join,
    "convert": _convert,
    "export": _export,
    "learn": _learn,
    "verify": _verify,
    "report": _report,
}
