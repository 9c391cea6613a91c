"""Who was trained on? An attacker who has the made images alone, and a candidate. No torch here.

D. Chen et al., "GAN-Leaks: A Taxonomy of Membership Inference Attacks against Generative Models", CCS 2020, the full
black-box attack: a candidate is the likelier to have been trained on, the nearer the made image that is nearest to it.
Members are the training images, non-members the test images. The score is minus the distance; calibrated, as section
4.4 has it, the distance to the nearest made image is compared with that to the nearest image of a reference that was
not made from the training images: here the validation images.

Members and non-members differ in more than membership: other patients, other machines. Two baselines, in which
something that cannot know takes the made images' place, say how far that alone tells them apart:

- ``held_reference``: as many validation images. They know neither group.
- ``training_reference``: as many training images, the others being the members. They are of the training images'
  distribution, as a perfect generator's would be, and know none of the members; but where one patient has several
  slices they know the patient. More than this nobody gets from the distribution alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.synthetic.roc import Area, area, difference, found_at
from gascnn.benchmarks.synthetic.space import Space

Floats = npt.NDArray[np.float64]

FALSE_ALARMS = (0.01, 0.001)


def membership(space: Space, seed: int) -> dict[str, Any]:
    """Attack made images, and what cannot know in their place.

    Args:
        space: with sets ``synthetic``, ``train``, ``val`` and ``test``; sets for the baselines are added to it.
        seed: of which images stand in for others.

    Returns:
        ``members``, ``non_members``, ``references`` (numbers of images); ``attack``: with all made images, an area
        under the ROC curve with interval and p-value, and ``found_at``, the members found by share of false alarms
        (None where there are too few non-members); areas with as many made images as there are references:
        ``same_number``, ``calibrated``, ``held_reference``, ``training_reference``; ``excess``: ``same_number`` less
        ``held_reference``, paired; ``leaks``: whether ``same_number`` is above 0.5 and both baselines, by its
        interval and theirs.
    """
    count = min(len(space.sets["synthetic"]), len(space.sets["val"]), len(space.sets["train"]) // 2)
    rng = np.random.default_rng((seed, 1))
    for name in ("synthetic", "val"):
        space.sets[f"{name}, some"] = space.sets[name][rng.permutation(len(space.sets[name]))[:count]]
    order = rng.permutation(len(space.sets["train"]))
    space.sets["train, some"], space.sets["train, rest"] = (
        space.sets["train"][np.sort(part)] for part in (order[:count], order[count:])
    )
    members, others = _scores(space, "synthetic")
    some, known = _scores(space, "synthetic, some"), _scores(space, "val, some")
    same, held = area(*some), area(*known)
    training = area(*_scores(space, "train, some", "train, rest"))
    return {
        "members": len(members),
        "non_members": len(others),
        "references": count,
        "attack": area(members, others).to_dict()
        | {"found_at": {f"{share:g}": found_at(members, others, share) for share in FALSE_ALARMS}},
        "same_number": same.to_dict(),
        "calibrated": area(some[0] - known[0], some[1] - known[1]).to_dict(),
        "held_reference": held.to_dict(),
        "training_reference": training.to_dict(),
        "excess": difference(same, held),
        "leaks": _leaks(same, held, training),
    }


def _scores(space: Space, reference: str, members: str = "train") -> tuple[Floats, Floats]:
    """Of members and non-members: minus the distance to the nearest of the reference."""
    return -space.nearest(members, reference).distances, -space.nearest("test", reference).distances


def _leaks(same: Area, held: Area, training: Area) -> bool:
    low = same.to_dict()["interval"][0]
    return bool(low > max(0.5, *(baseline.to_dict()["interval"][1] for baseline in (held, training))))
