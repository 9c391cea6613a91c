"""``gascnn demo``: the main job from images to spikes in Lava and a report, each step as a user would type it."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import click

from gascnn.toolkit.bundle import is_bundle
from gascnn.toolkit.cli import COMMANDS, options
from gascnn.toolkit.cli.output import percent, save_json, say, table
from gascnn.toolkit.errors import CheckFailed

RESETS = ("zero", "subtract")
REPORTED, REPORT_IMAGES = "subtract", 200


@click.command("demo", short_help=COMMANDS["demo"])
@options.data(help_text="Data set.  [default: digits, which needs no download]")
@click.option("--no-lava", is_flag=True, help="Leave out the runs in Lava.")
@options.steps("T, input steps an image.  [default: 64]")
@click.option("--preset", metavar="NAME", help="Training recipe. Default: that of the data set.")
@click.option("--verify-images", type=int, default=5, show_default=True, help="Images compared with Lava, each reset.")
@click.option("--fresh", is_flag=True, help="Train and convert again even where an earlier demo left its results.")
@options.output("Folder for everything it makes.  [default: gascnn-demo]", required=False)
@options.json_file
def command(
    data: str | None,
    data_dir: Path | None,
    no_lava: bool,
    steps: int | None,
    preset: str | None,
    verify_images: int,
    fresh: bool,
    output: Path | None,
    json_path: Path | None,
) -> None:
    """Train a ResNet on real images, convert it to spikes, export it to NetX, run it in the real Lava and verify it.

    Does so for both resets: zero, whose file stock NetX loads unchanged, and subtract, which loses least. Ends with the
    report of the latter beside the ANN: accuracy, energy, latency. Every step prints the command that does it.
    """
    options.positive("--verify-images", verify_images)
    options.positive("--steps", steps)
    demo = _Demo(data or "digits", data_dir, output or Path("gascnn-demo"), steps or 64, fresh)
    result = demo.run(preset, verify_images, lava=not no_lava)
    save_json(json_path, result)
    failed = [reset for reset in RESETS if not result[reset].get("verify", {"passed": True})["passed"]]
    if failed:
        raise CheckFailed(f"verification failed for reset {' and '.join(failed)}; see above")


class _Demo:
    def __init__(self, data: str, data_dir: Path | None, folder: Path, steps: int, fresh: bool) -> None:
        self.data, self.folder, self.steps, self.fresh = data, folder, steps, fresh
        self.where = [] if data_dir is None else ["--data-dir", str(data_dir)]

    def run(self, preset: str | None, images: int, *, lava: bool) -> dict[str, Any]:
        """All steps; returns their results."""
        started = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {"train": self._train(preset)}
        for reset in RESETS:
            network = self.folder / f"{reset}.net"
            result[reset] = {
                "export": self._command(
                    "export", self.folder / "ann", "--target", "lava", "--reset", reset, "--steps", self.steps,
                    *self._data(), "--limit", 1000, "-o", network,
                )
            }  # fmt: skip
            if lava:
                result[reset]["verify"] = self._command("verify", network, *self._data(), "--limit", images)
        folder = self.folder / "report"
        report = self._command(
            "bench run", self.folder / f"{REPORTED}.net", "--baseline", self.folder / "ann", *self._data(), "--limit",
            REPORT_IMAGES, "--latency-s", 10, "-o", folder,
        )  # fmt: skip
        result["report"] = {"folder": str(folder), "headline": report["headline"], "notes": report["notes"]}
        result["time_s"] = round(time.perf_counter() - started, 1)
        self._summary(result)
        self._end(report, folder)
        return result

    def _data(self) -> list[str]:
        return ["--data", self.data, *self.where]

    def _train(self, preset: str | None) -> dict[str, Any]:
        bundle, saved = self.folder / "ann", self.folder / "train.json"
        if is_bundle(bundle) and saved.is_file() and not self.fresh:
            say(f"{bundle} is there from an earlier demo (--fresh trains again)")
            found: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8"))
            return found
        chosen = [] if preset is None else ["--preset", preset]
        # A run that was interrupted goes on; one that ended is begun anew with --fresh.
        resume = [] if self.fresh else ["--resume"]
        run = self._cleared(self.folder / "checkpoints")
        result = self._command("train", *self._data(), *chosen, *resume, "--run-folder", run, "-o", bundle)
        save_json(saved, result)
        return result

    def _cleared(self, run: Path) -> Path:
        if self.fresh and (run / "run.json").is_file():
            for file in run.iterdir():
                file.unlink()
        return run

    def _command(self, name: str, *arguments: object) -> dict[str, Any]:
        """Run a command of ours, as a user would type it, in this process."""
        from importlib import import_module

        words = [str(a) for a in arguments]
        say()
        say(f"$ gascnn {name} {shlex.join(words)}")
        module = import_module(f"gascnn.toolkit.cli.{name.replace(' ', '_')}")
        with module.command.make_context(f"gascnn {name}", words) as context:
            result: dict[str, Any] = module.execute(**context.params)
        return result

    def _end(self, report: dict[str, Any], folder: Path) -> None:
        """The last lines: where the report is, and the three figures that matter."""
        from gascnn.benchmarks.report.summary import headline
        from gascnn.toolkit.cli.bench_run import PAGE_FILE

        say(f"report of reset {REPORTED} beside the ANN, for any browser: {folder / PAGE_FILE}")
        for line in headline(report):
            say(line)

    def _summary(self, result: dict[str, Any]) -> None:
        say()
        ann = result["train"]["metrics"]["test"]
        rows: list[tuple[object, ...]] = [
            ("ANN", ann["images"], percent(ann["accuracy"]), percent(ann["macro_f1"]), "-")
        ]
        for reset in RESETS:
            expected = result[reset]["export"]["expected"]
            check = result[reset].get("verify")
            state = "not run" if check is None else ("equal, spike for spike" if check["passed"] else "DIFFERENT")
            rows.append(
                (
                    f"SNN, reset {reset}, T = {self.steps}",
                    expected["images"],
                    percent(expected["accuracy"]),
                    percent(expected["macro_f1"]),
                    state,
                )
            )
        table(("network", "test images", "accuracy", "macro-F1", "Lava against simulator"), rows)
        say(f"everything is in {self.folder}; {result['time_s']} s")
