"""Make what is to be made, step by step; the manifest is written before and after each."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gascnn.toolkit.chain.digests import digest_of
from gascnn.toolkit.chain.given import check_given, strip_places, without_places
from gascnn.toolkit.chain.manifest import (
    BEGUN,
    MANIFEST_FILE,
    Manifest,
    Record,
    described,
    load_manifest,
    provenance_digest,
    versions,
)
from gascnn.toolkit.chain.plan import ASKED_FOR, Planned, plan, settings_of
from gascnn.toolkit.chain.process import Ended, run_command
from gascnn.toolkit.chain.steps import OUTPUTS, RESULTS, STEPS, WORK, Setup, Step, absent_steps
from gascnn.toolkit.errors import GascnnError, UsageError

LOCK_FILE = ".lock"
_LOCK_WAIT_S = 5.0
_INTERRUPTED = 130

Run = Callable[[Sequence[str], Path, Path, int], Ended]
"""How a command is run; see :func:`gascnn.toolkit.chain.process.run_command`."""


class StepFailed(GascnnError, RuntimeError):  # noqa: N818 - the outcome of a step, as CheckFailed is of a check
    """A step that ended with an error.

    Args:
        message: one line.
        exit_status: the step's own, if it is one of ours.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@dataclass(frozen=True)
