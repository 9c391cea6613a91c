"""Measure a deployed network beside its ANN: all that ``report.json`` holds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from gascnn.benchmarks import machine
from gascnn.benchmarks.bootstrap import estimate
from gascnn.benchmarks.energy.bill import Bill, bill, ratio_range
from gascnn.benchmarks.energy.tables import TABLES, chosen_tables
from gascnn.benchmarks.latency.curve import decision_curve
from gascnn.benchmarks.paper_energy import paper_energy
from gascnn.benchmarks.report.document import FORMAT, KIND
from gascnn.benchmarks.report.examples import choose, examples
from gascnn.benchmarks.report.settings import ReportSettings
from gascnn.benchmarks.report.sides import Baseline, Images, Labels, check_pair
from gascnn.benchmarks.report.snn import SnnRun, curve_point, run_counted
from gascnn.benchmarks.report.summary import number
from gascnn.benchmarks.report.timing import Begin, measure_latency, measure_power
from gascnn.benchmarks.resources import resources
from gascnn.exporters.onnx.export import export_resnet
from gascnn.exporters.onnx.metadata import own_version
from gascnn.hardware.backends import NetxFile
from gascnn.hardware.edge import EdgeModel
from gascnn.hardware.simulator import Simulator
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.lowering.chips import CHIPS
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import NetxNetwork

HEADLINE_TABLE = "45nm-int32"
"""The paper's: additions of 0.1 pJ against multiply-accumulates of 3.2 pJ."""

FEW_IMAGES = 100
"""Below so many an accuracy's interval is wide enough to be told in the notes."""


@dataclass(frozen=True, eq=False)
class Data:
    """Images to report on.

    Attributes:
        name: of the data set.
        split: which part of it.
        images, labels: all of them.
        calibration: training images of every class, for the 8-bit ANN.
        rule: how the data was divided.
    """

    name: str
    split: str
    images: Images
    labels: Labels
    calibration: Images
    rule: str = ""


