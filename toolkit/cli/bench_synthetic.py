"""``gascnn bench synthetic``: whether made images are good, and whether they are copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, save_json, say, table
from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gascnn.benchmarks.synthetic.measure import Extractors
    from gascnn.toolkit.cli.models import Model


@click.command("synthetic")
@click.argument("made", type=options.PATH, metavar="SET")
@options.data(required=True, help_text="The real data set that SET stands for: its training images are what the "
              "generator was trained on.")  # fmt: skip
@click.option("--features", type=options.PATH, required=True, metavar="BUNDLE",
              help="ResNet whose last layer's features are compared; not the one that SET was made with.")  # fmt: skip
@click.option("--features-onnx", "onnx", type=options.PATH, metavar="FILE",
              help="Compare features of this ONNX file too, such as Inception's without its last layer.")  # fmt: skip
@click.option("--preset", type=click.Choice(["smoke", "small", "none"]), default="smoke", show_default=True,
              help="Of the classifiers trained on made and on real images; none trains none.")  # fmt: skip
@click.option("--seeds", metavar="LIST", default="0", show_default=True, help="Such as 0,1,2.")
@click.option("--threads", type=int, default=0, metavar="N", help="Of torch. Default: the preset's.")
@click.option("--markdown", "page", type=options.PATH, metavar="FILE", help="Write the report as a page.")
@click.option("--pairs", "plot", type=options.PATH, metavar="FILE",
              help="Draw the closest pairs, .png or .svg. It shows training images.")  # fmt: skip
@options.json_file
def command(**arguments: Any) -> None:
    """Examine the made images in SET: do they replay patients, do they give away who was trained on, are they any good?

    SET is a folder that 'gascnn synthesise' or a generator wrote, or any data set with the same classes. Distances to
    training images, an attack on membership, Fréchet distance, precision and recall, each beside what real images
    and noise give; and classifiers trained on made and tested on real images, and the reverse.
    """
    save_json(arguments["json_path"], execute(**arguments))


def execute(
    *,
    made: Path,
    data: str,
    data_dir: Path | None,
    features: Path,
    onnx: Path | None,
    preset: str,
    seeds: str,
    threads: int,
    page: Path | None,
    plot: Path | None,
    json_path: Path | None,
) -> dict[str, Any]:
    """Examine, write and show; returns what ``--json`` writes."""
    from gascnn.benchmarks.plots import check_picture
    from gascnn.benchmarks.synthetic.measure import examine, pooled
    from gascnn.benchmarks.synthetic.page import markdown
    from gascnn.benchmarks.synthetic.pairs import draw
    from gascnn.benchmarks.synthetic.settings import SyntheticSettings
    from gascnn.toolkit.cli.models import load_data, open_model
    from gascnn.toolkit.files import write_text

    del json_path
    settings = SyntheticSettings(preset=preset, seeds=options.numbers("--seeds", seeds), threads=threads)
    if plot is not None:
        check_picture(plot)
    opened = open_model(features)
    extractors = _extractors(opened, onnx, threads)
    real = load_data(data, opened, data_dir)
    synthetic = load_data(str(made), opened, data_dir)
    report = examine(
        synthetic, real, extractors, settings, command=options.typed("gascnn bench synthetic"), progress=note
    )
    _show(report)
    if plot is not None:
        draw(report, pooled(synthetic), real, plot)
        say(f"closest pairs, training images among them, in {plot}")
    if page is not None:
        write_text(page, markdown(report))
    return report


def _extractors(opened: Model, onnx: Path | None, threads: int) -> Extractors:
    from gascnn.benchmarks.synthetic.features import NetworkFeatures, OnnxFeatures
    from gascnn.benchmarks.synthetic.measure import Extractors
    from gascnn.toolkit.files import sha256_file
    from gascnn.toolkit.training.bundles import build_model

    if opened.kind != "ann" or opened.bundle is None:
        raise UsageError(f"{opened.path} is no ANN; --features takes the bundle that 'gascnn train' wrote")
    network = NetworkFeatures(build_model(opened.bundle))
    if onnx is None:
        return Extractors(network, opened.sha256)
    return Extractors(network, opened.sha256, OnnxFeatures(onnx, threads), sha256_file(onnx))


def _show(report: dict[str, Any]) -> None:
    from gascnn.benchmarks.synthetic import page

    say(report["verdict"]["sentence"])
    for name, found in report["memorisation"].items():
        say()
        table((f"copies ({name})", *page.COPIES[1:]), page.copies(found))
    for name, found in report["membership"].items():
        say()
        table((f"membership ({name})", *page.MEMBERSHIP[1:]), page.members(found))
    for name, found in report["quality"].items():
        say()
        table((f"likeness ({name})", *page.QUALITY[1:]), page.likeness(found))
    say()
    table(page.USEFULNESS, page.uses(report))
    for line in report["notes"]:
        note(line)
