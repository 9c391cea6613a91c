"""``gascnn data list``, ``gascnn data fetch`` and ``gascnn data join``."""

from __future__ import annotations

from pathlib import Path

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import bar, save_json, say, table


@click.group("data")
def command() -> None:
    """List the data sets known by name, download them from their public origin, join sets of made images."""


@command.command("list")
@click.option("--data-dir", type=options.PATH, help="Folder looked at first.")
@options.json_file
def list_command(data_dir: Path | None, json_path: Path | None) -> None:
    """Show which data sets are there, where they were looked for, and what is missing."""
    from gascnn.toolkit.data import describe_datasets

    found = describe_datasets(data_dir)
    table(
        ("name", "there", "train/val/test", "size", "licence"),
        [
            (
                d.name,
                "yes" if d.present else "no",
                "/".join(str(n) for n in d.images.values()) if d.images else "-",
                "x".join(str(n) for n in d.image_shape),
                d.licence,
            )
            for d in found
        ],
    )
    say()
    for d in found:
        if d.problem:
            say(f"{d.name}: {d.problem}")
        elif not d.present:
            places = ", ".join(str(p) for p in d.looked_in)
            say(f"{d.name} is missing (looked in {places}); get it with: gascnn data fetch {d.name}")
    save_json(
        json_path,
        {
            "datasets": [
                {
                    **{k: v for k, v in vars(d).items() if k not in ("path", "looked_in")},
                    "path": None if d.path is None else str(d.path),
                    "looked_in": [str(p) for p in d.looked_in],
                }
                for d in found
            ]
        },
    )


@command.command("fetch")
@click.argument("name")
@click.option("--data-dir", type=options.PATH, help="Where to put it. Default: $GASCNN_DATA, else the user's cache.")
@click.option("--mirror", metavar="URL", help="Take the files from this address instead of their origin.")
@options.json_file
def fetch_command(name: str, data_dir: Path | None, mirror: str | None, json_path: Path | None) -> None:
    """Download the data set NAME, check it, and build what is built from several sources.

    An interrupted download goes on where it stopped.
    """
    from gascnn.toolkit.data import fetch, search_places

    target = data_dir if data_dir is not None else search_places(None)[0]
    with bar(f"fetching {name}", 1) as progress:
        path = fetch(name, data_dir=target, base_url=mirror, progress=lambda event: progress(event.fraction))
    say(f"{name} is in {path}")
    save_json(json_path, {"name": name, "path": str(path)})


@command.command("join")
@click.argument("sets", type=options.PATH, nargs=-1, required=True, metavar="SET SET...")
@options.output("Folder to write.")
@options.json_file
def join_command(sets: tuple[Path, ...], output: Path, json_path: Path | None) -> None:
    """Join sets of made images, of a GAN and of the network alone, into one.

    They must be of one size, framing and classes. Images are taken from the sets in turns. Real images are refused.
    """
    from gascnn.toolkit.data.image_set import IMAGES_FILE
    from gascnn.toolkit.data.joining import join_image_sets
    from gascnn.toolkit.files import sha256_file

    joined = join_image_sets(sets, output)
    images = sum(count for _, count in joined)
    table(("set", "images"), [(found.name, count) for found, count in joined])
    digest = sha256_file(output / IMAGES_FILE)
    say(f"{images} images in {output}, SHA-256 {digest}")
    parts = [{"path": str(path), "images": count} for path, (_, count) in zip(sets, joined, strict=True)]
    save_json(json_path, {"output": str(output), "sha256": digest, "images": images, "parts": parts})
