"""``gascnn convert``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, percent, save_json, say, table
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.deployment import Coding

if TYPE_CHECKING:
    from torch import nn

    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.conversion import Conversion, ConversionOptions


def conversion_options(function: Any) -> Any:
    """The options of a conversion, shared by ``convert`` and ``export``."""
    for option in reversed(
        (
            click.option("--neuron", type=click.Choice(["cuba", "sdnn"]), help="cuba integrates and fires; sdnn sends "
                         "graded changes (sigma-delta, docs/sdnn.md), one wave an image.  [default: cuba]"),
            click.option("--reset", type=click.Choice(["zero", "subtract"]),
                         help="zero runs in stock NetX; subtract is the paper's neuron and loses least."),
            options.steps("T, the input steps the scales are fitted for.  [default: 64; sdnn: 1]"),
            click.option("--percentile", type=float, default=99.9, show_default=True,
                         help="Of real activations: one scale a channel."),
            click.option("--leak", type=float, default=1.0, show_default=True,
                         help="Share of the membrane potential kept each step (paper, eq. 1); 1 is no leak."),
            click.option("--coding", type=click.Choice(get_args(Coding)),
                         help="Of the input: evenly spaced spikes, random spikes, the 8-bit pixel at every step, or "
                         "random thresholds within each image's range (docs/coding.md).  [default: regular; sdnn: "
                         "constant]"),
            click.option("--skip-steps", type=int, default=0, show_default=True,
                         help="First read-out steps left out of the spike count."),
            click.option("--readout", type=click.Choice(["count", "membrane"]), default="count", show_default=True,
                         help="By the output neurons' spikes, or by their membrane potential at the end; they then "
                         "never spike."),
            click.option("--calibration-images", type=int, help="Training images for the percentiles.  [default: 512, "
                         "fewer of a large network]"),
            click.option("--fit-images", type=int, help="How many of them are run as spikes.  [default: 64, fewer of a "
                         "large network]"),
            click.option("--message-error", type=float, help="With sdnn: what holding back small messages may change "
                         "the logits, mean square as a share of their variance; 0 sends all.  [default: 0.005]"),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def own_model_options(function: Any) -> Any:
    """``--model`` and ``--weights``, for networks that are not ours."""
    function = click.option("--weights", type=options.PATH, metavar="FILE",
                            help="Weights of --model: safetensors, or a PyTorch state dict.")(function)  # fmt: skip
    return click.option("--model", "own_model", metavar="PACKAGE:FUNCTION",
                        help="Your own network: a function that gives an nn.Module.")(function)  # fmt: skip


def data_free_option(function: Any) -> Any:
    """``--data-free``."""
    return click.option("--data-free", is_flag=True, help="Refuse real images: scales come from the statistics saved "
                        "with the bundle, what is run are synthetic images, those of --data or some made on the way. "
                        "The default without --data.")(function)  # fmt: skip


@click.command("convert")
@click.argument("bundle", type=options.PATH, required=False)
@own_model_options
@options.data(
    help_text="Data set whose training images set the scales, or images made with 'gascnn synthesise'. "
    "Without: data-free."
)
@data_free_option
@click.option("--image-size", type=int, metavar="N", help="Pixels a side, with --model.")
@conversion_options
@options.seed()
@options.output("Bundle to write.")
@options.json_file
def command(**arguments: Any) -> None:
    """Turn a trained classifier into a spiking network, in floating point.

    BUNDLE comes from 'gascnn train'; or give --model and --weights. Any feed-forward network of convolutions, linear
    layers, batch norms, ReLUs, additions, average poolings and flattenings is converted; what is not known is refused
    with its name and a remedy.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(*, output: Path, json_path: Path | None, **arguments: Any) -> dict[str, Any]:
    """Convert, write the bundle, show; returns what ``--json`` writes."""
    from gascnn.toolkit.bundle import MODEL_FILE, save_bundle
    from gascnn.toolkit.files import sha256_file
    from gascnn.toolkit.graph_bundle import graph_to_bundle

    conversion, source = converted(**arguments)
    save_bundle(graph_to_bundle(conversion.graph), output)
    result = {
        "output": str(output),
        "sha256": sha256_file(output / MODEL_FILE),
        "source": source,
        **conversion.to_dict(),
    }
    show(conversion)
    chosen = conversion.options
    kind = "sigma-delta neurons" if chosen.neuron == "sdnn" else f"reset {chosen.reset}"
    say(f"spiking network in {output} ({kind}, T = {chosen.steps})")
    return result


