"""``gascnn bench pack`` and ``merge``: from a network to a folder, from two results to one report."""

import json
import subprocess
import sys
from datetime import datetime, timezone

import pytest

from gascnn.benchmarks.board.merge import merge
from gascnn.benchmarks.report.boards_page import render_boards


@pytest.fixture(scope="module")
def results(models, tmp_path_factory):
    """A folder made by the command, and two results of its own script."""
    from click.testing import CliRunner

    from gascnn.toolkit.cli import cli

    folder = tmp_path_factory.mktemp("boards")
    words = ["bench", "pack", str(models.zero), "--baseline", str(models.ann), "--data", "digits", "--images", "12",
             "--note", "a test", "-o", str(folder / "pack"), "--json", str(folder / "pack.json")]  # fmt: skip
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    for name in ("one", "two"):
        subprocess.run(
            [sys.executable, "run.py", "-o", f"../{name}.json", "--name", f"Board <{name}>", "--meter", "none"],
            cwd=folder / "pack", check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    return folder


def test_a_folder_and_its_results(results):
    told = json.loads((results / "pack.json").read_text())
    assert told["manifest_sha256"]
    manifest = json.loads((results / "pack/manifest.json").read_text())
    assert set(manifest["files"]) >= {"model.net", "ann.onnx", "ann-int8.onnx", "images.npz", "expected.json", "run.py"}
    one = json.loads((results / "one.json").read_text())
    assert one["pack"]["manifest_sha256"] == told["manifest_sha256"]
    assert one["agrees"] is True


def test_two_boards_in_one_report(gascnn, results, tmp_path):
    outcome = gascnn("bench", "merge", results / "one.json", results / "two.json", "-o", tmp_path / "boards")
    assert outcome.status == 0, outcome.err
    assert outcome.out.strip().splitlines()[-1] == f"report: {tmp_path / 'boards/boards.html'}"
    page = (tmp_path / "boards/boards.html").read_text()
    assert "Board &lt;one&gt;" in page
    assert "<script" not in page
    merged = json.loads((tmp_path / "boards/boards.json").read_text())
    assert [board["name"] for board in merged["boards"]] == ["Board <one>", "Board <two>"]
    assert "Board &lt;one&gt;" in (tmp_path / "boards/boards.md").read_text()
    text = render_boards(merged | {"boards": [merged["boards"][0] | {"notes": ["<img src=x>"]}]})
    assert "<img src=x>" not in text
    assert "1 board<" in text


def test_what_cannot_be_merged(gascnn, results, tmp_path):
    one, two = results / "one.json", results / "two.json"
    assert "are the same result" in gascnn("bench", "merge", one, one).error
    assert "has a log but is not among" in gascnn("bench", "merge", one, "--log", two, tmp_path / "x.csv").error
    assert "holds no times" in gascnn("bench", "merge", one, "--log", one, tmp_path / "x.csv").error
    (tmp_path / "bad.json").write_text("[]")
    assert "bad.json" in gascnn("bench", "merge", tmp_path / "bad.json").error


def test_a_log_that_comes_later(results, tmp_path):
    """Three watts idle and five at work, on a meter that another computer reads."""
    kept = json.loads((results / "one.json").read_text())
    row = kept["contenders"][0]
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()
    rounds = [
        {"before": [start, start + 50], "busy": [start + 52, start + 102], "after": [start + 104, start + 154],
         "inferences": 100}
        for start in (begin, begin + 200, begin + 400)
    ]  # fmt: skip
    row["energy"] = {
        "measured": False, "why": "the log comes later",
        "windows": {"format": "gascnn-power-windows", "version": 1, "rounds": rounds},
    }  # fmt: skip
    (tmp_path / "one.json").write_text(json.dumps(kept))
    lines = ["timestamp,power_w"]
    for tenth in range(-20, 6000):
        time_s = begin + tenth / 10
        busy = any(one["busy"][0] - 0.5 <= time_s <= one["busy"][1] + 0.5 for one in rounds)
        watts = (5.0 if busy else 3.0) + tenth % 2 / 100  # a meter of hundredths
        lines.append(f"{datetime.fromtimestamp(time_s, timezone.utc).isoformat()},{watts:.2f}")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    merged = merge([tmp_path / "one.json"], logs={tmp_path / "one.json": tmp_path / "log.csv"})
    energy = merged["boards"][0]["contenders"][0]["energy"]
    assert energy["measured"] is True
    # Two watts above idle for 50 seconds and 100 images.
    assert energy["energy_per_inference_j"] == pytest.approx(1.0, rel=0.02), energy["warnings"]
    assert "1000 (" in render_boards(merged)
