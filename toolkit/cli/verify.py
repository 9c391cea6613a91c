"""``gascnn verify``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, save_json, say, table
from gascnn.toolkit.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from gascnn.hardware.backends import NetxFile
    from gascnn.hardware.lava.checked import CheckedRun


@click.command("verify")
@click.argument("model", type=options.PATH)
@options.data(help_text="Data set whose test images are run.")
@click.option("--input", "input_path", type=options.PATH, metavar="FILE.npz", help="Own 'images' or 'spikes' instead.")
@click.option(
    "--backend",
    type=click.Choice(["lava", "lava-stock", "loihi"]),
    default="lava",
    show_default=True,
    help="What the simulator is compared with.",
)
@click.option("--stock", is_flag=True, help="Run every image with Lava's own process models, not the first alone.")
@options.steps("T, input steps an image. Default: what the file was fitted for.")
@options.limit(20)
@options.seed(None)
@click.option("--input-shape", metavar="C,H,W", help="For a foreign NetX file that does not say.")
@click.option("--input-bits", type=int, help="Message bits of the input of a foreign NetX file (0: spikes).")
@options.json_file
def command(**arguments: Any) -> None:
    """Run MODEL, a NetX file, in the simulator and in the real Lava and compare every spike of every layer and step.

    Of a sigma-delta network every message, which are numbers, is compared.

    Fails (exit status 1) at any difference, naming the first by layer, step and neuron; if a layer is silent; if the
    file's integers are not those it was exported with; or if the current of a file of ours wraps.

    The first image runs in Lava exactly as it is; all of them, the first included, also with faster process models of
    ours in the place of Lava's, which fails where the two disagree (--stock: all with Lava's alone).
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)
    if not result["passed"]:
        raise CheckFailed(f"{arguments['model']} failed verification: {'; '.join(result['reasons'])}")


def execute(
    *,
    model: Path,
    data: str | None,
    data_dir: Path | None,
    input_path: Path | None,
    backend: str,
    stock: bool,
    steps: int | None,
    limit: int,
    seed: int | None,
    input_shape: str | None,
    input_bits: int | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Verify and show; returns what ``--json`` writes."""
    from gascnn.hardware.backends import run_spikes
    from gascnn.hardware.verify import compare
    from gascnn.toolkit.cli.models import open_model

    if (data is None) == (input_path is None):
        raise UsageError("give either --data or --input")
    options.positive("--steps", steps)
    options.positive("--limit", limit)
    opened = open_model(model, input_shape=options.shape(input_shape), input_bits=input_bits)
    if opened.netx is None:
        raise UsageError(f"{model} is not a NetX file; export it first ('gascnn export {model} --target lava -o FILE')")
    spikes, source = _spikes(opened, data, data_dir, input_path, steps, limit, seed)
    started = time.perf_counter()
    with bar("simulator", len(spikes)) as progress:
        expected = run_spikes(opened.netx, spikes, steps=steps, record="spikes", progress=progress)
    middle = time.perf_counter()
    with bar(backend, len(spikes)) as progress:
        found = _in_lava(opened.netx, spikes, backend, steps, stock, progress)
    problems = _problems(opened.netx, expected.wraps)
    check = compare(opened.netx.network, expected, found.result, [*problems, *found.problems])
    result = {
        "model": opened.summary(),
        "backend": backend,
        **source,
        **check.to_dict(),
        "stock_images": found.stock_images,
        "fast_images": found.fast_images,
        "why_stock": found.why_stock,
        "neuron": "sdnn" if opened.netx.network.sigma_delta else "cuba",
        "simulator_time_s": round(middle - started, 3),
        "backend_time_s": round(time.perf_counter() - middle, 3),
    }
    _show(result)
    return result


def _in_lava(
    file: NetxFile,
    spikes: Any,
    backend: str,
    steps: int | None,
    stock: bool,
    progress: Callable[[float], None],
) -> CheckedRun:
    from gascnn.hardware.backends import run_spikes
    from gascnn.hardware.lava.checked import CheckedRun, run_checked

    if backend == "loihi":
        found = run_spikes(file, spikes, backend=backend, steps=steps, record="spikes", progress=progress)
        return CheckedRun(found, len(spikes), 0)
    return run_checked(file, spikes, steps=steps, stock=backend == "lava-stock", stock_models=stock, progress=progress)


def _spikes(
    opened: Any,
    data: str | None,
    data_dir: Path | None,
    input_path: Path | None,
    steps: int | None,
    limit: int,
    seed: int | None,
) -> tuple[Any, dict[str, Any]]:
    from gascnn.hardware.backends import check_image_shape
    from gascnn.toolkit.cli.models import eight_bit, load_data, read_input
    from gascnn.toolkit.coding import encode_for

    if data is not None:
        dataset = load_data(data, opened, data_dir)
        images, source = dataset.test.take(limit).images, {"data": dataset.name, "split": "test"}
    else:
        assert input_path is not None
        kind, array, _ = read_input(input_path)
        source = {"input": str(input_path)}
        if kind == "spikes":
            return array[:limit], source
        images = eight_bit(array[:limit], input_path)
    check_image_shape(opened.netx.network, images)
    return encode_for(opened.netx.network, images, steps=steps, seed=seed), source


def _problems(file: NetxFile, wraps: list[int] | None) -> list[str]:
    problems = []
    if file.unchanged is False:
        problems.append("its integers are not those it was exported with (the digest in the file differs)")
    if file.network.deployment is not None and wraps and any(wraps):
        layer = next(i for i, n in enumerate(wraps) if n)
        problems.append(
            f"messages or sums of layer_{layer:02d} left their 16 or 24 bits {wraps[layer]} times; convert with more "
            "calibration images"
            if file.network.sigma_delta
            else f"the current u of layer_{layer:02d} wrapped {wraps[layer]} times; export with fewer steps"
        )
    return problems


def _by_which_models(result: dict[str, Any]) -> str:
    own, fast = result["stock_images"], result["fast_images"]
    why = f" ({result['why_stock']})" if result["why_stock"] else " (the first with both)" if fast else ""
    return f"{own} image{'s' if own > 1 else ''} with Lava's own process models, {fast} with faster ones{why}"


def _show(result: dict[str, Any]) -> None:
    say(f"{result['model']['path']}  SHA-256 {result['model']['sha256']}")
    say(f"{result['images']} images, T = {result['steps']}, simulator against {result['backend']}")
    say(_by_which_models(result))
    say()
    rows = [
        (
            layer["name"],
            "x".join(map(str, layer["shape"])),
            layer["spikes"],
            float(layer["firing_rate"]),
            layer["differences"],
        )
        for layer in result["layers"]
    ]
    sent = "messages" if result["neuron"] == "sdnn" else "spikes"
    table(("layer", "shape", sent, "firing rate", "differences"), rows)
    say()
    if result["passed"]:
        sent = "message" if result["neuron"] == "sdnn" else "spike"
        say(f"every {sent} of every layer at every step is equal")
