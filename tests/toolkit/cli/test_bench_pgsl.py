"""``gascnn bench pgsl``: what its commands take and write; the measurements have tests of their own."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest

from gascnn.benchmarks.pgsl.mu import flip_pixels
from gascnn.toolkit.cli import bench_pgsl
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.pgsl.recovery import robust_pca


def test_figure_3_is_written_and_drawn(gascnn, tmp_path):
    result = gascnn("bench", "pgsl", "mu", "--data", "digits", "--limit", "12", "--pixels", "2", "--seed", "3",
                    "--json", tmp_path / "mu.json", "--plot", tmp_path / "mu.svg", "--sparsity", "1.5",
                    "--markdown", tmp_path / "mu.md")  # fmt: skip

    assert result.status == 0, result.err
    report = json.loads((tmp_path / "mu.json").read_text())
    import torch

    images = torch.from_numpy(load_dataset("digits").val.images[:12]).float() / 255
    expected = float(((flip_pixels(images, 2, seed=3) - images).double() ** 2).mean())
    assert len(report["curves"]) == 4
    for curve in report["curves"].values():
        assert curve["mse_attacked"] == pytest.approx(expected, rel=1e-6)
        assert curve["best_mu"] == curve["mu"][int(np.argmin(curve["mse"]))]
    assert (tmp_path / "mu.svg").read_text().startswith("<?xml")
    assert "D - E, mu in ||D||_2" in result.out
    relative = report["curves"]["D - E, mu in ||D||_2"]
    found = robust_pca(flip_pixels(images, 2, seed=3), mu=0.55, sparsity=1.5 / 8**0.5)
    error = float(((found.recovered - images).double() ** 2).mean())
    assert relative["mse"][relative["mu"].index(0.55)] == pytest.approx(error, rel=1e-6)
    page = (tmp_path / "mu.md").read_text().splitlines()
    row = next(line for line in page if line.startswith("| D - E, mu in \\|\\|D"))
    assert f"| **{min(relative['mse']):.3g}** |" in row
    typed = shlex.split(page[-1].strip("`"))[1:]
    again = gascnn(*typed, "--json", tmp_path / "again.json")
    assert again.status == 0, again.err
    assert json.loads((tmp_path / "again.json").read_text())["curves"] == report["curves"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("recognition", "--data", "digits"), "preset small is for mnist, mias, mias-tissue, not for digits"),
        (("reconstruction", "--data", "mnist", "--seeds", "0,x"), "--seeds is '0,x'; give whole numbers"),
        (("strength", "--data", "mnist", "--seeds", "1,1"), "seeds are (1, 1); different whole numbers"),
        (("strength", "--data", "mnist", "--of", "reconstruction", "--pixels", ""), "--pixels is ''"),
        (("strength", "--data", "mnist", "--of", "reconstruction", "--bounds", "0.1"), "--bounds is for --of accuracy"),
        (("recognition", "--data", "mnist", "--reconstructed", "0"), "images to reconstruct are 0"),
        (("recognition", "--data", "mnist", "--attacks", "fgsm,pgd"), "attack is 'pgd'; allowed: jsma, cw, bim, fgsm"),
        (("recognition", "--data", "mnist", "--set", "epochs"), "--set 'epochs' has no value"),
        (("recognition", "--data", "mnist", "--augmentation", "upside-down"), "upside-down"),
        (("mu", "--data", "digits", "--attack", "jsma", "--pixels", "65"), "--pixels: pixels is 65"),
        (("mu", "--data", "digits", "--plot", "mu.jpg"), "mu.jpg is not a picture"),
        (("client", "--rounds", "1"), "1 rounds are too few"),
        (("footprint", "--repeats", "0"), "repeats are 0"),
        (("server", "--clients", "0"), "clients"),
        (("footprint", "--install", "--source", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(gascnn, arguments, told):
    result = gascnn("bench", "pgsl", *arguments)

    assert result.status == 2
    assert told in result.error
    assert len(result.error.splitlines()) == 1


def test_rows_of_attacks_can_be_left_out(gascnn, monkeypatch):
    from gascnn.benchmarks.pgsl import recognition

    asked = []

    def measured(settings, **arguments):
        asked.append(arguments["attacks"])
        raise UsageError("asked")

    monkeypatch.setattr(recognition, "measure", measured)
    for typed in ((), ("--attacks", "fgsm,jsma"), ("--attacks", "none")):
        assert gascnn("bench", "pgsl", "recognition", "--data", "mnist", *typed).error.endswith("asked")
    assert asked == [("jsma", "cw", "bim", "fgsm"), ("fgsm", "jsma"), ()]


def test_another_attempt_is_typed(gascnn, monkeypatch):
    from gascnn.benchmarks.pgsl import recognition

    asked = []

    def measured(settings, **_):
        asked.append(settings)
        raise UsageError("asked")

    monkeypatch.setattr(recognition, "measure", measured)
    typed = ("--set", "decay=3e-4", "--set", "epochs=2", "--augmentation", "medical", "--balance", "0.5")
    for more in ((), typed[:4], typed, ("--balance", "1")):
        assert gascnn("bench", "pgsl", "recognition", "--data", "mnist", *more).error.endswith("asked")
    preset, changed, presented, balanced = asked
    options = [each.split_options(0, each.recipes[0]) for each in asked]
    assert [(one.decay, one.epochs) for one in options] == [(1e-3, 5), (3e-4, 2), (3e-4, 2), (1e-3, 5)]
    assert changed.recipes[0].augmentation == preset.recipes[0].augmentation == "light"
    assert [(one.augmentation, one.balance) for one in presented.recipes] == [("medical", 0.5)]
    assert [(one.augmentation, one.balance) for one in balanced.recipes] == [("light", 1.0)]


def test_each_command_is_where_the_help_says(gascnn):
    for name, (_, line) in bench_pgsl.MODULES.items():
        result = gascnn("bench", "pgsl", name, "--help")
        assert (result.status, f"bench pgsl {name}" in result.out) == (0, True), name
        assert line
