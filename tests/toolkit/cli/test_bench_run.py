"""``gascnn bench run``: figures against independent ones, and the page in a real browser."""

import dataclasses
import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gascnn.benchmarks.report import charts, measure, timing
from gascnn.benchmarks.report.document import check, read_report
from gascnn.benchmarks.report.examples import choose
from gascnn.benchmarks.report.page import render
from gascnn.benchmarks.report.summary import number, points
from gascnn.exporters.netx import read_netx, write_netx
from gascnn.hardware.backends import open_netx, run_images
from gascnn.models.resnet import resnet
from gascnn.toolkit.bundle import load_bundle, save_bundle
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import BackendError, FormatError, UsageError
from gascnn.toolkit.files import sha256_file
from gascnn.toolkit.training.bundles import build_model, to_bundle

IMAGES = 40


@pytest.fixture(scope="module")
def browser():
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(models, tmp_path_factory):
    """The report's folder, what was shown, and the report."""
    from click.testing import CliRunner

    from gascnn.toolkit.cli import cli

    folder = tmp_path_factory.mktemp("report") / "report"
    words = ["bench", "run", str(models.subtract), "--baseline", str(models.ann), "--data", "digits", "--limit",
             str(IMAGES), "--latency-s", "1", "--examples", "4", "--no-meters", "-o", str(folder)]  # fmt: skip
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    return folder, done.output, json.loads((folder / "report.json").read_text())


def test_answers_are_the_networks_own(made, models):
    report = made[2]
    test = load_dataset("digits").test
    images, labels = test.images[:IMAGES], test.labels[:IMAGES]
    snn = run_images(open_netx(models.subtract), images).predictions()
    bundle = load_bundle(models.ann)
    with torch.no_grad():
        ann = build_model(bundle)(torch.from_numpy(images).float() / bundle.pixel_max).argmax(1).numpy()
    networks = report["accuracy"]["networks"]
    assert networks["snn"]["accuracy"]["value"] == pytest.approx(np.mean(snn == labels))
    assert networks["ann"]["accuracy"]["value"] == pytest.approx(np.mean(ann == labels))
    assert networks["snn"]["accuracy_below"]["value"] == pytest.approx(np.mean(ann == labels) - np.mean(snn == labels))
    assert report["accuracy"]["agreement"]["snn"] == pytest.approx(np.mean(snn == ann))
    for name, answers in (("snn", snn), ("ann", ann)):
        expected = [[int(np.sum((labels == row) & (answers == column))) for column in range(10)] for row in range(10)]
        assert report["accuracy"]["confusion"][name] == expected
    assert report["snn"]["sha256"] == sha256_file(models.subtract)
    for one in report["examples"]:
        assert (one["label"], one["answer"], one["ann"]) == (labels[one["index"]], snn[one["index"]], ann[one["index"]])
        assert np.array_equal(one["pixels"], images[one["index"]][0])


def test_spikes_are_those_of_the_run(made, models):
    report = made[2]
    result = run_images(open_netx(models.subtract), load_dataset("digits").test.images[:IMAGES], record="spikes")
    for layer, spikes in zip(report["activity"]["layers"], result.spikes, strict=True):
        assert sum(layer["spikes"].values()) == pytest.approx(spikes.sum() / IMAGES)
        by_step = np.sum([layer["by_step"]["spikes"][kind] for kind in layer["spikes"]], axis=0)
        assert by_step == pytest.approx(spikes.reshape(*spikes.shape[:2], -1).sum(axis=(0, 2)) / IMAGES)
    assert report["activity"]["synaptic_operations"] == pytest.approx(report["counts"]["synaptic_operations"])
    example = report["examples"][0]
    drawn = example["spikes"][-1]
    last = result.spikes[-1][example["index"]]
    assert sorted(zip(drawn["steps"], drawn["rows"], strict=True)) == sorted(zip(*np.nonzero(last), strict=True))


