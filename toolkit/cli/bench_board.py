"""``gascnn bench pack | merge``: a folder that measures on a board, and several boards' results in one report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, save_json, say

IMAGES = 300


@click.command("pack")
@click.argument("model", type=options.PATH, metavar="MODEL.net")
@click.option("--baseline", type=options.PATH, required=True, metavar="BUNDLE", help="The ANN that it is from.")
@options.data(required=True, help_text="Data set whose first test images go with it.")
@click.option("--images", type=int, default=IMAGES, show_default=True, metavar="N", help="Test images in the folder.")
@options.steps("T, input steps an image. Default: what the file was fitted for.")
@click.option("--no-int8", is_flag=True, help="Leave the 8-bit ANN out.")
@click.option("--note", default="", help="A line that goes with it.")
@click.option("--replace", is_flag=True, help="Replace an older folder of this kind.")
@options.seed(None)
@options.output("Folder to write.")
@options.json_file
def pack(**arguments: Any) -> None:
    """Make a folder that measures MODEL.net and its ANN on a board, without torch and without a network.

    On the board: pip install 'gascnn[edge]', then python run.py -o result.json in that folder. The images go with it:
    of patients' images, only what may leave.
    """
    save_json(arguments["json_path"], execute_pack(**arguments))


def execute_pack(
    *,
    model: Path,
    baseline: Path,
    data: str,
    data_dir: Path | None,
    images: int,
    steps: int | None,
    no_int8: bool,
    note: str,
    replace: bool,
    seed: int | None,
    output: Path,
    json_path: Path | None,
) -> dict[str, Any]:
    """Make the folder; returns what ``--json`` writes."""
    from gascnn.benchmarks.board.pack import pack as make
    from gascnn.toolkit.cli.material import CALIBRATION_IMAGES, training_sample
    from gascnn.toolkit.cli.models import load_data, open_model

    options.positive("--images", images)
    options.positive("--steps", steps)
    opened = open_model(model)
    dataset = load_data(data, opened, data_dir)
    test = dataset.test.take(images)
    with bar("simulating", len(test)) as progress:
        made = make(
            model,
            baseline,
            test.images,
            test.labels,
            dataset.class_names,
            output,
            int8=not no_int8,
            calibration=None if no_int8 else training_sample(dataset, 0, CALIBRATION_IMAGES),
            calibrated_on=f"{dataset.name}, train split",
            steps=steps,
            seed=seed,
            data_name=dataset.name,
            provenance=" ".join(str(dataset.provenance.get("split", "")).split()),
            note=note,
            replace=replace,
            progress=progress,
        )
    say(f"{output}: {len(test)} test images of {dataset.name}, {made.bytes / 1e6:.1f} MB")
    say(f"manifest {made.manifest_sha256}")
    say("on the board, in that folder: pip install 'gascnn[edge]'; python run.py -o result.json")
    return made.to_dict()


@click.command("merge")
@click.argument("results", type=options.PATH, nargs=-1, required=True, metavar="RESULT.json...")
@click.option("--log", "logs", nargs=2, multiple=True, type=options.PATH, metavar="RESULT.json LOG.csv",
              help="A USB meter's log for a result that was measured without it.")  # fmt: skip
@click.option("--different-packs", is_flag=True, help="Also results of different folders.")
@options.output("Folder for boards.json, boards.md and boards.html.", required=False)
@options.json_file
def merge(**arguments: Any) -> None:
    """Put the results of several boards into one report."""
    save_json(arguments["json_path"], execute_merge(**arguments))


def execute_merge(
    *,
    results: tuple[Path, ...],
    logs: tuple[tuple[Path, Path], ...],
    different_packs: bool,
    output: Path | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Merge and show; returns what ``--json`` writes."""
    from gascnn.benchmarks.board.merge import markdown
    from gascnn.benchmarks.board.merge import merge as put_together

    merged = put_together(results, different_packs=different_packs, logs=dict(logs))
    page = markdown(merged)
    say(page)
    if output is not None:
        from gascnn.benchmarks.report.boards_page import write_boards_page
        from gascnn.toolkit.files import write_text

        output.mkdir(parents=True, exist_ok=True)
        save_json(output / "boards.json", merged)
        write_text(output / "boards.md", page)
        write_boards_page(output / "boards.html", merged, options.typed("gascnn bench merge"))
        say(f"report: {output / 'boards.html'}")
    return merged
