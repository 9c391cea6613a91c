import pytest
import torch

from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.pgsl.bundle import SplitNetwork, new_parts, save_network
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.pgsl.split import ClientState, train_step
from gascnn.toolkit.pgsl.wire.served import of_bundle
from gascnn.toolkit.pgsl.wire.store import Checkpoint, Progress, RunStore

OPTIONS = PgslOptions(width=8)


def test_a_run_folder_has_one_server_and_one_agreement(tmp_path):
    model, order = {"classes": 3}, {"order": ["a"]}
    store = RunStore(tmp_path / "run", OPTIONS.to_dict(), model, order)
    with pytest.raises(UsageError, match="served by another process"):
        RunStore(tmp_path / "run", OPTIONS.to_dict(), model, order)
    store.close()
    with pytest.raises(UsageError, match=r"begun with model classes 3, now it is 4"):
        RunStore(tmp_path / "run", OPTIONS.to_dict(), {"classes": 4}, order)
    again = RunStore(tmp_path / "run", OPTIONS.to_dict(), model, order)
    again.path.write_bytes(b"\x00" * 40)
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        again.load()
    again.close()


def test_a_run_begins_with_a_bundles_weights(tmp_path):
    torch.manual_seed(0)
    client, server = new_parts((1, 8, 8), 3, OPTIONS, LocalOptions(width=4))
    train_step(client, server, torch.rand(6, 1, 8, 8), torch.arange(6) % 3)
    for name in ("one", "two"):
        save_network(SplitNetwork(client, server, LocalOptions(width=4), ("a", "b", name), (1, 8, 8)), tmp_path / name)
    served = of_bundle(tmp_path / "one")
    images = torch.rand(5, 1, 8, 8)
    expected = server.answer(client.query(images)).scores
    assert torch.equal(served.server.answer(client.query(images)).scores, expected)

    store = RunStore(tmp_path / "run", OPTIONS.to_dict(), served.described, {"order": ["a"]})
    served.begin(store)
    begun = store.load()
    assert begun.progress.steps == 0
    taken = new_parts((1, 8, 8), 3, OPTIONS, LocalOptions(width=4))[0]
    taken.take(ClientState(begun.client))
    assert torch.equal(taken.model.layers.eval()(torch.ones(1, 5, 4, 4)), client.model.layers(torch.ones(1, 5, 4, 4)))

    # A run that is there goes on from its own checkpoint, and never with another bundle.
    store.save(Checkpoint(begun.server, begun.client, Progress(steps=7)))
    served.begin(store)
    assert store.load().progress.steps == 7
    store.close()
    with pytest.raises(UsageError, match="bundle_sha256"):
        RunStore(tmp_path / "run", OPTIONS.to_dict(), of_bundle(tmp_path / "two").described, {"order": ["a"]})
