"""The figures of the comparison of Lava's process models, by hand, from runs that were not made."""

from pathlib import Path

import numpy as np
import pytest

from gascnn.benchmarks import lava_models
from gascnn.hardware.lava import LavaResult
from gascnn.toolkit.errors import CheckFailed

SPIKES = np.zeros((2, 8, 3), dtype=np.uint8)


def run(models, start_s, *image_s, membrane=0, spike=False, why_stock=None):
    fired = np.zeros((2, 9, 3), dtype=bool)
    fired[1, 4, 2] = spike
    counts = fired.sum(axis=1, dtype=np.int32)
    state = np.full((2, 3), membrane, dtype=np.int64)
    return LavaResult(
        8, [counts], counts, state, [fired], models=models, why_stock=why_stock, start_s=start_s, image_s=image_s
    )


@pytest.fixture
def runs(monkeypatch):
    """What Lava answers."""

    def answer(*results):
        def run_many(tasks, progress):
            assert [task.stock_models for task in tasks] == [True, False] * (len(results) // 2)
            return list(results)

        monkeypatch.setattr(lava_models.lava, "run_many", run_many)

    return answer


def test_figures_by_hand(runs):
    runs(
        run("stock", 4.0, 6.0, 8.0),
        run("fast", 1.0, 1.0, 2.0),
        run("stock", 2.0, 10.0, 100.0),
        run("fast", 1.0, 3.0, 4.0),
        run("stock", 6.0, 7.0, 9.0),
        run("fast", 3.0, 2.0, 1.0),
    )

    found = lava_models.measure(Path("a.net"), SPIKES, 3)

    assert (found["stock_steps_s"], found["fast_steps_s"]) == (8.5, 2.0)  # of 6 7 8 9 10 100 and 1 1 2 2 3 4
    assert (found["stock_whole_s"], found["fast_whole_s"]) == (11.0, 3.0)  # of 9 56 11 and 2 4 3
    assert found["steps_s_ratio"] == 4.25
    assert found["whole_s_ratio"] == pytest.approx(11 / 3)
    assert (found["images"], found["steps"], found["repeats"]) == (2, 8, 3)


@pytest.mark.parametrize("difference", [{"membrane": 1}, {"spike": True}])
def test_models_that_differ_are_not_timed(runs, difference):
    runs(run("stock", 4.0, 6.0, 8.0), run("fast", 1.0, 1.0, 2.0, **difference))

    with pytest.raises(CheckFailed, match="the faster models and Lava's own differ; 'gascnn verify' says where"):
        lava_models.measure(Path("a.net"), SPIKES, 1)


def test_models_that_did_not_run_are_not_timed(runs):
    runs(run("stock", 4.0, 6.0, 8.0), run("stock", 4.0, 6.0, 8.0, why_stock="there is no faster X"))

    with pytest.raises(CheckFailed, match="the faster models did not run: there is no faster X"):
        lava_models.measure(Path("a.net"), SPIKES, 1)
