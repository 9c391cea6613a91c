"""Which image goes to train, val or test, decided by hashes so that it is the same on every machine and release.

Nothing here draws random numbers: an order "by hash" is the order of SHA-256 over a seed and a name, which no library
version can change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.data.dataset import SPLITS
from gascnn.toolkit.errors import DataError

SHARES: Mapping[str, float] = {"test": 0.15, "val": 0.15}
"""What is drawn from the images of each class where no split is given; the rest is train."""


def hash_order(names: Sequence[str], seed: int) -> list[int]:
    """Indices of ``names`` in the order of SHA-256("seed/name")."""
    return sorted(range(len(names)), key=lambda index: (_digest(seed, names[index]), index))


def hash_fraction(name: str) -> float:
    """A number in [0, 1) from the first 32 bits of SHA-256(name)."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:4], "big") / 2**32


def draw_splits(
    labels: npt.NDArray[np.integer[Any]],
    groups: Sequence[str],
    seed: int,
    shares: Mapping[str, float] = SHARES,
) -> npt.NDArray[np.str_]:
    """A stratified split that never divides a group (a patient, a volume, or a single image).

    A group counts for the class most of its images have (ties: the lower). Each class's groups are put in hash order;
    from the front a split takes groups until it holds its share of the class's images (rounded, at least one group
    where there are enough for every split), and what is left is train.

    Args:
        labels: (n,) class of each image.
        groups: (n,) name of the group of each image.
        seed: another seed gives another split.
        shares: share of the images for each split that is to be drawn, in the order of drawing.

    Returns:
        (n,) names of splits.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    by_class: dict[int, list[str]] = {}
    for group, indices in members.items():
        by_class.setdefault(int(np.bincount(labels[indices]).argmax()), []).append(group)
    splits = np.full(len(labels), "train", dtype="<U5")
    for names in by_class.values():
        ordered = [names[index] for index in hash_order(names, seed)]
        for name, taken in _deal(ordered, members, shares).items():
            for group in taken:
                splits[members[group]] = name
    return splits


def _deal(ordered: list[str], members: Mapping[str, list[int]], shares: Mapping[str, float]) -> dict[str, list[str]]:
    """Groups of one class for each drawn split; at least one group always stays behind."""
    total = sum(len(members[group]) for group in ordered)
    left = list(ordered)
    dealt: dict[str, list[str]] = {}
    for position, (name, share) in enumerate(shares.items()):
        wanted = max(1, round(share * total))
        reserve = len(shares) - position  # one group for train and for each split still to come
        count = 0
        taken: list[str] = []
        while left and count < wanted and (len(left) > reserve or (not taken and len(left) > 1)):
            taken.append(left.pop(0))
            count += len(members[taken[-1]])
        dealt[name] = taken
    return dealt


def require_every_split(splits: npt.NDArray[np.str_], where: str, unit: str) -> None:
    """Refuse a split that left one side empty.

    Raises:
        DataError: too few groups to keep them apart.
    """
    empty = [name for name in SPLITS if not np.any(splits == name)]
    if empty:
        raise DataError(
            f"{where}: too few {unit}s for a {empty[0]} split that shares none with train; at least 3 of each class "
            "are needed, or folders train, val and test on top"
        )


def shuffled(names: Sequence[str], indices: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """``indices`` in the hash order of their names, so that the first few are a fair sample of the classes."""
    order = hash_order([f"order/{names[index]}" for index in indices], 0)
    return indices[order]


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
