"""``gascnn export``, also called ``gascnn-export``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import export_onnx, options
from gascnn.toolkit.cli.convert import conversion_options, converted, data_free_option, own_model_options, show
from gascnn.toolkit.cli.netx_output import measured_accuracy, say_expected, without_paths, write_checked
from gascnn.toolkit.cli.output import bar, note, percent, save_json, say, table
from gascnn.toolkit.errors import LimitError, UsageError

if TYPE_CHECKING:
    import nir

    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.lowering import Lowered
    from gascnn.toolkit.lowering.network import NetxNetwork

WRAP_CHECK_IMAGES, WRAP_CHECK_WORK = 32, 40_000_000_000
"""Training images that are run to see that nothing wraps, and the products that may take; at least one image."""

MEASURED_IMAGES, FEWEST_MEASURED_IMAGES, MEASURED_WORK = 200, 50, 400_000_000_000
"""Test images for the expected accuracy without --limit; not measured where fewer than the fewest fit the work."""


@click.command("export")
@click.argument("source", metavar="MODEL", type=options.PATH, required=False)
@click.option(
    "--target",
    type=click.Choice(["lava", "nir", "onnx"]),
    required=True,
    help="lava: NetX HDF5; nir: NIR HDF5; onnx: an ANN, or a split network's client, for edge boards (docs/onnx.md).",
)
@export_onnx.onnx_options
@own_model_options
@options.data(
    help_text="Data set: its training images set scales and check that nothing wraps, its test images give "
    "the expected accuracy. Images made with 'gascnn synthesise' do the first two. An ANN without it is converted "
    "data-free."
)
@data_free_option
@click.option("--image-size", type=int, metavar="N", help="Pixels a side, with --model.")
@conversion_options
@options.seed()
@click.option(
    "--grade",
    type=click.Choice(["hardware", "simulator"]),
    default="hardware",
    show_default=True,
    help="hardware: the chip's documented ranges; simulator: what Lava's CPU models hold.",
)
@click.option(
    "--bias",
    type=click.Choice(["always-on", "neuron", "input"]),
    help="How biases act: through channels that spike at every step, made by the first layer (always-on) or "
    "added to the input by the host (input), or as the neurons' own, from the very first step on (neuron). "
    "Default: input; neuron for NIR graphs of leaky currents reset to zero.",
)
@click.option("--input-bits", type=int, help="Bits of a pixel with constant coding, 1 to 8; default: what loses least.")
@click.option("--dt", type=float, help="Length of a step, for NIR graphs of leaky neurons that do not say.")
@click.option(
    "--limit",
    type=int,
    metavar="N",
    help="Test images for the expected accuracy.  [default: 200, fewer of a large network, none of a very large one]",
)
@options.output("File to write.")
@options.json_file
def command(**arguments: Any) -> None:
    """Export MODEL for deployment.

    MODEL is a spiking bundle, a NIR file, or an ANN bundle (converted on the way). The file is read
    back and compared before the command ends. With --data the integer network is also run: it must not wrap, and its
    accuracy on the first --limit test images is written into the file (of a network so large that this takes minutes,
    only if --limit is given).
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    source: Path | None,
    target: str,
    part: str | None,
    int8: bool,
    output: Path,
    json_path: Path | None,
    grade: str,
    bias: str | None,
    input_bits: int | None,
    dt: float | None,
    limit: int | None,
    **arguments: Any,
) -> dict[str, Any]:
    """Export and show; returns what ``--json`` writes."""
    if target == "onnx":
        return export_onnx.execute(source=source, part=part, int8=int8, limit=limit, output=output, **arguments)
    export_onnx.refuse_onnx_options(target, part, int8)
    options.positive("--steps", arguments["steps"])
    options.positive("--limit", limit)
    started = time.perf_counter()
    graph, opened, provenance = _graph(source, arguments)
    if target == "nir":
        return _export_nir(graph, output, provenance, started)
    from gascnn.toolkit.lowering import LoweringOptions, lower_with_report

    lowered = lower_with_report(
        graph,
        LoweringOptions(
            reset=arguments["reset"],
            grade=grade,  # type: ignore[arg-type]
            bias=bias,  # type: ignore[arg-type]
            input_bits=input_bits,
            steps=arguments["steps"],
            dt=dt,
        ),
    )
    expected: dict[str, Any] = {}
    if arguments["data"] is not None:
        expected = _measure(lowered, opened, arguments, limit)
    elif lowered.wrap_unproven():
        note("nothing proves that no current wraps: there is no calibration in MODEL; give --data to check it")
    return _write(lowered, expected, output, provenance, started)


