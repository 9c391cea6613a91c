"""``gascnn bench retention``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.benchmarks.sweep_settings import Settings
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.data.dataset import ImageSet


@click.command("retention")
@click.argument("models", type=options.PATH, nargs=-1, required=True, metavar="MODEL.net...")
@click.option("--ann", type=options.PATH, required=True, metavar="BUNDLE", help="The ANN they come from.")
@click.option("--against", metavar="NAME", help="Also how far below MODEL.net of this file name each of them is.")
@options.data(required=True, help_text="Data set whose test images are run.")
@options.limit()
@options.batch_size(64)
@click.option("--threads", type=int, metavar="N", help="Of the simulator. Default: all processors.")
@click.option("--memory", metavar="SIZE", help="What this process may hold while it simulates, such as 2G.")
@options.json_file
@click.option("--markdown", "page", type=options.PATH, metavar="FILE", help="Write the table as a page.")
def command(**arguments: Any) -> None:
    """Measure how much of their ANN's accuracy deployed networks keep.

    Each file is run as its record says, on the same test images as the ANN: accuracy and macro-F1 with 95 % bootstrap
    intervals, how far below the ANN on the same resamples, synaptic operations of its integers, energy by the paper's
    formula. Every row names the file by its SHA-256.
    """
    save_json(arguments["json_path"], execute(**arguments))


def execute(
    *,
    models: tuple[Path, ...],
    ann: Path,
    against: str | None,
    data: str,
    data_dir: Path | None,
    limit: int | None,
    batch_size: int,
    threads: int | None,
    memory: str | None,
    json_path: Path | None,
    page: Path | None,
) -> dict[str, Any]:
    """Measure and show; returns what ``--json`` writes."""
    from gascnn.benchmarks import machine
    from gascnn.benchmarks.retention import FORMAT, cells, columns, compare, markdown, measure
    from gascnn.toolkit.cli.models import load_data, open_model
    from gascnn.toolkit.files import write_text

    for name, value in (("--limit", limit), ("--threads", threads), ("--batch-size", batch_size)):
        options.positive(name, value)
    called = sum(path.name == against for path in models)
    if against is not None and called != 1:
        raise UsageError(f"--against {against} is the file name of {called} of the models; give that of one")
    teacher = open_model(ann)
    opened = [_netx(open_model(path)) for path in models]
    part = load_data(data, teacher, data_dir).test.take(limit)
    for model in opened:
        load_data(data, model, data_dir)  # the same images, or an error that says what differs
    settings = _settings(batch_size, threads, options.memory_size(memory))
    answers, macs = _ann(teacher, part)
    rows, given = [], []
    with bar("measuring", len(part) * len(opened)) as progress:
        for number, model in enumerate(opened):
            assert model.netx is not None
            before = number * len(part)
            row, own = measure(model.netx.network, part, answers, macs, settings, _shifted(progress, before))
            rows.append({"file": model.path.name, "sha256": model.sha256, **row})
            given.append(own)
    if against is not None:
        compare(rows, given, part.labels, against)
    figures = _ann_figures(teacher, part, answers, macs)
    result = {
        "format": FORMAT,
        "data": {"name": data, "split": "test", "images": len(part)},
        "ann": figures,
        "models": rows,
        "machine": machine.describe(),
    }
    table(columns(rows), [cells(row) for row in rows])
    if page is not None:
        write_text(page, markdown(rows, figures, data, options.typed("gascnn bench retention")))
        say(f"table in {page}")
    return result


def _shifted(progress: Callable[[float], None], before: int) -> Callable[[int], None]:
    return lambda images: progress(before + images)


def _netx(model: Model) -> Model:
    if model.netx is None:
        raise UsageError(f"{model.path} is no NetX file; make one with 'gascnn export --target lava' first")
    return model


def _settings(batch_size: int, threads: int | None, memory_bytes: int | None) -> Settings:
    from gascnn.benchmarks.sweep_settings import Settings

    return Settings(steps=(1,), batch_size=batch_size, threads=threads, memory_bytes=memory_bytes)


def _ann(teacher: Model, part: ImageSet) -> tuple[Any, int]:
    """The ANN's classes and its multiply-accumulates for an image."""
    from gascnn.benchmarks.ann_macs import ann_macs
    from gascnn.toolkit.training.bundles import build_model
    from gascnn.toolkit.training.evaluate import predict_scores

    if teacher.bundle is None or teacher.kind != "ann":
        raise UsageError(f"{teacher.path} is no ANN; --ann takes the bundle that 'gascnn train' wrote")
    model = build_model(teacher.bundle)
    return predict_scores(model, part.images).argmax(axis=1), ann_macs(model, teacher.bundle.image_shape)


def _ann_figures(teacher: Model, part: ImageSet, answers: Any, macs: int) -> dict[str, Any]:
    from gascnn.benchmarks.bootstrap import estimate

    figures = {name: value.to_dict() for name, value in estimate(part.labels, answers).items()}
    return {"sha256": teacher.sha256, "images": len(part), "multiply_accumulates": macs, **figures}