def test_energy_is_the_counts_times_the_costs(made, models):
    report = made[2]
    bills = {one["table"]: one for one in report["energy"]["bills"]}
    counts, macs = report["counts"], report["ann"]["macs"]
    assert bills["45nm-int32"]["ann_pj"] == pytest.approx(3.2 * macs)
    assert bills["45nm-int32"]["snn_pj"] == pytest.approx(0.1 * counts["additions"])
    assert bills["loihi"]["snn_pj"] == pytest.approx(
        27.1 * counts["synaptic_operations"] + 81 * counts["neuron_updates"]
    )
    assert bills["45nm-int32"]["ratio"] == pytest.approx(report["energy"]["paper"]["ratio"])
    assert report["headline"]["energy"]["ratio"] == bills["45nm-int32"]["ratio"]
    # By torch's own counter, padding included, more than by ours.
    assert report["ann"]["framework_macs"] > macs
    losing = [one for one in report["energy"]["bills"] if one["ratio"] < 1]
    assert losing
    said = f"The SNN needs more energy than the ANN under {len(losing)} of {len(bills)} cost tables"
    assert sum(said in note for note in report["notes"]) == 1


def test_the_curve_runs_the_same_integers_with_each_t(made, models):
    report = made[2]
    test = load_dataset("digits").test
    assert [point["steps"] for point in report["curve"]] == [2, 4, 8, 16]
    for point in report["curve"]:
        found = run_images(open_netx(models.subtract), test.images[:IMAGES], steps=point["steps"]).predictions()
        assert point["accuracy"]["value"] == pytest.approx(np.mean(found == test.labels[:IMAGES]))
        assert point["latency_s"] > 0
    assert report["decision"]["points"][-1]["accuracy"]["value"] == pytest.approx(report["headline"]["accuracy"]["snn"])


def test_the_command_is_as_it_was_typed(made, models):
    assert made[2]["command"] == (
        f"gascnn bench run {models.subtract.name} --baseline {models.ann.name} --data digits --limit 40 "
        "--output report --latency-s 1.0 --examples 4 --no-meters"
    )


@pytest.mark.parametrize(
    ("wrong", "count", "expected"),
    [
        ([1, 4], 4, [0, 1, 2, 4]),  # half of them wrong
        ([1, 2, 3, 4, 5], 4, [0, 1, 2, 3]),  # only one is right
        ([], 3, [0, 1, 2]),
        ([0, 1, 2, 3, 4, 5], 4, [0, 1, 2, 3]),
        ([5], 9, [0, 1, 2, 3, 4, 5]),
        ([3], 1, [0]),
        ([3], 0, []),
    ],
)
def test_which_images_are_shown(wrong, count, expected):
    labels = np.zeros(6, dtype=np.int64)
    answers = np.isin(np.arange(6), wrong).astype(np.int64)
    assert choose(labels, answers, count) == expected


def test_the_8_bit_anns_images_are_of_every_class(models):
    from gascnn.toolkit.cli.bench_run import open_pair

    data = open_pair(models.zero, models.ann, "digits", None, 3)[2]
    train = load_dataset("digits").train
    of_class = {image.tobytes(): label for image, label in zip(train.images, train.labels.tolist(), strict=True)}
    assert len(data.calibration) == 256
    assert {of_class[image.tobytes()] for image in data.calibration} == set(range(10))


def test_what_is_shown_ends_with_the_three_figures(made):
    folder, shown, report = made
    lines = shown.strip().splitlines()
    assert lines[-1] == f"report: {folder / 'report.html'}"
    assert [line.split(":")[0] for line in lines[-4:-1]] == ["accuracy", "energy", "latency here"]
    assert f"{100 * report['headline']['accuracy']['snn']:.2f} % of the SNN" in lines[-4]
    assert "Only 40 images" in shown
    names = {one["name"] for one in report["latency"]["contenders"]}
    assert names == {"onnxruntime-fp32", "onnxruntime-int8", "torch", "simulator"}
    assert {one["name"] for one in report["latency"]["left_out"]} == {"lava", "loihi"}


