"""``gascnn bench pgsl recognition | reconstruction | strength | choices``: Tables I and II, and what they rest on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, save_json, say
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.benchmarks.pgsl.presets import Settings
    from gascnn.benchmarks.pgsl.recognition import Reconstructions


_GROUP = "gascnn bench pgsl"


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
        options.data(required=True, help_text="digits, mnist, mias or mias-tissue, as the preset has it."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("recognition")
@_measurement
@click.option(
    "--attacks",
    metavar="LIST",
    help="Rows of these attacks alone, such as jsma,fgsm; none leaves them out.  [default: jsma,cw,bim,fgsm]",
)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Of the split network, such as epochs=10.")
@click.option("--augmentation", metavar="NAME", help="none, light, medical, ...  [default: the preset's]")
@click.option(
    "--balance", type=float, help="0 shows each image once an epoch, 1 each class as often.  [default: the preset's]"
)
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

    settings = _attempt(_settings(preset, arguments), arguments)
    report = measure(
        settings,
        attacks=_attacks(arguments["attacks"]),
        partial=arguments["partial"],
        reconstructions=_reconstructions(arguments),
        data_dir=arguments["data_dir"],
        progress=note,
    )
    _end(report, markdown(report, options.typed(f"{_GROUP} recognition")), arguments)


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
    _end(report, f"{markdown(report)}\n`{options.typed(f'{_GROUP} reconstruction')}`\n", arguments)


@click.command("choices")
@_measurement
@click.option("--only", metavar="NAME", multiple=True, help="One of the choices; may be repeated.  [default: all]")
def choices(**arguments: Any) -> None:
    """What the paper leaves open: on what recovery acts, the unit of mu, equation 10's maximum, the decay.

    Each choice trains a network of its own; validation images compare them, the seed's test images have no part in
    it. Recovery of every map takes ten times as long as the others.
    """
    from gascnn.benchmarks.pgsl.choices import CHOICES, markdown, measure
    from gascnn.benchmarks.pgsl.presets import choices_preset

    report = measure(
        _settings(choices_preset, arguments),
        arguments["only"] or tuple(CHOICES),
        partial=arguments["partial"],
        data_dir=arguments["data_dir"],
        progress=note,
    )
    _end(report, markdown(report, options.typed(f"{_GROUP} choices")), arguments)


@click.command("strength")
@_measurement
@click.option(
    "--of", type=click.Choice(["accuracy", "reconstruction"]), default="accuracy", show_default=True,
    help="What is measured against the attack's strength.",
)  # fmt: skip
@click.option(
    "--pixels", metavar="LIST", help="Strengths, such as 5,10,40; none is always in.  [default: the preset's]"
)
@click.option("--bounds", metavar="LIST", help="Of accuracy: also attacks bounded to these changes, such as 0.03,0.1.")
def strength(**arguments: Any) -> None:
    """Accuracy, or the error of reconstructions, against the attack's strength.

    Each strength trains networks of its own.
    """
    pixels = (
        None if arguments["pixels"] is None else options.numbers("--pixels", arguments["pixels"], example="5,10,40")
    )
    typed = options.typed(f"{_GROUP} strength")
    if arguments["of"] == "accuracy":
        report, page = _accuracy_curve(arguments, pixels, typed)
    elif arguments["bounds"] is not None:
        raise UsageError("--bounds is for --of accuracy; images are reconstructed from attacks by pixels")
    else:
        report, page = _reconstruction_curve(arguments, pixels, typed)
    _end(report, page, arguments)


def _accuracy_curve(
    arguments: dict[str, Any], pixels: tuple[int, ...] | None, typed: str
) -> tuple[dict[str, Any], str]:
    from gascnn.benchmarks.pgsl.presets import curve_preset
    from gascnn.benchmarks.pgsl.strength import curve_of, markdown, measure

    settings = _settings(curve_preset, arguments)
    bounds = () if arguments["bounds"] is None else options.numbers("--bounds", arguments["bounds"], float, "0.03,0.1")
    report = measure(
        settings,
        strengths=curve_of(_curve_pixels(arguments) if pixels is None else pixels, bounds),
        partial=arguments["partial"],
        data_dir=arguments["data_dir"],
        progress=note,
    )
    return report, markdown(report, typed)


def _curve_pixels(arguments: dict[str, Any]) -> tuple[int, ...]:
    """Those of the curve of reconstructions, so that both have the same points; it has no preset ``paper``."""
    from gascnn.benchmarks.pgsl.reconstruction_settings import preset

    name = arguments["preset"]
    return preset("small" if name == "paper" else name, arguments["data"]).strengths


def _reconstruction_curve(
    arguments: dict[str, Any], pixels: tuple[int, ...] | None, typed: str
) -> tuple[dict[str, Any], str]:
    from gascnn.benchmarks.pgsl.reconstruction import reconstruction_curve
    from gascnn.benchmarks.pgsl.reconstruction_settings import preset
    from gascnn.benchmarks.pgsl.reconstruction_table import curve_markdown

    settings = _settings(preset, arguments)
    if pixels is not None:
        settings = replace(settings, strengths=tuple(dict.fromkeys((0, *pixels))))
    report = reconstruction_curve(settings, note, arguments["partial"], data_dir=arguments["data_dir"])
    return report, f"{curve_markdown(report)}\n`{typed}`\n"


def _attempt(settings: Settings, arguments: dict[str, Any]) -> Settings:
    """The preset's settings with what was typed instead: options, and how training images are presented."""
    from gascnn.toolkit.cli.pgsl_local import split_options

    changes = arguments["changes"]
    told = {name: arguments[name] for name in ("augmentation", "balance") if arguments[name] is not None}
    recipes = settings.recipes
    if told:
        first = replace(recipes[0], **told)
        recipes = (replace(first, name=f"augmentation {first.augmentation}, balance {first.balance:g}"),)
    named = {change.partition("=")[0] for change in changes}
    kept = (replace(one, changes=tuple(pair for pair in one.changes if pair[0] not in named)) for one in recipes)
    return replace(settings, options=split_options(None, changes, settings.options.to_dict()), recipes=tuple(kept))


def _attacks(listed: str | None) -> tuple[str, ...]:
    """Names as typed, unknown ones too, which the measurement refuses."""
    from gascnn.benchmarks.pgsl.attacks import TITLES

    if listed is None:
        return tuple(TITLES)
    return () if listed == "none" else tuple(listed.split(","))


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
    return replace(settings, seeds=options.numbers("--seeds", arguments["seeds"], example="0,1,2"))


def _end(report: dict[str, Any], page: str, arguments: dict[str, Any]) -> None:
    from gascnn.toolkit.files import write_text

    say(page)
    if arguments["page"] is not None:
        write_text(arguments["page"], page)
    save_json(arguments["json_path"], report)
