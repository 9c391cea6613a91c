"""``gascnn calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, save_json, say
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from gascnn.toolkit.bundle import Bundle
    from gascnn.toolkit.data import Dataset


@click.command("calibrate")
@click.argument("bundle", type=options.PATH)
@options.data(required=True, help_text="Data set whose training images are measured.")
@click.option("--calibration-images", type=int, metavar="N", help="How many of them.  [default: 512, fewer of a large "
              "network]")  # fmt: skip
@options.seed()
@options.output("Bundle to write. Default: BUNDLE itself, anew.", required=False)
@options.json_file
def command(**arguments: Any) -> None:
    """Save activation statistics of the training images with BUNDLE, by which it is later converted without them.

    'gascnn train' does so already; this is for bundles that lack them. A few numbers a channel are stored, never an
    image.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    bundle: Path,
    data: str,
    data_dir: Path | None,
    calibration_images: int | None,
    seed: int,
    output: Path | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Measure, write the bundle, show; returns what ``--json`` writes."""
    from gascnn.toolkit.bundle import MODEL_FILE, save_bundle
    from gascnn.toolkit.cli.material import is_synthetic
    from gascnn.toolkit.cli.models import load_data, open_model
    from gascnn.toolkit.files import sha256_file
    from gascnn.toolkit.training.bundles import build_model

    options.positive("--calibration-images", calibration_images)
    opened = open_model(bundle)
    if opened.kind != "ann" or opened.bundle is None:
        raise UsageError(f"{bundle} is no ANN; calibrate takes the bundle that 'gascnn train' wrote")
    dataset = load_data(data, opened, data_dir)
    if is_synthetic(dataset):
        raise UsageError(f"{dataset.name} holds synthetic images; statistics are those of the real training images")
    target = output or bundle
    complete = calibrated(opened.bundle, build_model(opened.bundle), dataset, seed, calibration_images)
    save_bundle(complete, target)
    assert complete.statistics is not None
    result = {
        "output": str(target),
        "sha256": sha256_file(target / MODEL_FILE),
        "statistics": complete.statistics.record,
    }
    record = complete.statistics.record
    say(f"statistics of {len(record['populations'])} populations on {record['images']} images in {target}")
    return result


def calibrated(bundle: Bundle, model: nn.Module, dataset: Dataset, seed: int, count: int | None = None) -> Bundle:
    """The bundle with statistics of a seeded sample of the training images, that which ``convert`` would take."""
    from gascnn.toolkit.cli.material import training_sample
    from gascnn.toolkit.conversion.statistics import measure_statistics, with_statistics

    with bar("calibrating", 1) as progress:
        statistics = measure_statistics(
            model,
            training_sample(dataset, seed, count),
            pixel_max=bundle.pixel_max,
            count=count,
            origin={"dataset": dataset.name, "split": "train", "seed": seed},
            progress=lambda done, of: progress(done / of),
        )
    return with_statistics(bundle, statistics)