class Chain:
    """A chain in a folder.

    Args:
        setup: what was asked for.
        folder: of the run; new, empty, or of an earlier run.
        until: the last step.
        from_step: this one and all behind it are made again.
        tell: told each line.
        run: runs a command.
    """

    setup: Setup
    folder: Path
    until: str | None = None
    from_step: str | None = None
    tell: Callable[[str], None] = print
    run: Run = run_command

    def planned(self) -> tuple[Setup, list[Planned]]:
        """What would be made; changes nothing.

        Raises:
            UsageError: a folder that holds other things, other settings than it was begun with, something given that
                cannot stand for a step's output.
            FormatError: a damaged manifest.
            DataError: the data set is not there, and a step reads it.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is a file; -o names a folder")
        manifest = load_manifest(self.folder)
        if manifest is None and self.folder.is_dir() and set(os.listdir(self.folder)) - {LOCK_FILE}:
            raise UsageError(
                f"{self.folder} holds other files (no {MANIFEST_FILE} in it); give the name of a new folder"
            )
        check_given(self.setup.use)
        return plan(self.setup, self.folder, manifest, until=self.until, from_step=self.from_step)

    def make(self) -> Manifest:
        """Make what is not up to date.

        Returns:
            The manifest, as it was written.

        Raises:
            StepFailed: a step ended with an error; what was made before it is kept.
            KeyboardInterrupt: as it came; nothing is left running.
            UsageError, FormatError, DataError: see :meth:`planned`; also another chain at work in the folder.
        """
        self.planned()  # nothing is written for what is refused
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder) as lock:
            setup, planned = self.planned()
            return _Making(self, setup, lock).make_all(planned)


class _Making:
    """One pass over the steps."""

    def __init__(self, chain: Chain, setup: Setup, lock: int) -> None:
        self._chain, self._setup, self._lock = chain, setup, lock
        self._folder, self._tell = chain.folder, chain.tell
        before = load_manifest(chain.folder)
        known = {} if before is None else dict(before.data)
        if setup.data.sha256 is not None:
            known["sha256"] = setup.data.sha256
        self._manifest = Manifest(settings_of(setup), known, {} if before is None else before.steps)

    def make_all(self, planned: Sequence[Planned]) -> Manifest:
        """Every step in its order."""
        names = [one.step.name for one in planned]
        self._leave_out()
        for number, one in enumerate(planned, 1):
            head = f"[{number}/{len(names)}] {one.step.name}"
            if one.action == "keep":
                self._clear_work(one.step.name)  # the chain may have been killed just before it did
                self._tell(f"{head}: up to date")
            elif one.action == "not needed":
                self._not_made(one.step.name, "not needed")
                self._clear_work(one.step.name)
                self._tell(f"{head}: not needed")
            elif one.action == "given":
                self._given(one.step, head)
            else:
                self._make(one, head)
        self._clear_what_nobody_goes_on_with()
        self._manifest.save(self._folder)
        return self._manifest

    def _leave_out(self) -> None:
        """Steps that were skipped say so; one that another kind of chain made keeps its record."""
        for name in STEPS:
            if name in self._setup.skip or (
                name in absent_steps(self._setup.synthetic) and name not in self._manifest.steps
            ):
                self._not_made(name, "skipped")
                if self._manifest.steps[name].status == "done":
                    self._tell(f"{name}: left out; what it made is kept")

    def _not_made(self, name: str, status: str) -> None:
        """Say so of a step; what it made earlier is not forgotten as long as it is there."""
        record = self._manifest.steps.get(name)
        if record is None or not self._is_whole(record):
            self._note(name, Record(status))

    def _is_whole(self, record: Record) -> bool:
        """Whether a step is done and everything it made is there as it made it."""
        made = record.outputs.items()
        return record.status == "done" and all(digest_of(self._folder / path) == o["sha256"] for path, o in made)

    def _note(self, name: str, record: Record) -> None:
        self._manifest = self._manifest.with_step(name, record)
        self._manifest.save(self._folder)

    def _given(self, step: Step, head: str) -> None:
        path = self._setup.use[step.name]
        self._tell(f"{head}: {path} stands for it")
        if step.name == "train":
            self._remember_provenance(path)
        self._note(step.name, Record("given", outputs={path.name: {"sha256": str(digest_of(path))}}))
        self._clear_work(step.name)

    def _make(self, one: Planned, head: str) -> None:
        step, began = one.step, time.monotonic()
        record = Record(
            "running", command=step.command(), started=_now(), inputs=self._inputs(step), versions=versions()
        )
        work = self._prepare(step, record, afresh=one.reason == ASKED_FOR)
        self._note(step.name, record)
        self._tell(f"{head}: {one.reason}")
        self._tell(f"$ {shlex.join(['gascnn', *step.typed()])}")
        try:
            ended = self._chain.run(step.typed(), self._folder.resolve(), work, self._lock)
        except KeyboardInterrupt:
            self._note(step.name, replace(record, status="interrupted", **_until_now(began)))
            raise
        record = replace(record, **_until_now(began))
        if ended.status == _INTERRUPTED:
            self._note(step.name, replace(record, status="interrupted"))
            raise KeyboardInterrupt
        missing = [path for path in step.outputs if not (self._folder / path).exists()]
        if ended.status or missing:
            self._fail(step, record, ended, missing)
        strip_places(self._folder / step.result, self._setup.use.values())
        outputs = {path: described(self._folder / path) for path in step.outputs}
        figures = _figures(self._folder / step.result, step.figures)
        if step.name == "train":
            self._remember_provenance(self._folder / step.output)
        self._note(step.name, replace(record, status="done", outputs=outputs, figures=figures))
        self._clear_work(step.name)
        self._tell(f"{head}: {record.seconds:.1f} s")

    def _fail(self, step: Step, record: Record, ended: Ended, missing: Sequence[str]) -> None:
        if ended.status:
            how = f"exit status {ended.status}" if ended.status > 0 else f"killed by signal {-ended.status}"
        else:
            how = f"it did not write {missing[0]}"
        said = f": {ended.last_line}" if ended.last_line else ""
        data = self._setup.data
        by_path = step.real_data and data.given != data.name
        names_a_file = by_path and (ended.status == 2 or data.given in said)  # 2: bad input, which may be any file
        kept = (
            "; what it said names files of the data set and is not kept"
            if names_a_file
            else without_places(said, self._setup.use.values())
        )
        self._note(step.name, replace(record, status="failed", error=f"{how}{kept}"))
        leave = f"; --skip {step.name} does without it" if step.name in ("verify", "report") else ""
        raise StepFailed(
            f"step {step.name} failed, {how}{said}; what was made is kept: mend it and type the same again{leave}",
            2 if ended.status == 2 else 1,
        )

    def _inputs(self, step: Step) -> dict[str, str]:
        """SHA-256 of everything it reads, by the name of who made it."""
        found = {} if not step.real_data else {"data": str(self._setup.data.sha256)}
        for name in step.reads:
            given = self._setup.use.get(name)
            key = OUTPUTS[name] if given is None else given.name
            found[name] = str(self._manifest.steps[name].outputs[key]["sha256"])
        return found

    def _prepare(self, step: Step, record: Record, *, afresh: bool) -> Path:
        """Clear what an earlier attempt left; its checkpoints stay if it was the same command with the same inputs."""
        for path in (self._folder / name for name in step.outputs):
            _remove(path)
            for leftover in path.parent.glob(f".{path.name}.*"):
                _remove(leftover)
        work = self._folder.resolve() / WORK / step.name
        old = self._manifest.steps.get(step.name)
        same = old is not None and (old.command, old.inputs) == (record.command, record.inputs)
        if afresh or not same:
            _remove(work)
        work.mkdir(parents=True, exist_ok=True)
        (self._folder / RESULTS).mkdir(exist_ok=True)
        return work

    def _remember_provenance(self, bundle: Path) -> None:
        """SHA-256 of what the ResNet's bundle says of the images it was trained on."""
        digest = provenance_digest(bundle)
        self._manifest = replace(self._manifest, data={**self._manifest.data, "provenance_sha256": digest})

    def _clear_work(self, name: str) -> None:
        """Delete a step's checkpoints, among them pictures a GAN made of real images."""
        _remove(self._folder / WORK / name)
        with contextlib.suppress(OSError):  # not there, or another step was interrupted once
            (self._folder / WORK).rmdir()

    def _clear_what_nobody_goes_on_with(self) -> None:
        """Keep the checkpoints of this chain's steps that were begun and not ended, and of no other."""
        work = self._folder / WORK
        left_out = self._setup.skip | absent_steps(self._setup.synthetic)
        for name in sorted(os.listdir(work)) if work.is_dir() else []:
            record = self._manifest.steps.get(name)
            begun = record is not None and record.status in BEGUN
            if not begun or name in left_out:
                self._clear_work(name)
            if begun and name in left_out:
                self._not_made(name, "skipped")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; a command of ours holds it too, as long as it lives.

    Raises:
        UsageError: another chain is at work there.
    """
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S  # the last command of a killed chain is about to end
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise UsageError(f"another chain is at work in {folder}; wait for it, or name another") from error
            time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _until_now(began: float) -> dict[str, Any]:
    return {"ended": _now(), "seconds": round(time.monotonic() - began, 3)}


def _figures(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Values of a result by dotted keys; what it does not have is left out."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {}
    for name in names:
        value = result
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[name] = value
    return found