def measure(
    file: NetxFile, baseline: Baseline, data: Data, settings: ReportSettings, *, command: str = "", begin: Begin
) -> dict[str, Any]:
    """Measure everything.

    Args:
        file: the deployed network.
        baseline: its ANN.
        data: test images, which nothing was fitted or chosen with.
        settings: what is measured.
        command: what was typed.
        begin: told each stage.

    Returns:
        The report: see ``schema.json`` and ``docs/report.md``.

    Raises:
        DataError: no images, or classes, shapes or a framing that are not the ANN's.
        UsageError: a foreign network, or a table that is not known.
        BackendError: a backend broke.
    """
    started, found_on = time.perf_counter(), machine.describe()
    deployment = check_pair(file, baseline)
    if not len(data.images):
        raise DataError(f"{data.name} has no {data.split} images; a report needs at least one")
    network, tables = file.network, chosen_tables(settings.tables)
    simulator = Simulator(network, threads=settings.threads)
    runs = _runs(network, simulator, data, deployment, settings, begin)
    run = runs[deployment.steps]
    ann = baseline.answers(data.images)
    bills = bill(network, run.counts, baseline.work, tables)
    decision = decision_curve(file, data.images, data.labels, skip_steps=deployment.skip_steps, read_outs=run.read_outs)
    with tempfile.TemporaryDirectory(prefix="gascnn-report-") as folder:
        exported = _exported(baseline, data, Path(folder))
        int8 = EdgeModel(exported["int8"]).predict(data.images)
        latency = measure_latency(file, baseline, exported, data.images, data.labels, settings, found_on["load"], begin)
        power = measure_power(file, exported, data.images, settings, begin)
    points = [
        curve_point(one, network, data.labels, ann, baseline.work, TABLES[HEADLINE_TABLE]) for one in runs.values()
    ]
    report = {
        "format": FORMAT,
        "kind": KIND,
        "version": own_version(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "machine": found_on,
        "settings": settings.to_dict(),
        "seeds": {"coding": deployment.seed if settings.seed is None else settings.seed},
        "data": _data(data, deployment),
        "snn": _snn(file, deployment, run),
        "ann": _ann(baseline),
        "accuracy": _accuracy(data, ann, int8, run.answers),
        "activity": run.activity.to_dict(),
        "counts": run.counts.to_dict(),
        "energy": _energy(bills, run, baseline),
        "curve": points,
        "decision": decision,
        "latency": latency,
        "power": power,
        "resources": [resources(network, chip).to_dict() for chip in CHIPS],
        "examples": _examples(network, simulator, data, ann, run, deployment, settings),
    }
    report["headline"] = _headline(report)
    report["notes"] = notes(report)
    report["time_s"] = round(time.perf_counter() - started, 1)
    return report


def _runs(
    network: NetxNetwork,
    simulator: Simulator,
    data: Data,
    deployment: Deployment,
    settings: ReportSettings,
    begin: Begin,
) -> dict[int, SnnRun]:
    """By T, ascending: the same integers with each T."""
    found, one_thread = {}, Simulator(network, threads=1)
    for steps in settings.curve_steps(deployment.steps, deployment.skip_steps):
        found[steps] = run_counted(
            network,
            simulator,
            one_thread,
            data.images,
            steps=steps,
            skip_steps=deployment.skip_steps,
            seed=settings.seed,
            batch_size=settings.batch_size,
            told=begin(f"SNN, T = {steps}", len(data.images)),
        )
    return found


def _exported(baseline: Baseline, data: Data, folder: Path) -> dict[str, Path]:
    """The ANN as ONNX files, in float32 and in 8 bits."""
    paths = {"fp32": folder / "ann.onnx", "int8": folder / "ann-int8.onnx"}
    export_resnet(baseline.path, paths["fp32"])
    export_resnet(
        baseline.path,
        paths["int8"],
        calibration=data.calibration,
        calibrated_on=f"{data.name}, train split",
    )
    return paths


def _data(data: Data, deployment: Deployment) -> dict[str, Any]:
    return {
        "name": data.name,
        "split": data.split,
        "images": len(data.images),
        "classes": list(deployment.classes),
        "image_shape": list(deployment.image_shape),
        "framing": deployment.framing,
        "rule": data.rule,
    }


def _snn(file: NetxFile, deployment: Deployment, run: SnnRun) -> dict[str, Any]:
    network = file.network
    return {
        "file": file.path.name,
        "sha256": file.sha256,
        "network_digest": network.digest(),
        "unchanged": file.unchanged,
        "reset": "sigma-delta" if network.sigma_delta else network.reset,
        "coding": deployment.coding,
        "grade": deployment.grade,
        "steps": deployment.steps,
        "skip_steps": deployment.skip_steps,
        "depth": network.depth,
        "neurons": network.neurons,
        "wraps": run.wraps,
    }


def _ann(baseline: Baseline) -> dict[str, Any]:
    return {
        "bundle": baseline.path.name,
        "sha256": baseline.sha256,
        "parameters": baseline.parameters,
        "macs": baseline.work.macs,
        "framework_macs": baseline.work.framework_macs,
    }


def _accuracy(data: Data, ann: Labels, int8: Labels, snn: Labels) -> dict[str, Any]:
    answers: Mapping[str, Labels] = {"ann": ann, "ann-int8": int8, "snn": snn}
    classes = range(int(max(np.max(data.labels), *(np.max(one) for one in answers.values()))) + 1)
    return {
        "networks": {
            name: {
                key: value.to_dict()
                for key, value in estimate(data.labels, one, None if name == "ann" else ann).items()
            }
            for name, one in answers.items()
        },
        "agreement": {name: float(np.mean(one == ann)) for name, one in answers.items() if name != "ann"},
        "confusion": {
            name: confusion_matrix(data.labels, one, labels=classes).tolist() for name, one in answers.items()
        },
    }


def _energy(bills: list[Bill], run: SnnRun, baseline: Baseline) -> dict[str, Any]:
    return {
        "bills": [one.to_dict() for one in bills],
        "range": ratio_range(bills),
        "paper": paper_energy(run.counts, baseline.work.macs).to_dict(),
    }


def _examples(
    network: NetxNetwork,
    simulator: Simulator,
    data: Data,
    ann: Labels,
    run: SnnRun,
    deployment: Deployment,
    settings: ReportSettings,
) -> list[dict[str, Any]]:
    chosen = choose(data.labels, run.answers, settings.examples)
    found = examples(
        network,
        simulator,
        data.images,
        chosen,
        steps=deployment.steps,
        skip_steps=deployment.skip_steps,
        seed=settings.seed,
    )
    return [one | {"label": int(data.labels[one["index"]]), "ann": int(ann[one["index"]])} for one in found]


def _headline(report: dict[str, Any]) -> dict[str, Any]:
    """The three figures that matter: accuracy, energy, latency."""
    networks = report["accuracy"]["networks"]
    billed = next((one for one in report["energy"]["bills"] if one["table"] == HEADLINE_TABLE), None)
    timed = {one["name"]: one["p50_s"] for one in report["latency"]["contenders"]}
    return {
        "accuracy": {
            "ann": networks["ann"]["accuracy"]["value"],
            "snn": networks["snn"]["accuracy"]["value"],
            "below": networks["snn"]["accuracy_below"],
        },
        "energy": {
            "table": HEADLINE_TABLE,
            "ratio": None if billed is None else billed["ratio"],
            "range": report["energy"]["range"],
        },
        "latency": {
            name: None if timed.get(key) is None else timed[key]["value"]
            for name, key in (("ann_p50_s", "onnxruntime-fp32"), ("snn_p50_s", "simulator"))
        },
    }


def notes(report: dict[str, Any]) -> list[str]:
    """What a reader must know before quoting a figure."""
    found: list[str] = []
    images, steps = report["data"]["images"], report["snn"]["steps"]
    if images < FEW_IMAGES:
        found.append(f"Only {images} images: accuracies have wide intervals; quote these with them.")
    if report["snn"]["unchanged"] is False:
        found.append("The file's integers are not those it was exported with: somebody changed them.")
    if steps == 1:
        found.append("T = 1: a neuron can spike once at most, so firing rates are 0 or 1 and there is no curve over T.")
    spread = report["energy"]["range"]["ann"]
    if spread["wins"] < spread["of"]:
        found.append(_loses(report["energy"]["bills"], spread))
    small = report["energy"]["range"]["int8_ann"]
    if small["wins"] < small["of"]:
        found.append(
            f"Against the ANN in 8 bits the SNN needs less energy under {small['wins']} of {small['of']} tables."
        )
    below = report["accuracy"]["networks"]["snn"]["accuracy_below"]
    if below["interval"][0] > 0:
        found.append(
            f"The SNN is {100 * below['value']:.2f} points less accurate than the ANN (95 %: "
            f"{100 * below['interval'][0]:.2f} to {100 * below['interval'][1]:.2f})."
        )
    if report["snn"]["wraps"]:
        found.append(f"{report['snn']['wraps']} currents wrapped at 24 bits, as they would on the chip.")
    if not report["power"]["measured"]:
        found.append("No energy was measured: " + _why_no_meter(report["power"]))
    found += [f"Meter {one['name']}: {one['why']}" for one in report["power"]["failed"]]
    return [*found, *report["latency"]["notes"]]


def _loses(bills: list[dict[str, Any]], spread: dict[str, Any]) -> str:
    """One sentence where the SNN needs more energy."""
    losing = sorted(
        (one for one in bills if one["ratio"] is not None and one["ratio"] <= 1), key=lambda one: one["ratio"]
    )
    worst, least = losing[0], losing[-1]
    span = f"{number(1 / worst['ratio'])} times as much by {worst['title']}"
    if len(losing) > 1:
        span = f"from {number(1 / least['ratio'])} times as much ({least['title']}) to {span}"
    return (
        f"The SNN needs more energy than the ANN under {len(losing)} of {spread['of']} cost tables, {span}; "
        "each has its sentence under Energy."
    )


def _why_no_meter(power: dict[str, Any]) -> str:
    if power["skipped"]:
        return "meters were not asked. Energies are counts times published costs."
    return "no power meter is readable here. Energies are counts times published costs."
