"""The made images closest to training images, drawn beside them, with matplotlib (the extra ``bench``).

The picture shows training images: it is as private as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.plots import check_picture
from gascnn.toolkit.data.dataset import Dataset, ImageSet
from gascnn.toolkit.files import atomic_path

Images = npt.NDArray[np.uint8]


def draw(report: dict[str, Any], made: ImageSet, real: Dataset, path: Path) -> None:
    """For each space the closest made images over their training images, and the closest test images over theirs.

    Args:
        report: of :func:`gascnn.benchmarks.synthetic.measure.examine`.
        made: as :func:`gascnn.benchmarks.synthetic.measure.pooled` gives them.
        real: what they were compared with.
        path: of the picture; PNG or SVG.

    Raises:
        UsageError: another kind of file, or no matplotlib.
        DataError: the place cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    blocks = [
        (f"{title} ({space})", images, found[key])
        for space, found in report["memorisation"].items()
        for title, key, images in (("made", "pairs", made.images), ("held", "held_pairs", real.test.images))
    ]
    columns = max(len(pairs) for _, _, pairs in blocks)
    figure = Figure(figsize=(1.3 * columns + 1, 2.7 * len(blocks)), layout="constrained")
    axes = figure.subplots(2 * len(blocks), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (title, images, pairs) in enumerate(blocks):
        for column, pair in enumerate(pairs):
            above, below = axes[2 * number][column], axes[2 * number + 1][column]
            _show(above, images[pair["image"]], f"{pair['distance']:.3g}")
            training = real.train.images[pair["training_image"]]
            _show(below, training[..., ::-1] if pair["mirrored"] else training, _laid(pair))
        for row, name in ((2 * number, title), (2 * number + 1, "training image")):
            axis = axes[row][0]
            axis.text(-0.1, 0.5, name, transform=axis.transAxes, rotation=90, ha="right", va="center", size="small")
    figure.suptitle(report["verdict"]["sentence"].partition(":")[0].partition("(")[0], size="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lower().removeprefix("."))


def _show(axis: Any, image: Images, title: str) -> None:
    if len(image) == 1:
        axis.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axis.imshow(image.transpose(1, 2, 0), interpolation="nearest")
    axis.set_title(title, size="small")


def _laid(pair: dict[str, Any]) -> str:
    down, right = pair["shift"]
    moved = f"{down:+d} {right:+d}" if down or right else ""
    return f"{'mirrored ' if pair['mirrored'] else ''}{moved}".strip()