def converted(
    *,
    bundle: Path | None,
    own_model: str | None,
    weights: Path | None,
    data: str | None,
    data_dir: Path | None,
    data_free: bool = False,
    image_size: int | None,
    **arguments: Any,
) -> tuple[Conversion, dict[str, Any]]:
    """Load the ANN and the data, convert; returns the conversion and where it came from."""
    from gascnn.toolkit.cli.material import gather
    from gascnn.toolkit.cli.models import load_data, open_model
    from gascnn.toolkit.conversion import convert

    if (bundle is None) == (own_model is None):
        raise UsageError("give either a bundle or --model")
    opened: Model | None = None
    if bundle is not None:
        opened = open_model(bundle)
        if opened.kind != "ann":
            raise UsageError(f"{bundle} is already spiking; convert takes an ANN")
    dataset = None if data is None else load_data(data, opened, data_dir, image_size if opened is None else None)
    model, source = _ann(opened, own_model, weights)
    chosen = options_of(**arguments)
    material = gather(model, opened, dataset, chosen, data_free)
    source["data"] = material.origin
    with bar("converting", 1) as progress:
        conversion = convert(
            model,
            material.images,
            chosen,
            classes=material.classes,
            framing=material.framing,
            activations=material.activations,
            provenance={"ann": source, "conversion": vars(chosen)},
            progress=lambda what, done, of: progress(done / of),
        )
    return conversion, source


def options_of(
    *,
    neuron: str | None,
    reset: str | None,
    steps: int | None,
    percentile: float,
    leak: float,
    coding: str | None,
    skip_steps: int,
    readout: str,
    calibration_images: int | None,
    fit_images: int | None,
    message_error: float | None,
    seed: int,
) -> ConversionOptions:
    """The conversion's options from the command line's."""
    from gascnn.toolkit.conversion import ConversionOptions

    if neuron == "sdnn":
        for name, value, settled in (("steps", steps, 1), ("coding", coding, "constant"), ("reset", reset, None)):
            if value not in (None, settled):
                raise UsageError(f"--{name} {value} is for integrate-and-fire neurons; leave it out with --neuron sdnn")
    elif message_error is not None:
        raise UsageError("--message-error is for sigma-delta neurons; give --neuron sdnn, or leave it out")
    return ConversionOptions(
        neuron=neuron or "cuba",  # type: ignore[arg-type]
        reset=reset or "zero",  # type: ignore[arg-type]
        steps=64 if steps is None else steps,
        percentile=percentile,
        leak=leak,
        coding=coding or "regular",  # type: ignore[arg-type]
        seed=seed,
        skip_steps=skip_steps,
        readout=readout,  # type: ignore[arg-type]
        calibration_images=calibration_images,
        fit_images=fit_images,
        **({} if message_error is None else {"message_error": message_error}),
    ).checked()


def _ann(opened: Model | None, own_model: str | None, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    if opened is not None:
        from gascnn.toolkit.training.bundles import build_model

        assert opened.bundle is not None
        return build_model(opened.bundle), {"bundle": opened.summary(), "provenance": opened.bundle.provenance}
    from gascnn.toolkit.cli.own_model import load_own_model

    assert own_model is not None
    return load_own_model(own_model, weights)


def show(conversion: Conversion) -> None:
    """The report: what became of the nodes, how often each population fires."""
    outcomes = Counter(entry.outcome for entry in conversion.report)
    say(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    for entry in conversion.report:
        if entry.outcome in ("added", "dropped"):
            say(f"  {entry.outcome}: {entry.node} ({entry.origin}): {entry.detail}")
    say()
    table(("population", "spikes a neuron and step"), [(n, float(r)) for n, r in conversion.rates.items()])
    say()
    if conversion.messages is not None:
        cost = conversion.messages
        say(
            f"thresholds {', '.join(map(str, cost.thresholds))}: {cost.operations:.0f} synaptic operations an image "
            f"where all messages take {cost.all_operations:.0f}; the logits change by {percent(cost.error)} of their "
            "variance"
        )
