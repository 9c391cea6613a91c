"""``gascnn bench pgsl recognition | reconstruction | strength``: Tables I and II and the curve of strengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, save_json, say
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.benchmarks.pgsl.recognition import Reconstructions


def _measurement(function: Any) -> Any:
    """What the three commands share."""
    for option in (
        click.option("--markdown", "page", type=options.PATH, metavar="FILE", help="Write the table as a page."),
        options.json_file,
        click.option(
            "--partial", type=options.PATH, metavar="FILE",
            help="Keep what is done in this file; started again with it, the run goes on where it ended.",
        ),
        click.option("--seeds", metavar="LIST", help="Such as 0,1,2.  [default: the preset's]"),
        click.option(
            "--preset", type=click.Choice(["smoke", "small", "paper"]), default="small", show_default=True,
            help="smoke: digits, a minute; small: mnist or mias, hours of two cores; paper: its own sizes.",
        ),
        options.data(required=True, help_text="digits, mnist or mias, as the preset has it."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("recognition")
@_measurement
@click.option(
    "--reconstructed", type=int, metavar="N",
    help="Also classify the first N test images as DLG, iDLG and DCGAN reconstruct them; seconds an image and method.",
)  # fmt: skip
def recognition(**arguments: Any) -> None:
    """Table II: accuracy under attacks, of the three streams and of their fusion.

    Each seed trains a split network and the paper's network unsplit. Attacks go by predictions, never by labels.
    Intervals of 95 % over test images (mias: patients) and over seeds; fusion less each stream is paired.
    """
    from gascnn.benchmarks.pgsl.presets import preset
    from gascnn.benchmarks.pgsl.recognition import measure
    from gascnn.benchmarks.pgsl.recognition_table import markdown

    settings = _settings(preset, arguments)
    report = measure(
        settings,
        partial=arguments["partial"],
        reconstructions=_reconstructions(arguments),
        data_dir=arguments["data_dir"],
        progress=note,
    )
    more = "" if arguments["reconstructed"] is None else f" --reconstructed {arguments['reconstructed']}"
    _end(report, markdown(report, _typed("recognition", arguments) + more), arguments)


@click.command("reconstruction")
@_measurement
def reconstruction(**arguments: Any) -> None:
    """Table I: the error of images reconstructed from what travels between client and server.

    Without an attack, with the pixel attack, with Laplacian noise, and recovered by the proximal gradient.
    """
    from gascnn.benchmarks.pgsl.reconstruction import reconstruction as measure
    from gascnn.benchmarks.pgsl.reconstruction_settings import preset
    from gascnn.benchmarks.pgsl.reconstruction_table import markdown

    settings = _settings(preset, arguments)
    report = measure(settings, note, arguments["partial"], data_dir=arguments["data_dir"])
    _end(report, f"{markdown(report)}\n`{_typed('reconstruction', arguments)}`\n", arguments)


@click.command("strength")
@_measurement
@click.option(
    "--of", type=click.Choice(["accuracy", "reconstruction"]), default="accuracy", show_default=True,
    help="What is measured against the attack's strength.",
)  # fmt: skip
@click.option("--pixels", metavar="LIST", help="Strengths, such as 0,5,10,40.  [default: the preset's]")
def strength(**arguments: Any) -> None:
    """Accuracy, or the error of reconstructions, against the attack's strength.

    Each strength trains networks of its own.
    """
    pixels = None if arguments["pixels"] is None else _numbers("--pixels", arguments["pixels"])
    more = "" if pixels is None else f" --pixels {arguments['pixels']}"
    if arguments["of"] == "accuracy":
        report, page = _accuracy_curve(arguments, pixels, _typed("strength", arguments) + more)
    else:
        report, page = _reconstruction_curve(arguments, pixels, _typed("strength", arguments, of=True) + more)
    _end(report, page, arguments)


def _accuracy_curve(
    arguments: dict[str, Any], pixels: tuple[int, ...] | None, typed: str
) -> tuple[dict[str, Any], str]:
    from gascnn.benchmarks.pgsl.presets import curve_preset
    from gascnn.benchmarks.pgsl.strength import CURVE, Strength, markdown, measure

    curve = CURVE if pixels is None else tuple(Strength("pixels", count) for count in pixels)
    report = measure(
        _settings(curve_preset, arguments),
        strengths=curve,
        partial=arguments["partial"],
        data_dir=arguments["data_dir"],
        progress=note,
    )
    return report, markdown(report, typed)


def _reconstruction_curve(
    arguments: dict[str, Any], pixels: tuple[int, ...] | None, typed: str
) -> tuple[dict[str, Any], str]:
    from gascnn.benchmarks.pgsl.reconstruction import reconstruction_curve
    from gascnn.benchmarks.pgsl.reconstruction_settings import preset
    from gascnn.benchmarks.pgsl.reconstruction_table import curve_markdown

    settings = _settings(preset, arguments)
    if pixels is not None:
        settings = replace(settings, strengths=pixels)
    report = reconstruction_curve(settings, note, arguments["partial"], data_dir=arguments["data_dir"])
    return report, f"{curve_markdown(report)}\n`{typed}`\n"


def _reconstructions(arguments: dict[str, Any]) -> Reconstructions | None:
    """Reconstructed as in Table I of the same preset."""
    from gascnn.benchmarks.pgsl.reconstructed import reconstructions
    from gascnn.benchmarks.pgsl.reconstruction_settings import preset

    if arguments["reconstructed"] is None:
        return None
    return reconstructions(preset(arguments["preset"], arguments["data"]), arguments["reconstructed"])


def _settings(preset: Callable[[str, str], Any], arguments: dict[str, Any]) -> Any:
    settings = preset(arguments["preset"], arguments["data"])
    if arguments["seeds"] is None:
        return settings
    return replace(settings, seeds=_numbers("--seeds", arguments["seeds"]))


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}; give whole numbers with commas between them") from error


def _typed(command: str, arguments: dict[str, Any], of: bool = False) -> str:
    seeds = "" if arguments["seeds"] is None else f" --seeds {arguments['seeds']}"
    what = f" --of {arguments['of']}" if of else ""
    return f"gascnn bench pgsl {command} --data {arguments['data']} --preset {arguments['preset']}{what}{seeds}"


def _end(report: dict[str, Any], page: str, arguments: dict[str, Any]) -> None:
    from gascnn.toolkit.files import atomic_path

    say(page)
    if arguments["page"] is not None:
        with atomic_path(arguments["page"]) as temporary:
            temporary.write_text(page, encoding="utf-8")
    save_json(arguments["json_path"], report)
