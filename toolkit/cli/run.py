"""``gascnn run``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, note, percent, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.cli.running import Answers, Simulation


@click.command("run")
@click.argument("model", type=options.PATH)
@options.data(help_text="Data set whose test images are run; gives accuracy and macro-F1.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option(
    "--input",
    "input_path",
    type=options.PATH,
    metavar="FILE.npz",
    help="Own input: 'images' (image, C, H, W), uint8 0..255 or float 0..1, or 'spikes' "
    "(image, step, C, H, W), 0/1 (integers to 255 for graded input); 'labels' if you have them.",
)
@options.backend()
@options.steps("T, input steps an image. Default: what the model was fitted for.")
@options.limit()
@options.batch_size(64)
@options.seed(None)
@options.simulator
@click.option("--reset", type=click.Choice(["zero", "subtract"]), help="For a NIR file that does not say.")
@click.option("--input-shape", metavar="C,H,W", help="For a foreign NetX file that does not say.")
@click.option("--input-bits", type=int, help="Message bits of the input of a foreign NetX file (0: spikes).")
@click.option(
    "--save-spikes",
    type=options.PATH,
    metavar="OUT.npz",
    help="Every spike: layer_00, layer_01, ... bool (image, T + K, C, H, W), unshifted; of a sigma-delta network its "
    "messages, int32.",
)
@click.option(
    "--save-input",
    type=options.PATH,
    metavar="IN.npz",
    help="The input spikes that were fed, ready for --input and for stock Lava.",
)
@options.json_file
def command(**arguments: Any) -> None:
    """Run MODEL: a NetX file, a bundle (an ANN runs as ANN, a spiking one in floating point) or a NIR file.

    A network of K synaptic layers runs T + K steps an image and is read out by spike count in the last T; ties go to
    the higher membrane potential, then to the lower class. A sigma-delta network is read out by its last sums.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    model: Path,
    data: str | None,
    data_dir: Path | None,
    split: str,
    input_path: Path | None,
    backend: str,
    steps: int | None,
    limit: int | None,
    batch_size: int,
    seed: int | None,
    method: Any,
    threads: int | None,
    memory: str | None,
    scheduler: str | None,
    reset: str | None,
    input_shape: str | None,
    input_bits: int | None,
    save_spikes: Path | None,
    save_input: Path | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Run and show; returns what ``--json`` writes."""
    from gascnn.toolkit.cli.models import open_model
    from gascnn.toolkit.cli.running import Simulation

    if (data is None) == (input_path is None):
        raise UsageError("give either --data or --input")
    for name, value in (("--steps", steps), ("--limit", limit), ("--batch-size", batch_size), ("--threads", threads)):
        options.positive(name, value)
    simulation = Simulation(method, threads, options.memory_size(memory), scheduler)
    opened = open_model(model, input_shape=options.shape(input_shape), input_bits=input_bits)
    if opened.kind != "netx" and (save_spikes or save_input):
        raise UsageError("--save-spikes and --save-input need a NetX file; export the model first")
    simulation.check(opened, backend)
    started = time.perf_counter()
    images, spikes, labels, source = _load(opened, data, data_dir, split, input_path, limit)
    answers = _answers(opened, images, spikes, backend, steps, seed, reset, batch_size, save_spikes, simulation)
    result: dict[str, Any] = {
        "model": opened.summary(),
        **source,
        "images": len(answers.predictions),
        **answers.details,
        "predictions": answers.predictions.tolist(),
        "time_s": round(time.perf_counter() - started, 3),
    }
    if labels is not None:
        result |= _figures(answers, labels, opened, source)
    if save_spikes is not None:
        _save_spikes(save_spikes, answers)
    if save_input is not None:
        _save_input(save_input, opened, images, spikes, steps, seed)
    _show(result)
    return result


def _load(
    model: Model, data: str | None, data_dir: Path | None, split: str, input_path: Path | None, limit: int | None
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """(images, spikes, labels, where they came from); either images or spikes is None."""
    from gascnn.toolkit.cli.models import eight_bit, load_data, read_input

    if data is not None:
        dataset = load_data(data, model, data_dir)
        part = dataset.split(split).take(limit)
        return part.images, None, part.labels, {"data": dataset.name, "split": split, "classes": dataset.class_names}
    assert input_path is not None
    kind, array, labels = read_input(input_path)
    array, labels = array[:limit], None if labels is None else labels[:limit]
    source = {"input": str(input_path)}
    if kind == "spikes":
        return None, array, labels, source
    return eight_bit(array, input_path), None, labels, source


def _answers(
    model: Model,
    images: npt.NDArray[np.uint8] | None,
    spikes: npt.NDArray[np.generic] | None,
    backend: str,
    steps: int | None,
    seed: int | None,
    reset: str | None,
    batch_size: int,
    save_spikes: Path | None,
    simulation: Simulation,
) -> Answers:
    from gascnn.hardware.backends import Record
    from gascnn.toolkit.cli.running import answer, answer_netx

    record: Record = "spikes" if save_spikes is not None else "counts"
    count = len(images) if images is not None else len(spikes) if spikes is not None else 0
    with bar(f"running on {backend}", count) as progress:
        if images is not None:
            return answer(
                model,
                images,
                backend=backend,
                steps=steps,
                seed=seed,
                record=record,
                batch_size=batch_size,
                progress=progress,
                reset=reset,
                simulation=simulation,
            )
        if model.netx is None:
            raise UsageError(f"{model.path} is not a NetX file; only those take spikes; export it first")
        return answer_netx(
            model,
            spikes=spikes,
            backend=backend,
            simulation=simulation,
            record=record,
            steps=steps,
            batch_size=batch_size,
            progress=progress,
        )


def _figures(answers: Answers, labels: npt.NDArray[np.int64], model: Model, source: dict[str, Any]) -> dict[str, Any]:
    from gascnn.toolkit.training.metrics import classification_report

    names = tuple(source.get("classes") or model.classes) or tuple(str(i) for i in range(answers.scores.shape[1]))
    kind = "logits" if model.kind == "ann" else "scores"
    report = classification_report(answers.scores, labels, names, kind=kind, predictions=answers.predictions)  # type: ignore[arg-type]
    return {**report, "of_file_sha256": model.sha256}


def _save_spikes(path: Path, answers: Answers) -> None:
    import numpy as np

    from gascnn.toolkit.files import atomic_path

    assert answers.result is not None
    assert answers.result.spikes is not None
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        sent = answers.result.messages or answers.result.spikes
        np.savez_compressed(handle, **{f"layer_{i:02d}": s for i, s in enumerate(sent)})  # type: ignore[arg-type]


def _save_input(path: Path, model: Model, images: Any, spikes: Any, steps: int | None, seed: int | None) -> None:
    import numpy as np

    from gascnn.hardware.inputs import checked_spikes
    from gascnn.toolkit.coding import encode_for
    from gascnn.toolkit.files import atomic_path

    assert model.netx is not None
    fed = encode_for(model.netx.network, images, steps=steps, seed=seed) if images is not None else spikes
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, spikes=checked_spikes(model.netx.network, fed, steps))


_MEMORY = (
    ("memory limit", "memory_limit_bytes"),
    ("peak memory", "peak_memory_bytes"),
    ("peak memory of a worker", "worker_peak_memory_bytes"),
)


def _show(result: dict[str, Any]) -> None:
    if result.get("wraps") and any(result["wraps"]):
        worst = max(range(len(result["wraps"])), key=lambda i: result["wraps"][i])
        what = "messages or sums left their 16 or 24 bits" if result["neuron"] == "sdnn" else "the current u wrapped"
        note(f"{what} {sum(result['wraps'])} times, most in layer_{worst:02d}; its spikes mean little")
    rows: list[tuple[str, object]] = [("model", result["model"]["path"]), ("SHA-256", result["model"]["sha256"])]
    if "accuracy" in result:
        rows += [("accuracy", percent(result["accuracy"])), ("macro-F1", percent(result["macro_f1"]))]
    rows += [("images", result["images"])]
    rows += [(name, result[name]) for name in ("backend", "steps", "scheduler", "workers") if name in result]
    rows += [(name, f"{result[key] / 2**30:.2f} GiB") for name, key in _MEMORY if result.get(key)]
    rows += [("time", f"{result['time_s']:.2f} s")]
    table(("", ""), [(name, str(value)) for name, value in rows])
    if "firing_rates" in result:
        say()
        table(("layer", "spikes a neuron and step"), [(n, float(r)) for n, r in result["firing_rates"].items()])
