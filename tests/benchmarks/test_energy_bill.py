"""Bills by hand: each table's arithmetic, ratio, break-even rate and sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gascnn.benchmarks.counts import count_operations
from gascnn.benchmarks.energy import TABLES, AnnLayer, AnnWork, CostTable, bill, chosen_tables, ratio_range
from gascnn.benchmarks.energy.work import work_of_network
from gascnn.benchmarks.paper_energy import paper_energy
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.lowering.network import CubaNeuron, DenseLayer, InputLayer, NetxNetwork, SigmaDeltaNeuron

BARE = ("45nm-fp32", "45nm-int32", "45nm-fp16", "45nm-int8")


def dense(inputs, neurons, input_bits=0):
    layer = DenseLayer((neurons,), np.full((neurons, inputs), 2), CubaNeuron(np.array(50)))
    return NetxNetwork(InputLayer((inputs,)), (layer,), input_bits)


def counted(network, sent, steps=4, images=1):
    silent = [np.zeros(layer.shape) for layer in network.layers]
    return count_operations(network, np.array(sent), silent, images=images, steps=steps)


def billed(table, network, counts, ann):
    (one,) = bill(network, counts, ann, chosen_tables([table]))
    return one


# --- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "mac_pj", "ac_pj"),
    [("45nm-fp32", 4.6, 0.9), ("45nm-int32", 3.2, 0.1), ("45nm-fp16", 1.5, 0.4), ("45nm-int8", 0.23, 0.03)],
)
def test_additions_against_macs(table, mac_pj, ac_pj):
    """2 inputs over 3 neurons: 4 spikes of fan-out 3 are 12 additions, 2 spikes a source; the ANN has 6 MACs."""
    network = dense(2, 3)
    one = billed(table, network, counted(network, [3, 1]), AnnWork(6))
    assert (one.ann_pj, one.snn_pj) == (pytest.approx(6 * mac_pj), pytest.approx(12 * ac_pj))
    assert one.ratio == pytest.approx(6 * mac_pj / (12 * ac_pj))
    assert one.break_even == pytest.approx(mac_pj / ac_pj)  # one spike a source is one addition a MAC
    assert (one.int8_ann_table, one.int8_ann_pj) == ("45nm-int8", pytest.approx(6 * 0.23))
    assert one.int8_ratio == pytest.approx(6 * 0.23 / (12 * ac_pj))
    assert (one.ann_table, one.mixes_technologies) == (table, False)


def test_at_the_break_even_rate_both_cost_the_same():
    network = dense(100, 5)
    turn = billed("45nm-int8", network, counted(network, [1] * 100), AnnWork(500)).break_even
    assert turn == pytest.approx(0.23 / 0.03)
    spikes = np.full(100, 7)
    spikes[:67] += 1  # 7.67 spikes a source
    assert billed("45nm-int8", network, counted(network, spikes), AnnWork(500)).ratio == pytest.approx(1, abs=0.001)


def test_the_int32_table_is_the_papers_formula_52_times_at_0_615_spikes_a_source():
    """1000 sources, 615 spikes over fan-out 1: 61.5 pJ against 3200 pJ."""
    network = dense(1000, 1)
    counts = counted(network, (np.arange(1000) < 615).astype(int), steps=1)
    one = billed("45nm-int32", network, counts, AnnWork(1000))
    assert one.spikes_per_source == pytest.approx(0.615)
    assert one.ratio == pytest.approx(3200 / 61.5)
    assert one.ratio == pytest.approx(52, abs=0.05)
    assert one.ratio == pytest.approx(paper_energy(counts, 1000).ratio)


def test_graded_input_is_billed_as_macs_at_every_step():
    """2 pixels over 3 neurons, T = 4: 24 MACs, which no firing rate makes up for."""
    network = dense(2, 3, input_bits=8)
    counts = counted(network, [0, 0])
    one = billed("45nm-fp32", network, counts, AnnWork(6))
    assert one.snn.input_macs == pytest.approx(24 * 4.6)
    assert (one.snn.additions, one.break_even) == (0, None)
    assert one.ratio == pytest.approx(6 / 24)
    assert one.sentence == (
        "The SNN needs 4.0 times the ANN's energy under this table: it loses at any firing rate, as what does not "
        "depend on spikes needs 4.0 times the ANN's."
    )


def test_messages_are_macs_that_depend_on_how_many_are_sent():
    hidden = DenseLayer((2,), np.full((2, 2), 64), SigmaDeltaNeuron(np.array(0)))
    last = DenseLayer((1,), np.full((1, 2), 64), SigmaDeltaNeuron(read_out=True))
    network = NetxNetwork(InputLayer((2,), SigmaDeltaNeuron(np.array(0))), (hidden, last), input_bits=8)
    counts = count_operations(network, np.array([1, 2]), [np.array([1, 0]), np.zeros(1)], images=1, steps=4)
    one = billed("45nm-int32", network, counts, AnnWork(6))
    assert one.snn.messages == pytest.approx((3 * 2 + 1) * 3.2)
    assert (one.snn.input_macs, one.snn.additions) == (0, 0)
    assert one.spikes_per_source == pytest.approx(7 / 6)
    assert one.break_even == pytest.approx(1.0)


# --- chips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "event_pj", "update_pj"), [("loihi", 27.1, 81), ("spinnaker2", 450, 2190)])
def test_a_chip_bills_events_and_neuron_updates_and_the_ann_by_45_nm(table, event_pj, update_pj):
    """12 events; 3 neurons at each of 4 + 1 steps."""
    network = dense(2, 3)
    one = billed(table, network, counted(network, [3, 1]), AnnWork(6))
    assert one.snn.additions == pytest.approx(12 * event_pj)
    assert one.snn.neuron_updates == pytest.approx(15 * update_pj)
    assert (one.ann_table, one.int8_ann_table) == ("45nm-fp32", "45nm-int8")
    assert (one.ann_pj, one.int8_ann_pj) == (pytest.approx(6 * 4.6), pytest.approx(6 * 0.23))
    assert one.mixes_technologies
    assert one.sentence.endswith("The ANN is billed as 45nm-fp32: this mixes technologies.")
    assert "at any firing rate" in one.sentence


def test_loihis_figure_is_called_a_minimum_and_loihi_2_has_none():
    assert "23.6 pJ is the minimum, of a best case" in TABLES["loihi"].note
    assert not any("loihi2" in name or "loihi-2" in name for name in TABLES)


def test_every_table_says_where_it_is_from():
    for table in TABLES.values():
        assert table.source
        assert table.note
        given = (table.mac_pj, table.ac_pj) if table.kind == "arithmetic" else (table.synaptic_event_pj,)
        assert all(value is not None and value > 0 for value in given)


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("macs", "sentence"),
    [
        (
            6,
            "The ANN needs 2.6 times the SNN's energy under this table: the SNN wins; it would lose above 5.1 spikes a "
            "source.",
        ),
        (
            1,
            "The SNN needs 2.3 times the ANN's energy under this table: it loses; it would win below 0.85 spikes a "
            "source.",
        ),
    ],
)
def test_one_plain_sentence(macs, sentence):
    """12 additions of 0.9 pJ at 2 spikes a source."""
    network = dense(2, 3)
    assert billed("45nm-fp32", network, counted(network, [3, 1]), AnnWork(macs)).sentence == sentence


def test_within_5_percent_nobody_wins():
    network, even = dense(2, 3), CostTable("even", "even", "a test", "arithmetic", mac_pj=2.05, ac_pj=1.0)
    (one,) = bill(network, counted(network, [3, 1]), AnnWork(6), [even])
    assert one.sentence == "The SNN needs as much energy as the ANN under this table, within 5%."


def test_a_silent_network_has_no_ratio():
    network = dense(2, 3)
    one = billed("45nm-fp32", network, counted(network, [0, 0]), AnnWork(6))
    assert (one.ratio, one.break_even, one.snn_pj) == (None, None, 0)
    assert one.sentence.startswith("The SNN sends no spike and needs no energy under this table")


# --- ranges, JSON, errors --------------------------------------------------------------------------------------------


def test_the_range_over_tables():
    """12 additions against 6 MACs: 46/18 = 2.6, 16, 1.9, 3.8; the 8-bit ANN's 1.38 pJ against 10.8, 1.2, 4.8, 0.36."""
    network = dense(2, 3)
    bills = bill(network, counted(network, [3, 1]), AnnWork(6), chosen_tables(BARE))
    found = ratio_range(bills)
    assert found["ann"] == {
        "lowest": {"ratio": pytest.approx(1.875), "table": "45nm-fp16"},
        "highest": {"ratio": pytest.approx(16), "table": "45nm-int32"},
        "wins": 4,
        "of": 4,
    }
    assert found["int8_ann"]["lowest"] == {"ratio": pytest.approx(1.38 / 10.8), "table": "45nm-fp32"}
    assert found["int8_ann"]["wins"] == 2


