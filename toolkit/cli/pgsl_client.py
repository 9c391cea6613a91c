"""``gascnn pgsl client train``: the part that needs torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gascnn.exporters.onnx.pgsl import export_pgsl_client
from gascnn.toolkit.cli.output import bar, percent, say
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl.local import local_accuracy, train_local_classifier
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.split import Gradient
from gascnn.toolkit.pgsl.train import make_client
from gascnn.toolkit.pgsl.wire.training import own_turns, train_over_wire
from gascnn.toolkit.training.checkpoint import weights_sha256

if TYPE_CHECKING:
    from gascnn.toolkit.data import Dataset
    from gascnn.toolkit.pgsl.wire.client import WireClient

CHECK_IMAGES = 64
"""Training images on which the ONNX file is compared with torch."""


def train_client(
    wire: WireClient,
    dataset: Dataset,
    *,
    part: tuple[int, int],
    limit: int | None,
    local: dict[str, int],
    least_attack: tuple[int, float] | None,
    output: Path,
) -> dict[str, Any]:
    """Train, write the ONNX file, and show; returns what ``--json`` writes.

    Args:
        wire: to the server, whose options say the attack.
        dataset: its training images and labels.
        part: which, of how many equal parts of them.
        limit: at most so many.
        local: options of the local classifier.
        least_attack: pixels and by how much they move, below which the server's attack is refused.
        output: the ONNX file.

    Raises:
        DataError: too few images.
        UsageError: an attack weaker than asked for.
    """
    terms, started = wire.terms(), time.perf_counter()
    chosen = PgslOptions.from_dict(terms["options"])
    _check_attack(chosen, least_attack)
    first, count = part
    images = torch.from_numpy(dataset.train.images[first - 1 :: count][:limit].copy())
    labels = torch.from_numpy(dataset.train.labels[first - 1 :: count][:limit].copy())
    if len(images) < 2:
        raise DataError(f"{len(images)} training images are left; a batch needs 2")
    classifier = train_local_classifier(images, labels, len(dataset.class_names), LocalOptions(**local))
    say(
        f"{len(images)} training images; local classifier {percent(local_accuracy(classifier, images, labels))}; "
        f"attack {_strength(chosen)}"
    )
    client = make_client(classifier, chosen)
    total = sum(map(len, own_turns(len(images), chosen, terms["turn_batches"])))
    with bar("batches", total) as progress:
        made = 0

        def count_step(epoch: int, reply: Gradient) -> None:
            nonlocal made
            made += 1
            progress(made)

        report = train_over_wire(client, wire, images, labels, terms["turn_batches"], count_step)
    exported = export_pgsl_client(
        client.model,
        output,
        classes=dataset.class_names,
        bundle_sha256=weights_sha256(client.model),
        check=images[:CHECK_IMAGES].numpy(),
    )
    say(f"{report.batches} batches in {report.turns} turns, {report.lost_turns} made again; step {report.steps}")
    say(f"{output}: pgsl-client, {exported.bytes} bytes")
    return {
        "images": len(images),
        "batches": report.batches,
        "turns": report.turns,
        "lost_turns": report.lost_turns,
        "steps": report.steps,
        "losses": [list(losses) for losses in report.losses],
        "output": str(output),
        "sha256": exported.sha256,
        "time_s": round(time.perf_counter() - started, 3),
    }


def _check_attack(chosen: PgslOptions, least: tuple[int, float] | None) -> None:
    if least is None:
        return
    pixels, amount = least
    # Asked this way round, a least amount that is no number is never met.
    if not (chosen.attack == "pixels" and chosen.pixels >= pixels and chosen.amount >= amount):
        raise UsageError(
            f"the server's attack is {_strength(chosen)}; --pixels and --amount ask for {pixels} by {amount:g} or more"
        )


def _strength(chosen: PgslOptions) -> str:
    detail = {"literal": "", "pixels": f" {chosen.pixels} by {chosen.amount:g}", "bound": f" {chosen.bound:g}"}
    return chosen.attack + detail[chosen.attack]
