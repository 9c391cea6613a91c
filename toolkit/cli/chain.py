"""``gascnn chain``: from images to a verified, spike-encoded network, each step as a user would type it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.chain.presets import PRESETS, get_chain_preset
from gascnn.toolkit.chain.steps import CAN_BE_SKIPPED, REPORT_FILE, STEPS, SYNTHETIC, Setup
from gascnn.toolkit.cli import COMMANDS, options
from gascnn.toolkit.cli.output import note, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.toolkit.chain.manifest import Manifest
    from gascnn.toolkit.chain.plan import Planned
    from gascnn.toolkit.chain.runner import Chain

_STEP = click.Choice(list(STEPS))


@click.command("chain", short_help=COMMANDS["chain"])
@options.data(required=True)
@click.option("--preset", type=click.Choice(list(PRESETS)), default="small", show_default=True,
              help="What the steps are told (docs/chain.md).")  # fmt: skip
@click.option(
    "--synthetic",
    type=click.Choice(SYNTHETIC),
    default="gan",
    show_default=True,
    help="What stands for the real images: a GAN's, images from the ResNet alone (no GAN then), or both together.",
)
@click.option("--until", type=_STEP, metavar="STEP", help="End with this step.")
@click.option("--from", "from_step", type=_STEP, metavar="STEP", help="Make this step again and all behind it.")
@click.option("--skip", type=_STEP, multiple=True, metavar="STEP",
              help=f"Leave a step out: {', '.join(CAN_BE_SKIPPED)}. Once for each.")  # fmt: skip
@click.option("--use", multiple=True, metavar="STEP=PATH", help="A file or folder that stands for what a step makes.")
@options.seed()
@click.option("--dry-run", is_flag=True, help="Show what would be typed, and why; make nothing.")
@options.output("Folder of the run.")
@options.json_file
def command(**arguments: Any) -> None:
    """Train a ResNet, make synthetic images, convert it to spikes, learn, verify in Lava and report, in one go.

    Steps: train, gan, sample, synthesise, join, convert, export, learn, verify, report; each is a command, shown as one
    types it in the run's folder. The same command goes on where it ended: what is up to date by the SHA-256 of all it
    read and wrote is not made again. Behind the synthetic images only the report reads the data set, and does without
    if it is gone.
    """
    save_json(arguments["json_path"], execute(**arguments))


def execute(
    *,
    data: str,
    data_dir: Path | None,
    preset: str,
    synthetic: str,
    until: str | None,
    from_step: str | None,
    skip: tuple[str, ...],
    use: tuple[str, ...],
    seed: int,
    dry_run: bool,
    output: Path,
    json_path: Path | None,
) -> dict[str, Any]:
    """Make what is to be made and show it; returns what ``--json`` writes."""
    from gascnn.toolkit.chain.digests import find_data
    from gascnn.toolkit.chain.runner import Chain

    found = find_data(data, data_dir)
    setup = Setup(found, get_chain_preset(preset, found.name), seed, synthetic, frozenset(skip), _used(use))
    chain = Chain(setup, output, until, from_step, tell=say)
    settled, planned = chain.planned()
    if not settled.report_on_real:
        note(f"{found.name} is not there: the report is on synthetic images, whose accuracy says nothing of real ones")
    if dry_run:
        return _show_plan(planned, output)
    say(f"$ cd {shlex.quote(str(output))}")
    manifest = _made(chain)
    _show(manifest, settled, output)
    return {"folder": str(output), **manifest.to_dict()}


def _made(chain: Chain) -> Manifest:
    try:
        return chain.make()
    except KeyboardInterrupt:
        note("what was made is kept; the same command goes on")
        raise


def _used(use: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in use:
        name, equals, path = text.partition("=")
        if name not in STEPS or not equals or not path:
            raise UsageError(f"--use {text!r}; give STEP=PATH with a step of {', '.join(STEPS)}")
        if name in found:
            raise UsageError(f"--use {name} is given twice; give one path")
        found[name] = Path(path).expanduser().absolute()
    return found


def _show_plan(planned: list[Planned], output: Path) -> dict[str, Any]:
    say(f"$ cd {shlex.quote(str(output))}")
    for one in planned:
        why = f"{one.action}, {one.reason}" if one.reason else one.action
        say(f"# {one.step.name}: {why}")
        if one.action == "make":
            say(f"$ {shlex.join(['gascnn', *one.step.typed()])}")
    steps = [
        {"name": one.step.name, "action": one.action, "reason": one.reason, "command": one.step.command()}
        for one in planned
    ]
    return {"folder": str(output), "steps": steps}


def _show(manifest: Manifest, setup: Setup, output: Path) -> None:
    from gascnn.toolkit.chain.manifest import MANIFEST_FILE

    rows: list[tuple[object, ...]] = []
    for name, record in manifest.steps.items():
        made = next(iter(record.outputs), "-")
        digest = record.outputs[made]["sha256"][:16] if record.outputs else "-"
        rows.append((name, record.status, float(record.seconds), made, digest))
    say()
    table(("step", "", "seconds", "output", "SHA-256"), rows)
    report = manifest.steps.get("report")
    if report is not None and report.status == "done":
        images = f"test images of {setup.data.name}" if report.fed_real_data else "SYNTHETIC images"
        say(f"report on {images}: {output / REPORT_FILE}")
    say(f"manifest: {output / MANIFEST_FILE}")
