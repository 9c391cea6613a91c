"""Which steps are up to date, and which are to be made and why; nothing is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gascnn.toolkit.chain.digests import digest_of
from gascnn.toolkit.chain.manifest import BEGUN, Manifest
from gascnn.toolkit.chain.steps import OUTPUTS, STEPS, WORK, Setup, Step, chain
from gascnn.toolkit.data.named import NAMED
from gascnn.toolkit.errors import DataError, UsageError

Action = Literal["keep", "make", "given", "not needed"]

_CHANGED_COMMAND, _CHANGED_DATA, _WAS_GIVEN = "its command changed", "the data set changed", "it was given with --use"
ASKED_FOR = "--from"


@dataclass(frozen=True)
class Planned:
    """A step and what becomes of it.

    Attributes:
        step: the command.
        action: keep: up to date; given: ``--use`` stands for it; not needed: nobody reads what it would make.
        reason: of ``make``.
    """

    step: Step
    action: Action
    reason: str = ""


def settings_of(setup: Setup) -> dict[str, Any]:
    """What a chain is begun with."""
    return {
        "data": setup.data.name,
        "preset": setup.preset.name,
        "seed": setup.seed,
        "synthetic": setup.synthetic,
    }


def plan(
    setup: Setup, folder: Path, manifest: Manifest | None, *, until: str | None = None, from_step: str | None = None
) -> tuple[Setup, list[Planned]]:
    """Decide for each step.

    A step is up to date if its command, the SHA-256 of everything it reads and of everything it wrote are those of
    the manifest. With a step everything is made again that depends on it. Synthetic images, the GAN and what lies
    between them and the deployed network may be deleted: they are made again only if a step that is made reads them.

    Args:
        setup: what was asked for; the report is made with real images where they are, or where it has been.
        folder: of the run.
        manifest: what there is.
        until: the last step.
        from_step: this one and all behind it are made again.

    Returns:
        The setup, with ``report_on_real`` settled, and the steps.

    Raises:
        UsageError: a step was made or begun with other settings; a step that is not part of the chain.
        DataError: the data set is not there, and a step reads it.
    """
    planned = _planned(setup, folder, manifest, until, from_step)
    if setup.data.sha256 is None and any(p.action == "make" and p.step.name == "report" for p in planned):
        setup = replace(setup, report_on_real=False)
        planned = _planned(setup, folder, manifest, until, from_step)
    _check_settings(setup, folder, manifest, planned)
    _check_data(setup, planned)
    return setup, planned


def _planned(
    setup: Setup, folder: Path, manifest: Manifest | None, until: str | None, from_step: str | None
) -> list[Planned]:
    order = list(STEPS)
    for option, name in (("--until", until), ("--from", from_step)):
        if name is not None and name not in [step.name for step in chain(setup)]:
            raise UsageError(f"{option} {name}: not a step of this chain; it is left out")
    if until is not None and from_step is not None and order.index(from_step) > order.index(until):
        raise UsageError(f"--from {from_step} lies behind --until {until}; give them in the order of the steps")
    whole = [step for step in chain(setup) if until is None or order.index(step.name) <= order.index(until)]
    needed = _needed(whole, setup)
    steps = [step for step in whole if step.name in needed]
    look = _Look(setup, folder, manifest)
    reasons = {step.name: look.reason(step) for step in steps if step.name not in setup.use}
    if from_step is not None:
        for name in reasons:
            if order.index(name) >= order.index(from_step):
                reasons[name] = ASKED_FOR
    _spread(steps, reasons, look)
    return [_decided(step, setup, needed, reasons) for step in whole]


def _decided(step: Step, setup: Setup, needed: set[str], reasons: Mapping[str, str]) -> Planned:
    if step.name not in needed:
        return Planned(step, "not needed")
    if step.name in setup.use:
        return Planned(step, "given")
    reason = reasons[step.name]
    return Planned(step, "make", reason) if reason else Planned(step, "keep")


def _readers(name: str, steps: Sequence[Step]) -> list[str]:
    return [step.name for step in steps if name in step.reads]


def _needed(steps: Sequence[Step], setup: Setup) -> set[str]:
    """What nobody else reads, and what a needed step that is not given reads."""
    needed: set[str] = set()
    for step in reversed(steps):
        readers = _readers(step.name, steps)
        if not readers or any(name in needed and name not in setup.use for name in readers):
            needed.add(step.name)
    return needed


def _spread(steps: Sequence[Step], reasons: dict[str, str], look: _Look) -> None:
    """What depends on a step that is made is made; what is made needs its inputs, deleted or not. In place."""
    results = {step.name for step in steps if step.is_result or not _readers(step.name, steps)}
    while True:
        before = dict(reasons)
        for step in reversed(steps):
            stale = [name for name in _readers(step.name, steps) if reasons.get(name)]
            wanted = stale or step.name in results
            if wanted and not reasons.get(step.name, "given") and look.is_gone(step):
                reasons[step.name] = f"{step.output} is not there" + (f", {stale[0]} reads it" if stale else "")
        for step in steps:
            for name in step.reads:
                if reasons.get(name) and not reasons.get(step.name, "given"):
                    reasons[step.name] = f"{name} is made again"
        if reasons == before:
            return


class _Look:
    """What is on the disk beside what the manifest says; each path is hashed once."""

    def __init__(self, setup: Setup, folder: Path, manifest: Manifest | None) -> None:
        self._setup, self._folder = setup, folder
        self._records = {} if manifest is None else manifest.steps
        self._hashed: dict[Path, str | None] = {}

    def is_gone(self, step: Step) -> bool:
        """Whether what a step wrote was deleted."""
        return self._digest(self._folder / step.output) is None

    def reason(self, step: Step) -> str:
        """Why a step is to be made, or nothing; deleted outputs are none."""
        record = self._records.get(step.name)
        if record is None or record.status in ("skipped", "not needed"):
            return "not made yet"
        if record.status != "done":
            return {"given": _WAS_GIVEN, "failed": "it failed"}.get(record.status, "it was interrupted")
        if record.command != step.command():
            return _CHANGED_COMMAND
        if step.real_data and self._setup.data.sha256 not in (None, record.inputs.get("data")):
            return _CHANGED_DATA
        for name in step.reads:
            if self._made(name) != record.inputs.get(name):
                return f"what {name} made changed"
        for path, output in record.outputs.items():
            if self._digest(self._folder / path) not in (None, output["sha256"]):
                return f"{path} is not what it made"
        return ""

    def _made(self, name: str) -> str | None:
        """SHA-256 of a step's output as it is; of a deleted one as it was."""
        if name in self._setup.use:
            return self._digest(self._setup.use[name])
        record, path = self._records.get(name), OUTPUTS[name]
        there = self._digest(self._folder / path)
        if there is None and record is not None and path in record.outputs:
            return str(record.outputs[path]["sha256"])
        return there

    def _digest(self, path: Path) -> str | None:
        if path not in self._hashed:
            self._hashed[path] = digest_of(path)
        return self._hashed[path]


