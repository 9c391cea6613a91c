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
@click.option(
    "--local-epochs", type=int, metavar="N", default=5, show_default=True, help="Of the classifier that jsma goes by."
)
@click.option("--sparsity", type=float, metavar="F", default=1.0, show_default=True,
              help="Weight lambda of the sparse part, in units of 1 / sqrt of the larger side.")  # fmt: skip
@options.seed()
@click.option("--plot", type=options.PATH, metavar="FILE", help="Draw the curves: .png or .svg.")
@click.option("--markdown", "page", type=options.PATH, metavar="FILE", help="Write all curves as a page.")
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
    local_epochs: int,
    sparsity: float,
    seed: int,
    plot: Path | None,
    page: Path | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Measure and show; returns what ``--json`` writes."""
    from gascnn.benchmarks.pgsl.mu_report import COLUMNS, READINGS, draw, figure_3, markdown, rows
    from gascnn.benchmarks.plots import check_picture
    from gascnn.toolkit.data import load_dataset
    from gascnn.toolkit.files import write_text

    del json_path
    counts = {"--limit": limit, "--pixels": pixels, "--image-size": image_size, "--local-epochs": local_epochs}
    for name, value in counts.items():
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
              "pixels": count, "sparsity": sparsity, "seed": seed}  # fmt: skip
    if attack == "jsma":
        chosen["local_epochs"] = local_epochs
    with bar("readings", len(READINGS)) as progress:
        report = figure_3(images, _attack(attack, dataset, count, local_epochs, seed), data=chosen, progress=progress)
    say(f"{len(images)} {split} images of {dataset.name}, {side} x {side}; {attack}, {count} pixels of each")
    table(COLUMNS, rows(report))
    if plot is not None:
        draw(report, plot)
        say(f"curves in {plot}")
    if page is not None:
        write_text(page, markdown(report, options.typed("gascnn bench pgsl mu")))
    return report


def _attack(name: str, dataset: Dataset, pixels: int, epochs: int, seed: int) -> Callable[[Tensor], Tensor]:
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
    classifier = train_local_classifier(*train, len(dataset.class_names), LocalOptions(seed=seed, epochs=epochs))
    say(f"the local classifier is right on {percent(local_accuracy(classifier, *val))} of the validation images")
    try:
        attack = SaliencyAttack(classifier, pixels=pixels)
    except ValueError as error:
        raise UsageError(f"--pixels: {error}") from error
    return lambda images: attack(images)[0]
