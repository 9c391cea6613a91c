"""The first line of the report: does the generator replay what it was trained on? No torch here.

It never says "private": what was not found by these distances may be there. What decides is how much nearer an image
is to training images than to held ones: nearness by itself is also that of averages, which are near to everybody.
"""

from __future__ import annotations

from typing import Any

LIMIT = 0.05
"""Of images that are no copies one in a hundred is relatively near. Five in a hundred, by the lower end of the
interval, is not chance, nor do thresholds taken from few images explain it."""

DETECTED = 0.5
"""Of the planted copies of a kind."""

REPLAYS, SIGNS, NOTHING = "replays", "signs", "no sign"


def verdict(memorisation: dict[str, Any], membership: dict[str, Any]) -> dict[str, Any]:
    """The verdict.

    Args:
        memorisation: by space, as :func:`gascnn.benchmarks.synthetic.memorisation.memorisation` gives it; ``pixels``
            is one of them.
        membership: by space, as :func:`gascnn.benchmarks.synthetic.membership.membership` gives it.

    Returns:
        ``level``: ``replays`` where the share of images that are relatively near is above 5 %, by its lower limit, in
        any space, or any image is an unmistakable copy in pixels; else ``signs`` where in any space that share is
        above that of the test images, by the intervals of both, or the attack above both baselines; else ``no sign``.
        ``sentence``: the report's first line.
    """
    copied = _copied(memorisation)
    if copied:
        return {
            "level": REPLAYS,
            "sentence": f"REPLAYS PATIENTS: {'; '.join(copied)}. These images are no safer than the training images.",
        }
    signs = [*_more_than_held(memorisation), *_leaking(membership)]
    if signs:
        return {
            "level": SIGNS,
            "sentence": f"SIGNS OF REPLAYING PATIENTS: {'; '.join(signs)}. Look at the pairs before these images go "
            "anywhere the training images may not.",
        }
    return {"level": NOTHING, "sentence": _nothing(memorisation, membership)}


def _copied(memorisation: dict[str, Any]) -> list[str]:
    reasons = []
    pixels = memorisation["pixels"]
    unmistakable = pixels["sets"]["synthetic"]["unmistakable"]
    if unmistakable:
        reasons.append(
            f"{unmistakable} of {pixels['sets']['synthetic']['images']} made images are less than half as far from a "
            f"training image as the nearest held image ({pixels['thresholds']['unmistakable']:.3g} {pixels['unit']})"
        )
    for space, found in memorisation.items():
        figure = found["sets"]["synthetic"]["relatively_near"]
        if figure["interval"][0] > LIMIT:
            reasons.append(
                f"{_share(figure)} are so much nearer to a training image than to any held one as 1 % of held images "
                f"are ({space})"
            )
    return reasons


def _more_than_held(memorisation: dict[str, Any]) -> list[str]:
    figures = {
        space: [found["sets"][name]["relatively_near"] for name in ("synthetic", "test")]
        for space, found in memorisation.items()
    }
    return [
        f"{_share(made)} are relatively near a training image, of held images {_share(held)} ({space})"
        for space, (made, held) in figures.items()
        if made["interval"][0] > held["interval"][1]
    ]


def _leaking(membership: dict[str, Any]) -> list[str]:
    return [
        f"who has them tells training images from others, area {_figure(found['same_number'])} against "
        f"{_figure(found['held_reference'])} and {_figure(found['training_reference'])} with images that cannot know "
        f"({space})"
        for space, found in membership.items()
        if found["leaks"]
    ]


def _nothing(memorisation: dict[str, Any], membership: dict[str, Any]) -> str:
    near = "; ".join(
        f"{space}: {_share(found['sets']['synthetic']['near'])} near, "
        f"{_share(found['sets']['synthetic']['relatively_near'])} relatively near a training image"
        for space, found in memorisation.items()
    )
    attacks = ", ".join(f"{_figure(found['attack'])} ({space})" for space, found in membership.items())
    seen, missed = detected(memorisation)
    return (
        f"No sign of replaying patients at this sensitivity ({near}; 1 % of held images are; attack {attacks}). "
        f"Planted copies that are found: {', '.join(seen) or 'none'}; that are not: {', '.join(missed) or 'none'}. "
        f"{_near_to_all(memorisation)}This is no proof of privacy."
    )


def _near_to_all(memorisation: dict[str, Any]) -> str:
    spaces = [
        space for space, found in memorisation.items() if found["sets"]["synthetic"]["near"]["interval"][0] > LIMIT
    ]
    if not spaces:
        return ""
    return (
        f"More of them are near a training image than held images are ({', '.join(spaces)}), but as near to held ones, "
        "as averages are: look at the pairs. "
    )


def detected(memorisation: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Kinds of planted copies of which at least half are relatively near in some space, and the other kinds."""
    kinds = [name for name in memorisation["pixels"]["sets"] if name not in ("synthetic", "test")]
    found = [
        kind
        for kind in kinds
        if any(space["sets"][kind]["relatively_near"]["value"] >= DETECTED for space in memorisation.values())
    ]
    return found, [kind for kind in kinds if kind not in found]


def _share(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{100 * figure['value']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _figure(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:.3f} ({low:.3f} to {high:.3f})"
