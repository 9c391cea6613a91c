"""Networks of one expression, and what they become."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gascnn.toolkit.conversion.ir import evaluate
from gascnn.toolkit.conversion.passes import PASSES
from gascnn.toolkit.conversion.trace import trace

SHAPE = (2, 8, 8)


class Net(nn.Module):
    """``forward`` is the function given; modules by keyword. Batch norms get statistics worth folding."""

    def __init__(self, function, **modules):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.3, 2)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, 0, 0.5)

    def forward(self, x):
        return self.function(self, x)


def rewritten(model, shape=SHAPE):
    """The traced operations after all passes."""
    graph = trace(model, shape)
    for rewrite in PASSES:
        rewrite(graph)
    return graph


def images(count=5, shape=SHAPE):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def assert_agree(model, shape=SHAPE):
    """The operations compute what the model computes; gives them."""
    graph = rewritten(model, shape)
    with torch.no_grad():
        expected = model.eval()(images(shape=shape))
    found = evaluate(graph, images(shape=shape), {graph.output.name})[graph.output.name]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert float(expected.std()) > 1e-3
    return graph


@pytest.fixture(scope="session")
def net():
    return Net


@pytest.fixture(scope="session")
def rewrite():
    return rewritten


@pytest.fixture(scope="session")
def assert_same():
    """Compares what the operations compute with what the model does; gives the operations."""
    return assert_agree
