"""Medians, ratios and goals from given times, worked out by hand."""

import pytest

from gascnn.benchmarks.ratios import Goal, fastest, goals, median, paired

KINDS = {
    "ours": "ours", "ours-1-thread": "ours", "lava": "lava", "sinabs": "peer", "snntorch": "peer", "onnxruntime": "ann",
}  # fmt: skip


def test_median_leaves_out_rounds_that_were_not_run():
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([None, None]) is None
    assert median([1.0, 2.0]) == 1.5


def test_ratios_are_taken_round_by_round():
    # 4 / 1, 9 / 3, 2 / 2: the median is 3, where the ratio of the medians would be 4 / 2.
    assert paired([4.0, 9.0, 2.0], [1.0, 3.0, 2.0]) == 3.0
    assert paired([None, 9.0, None], [1.0, 3.0, 2.0]) == 3.0
    assert paired([None], [1.0]) is None


def test_fastest_has_the_lowest_median():
    assert fastest({"a": [1.0, 9.0, 9.0], "b": [5.0, 5.0, 5.0], "c": [None, None, None]}) == "b"
    assert fastest({}) is None


def times():
    return {
        "ours": [0.01, 0.02, 0.01],
        "ours-1-thread": [0.018, 0.038, 0.016],
        "lava": [6.0, None, None],
        "sinabs": [0.09, 0.09, 0.09],
        "snntorch": [0.06, 0.08, 0.04],
        "onnxruntime": [0.05, 0.05, 0.05],
    }


def test_goals_by_hand():
    found = {g.what: g for g in goals(0.08, times(), KINDS)}
    lava = found["times as fast as Lava"]
    assert (lava.found, lava.bound, lava.reached) == (pytest.approx(600), 500, True)
    peer = found["times as fast as the fastest peer"]
    # snnTorch, by median: 6, 4 and 4 times.
    assert (peer.against, peer.found, peer.reached) == ("snntorch", pytest.approx(4), False)
    ann = found["of the ANN's time"]
    assert (ann.found, ann.bound, ann.reached) == (pytest.approx(0.2), 0.4, True)
    threads = found["times as fast as one thread"]
    assert (threads.found, threads.bound, threads.reached) == (pytest.approx(1.8), 1.7, True)


@pytest.mark.parametrize(("rate", "bound", "reached"), [(0.02, 0.15, False), (0.01, 0.15, False), (0.05, 0.4, True)])
def test_the_anns_goal_depends_on_firing(rate, bound, reached):
    ann = next(g for g in goals(rate, times(), KINDS) if g.against == "onnxruntime")
    assert (ann.bound, ann.reached) == (bound, reached)


def test_no_goal_against_the_ann_where_more_fire():
    assert "of the ANN's time" not in [g.what for g in goals(0.5, times(), KINDS)]


def test_nobody_to_compare_with_is_neither_reached_nor_missed():
    alone = goals(0.08, {"ours": [0.01]}, {"ours": "ours"})
    assert [g.reached for g in alone] == [None] * 4
    assert [g.against for g in alone] == [None] * 4


def test_bounds_themselves_are_reached():
    assert Goal("", 500.0, 500.0, "at least").reached
    assert Goal("", 0.4, 0.4, "at most").reached
    assert not Goal("", 0.41, 0.4, "at most").reached
