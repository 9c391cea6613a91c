"""``gascnn train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import percent, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.toolkit.training.options import TrainingOptions
    from gascnn.toolkit.training.presets import Preset

OVERRIDES = ("epochs", "batch_size", "learning_rate", "weight_decay", "augmentation", "fit_on", "threads", "seed")


@click.command("train")
@options.data(required=True)
@click.option("--preset", metavar="NAME", help="Recipe: smoke, small, paper, digits, mnist, brain-mri. Default: that "
              "of the data set, else small.")  # fmt: skip
@click.option("--image-size", type=int, metavar="N", help="Scale images to N pixels a side.")
@click.option(
    "--framing",
    type=click.Choice(["whole", "foreground"]),
    help="foreground: cut to the square around what is bright, brightness stretched. Default: the preset's.",
)
@click.option("--channels", type=click.Choice(["1", "3"]), help="Gray or colour. Default: as stored.")
@click.option("--width", type=int, help="Channels of the first stage.")
@click.option("--blocks", metavar="N,N,...", help="Residual blocks in each stage; 2,2,2,2 is ResNet-18.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int, metavar="N", help="Images a step.")
@click.option("--learning-rate", type=float)
@click.option("--weight-decay", type=float)
@click.option("--augmentation", metavar="NAME", help="none, light, medical, ...")
@click.option("--fit-on", type=click.Choice(["train", "train+val"]),
              help="train+val leaves nothing to choose the epoch by; the last one is kept.")  # fmt: skip
@click.option("--threads", type=int, help="Of torch; 0 takes its default.")
@click.option(
    "--statistics/--no-statistics",
    default=True,
    show_default=True,
    help="Save statistics of the activations with the bundle, to convert it where there are no images.",
)
@options.seed(None)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run: same options, same result as without.")
@click.option("--run-folder", type=options.PATH, help="For checkpoints. Default: the bundle's path with .run behind.")
@options.output("Bundle to write.")
@options.json_file
def command(**arguments: Any) -> None:
    """Train a ResNet on a data set and write it as a bundle.

    Checkpoints (best and last) are written after every epoch. Accuracy, macro-F1, AUC, sensitivity and specificity of
    each class and the confusion matrix on the validation and test images are in the bundle's model.json. Statistics of
    the activations, a few numbers a channel, are saved with it: it can then be converted without any image.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    data: str,
    data_dir: Path | None,
    preset: str | None,
    image_size: int | None,
    framing: str | None,
    channels: str | None,
    width: int | None,
    blocks: str | None,
    statistics: bool,
    resume: bool,
    run_folder: Path | None,
    output: Path,
    json_path: Path | None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train, write the bundle, show; returns what ``--json`` writes."""
    from gascnn.toolkit.bundle import MODEL_FILE, save_bundle
    from gascnn.toolkit.cli.calibrate import calibrated
    from gascnn.toolkit.data import load_dataset
    from gascnn.toolkit.files import sha256_file
    from gascnn.toolkit.training.bundles import result_bundle
    from gascnn.toolkit.training.presets import get_preset, preset_for
    from gascnn.toolkit.training.progress import rich_progress
    from gascnn.toolkit.training.train import train

    recipe = get_preset(preset) if preset is not None else preset_for(data)
    dataset = load_dataset(
        data,
        data_dir=data_dir,
        image_size=image_size if image_size is not None else recipe.image_size,
        channels=None if channels is None else int(channels),
        framing=framing if framing is not None else recipe.framing,
    )
    chosen = _options(recipe, overrides)
    folder = run_folder if run_folder is not None else output.with_name(output.name + ".run")
    result = train(_model(recipe, width, blocks), dataset, chosen, folder, resume=resume, progress=rich_progress())
    bundle = result_bundle(result)
    save_bundle(calibrated(bundle, result.model, dataset, seed=0) if statistics else bundle, output)
    summary = {
        "output": str(output),
        "sha256": sha256_file(output / MODEL_FILE),
        "preset": recipe.name,
        "epoch": result.epoch,
        "metrics": result.metrics,
        "provenance": result.provenance,
    }
    _show(summary, dataset.class_names)
    return summary


def _options(recipe: Preset, overrides: dict[str, Any]) -> TrainingOptions:
    given = {name: value for name, value in overrides.items() if name in OVERRIDES and value is not None}
    return replace(recipe.options, **given)


def _model(recipe: Preset, width: int | None, blocks: str | None) -> dict[str, Any]:
    arguments = dict(recipe.model)
    if width is not None:
        arguments["width"] = width
    if blocks is not None:
        try:
            arguments["blocks"] = tuple(int(n) for n in blocks.split(","))
        except ValueError as error:
            raise UsageError(f"--blocks is {blocks!r}; give numbers such as 2,2,2,2") from error
    return arguments


def _show(summary: dict[str, Any], class_names: tuple[str, ...]) -> None:
    for split, figures in summary["metrics"].items():
        auc = "" if figures["auc"] is None else f", AUC {figures['auc']:.4f}"
        say(
            f"{split}: {figures['images']} images, accuracy {percent(figures['accuracy'])}, "
            f"macro-F1 {percent(figures['macro_f1'])}{auc}"
        )
    if "test" in summary["metrics"]:
        rows = [
            (name, f["images"], *("-" if f[k] is None else percent(f[k]) for k in ("sensitivity", "specificity")))
            for name, f in summary["metrics"]["test"]["per_class"].items()
        ]
        table(("class", "test images", "sensitivity", "specificity"), rows)
    say(f"bundle in {summary['output']} (SHA-256 of model.json {summary['sha256']})")
