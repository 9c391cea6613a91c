"""What torchrun leaves in the environment, and modules that several processes train."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.training.gan.processes import Processes, is_first, joined, started


@pytest.mark.parametrize("value", ["abc", "0", "-2", "1.5", "", "\u0664"])
def test_a_world_size_that_is_no_number_is_refused(value, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", value)
    for asked in (started, is_first, joined("cpu", 6).__enter__):
        with pytest.raises(UsageError, match=r"^WORLD_SIZE is .*; allowed: whole numbers from 1; .*torchrun$"):
            asked()


def test_a_world_size_alone_is_no_group(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(UsageError, match="WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT is not set; unset"),
        joined("cpu", 6),
    ):
        pass


def test_wrapping_a_module_warns_of_nothing_and_leaves_its_gradients(tmp_path):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    batch = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    module(batch).square().sum().backward()
    alone = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wrapped = Processes(0, 2, torch.device("cpu")).wrapped(module)
        assert wrapped is not module
        wrapped(batch).square().sum().backward()
    finally:
        dist.destroy_process_group()
    for parameter, expected in zip(module.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
