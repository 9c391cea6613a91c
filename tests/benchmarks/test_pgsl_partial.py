"""Files of partial results: what they keep, and of what a run may not go on."""

import dataclasses

import pytest
import torch

from gascnn.benchmarks.pgsl.partial import Partial, pack, unpack
from gascnn.benchmarks.pgsl.partition import make_partition
from gascnn.toolkit.errors import DataError, UsageError

SETTINGS = {"seeds": [0], "x": 1}


@pytest.fixture
def kept(tmp_path):
    store = Partial(tmp_path / "kept.json", "one", SETTINGS)
    store.seed(0, "abc")["rows"]["a"] = {"answers": "00"}
    store.save()
    return tmp_path / "kept.json"


def test_answers_are_kept_as_text():
    assert unpack(pack(torch.tensor([0, 9, 255]))).tolist() == [0, 9, 255]
    with pytest.raises(DataError, match="class 256"):
        pack(torch.tensor([256]))


def test_a_run_goes_on_and_seeds_may_be_added(kept):
    assert Partial(kept, "one", {**SETTINGS, "seeds": [0, 1]}).seed(0, "abc")["rows"] == {"a": {"answers": "00"}}


def test_a_run_does_not_go_on_with_anything_else(kept, monkeypatch):
    with pytest.raises(UsageError, match="its measurement is not this run's"):
        Partial(kept, "two", SETTINGS)
    with pytest.raises(UsageError, match="its settings is not this run's"):
        Partial(kept, "one", {**SETTINGS, "x": 2})
    with pytest.raises(UsageError, match="seed 0 is of other images than these; name another file"):
        Partial(kept, "one", SETTINGS).seed(0, "abd")
    # Other sums, other networks: what was trained here is not trained again to the same bits.
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(UsageError, match="its arithmetic is not this run's"):
        Partial(kept, "one", SETTINGS)


def test_a_digest_is_of_all_images_and_their_order():
    part = make_partition("digits", 0, limits=(20, 10, 10))
    assert part.sha256() == make_partition("digits", 0, limits=(20, 10, 10)).sha256()
    order = torch.arange(10).flip(0)
    changed = [
        make_partition("digits", 1, limits=(20, 10, 10)),
        dataclasses.replace(part, test=dataclasses.replace(part.test, labels=part.test.labels[order])),
        dataclasses.replace(part, val=dataclasses.replace(part.val, images=part.val.images[order])),
        dataclasses.replace(part, units=part.units[::-1].copy()),
    ]
    assert len({part.sha256(), *(other.sha256() for other in changed)}) == 5
