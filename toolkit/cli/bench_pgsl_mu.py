"""``gascnn bench pgsl mu``: Figure 3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, percent, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from gascnn.toolkit.data import Dataset


@click.command("mu")
@options.data(required=True)
@click.option("--image-size", type=int, metavar="N", help="Resize to N x N.")
@click.option("--split", type=click.Choice(["val", "test", "train"]), default="val", show_default=True)
@options.limit()
@click.option(
    "--attack", type=click.Choice(["flip", "jsma"]), default="flip", show_default=True,
    help="flip: some pixels to whichever of black and white is further; jsma: the client's, whose classifier is "
    "trained on the training images.",
)  # fmt: skip
@click.option("--pixels", type=int, metavar="K", help="Attacked in each image.  [default: a fiftieth]")
@options.seed()
@click.option("--plot", type=options.PATH, metavar="FILE", help="Draw the curves: .png or .svg.")
@options.json_file
def command(**arguments: Any) -> None:
    """Figure 3: the error of recovered images against mu.

    Every reading of it: what counts as recovered (D - E, or the part A of low rank), and the unit of mu (each image's
    largest singular value, or pixels of 0 to 1). The error of the attacked images stands beside the curves.
    """
    save_json(arguments["json_path"], execute(**arguments))


def execute(
    *,
    data: str,
    data_dir: Path | None,
    image_size: int | None,
    split: str,
    limit: int | None,
    attack: str,
    pixels: int | None,
    seed: int,
    plot: Path | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Measure and show; returns what ``--json`` writes."""
    from gascnn.benchmarks.pgsl.mu_report import COLUMNS, READINGS, draw, figure_3, rows
    from gascnn.benchmarks.plots import check_picture
    from gascnn.toolkit.data import load_dataset

    del json_path
    for name, value in (("--limit", limit), ("--pixels", pixels), ("--image-size", image_size)):
        options.positive(name, value)
    if plot is not None:
        check_picture(plot)
    dataset = load_dataset(data, data_dir=data_dir, image_size=image_size)
    images = getattr(dataset, split).take(limit).images
    if not len(images):
        raise UsageError(f"{dataset.name} has no {split} images; choose another --split")
    side = images.shape[-1]
    count = pixels or max(1, round(side * side / 50))
    chosen = {"name": dataset.name, "split": split, "images": len(images), "image_size": side, "attack": attack,
              "pixels": count, "seed": seed}  # fmt: skip
    with bar("readings", len(READINGS)) as progress:
        report = figure_3(images, _attack(attack, dataset, count, seed), data=chosen, progress=progress)
    say(f"{len(images)} {split} images of {dataset.name}, {side} x {side}; {attack}, {count} pixels of each")
    table(COLUMNS, rows(report))
    if plot is not None:
        draw(report, plot)
        say(f"curves in {plot}")
    return report


def _attack(name: str, dataset: Dataset, pixels: int, seed: int) -> Callable[[Tensor], Tensor]:
    import torch

    from gascnn.benchmarks.pgsl.mu import flip_pixels
    from gascnn.models.saliency import SaliencyAttack
    from gascnn.toolkit.pgsl.local import local_accuracy, train_local_classifier
    from gascnn.toolkit.pgsl.options import LocalOptions

    if name == "flip":
        return lambda images: flip_pixels(images, pixels, seed=seed)
    train, val = (
        (torch.from_numpy(part.images), torch.from_numpy(part.labels)) for part in (dataset.train, dataset.val)
    )
    classifier = train_local_classifier(*train, len(dataset.class_names), LocalOptions(seed=seed))
    say(f"the local classifier is right on {percent(local_accuracy(classifier, *val))} of the validation images")
    try:
        attack = SaliencyAttack(classifier, pixels=pixels)
    except ValueError as error:
        raise UsageError(f"--pixels: {error}") from error
    return lambda images: attack(images)[0]
