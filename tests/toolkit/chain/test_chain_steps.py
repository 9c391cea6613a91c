"""What is typed for each step: every command exists, takes its words, and reads what the step says it reads."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from gascnn.toolkit.chain.digests import RealData
from gascnn.toolkit.chain.presets import PRESETS, ChainPreset, get_chain_preset
from gascnn.toolkit.chain.steps import OUTPUTS, STEPS, SYNTHETIC, Setup, chain
from gascnn.toolkit.cli import cli
from gascnn.toolkit.conversion.synthesis.options import get_synthesis_preset
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.spike_learning.options import get_learning_preset
from gascnn.toolkit.training.gan.presets import get_gan_preset
from gascnn.toolkit.training.presets import get_preset

REAL = RealData("/secret/scans", "scans", None, "0" * 64)
ALL = [(preset, data) for preset in PRESETS for data in ("digits", "brain-mri", "scans")]


def setup(synthetic="gan", preset="smoke", data=REAL, **more):
    return Setup(data, get_chain_preset(preset, data.name), 7, synthetic, **more)


@pytest.mark.parametrize("synthetic", SYNTHETIC)
@pytest.mark.parametrize(("preset", "data"), ALL)
def test_click_takes_every_word(synthetic, preset, data):
    given = RealData(data, data, Path("/data"), "0" * 64)
    for step in chain(setup(synthetic, preset, given)):
        command, words = cli, step.typed()
        while hasattr(command, "get_command"):
            command = command.get_command(None, words.pop(0))
        values = command.make_context("gascnn", words).params
        named = "json_path" if step.name == "verify" else "output"
        assert values[named] == Path(OUTPUTS[step.name])
        unseeded = step.name in ("join", "verify", "report")
        assert values.get("seed") == (None if unseeded else 0 if step.name == "export" else 7)


@pytest.mark.parametrize(("preset", "data"), ALL)
def test_the_steps_own_presets_exist(preset, data):
    chosen = get_chain_preset(preset, data)
    if chosen.training is not None:
        assert get_preset(chosen.training).name == chosen.training
    assert get_gan_preset(chosen.gan).name == chosen.gan
    assert get_synthesis_preset(chosen.synthesis).images >= 40
    recipe = get_learning_preset(chosen.learning)
    assert recipe.steps in (None, chosen.steps)


@pytest.mark.parametrize("synthetic", SYNTHETIC)
def test_a_step_reads_what_stands_in_its_command(synthetic):
    for step in chain(setup(synthetic)):
        own = {OUTPUTS[step.name], f"results/{step.name}.json", f"work/{step.name}"}
        named = {word for word in step.typed() if word in OUTPUTS.values()} - own
        assert named == {OUTPUTS[name] for name in step.reads}
        assert ("/secret/scans" in step.typed()) == step.real_data


@pytest.mark.parametrize(("synthetic", "images"), [("gan", "sample"), ("dirichlet", "synthesise"), ("both", "join")])
def test_which_images_calibrate_are_learnt_from_and_run_in_lava(synthetic, images):
    steps = {step.name: step for step in chain(setup(synthetic))}
    for name in ("convert", "export", "learn", "verify"):
        assert {"sample", "synthesise", "join"} & set(steps[name].reads) == {images}
    assert ("gan" in steps, "synthesise" in steps) == (synthetic != "dirichlet", synthetic != "gan")


def test_both_kinds_are_joined():
    join = {step.name: step for step in chain(setup("both"))}["join"]
    assert (join.reads, join.output) == (("sample", "synthesise"), "synthetic-both")
    assert join.typed()[:4] == ["data", "join", "synthetic-gan", "synthetic-dirichlet"]


@pytest.mark.parametrize("synthetic", SYNTHETIC)
def test_real_data_is_read_up_to_the_samples_and_by_the_report_alone(synthetic):
    read = [step.name for step in chain(setup(synthetic)) if step.real_data]
    assert read == ["train", *(() if synthetic == "dirichlet" else ("gan", "sample")), "report"]
    assert "report" not in [step.name for step in chain(setup(synthetic, report_on_real=False)) if step.real_data]


def test_the_shown_command_holds_no_path_of_the_users():
    data = RealData("mnist", "mnist", Path("/secret/place"), "0" * 64)
    for step in [*chain(setup()), *chain(setup(data=data)), *chain(setup(use={"train": Path("/secret/old/ann")}))]:
        assert "secret" not in step.command()
    typed = {step.name: step for step in chain(setup(data=data))}["train"]
    assert shlex.split(typed.command())[:4] == ["gascnn", "train", "--data", "mnist"]
    assert typed.typed()[:5] == ["train", "--data", "mnist", "--data-dir", "/secret/place"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"skip": frozenset({"train"})},
            "--skip train: later steps read what it makes; skip learn, verify, report, or",
        ),
        ({"skip": frozenset({"gan"})}, "--synthetic dirichlet does without a GAN"),
        ({"use": {"verify": Path("x")}}, "--use verify: no step reads what it makes; leave it out with --skip verify"),
        ({"use": {"synthesise": Path("x")}}, "--use synthesise: not a step of this chain (--synthetic gan)"),
        ({"use": {"learn": Path("x")}, "skip": frozenset({"learn"})}, "step learn is given both with --skip and"),
    ],
)
def test_what_cannot_be_left_out_or_replaced(changes, said):
    with pytest.raises(UsageError, match=said.replace("(", r"\(").replace(")", r"\)")):
        setup(**changes)


def test_without_spike_learning_the_converted_network_is_deployed():
    steps = {step.name: step for step in chain(setup(skip=frozenset({"learn"})))}
    assert "learn" not in steps
    assert "converted.net" in steps["verify"].typed()
    assert "converted.net" in steps["report"].typed()


def test_presets_out_of_range_are_named():
    with pytest.raises(UsageError, match="no preset 'large'; known: smoke, small, paper"):
        get_chain_preset("large", "digits")
    values = {**vars(PRESETS["smoke"]), "steps": 0}
    with pytest.raises(UsageError, match="steps is 0; allowed: whole numbers from 1 to 1000"):
        ChainPreset(**values)


def test_the_order_of_the_steps():
    order = ["train", "gan", "sample", "synthesise", "join", "convert", "export", "learn"]
    order += ["verify", "report"]
    assert [step.name for step in chain(setup("both"))] == order == list(STEPS)
    for step in chain(setup("both")):
        assert all(order.index(name) < order.index(step.name) for name in step.reads)
