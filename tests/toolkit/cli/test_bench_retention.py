"""``gascnn bench retention``: rows of exactly the files named, figures that can be checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.files import sha256_file


def test_a_row_a_file(gascnn, models, tmp_path):
    report, page = tmp_path / "r.json", tmp_path / "r.md"
    found = gascnn("bench", "retention", models.zero, models.subtract, "--ann", models.ann, "--data", "digits",
                   "--limit", 60, "--json", report, "--markdown", page)  # fmt: skip
    assert found.status == 0, found.err
    result = json.loads(report.read_text())
    part = load_dataset("digits").test.take(60)
    assert [row["sha256"] for row in result["models"]] == [sha256_file(p) for p in (models.zero, models.subtract)]
    for row, path in zip(result["models"], (models.zero, models.subtract), strict=True):
        network = read_netx(path)
        answers = simulate(network, encode_for(network, part.images)).predictions()
        assert row["accuracy"]["value"] == pytest.approx(np.mean(answers == part.labels))
        low, high = row["macro_f1"]["interval"]
        assert low <= row["macro_f1"]["value"] <= high
        below = result["ann"]["macro_f1"]["value"] - row["macro_f1"]["value"]
        assert row["macro_f1_below"]["value"] == pytest.approx(below)
        assert row["network_digest"] == network.digest()
        assert row["paper_energy"]["ann_macs"] == result["ann"]["multiply_accumulates"] > 0
        assert row["sha256"][:12] in page.read_text()
    assert [row["reset"] for row in result["models"]] == ["zero", "subtract"]


def test_how_far_each_is_below_one_of_them(gascnn, models, tmp_path):
    report, page = tmp_path / "r.json", tmp_path / "r.md"
    found = gascnn("bench", "retention", models.zero, models.subtract, "--ann", models.ann, "--data", "digits",
                   "--limit", 60, "--against", models.subtract.name, "--json", report, "--markdown", page)  # fmt: skip
    assert found.status == 0, found.err
    zero, subtract = json.loads(report.read_text())["models"]
    below = subtract["macro_f1"]["value"] - zero["macro_f1"]["value"]
    assert zero["macro_f1_below_reference"]["value"] == pytest.approx(below)
    assert subtract["macro_f1_below_reference"] == {"value": 0.0, "interval": [0.0, 0.0]}
    low, high = zero["macro_f1_below_reference"]["interval"]
    assert low <= below <= high
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert f"| below the ANN | below {models.subtract.name} |" in lines[0]
    assert {line.count("|") for line in lines} == {12}


def test_wrong_models_are_named(gascnn, models):
    rest = ("--data", "digits")
    found = gascnn("bench", "retention", models.ann, "--ann", models.ann, *rest)
    assert (found.status, "is no NetX file" in found.error) == (2, True)
    found = gascnn("bench", "retention", models.zero, "--ann", models.ann, *rest, "--against", "other.net")
    assert (found.status, "--against other.net is the file name of 0 of the models; give" in found.error) == (2, True)
    found = gascnn("bench", "retention", models.zero, "--ann", models.snn, *rest)
    assert (found.status, "is no ANN; --ann takes the bundle" in found.error) == (2, True)
