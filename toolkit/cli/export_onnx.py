"""``gascnn export --target onnx``: a bundle for edge boards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, percent, say
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.exporters.onnx.export import LabelledImages, OnnxReport
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.data import Dataset

PARTS = {"resnet": "ann", "pgsl-client": "pgsl"}
"""What can be exported, of :data:`gascnn.exporters.onnx.metadata.PARTS`, and the kind of bundle it is made from."""

MAKERS = {"ann": "gascnn train", "pgsl": "gascnn pgsl train"}

CHECK_IMAGES = 200
"""Test images to compare on without ``--limit``."""

FEW_EQUAL = 0.95
"""Share of equal answers below which a remark says so."""

FAR_OFF = 0.1
"""Of a client's largest activation: an int8 value that is further off brings a remark."""

_TAKEN = {"source", "target", "part", "int8", "data", "data_dir", "calibration_images", "seed", "limit", "output",
          "json_path"}  # fmt: skip


def onnx_options(function: Any) -> Any:
    """``--part`` and ``--int8``."""
    function = click.option(
        "--int8",
        is_flag=True,
        help="With onnx: 8-bit integers, with ranges from the training images of --data.",
    )(function)
    return click.option(
        "--part", type=click.Choice(list(PARTS)), help="With onnx: what of MODEL. Default: what its kind has."
    )(function)


def refuse_onnx_options(target: str, part: str | None, int8: bool) -> None:
    """What another target does not take.

    Raises:
        UsageError: names the option.
    """
    for name, given in (("--part", part is not None), ("--int8", int8)):
        if given:
            raise UsageError(f"{name} is for --target onnx; leave it out with --target {target}")


def execute(
    *,
    source: Path | None,
    part: str | None,
    int8: bool,
    data: str | None,
    data_dir: Path | None,
    calibration_images: int | None,
    seed: int,
    limit: int | None,
    output: Path,
    **others: Any,
) -> dict[str, Any]:
    """Export and show; returns what ``--json`` writes."""
    del others
    _refuse_others()
    options.positive("--limit", limit)
    options.positive("--calibration-images", calibration_images)
    started = time.perf_counter()
    if source is None:
        raise UsageError("--target onnx needs MODEL, a bundle of 'gascnn train' or 'gascnn pgsl train'")
    if int8 and data is None:
        raise UsageError("--int8 needs --data: ranges come from real images")
    export = _export_client if _part(source, part) == "pgsl-client" else _export_resnet
    opened, report = export(_Wanted(source, output, int8, data, data_dir, calibration_images, seed, limit))
    _show(report)
    return {
        "target": "onnx",
        **report.to_dict(),
        "source": opened.summary(),
        "time_s": round(time.perf_counter() - started, 3),
    }


def _part(source: Path, part: str | None) -> str:
    """The part that the kind of a model has.

    Raises:
        FormatError: nothing there, or a damaged bundle.
        UsageError: another part was asked for, or a kind that has none.
    """
    from gascnn.toolkit.bundle import is_bundle, load_bundle
    from gascnn.toolkit.cli.models import open_model

    kind = load_bundle(source).kind if is_bundle(source) else open_model(source).kind
    found = next((name for name, of in PARTS.items() if of == kind), None)
    if found is None:
        raise UsageError(f"{source} is a model of kind {kind}; --target onnx takes an ANN or a PGSL bundle")
    if part is not None and part != found:
        raise UsageError(
            f"{source} is a bundle of kind {kind}; --part {part} takes one of kind {PARTS[part]}, of "
            f"'{MAKERS[PARTS[part]]}'"
        )
    return found


@dataclass(frozen=True)
class _Wanted:
    """What was asked for."""

    source: Path
    output: Path
    int8: bool
    data: str | None
    data_dir: Path | None
    calibration_images: int | None
    seed: int
    limit: int | None

    def dataset(self, opened: Model) -> Dataset | None:
        """That of ``--data``, as the model takes it."""
        from gascnn.toolkit.cli.models import load_data

        return None if self.data is None else load_data(self.data, opened, self.data_dir)

    def calibration(self, dataset: Dataset | None) -> dict[str, Any]:
        """What an int8 export takes more."""
        from gascnn.toolkit.cli.material import is_synthetic, training_sample

        if not self.int8:
            return {}
        assert dataset is not None
        if is_synthetic(dataset):
            note(f"the images of {dataset.name} are synthetic: the ranges of real ones may be wider")
        images = training_sample(dataset, self.seed, self.calibration_images)
        return {"calibration": images, "calibrated_on": f"{dataset.name}, train split"}

    def check(self, dataset: Dataset | None) -> LabelledImages | None:
        """Test images to compare on, if there are any."""
        from gascnn.exporters.onnx.export import LabelledImages

        if dataset is None:
            return None
        test = dataset.test.take(self.limit or CHECK_IMAGES)
        return LabelledImages(test.images, test.labels)


def _export_resnet(wanted: _Wanted) -> tuple[Model, OnnxReport]:
    from gascnn.exporters.onnx.export import export_resnet
    from gascnn.toolkit.cli.models import open_model

    opened = open_model(wanted.source)
    dataset = wanted.dataset(opened)
    more = wanted.calibration(dataset)
    return opened, export_resnet(wanted.source, wanted.output, **more, check=wanted.check(dataset))


def _export_client(wanted: _Wanted) -> tuple[Model, OnnxReport]:
    from gascnn.exporters.onnx.pgsl import export_pgsl_client
    from gascnn.toolkit.cli.pgsl_local import open_split
    from gascnn.toolkit.training.batches import PIXEL_MAX

    opened, network = open_split(wanted.source)
    dataset = wanted.dataset(opened)
    check = wanted.check(dataset)
    return opened, export_pgsl_client(
        network.client.model,
        wanted.output,
        classes=network.class_names,
        pixel_max=PIXEL_MAX,
        framing=network.framing,
        bundle_sha256=opened.sha256,
        **wanted.calibration(dataset),
        check=None if check is None else check.images,
    )


def _refuse_others() -> None:
    """What is given on the command line and means nothing here."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in _TAKEN and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{parameter.opts[-1]} is for spiking networks; leave it out with --target onnx")


def _show(report: OnnxReport) -> None:
    check, metadata = report.check, report.metadata
    say(f"{report.output}: {metadata.part}, {metadata.precision}, opset {report.opset}, {report.bytes} bytes")
    say(f"SHA-256 {report.sha256}")
    allowed = "" if check.tolerance is None else f" ({check.tolerance:.0e} allowed)"
    answers = "" if check.equal_answers is None else f"{percent(check.equal_answers)} equal answers, "
    say(
        f"against torch on {check.images} images: {answers}values differ by {check.largest_difference:.1e} of the "
        f"largest{allowed}"
    )
    if check.accuracy is not None and check.torch_accuracy is not None:
        say(f"accuracy {percent(check.accuracy)}, of torch {percent(check.torch_accuracy)}")
    far = metadata.precision == "int8" and check.equal_answers is None and check.largest_difference > FAR_OFF
    if far:
        note(
            "8 bits change activations much; calibrate on more images (--calibration-images), or export without --int8"
        )
    if check.equal_answers is not None and check.equal_answers < FEW_EQUAL:
        note("8 bits change many answers; calibrate on more images (--calibration-images), or export without --int8")
