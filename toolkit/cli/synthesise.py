"""``gascnn synthesise``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.convert import own_model_options
from gascnn.toolkit.cli.output import bar, note, percent, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from gascnn.toolkit.conversion.synthesis import Synthesis

_OPTIONS = (
    click.option("--images", type=int, metavar="N", help="How many."),
    click.option("--batch-size", type=int, metavar="N", help="Optimised together."),
    click.option("--iterations", type=int, metavar="N", help="Of Adam, at most."),
    click.option("--learning-rate", type=float, help="Of Adam at the start, on pixels in 0..1."),
    click.option("--temperature", type=float, help="At which the output meets the soft label; PrivateSNN's is 20."),
    click.option("--scale", type=float, help="Of the Dirichlet's concentration: large ones make labels alike."),
    click.option("--total-variation", type=float, help="Weight of the images' total variation."),
    click.option("--statistics", type=float, help="Weight of the match with batch norms' statistics; 0: PrivateSNN's."),
    click.option("--jitter", type=int, metavar="PIXELS", help="Move the batch by up to so much in each iteration."),
    click.option("--flip/--no-flip", default=None, help="Mirror it left to right in half of them."),
    click.option("--tolerance", type=float, help="Divergence in nats below which an image meets its label."),
    click.option("--threads", type=int, help="Of torch; 0 takes its default."),
)


def _synthesis_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("synthesise")
@click.argument("bundle", type=options.PATH, required=False)
@own_model_options
@click.option("--image-shape", metavar="C,H,W", help="Of the images that --model takes.")
@click.option("--preset", default="small", show_default=True, metavar="NAME",
              help="smoke (40 images), small (1000), paper (5000, PrivateSNN's form).")  # fmt: skip
@_synthesis_options
@options.seed(None)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run: same options, same images as without.")
@click.option("--run-folder", type=options.PATH, help="For batches done. Default: the output's path with .run behind.")
@options.output("Folder of images to write; --data of other commands takes it.")
@options.json_file
def command(**arguments: Any) -> None:
    """Make labelled images from a trained classifier alone, to convert it and to retrain it with.

    Soft labels are drawn around what the last layer's weights take for alike, and noise is optimised until the
    network answers with them. No image of a data set is read. BUNDLE comes from 'gascnn train'; or give --model,
    --weights and --image-shape.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    bundle: Path | None,
    own_model: str | None,
    weights: Path | None,
    image_shape: str | None,
    preset: str,
    resume: bool,
    run_folder: Path | None,
    output: Path,
    json_path: Path | None,
    **overrides: Any,
) -> dict[str, Any]:
    """Synthesise, write the folder, show; returns what ``--json`` writes."""
    from gascnn.toolkit.cli.netx_output import without_paths
    from gascnn.toolkit.conversion.synthesis import get_synthesis_preset, synthesise
    from gascnn.toolkit.data.image_set import FEWEST_IMAGES, IMAGES_FILE, save_image_set
    from gascnn.toolkit.files import sha256_file

    recipe = get_synthesis_preset(preset)
    chosen = replace(recipe, **{name: value for name, value in overrides.items() if value is not None})
    if chosen.images < FEWEST_IMAGES:
        raise UsageError(f"--images is {chosen.images}; a set of three splits needs at least {FEWEST_IMAGES}")
    model, shape, facts = _network(bundle, own_model, weights, image_shape)
    folder = run_folder if run_folder is not None else output.with_name(output.name + ".run")
    with bar("synthesising", chosen.images) as progress:
        made = synthesise(
            model, shape, chosen, run_folder=folder, resume=resume, pixel_max=facts["pixel_max"], progress=progress
        )
    classes = facts["classes"] or tuple(str(k) for k in range(made.soft_labels.shape[1]))
    save_image_set(
        output,
        made.images,
        made.labels,
        classes,
        framing=facts["framing"],
        source="made from a trained network alone (gascnn synthesise)",
        provenance={"network": without_paths(facts["source"]), "synthesis": made.report},
        arrays={"soft_labels": made.soft_labels, "drawn_for": made.drawn_for, "divergence": made.divergence},
    )
    result = {
        "output": str(output),
        "sha256": sha256_file(output / IMAGES_FILE),
        "preset": preset,
        "source": facts["source"],
        **made.report,
    }
    _show(made, classes, result)
    return result


def _network(
    bundle: Path | None, own_model: str | None, weights: Path | None, image_shape: str | None
) -> tuple[nn.Module, tuple[int, int, int], dict[str, Any]]:
    """The ANN, the images it takes, and what travels with those."""
    from gascnn.toolkit.cli.models import open_model
    from gascnn.toolkit.training.bundles import build_model

    if (bundle is None) == (own_model is None):
        raise UsageError("give either a bundle or --model")
    if bundle is not None:
        opened = open_model(bundle)
        if opened.kind != "ann" or opened.bundle is None:
            raise UsageError(f"{bundle} is no ANN; synthesise takes the bundle that 'gascnn train' wrote")
        found = opened.bundle
        source = {"bundle": opened.summary(), "provenance": found.provenance}
        facts = {"classes": found.classes, "framing": found.framing, "pixel_max": found.pixel_max, "source": source}
        return build_model(found), found.image_shape, facts
    from gascnn.toolkit.cli.own_model import load_own_model

    assert own_model is not None
    shape = options.shape(image_shape)
    if shape is None or len(shape) != 3:
        raise UsageError("--model needs --image-shape C,H,W, such as 1,28,28")
    model, source = load_own_model(own_model, weights)
    return model, (shape[0], shape[1], shape[2]), {
        "classes": (), "framing": "whole", "pixel_max": 255, "source": source
    }  # fmt: skip


def _show(made: Synthesis, classes: tuple[str, ...], result: dict[str, Any]) -> None:
    counts = [(name, int((made.labels == k).sum())) for k, name in enumerate(classes)]
    table(("class", "images"), counts)
    say(
        f"{percent(result['meet_their_label'])} meet their soft label within {result['options']['tolerance']:g} nats "
        f"({result['mean_divergence_nats']:.4f} on average); {percent(result['answered_as_labelled'])} are answered "
        "with their label"
    )
    if not result["batch_norms_matched"] and result["options"]["statistics"]:
        note("the network has no batch norm whose statistics could be matched; images follow their labels alone")
    if any(count == 0 for _, count in counts):
        note("a class has no image; make more images, or draw harder labels with a smaller --scale")
    say(f"{result['images']} images in {result['output']}, {result['time_an_image_s']:.3f} s each")
    say(f"SHA-256 of the images {result['sha256']}")
