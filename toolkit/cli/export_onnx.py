"""``gascnn export --target onnx``: a bundle for edge boards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, percent, say
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.exporters.onnx.export import LabelledImages, OnnxReport
    from gascnn.toolkit.data import Dataset

PARTS = ("resnet",)
"""What can be exported; of :data:`gascnn.exporters.onnx.metadata.PARTS`."""

CHECK_IMAGES = 200
"""Test images to compare on without ``--limit``."""

FEW_EQUAL = 0.95
"""Share of equal answers below which a remark says so."""

_TAKEN = {"source", "target", "part", "int8", "data", "data_dir", "calibration_images", "seed", "limit", "output",
          "json_path"}  # fmt: skip


def onnx_options(function: Any) -> Any:
    """``--part`` and ``--int8``."""
    function = click.option(
        "--int8",
        is_flag=True,
        help="With onnx: 8-bit integers, with ranges from the training images of --data.",
    )(function)
    return click.option("--part", type=click.Choice(PARTS), help="With onnx: what of MODEL.  [default: resnet]")(
        function
    )


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
    from gascnn.exporters.onnx.export import export_resnet
    from gascnn.toolkit.cli.models import load_data, open_model

    del others
    _refuse_others()
    options.positive("--limit", limit)
    options.positive("--calibration-images", calibration_images)
    started = time.perf_counter()
    if source is None:
        raise UsageError("--target onnx needs MODEL, a bundle of 'gascnn train'")
    if int8 and data is None:
        raise UsageError("--int8 needs --data: ranges come from real images")
    opened = open_model(source)
    if opened.kind != "ann":
        raise UsageError(f"{source} is a model of kind {opened.kind}; --target onnx takes an ANN bundle")
    dataset = None if data is None else load_data(data, opened, data_dir)
    report = export_resnet(
        source,
        output,
        **(_calibration(dataset, seed, calibration_images) if int8 else {}),
        check=None if dataset is None else _check_images(dataset, limit),
    )
    _show(report)
    return {
        "target": "onnx",
        **report.to_dict(),
        "source": opened.summary(),
        "time_s": round(time.perf_counter() - started, 3),
    }


def _refuse_others() -> None:
    """What is given on the command line and means nothing here."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in _TAKEN and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{parameter.opts[-1]} is for spiking networks; leave it out with --target onnx")


def _calibration(dataset: Dataset | None, seed: int, count: int | None) -> dict[str, Any]:
    from gascnn.toolkit.cli.material import is_synthetic, training_sample

    assert dataset is not None
    if is_synthetic(dataset):
        note(f"the images of {dataset.name} are synthetic: the ranges of real ones may be wider")
    return {"calibration": training_sample(dataset, seed, count), "calibrated_on": f"{dataset.name}, train split"}


def _check_images(dataset: Dataset, limit: int | None) -> LabelledImages:
    from gascnn.exporters.onnx.export import LabelledImages

    test = dataset.test.take(limit or CHECK_IMAGES)
    return LabelledImages(test.images, test.labels)


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
    if check.equal_answers is not None and check.equal_answers < FEW_EQUAL:
        note("8 bits change many answers; calibrate on more images (--calibration-images), or export without --int8")
