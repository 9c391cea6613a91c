"""``gascnn spike-learn``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.netx_output import measured_accuracy, say_expected, without_paths, write_checked
from gascnn.toolkit.cli.output import percent, save_json, say
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.lowering.network import NetxNetwork
    from gascnn.toolkit.spike_learning.learn import Learned
    from gascnn.toolkit.spike_learning.options import LearningOptions

_OPTIONS = (
    click.option("--epochs", type=int, help="Passes over the images."),
    click.option("--batch-size", type=int, metavar="N", help="Images at a time."),
    click.option("--learning-rate", type=float, help="Of Adam at the start, on weights in thresholds."),
    click.option("--decay-factor", type=float, help="The rate is divided by this at every 20 % of the epochs."),
    click.option("--distillation", type=float, help="Weight of the distillation loss (delta of eq. 10), 0 to 1."),
    click.option("--temperature", type=float, help="Of the distillation (beta of eq. 10)."),
    click.option("--dropout", type=float, help="Share of the read-out's inputs silenced, held over an image's steps."),
    click.option("--feature-weight", type=float, help="Of the distance of all layers from the teacher's activations."),
    click.option(
        "--rate-penalty",
        type=float,
        help="Added to the loss, times the spikes a synaptic source and image beyond --rate-goal.",
    ),
    click.option("--rate-goal", type=float, help="Spikes a synaptic source and image that cost nothing."),
    click.option("--mix-probability", type=float, help="Share of the batches whose images are blended in pairs."),
    click.option(
        "--cut-out-probability", type=float, help="Share of the images seen through a window on plain ground."
    ),
    click.option("--held-out", type=float, help="Share of the images on which agreement with the teacher is measured."),
    click.option("--threads", type=int, help="Of torch; 0 takes its default."),
)


def learning_options(function: Any) -> Any:
    """The options of spike learning."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("spike-learn")
@click.argument("model", metavar="MODEL.net", type=options.PATH)
@click.option("--teacher", type=options.PATH, required=True, metavar="BUNDLE", help="The ANN it was converted from.")
@options.data(
    required=True,
    help_text="Images to learn from: synthetic ones from 'gascnn synthesise' where the real are gone, or a data set, "
    "whose training images are used.",
)
@click.option("--images", type=int, metavar="N", help="Use only so many of them.")
@click.option("--preset", type=click.Choice(["smoke", "small", "paper"]), default="small", show_default=True,
              help="paper: GASCNN's own values (30 epochs, T = 100); small and smoke: for two cores.")  # fmt: skip
@options.steps("T, the input steps to learn and deploy with.  [default: MODEL's; paper: 100]")
@learning_options
@options.seed(None)
@click.option("--memory", metavar="SIZE", help="What the time steps may hold for the backward pass, such as 4G.")
@click.option("--measure", metavar="NAME|PATH", help="Data set whose test images give the expected accuracy.")
@click.option("--limit", type=int, metavar="N", help="Of its test images only the first N.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run: same options, same result as without.")
@click.option("--run-folder", type=options.PATH, help="For checkpoints. Default: the output's path with .run behind.")
@options.output("NetX file to write.")
@options.json_file
def command(**arguments: Any) -> None:
    """Retrain MODEL.net with spikes, as it runs on the chip.

    Spatio-temporal backpropagation through the integer network itself (GASCNN, IV-C, eq. 10): 8-bit weights, integer
    thresholds, relays, reset and delays are those of the file, so what was learnt is what is deployed, spike for
    spike. Weights retrained so are called spike-encoded in the paper; that is obfuscation, not encryption.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    model: Path,
    teacher: Path,
    data: str,
    data_dir: Path | None,
    images: int | None,
    preset: str,
    steps: int | None,
    memory: str | None,
    measure: str | None,
    limit: int | None,
    resume: bool,
    run_folder: Path | None,
    output: Path,
    json_path: Path | None,
    **overrides: Any,
) -> dict[str, Any]:
    """Learn, write the file, show; returns what ``--json`` writes."""
    from gascnn.toolkit.cli.models import load_data, open_model
    from gascnn.toolkit.spike_learning.learn import learn
    from gascnn.toolkit.spike_learning.options import get_learning_preset
    from gascnn.toolkit.training.bundles import build_model
    from gascnn.toolkit.training.progress import rich_progress

    options.positive("--images", images)
    options.positive("--limit", limit)
    opened, ann = open_model(model), open_model(teacher)
    network = _network(opened)
    if ann.bundle is None or ann.kind != "ann":
        raise UsageError(f"{teacher} is no ANN; --teacher takes the bundle that 'gascnn train' wrote")
    recipe = get_learning_preset(preset)
    dataset = load_data(data, opened, data_dir)
    part = dataset.train if images is None else dataset.train.take(images)
    learned = learn(
        network,
        build_model(ann.bundle),
        part.images,
        _chosen(recipe.options, overrides, memory),
        run_folder if run_folder is not None else output.with_name(output.name + ".run"),
        labels=part.labels,
        steps=steps if steps is not None else recipe.steps,
        resume=resume,
        progress=rich_progress(),
    )
    deployed = learned.network
    assert deployed.deployment is not None
    provenance = {
        "spike_learned": learned.provenance,
        "images": {"name": dataset.name, "provenance": without_paths(dict(dataset.provenance))},
        "from": {"network_digest": network.digest(), "provenance": deployed.deployment.provenance},
    }
    expected: dict[str, Any] = {}
    record = replace(deployed.deployment, steps=learned.provenance["steps"], expected={}, provenance=provenance)
    deployed = deployed.with_deployment(record.checked())
    if measure is not None:
        expected = measured_accuracy(deployed, load_data(measure, opened, data_dir), limit)
        deployed = deployed.with_deployment(replace(record, expected=expected))
    result = {
        **write_checked(deployed, output),
        "expected": expected,
        "history": learned.history,
        "provenance": learned.provenance,
        "source": {"model": opened.summary(), "teacher": ann.summary()},
    }
    _show(learned, result)
    return result


def _network(opened: Model) -> NetxNetwork:
    if opened.netx is None:
        raise UsageError(f"{opened.path} is no NetX file; make one with 'gascnn export --target lava' first")
    return opened.netx.network


def _chosen(recipe: LearningOptions, overrides: dict[str, Any], memory: str | None) -> LearningOptions:
    given = {name: value for name, value in overrides.items() if value is not None}
    size = options.memory_size(memory)
    return replace(recipe, **given) if size is None else replace(recipe, **given, memory_bytes=size)


def _show(learned: Learned, result: dict[str, Any]) -> None:
    last = learned.history[-1] if learned.history else {}
    if last.get("agreement") is not None:
        say(f"agrees with its teacher on {percent(last['agreement'])} of the images held out")
    if last:
        say(f"{last['spikes_a_source']:.3f} spikes a synaptic source and image while learning")
    say(f"{result['output']}: {result['neurons']} neurons, T = {result['steps']}, {result['grade']} grade")
    say(f"SHA-256 {result['sha256']}")
    say_expected(result["expected"])