def _check_settings(setup: Setup, folder: Path, manifest: Manifest | None, planned: Sequence[Planned]) -> None:
    """Hours of work are not thrown away for a forgotten option."""
    if manifest is None:
        return
    for one in planned:
        if one.reason == _WAS_GIVEN:
            name = one.step.name
            raise UsageError(
                f"step {name} of {folder} was given with --use; give it again, or --from {name} to make it"
            )
        if one.reason not in (_CHANGED_COMMAND, _CHANGED_DATA) and not _loses_checkpoints(one, folder, manifest):
            continue
        for key, value in settings_of(setup).items():
            if manifest.settings.get(key) != value:
                raise _begun_with(folder, f"{key} {manifest.settings.get(key)}", str(value), one.step.name)
        if one.reason == _CHANGED_DATA:
            raise _begun_with(folder, f"other files of {setup.data.name}", "those there now", one.step.name)


def _loses_checkpoints(one: Planned, folder: Path, manifest: Manifest) -> bool:
    """Whether a step that was begun and not ended would not go on from its checkpoints: it is another command now."""
    record, work = manifest.steps.get(one.step.name), folder / WORK / one.step.name
    if one.action != "make" or one.reason == ASKED_FOR or record is None or record.status not in BEGUN:
        return False
    return record.command != one.step.command() and work.is_dir() and any(work.iterdir())


def _begun_with(folder: Path, was: str, now: str, step: str) -> UsageError:
    return UsageError(
        f"{folder} was begun with {was}, now it is {now}; give the same, name another folder with -o, or give --from "
        f"{step} to make it again from there"
    )


def _check_data(setup: Setup, planned: Sequence[Planned]) -> None:
    remedy = f"run: gascnn data fetch {setup.data.name}" if setup.data.name in NAMED else "put it back"
    for one in planned:
        if one.action == "make" and one.step.real_data and setup.data.sha256 is None:
            raise DataError(
                f"data set {setup.data.name} is not there, and step {one.step.name} reads it ({one.reason}); {remedy}, "
                f"or give --use {one.step.name}=PATH"
            )
