"""Write a NetX file so that a command ends only with a good one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gascnn.toolkit.cli.output import bar, percent, say
from gascnn.toolkit.errors import LimitError

if TYPE_CHECKING:
    from gascnn.toolkit.data import Dataset
    from gascnn.toolkit.lowering.network import NetxNetwork


def write_checked(network: NetxNetwork, output: Path) -> dict[str, Any]:
    """Write, read back, compare every integer; gives what ``--json`` says of the file.

    Raises:
        LimitError: reading back gave other integers; the file is gone.
    """
    from gascnn.exporters.netx import read_netx, write_netx
    from gascnn.toolkit.files import sha256_file

    write_netx(network, output)
    if read_netx(output).digest() != network.digest():
        output.unlink()
        raise LimitError(f"{output}: reading it back gave other integers; it was removed; please report this")
    deployment = network.deployment
    return {
        "output": str(output),
        "sha256": sha256_file(output),
        "bytes": output.stat().st_size,
        "network_digest": network.digest(),
        "grade": None if deployment is None else deployment.grade,
        "steps": None if deployment is None else deployment.steps,
        "neurons": network.neurons,
    }


def without_paths(value: Any) -> Any:
    """Provenance for a file that travels: where things lay on this machine stays here."""
    if isinstance(value, dict):
        return {k: without_paths(v) for k, v in value.items() if k != "path"}
    return [without_paths(v) for v in value] if isinstance(value, list) else value


def measured_accuracy(network: NetxNetwork, dataset: Dataset, limit: int | None) -> dict[str, Any]:
    """Accuracy and macro-F1 of exactly this network on test images, in the bit-exact simulator.

    Args:
        network: as it is written.
        dataset: its test images are run.
        limit: only the first so many.
    """
    from gascnn.hardware.simulator import simulate
    from gascnn.toolkit.coding import encode_for
    from gascnn.toolkit.training.metrics import classification_report

    part = dataset.test if limit is None else dataset.test.take(limit)
    with bar("measuring", len(part)) as progress:
        result = simulate(network, encode_for(network, part.images), progress=progress)
    names = [str(n) for n in dataset.class_names]
    report = classification_report(result.scores(), part.labels, names, kind="scores", predictions=result.predictions())
    figures = {name: report[name] for name in ("images", "accuracy", "macro_f1")}
    return {"data": dataset.name, "split": "test", **figures, "network_digest": network.digest()}


def say_expected(figures: dict[str, Any]) -> None:
    """Show what :func:`measured_accuracy` gave; nothing where nothing was measured."""
    if figures:
        say(
            f"expected on {figures['images']} test images of {figures['data']}: accuracy {percent(figures['accuracy'])}"
            f", macro-F1 {percent(figures['macro_f1'])} (of this file, in the bit-exact simulator)"
        )
