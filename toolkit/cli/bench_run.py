"""``gascnn bench run``: the report of a deployed network beside its ANN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, save_json, say
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.benchmarks.report.measure import Data
    from gascnn.benchmarks.report.sides import Baseline
    from gascnn.toolkit.cli.models import Model

REPORT_FILE, PAGE_FILE = "report.json", "report.html"


@click.command("run")
@click.argument("model", type=options.PATH, metavar="MODEL.net")
@click.option("--baseline", type=options.PATH, required=True, metavar="BUNDLE", help="The ANN that it is from.")
@options.data(required=True, help_text="Data set whose test images are run.")
@options.limit()
@options.output("Folder for report.json and report.html.", required=False)
@click.option("--steps", metavar="LIST", help="T of the curve, such as 4,8,16.  [default: the file's, and less]")
@click.option("--tables", metavar="LIST", help="Cost tables, such as 45nm-int8,loihi.  [default: all]")
@click.option("--latency-s", type=float, default=20.0, show_default=True, help="Seconds that timing may take.")
@click.option("--lava-images", type=int, default=0, show_default=True, metavar="N", help="Run N images in Lava too.")
@click.option("--examples", type=int, default=6, show_default=True, metavar="N", help="Images shown with their spikes.")
@click.option("--no-meters", is_flag=True, help="Do not read power meters.")
@options.batch_size(64)
@options.seed(None)
@click.option("--threads", type=int, metavar="N", help="Of the simulator. Default: all processors; timing takes one.")
@options.json_file
def command(**arguments: Any) -> None:
    """Compare MODEL.net, as it was deployed, with its ANN: accuracy, spikes, energy, latency, the chip's resources.

    Spikes and operations are counted on the deployed integers, energies are these counts under published cost tables,
    and measured where a power meter can be read. Writes report.json and report.html, one page without scripts that
    asks nothing of any network; without -o only the summary is shown.
    """
    save_json(arguments["json_path"], execute(**arguments))


def execute(
    *,
    model: Path,
    baseline: Path,
    data: str,
    data_dir: Path | None,
    limit: int | None,
    output: Path | None,
    steps: str | None,
    tables: str | None,
    latency_s: float,
    lava_images: int,
    examples: int,
    no_meters: bool,
    batch_size: int,
    seed: int | None,
    threads: int | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Measure, write and show; returns the report."""
    from gascnn.benchmarks.report.document import check, write_report
    from gascnn.benchmarks.report.measure import measure
    from gascnn.benchmarks.report.page import write_page
    from gascnn.benchmarks.report.settings import ReportSettings
    from gascnn.benchmarks.report.summary import show

    options.positive("--limit", limit)
    settings = ReportSettings(
        steps=() if steps is None else options.numbers("--steps", steps),
        tables=() if tables is None else tuple(tables.split(",")),
        batch_size=batch_size,
        threads=threads,
        latency_s=latency_s,
        examples=examples,
        lava_images=lava_images,
        meters=not no_meters,
        seed=seed,
    )
    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; -o names a folder")
    opened, ann, part = open_pair(model, baseline, data, data_dir, limit)
    assert opened.netx is not None
    report = measure(opened.netx, ann, part, settings, command=options.typed("gascnn bench run"), begin=_begin)
    check(report)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_report(output / REPORT_FILE, report)
        write_page(output / PAGE_FILE, report)
    for line in show(report):
        say(line)
    if output is not None:
        say(f"report: {output / PAGE_FILE}")
    return report


def open_pair(
    model: Path, baseline: Path, data: str, data_dir: Path | None, limit: int | None
) -> tuple[Model, Baseline, Data]:
    """A deployed network, its ANN, and test images for both.

    Raises:
        UsageError: not a NetX file, or a baseline that is no ANN.
        DataError: images or classes that do not fit them.
    """
    from gascnn.benchmarks.report.measure import Data
    from gascnn.benchmarks.report.sides import check_pair, open_baseline
    from gascnn.toolkit.cli.material import CALIBRATION_IMAGES, training_sample
    from gascnn.toolkit.cli.models import load_data, open_model

    opened, compared = open_model(model), open_model(baseline)
    if opened.netx is None:
        raise UsageError(f"{model} is no NetX file; make one with 'gascnn export --target lava' first")
    if compared.bundle is None:
        raise UsageError(f"{baseline} is no ANN; --baseline takes the bundle that 'gascnn train' wrote")
    ann = open_baseline(baseline, compared.bundle)
    check_pair(opened.netx, ann)
    dataset = load_data(data, opened, data_dir)
    test = dataset.test.take(limit)
    rule = str(dataset.provenance.get("split", ""))
    calibration = training_sample(dataset, 0, CALIBRATION_IMAGES)
    return opened, ann, Data(dataset.name, "test", test.images, test.labels, calibration, rule)


def _begin(what: str, images: int) -> Callable[[int], None]:
    note(what if images == 1 else f"{what}, {images} images")
    return lambda done: None
