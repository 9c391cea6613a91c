"""``gascnn predict``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, save_json, say
from gascnn.toolkit.errors import UsageError


@click.command("predict")
@click.argument("model", type=options.PATH)
@click.argument("folder", type=options.PATH)
@options.output("CSV to write: file, class, score of each class.")
@options.backend()
@options.steps("T, input steps an image. Default: what the model was fitted for.")
@options.limit()
@options.batch_size(64)
@options.seed(None)
@options.simulator
@options.json_file
def command(**arguments: Any) -> None:
    """Classify the images in FOLDER (PNG, JPEG, DICOM, NIfTI, also in sub-folders) with MODEL.

    Scores are logits for an ANN and firing rates of the read-out for a spiking network.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    model: Path,
    folder: Path,
    output: Path,
    backend: str,
    steps: int | None,
    limit: int | None,
    batch_size: int,
    seed: int | None,
    method: Any,
    threads: int | None,
    memory: str | None,
    scheduler: str | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Classify, write the CSV, return what ``--json`` writes."""
    from gascnn.toolkit.cli.models import open_model
    from gascnn.toolkit.cli.running import Simulation, answer
    from gascnn.toolkit.data import load_folder_images
    from gascnn.toolkit.files import atomic_path

    for name, value in (("--steps", steps), ("--limit", limit), ("--batch-size", batch_size), ("--threads", threads)):
        options.positive(name, value)
    simulation = Simulation(method, threads, options.memory_size(memory), scheduler)
    opened = open_model(model)
    simulation.check(opened, backend)
    if opened.image_shape is None or len(opened.image_shape) != 3:
        raise UsageError(f"{model} does not say what images it takes; use 'gascnn run --input' instead")
    channels, height, width = opened.image_shape
    names, images = load_folder_images(folder, (channels, height, width), opened.framing)
    names, images = names[:limit], images[:limit]
    with bar("predicting", len(images)) as progress:
        answers = answer(
            opened,
            images,
            backend=backend,
            steps=steps,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
            simulation=simulation,
        )
    classes = opened.classes or tuple(str(i) for i in range(answers.scores.shape[1]))
    with atomic_path(output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "class", *(f"score {name}" for name in classes)])
        for name, found, scores in zip(names, answers.predictions, answers.scores, strict=True):
            writer.writerow([name, classes[found], *(f"{score:.6g}" for score in scores)])
    counts = {name: int((answers.predictions == i).sum()) for i, name in enumerate(classes)}
    say(f"{len(names)} images classified into {output}: {', '.join(f'{n} {c}' for n, c in counts.items() if c)}")
    return {
        "model": opened.summary(),
        "folder": str(folder),
        "images": len(names),
        "output": str(output),
        "classes": counts,
        **answers.details,
    }
