"""``gascnn bench sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, percent, save_json, say
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.deployment import Coding

if TYPE_CHECKING:
    from gascnn.benchmarks.sweep import Reference
    from gascnn.benchmarks.sweep_point import PointFolder
    from gascnn.benchmarks.sweep_settings import Settings
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.data import Dataset
    from gascnn.toolkit.data.dataset import ImageSet


@click.command("sweep")
@click.argument("model", type=options.PATH)
@options.data(
    required=True,
    help_text="Data set: T is chosen on its validation images, figures are given on its test "
    "images; training images fit an ANN's conversion.",
)
@click.option("--steps", default="4,8,16,32,64", show_default=True, metavar="T,T,...", help="Every T.")
@click.option(
    "--factors",
    default="1",
    show_default=True,
    metavar="F,F,...",
    help="All thresholds but the read-out's times each of these.",
)
@click.option(
    "--reset",
    type=click.Choice(["zero", "subtract"]),
    help="Of an ANN's conversion (zero), or for a NIR file that does not say.",
)
@click.option("--readout", type=click.Choice(["count", "membrane"]), help="Of an ANN's conversion.  [default: count]")
@click.option("--coding", type=click.Choice(get_args(Coding)), help="Of an ANN's conversion.  [default: regular]")
@click.option(
    "--skip-steps",
    metavar="N|N%",
    help="First read-out steps left out of the count, or what share of T. Default: what the model says, else none.",
)
@click.option("--data-free", is_flag=True, help="Convert an ANN without real images, as 'gascnn convert --data-free'.")
@click.option("--fit-data", metavar="NAME|PATH", help="Images that fit an ANN's conversion, in the place of --data's.")
@click.option("--ann", type=options.PATH, metavar="BUNDLE", help="The ANN of a spiking MODEL, to compare it with.")
@click.option(
    "--against",
    type=click.Choice(["ann", "best"]),
    help="What the recommended T is measured by.  [default: ann where there is one]",
)
@click.option(
    "--tolerance",
    type=float,
    default=0.01,
    show_default=True,
    metavar="F1",
    help="How far below that its macro-F1 on the validation images may be.",
)
@options.limit()
@options.batch_size(64)
@options.seed(None)
@click.option("--threads", type=int, metavar="N", help="Of the simulator. Default: all processors.")
@click.option("--memory", metavar="SIZE", help="What this process may hold while it simulates, such as 2G.")
@click.option("--run-folder", type=options.PATH, help="Keep every point there as soon as it is measured.")
@click.option("--resume", is_flag=True, help="Go on in --run-folder; points that are there are not measured again.")
@options.json_file
@click.option("--plot", type=options.PATH, metavar="FILE", help="Draw the result; FILE ends in .png or .svg.")
def command(**arguments: Any) -> None:
    """Measure MODEL against T and against the threshold factor, and recommend a T.

    MODEL is an ANN bundle (converted anew for each T), a spiking bundle or NIR file (lowered anew) or a NetX file (run
    with each T). Accuracy and macro-F1 come with 95 % bootstrap intervals over the images; spikes, synaptic operations
    and energy are counted on the deployed integers. --limit takes the first images of the validation and of the test
    images.
    """
    save_json(arguments["json_path"], execute(**arguments))


def execute(
    *,
    model: Path,
    data: str,
    data_dir: Path | None,
    steps: str,
    factors: str,
    skip_steps: str | None,
    ann: Path | None,
    against: str | None,
    tolerance: float,
    limit: int | None,
    batch_size: int,
    seed: int | None,
    threads: int | None,
    memory: str | None,
    run_folder: Path | None,
    resume: bool,
    json_path: Path | None,
    plot: Path | None,
    **conversion: Any,
) -> dict[str, Any]:
    """Measure and show; returns what ``--json`` writes."""
    from gascnn.benchmarks import machine
    from gascnn.benchmarks.plots import check_picture
    from gascnn.benchmarks.sweep import sweep
    from gascnn.benchmarks.sweep_plot import draw_sweep
    from gascnn.benchmarks.sweep_point import FORMAT
    from gascnn.benchmarks.sweep_settings import Settings, Skip
    from gascnn.toolkit.cli.models import load_data, open_model
    from gascnn.toolkit.cli.sweep_source import source_of
    from gascnn.toolkit.cli.sweep_table import show

    for name, value in (("--limit", limit), ("--threads", threads), ("--batch-size", batch_size)):
        options.positive(name, value)
    if plot is not None:
        check_picture(plot)
    if resume and run_folder is None:
        raise UsageError("--resume goes on in a folder; name it with --run-folder")
    skip = None if skip_steps is None else Skip.parse(skip_steps)
    opened = open_model(model)
    compared = _ann_of(opened, ann)
    settings = Settings(
        steps=options.numbers("--steps", steps),
        factors=options.numbers("--factors", factors, float, "0.8,1,1.2"),
        skip=skip,
        seed=seed,
        batch_size=batch_size,
        threads=threads,
        memory_bytes=options.memory_size(memory),
        tolerance=tolerance,
        against=against or ("best" if compared is None else "ann"),  # type: ignore[arg-type]
    ).checked()
    dataset = load_data(data, opened, data_dir)
    parts = _parts(dataset, limit)
    source, fixed = source_of(opened, dataset, data_dir, skip, {**conversion, "seed": seed})
    folder = None if run_folder is None else _folder(run_folder, resume, opened, compared, fixed, skip_steps, parts)
    reference = None if compared is None else _reference(compared, parts)
    facts = machine.describe()
    with _Progress(settings, sum(len(part) for part in parts.values())) as progress:
        measured = sweep(
            source, parts, settings, reference=reference, folder=folder, begin=progress.begin, done=progress.done
        )
    result = {
        "format": FORMAT,
        "model": opened.summary(),
        "ann_model": None if compared is None else compared.summary(),
        "data": {"name": dataset.name, "limit": limit, **{f"{name}_images": len(part) for name, part in parts.items()}},
        "options": {**fixed, "skip_steps": skip_steps, "tolerance": tolerance, "against": settings.against},
        "machine": facts,
        "macs_of": "the ANN" if reference is not None else "the deployed network's own synapses",
        **measured,
    }
    show(result)
    if plot is not None:
        draw_sweep(result, plot)
        say(f"drawn in {plot}")
    return result


def _ann_of(opened: Model, ann: Path | None) -> Model | None:
    """The ANN to compare with: the model itself, or the bundle named beside a spiking one."""
    from gascnn.toolkit.cli.models import open_model

    if ann is None:
        return opened if opened.kind == "ann" else None
    if opened.kind == "ann":
        raise UsageError(f"{opened.path} is an ANN itself; leave --ann out")
    compared = open_model(ann)
    same = (compared.image_shape, len(compared.classes)) == (opened.image_shape, _outputs(opened))
    if compared.kind != "ann" or not same:
        raise UsageError(f"{ann} is not an ANN of the images and classes of {opened.path}; give the one it is from")
    return compared


def _outputs(opened: Model) -> int:
    return len(opened.classes) or (opened.netx.network.layers[-1].shape[0] if opened.netx is not None else 0)


def _parts(dataset: Dataset, limit: int | None) -> dict[str, ImageSet]:
    parts = {name: dataset.split(name).take(limit) for name in ("val", "test")}
    for name, part in parts.items():
        if not len(part):
            raise DataError(f"{dataset.name} has no {name} images; T is chosen on val and measured on test images")
    return parts


def _folder(
    path: Path,
    resume: bool,
    opened: Model,
    compared: Model | None,
    fixed: dict[str, Any],
    skip_steps: str | None,
    parts: dict[str, ImageSet],
) -> PointFolder:
    from gascnn.benchmarks.sweep import describe_parts
    from gascnn.benchmarks.sweep_point import PointFolder

    description = {
        "options": {**fixed, "skip_steps": skip_steps},
        "model": {"sha256": opened.sha256, "ann_sha256": None if compared is None else compared.sha256},
        "dataset": describe_parts(parts),
    }
    return PointFolder(path, description, resume)


def _reference(compared: Model, parts: dict[str, ImageSet]) -> Reference:
    from gascnn.benchmarks.ann_macs import ann_macs
    from gascnn.benchmarks.sweep import Reference
    from gascnn.toolkit.training.bundles import build_model
    from gascnn.toolkit.training.evaluate import predict_scores

    assert compared.bundle is not None
    model = build_model(compared.bundle)
    answers = {name: predict_scores(model, part.images).argmax(axis=1) for name, part in parts.items()}
    return Reference(answers, ann_macs(model, compared.bundle.image_shape))


class _Progress:
    """A bar over all points, and a line on standard error for each that is done."""

    def __init__(self, settings: Settings, images: int) -> None:
        self._images, self._begun = images, 0
        self._bar = bar("sweeping", len(settings.steps) * len(settings.factors))

    def __enter__(self) -> _Progress:
        self._tell = self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def begin(self, name: str) -> Any:
        before, self._begun = self._begun, self._begun + 1
        return lambda images: self._tell(before + images / self._images)

    def done(self, point: dict[str, Any]) -> None:
        self._tell(self._begun)
        name = f"T = {point['steps']}, factor {point['factor']:g}"
        found = point.get("error") or f"macro-F1 {percent(point['test']['macro_f1']['value'])} on test images"
        click.echo(f"{name}: {found}", err=True)
