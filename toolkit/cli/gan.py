"""``gascnn gan``: the attention GAN: train one on a ResNet and real images, make labelled images with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, note, percent, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.training.gan.options import GanOptions


@click.group("gan")
def command() -> None:
    """Synthetic images from real ones: a GAN between a frozen ResNet and a discriminator (docs/gan.md)."""


@command.command("train")
@click.argument("network", type=options.PATH, metavar="BUNDLE")
@options.data(required=True)
@click.option("--preset", metavar="NAME", default="small", show_default=True, help="Recipe: smoke, small, paper.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of it, such as plane=image.")
@options.seed(None)
@click.option("--threads", type=int, help="Of torch; 0 takes its default.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run: same options, same result as without.")
@click.option("--run-folder", type=options.PATH, help="For checkpoints and pictures. Default: the output's path with "
              ".run behind.")  # fmt: skip
@options.output("GAN to write: a folder like a bundle's.")
@options.json_file
def train(**arguments: Any) -> None:
    """Train a GAN on the ResNet of BUNDLE (of 'gascnn train') and the real training images it was trained on.

    The ResNet stays as it is; its images' size, channels, classes and framing are the GAN's. Checkpoints and pictures
    of what a few images become go to the run's folder. On several devices: torchrun --no-python gascnn gan train ...
    """
    _train(**arguments)


@command.command("sample")
@click.argument("gan", type=options.PATH)
@options.data(required=True)
@click.option("--images", type=int, metavar="N", required=True, help="How many of each class; at most one a source.")
@click.option("--sources", type=click.Choice(["any", "same", "other"]), default="any", show_default=True,
              help="Training images a class is made from: any, of the same class, of all others.")  # fmt: skip
@click.option("--fewer", is_flag=True, help="Make fewer where there are not as many sources.")
@options.seed()
@click.option("--threads", type=int, default=0, help="Of torch; 0 takes its default.")
@options.output("Folder of images to write; --data of other commands takes it.")
@options.json_file
def sample(**arguments: Any) -> None:
    """Make labelled images with GAN, of 'gascnn gan train'.

    An image is made from a real one: --data is the data set the GAN was trained on, of which training images are drawn.
    Beside each image stand the index of its source, the condition it was asked for, and what the discriminator reads.
    """
    save_json(arguments.pop("json_path"), _sample(**arguments))


def _train(
    *,
    network: Path,
    data: str,
    data_dir: Path | None,
    preset: str,
    settings: Sequence[str],
    seed: int | None,
    threads: int | None,
    resume: bool,
    run_folder: Path | None,
    output: Path,
    json_path: Path | None,
) -> None:
    """Train and, in the first process, write the GAN, show, write what ``--json`` asks for."""
    from gascnn.toolkit.training.gan.presets import get_gan_preset

    recipe = get_gan_preset(preset)
    chosen = _options(recipe.options, settings, seed=seed, threads=threads)
    _check_output(output)

    from gascnn.toolkit.bundle import MODEL_FILE
    from gascnn.toolkit.cli.models import load_data
    from gascnn.toolkit.files import sha256_file
    from gascnn.toolkit.training.gan.bundle import save_gan
    from gascnn.toolkit.training.gan.processes import is_first
    from gascnn.toolkit.training.gan.progress import shown_progress
    from gascnn.toolkit.training.gan.train import train_gan

    opened = _resnet(network)
    assert opened.bundle is not None
    dataset = load_data(data, opened, data_dir)
    folder = run_folder if run_folder is not None else output.with_name(output.name + ".run")
    gan = train_gan(opened.bundle, dataset, chosen, folder, resume=resume, progress=shown_progress())
    if not is_first():
        return
    gan.provenance["resnet"]["bundle_sha256"] = opened.sha256
    save_gan(gan, output)
    figures = gan.metrics["train"]
    summary = {
        "output": str(output),
        "sha256": sha256_file(output / MODEL_FILE),
        "preset": recipe.name,
        "resnet": opened.summary(),
        "metrics": gan.metrics,
        "provenance": gan.provenance,
    }
    say(
        f"{figures['iteration']} iterations in {gan.provenance['training_time_s']:.0f} s; diversity "
        f"{figures['diversity']:.3f} of the real images', condition read with an error of "
        f"{figures['condition_error']:.3f}"
    )
    say(f"GAN in {output} (SHA-256 of model.json {summary['sha256']}), pictures in {folder}")
    save_json(json_path, summary)


def _sample(
    *,
    gan: Path,
    data: str,
    data_dir: Path | None,
    images: int,
    sources: Any,
    fewer: bool,
    seed: int,
    threads: int,
    output: Path,
) -> dict[str, Any]:
    """Make the images, write the folder, show; returns what ``--json`` writes."""
    options.positive("--images", images)
    options.torch_threads(threads)

    from gascnn.toolkit.bundle import MODEL_FILE
    from gascnn.toolkit.data import load_dataset
    from gascnn.toolkit.data.image_set import FEWEST_IMAGES, IMAGES_FILE, save_image_set
    from gascnn.toolkit.files import sha256_file
    from gascnn.toolkit.training.gan.bundle import load_gan
    from gascnn.toolkit.training.gan.sample import sample as make

    found = load_gan(gan)
    count = images * len(found.class_names)
    if count < FEWEST_IMAGES:
        raise UsageError(f"--images is {images}; a set of three splits needs at least {FEWEST_IMAGES} images in all")
    channels, height, width = found.image_shape
    size = height if height == width else None
    dataset = load_dataset(data, data_dir=data_dir, image_size=size, channels=channels, framing=found.framing)
    with bar("making", count) as progress:
        made = make(found, dataset, images, seed=seed, sources=sources, fewer=fewer, threads=threads, progress=progress)
    source = {"kind": "gan", "sha256": sha256_file(gan / MODEL_FILE)}
    save_image_set(
        output,
        made.images,
        made.labels,
        found.class_names,
        framing=found.framing,
        source="made by a GAN from real training images (gascnn gan sample)",
        provenance={
            "gan": {**source, "training": found.provenance, "metrics": found.metrics},
            "sampling": made.report,
            "sources": {"name": dataset.name, "split": "train", "provenance": dataset.provenance},
        },
        arrays=made.arrays(),
    )
    result = {
        "output": str(output),
        "sha256": sha256_file(output / IMAGES_FILE),
        "gan": {"path": str(gan), **source},
        "data": dataset.name,
        **made.report,
    }
    a_class = made.report["images_a_class"]
    table(("class", "images"), [(name, a_class) for name in found.class_names])
    if a_class < images:
        note(f"{a_class} images a class instead of {images}: there are no more sources")
    say(
        f"{percent(result['read_as_asked'])} are read as the class asked for by the GAN's own discriminator; pixels "
        f"differ from their sources by {percent(result['difference_from_source'])} of the range on average"
    )
    if result["difference_from_source"] < NEARLY_COPIES:
        note("these are nearly copies of real images; do not give them to whom the real ones may not go")
    say(f"{len(made.labels)} images in {output}, SHA-256 {result['sha256']}")
    return result


NEARLY_COPIES = 0.02
"""Mean difference from the sources, as a share of the range of pixels, below which a remark is made."""


def _options(base: GanOptions, settings: Sequence[str], *, seed: int | None, threads: int | None) -> GanOptions:
    """The preset's options with single settings on top of them.

    Raises:
        UsageError: an unknown option, or a value that cannot be used.
    """
    from gascnn.toolkit.training.gan.options import GanOptions

    values = base.to_dict()
    for setting in settings:
        name, found, text = setting.partition("=")
        if not found:
            raise UsageError(f"--set {setting!r} has no value; give NAME=VALUE, such as iterations=2000")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    values |= {name: value for name, value in (("seed", seed), ("threads", threads)) if value is not None}
    return GanOptions.from_dict(values)


def _resnet(path: Path) -> Model:
    from gascnn.toolkit.cli.models import open_model

    opened = open_model(path)
    if opened.kind != "ann":
        raise UsageError(f"{path} is no ANN but of kind {opened.kind}; give the bundle that 'gascnn train' wrote")
    return opened


def _check_output(output: Path) -> None:
    """Before an hour of training, not after it."""
    from gascnn.toolkit.bundle import is_bundle

    if output.exists() and not (is_bundle(output) or (output.is_dir() and not any(output.iterdir()))):
        raise UsageError(f"{output} is there and is no bundle; give the name of a new folder")
