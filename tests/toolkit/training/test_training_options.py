import dataclasses
import json

import pytest

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training import options as module
from gascnn.toolkit.training.options import TrainingOptions


def test_options_survive_json():
    options = TrainingOptions(epochs=3, optimizer="sgd", mixup_alpha=0.2, channels_last=False)
    assert TrainingOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_every_number_and_choice_is_checked():
    checked = set(module._RANGES) | set(module._CHOICES) | {"channels_last", "augmentation"}
    assert checked == {field.name for field in dataclasses.fields(TrainingOptions)}


@pytest.mark.parametrize("name", sorted(module._RANGES))
def test_every_range_is_enforced(name):
    low, high, whole = module._RANGES[name]
    for value in (low - 1, high * 2 + 1, float("nan"), "1", None, True):
        with pytest.raises(UsageError, match=f"{name} is .*; allowed: (whole )?numbers from"):
            TrainingOptions(**{name: value})
    if whole:
        with pytest.raises(UsageError, match=f"{name} is .*; allowed: whole numbers from"):
            TrainingOptions(**{name: low + 0.5})


@pytest.mark.parametrize(("name", "allowed"), sorted(module._CHOICES.items()))
def test_every_choice_is_enforced(name, allowed):
    with pytest.raises(UsageError, match=f"{name} is 'other'; allowed: {', '.join(allowed)}".replace("+", r"\+")):
        TrainingOptions(**{name: "other"})


def test_contradictions_and_unknown_names_are_refused():
    with pytest.raises(UsageError, match=r"select is val-macro-f1 but fit_on train\+val trains on those images"):
        TrainingOptions(select="val-macro-f1", fit_on="train+val")
    with pytest.raises(UsageError, match="unknown training option 'epoch'; known: epochs, "):
        TrainingOptions.from_dict({"epoch": 3})
    with pytest.raises(UsageError, match="channels_last is 1; allowed: true or false"):
        TrainingOptions(channels_last=1)
    with pytest.raises(UsageError, match="augmentation is 3; give the name of a policy"):
        TrainingOptions(augmentation=3)
