"""``gascnn bench simulator``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, save_json, say, table
from gascnn.toolkit.errors import UsageError

NETS = ("convs", "resnet18", "dense")


@click.command("simulator")
@click.option(
    "--net",
    "nets",
    type=click.Choice([*NETS, "all", "none"]),
    multiple=True,
    help="Network to run, or several; none: the cost curves alone.  [default: convs]",
)
@click.option(
    "--rate", "rates", type=float, multiple=True, metavar="SHARE",
    help="Share of neurons that fire in a step, or several.  [default: 0.08, for convs 0.02 too]",
)  # fmt: skip
@options.steps("T, time steps of each network.  [default: 32]")
@click.option("--images", type=int, metavar="N", help="Images of input.  [default: 8, resnet18 4, dense 64]")
@click.option("--width", type=int, metavar="C", help="Channels of convs, of resnet18's first stage.  [default: 64]")
@click.option("--size", type=int, metavar="PIXELS", help="Pixels a side.  [default: 32 for convs, 64 for resnet18]")
@click.option("--contenders", metavar="NAME,NAME,...", help="Only these; ours is always among them.")
@click.option("--no-lava", is_flag=True, help="Leave out Lava, which takes minutes.")
@click.option("--rounds", type=int, metavar="N", default=5, show_default=True, help="Rounds that count.")
@click.option("--lava-rounds", type=int, metavar="N", default=1, show_default=True, help="Of them with Lava.")
@click.option("--seconds", type=float, default=0.3, show_default=True, help="How long each runs in a round, at least.")
@click.option("--threads", type=int, metavar="N", default=2, show_default=True, help="Of every contender.")
@click.option(
    "--images-at-once", default="1,4,8,64", show_default=True, metavar="N,N,...", help="What each contender may try."
)
@click.option(
    "--peers", type=options.PATH, metavar="PYTHON",
    help="The peers' interpreter. Default: $GASCNN_PEERS_PYTHON, else .venv-peers of 'make peers'.",
)  # fmt: skip
@click.option("--compile-peers", is_flag=True, help="Let the peers try torch's compiler too: minutes for each network.")
@click.option("--scaling", is_flag=True, help="Also measure cost against T, width, image size and firing rate.")
@options.seed(0)
@options.json_file
@click.option("--plot", type=options.PATH, metavar="FILE", help="Draw the result; FILE ends in .png or .svg.")
def command(**arguments: Any) -> None:
    """Run the same networks through the simulator, Lava, SpikingJelly, snnTorch, sinabs and, as an ANN, onnxruntime.

    All get the same weights, spikes and number of threads, and run in turns; medians and ratios are shown, and whether
    the spikes are equal. The peers live in an environment of their own: 'make peers'.
    """
    result = execute(**arguments)
    save_json(arguments["json_path"], result)


def execute(
    *,
    nets: tuple[str, ...],
    rates: tuple[float, ...],
    steps: int | None,
    images: int | None,
    width: int | None,
    size: int | None,
    contenders: str | None,
    no_lava: bool,
    rounds: int,
    lava_rounds: int,
    seconds: float,
    threads: int,
    images_at_once: str,
    peers: Path | None,
    compile_peers: bool,
    scaling: bool,
    seed: int,
    json_path: Path | None,
    plot: Path | None,
) -> dict[str, Any]:
    """Measure and show; returns what ``--json`` writes."""
    from gascnn.benchmarks import contenders as who
    from gascnn.benchmarks import machine, plots
    from gascnn.benchmarks.simulator_speed import FORMAT, Race, load_note, race

    for name, value in (("--steps", steps), ("--images", images), ("--width", width), ("--size", size)):
        options.positive(name, value)
    if plot is not None:
        plots.check_picture(plot)
    wanted = _nets(nets, scaling)
    settings = Race(
        rounds=rounds,
        threads=threads,
        images_at_once=options.numbers("--images-at-once", images_at_once, example="1,4,8"),
        lava_rounds=lava_rounds,
        at_least_s=seconds,
        python=who.peers_python(peers),
        compile_peers=compile_peers,
    )
    settings.check()
    asked = [one for one in _contenders(contenders) if not (no_lava and one.kind == "lava")]
    there, out = who.able(asked, settings.python) if wanted else ([], [])
    for left in out:
        note(f"without {left.name}: {left.why}")
    facts = machine.describe()
    if (busy := load_note()) is not None:
        note(busy)
    networks = []
    for name in wanted:
        for rate in rates or ((0.08, 0.02) if name == "convs" else (0.08,)):
            bench = _make(name, rate, steps=steps, images=images, width=width, size=size, seed=seed)
            networks.append(race(bench, there, settings, _progress))
            _show(networks[-1])
    result = {
        "format": FORMAT,
        "machine": facts,
        "threads": threads,
        "rounds": rounds,
        "seed": seed,
        "left_out": [vars(left) for left in out],
        "networks": networks,
        "scaling": _scaling(threads, rounds, seed) if scaling else [],
    }
    say(f"{facts['processor']}, {facts['cores_used']} of {facts['cores']} cores, load {facts['load']} at the start")
    if plot is not None:
        plots.draw(result, plot)
        say(f"drawn in {plot}")
    return result


def _nets(nets: tuple[str, ...], scaling: bool) -> list[str]:
    if "none" in nets:
        if len(nets) > 1 or not scaling:
            raise UsageError("--net none leaves nothing to do but --scaling; give it alone, with --scaling")
        return []
    return list(NETS) if "all" in nets else list(dict.fromkeys(nets)) or ["convs"]


def _contenders(text: str | None) -> list[Any]:
    from gascnn.benchmarks.contenders import chosen

    return chosen([name.strip() for name in text.split(",")] if text else [])


def _make(name: str, rate: float, **given: int | None) -> Any:
    """A network by name; only what was given is passed on."""
    from gascnn.benchmarks import networks

    arguments: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if name == "dense":
        for key in ("width", "size"):
            if arguments.pop(key, None) is not None:
                note(f"the dense network has no --{key}")
    _progress(f"{name}: making the network")
    make: Any = getattr(networks, name)
    return make(rate, **arguments)


def _scaling(threads: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    from gascnn.benchmarks import scaling

    found = []
    for curve in scaling.curves(threads):
        measured = scaling.measure(curve, rounds=rounds, say=_progress, seed=seed)
        labels = [line["label"] for line in measured["points"][0]["lines"]]
        rows = [
            (
                float(point["value"]),
                f"{100 * point['firing_rate']:.2f} %",
                *(_ms(line["per_image_s"]) for line in point["lines"]),
            )
            for point in measured["points"]
        ]
        table((measured["title"], "measured firing", *(f"{label}, ms" for label in labels)), rows)
        say()
        found.append(measured)
    return found


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _ms(seconds: float | None) -> float | str:
    return "-" if seconds is None else round(1000 * seconds, 3)


def _show(network: dict[str, Any]) -> None:
    say()
    shape = "x".join(map(str, network["input_shape"]))
    say(f"{network['name']}: input {shape}, {network['neurons']} neurons, T = {network['steps']}")
    firing = ", ".join(f"{100 * layer['firing_rate']:.2f}" for layer in network["layers"])
    say(f"firing a layer (promised {100 * network['promised_firing_rate']:g} %): {firing} %")
    say()
    ours = network["contenders"][0]["per_image_s"]
    equal = {True: "yes", False: "NO", None: "-"}
    rows = [
        (
            c["title"],
            c["threads"],
            _ms(c["per_image_s"]),
            c["images_at_once"],
            _ms(c["per_image_s_one_image"]),
            float(c["per_image_s"] / ours),
            round(c["peak_bytes"] / 2**20),
            equal[c["equal_spikes"]],
            c["option"],
        )
        for c in network["contenders"]
    ]
    columns = (
        "contender",
        "threads",
        "ms an image",
        "at once",
        "ms, one at once",
        "x ours",
        "peak MiB",
        "equal spikes",
    )
    table((*columns, "its best"), rows)
    for left in network["left_out"]:
        note(f"without {left['name']}: {left['why']}")
    say()
    words = {True: "yes", False: "no", None: "-"}
    goals = [
        (
            g["what"],
            "-" if g["found"] is None else f"{g['found']:.3g}",
            f"{g['kind']} {g['bound']:g}",
            g["against"] or "nobody",
            words[g["reached"]],
        )
        for g in network["goals"]
    ]
    table(("goal", "found", "wanted", "against", "reached"), goals)
    say()