def test_the_range_of_nothing():
    assert ratio_range([])["ann"] == {"lowest": None, "highest": None, "wins": 0, "of": 0}


def test_json_of_a_bill():
    network = dense(2, 3)
    counts, ann = counted(network, [3, 1]), work_of_network(network)
    told = [one.to_dict() for one in bill(network, counts, ann)]
    assert [one["table"] for one in told] == list(TABLES)
    for one in told:
        parts = one["snn"]
        names = ("input_macs_pj", "additions_pj", "messages_pj", "neuron_updates_pj", "memory_pj")
        assert one["snn_pj"] == pytest.approx(sum(parts[name] for name in names))
    json.dumps([*told, ratio_range(bill(network, counts, ann)), TABLES["loihi"].to_dict()], allow_nan=False)


def test_the_anns_work_goes_through_json():
    work = AnnWork(6, 7, (AnnLayer("dense", 6, 2, 3, 6, 0),))
    assert AnnWork.from_dict(json.loads(json.dumps(work.to_dict()))) == work
    with pytest.raises(FormatError, match=r"not the work of an ANN .* take what AnnWork.to_dict gave"):
        AnnWork.from_dict({"macs": 6})


def test_an_estimate_of_the_anns_work_from_the_network():
    network = dense(2, 3)
    assert work_of_network(network) == AnnWork(6, None, (AnnLayer("dense", 6, 2, 3, 6, 3),), "network")


def test_what_cannot_be_billed():
    network = dense(2, 3)
    with pytest.raises(UsageError, match="the ANN has 0 multiply-accumulates; an ANN has at least one"):
        AnnWork(0)
    with pytest.raises(UsageError, match="layers have 5 multiply-accumulates; together they must have 6"):
        AnnWork(6, None, (AnnLayer("dense", 5, 2, 3, 6, 0),))
    with pytest.raises(UsageError, match=r"unknown cost table 'loihi2'; known: 45nm-fp32, .*spinnaker2"):
        chosen_tables(["loihi2"])
    with pytest.raises(UsageError, match="the ANN's layers are not told; give AnnWork its layers"):
        billed("45nm-int8-memory", network, counted(network, [3, 1]), AnnWork(6))
    nothing = CostTable("nothing", "nothing", "a test", "arithmetic", mac_pj=1.0)
    with pytest.raises(UsageError, match="'nothing' is of kind arithmetic and has no ac_pj; give it one"):
        bill(network, counted(network, [3, 1]), AnnWork(6), [nothing])
