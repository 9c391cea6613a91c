import json

import pytest
import torch
from torch import nn

from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.training.checkpoint import (
    load_checkpoint,
    module_tensors,
    optimizer_state,
    remove_leftovers,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)


def trained(optimizer_class, steps=3, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    model = model.to(memory_format=torch.channels_last)
    optimizer = optimizer_class(model.parameters(), lr=1e-3, **settings)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.linspace(0, 1, 128).view(4, 2, 4, 4)).square().sum().backward()
    optimizer.step()


def test_tensors_and_values_come_back_exactly(tmp_path):
    tensors = {
        "float": torch.tensor([0.1, -1e-40, 3e38]),
        "bytes": torch.get_rng_state(),
        "count": torch.tensor(7),
        "last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    values = {"loss": 0.1 + 0.2, "epoch": 3, "best": None, "history": [{"x": 1e-300}]}
    save_checkpoint(tmp_path / "c.safetensors", tensors, values)
    found, read = load_checkpoint(tmp_path / "c.safetensors")
    assert read == values
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize(
    ("kind", "settings"), [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9, "nesterov": True})]
)
def test_a_restored_optimiser_takes_the_same_steps(tmp_path, kind, settings):
    model, optimizer = trained(kind, **settings)
    tensors, plain = optimizer_state(optimizer)
    assert tensors
    save_checkpoint(tmp_path / "c.safetensors", {**tensors, **module_tensors("model", model)}, {"plain": plain})
    loaded, values = load_checkpoint(tmp_path / "c.safetensors")
    other, fresh = trained(kind, steps=0, **settings)
    restore_module("model", other, loaded)
    before = {name: value.clone() for name, value in loaded.items()}
    restore_optimizer(fresh, loaded, values["plain"])
    for _ in range(2):
        step(model, optimizer)
        step(other, fresh)
    # What was restored from can be gone back to.
    assert all(torch.equal(loaded[name], value) for name, value in before.items())
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    without, forgetful = trained(kind, steps=0, **settings)
    restore_module("model", without, loaded)
    for _ in range(2):
        step(without, forgetful)
    assert not torch.equal(without[0].weight, model[0].weight)


def test_a_restored_module_keeps_its_layout_in_memory():
    model = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    strides = model.weight.stride()
    restore_module("model", model, {"model.weight": torch.ones(3, 2, 3, 3), "model.bias": torch.ones(3)})
    assert model.weight.stride() == strides
    assert bool((model.weight == 1).all())


@pytest.mark.parametrize("keep", [0, 4, 40, 200])
def test_a_truncated_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"x": torch.rand(100)}, {"epoch": 1})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"c.safetensors: not a readable checkpoint .*; start again in a new folder"):
        load_checkpoint(path)


def test_another_schema_or_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "c.safetensors"
    for metadata in (None, {"gascnn": json.dumps({"schema": 99})}, {"gascnn": "[]"}):
        save_file({"x": torch.ones(1)}, path, metadata=metadata)
        with pytest.raises(FormatError, match=r"not a checkpoint of this version \(schema 1\)"):
            load_checkpoint(path)
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "missing.safetensors")


def test_tensors_that_do_not_fit_are_named():
    model = nn.Linear(2, 3)
    with pytest.raises(FormatError, match=r"tensor model.bias is missing in the checkpoint; expected shape \(3,\)"):
        restore_module("model", model, {"model.weight": torch.ones(3, 2)})
    with pytest.raises(FormatError, match=r"tensor model.weight is of shape \(2, 2\) in the checkpoint"):
        restore_module("model", model, {"model.weight": torch.ones(2, 2)})
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(FormatError, match=r"tensor optimizer.0.exp_avg of the checkpoint has shape \(5,\)"):
        restore_optimizer(optimizer, {"optimizer.0.exp_avg": torch.ones(5)}, {})
    with pytest.raises(FormatError, match=r"tensor optimizer.9.exp_avg of the checkpoint belongs to no parameter"):
        restore_optimizer(optimizer, {"optimizer.9.exp_avg": torch.ones(5)}, {})


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".last.safetensors.abc").mkdir()
    (tmp_path / ".last.safetensors.abc" / "last.safetensors").write_bytes(b"half")
    (tmp_path / ".mine").mkdir()
    (tmp_path / "last.safetensors").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "last.safetensors"]
