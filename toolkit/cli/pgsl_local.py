"""``gascnn pgsl train`` and ``gascnn pgsl evaluate``: a split network without a network between its sides."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, percent, save_json, say, table
from gascnn.toolkit.errors import DataError, FormatError, UsageError

if TYPE_CHECKING:
    from gascnn.hardware.edge import EdgeModel
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.pgsl.bundle import SplitNetwork
    from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions

LOCAL = ("local_epochs", "local_width", "local_batch_size", "local_learning_rate")


@click.command("train")
@options.data(required=True)
@click.option("--preset", metavar="NAME", default="small", show_default=True, help="Recipe: smoke, small, paper.")
@click.option("--options", "options_file", type=options.PATH, metavar="FILE", help="JSON of split-learning options.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One of them, such as epochs=3.")
@click.option("--local-epochs", type=int, metavar="N", help="Of the client's own classifier.")
@click.option("--local-width", type=int, metavar="N", help="Its first channels.")
@click.option("--local-batch-size", type=int, metavar="N", help="Its images a step.")
@click.option("--local-learning-rate", type=float, help="Its.")
@click.option("--image-size", type=int, metavar="N", help="Scale images to N pixels a side; even.")
@click.option("--framing", type=click.Choice(["whole", "foreground"]), default="whole", show_default=True,
              help="foreground: cut to the square around what is bright, brightness stretched.")  # fmt: skip
@click.option("--channels", type=click.Choice(["1", "3"]), help="Gray or colour. Default: as stored.")
@click.option("--limit", type=int, metavar="N", help="Train on the first N training images alone.")
@options.seed(None)
@click.option("--threads", type=int, default=0, help="Of torch; 0 takes its default.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run: same options, same result as without.")
@click.option("--run-folder", type=options.PATH, help="For checkpoints. Default: the bundle's path with .run behind.")
@options.output("Bundle to write.")
@options.json_file
def train(**arguments: Any) -> None:
    """Train client and server in one process and write both as a bundle.

    First the client's own classifier, by which its attack goes, then the split network; the two sides exchange
    messages and nothing else, so the numbers are those of the wire. A checkpoint is written after every epoch. The
    accuracies of the decision and of each stream on the validation and test images are in the bundle's model.json.
    """
    save_json(arguments["json_path"], _train(**arguments))


@click.command("evaluate")
@click.argument("bundle", type=options.PATH)
@options.data(required=True)
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True,
              help="Of the data set.")  # fmt: skip
@click.option("--client", "client_file", type=options.PATH, metavar="FILE",
              help="ONNX file of the bundle's client: also ask the server with its activations.")  # fmt: skip
@options.limit()
@click.option("--threads", type=int, default=1, show_default=True, help="Of torch and onnxruntime.")
@options.json_file
def evaluate(**arguments: Any) -> None:
    """Measure BUNDLE, of 'gascnn pgsl train': accuracy of the decision and of each stream, with 95 % intervals.

    With --client, also what changes when an exported file (float32 or int8) computes the client's part.
    """
    save_json(arguments["json_path"], _evaluate(**arguments))


def split_options(path: Path | None, settings: Sequence[str], base: Mapping[str, Any] | None = None) -> PgslOptions:
    """Options from a JSON file, with single settings on top of it.

    Args:
        path: of an object of options, or None.
        settings: each NAME=VALUE.
        base: what file and settings leave as it is.

    Raises:
        FormatError: not a JSON object.
        UsageError: an unknown option, or a value that cannot be used.
    """
    from gascnn.toolkit.pgsl.options import PgslOptions

    values: dict[str, Any] = dict(base or {})
    if path is not None:
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not readable JSON; give an object of options") from error
        if not isinstance(given, dict):
            raise FormatError(f"{path}: not a JSON object; give one of options")
        values |= given
    for setting in settings:
        name, found, text = setting.partition("=")
        if not found:
            raise UsageError(f"--set {setting!r} has no value; give NAME=VALUE, such as epochs=3")
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError):
            values[name] = text
    return PgslOptions.from_dict(values)


def open_split(path: Path) -> tuple[Model, SplitNetwork]:
    """Open a bundle of 'gascnn pgsl train'.

    Raises:
        FormatError: nothing there, a damaged bundle, or one of another kind.
    """
    from gascnn.toolkit.bundle import MODEL_FILE, load_bundle
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.files import sha256_file

    bundle = load_bundle(path)
    if bundle.kind != "pgsl":
        raise FormatError(f"{path}: a bundle of kind {bundle.kind}; give one that 'gascnn pgsl train' wrote")

    from gascnn.toolkit.pgsl.bundle import from_bundle

    digest = sha256_file(path / MODEL_FILE)
    model = Model("pgsl", path, digest, bundle.image_shape, bundle.classes, bundle.framing, bundle=bundle)
    return model, from_bundle(bundle)


def _train(
    *,
    data: str,
    data_dir: Path | None,
    preset: str,
    options_file: Path | None,
    settings: Sequence[str],
    image_size: int | None,
    framing: str,
    channels: str | None,
    limit: int | None,
    seed: int | None,
    threads: int,
    resume: bool,
    run_folder: Path | None,
    output: Path,
    json_path: Path | None,
    **local: Any,
) -> dict[str, Any]:
    """Train, write the bundle, show; returns what ``--json`` writes."""
    from gascnn.toolkit.pgsl.presets import get_split_preset

    options.positive("--limit", limit)
    options.torch_threads(threads)
    recipe = get_split_preset(preset)
    chosen = split_options(options_file, settings, recipe.options.to_dict())
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    own = _local(recipe.local, chosen.seed, local)
    _check_output(output)

    from gascnn.toolkit.bundle import MODEL_FILE
    from gascnn.toolkit.data import load_dataset
    from gascnn.toolkit.files import sha256_file
    from gascnn.toolkit.pgsl.bundle import save_network
    from gascnn.toolkit.pgsl.run import train_network
    from gascnn.toolkit.training.progress import rich_progress

    dataset = load_dataset(
        data,
        data_dir=data_dir,
        image_size=image_size,
        channels=None if channels is None else int(channels),
        framing=framing,
    )
    folder = run_folder if run_folder is not None else output.with_name(output.name + ".run")
    network = train_network(
        dataset, chosen, folder, local=own, limit=limit, threads=threads, resume=resume, progress=rich_progress()
    )
    save_network(network, output)
    summary = {
        "output": str(output),
        "sha256": sha256_file(output / MODEL_FILE),
        "preset": recipe.name,
        "metrics": network.metrics,
        "provenance": network.provenance,
    }
    shares = network.provenance["local_accuracy"]
    say(f"local classifier: {', '.join(f'{percent(share)} on {name}' for name, share in shares.items())}")
    for split, found in network.metrics.items():
        usual = found["commonest_class"]
        say(f"{split}: {found['images']} images, {percent(usual['accuracy'])} of them {usual['class']}")
        _show({"": found})
    say(f"bundle in {output} (SHA-256 of model.json {summary['sha256']})")
    return summary


def _evaluate(
    *,
    bundle: Path,
    data: str,
    data_dir: Path | None,
    split: str,
    client_file: Path | None,
    limit: int | None,
    threads: int,
    json_path: Path | None,
) -> dict[str, Any]:
    """Measure and show; returns what ``--json`` writes."""
    options.positive("--limit", limit)
    options.positive("--threads", threads)

    import torch

    from gascnn.toolkit.cli.models import load_data
    from gascnn.toolkit.pgsl.evaluate import agreement, answers_to, figures, torch_activations

    torch.set_num_threads(threads)
    started = time.perf_counter()
    opened, network = open_split(bundle)
    edge = None if client_file is None else _edge_client(client_file, opened, threads)
    dataset = load_data(data, opened, data_dir)
    part = dataset.split(split).take(limit)
    if not len(part):
        raise DataError(f"{dataset.name} has no {split} images; choose another --split")
    with bar("classifying", len(part) * (1 if edge is None else 2)) as progress:
        answer = answers_to(network.server, torch_activations(network.client), part.images, progress)
        found = figures(answer, part.labels)
        result: dict[str, Any] = {
            "bundle": opened.summary(),
            "dataset": dataset.name,
            "split": split,
            "images": len(part),
            "torch": found,
        }
        shown, changes = {"": found}, None
        if edge is not None:
            other = answers_to(network.server, edge.activations, part.images, lambda done: progress(len(part) + done))
            changes = agreement(answer, other, part.labels)
            result["client"] = {
                "path": str(client_file),
                "precision": edge.metadata.precision,
                **{name: {**figure, **changes[name]} for name, figure in figures(other, part.labels).items()},
            }
            shown = {"torch": found, edge.metadata.precision: figures(other, part.labels)}
    say(f"{dataset.name}, {split}: {len(part)} images")
    _show(shown, changes)
    result["time_s"] = round(time.perf_counter() - started, 3)
    return result


def _edge_client(path: Path, opened: Model, threads: int) -> EdgeModel:
    """The exported client of a bundle.

    Raises:
        FormatError: no such file, damaged, or another part.
        UsageError: the client of another bundle: its activations would mean nothing to this server.
    """
    from gascnn.hardware.edge import EdgeModel

    edge = EdgeModel(path, threads=threads)
    if edge.metadata.part != "pgsl-client":
        raise UsageError(f"{path} holds part {edge.metadata.part}; --client takes part pgsl-client")
    if edge.metadata.bundle_sha256 != opened.sha256:
        raise UsageError(f"{path} was exported from another bundle than {opened.path}; export this one's client")
    return edge


def _local(recipe: LocalOptions, seed: int, given: Mapping[str, Any]) -> LocalOptions:
    values = {name.removeprefix("local_"): value for name, value in given.items() if value is not None}
    return replace(recipe, seed=seed, **values)


def _check_output(output: Path) -> None:
    """Before hours of training, not after them."""
    from gascnn.toolkit.bundle import is_bundle

    if output.exists() and not (is_bundle(output) or (output.is_dir() and not any(output.iterdir()))):
        raise UsageError(f"{output} is there and is no bundle; give the name of a new folder")


def _show(columns: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any] | None = None) -> None:
    """A row for the decision and for each stream, columns for each client."""
    names = ("fusion", "recovered", "fused", "attacked")
    heads = [part for name in columns for part in (f"accuracy {name}".strip(), "95 % interval")]
    rows: list[list[object]] = []
    for name in names:
        row: list[object] = [name]
        for found in columns.values():
            low, high = found[name]["interval"]
            row += [percent(found[name]["accuracy"]), f"{percent(low)} to {percent(high)}"]
        if changes is not None:
            change = changes[name]
            row += [percent(change["equal_answers"]), change["lost"], change["gained"]]
        rows.append(row)
    more = [] if changes is None else ["equal answers", *(f"right by {name} alone" for name in columns)]
    table(["decision", *heads, *more], rows)