def test_above_is_not_minus_below():
    assert points({"value": 0.015, "interval": [-0.01, 0.04]}) == "1.50 points below, 95 %: -1.00 to 4.00"
    assert points({"value": -0.015, "interval": [-0.045, 0.01]}) == "1.50 points above, 95 %: -1.00 to 4.50"
    assert (number(999.7), number(0.012345), number(12345.6), number(None)) == ("1,000", "0.0123", "12,346", "-")


def test_the_page_in_a_browser(made, browser, tmp_path):
    page = made[0] / "report.html"
    text = page.read_text()
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", re.sub(r'src="data:[^"]+"', "", text))
    logged, asked = browser.logged_and_asked(tmp_path, page)
    assert (logged, asked) == ([], set())
    for width in (1400, 400):
        found = browser.layout(tmp_path, page, width)
        assert found["width"] == width
        assert found["scroll"] <= width, found
        assert found["outside"] == []
        assert found["drawn"] == found["images"] > 15
        assert found["rows"] > 40
    printed = tmp_path / "report.pdf"
    browser.run(tmp_path, page, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) <= 30


def test_the_browsers_own_checks_can_fail(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        '<html><head><meta http-equiv="Content-Security-Policy" content=""><title>x</title></head><body><main><script>'
        'console.error("broken")</script><img src="http://127.0.0.1:9/x.png"><p style="width:3000px">wide</p></main>'
        "</body></html>"
    )
    logged, asked = browser.logged_and_asked(tmp_path, page)
    assert any("broken" in line for line in logged)
    assert any("127.0.0.1:9" in url for url in asked)
    found = browser.layout(tmp_path, page, 400)
    assert found["scroll"] > 400
    assert found["outside"]
    assert found["drawn"] < found["images"]


def test_colours_are_told_apart_without_red_or_green():
    """By the matrices of Machado, Oliveira and Fernandes (2009) for severity 1, in linear RGB."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }
    srgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in charts.COLOURS])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for matrix in matrices.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
        assert min(distances) > 0.08
    assert len(set(charts.HATCHES)) == len(charts.HATCHES) >= len(charts.COLOURS)


def test_texts_from_elsewhere_are_escaped(made):
    report = json.loads(json.dumps(made[2]))
    report["data"]["name"] = report["command"] = "<img src=x onerror=alert(1)>"
    report["data"]["classes"][0] = "<b>"
    page = render(report)
    assert "<img src=x" not in page
    assert "<b>" not in re.sub(r"<b>(Read this first|[^<]*)</b>", "", page)


def test_the_report_is_checked(made, tmp_path):
    report = made[2]
    check(report)
    assert read_report(made[0] / "report.json") == report
    for change, said in (
        ({"format": 2}, "format 2; this version reads format 1"),
        ({"kind": "other"}, "kind: 'gascnn report' was expected"),
        ({"notes": None}, "notes: None is not of type 'array'"),
        ({"extra": 1}, "'extra' was unexpected"),
    ):
        with pytest.raises(FormatError, match=re.escape(said)):
            check(report | change)
    broken = json.loads(json.dumps(report))
    broken["accuracy"]["networks"]["snn"]["accuracy"]["value"] = 1.5
    with pytest.raises(FormatError, match=r"accuracy/networks/snn/accuracy/value: 1\.5 is greater"):
        check(broken)
    for text in ("{", "[" * 100_000, '{"kind": 1}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FormatError, match=r"bad\.json"):
            read_report(tmp_path / "bad.json")
    with pytest.raises(FormatError, match="none"):
        read_report(tmp_path / "none.json")


def test_one_step(gascnn, models, tmp_path):
    network = read_netx(models.zero)
    deployment = dataclasses.replace(network.deployment, steps=1, skip_steps=0)
    write_netx(dataclasses.replace(network, deployment=deployment), tmp_path / "one.net")
    outcome = gascnn("bench", "run", tmp_path / "one.net", "--baseline", models.ann, "--data", "digits", "--limit", 5,
                     "--latency-s", 0.2, "--no-meters", "--examples", 0, "-o", tmp_path / "r")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "T = 1: a neuron can spike once at most" in outcome.out
    report = read_report(tmp_path / "r/report.json")
    assert [point["steps"] for point in report["curve"]] == [1]
    assert len(report["decision"]["points"]) == 1


def test_what_cannot_be_compared(gascnn, models, tmp_path):
    common = ("--data", "digits", "--no-meters")
    torch.manual_seed(0)
    for name, classes, size in (("few", "abc", 8), ("large", "0123456789", 10)):
        model = resnet(classes=len(classes), blocks=(1,), width=4, image_size=size)
        save_bundle(to_bundle(model.eval(), tuple(classes), (1, size, size)), tmp_path / name)
    outcome = gascnn("bench", "run", models.zero, "--baseline", tmp_path / "few", *common)
    assert outcome.status == 2
    assert "has classes 0, 1, 2" in outcome.error
    assert "a, b, c" in outcome.error
    assert "images of shape" in gascnn("bench", "run", models.zero, "--baseline", tmp_path / "large", *common).error
    assert "is no NetX file" in gascnn("bench", "run", models.ann, "--baseline", models.ann, *common).error
    assert "is no ANN" in gascnn("bench", "run", models.zero, "--baseline", models.zero, *common).error
    foreign = dataclasses.replace(read_netx(models.zero), deployment=None)
    write_netx(foreign, tmp_path / "foreign.net")
    outcome = gascnn("bench", "run", tmp_path / "foreign.net", "--baseline", models.ann, *common)
    assert "does not say how it is fed" in outcome.error
    for more, said in (
        (("--steps", "0"), "steps are (0,)"),
        (("--steps", "x"), "--steps is 'x'"),
        (("--tables", "gold"), "unknown cost table 'gold'"),
        (("--limit", "0"), "--limit is 0"),
        (("--latency-s", "0"), "latency_s is 0"),
        (("-o", models.zero), "is a file"),
    ):
        assert said in gascnn("bench", "run", models.zero, "--baseline", models.ann, *common, *more).error
    assert not (tmp_path / "r").exists()


def test_no_images(models):
    from gascnn.toolkit.cli.bench_run import open_pair

    opened, ann, data = open_pair(models.zero, models.ann, "digits", None, 3)
    empty = dataclasses.replace(data, images=data.images[:0], labels=data.labels[:0])
    with pytest.raises(Exception, match="digits has no test images; a report needs at least one"):
        measure.measure(opened.netx, ann, empty, measure.ReportSettings(), begin=lambda what, images: lambda done: None)


def test_a_meter_that_vanishes_is_said_and_nothing_is_made_up(made, models, monkeypatch):
    class Meter:
        name, description, kind = "ina3221", "all rails", "power samples"

    def vanish(meter, work, **settings):
        assert work() == 1
        raise BackendError("the ina3221 meter vanished 3.0 s after the measurement began; no energy figure is given")

    monkeypatch.setattr(timing, "detect_meters", lambda: ([Meter()], []))
    monkeypatch.setattr(timing, "measure_energy", vanish)
    from gascnn.benchmarks.report.settings import ReportSettings
    from gascnn.benchmarks.report.sides import open_baseline

    ann = open_baseline(models.ann, load_bundle(models.ann))
    from gascnn.exporters.onnx.export import export_resnet

    exported = {"fp32": made[0] / "a.onnx", "int8": made[0] / "b.onnx"}
    images = load_dataset("digits").test.images[:4]
    export_resnet(models.ann, exported["fp32"])
    export_resnet(models.ann, exported["int8"], calibration=images)
    found = timing.measure_power(
        open_netx(models.zero), exported, images, ReportSettings(), lambda what, count: lambda done: None
    )
    assert found["measured"] == []
    assert "vanished 3.0 s" in found["failed"][0]["why"]
    report = made[2] | {"power": found}
    check(report)
    assert any("ina3221" in note and "vanished" in note for note in measure.notes(report))
    assert ann.parameters > 0


def test_without_the_extra(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"install gascnn\[bench\]"):
        render(made[2])
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(UsageError, match=r"install gascnn\[bench\]"):
        check(made[2])