def _graph(source: Path | None, arguments: dict[str, Any]) -> tuple[nir.NIRGraph, Model | None, dict[str, Any]]:
    """The spiking network in floating point, from whatever was given."""
    from gascnn.toolkit.cli.models import open_model

    if (source is None) == (arguments["own_model"] is None):
        raise UsageError("give either MODEL or --model")
    opened = open_model(source) if source is not None else None
    if opened is not None and opened.kind == "netx":
        raise UsageError(f"{source} is a NetX file already; export takes a bundle or a NIR file")
    if opened is not None and opened.graph is not None:
        _check_neuron(opened.graph, arguments["neuron"])
        return opened.graph, opened, {"model": opened.summary()}
    conversion, provenance = converted(bundle=source, **arguments)
    show(conversion)
    return conversion.graph, opened, provenance


def _check_neuron(graph: nir.NIRGraph, wanted: str | None) -> None:
    """A spiking network has its neurons already."""
    from gascnn.toolkit.lowering.annotations import graph_notes

    found = graph_notes(graph).neuron
    if wanted not in (None, found):
        raise UsageError(f"MODEL was converted for neuron {found}; convert its ANN with --neuron {wanted}")


def _measure(lowered: Lowered, opened: Model | None, arguments: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """Run the integers: refuse if they wrap, measure their accuracy on test images, if those are real."""
    from gascnn.toolkit.cli.material import is_synthetic, refuse_real
    from gascnn.toolkit.cli.models import load_data

    network = lowered.network
    dataset = load_data(arguments["data"], opened, arguments["data_dir"], arguments["image_size"])
    if arguments["data_free"]:
        refuse_real(dataset)
    assert network.deployment is not None
    cost = network.multiply_accumulates * network.deployment.steps
    _refuse_wraps(network, dataset.train.take(max(1, min(WRAP_CHECK_IMAGES, WRAP_CHECK_WORK // cost))).images)
    if is_synthetic(dataset):
        note(f"accuracy was not measured: the images of {dataset.name} are synthetic, which says nothing of real ones")
        return {}
    wanted = limit if limit is not None else min(MEASURED_IMAGES, MEASURED_WORK // cost)
    if limit is None and wanted < FEWEST_MEASURED_IMAGES:
        note("accuracy was not measured: this network is large, so it would take minutes; give --limit N, or use run")
        return {}
    return measured_accuracy(network, dataset, wanted)


def _refuse_wraps(network: NetxNetwork, images: Any) -> None:
    from gascnn.hardware.simulator import simulate
    from gascnn.toolkit.coding import encode_for

    with bar("checking that nothing wraps", len(images)) as progress:
        wraps = simulate(network, encode_for(network, images), progress=progress).wraps or []
    for index, count in enumerate(wraps):
        if count:
            what = "a message or sum left its 16 or 24 bits" if network.sigma_delta else "the 24-bit current u wrapped"
            raise LimitError(
                f"layer_{index:02d}: {what} {count} times on {len(images)} training images; "
                f"{'convert with more calibration images' if network.sigma_delta else 'export with fewer steps'}, "
                "or train with more weight decay"
            )


def _write(
    lowered: Lowered, expected: dict[str, Any], output: Path, provenance: dict[str, Any], started: float
) -> dict[str, Any]:
    network = lowered.network
    assert network.deployment is not None
    network = network.with_deployment(
        replace(network.deployment, expected=expected, provenance={"exported_from": without_paths(provenance)})
    )
    result = {
        "target": "lava",
        **write_checked(network, output),
        "input_bits": network.input_bits,
        "constant_channels": network.constant_channels,
        "expected": expected,
        "source": provenance,
        **lowered.to_dict(),
        "time_s": round(time.perf_counter() - started, 3),
    }
    _show(lowered, result)
    return result


def _export_nir(graph: nir.NIRGraph, output: Path, provenance: dict[str, Any], started: float) -> dict[str, Any]:
    from gascnn.exporters.nir import write_nir
    from gascnn.toolkit.files import sha256_file

    write_nir(graph, output)
    result = {
        "output": str(output),
        "target": "nir",
        "sha256": sha256_file(output),
        "bytes": output.stat().st_size,
        "nodes": len(graph.nodes),
        "source": provenance,
        "time_s": round(time.perf_counter() - started, 3),
    }
    say(f"{output}: {result['nodes']} nodes, {result['bytes']} bytes")
    say(f"SHA-256 {result['sha256']}")
    return result


def _show(lowered: Lowered, result: dict[str, Any]) -> None:
    rows = [
        (
            layer.name,
            ", ".join(layer.populations),
            "x".join(map(str, layer.shape)),
            layer.relay_channels,
            layer.always_on_channels,
            float(layer.weight_bits),
            "-" if layer.state_used is None else percent(layer.state_used),
        )
        for layer in lowered.layers
    ]
    used = "of its range" if lowered.network.sigma_delta else "of 24-bit state"
    table(("layer", "computes", "shape", "relays", "always on", "weight bits", used), rows)
    say()
    say(f"{result['output']}: {result['neurons']} neurons, {result['bytes']} bytes, {result['grade']} grade")
    say(f"SHA-256 {result['sha256']}")
    say_expected(result["expected"])
