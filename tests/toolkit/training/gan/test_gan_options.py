import io
from dataclasses import replace
from itertools import pairwise

import pytest

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.gan.options import GanOptions, learning_rate
from gascnn.toolkit.training.gan.presets import PRESETS, get_gan_preset
from gascnn.toolkit.training.gan.progress import GanRecord, Lines, shown_progress


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plane": "both"}, "plane is 'both'; allowed: features, image"),
        ({"device": "tpu"}, "device is 'tpu'; allowed: cpu, cuda"),
        ({"batch_size": 0}, "batch_size is 0; allowed: whole numbers from 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"beta1": 1.0}, "beta1 is 1.0"),
        ({"iterations": 3, "critic_steps": 5}, "the generator would never be updated"),
        ({"probe_images": 1}, "probe_images is 1; allowed: whole numbers from 2"),
    ],
)
def test_values_that_cannot_be_used(change, message):
    with pytest.raises(UsageError, match=message):
        GanOptions.from_dict(change)


def test_options_come_back_from_plain_values():
    options = GanOptions(plane="image", iterations=77)
    assert GanOptions.from_dict(options.to_dict()) == options
    with pytest.raises(UsageError, match="unknown GAN option 'alpha'; known: plane, width"):
        GanOptions.from_dict({"alpha": 3})


def test_learning_rate_falls_by_the_same_amount_in_each_iteration():
    options = GanOptions(iterations=10, learning_rate=0.1, decay_end=0.5, critic_steps=1)
    found = [learning_rate(i, options) for i in range(11)]
    assert found[0] == 0.1
    assert found[10] == pytest.approx(0.05)
    assert [a - b for a, b in pairwise(found)] == pytest.approx([0.005] * 10)
    assert learning_rate(7, replace(options, decay_end=1.0)) == 0.1


def test_presets_by_name():
    assert list(PRESETS) == ["smoke", "small", "paper"]
    with pytest.raises(UsageError, match="no preset 'large'; known: smoke, small, paper"):
        get_gan_preset("large")


def test_times_are_told_where_a_run_was_measured():
    assert [name for name, preset in PRESETS.items() if preset.measured_on] == ["smoke", "small"]
    for preset in PRESETS.values():
        assert (preset.cpu_time_s is None) == (preset.measured_on == "")


def test_a_record_in_one_line():
    critic, generator = {"distance": 1.5}, {"regression": 0.25, "identity": 0.5, "attention": 0.75}
    record = GanRecord(5, 20, 1e-4, critic, generator, 0.125, 0.75, 2.0, 61.0)
    stream = io.StringIO()
    progress = shown_progress(stream)
    assert isinstance(progress, Lines)
    progress.record(record)
    assert stream.getvalue() == (
        "5/20  distance 1.500  regression 0.2500  identity 0.5000  attention 0.7500  diversity 0.125  "
        "2.0 s, 1:01 min left\n"
    )
    assert "time_left_s" not in record.to_dict()
    assert "regression" not in replace(record, generator={}).line()
