"""PGSL's Figure 3 as a report: the curves of every reading of mu and of "recovered", a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gascnn.benchmarks.machine import describe
from gascnn.benchmarks.pgsl.mu import MUS, Part, mse_against_mu
from gascnn.benchmarks.plots import check_picture
from gascnn.toolkit.files import atomic_path
from gascnn.toolkit.pgsl.recovery import MU

FORMAT = "gascnn-pgsl-mu/1"

READINGS: dict[str, tuple[bool, Part]] = {
    "D - E, mu in ||D||_2": (True, "recovered"),
    "D - E, mu in pixels": (False, "recovered"),
    "A, mu in ||D||_2": (True, "low_rank"),
    "A, mu in pixels": (False, "low_rank"),
}
"""What is recovered, and the unit of mu: the four readings that docs/pgsl-recovery.md compares."""

_COLOURS = ("#0072b2", "#d55e00", "#56b4e9", "#e69f00")


def figure_3(
    images: npt.NDArray[np.uint8],
    attack: Callable[[Tensor], Tensor] | None,
    *,
    data: dict[str, Any],
    mus: Sequence[float] = MUS,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Mean squared error against mu for the four readings.

    Args:
        images: (n, C, H, W) uint8; validation images, where mu is to be chosen by it.
        attack: as :func:`gascnn.benchmarks.pgsl.mu.mse_against_mu` takes it.
        data: what the images and the attack are, for the report; its ``sparsity`` is lambda in units of
            ``1 / sqrt(max(H, W))``, 1 if it is not there.
        mus: above 0.
        progress: called with the number of readings done.

    Returns:
        ``curves``: by reading, what :func:`mse_against_mu` gives.

    Raises:
        DataError, UsageError: as :func:`mse_against_mu`.
    """
    curves = {}
    weight = data.get("sparsity", 1.0) / math.sqrt(max(images.shape[-2:]))
    for done, (name, (relative, part)) in enumerate(READINGS.items(), start=1):
        curves[name] = mse_against_mu(images, attack=attack, mus=mus, relative=relative, part=part, sparsity=weight)
        if progress is not None:
            progress(done)
    return {"format": FORMAT, "data": data, "curves": curves, "machine": describe()}


def rows(report: dict[str, Any]) -> list[list[object]]:
    """A row a reading: error of the attacked images, at the paper's mu, at the best one, and which that is."""
    found: list[list[object]] = []
    for name, curve in report["curves"].items():
        best = curve["mu"].index(curve["best_mu"])
        at_paper = curve["mse"][curve["mu"].index(MU)] if MU in curve["mu"] else None
        found.append([name, curve["mse_attacked"], "-" if at_paper is None else at_paper, curve["mse"][best],
                      curve["best_mu"]])  # fmt: skip
    return found


def markdown(report: dict[str, Any], command: str) -> str:
    """Every curve as a table: mean squared errors, the lowest of each reading bold.

    Args:
        report: as :func:`figure_3` gives it.
        command: what was typed.
    """
    data, curves = report["data"], report["curves"]
    mus = next(iter(curves.values()))["mu"]
    attacked = next(iter(curves.values()))["mse_attacked"]
    lines = [
        f"`{data['name']}`, {data['images']} {data['split']} images of {data['image_size']}x{data['image_size']}, "
        f"{data['attack']} of {data['pixels']} pixels: mean squared error of attacked images {attacked:.3g}, and of "
        "recovered ones by mu.",
        "",
        "| mu | " + " | ".join(f"{mu:g}" for mu in mus) + " |",
        "|" + " --- |" * (len(mus) + 1),
    ]
    for name, curve in curves.items():
        cells = (
            f"**{mse:.3g}**" if mu == curve["best_mu"] else f"{mse:.3g}"
            for mu, mse in zip(mus, curve["mse"], strict=True)
        )
        lines.append(f"| {name.replace('|', chr(92) + '|')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{command}`"]) + "\n"


COLUMNS = ("reading", "MSE attacked", f"at mu = {MU}", "lowest MSE", "at mu")


def draw(report: dict[str, Any], path: Path) -> None:
    """The curves as a picture, the attacked images' error beside them.

    Raises:
        UsageError: as :func:`gascnn.benchmarks.plots.check_picture`.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for (name, curve), colour, mark in zip(report["curves"].items(), _COLOURS, "os^D", strict=True):
        axis.plot(curve["mu"], curve["mse"], color=colour, marker=mark, markersize=4, label=name)
    axis.axhline(
        next(iter(report["curves"].values()))["mse_attacked"], color="#555555", linestyle="--", label="attacked"
    )
    axis.axvline(MU, color="#999999", linestyle=":", label=f"the paper's {MU}")
    axis.set(xlabel="mu", ylabel="mean squared error, pixels 0..1", yscale="log", title=report["data"]["name"])
    axis.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lower().removeprefix("."))
