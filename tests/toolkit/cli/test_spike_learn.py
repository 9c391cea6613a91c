"""``gascnn spike-learn``: what the command writes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gascnn.exporters.netx import read_netx
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.files import sha256_file


@pytest.fixture(scope="module")
def few_steps(models, tmp_path_factory):
    """The network for four steps, read out by the membrane; and a folder."""
    from gascnn.toolkit.cli import main

    folder = tmp_path_factory.mktemp("learning")
    target = folder / "four.net"
    arguments = ["export", models.ann, "--target", "lava", "--data", "digits", "--steps", 4, "--readout", "membrane"]
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in [*arguments, "--fit-images", 32, "--limit", 40, "-o", target]])
    assert left.value.code == 0
    return target


def test_the_file_is_what_was_learnt(gascnn, models, few_steps, tmp_path):
    output, report = tmp_path / "learnt.net", tmp_path / "learnt.json"
    learnt = gascnn(
        "spike-learn", few_steps, "--teacher", models.ann, "--data", "digits", "--epochs", 3, "--threads", 1,
        "--measure", "digits", "-o", output, "--json", report,
    )  # fmt: skip
    assert learnt.status == 0, learnt.err
    result = json.loads(report.read_text())
    before, after = read_netx(few_steps), read_netx(output)
    assert result["sha256"] == sha256_file(output)
    assert result["network_digest"] == after.digest() != before.digest()
    assert "epoch 3/3" in learnt.err
    assert result["history"][-1]["loss"] < result["history"][0]["loss"]
    test = load_dataset("digits").test
    wrong = {}
    for name, network in (("before", before), ("after", after)):
        found = simulate(network, encode_for(network, test.images)).predictions()
        wrong[name] = int(np.sum(found != test.labels))
    assert wrong["after"] < 0.7 * wrong["before"]
    assert result["expected"]["accuracy"] == pytest.approx(1 - wrong["after"] / len(test.labels))
    assert after.deployment.expected["network_digest"] == after.digest()
    assert after.deployment.provenance["from"]["network_digest"] == before.digest()
    assert str(tmp_path) not in after.deployment.to_json()


def test_a_run_is_resumed_only_on_request(gascnn, models, few_steps, tmp_path):
    arguments = ("spike-learn", few_steps, "--teacher", models.ann, "--data", "digits", "--preset", "smoke",
                 "--images", 60, "-o", tmp_path / "learnt.net")  # fmt: skip
    assert gascnn(*arguments).status == 0
    first = sha256_file(tmp_path / "learnt.net")
    again = gascnn(*arguments)
    assert (again.status, "holds a run; resume it (--resume)" in again.error) == (2, True)
    assert gascnn(*arguments, "--resume").status == 0
    assert sha256_file(tmp_path / "learnt.net") == first


@pytest.mark.parametrize("steps", ["0", "10000"])
def test_steps_out_of_range(steps, gascnn, models, few_steps, tmp_path):
    found = gascnn("spike-learn", few_steps, "--teacher", models.ann, "--data", "digits", "--steps", steps,
                   "-o", tmp_path / "x.net")  # fmt: skip
    assert (found.status, found.error) == (2, f"T is {steps}; it must be 1..1000")
    assert not list(tmp_path.iterdir())


def test_wrong_models_are_named(gascnn, models, few_steps, tmp_path):
    rest = ("--data", "digits", "-o", tmp_path / "x.net")
    found = gascnn("spike-learn", models.ann, "--teacher", models.ann, *rest)
    assert (found.status, "is no NetX file; make one with 'gascnn export" in found.error) == (2, True)
    found = gascnn("spike-learn", few_steps, "--teacher", models.snn, *rest)
    assert (found.status, "is no ANN; --teacher takes the bundle" in found.error) == (2, True)
    found = gascnn("spike-learn", few_steps, "--teacher", models.ann, "--learning-rate", "0", *rest)
    assert (found.status, "learning_rate is 0.0; allowed:" in found.error) == (2, True)
    assert not list(tmp_path.iterdir())
